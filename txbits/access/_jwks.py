"""
Public keys (RFC 7517), and the signatures that they verify (RFC 7515). This needs
joserfc.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from attrs import frozen
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, deserialize_compact

from txbits.errors import CredentialsRejected

#: The algorithms, and the keys that each needs. None of them works with a secret that
#: both sides know: with HS256, a public key could be taken for that secret.
_KEYS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}

_TYPES: Mapping[str, Any] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}

# What signs is of no use here, and should not be here.
_PRIVATE = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})

_MOST_KEYS = 100

_SHORTEST_RSA = 2048
_LONGEST_RSA = 16384

#: Parameters of headers that are not registered are ignored, as RFC 7515 requires.
_REGISTRY = JWSRegistry(algorithms=list(_KEYS), strict_check_header=False)


def is_allowed(algorithm: object) -> bool:
    """Whether tokens may be signed with an algorithm."""
    return isinstance(algorithm, str) and algorithm in _KEYS


class UnusableKeys(ValueError):
    """A key set cannot be used; the text says why."""


@frozen
class _Key:
    """
    A key.

    :ivar key: As joserfc has it.
    :ivar kind: Its type and its curve.
    :ivar kid: Its id, if it has one.
    :ivar algorithm: The only algorithm that it may be used with, if there is one.
    """

    key: Any
    kind: tuple[str, str | None]
    kid: str | None
    algorithm: str | None


@frozen(eq=False)
class Keys:
    """The public keys of an issuer."""

    _keys: tuple[_Key, ...]

    @classmethod
    def parse(cls, content: bytes) -> Keys:
        """
        Read a key set. Keys for other purposes are left out.

        :raises UnusableKeys: If it is none, or no key is left.
        """
        try:
            listed = json.loads(content)["keys"]
        except (ValueError, KeyError, TypeError, RecursionError):
            listed = None
        if not isinstance(listed, list):
            raise UnusableKeys("it is no JSON Web Key Set")
        if len(listed) > _MOST_KEYS:
            raise UnusableKeys(f"it has more than {_MOST_KEYS} keys")
        found = [_key(one) for one in listed if isinstance(one, dict)]
        keys = tuple(one for one in found if one is not None)
        if not keys:
            raise UnusableKeys(
                "it has no public key for signatures: RSA, EC or Ed25519"
            )
        return cls(keys)

    def find(self, algorithm: str, kid: str | None) -> list[Any]:
        """
        The keys that may have made a signature.

        :param kid: The id that the token names; ``None`` if it names none.
        """
        return [
            one.key
            for one in self._keys
            if one.kind == _KEYS[algorithm]
            and one.algorithm in (None, algorithm)
            and kid in (None, one.kid)
        ]


def _key(entry: dict[str, Any]) -> _Key | None:
    kind, kid = entry.get("kty"), entry.get("kid")
    if not isinstance(kind, str) or kind not in _TYPES:
        return None
    if not _PRIVATE.isdisjoint(entry):
        raise UnusableKeys("it has a private key; only the public ones belong here")
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get(
        "key_ops", ["verify"]
    ):
        return None
    curve = None if kind == "RSA" else entry.get("crv")
    if (kind, curve) not in _KEYS.values():
        return None
    try:
        with warnings.catch_warnings():
            # Of a short key, which is refused below.
            warnings.simplefilter("ignore")
            key = _TYPES[kind].import_key(entry)
            size = key.public_key.key_size if kind == "RSA" else _SHORTEST_RSA
    except (JoseError, ValueError, TypeError, KeyError, AttributeError):
        raise UnusableKeys(f"its key {str(kid)[:80]!a} is malformed") from None
    if not _SHORTEST_RSA <= size <= _LONGEST_RSA:
        raise UnusableKeys(
            f"its key {str(kid)[:80]!a} has {size} bits, not {_SHORTEST_RSA} to "
            f"{_LONGEST_RSA}"
        )
    algorithm = entry.get("alg")
    return _Key(
        key,
        (kind, curve),
        kid if isinstance(kid, str) else None,
        algorithm if isinstance(algorithm, str) else None,
    )


def require_signature(token: bytes, algorithm: str, keys: list[Any]) -> None:
    """
    Verify the signature of a token.

    :param algorithm: The algorithm that its header names, an allowed one.
    :param keys: One of them must have signed it.
    :raises CredentialsRejected: If none has.
    """
    with warnings.catch_warnings():
        # EdDSA has a second name since RFC 9864, which issuers do not use yet.
        warnings.simplefilter("ignore")
        for key in keys:
            try:
                deserialize_compact(token, key, [algorithm], registry=_REGISTRY)
            except (JoseError, ValueError, TypeError):
                continue
            return
    raise CredentialsRejected("the signature of the token is wrong")
