"""
Going down: nothing new is taken, what arrives is ended, what is being done is finished.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.sessions.support import (
    ALICE,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    RecordingBackend,
)
from txbits.errors import BackendError, BodyIncomplete, ServerStopping
from txbits.sessions import SessionManager, Settings

HOUR = 3600.0


class _NoStore(RecordingBackend):
    def start(self) -> Deferred[None]:
        raise BackendError("no such directory: uploads")


class StartTests(ManagerCase):
    """A manager that cannot start."""

    def test_a_backend_that_cannot_work_is_told_at_once(self) -> None:
        backend = _NoStore(self.memory)
        manager = SessionManager(backend, Settings(), self.clock)
        self.failureResultOf(manager.start(), BackendError)
        self.assertEqual(backend.calls, [])


class StopTests(ManagerCase):
    """A manager that is told to stop."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def stop(self) -> Deferred[None]:
        self.backend.calls.clear()
        return self.manager.stop()

    def test_whoever_stops_it_again_waits_as_well(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("release")
        cancelling = self.cancel(session_id)
        stopping = [self.manager.stop(), self.manager.stop()]
        gate.open()
        self.successResultOf(cancelling)
        for one in stopping:
            self.successResultOf(one)

    def test_new_packets_are_refused(self) -> None:
        self.successResultOf(self.stop())
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        for refused in (
            outcome,
            self.manager.create(NAME, ALICE, None),
            self.close(self.session_id),
            self.cancel(self.session_id),
        ):
            error = self.failureResultOf(refused, ServerStopping).value
            self.assertGreater(error.retry_after, 0)
        self.assertFalse(body.is_received)
        self.assertEqual(self.backend.calls, ["stop"])
        self.assertEqual(self.sessions(), {self.session_id})

    def test_new_packets_are_refused_while_others_are_finished(self) -> None:
        gate = self.backend.hold("publish")
        self.upload(self.session_id)
        closing = self.close(self.session_id)
        stopping = self.stop()
        self.failureResultOf(self.close(self.session_id), ServerStopping)
        gate.open()
        self.successResultOf(closing)
        self.successResultOf(stopping)

    def test_a_fragment_is_ended_and_its_bytes_are_kept(self) -> None:
        body, outcome = self.stall(self.session_id)
        self.successResultOf(self.stop())
        self.assertTrue(body.is_stopped)
        self.failureResultOf(outcome, BodyIncomplete)
        self.manager = self.started()
        self.assertEqual(self.held(self.session_id), SOURCE[:3])
        self.upload(self.session_id, 3)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_it_waits_for_a_write_and_for_the_writer(self) -> None:
        write, close = self.backend.hold("write"), self.backend.hold("close")
        _, outcome = self.stall(self.session_id)
        stopping = self.stop()
        for gate in (write, close):
            self.assertEqual(gate.waiting, 1)
            self.assertNoResult(stopping)
            gate.open()
        self.failureResultOf(outcome, BodyIncomplete)
        self.successResultOf(stopping)
        self.assertEqual(self.backend.calls, ["close", "stop"])

    def test_a_fragment_that_has_arrived_is_answered(self) -> None:
        gate = self.backend.hold("close")
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE)
        body.end()
        stopping = self.stop()
        self.assertFalse(body.is_stopped)
        gate.open()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.successResultOf(stopping)

    def test_it_waits_for_a_close(self) -> None:
        self.upload(self.session_id)
        publish, release = self.backend.hold("publish"), self.backend.hold("release")
        closing = self.close(self.session_id)
        stopping = self.stop()
        for gate in (publish, release):
            self.assertNoResult(stopping)
            self.assertNoResult(closing)
            gate.open()
        self.successResultOf(closing)
        self.successResultOf(stopping)
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertEqual(self.backend.calls[-1], "stop")

    def test_it_waits_for_a_cancel(self) -> None:
        gate = self.backend.hold("release")
        cancelling = self.cancel(self.session_id)
        stopping = self.stop()
        self.assertNoResult(stopping)
        gate.open()
        self.successResultOf(cancelling)
        self.successResultOf(stopping)
        self.assertEqual(self.backend.calls[-1], "stop")

    def test_it_waits_for_all_of_them(self) -> None:
        other = self.complete(destination=("other",))
        release, publish = self.backend.hold("release"), self.backend.hold("publish")
        cancelling = self.cancel(self.session_id)
        closing = self.close(other, ("other",))
        stopping = self.stop()
        release.open()
        self.successResultOf(cancelling)
        self.assertNoResult(stopping)
        self.assertNotIn("stop", self.backend.calls)
        publish.open()
        self.successResultOf(closing)
        self.successResultOf(stopping)

    def test_it_waits_for_a_create(self) -> None:
        gate = self.backend.hold("create")
        creating = self.manager.create(("other",), ALICE, None)
        stopping = self.stop()
        self.assertNoResult(stopping)
        gate.open()
        self.assertIn(self.successResultOf(creating), self.sessions())
        self.successResultOf(stopping)

    def test_a_fragment_that_was_still_being_looked_up_is_refused(self) -> None:
        self.restart()
        gate = self.backend.hold("find")
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        stopping = self.stop()
        gate.open()
        self.failureResultOf(outcome, ServerStopping)
        self.assertFalse(body.is_received)
        self.successResultOf(stopping)

    def test_a_fragment_whose_writer_was_being_opened_is_ended(self) -> None:
        gate = self.backend.hold("open_writer")
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        stopping = self.stop()
        self.assertTrue(body.is_stopped)
        gate.open()
        self.failureResultOf(outcome, BodyIncomplete)
        self.successResultOf(stopping)
        self.assertEqual(self.backend.calls, ["close", "stop"])

    def test_a_fragment_that_waits_for_another_is_ended(self) -> None:
        _, older = self.stall(self.session_id)
        gate = self.backend.hold("close")
        body, newer = self.begin(self.session_id, 3, 7)
        stopping = self.stop()
        self.assertTrue(body.is_stopped)
        gate.open()
        self.failureResultOf(older, BodyIncomplete)
        self.failureResultOf(newer, BodyIncomplete)
        self.assertFalse(body.is_received)
        self.successResultOf(stopping)

    def test_fragments_of_all_sessions_are_ended(self) -> None:
        all_of_them = [self.stall(self.create()) for _ in range(5)]
        self.successResultOf(self.stop())
        for body, outcome in all_of_them:
            self.assertTrue(body.is_stopped)
            self.failureResultOf(outcome, BodyIncomplete)

    def test_there_is_no_further_clean_up(self) -> None:
        self.successResultOf(self.stop())
        self.clock.pump([12 * HOUR] * 100)
        self.assertEqual(self.backend.calls, ["stop"])
        self.assertEqual(self.sessions(), {self.session_id})

    def test_one_that_never_started_can_be_stopped(self) -> None:
        manager = SessionManager(self.backend, Settings(), self.clock)
        self.successResultOf(manager.stop())


class StopWhileCleaningUpTests(ManagerCase):
    """A clean-up is under way when the manager is told to stop."""

    def setUp(self) -> None:
        super().setUp()
        self.restart(session_timeout=HOUR, cleanup_interval=2 * HOUR)
        self.session_id, self.other = self.create(), self.create()

    def test_the_backend_is_stopped_when_the_round_is_over(self) -> None:
        for operation in ("sessions", "clean_up"):
            gate = self.backend.hold(operation)
            self.clock.advance(2 * HOUR)
            self.assertEqual(gate.waiting, 1)
            stopping = self.manager.stop()
            self.assertNoResult(stopping)
            gate.open()
            self.successResultOf(stopping)
            self.assertEqual(self.backend.calls[-1], "stop")
            self.manager = self.started(cleanup_interval=2 * HOUR)

    def test_the_backend_is_stopped_when_the_first_round_is_over(self) -> None:
        """The stop comes last, though the sessions are not even counted yet."""
        self.successResultOf(self.manager.stop())
        list_gate = self.backend.hold("sessions")
        clean_up_gate = self.backend.hold("clean_up")
        self.manager = self.started(session_timeout=10 * HOUR)
        stopping = self.manager.stop()
        self.assertNoResult(stopping)
        list_gate.open()
        clean_up_gate.open()
        self.successResultOf(stopping)
        self.assertEqual(self.backend.calls[-1], "stop")

    def test_a_release_is_finished_and_none_begun(self) -> None:
        gate = self.backend.hold("release")
        self.clock.advance(2 * HOUR)
        self.assertEqual(gate.waiting, 1)
        stopping = self.manager.stop()
        self.assertNoResult(stopping)
        gate.open()
        self.successResultOf(stopping)
        self.assertEqual(self.sessions(), {self.other})
        self.assertEqual(self.backend.calls[-1], "stop")

    def test_fragments_are_ended_while_a_release_is_waited_for(self) -> None:
        gate = self.backend.hold("release")
        self.clock.advance(2 * HOUR)
        body, outcome = self.stall(self.create())
        stopping = self.manager.stop()
        self.assertTrue(body.is_stopped)
        self.failureResultOf(outcome, BodyIncomplete)
        gate.open()
        self.successResultOf(stopping)
