"""
Verify the signature and the digest of a notification.

This module needs only Python's standard library.
"""

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from time import time

#: The maximum age of a request in seconds, including the difference of the clocks.
WINDOW = 300

#: The components that a signature must cover.
REQUIRED = frozenset(
    {
        "@method",
        "@authority",
        "@request-target",
        "content-length",
        "bits-original-request-url",
        "bits-session-id",
        "bits-notification-attempt",
        "repr-digest",
    }
)

#: The components that a signature must cover if the request has them.
IF_PRESENT = frozenset({"bits-request-datafile-name", "bits-response-datafile-name"})

_INPUT = re.compile(
    r'bits=(\(((?:"[a-z0-9@-]+" ?)+)\);created=(\d+);alg="hmac-sha256")'
)
_SIGNATURE = re.compile(r"bits=:([A-Za-z0-9+/=]+):")
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")


class NotGenuine(Exception):
    """The request was not signed with the secret, or it is too old."""


def verify(
    secret: bytes,
    method: str,
    authority: str,
    target: str,
    headers: Mapping[str, str],
    now: float | None = None,
) -> None:
    """
    Check the signature of a request (RFC 9421).

    :param authority: The host of your application, with the port unless it is 80 or
        443. Take it from your configuration.
    :param target: Path and query, unchanged from the request.
    :param headers: The headers, by their names in lower case.
    :raises NotGenuine: If the signature is invalid.
    """
    signed = _INPUT.fullmatch(headers.get("signature-input", ""))
    signature = _SIGNATURE.fullmatch(headers.get("signature", ""))
    if signed is None or signature is None:
        raise NotGenuine("no signature")
    parameters, names, created = signed.groups()
    covered = re.findall(r'"([^"]+)"', names)
    missing = (REQUIRED | (IF_PRESENT & headers.keys())) - set(covered)
    if missing:
        raise NotGenuine(f"not signed: {', '.join(sorted(missing))}")
    values = {**headers, "@method": method, "@authority": authority}
    values["@request-target"] = target
    if not values.keys() >= set(covered):
        raise NotGenuine("a header is missing")
    lines = [f'"{name}": {values[name]}' for name in covered]
    base = "\n".join([*lines, f'"@signature-params": {parameters}'])
    expected = b64encode(hmac.digest(secret, base.encode("latin-1"), "sha256"))
    if not hmac.compare_digest(expected, signature[1].encode("ascii")):
        raise NotGenuine("wrong signature")
    if abs((time() if now is None else now) - int(created)) > WINDOW:
        raise NotGenuine("it was signed too long ago")


def digest_of(headers: Mapping[str, str]) -> bytes:
    """
    Return the SHA-256 of the upload according to the request (RFC 9530).

    :raises NotGenuine: If the request has none.
    """
    match = _DIGEST.fullmatch(headers.get("repr-digest", ""))
    if match is None:
        raise NotGenuine("no digest")
    return b64decode(match[1])
