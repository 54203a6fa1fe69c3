"""
JSON Web Tokens (RFC 7519): names that an issuer vouches for, such as Entra ID, Keycloak
or a build server.
"""

from __future__ import annotations

import hashlib
import json
import re
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from collections import OrderedDict
from typing import Any, TypeGuard

from attrs import frozen
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS
from twisted.web.iweb import IPolicyForHTTPS

from txbits._deferreds import deferred
from txbits.clocks import steady, wall_of
from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import Identity, checked_user_name

#: The longest token, in bytes.
_LONGEST = 8192

#: How many verified tokens are remembered.
_MOST_KNOWN = 1000

#: For how many seconds.
_LIFE = 300.0

#: The most groups that a token may name.
_MOST_GROUPS = 1000

#: No token has a later time, in seconds since the epoch.
_LAST = 2**53

_FORM = re.compile(rb"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


def looks_like_jwt(token: bytes) -> bool:
    """Whether a token has the form of a signed JSON Web Token."""
    return _FORM.fullmatch(token) is not None


@frozen
class _Claims:
    """
    What a token says, if it is valid.

    :ivar identity: Who sends it.
    :ivar begins: Since when it is valid, in seconds since the epoch.
    :ivar ends: Until when.
    """

    identity: Identity
    begins: float
    ends: float


@frozen
class _Known:
    """
    A token whose signature was verified.

    :ivar claims: What it says.
    :ivar until: When it has to be verified again, by the steady clock: the issuer may
        have withdrawn its key.
    """

    claims: _Claims
    until: float


class JWTVerifier:
    """
    Verifies JSON Web Tokens of one issuer.

    A token must be signed by a key of the issuer, with RSA, ECDSA or Ed25519. Its
    claims ``iss``, ``aud``, ``exp`` and, if there, ``nbf`` are checked.

    :param reactor: Makes connections, and is the clock.
    :param issuer: What ``iss`` must be.
    :param audience: What ``aud`` must be, or contain: the name by which the issuer
        knows this server.
    :param keys: The issuer's key set: the URL where it is published, or the path of a
        file, which is read at once.
    :param name_claim: The claim that has the name of the user.
    :param groups_claim: The claim that lists groups; it need not be there.
    :param leeway: The seconds by which clocks may differ.
    :param policy: Which certificates to trust for the URL; by default, the system's.
    :raises InvalidSetting: If one of them cannot be used, or joserfc is missing.
    """

    def __init__(
        self,
        reactor: Any,
        *,
        issuer: str,
        audience: str,
        keys: str,
        name_claim: str = "sub",
        groups_claim: str = "groups",
        leeway: float = 30.0,
        policy: IPolicyForHTTPS | None = None,
    ) -> None:
        try:
            from txbits.access import _jwks, _key_source
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "joserfc":
                raise
            raise InvalidSetting(
                "tokens of an issuer need joserfc; install it with "
                "pip install 'txbits[jwt]'"
            ) from error
        if not issuer or not audience or not name_claim:
            raise InvalidSetting("issuer, audience and name claim must not be empty")
        self._issuer = issuer
        self._audience = audience
        self._name_claim = name_claim
        self._groups_claim = groups_claim
        self._leeway = leeway
        self._clock = steady(reactor)
        self._wall = wall_of(reactor)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._signatures = _jwks
        self._keys: _key_source.FixedKeys | _key_source.FetchedKeys
        if keys.lower().startswith(("https:", "http:")):
            trust = policy or BrowserLikePolicyForHTTPS()
            agent = Agent(reactor, trust, connectTimeout=10)
            self._keys = _key_source.FetchedKeys(keys, agent, reactor)
        else:
            self._keys = _key_source.FixedKeys(keys)

    def adopt(self, previous: JWTVerifier) -> None:
        """Go on with the keys that the verifier has fetched that this one replaces."""
        before = getattr(previous._keys, "url", None)
        if before is not None and before == getattr(self._keys, "url", None):
            self._keys = previous._keys

    @deferred
    async def verify(self, token: bytes) -> Identity:
        """
        Verify a token.

        :returns: A Deferred that fires with who sends it. It fails with
            :class:`~txbits.errors.CredentialsRejected` if the token is not valid, or
            with :class:`~txbits.errors.CredentialsUncheckable` if that cannot be known
            without keys of the issuer that are not there.
        """
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is not None and known.until > self._clock.seconds():
            self._require_time(known.claims)
            return known.claims.identity
        claims = await self._verified(token)
        self._known[digest] = _Known(claims, self._clock.seconds() + _LIFE)
        self._known.move_to_end(digest)
        if len(self._known) > _MOST_KNOWN:
            self._known.popitem(last=False)
        return claims.identity

    async def _verified(self, token: bytes) -> _Claims:
        if len(token) > _LONGEST or not looks_like_jwt(token):
            raise CredentialsRejected("the token is malformed or too long")
        head, payload, _ = token.split(b".")
        algorithm, kid = self._header(_json(head))
        # Before the signature: no keys are fetched for what is of no use.
        claims = self._claims(_json(payload))
        self._require_time(claims)
        keys = await self._keys.find(algorithm, kid)
        if not keys:
            raise CredentialsRejected("no key of the issuer has signed the token")
        self._signatures.require_signature(token, algorithm, keys)
        return claims

    def _header(self, header: dict[str, Any]) -> tuple[str, str | None]:
        algorithm, kid = header.get("alg"), header.get("kid")
        if not self._signatures.is_allowed(algorithm):
            raise CredentialsRejected("the token is signed by no allowed algorithm")
        # RFC 7515 4.1.11: it lists extensions that must be understood.
        if "crit" in header or not isinstance(kid, str | None):
            raise CredentialsRejected("the header of the token is not supported")
        return str(algorithm), kid

    def _claims(self, claims: dict[str, Any]) -> _Claims:
        if claims.get("iss") != self._issuer:
            raise CredentialsRejected("the token is from another issuer")
        audience = claims.get("aud")
        if self._audience not in (
            audience if isinstance(audience, list) else [audience]
        ):
            raise CredentialsRejected("the token is for another audience")
        begins, ends = claims.get("nbf", 0), claims.get("exp")
        if not _is_time(begins) or not _is_time(ends):
            raise CredentialsRejected("the times of the token are missing or malformed")
        name = claims.get(self._name_claim)
        if not isinstance(name, str):
            raise CredentialsRejected(
                f"the token has no name in the claim {self._name_claim}"
            )
        identity = Identity(checked_user_name(name), "bearer", self._groups(claims))
        return _Claims(identity, begins, ends)

    def _groups(self, claims: dict[str, Any]) -> frozenset[str]:
        groups = claims.get(self._groups_claim) or []
        if isinstance(groups, str):
            groups = [groups]
        if (
            not isinstance(groups, list)
            or len(groups) > _MOST_GROUPS
            or not all(isinstance(one, str) for one in groups)
        ):
            raise CredentialsRejected("the groups of the token are malformed")
        return frozenset(groups)

    def _require_time(self, claims: _Claims) -> None:
        now = self._wall()
        if now >= claims.ends + self._leeway:
            raise CredentialsRejected(
                f"the token of {claims.identity.name[:80]!a} has expired"
            )
        if now < claims.begins - self._leeway:
            raise CredentialsRejected(
                f"the token of {claims.identity.name[:80]!a} is not valid yet"
            )


def _is_time(value: object) -> TypeGuard[float]:
    # Neither NaN nor infinity, which Python reads in JSON.
    return type(value) in (int, float) and 0 <= value < _LAST  # type: ignore[operator]


def _json(part: bytes) -> dict[str, Any]:
    try:
        found = json.loads(urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (NotBase64, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CredentialsRejected("the token is malformed")
    return found
