"""
Where the bytes of a file are in the bucket: parts on a grid, and tails between them.

Nothing here asks a store. A file is cut at multiples of a part size that follows from
its length alone, so part *k* has the same bytes whichever node uploads it, and however
often. Bytes of a cell that is not full yet are kept in *tails*, objects whose names say
which bytes they have. Two nodes that serve the same Fragment write the same bytes to
the same names. A shorter copy has another name than a longer one, so it cannot replace
it. So no locks are needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

#: Part sizes are multiples of this.
_STEP = 1 << 20

# Sixteen digits are enough for any object, and sort like numbers.
_TAIL = re.compile(r"([0-9]{16})-([0-9]{1,16})")


@frozen(order=True)
class Span:
    """
    Bytes of the file.

    :ivar start: Offset of the first.
    :ivar end: Offset behind the last.
    """

    start: int
    end: int

    @property
    def length(self) -> int:
        """How many bytes there are."""
        return self.end - self.start


def part_size_for(total: int, least: int, most_parts: int) -> int:
    """
    Return how long the parts of a file are.

    :param total: The file's length.
    :param least: The shortest that parts may be.
    :param most_parts: How many parts there may be.
    :returns: The length of every part but the last one.
    """
    needed = -(-total // most_parts)
    return least if needed <= least else -(-needed // _STEP) * _STEP


@frozen
class Grid:
    """
    The cells of one file.

    :ivar total: The file's length.
    :ivar part_size: The length of every cell but the last one.
    """

    total: int
    part_size: int

    @property
    def cells(self) -> int:
        """The number of cells; an empty file has one of no bytes."""
        return max(1, -(-self.total // self.part_size))

    def cell(self, number: int) -> Span:
        """Return the bytes of a cell, counted from 0."""
        start = number * self.part_size
        return Span(start, min(start + self.part_size, self.total))

    def number_at(self, offset: int) -> int:
        """Return the number of the cell that a byte is in."""
        return offset // self.part_size

    def is_part(self, number: int, length: int) -> bool:
        """Return whether a part is as long as the cell of its number."""
        return 0 <= number < self.cells and self.cell(number).length == length


def tail_name(span: Span) -> str:
    """Return the name of the tail that has these bytes."""
    return f"{span.start:016d}-{span.length}"


def tail_span(name: str) -> Span | None:
    """Return the bytes of a tail by its name; ``None`` if it is not a tail."""
    found = _TAIL.fullmatch(name)
    if found is None:
        return None
    start, length = int(found[1]), int(found[2])
    return Span(start, start + length) if length else None


def cover(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """
    Choose spans that cover the bytes from *start* on without a gap.

    :param spans: In any order; they may overlap.
    :param end: Where to stop.
    :returns: As few spans as possible, in order, each reaching further than the one
        before. The last one's ``end`` is how far they reach.
    """
    chosen: list[Span] = []
    reached = start
    best: Span | None = None
    for span in sorted(spans):
        if reached >= end:
            break
        if span.start > reached:
            if best is None:
                break
            chosen.append(best)
            reached, best = best.end, None
            if span.start > reached:
                break
            if reached >= end:
                break
        if span.end > reached and (best is None or span.end > best.end):
            best = span
    if best is not None and reached < end:
        chosen.append(best)
    return chosen


def reach(spans: Iterable[Span]) -> int:
    """
    Return how many bytes from the beginning of the file are held.

    :param spans: The spans that are held, in any order; they may overlap.
    """
    reached = 0
    for span in sorted(spans):
        if span.start > reached:
            break
        reached = max(reached, span.end)
    return reached


def begin_of_merge(tails: Sequence[Span], start: int, end: int, least: int) -> int:
    """
    Choose where a new tail begins, so that it repeats some of the older ones.

    Without this, a cell that arrives in a thousand Fragments would be a thousand
    objects. A tail includes those before it that are no longer than itself, like a
    carry when binary numbers are added: no byte is put more often than the logarithm of
    that.

    :param tails: A cover up to *start*, in order.
    :param start: Where the new bytes begin.
    :param end: Where they end.
    :param least: The offset of the first byte that is in memory.
    :returns: Where the new tail begins.
    """
    begin = start
    for tail in reversed(tails):
        if tail.start < least or begin - tail.start > end - begin:
            break
        begin = tail.start
    return begin
