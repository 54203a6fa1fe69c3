"""
Where the bytes of a file lie in the bucket: parts on a grid, and tails between them.

Pure: nothing here looks at a store. A file is cut at multiples of a part size that
follows from its length alone, so part *k* holds the same bytes whichever node
uploads it, and however often. Bytes of a cell that is not full yet are kept in *tails*,
objects whose names say which bytes they hold. Two nodes that serve the same fragment
write the same bytes to the same names, and a shorter copy has another name than a
longer one, so it cannot replace it: nothing has to be locked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from attrs import frozen

#: Part sizes are multiples of this.
_STEP = 1 << 20

# Sixteen digits are enough for any object, and sort as the numbers do.
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
        """How many bytes these are."""
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
        """How many there are; one of no bytes for an empty file."""
        return max(1, -(-self.total // self.part_size))

    def cell(self, number: int) -> Span:
        """Return which bytes a cell holds, counted from 0."""
        start = number * self.part_size
        return Span(start, min(start + self.part_size, self.total))

    def number_at(self, offset: int) -> int:
        """Return in which cell a byte lies."""
        return offset // self.part_size

    def is_part(self, number: int, length: int) -> bool:
        """Return whether something is as long as the cell of its number is."""
        return 0 <= number < self.cells and self.cell(number).length == length


def tail_name(span: Span) -> str:
    """Name the object that holds these bytes."""
    return f"{span.start:016d}-{span.length}"


def tail_span(name: str) -> Span | None:
    """Return which bytes the object of a name holds; ``None`` if it is no tail's."""
    found = _TAIL.fullmatch(name)
    if found is None:
        return None
    start, length = int(found[1]), int(found[2])
    return Span(start, start + length) if length else None


def cover(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """
    Choose spans that hold the bytes from *start* on without a gap.

    :param spans: In any order; they may overlap.
    :param end: Enough is known when this is reached.
    :returns: As few as possible, in order, each reaching further than the one before.
        The last one's ``end`` tells how far they reach.
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

    :param spans: What is held, in any order; they may overlap.
    """
    reached = 0
    for span in sorted(spans):
        if span.start > reached:
            break
        reached = max(reached, span.end)
    return reached


def begin_of_merge(tails: Sequence[Span], start: int, end: int, least: int) -> int:
    """
    Choose from where on a new tail repeats what older ones hold.

    Without this, a cell that arrives in a thousand fragments would lie in a
    thousand objects. A tail swallows those before it that are no longer than itself, as
    in adding binary numbers: no byte is put more often than the logarithm of that.

    :param tails: A cover up to *start*, in order.
    :param start: Where the new bytes begin.
    :param end: Where they end.
    :param least: The offset before which nothing can be repeated, since it is not at
        hand.
    :returns: Where the new tail begins.
    """
    begin = start
    for tail in reversed(tails):
        if tail.start < least or begin - tail.start > end - begin:
            break
        begin = tail.start
    return begin
