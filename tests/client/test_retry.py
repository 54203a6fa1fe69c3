"""
Pauses, and when to give up, on a clock that the tests turn.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.python.runtime import seconds
from twisted.trial.unittest import SynchronousTestCase

from txbits.client._bodies import Throttle
from txbits.client._retry import FIRST, LONGEST, Backoff
from txbits.client._saving import Saving


def almost_one() -> float:
    """The largest of the random numbers, near enough."""
    return 1.0


def zero() -> float:
    """The smallest of the random numbers."""
    return 0.0


class BackoffTests(SynchronousTestCase):
    """How long to wait."""

    def setUp(self) -> None:
        self.clock = Clock()

    def pauses(self, backoff: Backoff) -> list[float]:
        """All pauses until it is time to give up."""
        found = []
        while (pause := backoff.pause(None)) is not None:
            found.append(pause)
            self.clock.advance(pause)
        return found

    def test_patience_does_not_go_by_the_clock_of_the_machine(self) -> None:
        made: Any = SelectReactor()
        self.addCleanup(made.removeAll)
        for each in (
            Backoff(made, zero, 1.0),
            Throttle(made),
            Saving(made, None, made),
        ):
            self.assertIsNot(each.clock.seconds, seconds)

    def test_pauses_double_up_to_the_longest(self) -> None:
        pauses = self.pauses(Backoff(self.clock, almost_one, 100.0))
        self.assertEqual(pauses[:8], [0.5, 1, 2, 4, 8, 16, 30, 30])

    def test_the_last_pause_ends_when_patience_does(self) -> None:
        self.assertEqual(sum(self.pauses(Backoff(self.clock, almost_one, 100.0))), 100)

    def test_jitter_takes_up_to_half(self) -> None:
        self.assertEqual(Backoff(self.clock, zero, 100.0).pause(None), FIRST / 2)

    def test_progress_makes_pauses_short_again(self) -> None:
        backoff = Backoff(self.clock, almost_one, 10.0)
        self.pauses(backoff)
        backoff.progress()
        self.assertEqual(backoff.pause(None), FIRST)

    def test_time_counts_from_the_first_failure(self) -> None:
        backoff = Backoff(self.clock, almost_one, 10.0)
        self.clock.advance(1000)
        self.assertEqual(backoff.pause(None), FIRST)

    def test_no_patience_is_no_second_try(self) -> None:
        self.assertIsNone(Backoff(self.clock, almost_one, 0.0).pause(None))

    def test_what_the_server_asks_for_is_the_least(self) -> None:
        backoff = Backoff(self.clock, almost_one, 100.0)
        self.assertEqual(backoff.pause(60), 60)

    def test_a_short_wish_of_the_server_shortens_nothing(self) -> None:
        backoff = Backoff(self.clock, almost_one, 100.0)
        self.assertEqual(backoff.pause(0), FIRST)

    def test_a_wish_that_outlasts_patience_is_time_to_give_up(self) -> None:
        self.assertIsNone(Backoff(self.clock, almost_one, 100.0).pause(101))

    def test_failing_for_days_overflows_nothing(self) -> None:
        backoff = Backoff(self.clock, almost_one, 1e12)
        for _ in range(2000):
            pause = backoff.pause(None)
        self.assertEqual(pause, LONGEST)

    @given(
        numbers=st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=50),
        patience=st.floats(0, 1000),
    )
    def test_pauses_stay_within_bounds(
        self, numbers: list[float], patience: float
    ) -> None:
        clock = Clock()
        backoff = Backoff(clock, iter(numbers).__next__, patience)
        for _ in numbers:
            pause = backoff.pause(None)
            if pause is None:
                break
            self.assertTrue(0 < pause <= LONGEST, pause)
            clock.advance(pause)
        self.assertLessEqual(clock.seconds(), patience * 1.000001)
