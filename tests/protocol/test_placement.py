"""
Where fragments fall, against a model that holds the bytes themselves.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.protocol.strategies import content_ranges
from txbits.protocol._fields import ContentRange
from txbits.protocol.placement import Placement, place


class PlacementTests(SynchronousTestCase):
    """Append, skip then append, out of step."""

    def test_one_that_starts_where_the_server_stands_is_appended(self) -> None:
        self.assertEqual(place(ContentRange(5, 9, 20), 5), Placement(0, 5))

    def test_the_first_one_is_appended(self) -> None:
        self.assertEqual(place(ContentRange(0, 4, 20), 0), Placement(0, 5))

    def test_of_one_that_overlaps_the_rest_is_appended(self) -> None:
        self.assertEqual(place(ContentRange(2, 9, 20), 5), Placement(3, 5))

    def test_one_that_is_held_is_skipped_whole(self) -> None:
        self.assertEqual(place(ContentRange(2, 4, 20), 5), Placement(3, 0))
        self.assertEqual(place(ContentRange(2, 4, 20), 20), Placement(3, 0))

    def test_one_that_starts_beyond_is_out_of_step(self) -> None:
        self.assertIs(place(ContentRange(6, 9, 20), 5), None)
        self.assertIs(place(ContentRange(1, 1, 2), 0), None)

    def test_one_of_an_empty_file_places_nothing(self) -> None:
        self.assertEqual(place(ContentRange.empty(), 0), Placement(0, 0))

    @given(content_ranges(), st.data())
    def test_out_of_step_if_and_only_if_it_starts_beyond(
        self, content_range: ContentRange, data: st.DataObject
    ) -> None:
        held = data.draw(st.integers(0, content_range.total))
        placement = place(content_range, held)
        self.assertEqual(placement is None, content_range.first > held)
        if placement is not None:
            self.assertEqual(placement.skip + placement.append, content_range.length)
            self.assertTrue(placement.skip >= 0)
            self.assertTrue(placement.append >= 0)

    @given(st.binary(max_size=24), st.lists(st.tuples(st.integers(0), st.integers(0))))
    def test_whatever_the_order_a_prefix_of_the_file_is_held(
        self, file: bytes, ends: list[tuple[int, int]]
    ) -> None:
        total = len(file)
        held = bytearray()
        for one, other in ends if total else ():
            first, last = sorted((one % total, other % total))
            before = bytes(held)
            placement = place(ContentRange(first, last, total), len(held))
            if placement is None:
                continue
            body = file[first : last + 1]
            held += body[placement.skip :][: placement.append]
            self.assertEqual(held[: len(before)], before)
            self.assertEqual(bytes(held), file[: max(len(before), last + 1)])

    @given(st.binary(min_size=1, max_size=40), st.lists(st.integers(1, 12)))
    def test_a_client_that_does_as_it_is_told_uploads_the_file(
        self, file: bytes, sizes: list[int]
    ) -> None:
        held = bytearray()
        for size in [*sizes, len(file)]:
            if len(held) == len(file):
                break
            last = min(len(held) + size, len(file)) - 1
            content_range = ContentRange(len(held), last, len(file))
            placement = place(content_range, len(held))
            self.assertEqual(placement, Placement(0, content_range.length))
            held += file[content_range.first : content_range.last + 1]
        self.assertEqual(bytes(held), file)
