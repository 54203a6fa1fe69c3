"""
What each packet does to a session: Create-Session and Fragment, one at a time.

Close-Session is in ``test_close``, Cancel-Session in ``test_release``, several packets
at once in ``test_turns``.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred

from tests.sessions.support import (
    ALICE,
    ANYONE,
    BOB,
    NAME,
    SOURCE,
    TOTAL,
    UNKNOWN,
    ManagerCase,
)
from txbits.errors import (
    BackendError,
    BodyIncomplete,
    BodyMismatch,
    FragmentTooLarge,
    NoSuchSession,
    OutOfSpace,
    OutOfStep,
    StagedDataLost,
    Superseded,
    TotalLengthChanged,
    UploadTooLarge,
)
from txbits.sessions import SessionManager, Settings


class CreateTests(ManagerCase):
    """Create-Session."""

    def test_a_session_is_made_in_the_store(self) -> None:
        session_id = self.create()
        found = self.successResultOf(self.memory.find(session_id))
        self.assertEqual(
            (found.destination, found.owner, found.content_name),
            (NAME, "alice", "a.txt"),
        )

    def test_nothing_is_visible_at_the_destination(self) -> None:
        self.create()
        self.assertEqual(self.memory.files, {})

    def test_it_waits_until_a_restart_would_find_the_session(self) -> None:
        gate = self.backend.hold("create")
        creating = self.manager.create(NAME, ALICE, None)
        self.assertNoResult(creating)
        gate.open()
        self.assertEqual({self.successResultOf(creating)}, self.sessions())

    def test_ids_are_random_unless_told(self) -> None:
        self.assertNotEqual(self.create(), self.create())
        manager = SessionManager(
            self.memory, Settings(), self.clock, lambda: UUID(int=7)
        )
        made = self.successResultOf(manager.create(NAME, ALICE, None))
        self.assertEqual(made, UUID(int=7))

    def test_several_sessions_may_have_one_destination(self) -> None:
        first, second = self.create(), self.create()
        self.upload(second)
        self.upload(first)
        self.assertEqual(self.held(first), self.held(second))

    def test_the_rules_are_handed_to_the_backend(self) -> None:
        asked: list[tuple[bool, bool]] = []
        real = self.memory.create

        class Recording:
            def create(self, *args: Any, **kwargs: Any) -> Deferred[Any]:
                asked.append((kwargs["overwrite"], kwargs["create_directories"]))
                return real(*args, **kwargs)

        for rules in ((False, False), (True, False), (False, True)):
            manager = SessionManager(
                Recording(),  # type: ignore[arg-type]
                Settings(allow_overwrites=rules[0], create_directories=rules[1]),
                self.clock,
            )
            self.successResultOf(manager.create(NAME, ALICE, None))
            self.assertEqual(asked[-1], rules)


class FragmentTests(ManagerCase):
    """Fragments that come one after the other."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_bytes_are_appended(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.upload(self.session_id, 4, 9)
        self.upload(self.session_id, 9, 10)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_a_body_may_come_in_any_pieces(self) -> None:
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        for at in range(TOTAL):
            self.assertNoResult(outcome)
            body.send(SOURCE[at : at + 1])
        body.end()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_nothing_is_visible_at_the_destination(self) -> None:
        self.upload(self.session_id)
        self.assertEqual(self.memory.files, {})

    def test_bytes_that_are_held_are_skipped(self) -> None:
        self.upload(self.session_id, 0, 4)
        for pieces in ([b"abcd45"], [b"a", b"bc", b"d4", b"5"], [b"abcd", b"45"]):
            session_id = self.create()
            self.upload(session_id, 0, 4)
            body, outcome = self.begin(session_id, 0, 6)
            body.send(*pieces)
            body.end()
            self.assertEqual(self.successResultOf(outcome), 6)
            self.assertEqual(self.held(session_id), b"012345")

    def test_an_overlap_may_begin_anywhere(self) -> None:
        for first in range(5):
            session_id = self.create()
            self.upload(session_id, 0, 5)
            self.upload(session_id, first, TOTAL)
            self.assertEqual(self.held(session_id), SOURCE)

    def test_a_fragment_that_is_held_altogether_changes_nothing(self) -> None:
        """The answer is the new offset, which is larger than its own end."""
        self.upload(self.session_id, 0, 8)
        outcome = self.send(self.session_id, 2, b"abc")
        self.assertEqual(self.successResultOf(outcome), 8)
        self.assertEqual(self.held(self.session_id), SOURCE[:8])

    def test_the_last_fragment_may_be_sent_again(self) -> None:
        self.upload(self.session_id)
        for first in (0, 5, 9):
            outcome = self.send(self.session_id, first, b"x" * (TOTAL - first))
            self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.assertEqual(self.held(self.session_id), SOURCE)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_the_last_fragment_may_be_sent_again_after_a_restart(self) -> None:
        self.upload(self.session_id)
        self.restart()
        self.upload(self.session_id, 5)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_it_goes_on_after_a_restart(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.restart()
        outcome, _ = self.send(self.session_id, 5, SOURCE[5:]), None
        self.assertEqual(self.failureResultOf(outcome, OutOfStep).value.offset, 4)
        self.upload(self.session_id, 3)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_an_empty_fragment_makes_an_empty_file(self) -> None:
        for _ in range(2):
            outcome = self.send(self.session_id, 0, b"", 0)
            self.assertEqual(self.successResultOf(outcome), 0)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.memory.files, {NAME: b""})

    def test_the_ack_waits_until_the_bytes_are_safe(self) -> None:
        gate = self.backend.hold("close")
        outcome = self.send(self.session_id, 0, SOURCE)
        self.assertNoResult(outcome)
        gate.open()
        self.assertEqual(self.successResultOf(outcome), TOTAL)

    def test_a_session_of_anonymous_callers_is_theirs(self) -> None:
        session_id = self.create(caller=ANYONE)
        self.successResultOf(self.send(session_id, 0, SOURCE, caller=ANYONE))
        self.successResultOf(self.close(session_id, caller=ANYONE))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    # Back-pressure

    def test_a_slow_writer_is_respected(self) -> None:
        gate = self.backend.hold("write")
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE[:3], SOURCE[3:6], SOURCE[6:])
        body.end()
        self.assertEqual((body.taken, gate.waiting), ([SOURCE[:3]], 1))
        self.assertNoResult(outcome)
        gate.open()
        self.assertEqual(body.taken, [SOURCE[:3], SOURCE[3:6], SOURCE[6:]])
        self.assertEqual(self.successResultOf(outcome), TOTAL)

    def test_the_writer_is_not_closed_before_its_write_has_ended(self) -> None:
        gate = self.backend.hold("write")
        body, outcome = self.stall(self.session_id)
        body.lose()
        self.assertNotIn("close", self.backend.calls)
        gate.open()
        self.failureResultOf(outcome, BodyIncomplete)
        self.assertEqual(self.held(self.session_id), SOURCE[:3])

    def test_a_body_waits_for_its_writer(self) -> None:
        gate = self.backend.hold("open_writer")
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE)
        body.end()
        self.assertFalse(body.is_received)
        gate.open()
        self.assertEqual(self.successResultOf(outcome), TOTAL)

    def test_skipping_does_not_wait_for_the_writer(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.backend.hold("write")
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE[:2], SOURCE[2:4], SOURCE[4:6], SOURCE[6:])
        self.assertEqual(body.taken, [SOURCE[:2], SOURCE[2:4], SOURCE[4:6]])
        self.assertNoResult(outcome)

    # Bodies that end early

    def test_a_lost_connection_keeps_the_prefix(self) -> None:
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE[:3], SOURCE[3:7])
        body.lose()
        error = self.failureResultOf(outcome, BodyIncomplete).value
        self.assertNotIsInstance(error, Superseded)
        self.assertEqual(self.held(self.session_id), SOURCE[:7])
        self.upload(self.session_id, 7)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_a_connection_lost_before_the_first_byte_loses_nothing(self) -> None:
        self.upload(self.session_id, 0, 4)
        body, outcome = self.begin(self.session_id, 4, 6)
        body.lose()
        self.failureResultOf(outcome, BodyIncomplete)
        self.assertEqual(self.held(self.session_id), SOURCE[:4])
        self.upload(self.session_id, 4)

    def test_a_connection_lost_among_skipped_bytes_loses_nothing(self) -> None:
        self.upload(self.session_id, 0, 4)
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE[:2])
        body.lose()
        self.failureResultOf(outcome, BodyIncomplete)
        self.assertEqual(self.held(self.session_id), SOURCE[:4])

    def test_an_upload_whose_last_byte_came_is_complete(self) -> None:
        """Its client never learns that, and sends the fragment again."""
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE)
        body.lose()
        self.failureResultOf(outcome, BodyIncomplete)
        self.upload(self.session_id, 5)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    # Chunked bodies, whose length nobody promised

    def test_nothing_beyond_the_range_is_stored(self) -> None:
        for pieces in ([b"0123456"], [b"0123", b"456"], [b"01234", b"5", b"6"]):
            session_id = self.create()
            body, outcome = self.begin(session_id, 0, 5)
            body.send(*pieces)
            body.end()
            self.failureResultOf(outcome, BodyMismatch)
            self.assertEqual(self.held(session_id), SOURCE[:5])
            self.upload(session_id, 5)

    def test_nothing_beyond_the_file_is_stored(self) -> None:
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE, b"more", b"and more")
        body.end()
        self.failureResultOf(outcome, BodyMismatch)
        self.assertEqual(self.held(self.session_id), SOURCE)
        body, outcome = self.begin(self.session_id, 5, 5)
        body.send(SOURCE)
        body.end()
        self.failureResultOf(outcome, BodyMismatch)
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_nothing_is_stored_of_an_empty_file(self) -> None:
        body, outcome = self.begin(self.session_id, 0, 0, 0)
        body.send(b"x")
        body.end()
        self.failureResultOf(outcome, BodyMismatch)
        self.assertEqual(self.held(self.session_id), b"")

    def test_what_came_of_a_body_too_short_is_kept(self) -> None:
        body, outcome = self.begin(self.session_id, 0, 8)
        body.send(SOURCE[:5])
        body.end()
        self.failureResultOf(outcome, BodyMismatch)
        self.assertEqual(self.held(self.session_id), SOURCE[:5])
        self.upload(self.session_id, 5)


class CheckTests(ManagerCase):
    """A Fragment is checked before anything of it is read."""

    def refused(self, expected: type[Exception], *args: Any, **who: Any) -> Any:
        """A Fragment is refused, and not a byte of it read."""
        body, outcome = self.begin(*args, **who)
        body.send(SOURCE)
        error = self.failureResultOf(outcome, expected).value
        self.assertFalse(body.is_received)
        self.assertFalse(body.is_stopped, "that is for the web to decide")
        return error

    def test_nothing_of_a_refused_body_is_read(self) -> None:
        self.restart(max_upload_size=TOTAL, max_fragment_size=8)
        session_id = self.create()
        self.upload(session_id, 0, 2)
        self.backend.calls.clear()
        self.refused(NoSuchSession, UNKNOWN, 0, 5)
        self.refused(NoSuchSession, session_id, 0, 5, caller=BOB)
        self.refused(NoSuchSession, session_id, 0, 5, destination=("other",))
        self.refused(TotalLengthChanged, session_id, 0, 5, 9)
        self.refused(OutOfStep, session_id, 3, 5)
        self.refused(FragmentTooLarge, session_id, 0, 9)
        self.assertEqual(self.backend.calls, ["find"])
        self.assertEqual(self.held(session_id), SOURCE[:2])

    def test_out_of_step_tells_the_offset(self) -> None:
        session_id = self.create()
        self.assertEqual(self.refused(OutOfStep, session_id, 1, 5).offset, 0)
        self.upload(session_id, 0, 4)
        self.assertEqual(self.refused(OutOfStep, session_id, 5, 5).offset, 4)
        self.upload(session_id, 4, 5)

    def test_the_total_is_known_from_the_first_fragment(self) -> None:
        session_id = self.create()
        body, outcome = self.begin(session_id, 0, TOTAL)
        body.lose()
        self.failureResultOf(outcome, BodyIncomplete)
        for total in (TOTAL - 1, TOTAL + 1, 2**62):
            self.refused(TotalLengthChanged, session_id, 0, 5, total)
        self.restart()
        self.refused(TotalLengthChanged, session_id, 0, 5, TOTAL + 1)
        self.upload(session_id)
        self.refused(TotalLengthChanged, session_id, 0, 5, TOTAL + 1)

    def test_the_total_of_a_refused_fragment_is_not_remembered(self) -> None:
        session_id = self.create()
        self.refused(OutOfStep, session_id, 1, 5, 99)
        self.upload(session_id)

    def test_limits_allow_what_they_say(self) -> None:
        self.restart(max_upload_size=TOTAL, max_fragment_size=6)
        session_id = self.create()
        self.refused(FragmentTooLarge, session_id, 0, 7)
        self.upload(session_id, 0, 6)
        self.upload(session_id, 6, 10)
        self.refused(UploadTooLarge, self.create(), 0, 1, TOTAL + 1)

    def test_the_session_is_checked_before_the_range(self) -> None:
        self.restart(max_upload_size=5, max_fragment_size=2)
        session_id = self.create()
        self.refused(NoSuchSession, session_id, 5, 5, caller=BOB)
        self.refused(NoSuchSession, UNKNOWN, 5, 5)

    def test_the_range_is_checked_before_the_limits(self) -> None:
        self.restart(max_upload_size=5, max_fragment_size=2)
        session_id = self.create()
        self.refused(OutOfStep, session_id, 5, 5)

    def test_the_limit_of_the_file_is_checked_before_that_of_the_fragment(self) -> None:
        """Smaller fragments would not help."""
        self.restart(max_upload_size=5, max_fragment_size=2)
        self.refused(UploadTooLarge, self.create(), 0, 5)


class StorageTests(ManagerCase):
    """What the storage cannot do is told, and what it has is kept."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_a_writer_that_cannot_be_opened(self) -> None:
        for error in (OutOfSpace("full"), StagedDataLost("gone"), BackendError("?")):
            gate = self.backend.hold("open_writer")
            body, outcome = self.begin(self.session_id, 0, TOTAL)
            gate.fail(error)
            self.assertIs(self.failureResultOf(outcome).value, error)
            self.assertFalse(body.is_received)
            gate.open()
        self.upload(self.session_id)

    def test_a_write_that_fails_keeps_what_was_before(self) -> None:
        body, outcome = self.stall(self.session_id)
        gate = self.backend.hold("write")
        gate.fail(OutOfSpace("full"))
        body.send(SOURCE[3:])
        self.failureResultOf(outcome, OutOfSpace)
        self.assertEqual(self.backend.calls[-1], "close", "the writer is closed")
        gate.open()
        self.assertEqual(self.held(self.session_id), SOURCE[:3])
        self.upload(self.session_id, 3)

    def test_bytes_that_are_not_safe_are_not_acknowledged(self) -> None:
        gate = self.backend.hold("close")
        outcome = self.send(self.session_id, 0, SOURCE)
        gate.fail(BackendError("no fsync"))
        self.failureResultOf(outcome, BackendError)

    def test_a_store_that_does_not_answer_makes_no_session_unknown(self) -> None:
        """To be told that its session is unknown makes a client start over."""
        self.restart()
        gate = self.backend.hold("find")
        gate.fail(BackendError("no answer"))
        for outcome in (
            self.send(self.session_id, 0, SOURCE),
            self.close(self.session_id),
            self.cancel(self.session_id),
        ):
            error = self.failureResultOf(outcome, BackendError).value
            self.assertNotIsInstance(error, NoSuchSession)
        gate.open()
        self.upload(self.session_id)

    def test_a_session_is_looked_up_once_after_a_restart(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.restart()
        self.backend.calls.clear()
        gate = self.backend.hold("find")
        refused = self.send(self.session_id, 5, SOURCE[5:])
        stranger = self.send(self.session_id, 0, SOURCE, caller=BOB)
        taken = self.send(self.session_id, 4, SOURCE[4:])
        self.assertEqual((self.backend.calls, gate.waiting), (["find"], 1))
        gate.open()
        self.failureResultOf(refused, OutOfStep)
        self.failureResultOf(stranger, NoSuchSession)
        self.assertEqual(self.successResultOf(taken), TOTAL)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.backend.calls.count("find"), 1)
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_a_failed_look_up_is_everyones_and_the_next_one_is_new(self) -> None:
        self.restart()
        gate = self.backend.hold("find")
        waiting = [self.send(self.session_id, 0, SOURCE), self.cancel(self.session_id)]
        gate.fail(BackendError("no answer"))
        for outcome in waiting:
            self.failureResultOf(outcome, BackendError)
        gate.open()
        self.upload(self.session_id)
