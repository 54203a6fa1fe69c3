"""
The log of sessions: a line for each event of their life, with what operators filter by.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.logger import LogLevel, capturedLogs, formatEvent

from tests.sessions.support import (
    ALICE,
    ANYONE,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    RecordingBackend,
)
from txbits.errors import BodyIncomplete, DestinationExists, OutOfStep, Superseded
from txbits.sessions import SessionManager, Settings
from txbits.sessions.naming import session_name

HOUR = 3600.0
_ADDRESS = ALICE.address


class ForgetfulBackend(RecordingBackend):
    """Its sessions forget their offset when they are released."""

    def through(self, operation: str, call: Callable[[], Deferred[Any]]) -> Any:
        if operation == "release":
            sessions: Any = self.backend
            for session in sessions._sessions.values():
                session.offset = 0
        return super().through(operation, call)


class LogTests(ManagerCase):
    """One line for each event."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    @contextmanager
    def one_line(self, *words: str, **fields: Any) -> Iterator[None]:
        """
        What is done within is one event in the log.

        :param words: These are in its text.
        :param fields: These are among its fields, beside those that all have.
        """
        with capturedLogs() as events:
            yield
        (event,) = self.ours(events)
        text = formatEvent(event)
        self.assertEqual(event["log_level"], LogLevel.info)
        self.assertNotIn("\n", text)
        expected = {"destination": "logs/today.log", **fields}
        self.assertEqual({name: event.get(name) for name in expected}, expected)
        for word in (event["session"], *words):
            self.assertIn(word, text)

    def ours(self, events: Any) -> list[Any]:
        return [
            event
            for event in events
            if event["log_namespace"].startswith("txbits.sessions")
        ]

    def name(self, session_id: UUID | None = None) -> str:
        return session_name(session_id or self.session_id)

    def assert_silent(self, do: Callable[[], None]) -> None:
        with capturedLogs() as events:
            do()
        self.assertEqual(self.ours(events), [])

    def test_created(self) -> None:
        with self.one_line("created", _ADDRESS, client=_ADDRESS, user="alice"):
            self.create()

    def test_closed_with_success(self) -> None:
        self.upload(self.session_id)
        with self.one_line(
            "published with 10 bytes",
            _ADDRESS,
            session=self.name(),
            client=_ADDRESS,
            bytes=TOTAL,
        ):
            self.successResultOf(self.close(self.session_id))

    def test_closed_before_its_end(self) -> None:
        self.upload(self.session_id, 0, 4)
        with self.one_line(
            "discarded with 4 of 10 bytes",
            _ADDRESS,
            session=self.name(),
            client=_ADDRESS,
            bytes=4,
            total=TOTAL,
        ):
            self.successResultOf(self.close(self.session_id))

    def test_cancelled(self) -> None:
        self.upload(self.session_id, 0, 4)
        with self.one_line(
            "4 of 10 bytes",
            "cancelled",
            _ADDRESS,
            session=self.name(),
            client=_ADDRESS,
            bytes=4,
            total=TOTAL,
        ):
            self.successResultOf(self.cancel(self.session_id))

    def test_cancelled_twice_at_once(self) -> None:
        gate = self.backend.hold("release")
        with self.one_line("cancelled", session=self.name(), bytes=0):
            first = self.cancel(self.session_id)
            second = self.cancel(self.session_id)
            gate.open()
        self.successResultOf(first)
        self.successResultOf(second)

    def test_expired(self) -> None:
        self.restart(session_timeout=1000)
        self.upload(self.session_id, 0, 4)
        with self.one_line(
            "4 of 10 bytes",
            "no progress for 1000 seconds",
            session=self.name(),
            bytes=4,
            total=TOTAL,
        ):
            self.clock.advance(12 * HOUR)

    def test_a_fragment_that_ended_early(self) -> None:
        body, outcome = self.begin(self.session_id, 0, TOTAL)
        body.send(SOURCE[:3])
        with self.one_line(
            "ended early",
            "3 bytes",
            _ADDRESS,
            session=self.name(),
            client=_ADDRESS,
            bytes=3,
        ):
            body.lose()
        self.failureResultOf(outcome, BodyIncomplete)

    def test_a_fragment_that_a_newer_one_ended(self) -> None:
        _, outcome = self.stall(self.session_id)
        with self.one_line("newer", session=self.name(), client=_ADDRESS, bytes=3):
            self.upload(self.session_id, 3)
        self.failureResultOf(outcome, Superseded)

    def test_a_fragment_that_a_newer_one_ended_while_it_waited(self) -> None:
        """Nobody else logs it: there is nobody left to answer."""
        _, oldest = self.stall(self.session_id)
        gate = self.backend.hold("close")
        _, middle = self.begin(self.session_id, 3, TOTAL - 3)
        newest = self.send(self.session_id, 3, SOURCE[3:])
        with capturedLogs() as events:
            gate.open()
        self.failureResultOf(oldest, Superseded)
        self.failureResultOf(middle, Superseded)
        self.successResultOf(newest)
        self.assertEqual(
            [(event["session"], event["bytes"]) for event in self.ours(events)],
            [(self.name(), 3)] * 2,
        )

    def test_the_packets_of_an_upload_that_goes_well_are_not_logged(self) -> None:
        self.assert_silent(lambda: self.upload(self.session_id, 0, 4))
        self.assert_silent(lambda: self.upload(self.session_id, 4))

    def test_a_close_that_is_sent_again_is_not_logged_again(self) -> None:
        self.upload(self.session_id)
        self.successResultOf(self.close(self.session_id))
        self.assert_silent(
            lambda: self.successResultOf(self.close(self.session_id)),
        )

    def test_what_is_refused_is_for_the_web_to_log(self) -> None:
        self.memory.files["logs", "today.log"] = b"theirs"
        self.upload(self.session_id)

        def refused() -> None:
            self.failureResultOf(self.close(self.session_id), DestinationExists)

        self.assert_silent(refused)

    def test_a_clean_up_with_nothing_to_do_is_silent(self) -> None:
        self.assert_silent(lambda: self.clock.advance(12 * HOUR))

    def test_lines_name_the_directory_and_the_user(self) -> None:
        manager = SessionManager(
            self.memory, Settings(), self.clock, wall=self.wall, name="/uploads"
        )
        self.successResultOf(manager.start())
        with self.one_line(
            "created for /uploads/logs/today.log by alice at 192.0.2.1",
            directory="/uploads",
            user="alice",
        ):
            session_id = self.successResultOf(manager.create(NAME, ALICE, None))
        with self.one_line(
            "closed by alice at 192.0.2.1, published with 0 bytes: "
            "/uploads/logs/today.log",
            directory="/uploads",
            user="alice",
        ):
            self.successResultOf(manager.close(session_id, NAME, ALICE))

    def test_an_anonymous_client_is_named_by_its_address(self) -> None:
        with self.one_line("for /logs/today.log by 192.0.2.9", user=None):
            self.create(caller=ANYONE)

    def test_one_that_takes_no_byte(self) -> None:
        with self.one_line("released with no bytes, cancelled", total=None):
            self.successResultOf(self.cancel(self.session_id))

    def test_one_whose_only_fragment_was_refused(self) -> None:
        self.failureResultOf(self.send(self.session_id, 3, b"34"), OutOfStep)
        with self.one_line("discarded with no bytes", bytes=0, total=None):
            self.successResultOf(self.close(self.session_id))

    def test_bytes_are_those_from_before_the_release(self) -> None:
        self.backend = ForgetfulBackend(self.memory)
        self.restart()
        self.upload(self.session_id)
        with self.one_line("published with 10 bytes", bytes=TOTAL):
            self.successResultOf(self.close(self.session_id))

    def test_a_hostile_destination_stays_on_its_line(self) -> None:
        # No backend takes such a name, so the session comes from elsewhere.
        destination = ("a\nfaked line",)
        found = self.successResultOf(self.memory.find(self.session_id))
        found.destination = destination
        with self.one_line(destination="a\\nfaked line"):
            self.successResultOf(self.cancel(self.session_id, destination))
