"""
The order of sessions in pages.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txbits._deferreds import begun
from txbits.backends._order import Order

IDS = st.sets(
    st.integers(0, 2**128 - 1)
    | st.integers(0, 20).map(lambda n: n << 120)
    | st.integers(0, 20)
)


class OrderTests(SynchronousTestCase):
    """Pages of ids."""

    def page(self, order, after, limit, ids):
        return self.successResultOf(begun(order.after(after, limit, lambda: ids)))

    @settings(max_examples=60, deadline=None)
    @given(IDS, st.integers(1, 9))
    def test_pages_are_in_order_and_complete(self, numbers, limit):
        ids = [UUID(int=number) for number in numbers]
        order, after, found = Order(Clock()), None, []
        while True:
            page, after = self.page(order, after, limit, ids)
            self.assertLessEqual(len(page), limit)
            found += page
            if after is None:
                break
            self.assertEqual(after, page[-1])
        self.assertEqual(found, sorted(ids))

    def test_many_are_ordered_in_several_turns(self):
        clock = Clock()
        order, ids = Order(clock), [uuid4() for _ in range(10_000)]
        listing = begun(order.after(None, 3, lambda: ids))
        self.assertNoResult(listing)
        clock.pump([0, 0])
        self.assertEqual(self.successResultOf(listing)[0], sorted(ids)[:3])

    def test_a_list_goes_on_with_what_was_there_when_one_was_begun(self):
        order, ids = Order(Clock()), [UUID(int=n << 100) for n in range(1, 6)]
        _, after = self.page(order, None, 2, ids)
        late = UUID(int=(3 << 100) + 1)
        self.page(order, None, 1, [*ids, late])
        page, _ = self.page(order, after, 2, [])
        self.assertEqual(page, [ids[2], late])

    def test_nothing_is_kept_after_the_last_page(self):
        order = Order(Clock())
        self.page(order, None, 9, [UUID(int=1)])
        self.assertIsNone(order._shelves)
        # As after a restart: the cursor is still good.
        self.assertEqual(
            self.page(order, UUID(int=1), 9, [UUID(int=n) for n in (2, 1)]),
            ([UUID(int=2)], None),
        )
