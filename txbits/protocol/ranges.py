"""
Byte ranges of files: which are asked for, and how several are framed in one answer.

RFC 9110 14, and MC-BUP 3.5.5: ranges are answered in the order of the request, and
never merged. What is no range of bytes is passed over, and the whole file is the answer
then, as RFC 9110 14.2 wants it; so is what would take more than it gives:

- over :data:`MAX_RANGES` ranges, or a value over 4 KiB;
- ranges that are together longer than the file.

Windows asks for its ranges one by one when the answer to several is the whole file.
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
    """Write the Content-Range of an answer with 416."""
    return b"bytes */%d" % total


def chosen_ranges(values: Sequence[bytes], total: int) -> tuple[ByteRange, ...] | None:
    """
    Read a Range, for a file of a given length.

    :param values: The values of all Range headers.
    :param total: How many bytes the file has.
    :returns: What to answer with, in the order of the request; nothing if no range lies
        within the file, which is answered with 416; ``None`` if the whole file is to
        be the answer.
    """
    specifiers = _parsed(values)
    if specifiers is None:
        return None
    chosen = []
    for first, last, suffix in specifiers:
        if suffix is not None:
            if suffix and not total:
                # Satisfied, but by bytes that no Content-Range can name.
                return None
            first, last = max(total - suffix, 0), total - 1
        if first < total and first <= last:
            chosen.append(ByteRange(first, min(last, total - 1)))
    if sum(one.length for one in chosen) > total:
        return None
    return tuple(chosen)


def _parsed(values: Sequence[bytes]) -> list[tuple[int, int, int | None]] | None:
    """
    Take the syntax apart.

    :returns: First, last and length of a suffix; ``None`` if it is to be passed over.
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
        # An end that is left away is that of the file, wherever that is.
        end = int(last) if last else max(begin, 1 << 64)
        if end < begin:
            return None
        found.append((begin, end, None))
    return found or None


@define
class Multipart:
    """
    An answer that holds several ranges (RFC 9110 14.6).

    :ivar ranges: The ranges.
    :ivar total: How many bytes the file has.
    :ivar content_type: Of each part.
    :ivar boundary: What stands between the parts; at random, and so long that no
        file has it in it but on purpose. Whoever counts is right also then.
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
        """The Content-Type of the answer."""
        return b"multipart/byteranges; boundary=%b" % self.boundary

    @property
    def end(self) -> bytes:
        """What stands behind the last part."""
        return b"\r\n--%b--\r\n" % self.boundary

    @property
    def length(self) -> int:
        """How many bytes all of it has."""
        parts = sum(len(head) for head in self._heads)
        return parts + sum(one.length for one in self.ranges) + len(self.end)

    def parts(self) -> Iterator[tuple[bytes, ByteRange]]:
        """What stands before each range, and the range."""
        return zip(self._heads, self.ranges, strict=True)
