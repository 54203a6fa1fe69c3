"""
What a Fragment is refused for: the checks, all before its body, and the storage.
"""

from __future__ import annotations

from typing import Any

from tests.sessions.support import BOB, NAME, SOURCE, TOTAL, UNKNOWN, ManagerCase
from txbits.errors import (
    BackendError,
    BodyIncomplete,
    FragmentTooLarge,
    NoSuchSession,
    OutOfSpace,
    OutOfStep,
    StagedDataLost,
    TotalLengthChanged,
    UploadTooLarge,
)


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
