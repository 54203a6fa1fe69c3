"""
The rules of HTTP for connections: which are kept, what a request may begin with, and
the answer to anything else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from txbits.protocol._fields import trimmed
from txbits.protocol.codec import encode_ack
from txbits.protocol.packets import Ack
from txbits.protocol.refusals import MALFORMED_HEADER

#: The answer to something that is not HTTP: an Ack, in case it was meant as a packet.
BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\n"
    + b"".join(
        b"%b: %b\r\n" % header
        for header in encode_ack(
            Ack(
                MALFORMED_HEADER.status,
                hresult=MALFORMED_HEADER.hresult,
                context=MALFORMED_HEADER.context,
            )
        )
    )
    + b"Connection: close\r\n\r\n"
)

#: What a request may begin with: the first byte of a method (RFC 9110 5.6.2), or an
#: empty line.
BEGINNINGS = frozenset(
    b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n"
)

# What a TLS handshake begins with (RFC 8446 5.1).
_HANDSHAKE = 0x16


def named(first: int) -> str:
    """
    Describe something that is not HTTP, for the log.

    :param first: Its first byte.
    """
    if first == _HANDSHAKE:
        return "TLS on a plain HTTP port"
    return "a request that is not HTTP"


def is_kept(headers: Mapping[bytes, Sequence[bytes]], version: bytes) -> bool:
    """
    Tell whether a connection is kept after a request (RFC 9112 9.3).

    :param headers: The request's headers, by lower-case name.
    :param version: Its version.
    """
    values = headers.get(b"connection")
    if version == b"HTTP/1.1" and (values is None or values == [b"Keep-Alive"]):
        return True
    # RFC 9110 7.6.1: a list of tokens, in any case.
    options = {
        trimmed(option).lower()
        for value in values or ()
        for option in value.split(b",")
    }
    if b"close" in options:
        return False
    # RFC 9112 6.1: a coded body of HTTP/1.0 may not end where it seems to.
    return version == b"HTTP/1.1" or (
        b"keep-alive" in options and b"transfer-encoding" not in headers
    )
