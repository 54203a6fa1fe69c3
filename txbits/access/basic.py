"""
The scheme ``basic``: names and passwords (RFC 7617), from a file that ``htpasswd -B``
writes.
"""

from __future__ import annotations

import re
from binascii import Error as NotBase64
from binascii import a2b_base64
from collections.abc import Mapping

import bcrypt
from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from txbits.access._checks import Checks
from txbits.access._files import read_secret_file, secret_lines
from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import (
    Credentials,
    IAuthenticator,
    Identity,
    IKnowing,
    checked_user_name,
)

#: The longest password file, in bytes: 100,000 users have 8 MB.
_LONGEST_FILE = 64 * 1024 * 1024

#: The bytes of a password that count. bcrypt ignores the others, as htpasswd does; the
#: bcrypt package refuses them.
_LONGEST_PASSWORD = 72

#: The highest cost of htpasswd. Such a hash takes seconds.
_HIGHEST_COST = 17

# What crypt(3) calls bcrypt, but for $2x$, which is that of a faulty implementation.
_BCRYPT = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{53}")

# RFC 7617 2: neither the name nor the password may have any.
_CONTROL = re.compile(rb"[\0-\x1f\x7f]")


@frozen(eq=False)
class Passwords:
    """
    Users and the hashes of their passwords.

    :param hashes: The bcrypt hash of each user.
    """

    _hashes: Mapping[str, bytes] = field(repr=False)
    _listed: tuple[bytes, ...] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_listed", tuple(self._hashes.values()))

    @classmethod
    def read(cls, path: str) -> Passwords:
        """
        Read a file with a line such as ``alice:$2y$12$...`` for each user. This blocks.

        :raises InvalidSetting: If it cannot be used. The text is one line that names
            the line of the file, but has no hash.
        """
        wanted = "lines of htpasswd -B"
        content = read_secret_file(path, wanted, _LONGEST_FILE)
        users: dict[str, bytes] = {}
        for number, line in secret_lines(path, content):
            name, stored = _entry(f"{path}: line {number}", line)
            if name in users:
                raise InvalidSetting(
                    f"{path}: line {number} names {name!a} again; remove one of the two"
                )
            users[name] = stored
        if not users:
            raise InvalidSetting(f"{path} has no users; it must contain {wanted}")
        return cls(users)

    def stored(self, name: str) -> bytes | None:
        """The hash of a user; ``None`` if there is no such user."""
        return self._hashes.get(name)

    def stand_in(self, number: int) -> bytes:
        """
        A hash to compare with for a name that does not exist, so that it costs what
        the others cost.

        :param number: Chooses one of the file's hashes, which may differ in cost.
        """
        return self._listed[number % len(self._listed)]


def _entry(where: str, line: str) -> tuple[str, bytes]:
    name, colon, stored = line.partition(":")
    if not colon:
        raise InvalidSetting(f"{where} has no colon; write NAME:HASH")
    try:
        checked_user_name(name)
    except CredentialsRejected as error:
        raise InvalidSetting(f"{where}: {error}") from None
    found = _BCRYPT.fullmatch(stored)
    if found is None:
        raise InvalidSetting(
            f"{where}: the hash of {name!a} is not one of bcrypt; run htpasswd -B "
            "for this user"
        )
    if not 4 <= int(found[1]) <= _HIGHEST_COST:
        raise InvalidSetting(
            f"{where}: the cost of the hash of {name!a} is not from 4 to "
            f"{_HIGHEST_COST}; run htpasswd -B -C 12 for this user"
        )
    return name, stored.encode()


def read_basic(value: bytes) -> tuple[str, bytes]:
    """
    Read what follows ``Basic`` in an Authorization header.

    Windows sends UTF-8, or the bytes of its code page.

    :returns: The name, and the password in UTF-8.
    :raises CredentialsRejected: If it is malformed.
    """
    try:
        pair = a2b_base64(value, strict_mode=True)
    except NotBase64:
        raise CredentialsRejected("the Basic credentials are not base64") from None
    if not pair.isascii():
        pair = _in_utf_8(pair)
    name, colon, password = pair.partition(b":")
    if not colon or _CONTROL.search(pair):
        raise CredentialsRejected(
            "the Basic credentials have no colon, or a control character"
        )
    return name.decode(), password


def _in_utf_8(text: bytes) -> bytes:
    for encoding in ("utf-8", "cp1252"):
        try:
            return text.decode(encoding).encode()
        except UnicodeDecodeError:
            continue
    # It has a code for every byte.
    return text.decode("latin-1").encode()


def basic_challenge(realm: str) -> bytes:
    """The value of WWW-Authenticate."""
    return b'Basic realm="%b", charset="UTF-8"' % quoted_realm(realm)


def quoted_realm(realm: str) -> bytes:
    """
    A realm for a challenge, without its quotation marks.

    :raises InvalidSetting: If clients cannot be told that.
    """
    if not realm.isascii() or not realm.isprintable():
        raise InvalidSetting(f"{realm!a} cannot be a realm; use printable ASCII")
    return realm.replace("\\", "\\\\").replace('"', '\\"').encode()


@implementer(IAuthenticator, IKnowing)
class BasicAuthenticator:
    """
    Checks names and passwords of HTTP Basic authentication.

    A hash takes as long as its cost says, in a thread with a bounded queue. A success
    is remembered for ten minutes together with the hash, and does not outlive it.
    Failures are limited by name and by address: then clients are asked to try later,
    since a job of Windows ends when it is refused.

    :param reactor: The reactor.
    :param passwords: The users.
    :param realm: What clients show to the user who has to type a password.
    :param checks: What remembers and limits them; by default, a new one.
    """

    scheme = "basic"
    strength = 100

    def __init__(
        self,
        reactor: object,
        passwords: Passwords,
        *,
        realm: str = "txbits",
        checks: Checks | None = None,
    ) -> None:
        self._passwords = passwords
        self._challenge = basic_challenge(realm)
        self._checks = Checks(reactor) if checks is None else checks

    def adopt(self, previous: BasicAuthenticator) -> None:
        """Go on with what the authenticator remembers that this one replaces."""
        self._checks = previous._checks

    def challenge(self, credentials: Credentials) -> bytes | None:
        """Ask for a name and a password."""
        return self._challenge

    def knows(self, name: str) -> bool:
        """See :class:`~txbits.interfaces.IKnowing`."""
        return self._passwords.stored(name) is not None

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        """See :class:`~txbits.interfaces.IAuthenticator`."""
        said = credentials.authorization
        if said is None or said[0] != "basic":
            return succeed(None)
        checks = self._checks
        key = checks.key(said[1])
        known = checks.known(key, self._passwords.stored)
        if known is not None:
            return succeed(known)
        try:
            name, password = read_basic(said[1])
        except CredentialsRejected as error:
            return fail(error)
        stored = self._passwords.stored(name)
        identity = None if stored is None else Identity(name, self.scheme)
        if stored is None:
            # The same name always gets the same, as a user has one hash.
            chosen = int.from_bytes(checks.key(name.encode())[:8], "big")
            stored = self._passwords.stand_in(chosen)

        def begin(is_urgent: bool) -> Deferred[Identity | None]:
            work = checks.queue.call(
                bcrypt.checkpw,
                password[:_LONGEST_PASSWORD],
                stored,
                is_urgent=is_urgent,
            )
            return work.addCallback(lambda is_right: identity if is_right else None)

        return checks.ask(key, stored, name, credentials.address, begin)
