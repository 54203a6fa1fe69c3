"""
Byte ranges of files: which are requested, and how several are framed in one response.

RFC 9110 14, and MC-BUP 3.5.5: ranges are answered in the order of the request, and
never merged. A Range that is not one of bytes is ignored, and the response is the whole
file, as RFC 9110 14.2 requires. So are requests that would cost more than they save:

- more than :data:`MAX_RANGES` ranges, or a value of more than 4 KiB;
- ranges whose total is longer than the file.

If the response to several ranges is the whole file, Windows requests them one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from attrs import define, field, frozen

from txbits.protocol._fields import MAX_VALUE_LENGTH

#: How many ranges one request may ask for.
MAX_RANGES = 200

# RFC 9110 14.1.1: ranges-specifier = range-unit "=" range-set.
_SPECIFIER = re.compile(rb"[ \t]*bytes=(.*)", re.IGNORECASE | re.DOTALL)
_RANGE = re.compile(rb"[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*")
_BLANK = re.compile(rb"[ \t]*")


@frozen
class ByteRange:
    """
    Some bytes of a file, at least one.

    :ivar first: Offset of the first byte.
    :ivar last: Offset of the last byte.
    """

    first: int
    last: int

    @property
    def end(self) -> int:
        """Offset behind the last byte."""
        return self.last + 1

    @property
    def length(self) -> int:
        """How many bytes that is."""
        return self.last + 1 - self.first

    def content_range(self, total: int) -> bytes:
        """Write the value of its Content-Range header."""
        return b"bytes %d-%d/%d" % (self.first, self.last, total)


def unsatisfied_range(total: int) -> bytes:
    """Write the Content-Range of a response with 416."""
    return b"bytes */%d" % total


def chosen_ranges(values: Sequence[bytes], total: int) -> tuple[ByteRange, ...] | None:
    """
    Read a Range, for a file of a given length.

    :param values: The values of all Range headers.
    :param total: How many bytes the file has.
    :returns: The ranges to send, in the order of the request; empty if none is within
        the file, which is answered with 416; ``None`` to send the whole file.
    """
    specifiers = _parsed(values)
    if specifiers is None:
        return None
    chosen = []
    for first, last, suffix in specifiers:
        if suffix is not None:
            if suffix and not total:
                # Satisfiable, but Content-Range cannot express an empty range.
                return None
            first, last = max(total - suffix, 0), total - 1
        if first < total and first <= last:
            chosen.append(ByteRange(first, min(last, total - 1)))
    if sum(one.length for one in chosen) > total:
        return None
    return tuple(chosen)


def _parsed(values: Sequence[bytes]) -> list[tuple[int, int, int | None]] | None:
    """
    Parse the values of all Range headers.

    :returns: First, last and length of a suffix; ``None`` if they are to be ignored.
    """
    if len(values) != 1 or len(values[0]) > MAX_VALUE_LENGTH:
        return None
    match = _SPECIFIER.fullmatch(values[0])
    if match is None:
        return None
    found: list[tuple[int, int, int | None]] = []
    for element in match[1].split(b","):
        if _BLANK.fullmatch(element):
            continue  # RFC 9110 5.6.1.2
        one = _RANGE.fullmatch(element)
        if one is None or len(found) == MAX_RANGES:
            return None
        first, last, suffix = one.groups()
        if suffix is not None:
            found.append((0, 0, int(suffix)))
            continue
        begin = int(first)
        # If the end is omitted, it is that of the file.
        end = int(last) if last else max(begin, 1 << 64)
        if end < begin:
            return None
        found.append((begin, end, None))
    return found or None


@define
class Multipart:
    """
    A response with several ranges (RFC 9110 14.6).

    :ivar ranges: The ranges.
    :ivar total: How many bytes the file has.
    :ivar content_type: Of each part.
    :ivar boundary: Separates the parts. It is random, and so long that no file contains
        it by chance. Readers that count bytes do not need it.
    """

    ranges: tuple[ByteRange, ...]
    total: int
    content_type: bytes
    boundary: bytes
    _heads: list[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._heads = [
            b"%b--%b\r\nContent-Type: %b\r\nContent-Range: %b\r\n\r\n"
            % (
                b"\r\n" if index else b"",
                self.boundary,
                self.content_type,
                one.content_range(self.total),
            )
            for index, one in enumerate(self.ranges)
        ]

    @property
    def outer_type(self) -> bytes:
        """The Content-Type of the response."""
        return b"multipart/byteranges; boundary=%b" % self.boundary

    @property
    def end(self) -> bytes:
        """What follows the last part."""
        return b"\r\n--%b--\r\n" % self.boundary

    @property
    def length(self) -> int:
        """How many bytes the whole body has."""
        parts = sum(len(head) for head in self._heads)
        return parts + sum(one.length for one in self.ranges) + len(self.end)

    def parts(self) -> Iterator[tuple[bytes, ByteRange]]:
        """The head of each part, and its range."""
        return zip(self._heads, self.ranges, strict=True)
