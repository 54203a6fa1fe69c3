"""
Packets that checks send: valid at first, then changed in any way that a check needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import evolve, frozen

from txbits.protocol._fields import BITS_UPLOAD_PROTOCOL
from txbits.protocol.codec import METHOD

#: The protocol that MC-BUP defines, as Windows writes it.
PROTOCOL = b"{%b}" % str(BITS_UPLOAD_PROTOCOL).encode("ascii")


@frozen
class Message:
    """
    A request.

    :ivar target: The request target.
    :ivar headers: Names and values, in the order of sending.
    :ivar body: The body.
    :ivar method: The method.
    """

    target: bytes
    headers: Sequence[tuple[bytes, bytes]]
    body: bytes = b""
    method: bytes = METHOD

    def to_bytes(self) -> bytes:
        """Serialize it."""
        return self.head() + self.body

    def head(self) -> bytes:
        """Serialize all but the body."""
        lines = [b"%b %b HTTP/1.1" % (self.method, self.target)]
        lines += [b"%b: %b" % header for header in self.headers]
        return b"\r\n".join([*lines, b"", b""])

    def but(self, headers: Mapping[bytes, bytes | None] | None = None) -> Message:
        """
        Change headers.

        :param headers: New values by name; ``None`` omits a header.
        """
        changes = dict(headers or {})
        kept = []
        for name, value in self.headers:
            new = changes.pop(name, value)
            if new is not None:
                kept.append((name, new))
        kept += [(name, new) for name, new in changes.items() if new is not None]
        return evolve(self, headers=kept)

    def with_body(self, body: bytes) -> Message:
        """Set the body and its length."""
        changed = evolve(self, body=body)
        return changed.but({b"Content-Length": b"%d" % len(body)})


def content_range(first: int, length: int, total: int) -> bytes:
    """Write the range of *length* bytes that starts at *first*."""
    return b"bytes %d-%d/%d" % (first, first + length - 1, total)
