"""
Parts and tails, for all lengths and all ways that a file may arrive.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.s3._grid import (
    Grid,
    Span,
    begin_of_merge,
    cover,
    part_size_for,
    reach,
    tail_name,
    tail_span,
)

MIB = 1 << 20
TOTALS = st.integers(0, 50 << 40)
SPANS = st.builds(
    lambda start, length: Span(start, start + length),
    st.integers(0, 60),
    st.integers(1, 20),
)


class PartSizeTests(SynchronousTestCase):
    """The part size follows from the length."""

    @given(TOTALS, st.integers(5, 64), st.integers(1, 10_000))
    def test_parts_are_long_enough_and_not_too_many(self, total, least, most):
        size = part_size_for(total, least * MIB, most)
        self.assertGreaterEqual(size, least * MIB)
        self.assertLessEqual(Grid(total, size).cells, most)

    def test_parts_of_files_that_fit_are_as_short_as_allowed(self):
        self.assertEqual(part_size_for(80_000 * MIB, 8 * MIB, 10_000), 8 * MIB)
        self.assertEqual(part_size_for(80_000 * MIB + 1, 8 * MIB, 10_000), 9 * MIB)


class GridTests(SynchronousTestCase):
    """Cells are the file, cut."""

    @given(st.integers(0, 10_000), st.integers(1, 3000))
    def test_cells_are_the_file_without_gap_or_overlap(self, total, size):
        grid = Grid(total, size)
        end = 0
        for number in range(grid.cells):
            cell = grid.cell(number)
            self.assertEqual(cell.start, end)
            self.assertTrue(number + 1 == grid.cells or cell.length == size)
            for offset in {cell.start, cell.end - 1} if cell.length else ():
                self.assertEqual(grid.number_at(offset), number)
            self.assertTrue(grid.is_part(number, cell.length))
            self.assertFalse(grid.is_part(number, cell.length + 1))
            end = cell.end
        self.assertEqual(end, total)
        self.assertFalse(grid.is_part(grid.cells, size))
        self.assertFalse(grid.is_part(-1, size))


class TailNameTests(SynchronousTestCase):
    """Names say which bytes they hold."""

    @given(st.integers(0, 50 << 40), st.integers(1, 5 << 30))
    def test_a_name_comes_back_as_its_span(self, start, length):
        span = Span(start, start + length)
        self.assertEqual(tail_span(tail_name(span)), span)

    @given(st.integers(0, 50 << 40), st.integers(0, 50 << 40))
    def test_names_sort_as_offsets_do(self, one, other):
        names = [tail_name(Span(start, start + 1)) for start in (one, other)]
        self.assertEqual(sorted(names) == names, one <= other)

    def test_other_names_are_no_tails(self):
        for name in ("record", "", "12-3", f"{1:016d}-0", f"{1:016d}-3x", "x" * 20):
            self.assertIsNone(tail_span(name), name)


class CoverTests(SynchronousTestCase):
    """What is held, and what of it is read."""

    @given(st.lists(SPANS, max_size=12))
    def test_reach_is_the_first_byte_that_nothing_holds(self, spans):
        held = {byte for span in spans for byte in range(span.start, span.end)}
        first = next(byte for byte in range(100) if byte not in held)
        self.assertEqual(reach(spans), first)

    @given(st.lists(SPANS, max_size=12), st.integers(0, 40), st.integers(0, 40))
    def test_a_cover_reaches_as_far_as_bytes_are_held(self, spans, start, length):
        end = start + length
        held = {byte for span in spans for byte in range(span.start, span.end)}
        gap = next(byte for byte in range(start, 200) if byte not in held)
        chosen = cover(spans, start, end)
        reached = start
        for span in chosen:
            self.assertIn(span, spans)
            self.assertLessEqual(span.start, reached)
            self.assertGreater(span.end, reached)
            reached = span.end
        self.assertGreaterEqual(reached, min(gap, end))
        if chosen:
            self.assertLess(chosen[-1].start, end)

    @given(st.lists(SPANS, min_size=1, max_size=8), st.data())
    def test_a_stale_shorter_tail_never_shortens_what_is_held(self, spans, data):
        longer = data.draw(st.sampled_from(spans))
        stale = Span(longer.start, data.draw(st.integers(longer.start + 1, longer.end)))
        self.assertEqual(reach([*spans, stale]), reach(spans))


class MergeTests(SynchronousTestCase):
    """A cell lies in few objects, and its bytes are not put often."""

    @given(st.lists(st.integers(1, 1000), min_size=1, max_size=300))
    def test_a_thousand_fragments_do_not_become_a_thousand_tails(self, lengths):
        tails: list[Span] = []
        put = position = 0
        for length in lengths:
            end = position + length
            held = cover(tails, 0, position)
            begin = begin_of_merge(held, position, end, 0)
            tails.append(Span(begin, end))
            put += end - begin
            position = end
            self.assertEqual(reach(tails), end)
        doublings = position.bit_length() + 1
        self.assertLessEqual(len(cover(tails, 0, position)), doublings)
        self.assertLessEqual(put, position * (doublings + 1))

    def test_what_is_not_at_hand_is_not_repeated(self):
        tails = [Span(0, 10), Span(10, 20)]
        self.assertEqual(begin_of_merge(tails, 20, 40, 20), 20)
        self.assertEqual(begin_of_merge(tails, 20, 40, 10), 10)
        self.assertEqual(begin_of_merge(tails, 20, 40, 0), 0)
        self.assertEqual(begin_of_merge(tails, 20, 25, 0), 20)
