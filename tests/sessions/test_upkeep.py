"""
Time-outs and clean-up: sessions that nobody asks for go away, and only those.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock

from tests.sessions.support import ALICE, NAME, SOURCE, TOTAL, ManagerCase
from txbits.errors import (
    BackendError,
    NoSuchSession,
)

TIMEOUT = 1000.0
HOUR = 3600.0


class TimeoutTests(ManagerCase):
    """A session without progress expires; the clean-up is far away."""

    def setUp(self) -> None:
        super().setUp()
        self.restart(session_timeout=TIMEOUT, cleanup_interval=100 * TIMEOUT)
        self.session_id = self.create()

    def test_an_expired_session_is_unknown_and_released(self) -> None:
        for last in (None, 4, TOTAL):
            for ask in (self.upload_all, self.close, self.cancel):
                session_id = self.create()
                if last is not None:
                    self.upload(session_id, 0, last)
                self.clock.advance(TIMEOUT + 1)
                self.failureResultOf(ask(session_id), NoSuchSession)
                self.assertNotIn(session_id, self.sessions())
        self.assertEqual(self.memory.files, {})

    def upload_all(self, session_id: UUID) -> Deferred[Any]:
        return self.send(session_id, 0, SOURCE)

    def test_a_session_lives_as_long_as_it_was_told(self) -> None:
        self.clock.advance(TIMEOUT)
        self.upload(self.session_id)
        self.clock.advance(TIMEOUT)
        self.successResultOf(self.close(self.session_id))

    def test_progress_resets_the_time(self) -> None:
        for at in range(TOTAL):
            self.clock.advance(TIMEOUT - 1)
            self.upload(self.session_id, at, at + 1)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_what_stores_no_byte_is_no_progress(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.clock.advance(TIMEOUT - 1)
        self.upload(self.session_id, 0, 4)
        body, outcome = self.begin(self.session_id, 4, 6)
        self.clock.advance(2)
        body.end()
        self.failureResultOf(outcome)
        self.failureResultOf(self.send(self.session_id, 4, SOURCE[4:]), NoSuchSession)

    def test_it_expires_after_a_restart_too(self) -> None:
        self.clock.advance(TIMEOUT - 10)
        self.restart(session_timeout=TIMEOUT)
        self.clock.advance(11)
        self.failureResultOf(self.send(self.session_id, 0, SOURCE), NoSuchSession)
        self.assertEqual(self.sessions(), set())

    def test_an_answer_waits_for_the_release(self) -> None:
        self.clock.advance(TIMEOUT + 1)
        gate = self.backend.hold("release")
        asked = [self.close(self.session_id), self.cancel(self.session_id)]
        for outcome in asked:
            self.assertNoResult(outcome)
        gate.open()
        self.failureResultOf(asked[0], NoSuchSession)
        # It began when there was a session to cancel, and none is left.
        self.successResultOf(asked[1])
        self.assertEqual(self.backend.calls.count("release"), 1)

    def test_an_expired_session_that_cannot_be_released_is_a_fault(self) -> None:
        self.clock.advance(TIMEOUT + 1)
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        outcome = self.send(self.session_id, 0, SOURCE)
        error = self.failureResultOf(outcome, BackendError).value
        self.assertNotIsInstance(error, NoSuchSession)
        gate.open()
        self.failureResultOf(self.send(self.session_id, 0, SOURCE), NoSuchSession)
        self.assertEqual(self.sessions(), set())

    def test_a_published_file_is_not_taken_back(self) -> None:
        self.upload(self.session_id)
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.close(self.session_id), BackendError)
        gate.open()
        self.clock.advance(TIMEOUT + 1)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertEqual(self.sessions(), set())


class PassingClock(Clock):
    """
    A clock on which time passes with every look at it.

    :ivar passing: How many seconds.
    """

    passing = 0.0

    def seconds(self) -> float:
        self.rightNow += self.passing
        return super().seconds()


class LongCleanUpTests(ManagerCase):
    """A clean-up with much to do."""

    clock_class = PassingClock
    clock: PassingClock

    def test_others_get_a_turn_before_all_is_done(self) -> None:
        self.restart(session_timeout=TIMEOUT)
        for _ in range(50):
            self.create()
        self.clock.advance(TIMEOUT + 1)
        self.clock.passing = 0.004
        self.restart(session_timeout=TIMEOUT)
        self.assertTrue(0 < len(self.sessions()) < 50)
        self.clock.advance(0)
        self.assertEqual(self.sessions(), set())

    def test_a_stop_does_not_wait_for_the_rest(self) -> None:
        self.test_others_get_a_turn_before_all_is_done()
        for _ in range(50):
            self.create()
        self.clock.advance(TIMEOUT + 1)
        self.manager = self.started(session_timeout=TIMEOUT)
        self.successResultOf(self.manager.stop())
        self.assertTrue(0 < len(self.sessions()) < 50)


class CleanUpTests(ManagerCase):
    """The clean-up: at the start, and at an interval."""

    def setUp(self) -> None:
        super().setUp()
        self.settings = {"session_timeout": TIMEOUT, "cleanup_interval": HOUR}
        self.restart(**self.settings)
        self.session_id = self.create()

    def test_expired_sessions_are_released_at_the_interval(self) -> None:
        self.clock.advance(HOUR / 2)
        fresh = self.create()
        self.upload(fresh, 0, 4)
        self.clock.advance(HOUR / 2 - TIMEOUT)
        self.upload(fresh, 4, 5)
        self.assertEqual(self.sessions(), {self.session_id, fresh})
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.sessions(), {fresh})
        self.clock.advance(HOUR)
        self.assertEqual(self.sessions(), set())

    def test_expired_sessions_are_released_at_the_start(self) -> None:
        self.successResultOf(self.manager.stop())
        self.clock.advance(TIMEOUT + 1)
        self.assertEqual(self.sessions(), {self.session_id})
        self.manager = self.started(**self.settings)
        self.assertEqual(self.sessions(), set())

    def test_packets_do_not_wait_for_the_first_round(self) -> None:
        gate = self.backend.hold("sessions")
        self.restart_while(gate)
        self.upload(self.session_id)
        gate.open()

    def restart_while(self, gate: Any) -> None:
        gate.open()
        self.successResultOf(self.manager.stop())
        gate.shut()
        self.manager = self.started(**self.settings)
        self.assertEqual(gate.waiting, 1)

    def test_the_clean_up_finishes_a_release_that_failed(self) -> None:
        for has_restarted in (False, True):
            session_id = self.create()
            gate = self.backend.hold("release")
            gate.fail(BackendError("not now"))
            self.failureResultOf(self.cancel(session_id), BackendError)
            gate.open()
            if has_restarted:
                self.restart(**self.settings)
            else:
                self.clock.advance(HOUR)
            self.assertNotIn(session_id, self.sessions())

    def test_the_clean_up_finishes_a_close_whose_release_failed(self) -> None:
        for last in (4, TOTAL):
            for has_restarted in (False, True):
                self.memory.files.clear()
                session_id = self.create()
                self.upload(session_id, 0, last)
                gate = self.backend.hold("release")
                gate.fail(BackendError("not now"))
                self.failureResultOf(self.close(session_id), BackendError)
                self.has_remembered(session_id)
                gate.open()
                if has_restarted:
                    self.restart(**self.settings)
                else:
                    self.clock.advance(HOUR)
                self.assertNotIn(session_id, self.sessions())
                self.successResultOf(self.close(session_id))
                self.assertEqual(NAME in self.memory.files, last == TOTAL)

    def test_a_release_that_fails_does_not_keep_the_others(self) -> None:
        others = [self.create() for _ in range(3)]
        self.backend.hold("release").fail(BackendError("not now"))
        self.failureResultOf(self.cancel(self.session_id), BackendError)
        self.assertEqual(
            self.troubles(lambda: self.clock.advance(HOUR)),
            ["/: sessions cannot be released: not now"],
        )
        self.assertEqual(self.sessions(), {self.session_id, *others})
        self.backend.hold("release").open()
        self.clock.advance(HOUR)
        self.assertEqual(self.sessions(), set())

    def test_a_session_that_cannot_be_found_does_not_keep_the_others(self) -> None:
        self.restart(**self.settings)
        self.create()
        gate = self.backend.hold("find")
        gate.fail(BackendError("no answer"))
        self.assertEqual(
            self.troubles(lambda: self.clock.advance(HOUR)),
            ["/: sessions cannot be released: no answer"],
        )
        self.assertEqual(self.sessions(), {self.session_id})
        gate.open()
        self.clock.advance(HOUR)
        self.assertEqual(self.sessions(), set())

    def test_a_round_that_fails_does_not_end_the_clean_up(self) -> None:
        gate = self.backend.hold("sessions")
        gate.fail(BackendError("no answer"))
        self.assertEqual(
            self.troubles(lambda: self.clock.advance(HOUR)),
            ["/: the clean-up fails: no answer"],
        )
        self.assertEqual(self.sessions(), {self.session_id})
        gate.fail(ValueError("a mistake of ours"))
        self.clock.advance(HOUR)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)
        self.assertEqual(self.sessions(), {self.session_id})
        gate.open()
        self.clock.advance(HOUR)
        self.assertEqual(self.sessions(), set())

    def test_closes_are_forgotten_though_a_release_fails(self) -> None:
        self.backend.hold("release").fail(BackendError("not now"))
        self.backend.calls.clear()
        self.clock.advance(HOUR)
        self.flushLoggedErrors(BackendError)
        self.assertIn("clean_up", self.backend.calls)

    def test_a_session_that_went_meanwhile_is_no_failure(self) -> None:
        """Another process may serve the same store."""
        second = self.create()
        self.restart(**self.settings)
        gate = self.backend.hold("release")
        self.clock.advance(HOUR)
        self.assertEqual(gate.waiting, 1)
        self.successResultOf(self.successResultOf(self.memory.find(second)).release())
        gate.open()
        self.assertEqual(self.sessions(), set())
        self.assertEqual(self.backend.calls[-1], "clean_up")

    def test_a_session_that_went_on_meanwhile_stays(self) -> None:
        second = self.create()
        body, outcome = self.stall(second)
        gate = self.backend.hold("release")
        for at in range(3, 6):
            self.clock.advance(TIMEOUT)
            body.send(SOURCE[at : at + 1])
        self.clock.advance(HOUR - 3 * TIMEOUT)
        self.assertEqual(gate.waiting, 1)
        body.send(SOURCE[6:])
        body.end()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        gate.open()
        self.assertEqual(self.sessions(), {second})

    def test_a_cancel_joins_the_release_of_the_clean_up(self) -> None:
        gate = self.backend.hold("release")
        self.clock.advance(HOUR)
        self.assertEqual(gate.waiting, 1)
        cancelling = self.cancel(self.session_id)
        self.assertNoResult(cancelling)
        gate.open()
        self.successResultOf(cancelling)
        self.assertEqual(self.backend.calls.count("release"), 1)

    def test_the_clean_up_waits_for_a_cancel_under_way(self) -> None:
        gate = self.backend.hold("release")
        cancelling = self.cancel(self.session_id)
        self.backend.calls.clear()
        self.clock.advance(HOUR)
        self.assertEqual(self.backend.calls, ["sessions"])
        gate.open()
        self.successResultOf(cancelling)
        self.assertEqual(self.backend.calls, ["sessions", "clean_up"])

    def test_the_clean_up_waits_for_a_close_under_way(self) -> None:
        self.upload(self.session_id)
        gate = self.backend.hold("release")
        closing = self.close(self.session_id)
        self.clock.advance(HOUR)
        gate.open()
        self.successResultOf(closing)
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertEqual(self.backend.calls.count("release"), 1)

    def test_rounds_do_not_overlap(self) -> None:
        gate = self.backend.hold("sessions")
        self.clock.pump([HOUR] * 3)
        self.assertEqual(gate.waiting, 1)
        gate.open()
        self.assertEqual(self.sessions(), set())

    def test_old_closes_are_forgotten_by_the_time_they_were_made(self) -> None:
        asked: list[float] = []

        def clean_up(closed_before: float) -> Deferred[None]:
            asked.append(closed_before)
            return succeed(None)

        self.backend.clean_up = clean_up  # type: ignore[method-assign]
        self.clock.advance(HOUR)
        self.assertEqual(asked, [self.wall() - 24 * HOUR])

    def test_a_session_that_somebody_removed_is_forgotten(self) -> None:
        self.restart(session_timeout=3 * HOUR, cleanup_interval=HOUR)
        known = self.manager._active.quota.known
        before = known()
        session_id = self.create(caller=ALICE)
        kept = self.create(caller=ALICE)
        del self.memory._sessions[session_id]
        self.clock.advance(HOUR)
        self.assertNotIn(session_id, self.manager._active.table)
        self.assertIn(kept, self.manager._active.table)
        self.assertEqual(known() - before, {kept})

    def test_a_session_that_is_being_made_is_not_forgotten(self) -> None:
        gate = self.backend.hold("create")
        creating = self.manager.create(NAME, ALICE, None)
        self.clock.advance(HOUR)
        gate.open()
        session_id = self.successResultOf(creating)
        self.assertEqual(self.manager._active.quota.known(), {session_id})
