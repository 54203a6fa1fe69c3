"""
A store that fails: the log has one line a minute, without a traceback, and one when it
works again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from tests.sessions.support import ALICE, SOURCE, ManagerCase
from txbits.errors import BackendError, OutOfSpace, ParentMissing


class TroubleTests(ManagerCase):
    """What the log says of a store that fails packet after packet."""

    who = (ALICE, None)

    def fail_at(self, act: Callable[[], Deferred[Any]]) -> None:
        self.failureResultOf(act(), BackendError)

    def failing_create(self) -> None:
        self.failureResultOf(self.manager.create(("a",), *self.who), BackendError)

    def test_a_full_store_is_told_once_with_what_to_do(self) -> None:
        session_id = self.create()
        self.backend.hold("write").fail(OutOfSpace("/srv/uploads is full"))

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
