"""
What each packet does to a session: Create-Session and Fragment, one at a time.

What a Fragment is refused for is in ``test_checks``, Close-Session in ``test_close``,
Cancel-Session in ``test_release``, several packets at once in ``test_turns``.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, maybeDeferred

from tests.sessions.support import (
    ALICE,
    ANYONE,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
)
from txbits._workers import Worker
from txbits.backends.disk import DiskBackend
from txbits.errors import (
    BodyIncomplete,
    BodyMismatch,
    OutOfStep,
    Superseded,
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

    def test_a_name_that_is_also_the_destination_s_is_kept_once(self) -> None:
        name = "".join(("a", ".txt"))
        made = self.manager.create(("folder", name), ALICE, "".join(("a.", "txt")))
        found = self.successResultOf(self.memory.find(self.successResultOf(made)))
        self.assertIs(found.content_name, found.destination[-1])

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

    def test_ids_are_those_of_a_backend_with_workers(self) -> None:
        backend = DiskBackend(
            self.mktemp(), self.clock, in_thread=maybeDeferred, worker=Worker(2, 3)
        )
        manager = SessionManager(backend, Settings(), self.clock)
        self.successResultOf(manager.start())
        self.addCleanup(lambda: self.successResultOf(manager.stop()))
        made = self.successResultOf(manager.create(("a",), ALICE, None))
        self.assertEqual(backend.worker_of(made), 2)

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
        outcome = self.send(self.session_id, 5, SOURCE[5:])
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
