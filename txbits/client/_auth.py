"""
Passwords: Basic (RFC 7617) and Digest (RFC 7616), for servers and proxies.

Nothing is said before it is asked for. After that it is said with each request, until
the answer is not good enough any more.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from attrs import define, field, frozen

from txbits.client.settings import Credentials

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  a pattern

# A name, be it of a scheme or of a parameter, and what makes it one or the other; a
# token68, which our schemes do not have, is neither. A name is taken as a whole or not
# at all: with one that could be shortened, a server could keep us busy for a minute.
_NAME = re.compile(_TOKEN)
_VALUE = re.compile(
    rf'[ \t]*=[ \t]*(?:"(?P<quoted>[^"\\]*(?:\\.[^"\\]*)*)"|(?P<token>{_TOKEN}))'
)
_AFTER_SCHEME = re.compile(r"[ \t]|,|$")

#: The best first.
_ALGORITHMS = ("sha-256", "sha-256-sess", "md5", "md5-sess")

#: What makes their digests.
HASHES: Mapping[str, Callable[..., Any]] = {
    "sha-256": partial(hashlib.new, "sha256"),
    "md5": partial(hashlib.new, "md5"),
}

#: So many schemes are named, and so much of the name of each.
_NAMES = {"ntlm": "NTLM", "negotiate": "Negotiate", "bearer": "Bearer"}
_MOST_NAMED = 5
_LONGEST_NAME = 30

#: How much of a header is read, and of how many.
_LONGEST = 4 * 1024
_MOST = 16


@frozen
class Challenge:
    """
    One scheme that a server offers.

    :ivar scheme: Its name, in lower case.
    :ivar parameters: What comes with it; the names are in lower case.
    """

    scheme: str
    parameters: dict[str, str]


def parse_challenges(values: Sequence[bytes]) -> list[Challenge]:
    """Parse WWW-Authenticate or Proxy-Authenticate; skip what is invalid."""
    found: list[Challenge] = []
    for value in values[:_MOST]:
        text = value.decode("latin-1")[:_LONGEST]
        position = 0
        while position < len(text):
            name = _NAME.match(text, position)
            if name is None:
                position += 1
                continue
            position = name.end()
            parameter = _VALUE.match(text, position)
            if parameter is not None:
                position = parameter.end()
                quoted, token = parameter["quoted"], parameter["token"]
                plain = token if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
                if found:
                    found[-1].parameters.setdefault(name[0].lower(), plain)
            elif _AFTER_SCHEME.match(text, position):
                found.append(Challenge(name[0].lower(), {}))
    return found


def distinct(words: Iterable[str]) -> tuple[str, ...]:
    """Some names of schemes, each once."""
    return tuple(dict.fromkeys(words))[:_MOST_NAMED]


@define
class Authorizer:
    """
    Authenticates to one server, or one proxy.

    :ivar credentials: The credentials, if there are any.
    :ivar nonce: Makes client nonces.
    :ivar hashes: Makes digests; :class:`ValueError` is that the machine does not permit
        it, as those in FIPS mode do with MD5.
    """

    credentials: Credentials | None
    nonce: Callable[[], str] = lambda: secrets.token_hex(16)
    hashes: Mapping[str, Callable[..., Any]] = field(default=HASHES)
    _challenge: Challenge | None = field(init=False, default=None)
    _count: int = field(init=False, default=0)

    def challenged(self, values: Sequence[bytes]) -> bool:
        """
        Process a challenge.

        :param values: The values of its headers.
        :returns: Whether there is an answer that was not sent before.
        """
        best = self.best(values)
        before, self._challenge, self._count = self._challenge, best, 0
        if best is None:
            return False
        # The same challenge again means that the answer was wrong, unless the server
        # says that the nonce is stale.
        stale = best.parameters.get("stale", "").lower() == "true"
        return before is None or before.scheme != best.scheme or stale

    def describe(self, values: Sequence[bytes]) -> tuple[str, ...]:
        """
        Name the schemes that a server offers, each with what is in its way.

        :param values: The values of its headers.
        """
        return distinct(self.in_words(each) for each in parse_challenges(values))

    def answer(self, method: bytes, uri: bytes) -> bytes | None:
        """
        Get the value of the Authorization header for a request.

        :param method: The method of the request.
        :param uri: The request target.
        :returns: The value, or ``None`` if the server has not required credentials.
        """
        if self.credentials is None or self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            pair = f"{self.credentials.user}:{self.credentials.password}"
            return b"Basic " + b64encode(pair.encode("utf-8", "surrogateescape"))
        return self._digest(self.credentials, self._challenge.parameters, method, uri)

    def _digest(
        self,
        credentials: Credentials,
        parameters: dict[str, str],
        method: bytes,
        uri: bytes,
    ) -> bytes:
        algorithm = parameters.get("algorithm", "MD5")
        new = self._hash(algorithm)
        if new is None:
            raise ValueError(f"cannot compute a digest with {algorithm}")

        def digest(*parts: str) -> str:
            text = ":".join(parts).encode("utf-8", "surrogateescape")
            made: str = new(text).hexdigest()
            return made

        realm, nonce = parameters.get("realm", ""), parameters.get("nonce", "")
        target = uri.decode("latin-1")
        self._count += 1
        count, client_nonce = f"{self._count:08x}", self.nonce()
        secret = digest(credentials.user, realm, credentials.password)
        if algorithm.lower().endswith("-sess"):
            secret = digest(secret, nonce, client_nonce)
        request = digest(method.decode("ascii"), target)
        fields = [
            f'username="{_quoted(credentials.user)}"',
            f'realm="{_quoted(realm)}"',
            f'nonce="{_quoted(nonce)}"',
            f'uri="{_quoted(target)}"',
            f"algorithm={algorithm}",
        ]
        if "qop" in parameters:
            response = digest(secret, nonce, count, client_nonce, "auth", request)
            fields += ["qop=auth", f"nc={count}", f'cnonce="{client_nonce}"']
        else:
            response = digest(secret, nonce, request)
        fields.append(f'response="{response}"')
        if "opaque" in parameters:
            fields.append(f'opaque="{_quoted(parameters["opaque"])}"')
        return ("Digest " + ", ".join(fields)).encode("utf-8")

    def best(self, values: Sequence[bytes]) -> Challenge | None:
        """
        Find the challenge to answer: Digest before Basic, which reveals the password.

        :param values: The values of the headers.
        """
        if self.credentials is None:
            return None
        challenges = parse_challenges(values)
        digests = [c for c in challenges if c.scheme == "digest" and _is_known(c)]
        for algorithm in _ALGORITHMS:
            for challenge in digests:
                if _algorithm(challenge) == algorithm and self._hash(algorithm):
                    return challenge
        return next((c for c in challenges if c.scheme == "basic"), None)

    def _hash(self, algorithm: str) -> Callable[..., Any] | None:
        new = self.hashes.get(algorithm.lower().removesuffix("-sess"))
        if new is None:
            return None
        try:
            new(b"")
        except ValueError:
            return None
        return new

    def in_words(self, challenge: Challenge) -> str:
        """Name a scheme, with what is in its way."""
        if challenge.scheme == "basic":
            return "Basic"
        if challenge.scheme != "digest":
            name = _NAMES.get(challenge.scheme, challenge.scheme[:_LONGEST_NAME])
            return f"{name} (not supported)"
        algorithm = _algorithm(challenge)
        name = f"Digest with {algorithm[:_LONGEST_NAME].upper()}"
        if not _is_known(challenge) or algorithm not in _ALGORITHMS:
            return f"{name} (this form is not supported)"
        if self._hash(algorithm) is None:
            return f"{name} (not permitted on this machine; FIPS mode?)"
        return name


def _algorithm(challenge: Challenge) -> str:
    return challenge.parameters.get("algorithm", "MD5").lower()


def _is_known(challenge: Challenge) -> bool:
    # Without qop it is a digest of RFC 2069; auth-int alone hashes the body.
    qop = challenge.parameters.get("qop")
    return qop is None or "auth" in [each.strip().lower() for each in qop.split(",")]


def _quoted(text: str) -> str:
    return re.sub(r'(["\\])', r"\\\1", text)
