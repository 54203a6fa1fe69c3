"""
Requests signed with a shared secret (RFC 9421, hmac-sha256).
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Sequence

#: Of how a signature is found in its two headers.
LABEL = "bits"


def signature_base(components: Sequence[tuple[str, str]], parameters: str) -> str:
    """
    Write down what is signed (RFC 9421 2.5).

    :param components: Names and values of what is covered, in order: headers in lower
        case, and derived components such as ``@method``.
    :param parameters: Those of the signature, each with a semicolon before it.
    """
    lines = [f'"{name}": {value}' for name, value in components]
    lines.append(f'"@signature-params": {_input(components, parameters)}')
    return "\n".join(lines)


def sign(
    secret: bytes, components: Sequence[tuple[str, str]], created: int
) -> list[tuple[str, str]]:
    """
    Sign a request.

    :param secret: What both sides know.
    :param components: As for :func:`signature_base`.
    :param created: When, in seconds since the epoch.
    :returns: Two more headers for it.
    """
    parameters = f';created={created};alg="hmac-sha256"'
    base = signature_base(components, parameters).encode("ascii")
    return [
        ("Signature-Input", f"{LABEL}={_input(components, parameters)}"),
        ("Signature", f"{LABEL}=:{in_base64(hmac.digest(secret, base, 'sha256'))}:"),
    ]


def in_base64(value: bytes) -> str:
    """Write bytes as structured fields do between their colons (RFC 8941 3.3.5)."""
    return b64encode(value).decode("ascii")


def _input(components: Sequence[tuple[str, str]], parameters: str) -> str:
    names = " ".join(f'"{name}"' for name, _ in components)
    return f"({names}){parameters}"
