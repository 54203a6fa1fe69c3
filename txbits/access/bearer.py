"""
The scheme ``bearer``: tokens (RFC 6750), from a file, or of an issuer.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime, time
from hmac import compare_digest
from typing import Any

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from txbits.access._files import read_secret_file, secret_lines
from txbits.access.basic import quoted_realm
from txbits.access.jwt import JWTVerifier
from txbits.clocks import wall_of
from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import (
    Credentials,
    IAuthenticator,
    Identity,
    IKnowing,
    checked_user_name,
)

_LONGEST_FILE = 16 * 1024 * 1024

_WANTED = "lines such as NAME:HASH:GROUPS:EXPIRES"

# RFC 6750 2.1
_TOKEN = re.compile(rb"[-._~+/A-Za-z0-9]+=*")

_HASH = re.compile(r"[0-9a-f]{64}")


@frozen
class _Token:
    """
    A token.

    :ivar digest: Its hash.
    :ivar identity: Who has it.
    :ivar ends: When it expires, in seconds since the epoch.
    """

    digest: bytes = field(repr=False)
    identity: Identity
    ends: float


@frozen(eq=False)
class Tokens:
    """
    Tokens by their hashes.

    The hash is SHA-256, without a salt, and fast. That is right for 32 random bytes,
    unlike for passwords: nobody can try all of them, or make a table, however fast a
    try is. And every packet has to be checked.
    """

    _tokens: Mapping[bytes, _Token] = field(repr=False)
    _ends: Mapping[str, float] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        ends: dict[str, float] = {}
        for one in self._tokens.values():
            name = one.identity.name
            ends[name] = max(one.ends, ends.get(name, 0.0))
        object.__setattr__(self, "_ends", ends)

    @classmethod
    def read(cls, path: str) -> Tokens:
        """
        Read a file with a line such as ``NAME:HASH:GROUPS:EXPIRES`` for each token.
        This blocks.

        :raises InvalidSetting: If it cannot be used. The text is one line that names
            the line of the file, but has no hash.
        """
        content = read_secret_file(path, _WANTED, _LONGEST_FILE)
        tokens: dict[bytes, _Token] = {}
        for number, line in secret_lines(path, content):
            where = f"{path}: line {number}"
            token = _entry(where, line)
            if token.digest in tokens:
                raise InvalidSetting(f"{where} has the hash of another line")
            tokens[token.digest] = token
        if not tokens:
            raise InvalidSetting(f"{path} has no tokens; it must contain {_WANTED}")
        return cls(tokens)

    def last_end(self, name: str) -> float:
        """
        When the last token of a user expires, in seconds since the epoch; 0 without.
        """
        return self._ends.get(name, 0.0)

    def find(self, token: bytes) -> tuple[Identity, float] | None:
        """
        Find a token.

        :returns: Who has it, and when it expires, in seconds since the epoch; ``None``
            if there is no such token.
        """
        # How long the look-up takes depends on the digest only. Nobody can choose a
        # token by its digest, so nobody learns of one byte after the other.
        digest = hashlib.sha256(token).digest()
        found = self._tokens.get(digest)
        if found is None or not compare_digest(found.digest, digest):
            return None
        return found.identity, found.ends


def _entry(where: str, line: str) -> _Token:
    name, _, rest = line.partition(":")
    stored, _, rest = rest.partition(":")
    groups, _, expires = rest.partition(":")
    try:
        checked_user_name(name)
    except CredentialsRejected as error:
        raise InvalidSetting(f"{where}: {error}") from None
    if not _HASH.fullmatch(stored.lower()):
        raise InvalidSetting(
            f"{where}: the hash of {name!a} is not the SHA-256 of a token, in 64 "
            "hexadecimal digits"
        )
    listed = frozenset(one.strip() for one in groups.split(",") if one.strip())
    return _Token(
        bytes.fromhex(stored),
        Identity(name, "bearer", listed),
        _end(where, expires.strip()),
    )


def _end(where: str, text: str) -> float:
    if not text:
        return float("inf")
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is not None and len(text) == len("2027-01-31"):
        # All of that day.
        found = datetime.combine(found, time.max, UTC)
    if found is None or found.tzinfo is None:
        raise InvalidSetting(
            f"{where}: {text[:40]!a} is no time; write a day, such as 2027-01-31, or "
            "a time with its zone, such as 2027-01-31T12:00:00Z"
        )
    return found.timestamp()


@implementer(IAuthenticator, IKnowing)
class BearerAuthenticator:
    """
    Checks tokens that clients send with each packet.

    :param reactor: Its wall clock tells which tokens have expired.
    :param tokens: Tokens from a file.
    :param jwt: Verifies the tokens of an issuer.
    :param realm: What clients show.
    :raises InvalidSetting: If there is nothing to check tokens by.
    """

    scheme = "bearer"
    strength = 200

    def __init__(
        self,
        reactor: Any,
        *,
        tokens: Tokens | None = None,
        jwt: JWTVerifier | None = None,
        realm: str = "txbits",
    ) -> None:
        if tokens is None and jwt is None:
            raise InvalidSetting("bearer requires a file of tokens or an issuer")
        self._tokens = tokens
        self._jwt = jwt
        self._wall = wall_of(reactor)
        self._challenge = b'Bearer realm="%b"' % quoted_realm(realm)

    def adopt(self, previous: BearerAuthenticator) -> None:
        """Go on with keys that were fetched, see :class:`JWTVerifier`."""
        if self._jwt is not None and previous._jwt is not None:
            self._jwt.adopt(previous._jwt)

    def challenge(self, credentials: Credentials) -> bytes | None:
        """Ask for a token, or for another one (RFC 6750 3)."""
        said = credentials.authorization
        if said is not None and said[0] == "bearer":
            return self._challenge + b', error="invalid_token"'
        return self._challenge

    def knows(self, name: str) -> bool:
        """See :class:`~txbits.interfaces.IKnowing`. An issuer knows anybody."""
        if self._jwt is not None or self._tokens is None:
            return True
        return self._tokens.last_end(name) >= self._wall()

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        """See :class:`~txbits.interfaces.IAuthenticator`."""
        said = credentials.authorization
        if said is None or said[0] != "bearer":
            return succeed(None)
        token = said[1]
        if not _TOKEN.fullmatch(token):
            return fail(CredentialsRejected("the Bearer token is malformed"))
        found = None if self._tokens is None else self._tokens.find(token)
        if found is not None:
            identity, ends = found
            if self._wall() > ends:
                return fail(
                    CredentialsRejected(f"the token of {identity.name!a} has expired")
                )
            return succeed(identity)
        if self._jwt is not None:
            verified: Deferred[Any] = self._jwt.verify(token)
            return verified
        return fail(CredentialsRejected("there is no such token"))
