"""
Upload links: signed URLs that let somebody without an account send files.

A link is a parameter in the query of a URL, ``txbits-link``, which BITS clients send
with every packet. It says where files may go, how long they may be and when it expires,
and is signed with a key of the server. It is valid in one virtual directory only, even
if others have the same keys.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable
from urllib.parse import quote, unquote_to_bytes

from attrs import define, field, frozen
from itsdangerous import BadData, URLSafeSerializer
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from txbits.access._files import read_secret_file, secret_lines
from txbits.clocks import Wall
from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import (
    Credentials,
    Grant,
    IAuthenticator,
    Identity,
    IKnowing,
    Scope,
    checked_user_name,
)
from txbits.protocol.urls import LINK_PARAMETER, links_of

#: A shorter key can be found by trying.
SHORTEST_KEY = 32

#: So many keys are enough to rotate them; each costs time for every forged link.
MOST_KEYS = 8

#: The maximum length of a signed link, in bytes. Longer ones are not looked at.
LONGEST_LINK = 1500

_LONGEST_FILE = 64 * 1024

# A signature for another purpose, with the same key, is not a link.
_SALT = b"txbits upload link 1"

#: A link that is good once stays claimed for so many seconds after it has expired for
#: sure: clocks of nodes differ, and an operator may set a longer grace.
_CLAIM_STAYS = 30 * 24 * 3600.0

#: The latest time that a link can expire, in seconds since the epoch: the year 5138.
_LATEST = 10**11


@frozen
class Link:
    """
    What a link permits.

    :ivar id: Tells it from all other links.
    :ivar mount: The virtual directory, see :func:`canonical_mount`.
    :ivar path: Where files may go: percent-decoded segments below the mount.
    :ivar is_tree: Whether *path* is a folder, and files may go anywhere below it.
    :ivar expires: When it expires, in seconds since the epoch.
    :ivar max_size: The maximum length of a file, in bytes; ``None`` for any.
    :ivar name: Whom it is for; its sessions belong to ``link/`` and this name.
    :ivar is_once: Whether only one file is ever published with it.
    """

    id: str
    mount: str
    path: tuple[str, ...]
    is_tree: bool
    expires: int
    max_size: int | None
    name: str
    is_once: bool

    def scope(self, grace: float, *, has_expired: bool) -> Scope:
        """
        The permission that it is.

        :param grace: For how many seconds it serves open sessions after it has expired.
        """
        grant = Grant(
            overwrite=False,
            max_size=self.max_size,
            claim=f"link/{self.id}" if self.is_once else None,
            claim_until=self.expires + grace + _CLAIM_STAYS,
        )
        return Scope(self.path, self.is_tree, grant, has_expired)


def new_id() -> str:
    """Make the id of a new link."""
    return secrets.token_hex(6)


def canonical_mount(mount: str) -> str:
    """
    Return the only spelling of a virtual directory's URL prefix.

    :param mount: Such as ``/``, ``/logs`` or ``/a%20b/``.
    """
    segments = [unquote_to_bytes(one) for one in mount.strip("/").split("/") if one]
    return "/" + "/".join(quote(one, safe="") for one in segments)


@frozen(repr=False)
class LinkKeys:
    """
    The keys that sign links.

    :param keys: The first signs; all verify, so that keys can be replaced one after
        the other.
    """

    _keys: tuple[bytes, ...] = field(converter=tuple[bytes, ...])
    _serializer: URLSafeSerializer = field(init=False, eq=False)

    def __attrs_post_init__(self) -> None:
        _check_keys(self._keys)
        serializer = URLSafeSerializer(
            # The library signs with the last one.
            list(reversed(self._keys)),
            salt=_SALT,
            # Its defaults are SHA-1, and a hash of the key for each purpose.
            signer_kwargs={"digest_method": hashlib.sha256, "key_derivation": "hmac"},
        )
        object.__setattr__(self, "_serializer", serializer)

    @classmethod
    def read(cls, path: str) -> LinkKeys:
        """
        Read a file with one key on each line. It blocks.

        :raises InvalidSetting: In one line, if it cannot be used.
        """
        content = read_secret_file(path, "keys of upload links", _LONGEST_FILE)
        lines = secret_lines(path, content)
        try:
            return cls(line.encode() for _, line in lines)
        except InvalidSetting as error:
            raise InvalidSetting(f"{path} {error}") from None

    @staticmethod
    def new_key() -> str:
        """Make a key, as a line of the file has it."""
        return secrets.token_urlsafe(SHORTEST_KEY)

    def sign(self, link: Link) -> str:
        """
        Sign a link.

        :returns: The value of the parameter, without characters that URLs encode.
        :raises InvalidSetting: If it is too long.
        """
        path = "/".join(link.path) + ("/" if link.is_tree and link.path else "")
        what = [
            link.id,
            link.mount,
            path,
            link.expires,
            link.name if link.name != link.id else "",
            link.max_size or 0,
            int(link.is_once),
        ]
        signed = self._serializer.dumps(what)
        signed = signed.decode("ascii") if isinstance(signed, bytes) else signed
        if len(signed) > LONGEST_LINK:
            raise InvalidSetting("path and name are too long for a link")
        return signed

    def verify(self, signed: bytes) -> Link:
        """
        Read a link.

        :param signed: The value of the parameter, as a client sent it.
        :returns: The link, which may have expired.
        :raises CredentialsRejected: If no key has signed it.
        """
        if len(signed) > LONGEST_LINK:
            raise CredentialsRejected("the link is too long")
        try:
            what = self._serializer.loads(signed)
            return _read(what)
        except BadData:
            # Its text has the signature in it.
            raise CredentialsRejected("no key has signed the link") from None
        except (TypeError, ValueError):
            raise CredentialsRejected("the link is from another version") from None


def _check_keys(keys: tuple[bytes, ...]) -> None:
    if not keys:
        raise InvalidSetting(
            "contains no key; txbits link --new-key makes one, for a line of its own"
        )
    if len(keys) > MOST_KEYS:
        raise InvalidSetting(f"contains more than {MOST_KEYS} keys; remove old ones")
    for number, key in enumerate(keys, 1):
        if len(key) < SHORTEST_KEY:
            raise InvalidSetting(
                f"contains a key of {len(key)} bytes (number {number}), and "
                f"{SHORTEST_KEY} are the minimum; txbits link --new-key makes one"
            )
    if len(set(keys)) != len(keys):
        raise InvalidSetting("contains a key twice")


def _read(what: object) -> Link:
    """
    Read what was signed.

    :raises ValueError: If it has another form than ours, like TypeError.
    """
    if not isinstance(what, list):
        raise TypeError("not a list")
    link_id, mount, path, expires, name, max_size, is_once = what
    texts, numbers = (link_id, mount, path, name), (expires, max_size, is_once)
    if not all(isinstance(one, str) for one in texts) or not all(
        isinstance(one, int) and one >= 0 for one in numbers
    ):
        raise TypeError("not the right types")
    is_tree = not path or path.endswith("/")
    segments = tuple(path.removesuffix("/").split("/")) if path else ()
    return Link(
        link_id,
        mount,
        segments,
        is_tree,
        expires,
        max_size or None,
        name or link_id,
        bool(is_once),
    )


def _as_set(names: Iterable[str]) -> frozenset[str]:
    return frozenset(names)


@implementer(IAuthenticator, IKnowing)
@define(eq=False, repr=False)
class LinkAuthenticator:
    """
    Lets who has an upload link send files; see :class:`~txbits.interfaces.Scope`.

    :param keys: Verify the links.
    :param mount: The virtual directory; links for others are not valid.
    :param revoked: Names or ids of links that are not valid any more.
    :param grace: For how many seconds an expired link serves sessions that were open
        when it expired.
    :param wall: Tells seconds since the epoch.
    """

    scheme = "link"
    strength = 0

    _keys: LinkKeys
    _mount: str = field(default="/", kw_only=True, converter=canonical_mount)
    _revoked: frozenset[str] = field(
        default=frozenset(), kw_only=True, converter=_as_set
    )
    _grace: float = field(default=14 * 24 * 3600.0, kw_only=True)
    _wall: Wall = field(default=time.time, kw_only=True)

    def challenge(self, credentials: Credentials) -> bytes | None:
        """Nothing asks a client for a link."""
        return None

    def knows(self, name: str) -> bool:
        """Nobody: a link is in the URL of each packet."""
        return False

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        """Look for a link; see :class:`~txbits.interfaces.IAuthenticator`."""
        if LINK_PARAMETER.encode() not in credentials.query and (
            b"%" not in credentials.query
        ):
            return succeed(None)
        found = links_of(credentials.query)
        if not found:
            return succeed(None)
        try:
            return succeed(self._identity(found))
        except CredentialsRejected as error:
            return fail(error)

    def _identity(self, found: list[bytes]) -> Identity:
        if len(found) > 1:
            raise CredentialsRejected("the URL has more than one link")
        link = self._keys.verify(found[0])
        if link.mount != self._mount:
            raise CredentialsRejected(
                f"link {link.id} of {link.name!a} is for {link.mount}"
            )
        if is_revoked(link, self._revoked):
            raise CredentialsRejected(f"link {link.id} of {link.name!a} is revoked")
        now = self._wall()
        if now >= link.expires + self._grace:
            raise CredentialsRejected(f"link {link.id} of {link.name!a} has expired")
        name = f"link/{checked_user_name(link.name)}"
        scope = link.scope(self._grace, has_expired=now >= link.expires)
        return Identity(name, self.scheme, scope=scope)


def is_revoked(link: Link, revoked: Iterable[str]) -> bool:
    """
    Tell whether a link is revoked.

    :param revoked: Names or ids of links.
    """
    return any(one in (link.id, link.name) for one in revoked)
