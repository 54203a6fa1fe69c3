"""
Limits of open sessions and of staged bytes: for each user, for each address of
anonymous clients, and for the directory. The oldest sessions stand.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    ManagerCase,
    RecordingBackend,
)
from txbits._deferreds import deferred
from txbits.errors import (
    BackendError,
    DestinationExists,
    NoSuchSession,
    QuotaReached,
    SessionLimitReached,
    UploadTooLarge,
)
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

    def test_anonymous_callers_are_counted_by_address(self) -> None:
        self.create(caller=ANYONE), self.create(caller=ANYONE)
        self.failureResultOf(self.creating(ANYONE), SessionLimitReached)
        self.create(caller=Caller(None, "192.0.2.10"))
        self.create(caller=Caller("alice", ANYONE.address))

    def test_addresses_from_before_a_restart_are_unknown(self) -> None:
        self.create(caller=ANYONE), self.create(caller=ANYONE)
        self.restart(**self.settings)
        self.create(caller=ANYONE)

    def test_an_ipv6_network_counts_as_one_address(self) -> None:
        for host in (":1", "ffff:1:2:3"):
            self.create(caller=Caller(None, f"2001:db8:0:1:{host}"))
        for address, is_full in (
            ("2001:db8:0:1:8000::", True),
            ("2001:db8:0:2::1", False),
            ("::ffff:192.0.2.9", False),
        ):
            outcome = self.creating(Caller(None, address))
            if is_full:
                self.failureResultOf(outcome, SessionLimitReached)
            else:
                self.successResultOf(outcome)

    def test_an_ipv4_address_in_ipv6_is_that_address(self) -> None:
        self.create(caller=ANYONE)
        self.create(caller=Caller(None, f"::ffff:{ANYONE.address}"))
        self.failureResultOf(self.creating(ANYONE), SessionLimitReached)

    def test_a_user_is_not_an_address(self) -> None:
        address = "192.0.2.9"
        for _ in range(2):
            self.create(caller=Caller(address, address))
        self.create(caller=ANYONE)

    def test_the_address_does_not_matter(self) -> None:
        self.create(), self.create()
        outcome = self.creating(Caller("alice", "198.51.100.7"))
        self.failureResultOf(outcome, SessionLimitReached)

    def test_a_limit_of_none_is_none(self) -> None:
        self.restart(session_limit=0)
        for _ in range(60):
            self.create()

    def test_the_defaults_are_fifty_for_a_user_and_a_thousand_for_an_address(
        self,
    ) -> None:
        self.restart()
        for _ in range(50):
            self.create()
        self.assert_full()
        for _ in range(1000):
            self.create(caller=ANYONE)
        self.failureResultOf(self.creating(ANYONE), SessionLimitReached)

    def test_the_directory_has_a_limit_of_its_own(self) -> None:
        self.settings |= {"max_sessions": 3, "session_limit": 0}
        self.restart(**self.settings)
        first = self.create(caller=ANYONE)
        self.create(), self.create(caller=BOB)
        for caller in (ALICE, ANYONE, Caller(None, "198.51.100.7")):
            self.failureResultOf(self.creating(caller), SessionLimitReached)
        self.successResultOf(self.cancel(first, caller=ANYONE))
        self.create(caller=ANYONE)

    def test_those_of_before_a_restart_count_for_the_directory(self) -> None:
        self.settings |= {"max_sessions": 3}
        self.restart(**self.settings)
        self.create(), self.create(caller=ANYONE), self.create(caller=BOB)
        self.restart(**self.settings)
        self.failureResultOf(
            self.creating(Caller(None, "198.51.100.7")), SessionLimitReached
        )

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


class StagedBytesTests(ManagerCase):
    """
    ``user_quota`` and ``directory_quota``: a file counts with its whole length from its
    first fragment on.
    """

    def setUp(self) -> None:
        super().setUp()
        self.settings: dict[str, Any] = {
            "user_quota": 2 * TOTAL,
            "directory_quota": 3 * TOTAL,
            "session_timeout": TIMEOUT,
        }
        self.restart(**self.settings)

    def begin_one(self, caller: Caller = ALICE, total: int = TOTAL) -> UUID:
        """A session of which one byte has arrived."""
        session_id = self.create(caller=caller)
        self.successResultOf(self.first_byte(session_id, caller, total))
        return session_id

    def first_byte(
        self, session_id: UUID, caller: Caller = ALICE, total: int = TOTAL
    ) -> Deferred[Any]:
        return self.send(session_id, 0, SOURCE[:1], total=total, caller=caller)

    def test_a_first_fragment_over_the_quota_of_its_user_is_refused(self) -> None:
        first = self.begin_one()
        waiting = self.create()
        self.begin_one()
        error = self.failureResultOf(self.first_byte(waiting), QuotaReached).value
        self.assertGreater(error.retry_after, 0)
        self.begin_one(BOB)
        # The session stands, and goes on when there is room.
        self.successResultOf(self.cancel(first))
        self.successResultOf(self.first_byte(waiting))

    def test_a_file_that_has_begun_can_be_finished(self) -> None:
        sessions = [self.begin_one(), self.begin_one()]
        for session_id in sessions:
            self.memory.files.clear()
            self.successResultOf(self.send(session_id, 1, SOURCE[1:]))
            self.successResultOf(self.close(session_id))
        self.memory.files.clear()
        self.begin_one()

    def test_no_session_is_made_that_could_stage_nothing(self) -> None:
        self.begin_one(), self.begin_one()
        self.failureResultOf(self.manager.create(NAME, ALICE, None), QuotaReached)
        self.create(caller=BOB)

    def test_the_directory_has_a_quota_of_its_own(self) -> None:
        self.begin_one(), self.begin_one(), self.begin_one(BOB)
        self.failureResultOf(self.manager.create(NAME, BOB, None), QuotaReached)
        self.failureResultOf(self.manager.create(NAME, ANYONE, None), QuotaReached)

    def test_a_file_that_never_fits_is_too_large(self) -> None:
        session_id = self.create()
        outcome = self.first_byte(session_id, total=2 * TOTAL + 1)
        self.failureResultOf(outcome, UploadTooLarge)
        self.successResultOf(self.first_byte(session_id))

    def test_anonymous_clients_have_the_quota_of_their_address(self) -> None:
        self.begin_one(ANYONE), self.begin_one(ANYONE)
        self.failureResultOf(self.manager.create(NAME, ANYONE, None), QuotaReached)
        self.begin_one(Caller(None, "198.51.100.7"))

    def test_what_is_staged_from_before_a_restart_counts(self) -> None:
        self.begin_one(), self.begin_one()
        self.restart(**self.settings)
        self.failureResultOf(self.manager.create(NAME, ALICE, None), QuotaReached)

    def test_a_fragment_that_is_sent_again_counts_once(self) -> None:
        session_id = self.create()
        for _ in range(4):
            self.successResultOf(self.first_byte(session_id))
        self.begin_one()

    def test_a_session_that_expires_gives_its_bytes_back(self) -> None:
        self.begin_one(), self.begin_one()
        self.clock.advance(2 * TIMEOUT)
        self.successResultOf(self.manager.stop())
        self.manager = self.started(**self.settings)
        self.begin_one(), self.begin_one()


class AdoptionTests(ManagerCase):
    """``adopt_anonymous_sessions``: sessions from before authentication."""

    def test_sessions_without_an_owner_are_not_those_of_users(self) -> None:
        session_id = self.create(caller=ANYONE)
        outcome = self.send(session_id, 0, SOURCE[:1], caller=ALICE)
        self.failureResultOf(outcome, NoSuchSession)

    def test_users_go_on_with_them_if_that_is_set(self) -> None:
        self.restart(adopt_anonymous_sessions=True)
        session_id = self.create(caller=ANYONE)
        outcome = self.send(session_id, 0, SOURCE, caller=ALICE)
        self.successResultOf(outcome)
        self.successResultOf(self.close(session_id, caller=BOB))
        # A Close that is sent again is answered like the first.
        self.successResultOf(self.close(session_id, caller=BOB))

    def test_sessions_of_other_users_are_not_adopted(self) -> None:
        self.restart(adopt_anonymous_sessions=True)
        session_id = self.create(caller=BOB)
        self.failureResultOf(self.cancel(session_id, caller=ALICE), NoSuchSession)
        self.failureResultOf(self.cancel(session_id, caller=ANYONE), NoSuchSession)
