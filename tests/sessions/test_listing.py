"""
What operators see of open sessions, and how they end them.

The backend of ``ManagerCase`` lists all sessions at once; memory lists them in order.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from attrs import evolve
from twisted.logger import capturedLogs, formatEvent

from tests.sessions.support import (
    ALICE,
    ANYONE,
    BOB,
    NAME,
    SOURCE,
    TOTAL,
    UNKNOWN,
    ManagerCase,
    NotifyingCase,
)
from txbits.backends.memory import MemoryBackend
from txbits.errors import BackendError, NoSuchSession, ServerStopping, Superseded
from txbits.interfaces import Identity, ISorted
from txbits.sessions import Caller, OpenSession

OPERATOR = Caller(Identity("root", "basic"), "198.51.100.1")


class _Listing(ManagerCase):
    def listed(self) -> list[OpenSession]:
        """All open sessions."""
        found: list[OpenSession] = []
        after: UUID | None = None
        while True:
            page, after = self.successResultOf(self.manager.list_open(after))
            found += page
            if after is None:
                return found

    def seen(self, session_id: UUID) -> OpenSession:
        """One session, which a list has as well."""
        one = self.successResultOf(self.manager.open_session(session_id))
        (listed,) = [each for each in self.listed() if each.session_id == session_id]
        self.assertEqual(listed, one)
        return one

    def ended(self, session_id: UUID, **how: Any) -> Any:
        return self.manager.end_session(session_id, OPERATOR, **how)


class SortedTests(_Listing):
    """A store that lists sessions in order."""

    def setUp(self) -> None:
        super().setUp()
        self.manager = self.started_on(self.memory)

    def started_on(self, memory: MemoryBackend) -> Any:
        self.backend: Any = memory
        return self.started()

    def test_what_is_known_of_a_new_session(self) -> None:
        session_id = self.create()
        self.assertEqual(
            self.seen(session_id),
            OpenSession(
                session_id=session_id,
                destination=NAME,
                owner="alice",
                content_name="a.txt",
                offset=0,
                total=None,
                created=self.wall(),
                last_progress=self.wall(),
                state="created",
                attempts=0,
                client="192.0.2.1",
                scheme="",
            ),
        )

    def test_the_client_is_that_of_the_last_packet(self) -> None:
        session_id = self.create()
        moved = evolve(ALICE, address="192.0.2.77", identity=Identity("alice", "basic"))
        self.successResultOf(self.send(session_id, 0, b"0123", caller=moved))
        one = self.seen(session_id)
        self.assertEqual((one.client, one.scheme), ("192.0.2.77", "basic"))
        self.assertEqual((one.offset, one.total, one.state), (4, TOTAL, "receiving"))

    def test_after_a_restart_the_store_tells_what_it_knows(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        before = self.seen(session_id)
        self.restart()
        self.assertEqual(
            self.seen(session_id), evolve(before, client=None, scheme=None, rate=None)
        )

    def test_a_fragment_that_arrives_has_a_rate(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 2)
        self.assertIsNone(self.seen(session_id).rate)
        self.clock.advance(100)
        body, _ = self.begin(session_id, 2, TOTAL - 2)
        body.send(b"2345")
        self.clock.advance(2)
        one = self.seen(session_id)
        self.assertEqual((one.rate, one.is_active, one.offset), (2.0, True, 6))
        body.send(b"6789")
        self.clock.advance(2)
        body.end()
        self.assertEqual(self.seen(session_id).rate, 4.0)
        self.clock.advance(20)
        one = self.seen(session_id)
        self.assertEqual((one.rate, one.is_active), (None, False))

    def test_states_are_those_of_the_life_of_a_session(self) -> None:
        created = self.create(("a",))
        part = self.create(("b",))
        self.successResultOf(self.send(part, 0, b"0123", destination=("b",)))
        whole = self.complete(destination=("c",))
        found = {one.session_id: one.state for one in self.listed()}
        expected = {created: "created", part: "receiving", whole: "complete"}
        self.assertEqual(found, expected)
        self.restart()
        found = {one.session_id: one.state for one in self.listed()}
        self.assertEqual(found, expected)

    def test_unknown_sessions_are_not_found(self) -> None:
        self.failureResultOf(self.manager.open_session(UNKNOWN), NoSuchSession)
        self.failureResultOf(self.ended(UNKNOWN), NoSuchSession)

    def test_nothing_is_listed_while_the_server_stops(self) -> None:
        self.successResultOf(self.manager.stop())
        self.failureResultOf(self.manager.list_open(), ServerStopping)
        self.failureResultOf(self.manager.open_session(UNKNOWN), ServerStopping)
        self.failureResultOf(self.ended(UNKNOWN), ServerStopping)

    def test_listing_makes_no_session_active(self) -> None:
        self.create()
        self.restart()
        self.listed()
        self.assertEqual(len(self.manager._active.table), 0)


class UnsortedTests(_Listing):
    """A store that lists all sessions at once, or in pages in any order."""

    def test_the_store_need_not_list_in_order(self) -> None:
        self.assertFalse(ISorted.providedBy(self.backend))
        session_ids = {
            self.create((f"{number}",), Caller(f"user {number}"))
            for number in range(600)
        }
        self.assertEqual([one.session_id for one in self.listed()], sorted(session_ids))

    def test_what_a_summary_lacks_is_not_known(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        self.restart()
        (one,) = self.listed()
        self.assertEqual(
            one,
            OpenSession(
                session_id=session_id,
                destination=None,
                owner="alice",
                content_name=None,
                offset=None,
                total=TOTAL,
                created=None,
                last_progress=self.wall(),
                state=None,
                attempts=None,
            ),
        )
        # To look at one session, the store is asked as for a packet.
        one = self.successResultOf(self.manager.open_session(session_id))
        self.assertEqual((one.destination, one.offset), (NAME, 4))
        self.assertEqual((one.state, one.attempts), ("receiving", 0))

    def test_a_store_that_fails_fails(self) -> None:
        gate = self.backend.hold("sessions")
        listing = self.manager.list_open()
        gate.fail(BackendError("on fire"))
        gate.open()
        self.failureResultOf(listing, BackendError)


class EndingTests(_Listing):
    """An operator cancels a session."""

    def test_a_session_is_cancelled_whosever_it_is(self) -> None:
        for caller in (ALICE, BOB, ANYONE):
            session_id = self.create(caller=caller)
            self.successResultOf(self.send(session_id, 0, b"0123", caller=caller))
            self.assertTrue(self.successResultOf(self.ended(session_id)))
            self.assert_unknown(session_id, caller=caller)
        self.assertEqual(self.sessions(), set())
        self.assertEqual(self.manager.open_sessions, 0)
        self.assertEqual(self.manager.counts.ended["cancelled", "operator"], 3)

    def test_the_answer_waits_for_the_release(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("release")
        ending = self.ended(session_id)
        self.assertNoResult(ending)
        gate.open()
        self.successResultOf(ending)

    def test_a_fragment_that_arrives_is_ended(self) -> None:
        session_id = self.create()
        body, outcome = self.stall(session_id)
        self.assertTrue(self.successResultOf(self.ended(session_id)))
        self.assertTrue(body.is_stopped)
        self.failureResultOf(outcome, Superseded)

    def test_a_release_that_fails_is_tried_again(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("release")
        ending = self.ended(session_id)
        gate.fail(BackendError("on fire"))
        gate.open()
        self.failureResultOf(ending, BackendError)
        self.assertEqual(self.sessions(), {session_id})
        self.assertTrue(self.successResultOf(self.ended(session_id)))
        self.assertEqual(self.sessions(), set())

    def test_the_log_names_the_operator(self) -> None:
        session_id = self.create()
        self.upload(session_id, 0, 4)
        with capturedLogs() as events:
            self.successResultOf(self.ended(session_id))
        (event,) = [one for one in events if one.get("outcome")]
        self.assertEqual(event["outcome"], "cancelled")
        self.assertEqual((event["operator"], event["user"]), ("root", "alice"))
        self.assertEqual((event["scheme"], event["client"]), ("basic", "198.51.100.1"))
        self.assertEqual(
            formatEvent(event),
            f"session {str(session_id).upper()} released with 4 of 10 bytes, cancelled "
            "by operator root (basic) at 198.51.100.1: /logs/today.log",
        )

    def test_the_log_of_a_client_names_none(self) -> None:
        session_id = self.create()
        with capturedLogs() as events:
            self.successResultOf(self.cancel(session_id))
        (event,) = [one for one in events if one.get("outcome")]
        self.assertNotIn("operator", event)

    def test_a_file_that_is_published_stays(self) -> None:
        session_id = self.complete()
        self.successResultOf(self.close(session_id))
        self.failureResultOf(self.ended(session_id), NoSuchSession)
        self.assertEqual(self.memory.files[NAME], SOURCE)

    def test_also_where_uploads_are_disabled(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("release")
        disabling = self.manager.disable()
        ending = self.ended(session_id)
        gate.open()
        self.successResultOf(disabling)
        self.assertTrue(self.successResultOf(ending))


class PurgingTests(_Listing):
    """A session is cancelled only if it is idle."""

    def test_progress_keeps_a_session(self) -> None:
        session_id = self.create()
        self.clock.advance(50)
        self.upload(session_id, 0, 4)
        self.clock.advance(50)
        self.assertFalse(self.successResultOf(self.ended(session_id, idle=50.1)))
        self.assertTrue(self.successResultOf(self.ended(session_id, idle=50)))

    def test_that_is_so_after_a_restart(self) -> None:
        session_id = self.create()
        self.clock.advance(50)
        self.restart()
        self.clock.advance(50)
        self.assertFalse(self.successResultOf(self.ended(session_id, idle=101)))
        self.assertTrue(self.successResultOf(self.ended(session_id, idle=99)))

    def test_a_packet_keeps_a_session(self) -> None:
        session_id = self.create()
        body, _ = self.begin(session_id, 0, TOTAL)
        self.clock.advance(100)
        self.assertFalse(self.successResultOf(self.ended(session_id, idle=50)))
        self.assertFalse(body.is_stopped)


class AskingTests(NotifyingCase, _Listing):
    """A server application is asked about a session."""

    def test_attempts_are_told(self) -> None:
        session_id = self.create()
        _, outcome = self.ask(session_id)
        one = self.successResultOf(self.manager.open_session(session_id))
        self.assertEqual((one.state, one.attempts), ("unanswered", 1))
        self.assertTrue(one.is_active)
        self.assertFalse(self.successResultOf(self.ended(session_id, idle=0)))
        self.assertTrue(self.successResultOf(self.ended(session_id)))
        self.failureResultOf(outcome, Superseded)
