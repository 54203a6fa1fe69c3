"""
Waiting: several for one outcome, for what happens once, and for several things.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txbits._deferreds import (
    Event,
    Shared,
    Waiters,
    a_few_at_a_time,
    begun,
    settled,
    together,
)
from txbits.errors import BackendError


class WaitersTests(SynchronousTestCase):
    """One outcome, several who wait."""

    def setUp(self) -> None:
        self.waiters: Waiters[int] = Waiters()

    def test_all_get_the_outcome(self) -> None:
        waiting = [self.waiters.wait() for _ in range(3)]
        self.assertTrue(self.waiters.is_awaited)
        self.waiters.fire(5)
        self.assertEqual([self.successResultOf(one) for one in waiting], [5] * 3)
        self.assertFalse(self.waiters.is_awaited)

    def test_all_get_a_failure(self) -> None:
        waiting = [self.waiters.wait() for _ in range(2)]
        self.waiters.fire(Failure(KeyError("x")))
        for one in waiting:
            self.failureResultOf(one, KeyError)

    def test_a_failure_that_nobody_waits_for_is_not_logged(self) -> None:
        self.waiters.fire(Failure(KeyError("x")))
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_who_is_cancelled_waits_no_more_and_disturbs_nobody(self) -> None:
        first, second = self.waiters.wait(), self.waiters.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.waiters.fire(1)
        self.assertEqual(self.successResultOf(second), 1)

    def test_nobody_waits_when_all_are_cancelled(self) -> None:
        waiting = self.waiters.wait()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertFalse(self.waiters.is_awaited)

    def test_one_who_is_told_may_cancel_another(self) -> None:
        first, second = self.waiters.wait(), self.waiters.wait()
        first.addCallback(lambda _: second.cancel())
        self.waiters.fire(1)
        self.successResultOf(first)
        self.failureResultOf(second, CancelledError)

    def test_one_who_is_told_and_waits_again_gets_the_next_outcome(self) -> None:
        again: list[Deferred[int]] = []
        first = self.waiters.wait()
        first.addCallback(lambda _: again.append(self.waiters.wait()))
        self.waiters.fire(1)
        self.successResultOf(first)
        self.assertNoResult(again[0])
        self.waiters.fire(2)
        self.assertEqual(self.successResultOf(again[0]), 2)


class EventTests(SynchronousTestCase):
    """Something that happens once."""

    def setUp(self) -> None:
        self.event = Event()

    def test_all_are_told(self) -> None:
        waiting = [self.event.wait() for _ in range(3)]
        for one in waiting:
            self.assertNoResult(one)
        self.event.set()
        self.assertTrue(self.event.is_set)
        for one in waiting:
            self.assertIsNone(self.successResultOf(one))

    def test_who_comes_later_does_not_wait(self) -> None:
        self.event.set()
        self.assertIsNone(self.successResultOf(self.event.wait()))

    def test_it_may_be_set_again(self) -> None:
        waiting = self.event.wait()
        self.event.set()
        self.event.set()
        self.successResultOf(waiting)

    def test_who_waits_again_when_told_does_not_wait(self) -> None:
        waiting = self.event.wait().addCallback(lambda _: self.event.wait())
        self.event.set()
        self.successResultOf(waiting)

    def test_cancelling_ends_the_waiting_and_nothing_else(self) -> None:
        first, second = self.event.wait(), self.event.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.event.set()
        self.successResultOf(second)

    def test_an_end_that_must_come_outlasts_cancelling(self) -> None:
        waiting = begun(self.event.outlast())
        waiting.cancel()
        waiting.cancel()
        self.assertNoResult(waiting)
        self.event.set()
        self.successResultOf(waiting)


class SharedTests(SynchronousTestCase):
    """Work that is shared while it is under way."""

    def setUp(self) -> None:
        self.runs: list[Deferred[int]] = []
        self.shared: Shared[int] = Shared()

    def join(self) -> Deferred[int]:
        async def run() -> int:
            self.runs.append(Deferred())
            return await self.runs[-1]

        return self.shared.run(run)

    def test_all_who_ask_at_a_time_wait_for_one_run(self) -> None:
        waiting = [self.join() for _ in range(3)]
        self.assertEqual(len(self.runs), 1)
        for one in waiting:
            self.assertNoResult(one)
        self.runs[0].callback(5)
        self.assertEqual([self.successResultOf(one) for one in waiting], [5] * 3)

    def test_all_are_told_of_a_failure(self) -> None:
        waiting = [self.join() for _ in range(3)]
        self.runs[0].errback(BackendError("not now"))
        for one in waiting:
            self.failureResultOf(one, BackendError)

    def test_who_asks_afterwards_begins_anew(self) -> None:
        first = self.join()
        again: list[Deferred[int]] = []

        def ask_again(outcome: Any) -> Any:
            again.append(self.join())
            return outcome

        first.addCallback(ask_again)
        self.runs[0].callback(1)
        self.assertEqual(self.successResultOf(first), 1)
        self.assertNoResult(again[0])
        self.runs[1].callback(2)
        self.assertEqual(self.successResultOf(again[0]), 2)

    def test_cancelling_the_wait_for_the_end_fails_it(self) -> None:
        running = self.join()
        waiting = self.shared.over()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.runs[0].callback(1)
        self.assertEqual(self.successResultOf(running), 1)

    def test_a_run_that_ends_at_once_is_no_exception(self) -> None:
        async def run() -> int:
            return await succeed(3)

        self.assertEqual(self.successResultOf(self.shared.run(run)), 3)
        self.assertEqual(self.successResultOf(self.shared.run(run)), 3)

    def test_cancelling_one_who_waits_does_not_end_the_run(self) -> None:
        first, second = self.join(), self.join()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertTrue(self.shared.is_running)
        self.runs[0].callback(4)
        self.assertEqual(self.successResultOf(second), 4)
        self.assertFalse(self.shared.is_running)

    def test_a_run_that_fails_with_nobody_waiting_is_not_logged(self) -> None:
        waiting = self.join()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.runs[0].errback(BackendError("not now"))
        self.assertFalse(self.shared.is_running)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_its_end_can_be_waited_for_whatever_the_outcome(self) -> None:
        self.assertIsNone(self.successResultOf(self.shared.over()))
        running = self.join()
        over = self.shared.over()
        self.assertNoResult(over)
        self.runs[0].errback(BackendError("not now"))
        self.assertIsNone(self.successResultOf(over))
        self.failureResultOf(running, BackendError)

    def test_it_may_be_joined_from_within_its_run(self) -> None:
        inner: list[Deferred[int]] = []

        async def run() -> int:
            inner.append(self.join())
            return 6

        self.assertEqual(self.successResultOf(self.shared.run(run)), 6)
        self.assertEqual(self.successResultOf(inner[0]), 6)
        self.assertEqual(self.runs, [])


class TogetherTests(SynchronousTestCase):
    """Several pieces of work."""

    def setUp(self) -> None:
        self.first: Deferred[int] = Deferred()
        self.second: Deferred[int] = Deferred()

    def test_what_they_fire_with_comes_in_their_order(self) -> None:
        both = begun(together(self.first, self.second))
        self.second.callback(2)
        self.assertNoResult(both)
        self.first.callback(1)
        self.assertEqual(self.successResultOf(both), [1, 2])

    def test_all_are_waited_for_when_one_fails(self) -> None:
        both = begun(together(self.first, self.second))
        self.first.errback(BackendError("broken"))
        self.assertNoResult(both)
        self.second.callback(2)
        self.failureResultOf(both, BackendError)

    def test_the_first_of_several_failures_is_raised_and_none_is_logged(self) -> None:
        both = begun(together(self.first, self.second))
        self.second.errback(KeyError("second"))
        self.first.errback(BackendError("first"))
        self.failureResultOf(both, BackendError)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_nothing_is_done_at_once(self) -> None:
        self.assertEqual(self.successResultOf(begun(together())), [])

    def test_cancelling_it_cancels_all(self) -> None:
        both = begun(together(self.first, self.second))
        both.cancel()
        self.failureResultOf(both, CancelledError)
        for one in (self.first, self.second):
            self.assertTrue(one.called)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_all_are_cancelled_whichever_is_waited_for(self) -> None:
        both = begun(together(self.first, self.second))
        self.first.callback(1)
        both.cancel()
        self.failureResultOf(both, CancelledError)
        self.assertTrue(self.second.called)

    def test_all_are_cancelled_whatever_one_of_them_makes_of_it(self) -> None:
        for outcome in (1, Failure(BackendError("closed"))):
            first: Deferred[Any] = Deferred(lambda one, to=outcome: one.callback(to))
            second: Deferred[int] = Deferred()
            both = begun(together(first, second))
            both.cancel()
            self.assertTrue(second.called)
            self.failureResultOf(both, CancelledError, BackendError)

    def test_pieces_that_are_cancelled_may_take_their_time_to_end(self) -> None:
        gates: list[Deferred[int]] = [Deferred(), Deferred()]

        async def work(gate: Deferred[int]) -> int:
            try:
                return await Deferred()
            except CancelledError:
                return await gate

        both = begun(together(*(begun(work(gate)) for gate in gates)))
        both.cancel()
        self.assertNoResult(both)
        gates[1].callback(2)
        self.assertNoResult(both)
        gates[0].callback(1)
        self.assertEqual(self.successResultOf(both), [1, 2])

    def test_a_second_cancellation_ends_what_takes_its_time(self) -> None:
        async def work() -> None:
            try:
                await Deferred()
            except CancelledError:
                await Deferred()

        both = begun(together(begun(work())))
        both.cancel()
        self.assertNoResult(both)
        both.cancel()
        self.failureResultOf(both, CancelledError)

    def test_others_go_on_when_one_is_cancelled_by_somebody_else(self) -> None:
        both = begun(together(self.first, self.second))
        self.first.cancel()
        self.assertNoResult(both)
        self.assertFalse(self.second.called)
        self.second.callback(2)
        self.failureResultOf(both, CancelledError)

    def test_one_that_waits_for_another_is_not_taken_for_done(self) -> None:
        inner: Deferred[int] = Deferred()
        self.first.addCallback(lambda _: inner)
        self.first.callback(0)
        both = begun(together(self.first, self.second))
        both.cancel()
        self.failureResultOf(both, CancelledError)
        self.assertTrue(inner.called)
        self.assertTrue(self.second.called)

    def test_failures_can_be_had_as_outcomes(self) -> None:
        both = begun(settled([self.first, self.second]))
        self.first.errback(BackendError("broken"))
        self.second.callback(2)
        failure, result = self.successResultOf(both)
        assert isinstance(failure, Failure)
        failure.trap(BackendError)
        self.assertEqual(result, 2)


class AFewAtATimeTests(SynchronousTestCase):
    """Many things, done a few at a time."""

    def setUp(self) -> None:
        self.under_way: dict[int, Deferred[str]] = {}

    async def act(self, thing: int) -> str:
        mine: Deferred[str] = Deferred()
        self.under_way[thing] = mine
        try:
            return await mine
        finally:
            del self.under_way[thing]

    def test_the_outcomes_come_in_order(self) -> None:
        done = begun(a_few_at_a_time(2, self.act, range(4)))
        for one in (1, 0, 3, 2):
            self.assertEqual(len(self.under_way), 2 if one != 2 else 1)
            self.under_way[one].callback(str(one))
        self.assertEqual(self.successResultOf(done), ["0", "1", "2", "3"])

    def test_what_never_waits_is_done_whatever_their_number(self) -> None:
        async def at_once(thing: int) -> int:
            return thing

        done = begun(a_few_at_a_time(3, at_once, range(5000)))
        self.assertEqual(self.successResultOf(done), [*range(5000)])

    def test_a_failure_ends_the_others_and_begins_no_more(self) -> None:
        done = begun(a_few_at_a_time(3, self.act, range(9)))
        self.under_way[1].errback(ValueError("away"))
        self.assertEqual(self.under_way, {})
        self.assertEqual(str(self.failureResultOf(done, ValueError).value), "away")

    def test_a_failure_at_once_begins_no_more(self) -> None:
        begun_with: list[int] = []

        async def fail(thing: int) -> None:
            begun_with.append(thing)
            raise ValueError(thing)

        done = begun(a_few_at_a_time(3, fail, range(9)))
        self.failureResultOf(done, ValueError)
        self.assertEqual(begun_with, [0])

    def test_it_can_be_cancelled(self) -> None:
        done = begun(a_few_at_a_time(3, self.act, range(9)))
        done.cancel()
        self.assertEqual(self.under_way, {})
        self.failureResultOf(done, CancelledError)
