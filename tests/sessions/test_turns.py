"""
Newest wins: a packet ends the one before it, whose connection may be long dead.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.sessions.support import BOB, NAME, SOURCE, TOTAL, ManagerCase, ScriptedBody
from txbits.errors import (
    BackendError,
    DestinationExists,
    FragmentTooLarge,
    NoSuchSession,
    OutOfStep,
    Superseded,
    TotalLengthChanged,
    UploadTooLarge,
)
from txbits.interfaces import Grant, IReleasable
from txbits.sessions import Caller, IRequestBody
from txbits.sessions._session import PacketOrder, Turn


class StalledFragmentTests(ManagerCase):
    """A Fragment stalls, and the client comes back on another connection."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_a_stalled_body_is_ended_and_its_bytes_are_kept(self) -> None:
        body, outcome = self.stall(self.session_id)
        newer = self.send(self.session_id, 3, SOURCE[3:])
        self.assertTrue(body.is_stopped)
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.successResultOf(newer), TOTAL)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_what_the_older_one_brought_is_skipped(self) -> None:
        _, outcome = self.stall(self.session_id)
        newer = self.send(self.session_id, 0, b"abc" + SOURCE[3:])
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.successResultOf(newer), TOTAL)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_one_that_never_sent_a_byte_is_ended(self) -> None:
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        self.upload(self.session_id)
        self.assertTrue(body.is_stopped)
        self.failureResultOf(outcome, Superseded)

    def test_the_newer_begins_only_when_the_older_writer_is_closed(self) -> None:
        older_body, older = self.stall(self.session_id)
        gate = self.backend.hold("close")
        body, newer = self.begin(self.session_id, 3, TOTAL - 3)
        body.send(SOURCE[3:])
        body.end()
        self.assertEqual((older_body.is_stopped, gate.waiting), (True, 1))
        self.assertFalse(body.is_received)
        self.assertEqual(self.backend.calls.count("open_writer"), 1)
        gate.open()
        self.failureResultOf(older, Superseded)
        self.assertEqual(self.successResultOf(newer), TOTAL)

    def test_the_newer_waits_for_a_write_of_the_older(self) -> None:
        gate = self.backend.hold("write")
        older_body, older = self.stall(self.session_id)
        body, newer = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE)
        body.end()
        self.assertEqual((older_body.is_stopped, body.is_received), (True, False))
        gate.open()
        self.failureResultOf(older, Superseded)
        self.assertEqual(self.successResultOf(newer), TOTAL)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_the_newer_waits_for_the_writer_of_the_older_to_open(self) -> None:
        gate = self.backend.hold("open_writer")
        older_body, older = self.begin(self.session_id, 0, TOTAL)
        newer = self.send(self.session_id, 0, SOURCE)
        self.assertEqual((older_body.is_stopped, gate.waiting), (True, 1))
        gate.open()
        self.failureResultOf(older, Superseded)
        self.assertEqual(self.successResultOf(newer), TOTAL)

    def test_one_that_has_arrived_is_waited_for_and_answered(self) -> None:
        """It is no longer being received; what takes time is the server's."""
        for newer in (self.close, self.cancel):
            session_id = self.create()
            gate = self.backend.hold("close")
            body, outcome = self.begin(session_id, 0, 5)
            body.send(SOURCE[:5])
            body.end()
            waiting = newer(session_id)
            self.assertFalse(body.is_stopped)
            self.assertNoResult(waiting)
            gate.open()
            self.assertEqual(self.successResultOf(outcome), 5)
            self.successResultOf(waiting)

    def test_of_three_at_once_the_newest_wins(self) -> None:
        oldest_body, oldest = self.stall(self.session_id)
        gate = self.backend.hold("close")
        middle_body, middle = self.begin(self.session_id, 3, TOTAL - 3)
        middle_body.send(SOURCE[3:5])
        newest_body, newest = self.begin(self.session_id, 3, TOTAL - 3)
        newest_body.send(SOURCE[3:])
        newest_body.end()
        self.assertTrue(oldest_body.is_stopped and middle_body.is_stopped)
        for outcome in (oldest, middle, newest):
            self.assertNoResult(outcome)
        gate.open()
        self.failureResultOf(oldest, Superseded)
        self.failureResultOf(middle, Superseded)
        self.assertFalse(middle_body.is_received)
        self.assertEqual(self.successResultOf(newest), TOTAL)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_they_may_come_one_after_the_other_for_ever(self) -> None:
        outcomes = []
        for at in range(TOTAL):
            body, outcome = self.begin(self.session_id, at, TOTAL - at)
            body.send(SOURCE[at : at + 1])
            self.assertNoResult(outcome)
            outcomes.append(outcome)
        self.assertEqual(self.held(self.session_id), SOURCE)
        self.upload(self.session_id, 9)
        for outcome in outcomes:
            self.failureResultOf(outcome, Superseded)

    def test_a_newer_fragment_whose_place_has_moved_is_placed_anew(self) -> None:
        gate = self.backend.hold("write")
        older_body, older = self.begin(self.session_id, 0, TOTAL)
        older_body.send(SOURCE[:3], SOURCE[3:8])
        newer = self.send(self.session_id, 0, b"xxxxxxxx89")
        gate.open()
        self.failureResultOf(older, Superseded)
        self.assertEqual(self.successResultOf(newer), TOTAL)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_a_session_whose_older_fragment_failed_goes_on(self) -> None:
        gate = self.backend.hold("write")
        _, older = self.stall(self.session_id)
        newer = self.send(self.session_id, 0, SOURCE)
        gate.fail(BackendError("not now"))
        self.failureResultOf(older, BackendError)
        self.failureResultOf(newer, BackendError)
        gate.open()
        self.upload(self.session_id)

    def test_another_session_is_not_disturbed(self) -> None:
        other = self.create()
        body, outcome = self.stall(self.session_id)
        self.upload(other)
        self.successResultOf(self.close(other))
        self.assertFalse(body.is_stopped)
        body.send(SOURCE[3:])
        body.end()
        self.assertEqual(self.successResultOf(outcome), TOTAL)


class OtherPacketsTests(ManagerCase):
    """Close and Cancel against a Fragment that stalls."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_close_ends_a_stalled_fragment(self) -> None:
        body, outcome = self.stall(self.session_id)
        gate = self.backend.hold("close")
        closing = self.close(self.session_id)
        self.assertTrue(body.is_stopped)
        self.assertNoResult(closing)
        self.assertNotIn("release", self.backend.calls)
        gate.open()
        self.failureResultOf(outcome, Superseded)
        self.successResultOf(closing)
        self.assertEqual((self.memory.files, self.sessions()), ({}, set()))

    def test_close_publishes_what_a_stalled_repetition_cannot_change(self) -> None:
        self.upload(self.session_id)
        body, outcome = self.begin(self.session_id, 5, 5)
        body.send(b"56")
        self.successResultOf(self.close(self.session_id))
        self.failureResultOf(outcome, Superseded)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_cancel_ends_a_stalled_fragment(self) -> None:
        body, outcome = self.stall(self.session_id)
        gate = self.backend.hold("close")
        cancelling = self.cancel(self.session_id)
        self.assertTrue(body.is_stopped)
        self.assertNoResult(cancelling)
        self.assertNotIn("release", self.backend.calls)
        gate.open()
        self.failureResultOf(outcome, Superseded)
        self.successResultOf(cancelling)
        self.assertEqual(self.sessions(), set())

    def test_a_fragment_that_waits_for_a_cancel_finds_no_session(self) -> None:
        _, older = self.stall(self.session_id)
        gate = self.backend.hold("close")
        cancelling = self.cancel(self.session_id)
        body, newer = self.begin(self.session_id, 3, TOTAL - 3)
        gate.open()
        self.failureResultOf(older, Superseded)
        self.successResultOf(cancelling)
        self.failureResultOf(newer, NoSuchSession)
        self.assertFalse(body.is_received)

    def test_a_fragment_waits_for_a_close_that_is_publishing(self) -> None:
        self.upload(self.session_id)
        gate = self.backend.hold("publish")
        closing = self.close(self.session_id)
        body, outcome = self.begin(self.session_id, 5, 5)
        self.assertNoResult(outcome)
        self.assertFalse(body.is_received)
        gate.open()
        self.successResultOf(closing)
        self.failureResultOf(outcome, NoSuchSession)
        self.assertFalse(body.is_received)

    def test_a_fragment_goes_on_when_publishing_has_failed(self) -> None:
        self.upload(self.session_id)
        gate = self.backend.hold("publish")
        closing = self.close(self.session_id)
        outcome = self.send(self.session_id, 5, SOURCE[5:])
        gate.fail(BackendError("not now"))
        self.failureResultOf(closing, BackendError)
        self.assertEqual(self.successResultOf(outcome), TOTAL)

    def test_close_ends_a_fragment_that_waits(self) -> None:
        self.upload(self.session_id)
        gate = self.backend.hold("publish")
        first = self.close(self.session_id)
        body, outcome = self.begin(self.session_id, 5, 5)
        second = self.close(self.session_id)
        self.assertTrue(body.is_stopped)
        gate.open()
        self.successResultOf(first)
        self.failureResultOf(outcome, Superseded)
        self.successResultOf(second)

    def test_a_packet_that_waits_lends_its_permission_to_none(self) -> None:
        self.restart(allow_overwrites=True)
        self.memory.files[NAME] = b"theirs"
        session_id = self.create()
        gate = self.backend.hold("open_writer")
        who = Caller("alice", "192.0.2.1", Grant(overwrite=False))
        closing = self.close(session_id, caller=who)
        fragment = self.send(session_id, 0, SOURCE)
        gate.open()
        self.failureResultOf(closing, DestinationExists)
        self.failureResultOf(fragment, TotalLengthChanged)
        self.assertEqual(self.memory.files, {NAME: b"theirs"})
        # This one may.
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: b""})

    def test_a_packet_that_waits_is_held_to_its_own_permission(self) -> None:
        who = Caller("alice", "192.0.2.1", Grant(max_size=TOTAL - 1))
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        newer = self.send(self.session_id, 0, SOURCE, caller=who)
        self.failureResultOf(newer, UploadTooLarge)
        self.assertFalse(body.is_stopped)
        self.assertNoResult(outcome)


class RefusedNewerTests(ManagerCase):
    """Only a packet that passes the checks ends the one before it."""

    def test_a_refused_packet_does_not_end_the_older(self) -> None:
        self.restart(max_upload_size=TOTAL, max_fragment_size=8)
        session_id = self.create()
        body, outcome = self.begin(session_id, 0, 8)
        body.send(SOURCE[:3])
        refused: list[tuple[Deferred[Any], type[Exception]]] = [
            (self.send(session_id, 4, SOURCE[4:]), OutOfStep),
            (self.send(session_id, 0, SOURCE[:8], 9), TotalLengthChanged),
            (self.send(session_id, 0, SOURCE), FragmentTooLarge),
            (self.send(session_id, 3, b"x", caller=BOB), NoSuchSession),
            (self.send(session_id, 3, b"x", destination=("other",)), NoSuchSession),
            (self.close(session_id, caller=BOB), NoSuchSession),
            (self.close(session_id, ("other",)), NoSuchSession),
            (self.cancel(session_id, caller=BOB), NoSuchSession),
            (self.cancel(session_id, ("other",)), NoSuchSession),
        ]
        for newer, expected in refused:
            self.failureResultOf(newer, expected)
        self.assertFalse(body.is_stopped)
        self.assertNoResult(outcome)
        body.send(SOURCE[3:8])
        body.end()
        self.assertEqual(self.successResultOf(outcome), 8)


class TurnTests(SynchronousTestCase):
    """``PacketOrder`` alone."""

    def take(
        self, turns: PacketOrder, body: ScriptedBody | None = None
    ) -> Deferred[Turn]:
        async def take() -> Turn:
            turn = turns.enter(body)
            try:
                await turn.begins()
            except Superseded:
                turns.give_back(turn)
                raise
            return turn

        return Deferred.fromCoroutine(take())

    def test_the_fake_body_keeps_to_the_interface(self) -> None:
        verifyObject(IRequestBody, ScriptedBody())

    def test_a_turn_is_released_like_everything_else(self) -> None:
        verifyObject(IReleasable, Turn(None))

    def test_the_first_does_not_wait(self) -> None:
        turns = PacketOrder()
        turn = self.successResultOf(self.take(turns))
        self.assertIs(turns.newest, turn)
        turns.give_back(turn)
        self.assertIsNone(turns.newest)

    def test_release_fires_when_the_turn_is_over(self) -> None:
        turns, body = PacketOrder(), ScriptedBody()
        turn = self.successResultOf(self.take(turns, body))
        releasing = [turn.release(), turn.release()]
        self.assertTrue(body.is_stopped and turn.superseded)
        for one in releasing:
            self.assertNoResult(one)
        turns.give_back(turn)
        for one in [*releasing, turn.release()]:
            self.successResultOf(one)

    def test_one_that_is_over_is_not_ended(self) -> None:
        turns, body = PacketOrder(), ScriptedBody()
        turn = self.successResultOf(self.take(turns, body))
        turns.give_back(turn)
        self.successResultOf(turn.release())
        self.assertFalse(body.is_stopped or turn.superseded)

    def test_one_without_a_body_is_waited_for(self) -> None:
        turns = PacketOrder()
        turn = self.successResultOf(self.take(turns))
        following = self.take(turns)
        self.assertNoResult(following)
        self.assertFalse(turn.superseded)
        turns.give_back(turn)
        self.assertIs(self.successResultOf(following), turns.newest)

    def test_one_that_is_ended_while_it_waits_never_acts(self) -> None:
        turns, body = PacketOrder(), ScriptedBody()
        turn = self.successResultOf(self.take(turns))
        waiting, newest = self.take(turns, body), self.take(turns)
        self.assertTrue(body.is_stopped)
        self.assertNoResult(waiting)
        turns.give_back(turn)
        self.failureResultOf(waiting, Superseded)
        self.successResultOf(newest)
