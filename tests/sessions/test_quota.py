"""
The session limit: so many for each authenticated user, and the oldest stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred

from tests.sessions.support import (
    ALICE,
    ANYONE,
    BOB,
    NAME,
    ManagerCase,
    RecordingBackend,
)
from txbits._deferreds import deferred
from txbits.errors import BackendError, DestinationExists, SessionLimitReached
from txbits.interfaces import SessionSummary
from txbits.sessions import Caller

TIMEOUT = 1000.0


class _SlowListBackend(RecordingBackend):
    """Its list of sessions is a while old when it arrives, as one of a network is."""

    on_the_way: Deferred[None] | None = None

    @deferred
    async def sessions(self) -> Sequence[SessionSummary]:
        listed = await super().sessions()
        if self.on_the_way is not None:
            await self.on_the_way
        return listed


class QuotaTests(ManagerCase):
    """Two sessions a user."""

    def setUp(self) -> None:
        super().setUp()
        self.settings: dict[str, Any] = {
            "session_limit": 2,
            "session_timeout": TIMEOUT,
            "cleanup_interval": 10 * TIMEOUT,
        }
        self.restart(**self.settings)

    def creating(self, caller: Caller = ALICE) -> Deferred[Any]:
        return self.manager.create(NAME, caller, None)

    def assert_full(self) -> None:
        self.failureResultOf(self.creating(), SessionLimitReached)

    def assert_room_for_one(self) -> None:
        self.memory.files.clear()
        self.successResultOf(self.creating())
        self.assert_full()

    def test_the_newest_is_refused_and_the_oldest_stand(self) -> None:
        first, second = self.create(), self.create()
        self.assert_full()
        self.assertEqual(self.sessions(), {first, second})
        self.upload(first)

    def test_a_refusal_says_when_to_come_again(self) -> None:
        self.create(), self.create()
        error = self.failureResultOf(self.creating(), SessionLimitReached).value
        self.assertGreater(error.retry_after, 0)

    def test_the_store_is_not_asked_for_a_session_too_many(self) -> None:
        self.create(), self.create()
        self.backend.calls.clear()
        self.assert_full()
        self.assertEqual(self.backend.calls, [])

    def test_users_are_counted_apart(self) -> None:
        self.create(), self.create()
        self.create(caller=BOB), self.create(caller=BOB)
        self.assert_full()
        self.failureResultOf(self.creating(BOB), SessionLimitReached)

    def test_anonymous_callers_are_not_counted(self) -> None:
        for _ in range(5):
            self.create(caller=ANYONE)
        self.restart(**self.settings)
        self.create(caller=ANYONE)

    def test_the_address_does_not_matter(self) -> None:
        self.create(), self.create()
        outcome = self.creating(Caller("alice", "198.51.100.7"))
        self.failureResultOf(outcome, SessionLimitReached)

    def test_a_limit_of_none_is_none(self) -> None:
        self.restart(session_limit=0)
        for _ in range(60):
            self.create()

    def test_fifty_is_the_default(self) -> None:
        self.restart()
        for _ in range(50):
            self.create()
        self.assert_full()

    def test_close_gives_a_place_back(self) -> None:
        self.create()
        self.successResultOf(self.close(self.complete()))
        self.assert_room_for_one()

    def test_a_discarding_close_gives_a_place_back(self) -> None:
        self.create()
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.successResultOf(self.close(session_id))
        self.assert_room_for_one()

    def test_cancel_gives_a_place_back(self) -> None:
        self.create()
        self.successResultOf(self.cancel(self.create()))
        self.assert_room_for_one()

    def test_a_release_that_failed_gives_none_back(self) -> None:
        self.create()
        session_id = self.create()
        gate = self.backend.hold("release")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.cancel(session_id), BackendError)
        self.assert_full()
        gate.open()
        self.successResultOf(self.cancel(session_id))
        self.assert_room_for_one()

    def test_a_session_that_expires_gives_a_place_back(self) -> None:
        self.create(), self.create()
        self.clock.advance(10 * TIMEOUT)
        self.create()
        self.assert_room_for_one()

    def test_a_create_that_fails_gives_its_place_back(self) -> None:
        self.create()
        self.memory.files[NAME] = b"theirs"
        for _ in range(3):
            self.failureResultOf(self.creating(), DestinationExists)
        self.memory.files.clear()
        self.assert_room_for_one()

    def test_one_under_way_has_its_place(self) -> None:
        self.create()
        gate = self.backend.hold("create")
        creating = self.creating()
        self.assert_full()
        gate.fail(BackendError("not now"))
        self.failureResultOf(creating, BackendError)
        gate.open()
        self.assert_room_for_one()

    def test_sessions_from_before_a_restart_count(self) -> None:
        first = self.create()
        self.create()
        self.restart(**self.settings)
        self.assert_full()
        self.create(caller=BOB)
        self.successResultOf(self.cancel(first))
        self.assert_room_for_one()

    def test_create_waits_until_those_from_before_are_counted(self) -> None:
        self.create(), self.create()
        self.successResultOf(self.manager.stop())
        gate = self.backend.hold("sessions")
        self.manager = self.started(**self.settings)
        full, anonymous = self.creating(), self.creating(ANYONE)
        self.assertNoResult(full)
        self.successResultOf(anonymous)
        gate.open()
        self.failureResultOf(full, SessionLimitReached)

    def test_create_does_not_wait_for_the_rest_of_the_clean_up(self) -> None:
        self.create()
        self.successResultOf(self.manager.stop())
        gate = self.backend.hold("clean_up")
        self.manager = self.started(**self.settings)
        self.assertEqual(gate.waiting, 1)
        self.assert_room_for_one()

    def test_create_does_not_wait_where_there_is_no_limit(self) -> None:
        self.successResultOf(self.manager.stop())
        gate = self.backend.hold("sessions")
        self.manager = self.started(session_limit=0)
        self.create()
        gate.open()

    def test_create_does_not_wait_for_ever(self) -> None:
        """What cannot be counted does not keep anybody out."""
        self.successResultOf(self.manager.stop())
        gate = self.backend.hold("sessions")
        self.manager = self.started(**self.settings)
        creating = self.creating()
        gate.fail(BackendError("no answer"))
        self.flushLoggedErrors(BackendError)
        self.successResultOf(creating)

    def test_those_from_before_are_counted_by_a_later_round(self) -> None:
        self.create(), self.create()
        self.successResultOf(self.manager.stop())
        gate = self.backend.hold("sessions")
        gate.fail(BackendError("no answer"))
        self.settings["session_timeout"] = 100 * TIMEOUT
        self.manager = self.started(**self.settings)
        self.flushLoggedErrors(BackendError)
        gate.open()
        self.clock.advance(10 * TIMEOUT)
        self.assert_full()

    def test_a_session_that_went_while_they_were_listed_is_not_counted(self) -> None:
        self.successResultOf(self.manager.stop())
        self.backend = _SlowListBackend(self.memory)
        self.manager = self.started(**self.settings)
        going = [self.create(), self.create()]
        self.successResultOf(self.manager.stop())
        self.backend.on_the_way = Deferred()
        self.manager = self.started(**self.settings)
        for session_id in going:
            self.successResultOf(self.cancel(session_id))
        self.backend.on_the_way.callback(None)
        self.create()
        self.assert_room_for_one()
