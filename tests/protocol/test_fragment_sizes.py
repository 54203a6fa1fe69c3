"""
How long fragments are: what a network and a server make of them.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.fragment_sizes import (
    FIRST_FRAGMENT,
    LARGEST_BY_RATE,
    SMALLEST_BY_RATE,
    SMALLEST_FRAGMENT,
    TARGET_SECONDS,
    FragmentSizes,
)


def settled(rate: float, sizes: FragmentSizes | None = None) -> FragmentSizes:
    """Sizes after some fragments at so many bytes a second."""
    sizes = sizes or FragmentSizes()
    for _ in range(20):
        sizes.acknowledged(sizes.size, sizes.size / rate)
    return sizes


class FragmentSizesTests(SynchronousTestCase):
    """The length of the next fragment."""

    def test_a_fragment_takes_the_time_it_is_meant_to(self) -> None:
        sizes = settled(100_000.0)
        self.assertAlmostEqual(sizes.size, 100_000 * TARGET_SECONDS, delta=2)

    def test_bounds_are_those_of_windows(self) -> None:
        self.assertEqual(settled(1.0).size, SMALLEST_BY_RATE)
        self.assertEqual(settled(1e12).size, LARGEST_BY_RATE)

    def test_no_time_at_all_is_a_fast_network(self) -> None:
        sizes = FragmentSizes()
        sizes.acknowledged(FIRST_FRAGMENT, 0.0)
        self.assertEqual(sizes.size, 4 * FIRST_FRAGMENT)

    def test_a_network_that_becomes_slow_is_followed(self) -> None:
        sizes = settled(1e4, settled(1e12))
        self.assertAlmostEqual(sizes.size, 1e4 * TARGET_SECONDS, delta=2)

    def test_a_short_last_fragment_tells_nothing(self) -> None:
        sizes = FragmentSizes()
        sizes.acknowledged(10, 100.0)
        self.assertEqual(sizes.size, FIRST_FRAGMENT)

    def test_a_lost_fragment_is_followed_by_half_of_it(self) -> None:
        sizes = FragmentSizes()
        sizes.lost()
        self.assertEqual(sizes.size, FIRST_FRAGMENT // 2)
        for _ in range(20):
            sizes.lost()
        self.assertEqual(sizes.size, SMALLEST_BY_RATE)

    def test_what_was_too_large_is_not_tried_again(self) -> None:
        sizes = settled(1e12)
        self.assertTrue(sizes.too_large(sizes.size))
        self.assertEqual(settled(1e12, sizes).size, LARGEST_BY_RATE // 2)

    def test_a_server_may_want_fewer_than_a_network(self) -> None:
        sizes = FragmentSizes(2000)
        self.assertTrue(sizes.too_large(2000))
        sizes.lost()
        self.assertEqual(sizes.size, SMALLEST_FRAGMENT)
        self.assertFalse(sizes.too_large(sizes.size))

    def test_a_fixed_size_follows_the_server_only(self) -> None:
        sizes = FragmentSizes.fixed(10_000)
        sizes.lost()
        sizes.acknowledged(10_000, 1000.0)
        self.assertEqual(sizes.size, 10_000)
        sizes.too_large(10_000)
        self.assertEqual(sizes.size, 5000)

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("acknowledged"), st.floats(0, 1e6)),
                st.tuples(st.just("lost"), st.just(0.0)),
            )
        )
    )
    def test_bounds_hold_whatever_happens(
        self, events: list[tuple[str, float]]
    ) -> None:
        sizes = FragmentSizes()
        for event, seconds in events:
            if event == "lost":
                sizes.lost()
            else:
                sizes.acknowledged(sizes.size, seconds)
            self.assertLessEqual(SMALLEST_BY_RATE, sizes.size)
            self.assertLessEqual(sizes.size, LARGEST_BY_RATE)
