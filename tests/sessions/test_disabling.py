"""
Uploads are disabled for a directory (MC-BUP 3.2.4.2), at the start or later: its
sessions are released, whatever goes on in them, and nothing new is taken.
"""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from tests.sessions.support import (
    ALICE,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    NotifyingCase,
    RecordingBackend,
)
from txbits.errors import (
    BackendError,
    ServerStopping,
    Superseded,
    UploadsDisabled,
)
from txbits.interfaces import IShared
from txbits.sessions import Caller


class DisablingTests(ManagerCase):
    """While the directory runs."""

    def assert_disabled(self, session_id: Any) -> None:
        """Every packet is refused, whatever it is for."""
        for outcome in (
            self.manager.create(NAME, ALICE, None),
            self.send(session_id, 0, SOURCE),
            self.close(session_id),
            self.cancel(session_id),
            self.manager.open_reply(session_id, ALICE),
        ):
            self.failureResultOf(outcome, UploadsDisabled)

    def test_all_sessions_are_released(self) -> None:
        created = self.create()
        for last in (3, TOTAL):
            self.upload(self.create(), 0, last)
        # They are not only those that this process knows.
        self.restart()
        self.upload(self.create(), 0, 5)
        self.successResultOf(self.manager.disable())
        self.assertEqual(self.sessions(), set())
        self.assertEqual(self.memory.files, {})
        self.assert_disabled(created)

    def test_nothing_is_taken_while_they_are_released(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("release")
        disabled = self.manager.disable()
        self.assert_disabled(session_id)
        self.assertNoResult(disabled)
        gate.open()
        self.successResultOf(disabled)

    def test_there_may_be_none(self) -> None:
        self.successResultOf(self.manager.disable())

    def test_many_are_released_all(self) -> None:
        for _ in range(300):
            self.create(caller=Caller())
        disabled = self.manager.disable()
        while not disabled.called:
            self.clock.advance(0)
        self.successResultOf(disabled)
        self.assertEqual(self.sessions(), set())

    def test_one_that_takes_long_does_not_keep_the_others(self) -> None:
        for _ in range(30):
            self.create()
        stuck = self.complete()
        gate = self.backend.hold("publish")
        closed = self.close(stuck)
        disabled = self.manager.disable()
        self.clock.pump([0] * 10)
        self.assertNoResult(disabled)
        self.assertEqual(self.sessions(), {stuck})
        gate.open()
        self.successResultOf(closed)
        # The reactor gets a turn behind every twentieth, which this may have been.
        self.clock.advance(0)
        self.successResultOf(disabled)

    def test_files_that_were_published_stay(self) -> None:
        self.successResultOf(self.close(self.complete()))
        self.successResultOf(self.manager.disable())
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_a_close_that_is_remembered_is_so_afterwards(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.successResultOf(self.manager.disable())
        self.manager.enable()
        self.successResultOf(self.close(session_id))

    def test_two_who_disable_share_one_run(self) -> None:
        self.create()
        gate = self.backend.hold("release")
        first, second = self.manager.disable(), self.manager.disable()
        self.assertNoResult(first)
        self.assertNoResult(second)
        gate.open()
        self.successResultOf(first)
        self.successResultOf(second)


class UnderWayTests(ManagerCase):
    """What becomes of a packet that is under way."""

    def test_a_fragment_that_arrives_is_ended(self) -> None:
        session_id = self.create()
        body, outcome = self.begin(session_id, 0, TOTAL)
        body.send(SOURCE[:4])
        self.successResultOf(self.manager.disable())
        self.assertTrue(body.is_stopped)
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.sessions(), set())

    def test_a_write_is_waited_for(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        body, outcome = self.begin(session_id, 0, TOTAL)
        body.send(SOURCE[:4])
        disabled = self.manager.disable()
        self.assertNoResult(disabled)
        gate.open()
        self.successResultOf(disabled)
        self.failureResultOf(outcome, Superseded)

    def test_a_close_that_publishes_is_finished(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("publish")
        closed = self.close(session_id)
        disabled = self.manager.disable()
        self.assertNoResult(disabled)
        gate.open()
        self.successResultOf(closed)
        self.successResultOf(disabled)
        self.assertEqual(self.memory.files, {NAME: SOURCE})
        self.assertEqual(self.sessions(), set())

    def test_a_cancel_is_finished(self) -> None:
        session_id = self.complete()
        gate = self.backend.hold("release")
        cancelled = self.cancel(session_id)
        disabled = self.manager.disable()
        gate.open()
        self.successResultOf(cancelled)
        self.successResultOf(disabled)

    def test_a_create_is_refused_and_leaves_nothing(self) -> None:
        gate = self.backend.hold("create")
        created = self.manager.create(NAME, ALICE, None)
        disabled = self.manager.disable()
        self.assertNoResult(disabled)
        gate.open()
        self.failureResultOf(created, UploadsDisabled)
        self.successResultOf(disabled)
        self.assertEqual(self.sessions(), set())
        self.manager.enable()
        self.restart(session_limit=1)
        self.create()

    def test_a_create_that_fails_is_waited_for_as_well(self) -> None:
        gate = self.backend.hold("create")
        created = self.manager.create(NAME, ALICE, None)
        disabled = self.manager.disable()
        gate.fail(BackendError("no"))
        self.failureResultOf(created, BackendError)
        self.successResultOf(disabled)

    def test_a_fragment_that_waits_for_the_store_is_refused(self) -> None:
        session_id = self.create()
        self.restart()
        gate = self.backend.hold("find")
        outcome = self.send(session_id, 0, SOURCE)
        disabled = self.manager.disable()
        gate.open()
        self.assertIsNotNone(self.failureResultOf(outcome))
        self.successResultOf(disabled)
        self.assertEqual(self.sessions(), set())


class FailingTests(ManagerCase):
    """Something cannot be released."""

    def test_it_is_told_and_the_clean_up_goes_on_with_it(self) -> None:
        self.restart(cleanup_interval=100)
        self.create()
        self.create()
        gate = self.backend.hold("release")
        disabled = self.manager.disable()
        gate.fail(BackendError("busy"))
        self.failureResultOf(disabled, BackendError)
        self.flushLoggedErrors(BackendError)
        self.assertNotEqual(self.sessions(), set())
        gate.open()
        self.clock.advance(101)
        self.assertEqual(self.sessions(), set())

    def test_who_disables_again_tries_again(self) -> None:
        self.create()
        gate = self.backend.hold("release")
        disabled = self.manager.disable()
        gate.fail(BackendError("busy"))
        self.failureResultOf(disabled, BackendError)
        self.flushLoggedErrors(BackendError)
        gate.open()
        self.successResultOf(self.manager.disable())

    def test_a_store_that_cannot_be_listed_is_told(self) -> None:
        gate = self.backend.hold("sessions")
        disabled = self.manager.disable()
        gate.fail(BackendError("unreachable"))
        self.failureResultOf(disabled, BackendError)
        self.assertTrue(self.manager.is_disabled)

    def test_a_stop_ends_it(self) -> None:
        for _ in range(100):
            self.create(caller=Caller())
        gate = self.backend.hold("release")
        disabled = self.manager.disable()
        stopped = self.manager.stop()
        self.assertNoResult(stopped)
        gate.open()
        while not stopped.called:
            self.clock.advance(0)
        self.successResultOf(stopped)
        self.failureResultOf(disabled, BackendError)
        # The next start goes on with the rest.
        self.assertNotEqual(self.sessions(), set())

    def test_one_that_has_stopped_is_not_disabled(self) -> None:
        self.successResultOf(self.manager.stop())
        self.failureResultOf(self.manager.disable(), ServerStopping)


class EnablingTests(ManagerCase):
    """Uploads are enabled again."""

    def test_sessions_are_taken_again(self) -> None:
        self.successResultOf(self.manager.disable())
        self.manager.enable()
        self.successResultOf(self.close(self.complete()))

    def test_meanwhile_what_is_left_stays(self) -> None:
        for _ in range(30):
            self.create()
        gate = self.backend.hold("release")
        disabled = self.manager.disable()
        self.manager.enable()
        new = self.create()
        gate.open()
        self.successResultOf(disabled)
        left = self.sessions()
        self.assertIn(new, left)
        self.assertGreater(len(left), 20)
        self.upload(new)

    def test_disabled_again_meanwhile_nothing_is_left(self) -> None:
        for _ in range(30):
            self.create()
        gate = self.backend.hold("release")
        disabled = self.manager.disable()
        self.manager.enable()
        again = self.manager.disable()
        gate.open()
        self.clock.pump([0] * 10)
        self.successResultOf(disabled)
        self.successResultOf(again)
        self.assertEqual(self.sessions(), set())


class AtTheStartTests(ManagerCase):
    """``enabled`` is off."""

    def test_sessions_from_before_are_released(self) -> None:
        session_id = self.complete()
        self.create()
        self.restart(enabled=False)
        self.assertEqual(self.sessions(), set())
        self.assertEqual(self.memory.files, {})
        self.failureResultOf(self.close(session_id), UploadsDisabled)

    def test_what_could_not_be_released_is_by_a_later_round(self) -> None:
        self.create()
        gate = self.backend.hold("release")
        self.restart(enabled=False, cleanup_interval=100)
        gate.fail(BackendError("busy"))
        self.flushLoggedErrors(BackendError)
        self.assertNotEqual(self.sessions(), set())
        gate.open()
        self.clock.advance(101)
        self.assertEqual(self.sessions(), set())

    def test_it_can_be_enabled_later(self) -> None:
        self.restart(enabled=False)
        self.manager.enable()
        self.create()


class ApplicationTests(NotifyingCase):
    """A server application is being asked."""

    def test_the_asking_is_ended_first(self) -> None:
        underway = self.ask(self.create())
        ending = self.application.hold_ends()
        disabled = self.manager.disable()
        self.assertTrue(self.asked.is_aborted)
        self.assertNoResult(disabled)
        ending.open()
        self.successResultOf(disabled)
        self.failureResultOf(underway.outcome, Superseded)
        self.assertEqual(self.sessions(), set())


@implementer(IShared)
class _SharedBackend(RecordingBackend):
    """Other processes act in its sessions too."""


class SharedTests(ManagerCase):
    """A store that other processes use."""

    def test_sessions_of_others_are_released_as_well(self) -> None:
        self.create()
        self.successResultOf(self.manager.stop())
        self.backend = _SharedBackend(self.memory)
        self.manager = self.started()
        self.create()
        self.successResultOf(self.manager.disable())
        self.assertEqual(self.sessions(), set())
