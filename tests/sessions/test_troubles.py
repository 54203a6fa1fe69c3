"""
A store that fails: the log has one line a minute, without a traceback, and one when it
works again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from tests.sessions.support import ALICE, SOURCE, ManagerCase, RecordingBackend
from txbits.errors import BackendError, OutOfSpace, ParentMissing, StagedDataLost
from txbits.interfaces import SessionSummary


class TroubleTests(ManagerCase):
    """What the log says of a store that fails packet after packet."""

    who = (ALICE, None)

    def fail_at(self, act: Callable[[], Deferred[Any]]) -> None:
        self.failureResultOf(act(), BackendError)

    def failing_create(self) -> None:
        self.failureResultOf(self.manager.create(("a",), *self.who), BackendError)

    def test_a_full_store_is_told_once_with_what_to_do(self) -> None:
        session_id = self.create()
        full = OutOfSpace("/srv/uploads is full; free some space")
        self.backend.hold("write").fail(full)

        def fail_often() -> None:
            for _ in range(5):
                self.failureResultOf(self.send(session_id, 0, SOURCE), OutOfSpace)

        self.assertEqual(
            self.troubles(fail_often),
            [
                (
                    "/: uploaded bytes cannot be stored: /srv/uploads is full; "
                    "free some space"
                ),
            ],
        )

    def test_every_minute_there_is_a_line_with_a_count(self) -> None:
        self.backend.hold("create").fail(BackendError("no answer"))

        def fail_for_a_minute() -> None:
            for _ in range(7):
                self.failing_create()
                self.clock.advance(10)

        self.assertEqual(
            self.troubles(fail_for_a_minute),
            [
                "/: no session can be created: no answer",
                (
                    "/: no session can be created: no answer "
                    "(5 more failures since the last such line)"
                ),
            ],
        )

    def test_a_line_tells_that_it_is_over(self) -> None:
        cases: list[tuple[str, str, str, Callable[[], Deferred[Any]]]] = [
            (
                "create",
                "no session can be created: away",
                "sessions can be created again",
                lambda: self.manager.create(("a",), *self.who),
            ),
            (
                "publish",
                "uploads cannot be finished: away",
                "uploads can be finished again",
                lambda: self.close(self.complete()),
            ),
            (
                "release",
                "sessions cannot be released: away",
                "sessions are released again",
                lambda: self.cancel(self.create()),
            ),
            (
                "open_writer",
                "uploaded bytes cannot be stored: away",
                "uploaded bytes are stored again",
                lambda: self.send(self.create(), 0, SOURCE),
            ),
        ]
        for operation, begins, ends, act in cases:
            self.memory.files.clear()
            gate = self.backend.hold(operation)
            gate.fail(BackendError("away"))
            self.assertEqual(
                self.troubles(partial(self.fail_at, act)),
                [f"/: {begins}"],
            )
            gate.open()
            self.clock.advance(30)
            self.assertEqual(self.troubles(act), [f"/: {ends} (failures: 1, in 30 s)"])

    def test_one_that_comes_and_goes_is_told_once_a_minute(self) -> None:
        gate = self.backend.hold("create")

        def come_and_go() -> None:
            for _ in range(5):
                gate.fail(BackendError("away"))
                self.failing_create()
                gate.open()
                self.successResultOf(self.manager.create(("a",), *self.who))

        self.assertEqual(
            self.troubles(come_and_go),
            [
                "/: no session can be created: away",
                "/: sessions can be created again (failures: 1, in 0 s)",
            ],
        )

    def test_faults_of_one_upload_are_for_its_client(self) -> None:
        session_id = self.complete()
        self.backend.hold("publish").fail(ParentMissing("logs"))
        self.assertEqual(
            self.troubles(
                lambda: self.failureResultOf(self.close(session_id), ParentMissing)
            ),
            [],
        )

    def test_mistakes_of_ours_are_not_told_as_troubles(self) -> None:
        self.backend.hold("create").fail(ValueError("a mistake of ours"))
        self.assertEqual(
            self.troubles(
                lambda: self.failureResultOf(
                    self.manager.create(("a",), *self.who), ValueError
                )
            ),
            [],
        )

    def test_a_repeated_close_that_fails_is_told(self) -> None:
        session_id = self.create()
        self.upload(session_id)
        self.successResultOf(self.close(session_id))
        self.backend.hold("recalls_close").fail(BackendError("the disk is broken"))
        (line,) = self.troubles(
            lambda: self.failureResultOf(self.close(session_id), BackendError)
        )
        self.assertIn("the disk is broken", line)


class _Forgetful(RecordingBackend):
    """Lists no session, so that each is looked for."""

    def sessions(self) -> Deferred[list[SessionSummary]]:
        return succeed([])


class CleanUpTests(ManagerCase):
    """A clean-up that fails has no client that hears of it."""

    rules = {"session_timeout": 100, "cleanup_interval": 50}

    def told(self, rounds: int) -> list[str]:
        """What the log says in some rounds of the clean-up."""
        with capturedLogs() as events:
            for _ in range(rounds):
                self.clock.advance(50)
        for event in events:
            self.assertNotIn("log_failure", event)
        return [formatEvent(event) for event in events]

    def test_a_release_that_fails_is_told_whatever_the_fault(self) -> None:
        self.create()
        self.backend.hold("release").fail(StagedDataLost("its parts are gone"))
        told = self.told(3)
        self.assertTrue(told)
        for line in told:
            self.assertIn("cannot be released", line)
            self.assertIn("StagedDataLost: its parts are gone", line)

    def test_a_round_that_fails_is_told_whatever_the_fault(self) -> None:
        self.backend.hold("clean_up").fail(StagedDataLost("its parts are gone"))
        (line,) = self.told(1)
        self.assertIn("its parts are gone", line)

    def test_it_does_not_work_again_as_long_as_it_cannot_find_out(self) -> None:
        self.backend = _Forgetful(self.memory)
        self.restart(session_timeout=10_000)
        self.create()
        self.backend.hold("find").fail(BackendError("cannot read the record"))
        told = self.told(3)
        self.assertTrue(told)
        self.assertFalse([one for one in told if "works again" in one], told)
