"""
Requests signed with a shared secret (RFC 9421, hmac-sha256).
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence

#: The name of the signature in its two headers.
LABEL = "bits"


def signature_base(components: Sequence[tuple[str, str]], parameters: str) -> str:
    """
    Make the signature base, the text that is signed (RFC 9421 2.5).

    :param components: Names and values of the covered components, in order: headers in
        lower case, and derived components such as ``@method``.
    :param parameters: The parameters of the signature, each preceded by a semicolon.
    """
    lines = [f'"{name}": {value}' for name, value in components]
    lines.append(f'"@signature-params": {_input(components, parameters)}')
    return "\n".join(lines)


def sign(
    secret: bytes, components: Sequence[tuple[str, str]], created: int
) -> list[tuple[str, str]]:
    """
    Sign a request.

    :param secret: The shared secret.
    :param components: As for :func:`signature_base`.
    :param created: The time of the signature, in seconds since the epoch.
    :returns: The two headers of the signature.
    """
    parameters = f';created={created};alg="hmac-sha256"'
    base = signature_base(components, parameters).encode("ascii")
    return [
        ("Signature-Input", f"{LABEL}={_input(components, parameters)}"),
        ("Signature", f"{LABEL}=:{in_base64(hmac.digest(secret, base, 'sha256'))}:"),
    ]


def in_base64(value: bytes) -> str:
    """Encode bytes as in a structured field, without its colons (RFC 8941 3.3.5)."""
    return b64encode(value).decode("ascii")


def _input(components: Sequence[tuple[str, str]], parameters: str) -> str:
    names = " ".join(f'"{name}"' for name, _ in components)
    return f"({names}){parameters}"
