"""
The rows of the failure table that a session can end up in, each in a test by its name.

The manager knows no row: it fails with an error, which the web answers with the row.
The other half of these tests is ``tests.web.test_failure_table``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tests.sessions.support import ALICE, BOB, NAME, SOURCE, TOTAL, UNKNOWN, ManagerCase
from txbits.errors import (
    BackendError,
    BodyMismatch,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    FragmentTooLarge,
    NoSuchSession,
    OutOfSpace,
    OutOfStep,
    ParentMissing,
    ServerStopping,
    SessionLimitReached,
    StagedDataLost,
    TotalLengthChanged,
    UploadTooLarge,
)


class FailureRowTests(ManagerCase):
    """One test a row."""

    def creating(self, *destination: str) -> Deferred[Any]:
        return self.manager.create(destination, ALICE, None)

    def assert_fails_with_what_storage_says(
        self, operation: str, begin: Callable[[], Deferred[Any]], error: Exception
    ) -> None:
        gate = self.backend.hold(operation)
        gate.fail(error)
        self.assertIs(self.failureResultOf(begin()).value, error)
        gate.open()

    def test_bad_range(self) -> None:
        """A chunked body is as long as its range."""
        for length in (4, 6):
            body, outcome = self.begin(self.create(), 0, 5)
            body.send(SOURCE[:length])
            body.end()
            self.failureResultOf(outcome, BodyMismatch)

    def test_total_changed(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        outcome = self.send(session_id, 4, SOURCE[4:], TOTAL + 1)
        self.failureResultOf(outcome, TotalLengthChanged)

    def test_destination_is_directory(self) -> None:
        self.memory.files["logs", "today.log", "x"] = b""
        self.failureResultOf(self.creating(*NAME), DestinationIsDirectory)

    def test_destination_forbidden(self) -> None:
        self.failureResultOf(self.creating("..", "x"), DestinationForbidden)

    def test_destination_exists(self) -> None:
        session_id = self.complete()
        self.memory.files[NAME] = b"theirs"
        self.failureResultOf(self.creating(*NAME), DestinationExists)
        self.failureResultOf(self.close(session_id), DestinationExists)
        self.assertEqual(self.memory.files, {NAME: b"theirs"})
        self.assertEqual(self.held(session_id), SOURCE)

    def test_parent_missing(self) -> None:
        self.memory.files[NAME] = b""
        self.failureResultOf(self.creating(*NAME, "x"), ParentMissing)

    def test_session_not_found(self) -> None:
        """Unknown, expired, cancelled, closed, or another's."""
        self.assert_unknown(UNKNOWN)
        self.restart(session_timeout=1000)
        cancelled, closed, others = self.create(), self.complete(), self.create()
        self.successResultOf(self.cancel(cancelled))
        self.assert_unknown(cancelled)
        self.successResultOf(self.close(closed))
        self.failureResultOf(self.send(closed, 0, SOURCE), NoSuchSession)
        self.failureResultOf(self.cancel(closed), NoSuchSession)
        self.assert_unknown(others, caller=BOB)
        self.assert_unknown(others, destination=("other",))
        self.clock.advance(1001)
        self.assert_unknown(others)

    def test_out_of_step(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        outcome = self.send(session_id, 5, SOURCE[5:])
        self.assertEqual(self.failureResultOf(outcome, OutOfStep).value.offset, 4)
        self.assertEqual(self.held(session_id), SOURCE[:4])

    def test_upload_too_large(self) -> None:
        """Known from the first Fragment's total."""
        self.restart(max_upload_size=TOTAL - 1)
        session_id = self.create()
        self.failureResultOf(self.send(session_id, 0, b"0"), UploadTooLarge)

    def test_fragment_too_large(self) -> None:
        """The client resends smaller fragments, which are taken."""
        self.restart(max_fragment_size=5)
        session_id = self.create()
        self.failureResultOf(self.send(session_id, 0, SOURCE[:6]), FragmentTooLarge)
        self.upload(session_id, 0, 5)
        self.upload(session_id, 5, 10)

    def test_session_limit_reached(self) -> None:
        self.restart(session_limit=1)
        session_id = self.create()
        self.failureResultOf(self.creating(*NAME), SessionLimitReached)
        self.upload(session_id)

    def test_out_of_space(self) -> None:
        error = OutOfSpace("full")
        session_id = self.complete()
        other = self.create()
        for operation, begin in (
            ("create", lambda: self.creating("new")),
            ("open_writer", lambda: self.send(other, 0, SOURCE)),
            ("write", lambda: self.send(other, 0, SOURCE)),
            ("publish", lambda: self.close(session_id)),
        ):
            self.assert_fails_with_what_storage_says(operation, begin, error)
        self.upload(other)
        self.successResultOf(self.close(session_id))

    def test_staged_data_lost(self) -> None:
        error = StagedDataLost("somebody took it")
        session_id = self.complete()
        self.assert_fails_with_what_storage_says(
            "publish", lambda: self.close(session_id), error
        )
        other = self.create()
        self.upload(other, 0, 4)
        self.assert_fails_with_what_storage_says(
            "open_writer", lambda: self.send(other, 4, SOURCE[4:]), error
        )

    def test_storage_fault(self) -> None:
        """It is never taken for a session that is unknown."""
        error = BackendError("no answer")
        session_id = self.complete()
        for operation, begin in (
            ("create", lambda: self.creating("new")),
            ("publish", lambda: self.close(session_id)),
            ("release", lambda: self.close(session_id)),
            ("release", lambda: self.cancel(session_id)),
            ("recalls_close", lambda: self.close(UNKNOWN)),
            ("find", lambda: self.close(UNKNOWN)),
            ("find", lambda: self.cancel(UNKNOWN)),
            ("find", lambda: self.send(UNKNOWN, 0, SOURCE)),
        ):
            self.assert_fails_with_what_storage_says(operation, begin, error)
        self.successResultOf(self.close(session_id))
        self.assertEqual(self.memory.files, {NAME: SOURCE})

    def test_server_stopping(self) -> None:
        session_id = self.create()
        self.successResultOf(self.manager.stop())
        self.failureResultOf(self.creating(*NAME), ServerStopping)
        self.failureResultOf(self.send(session_id, 0, SOURCE), ServerStopping)
        self.failureResultOf(self.close(session_id), ServerStopping)
        self.failureResultOf(self.cancel(session_id), ServerStopping)
