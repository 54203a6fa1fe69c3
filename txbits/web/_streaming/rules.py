"""
What a request may begin with, and the answer to anything else.
"""

from __future__ import annotations

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
