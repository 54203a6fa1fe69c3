"""
Fragments under way without progress: their sessions are released at the time-out, and
not when their connections end (MC-BUP 3.2.6.1). The clean-up is far away.
"""

from __future__ import annotations

from tests.sessions.support import SOURCE, TOTAL, ManagerCase
from txbits.errors import BackendError, NoSuchSession, ServerStopping, Superseded

TIMEOUT = 1000.0


class StallTests(ManagerCase):
    """A Fragment stalls."""

    rules = {"session_timeout": TIMEOUT, "cleanup_interval": 100 * TIMEOUT}

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_its_session_is_released_at_the_time_out(self) -> None:
        body, outcome = self.stall(self.session_id)
        self.clock.advance(TIMEOUT - 1)
        self.assertFalse(body.is_stopped)
        self.clock.advance(2)
        self.assertTrue(body.is_stopped)
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.sessions(), set())
        self.assert_unknown(self.session_id)

    def test_the_time_counts_from_the_last_byte_that_was_stored(self) -> None:
        body, outcome = self.stall(self.session_id)
        for at in range(3, TOTAL):
            self.clock.advance(TIMEOUT - 1)
            body.send(SOURCE[at : at + 1])
        body.end()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.clock.advance(TIMEOUT)
        self.successResultOf(self.close(self.session_id))

    def test_bytes_that_are_held_already_are_no_progress(self) -> None:
        self.upload(self.session_id, 0, 5)
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        for at in range(5):
            self.clock.advance(TIMEOUT / 5)
            body.send(SOURCE[at : at + 1])
        self.clock.advance(1)
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.sessions(), set())

    def test_bytes_that_the_store_did_not_take_are_no_progress(self) -> None:
        gate = self.backend.hold("write")
        gate.fail(BackendError("not now"))
        for _ in range(3):
            self.clock.advance(TIMEOUT / 3)
            self.failureResultOf(self.send(self.session_id, 0, SOURCE), BackendError)
        self.clock.advance(1)
        self.failureResultOf(self.close(self.session_id), NoSuchSession)

    def test_a_newer_packet_is_told_that_the_session_is_unknown(self) -> None:
        gate = self.backend.hold("release")
        _, outcome = self.stall(self.session_id)
        self.clock.advance(TIMEOUT + 1)
        self.failureResultOf(outcome, Superseded)
        for _ in range(2):
            newer = self.send(self.session_id, 3, SOURCE[3:])
            self.failureResultOf(newer, NoSuchSession)
            gate.open()

    def test_what_arrived_at_the_last_moment_keeps_the_session(self) -> None:
        gate = self.backend.hold("write")
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        self.clock.advance(TIMEOUT / 2)
        body.send(SOURCE[:3])
        body.send(SOURCE[3:4])
        self.clock.advance(TIMEOUT + 1)
        self.assertTrue(body.is_stopped)
        gate.open()
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.sessions(), {self.session_id})
        self.upload(self.session_id, 4)

    def test_each_is_released_at_its_own_time(self) -> None:
        stalled = []
        for _ in range(3):
            stalled.append(self.stall(self.create()))
            self.clock.advance(10)
        self.clock.advance(TIMEOUT - 25)
        for left in (2, 1, 0):
            self.assertEqual(len(self.sessions()), left + 1)
            self.assertEqual(sum(not one.body.is_stopped for one in stalled), left)
            self.clock.advance(10)
        for one in stalled:
            self.failureResultOf(one.outcome, Superseded)

    def test_a_session_that_began_earlier_has_its_end_earlier(self) -> None:
        self.clock.advance(TIMEOUT - 10)
        later = self.create()
        stalled = self.stall(later)
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        self.clock.advance(11)
        self.failureResultOf(outcome, Superseded)
        self.assertTrue(body.is_stopped)
        self.assertEqual(self.sessions(), {later})
        stalled.body.send(SOURCE[3:])
        stalled.body.end()
        self.assertEqual(self.successResultOf(stalled.outcome), TOTAL)

    def test_one_timer_watches_them_all(self) -> None:
        before = len(self.clock.getDelayedCalls())
        for _ in range(5):
            self.stall(self.create())
        self.assertEqual(len(self.clock.getDelayedCalls()), before + 1)

    def test_nothing_is_watched_when_none_is_under_way(self) -> None:
        self.upload(self.session_id)
        before = len(self.clock.getDelayedCalls())
        self.clock.advance(TIMEOUT + 1)
        self.assertEqual(len(self.clock.getDelayedCalls()), before - 1)
        self.assertEqual(self.sessions(), {self.session_id})

    def test_a_close_that_takes_long_is_waited_for(self) -> None:
        self.upload(self.session_id)
        gate = self.backend.hold("publish")
        closing = self.close(self.session_id)
        self.clock.advance(TIMEOUT + 1)
        gate.open()
        self.successResultOf(closing)

    def test_a_release_that_fails_is_tried_again_by_the_clean_up(self) -> None:
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        _, outcome = self.stall(self.session_id)
        self.assertEqual(
            self.troubles(lambda: self.clock.advance(TIMEOUT + 1)),
            ["/: sessions cannot be released: not now"],
        )
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.sessions(), {self.session_id})
        gate.open()
        self.clock.advance(100 * TIMEOUT)
        self.assertEqual(self.sessions(), set())

    def test_a_cancel_that_joins_the_time_out_is_acknowledged_when_nothing_is_left(
        self,
    ) -> None:
        gate = self.backend.hold("open_writer")
        _, stalled = self.stall(self.session_id)
        self.clock.advance(101 * TIMEOUT)
        cancelling = self.cancel(self.session_id)
        self.assertNoResult(cancelling)
        # Only now is it seen that there was progress, and so no time-out.
        gate.open()
        self.failureResultOf(stalled, Superseded)
        self.successResultOf(cancelling)
        self.assertEqual(self.sessions(), set())

    def test_a_session_with_progress_stays_though_its_release_was_awaited(self) -> None:
        gate = self.backend.hold("open_writer")
        _, stalled = self.stall(self.session_id)
        self.clock.advance(101 * TIMEOUT)
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        gate.open()
        self.failureResultOf(stalled, Superseded)
        body.send(SOURCE)
        body.end()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.successResultOf(self.close(self.session_id))

    def test_a_stop_leaves_no_timer_and_keeps_the_session(self) -> None:
        _, outcome = self.stall(self.session_id)
        self.successResultOf(self.manager.stop())
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.held(self.session_id), SOURCE[:3])
        self.failureResultOf(self.close(self.session_id), ServerStopping)

    def test_nor_does_a_fragment_that_begins_to_arrive_afterwards(self) -> None:
        gate = self.backend.hold("open_writer")
        _, outcome = self.stall(self.session_id)
        stopping = self.manager.stop()
        gate.open()
        self.successResultOf(stopping)
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.clock.getDelayedCalls(), [])
