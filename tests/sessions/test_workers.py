"""
The limits of sessions and of staged bytes where several workers serve a directory, with
a ledger between them: they are the same as those of one process.
"""

from __future__ import annotations

import os
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.clocks import SettableClock
from tests.sessions.support import (
    ALICE,
    ANYONE,
    BOB,
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    RecordingBackend,
    ScriptedBody,
)
from tests.sessions.test_quota import TIMEOUT, QuotaTests, StagedBytesTests
from txbits._ledger import Ledger
from txbits._workers import Worker
from txbits.backends.memory import MemoryBackend
from txbits.errors import (
    BackendError,
    QuotaReached,
    ServerStopping,
    SessionLimitReached,
    UploadTooLarge,
)
from txbits.interfaces import IShared
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller, SessionManager, Settings, _quota


class WithLedger(ManagerCase):
    """One worker. When it starts again, so does the service, with another ledger."""

    def started(self, **settings: Any) -> SessionManager:
        ledger = Ledger.create(1)
        self.addCleanup(ledger.close)
        self.ledger = ledger.sessions_of("/uploads", is_shared=False)
        return super().started(**settings)


class QuotaWithLedgerTests(WithLedger, QuotaTests):
    """One worker counts like a process that serves alone."""


class StagedBytesWithLedgerTests(WithLedger, StagedBytesTests):
    """The same for bytes."""


class _Worker:
    """
    One of several workers, with a manager of its own.

    :ivar memory: The store, which is behind a backend whose calls can be held.
    """

    def __init__(self, case: WorkersCase, number: int, memory: MemoryBackend) -> None:
        self.case, self.number, self.memory = case, number, memory
        self.backend = case.backend_class(memory)

    def start(self) -> None:
        """Start, or start again."""
        case = self.case
        fd = os.dup(case.supervisor.fd)
        worker = Worker(self.number, case.count)
        ledger = Ledger.open(fd, worker, case.clock.seconds)
        case.addCleanup(ledger.close)
        self.manager = SessionManager(
            self.backend,
            Settings(**case.settings),
            case.clock,
            wall=case.wall,
            ledger=ledger.sessions_of(
                "/uploads", is_shared=case.is_shared, later=case.clock.callLater
            ),
        )
        case.successResultOf(self.manager.start())

    def stop(self) -> None:
        self.case.successResultOf(self.manager.stop())

    def reconfigure(self, **settings: Any) -> None:
        """It has other settings from now on."""
        self.case.successResultOf(self.manager.reconfigure(Settings(**settings)))

    def usage(self, who: str) -> list[tuple[int, int]]:
        """The sessions and bytes of a user, and of all, that the workers count."""
        assert self.manager.ledger is not None
        used = self.manager.ledger.usage(f"user {who}")
        return [(one.sessions, one.staged) for one in used]

    def creating(self, caller: Caller = ALICE) -> Deferred[UUID]:
        return self.manager.create(NAME, caller, None)

    def create(self, caller: Caller = ALICE) -> UUID:
        return self.case.successResultOf(self.creating(caller))

    def refuse(self, caller: Caller = ALICE, error: Any = SessionLimitReached) -> None:
        """A session more is refused."""
        self.case.failureResultOf(self.creating(caller), error)

    def sending(
        self, session_id: UUID, caller: Caller = ALICE, total: int = TOTAL
    ) -> Deferred[Any]:
        """The first byte arrives."""
        body = ScriptedBody()
        content_range = ContentRange(0, 0, total)
        outcome = self.manager.fragment(session_id, NAME, caller, content_range, body)
        body.send(SOURCE[:1])
        body.end()
        return outcome

    def begin_one(self, caller: Caller = ALICE, total: int = TOTAL) -> UUID:
        """A session of which one byte has arrived."""
        session_id = self.create(caller)
        self.case.successResultOf(self.sending(session_id, caller, total))
        return session_id

    def cancel(self, session_id: UUID, caller: Caller = ALICE) -> None:
        self.case.successResultOf(self.manager.cancel(session_id, NAME, caller))


class WorkersCase(SynchronousTestCase):
    """
    Three workers, each with the sessions that it has made.

    :ivar settings: Of all of them.
    """

    count = 3
    capacity = 100
    is_shared = False
    backend_class: type[RecordingBackend] = RecordingBackend
    settings: dict[str, Any] = {"session_limit": 2, "session_timeout": TIMEOUT}

    def setUp(self) -> None:
        self.clock = Clock()
        self.wall = SettableClock(self.clock)
        self.supervisor = Ledger.create(self.count, sessions=self.capacity)
        self.addCleanup(self.supervisor.close)
        self.workers = [
            _Worker(self, number, memory) for number, memory in enumerate(self.stores())
        ]
        self.start()

    def stores(self) -> list[MemoryBackend]:
        """The stores of the workers."""
        return [MemoryBackend(self.clock, wall=self.wall) for _ in range(self.count)]

    def put(self, session_id: UUID, owner: str, memory: MemoryBackend) -> None:
        """A session is in a store that no worker has made."""
        creating = memory.create(
            session_id,
            NAME,
            owner=owner,
            content_name=None,
            overwrite=False,
            create_directories=False,
        )
        self.successResultOf(creating)

    def start(self) -> None:
        for worker in self.workers:
            worker.start()


class LimitTests(WorkersCase):
    """Limits hold for all workers together."""

    def test_the_sessions_of_a_user_are_counted_in_all_workers(self) -> None:
        one, two, three = self.workers
        first = one.create()
        two.create()
        for worker in self.workers:
            worker.refuse()
            worker.create(BOB) if worker is not three else worker.refuse(BOB)
        one.cancel(first)
        three.create()
        two.refuse()

    def test_those_of_an_address_are(self) -> None:
        one, two, three = self.workers
        one.create(ANYONE), two.create(ANYONE)
        three.refuse(ANYONE)
        three.create(Caller(None, "198.51.100.7"))
        three.create(Caller(ANYONE.address, ANYONE.address))

    def test_those_of_the_directory_are(self) -> None:
        self.settings = {"session_limit": 0, "max_sessions": 2}
        self.start()
        one, two, three = self.workers
        one.create(), two.create(BOB)
        three.refuse(ANYONE)

    def test_staged_bytes_are(self) -> None:
        self.settings = {"user_quota": 2 * TOTAL, "directory_quota": 3 * TOTAL}
        self.start()
        one, two, three = self.workers
        waiting = three.create()
        first = one.begin_one()
        two.begin_one()
        self.failureResultOf(three.sending(waiting), QuotaReached)
        three.refuse(ALICE, QuotaReached)
        three.begin_one(BOB)
        two.refuse(ANYONE, QuotaReached)
        one.cancel(first)
        self.successResultOf(three.sending(waiting))

    def test_what_was_staged_before_there_was_a_quota_counts(self) -> None:
        one, two, three = self.workers
        one.begin_one(), two.begin_one()
        waiting = three.create(BOB)
        for worker in self.workers:
            self.assertEqual(worker.manager.staged_bytes, TOTAL * (worker is not three))
            worker.reconfigure(user_quota=2 * TOTAL, directory_quota=2 * TOTAL)
        three.refuse(ALICE, QuotaReached)
        self.failureResultOf(three.sending(waiting, BOB), QuotaReached)

    def test_such_sessions_are_counted_a_few_at_a_time(self) -> None:
        self.patch(_quota, "_MANY", 2)
        self.settings = {"session_limit": 0}
        self.start()
        one, two, _ = self.workers
        begun = [one.begin_one() for _ in range(5)]
        one.reconfigure(session_limit=0, user_quota=9 * TOTAL)
        self.assertEqual(two.usage("alice"), [(5, 2 * TOTAL)] * 2)
        # One is over before its turn, and one has come.
        one.cancel(begun[4])
        one.begin_one()
        self.assertEqual(two.usage("alice"), [(5, 3 * TOTAL)] * 2)
        self.clock.pump([0] * 9)
        self.assertEqual(two.usage("alice"), [(5, 5 * TOTAL)] * 2)

    def test_a_worker_that_stops_leaves_the_rest_to_the_next(self) -> None:
        self.patch(_quota, "_MANY", 2)
        self.settings = {"session_limit": 0}
        self.start()
        one, two, _ = self.workers
        for _ in range(5):
            one.begin_one()
        one.reconfigure(session_limit=0, user_quota=9 * TOTAL)
        one.stop()
        self.clock.pump([0] * 9)
        self.assertEqual(two.usage("alice"), [(5, 2 * TOTAL)] * 2)
        one.start()
        self.assertEqual(two.usage("alice"), [(5, 5 * TOTAL)] * 2)

    def test_bytes_that_nothing_limits_need_no_ledger(self) -> None:
        one, two, _ = self.workers
        session_id = one.begin_one()
        self.assertEqual(two.usage("alice"), [(1, 0)] * 2)
        one.cancel(session_id)
        self.assertEqual(two.usage("alice"), [(0, 0)] * 2)

    def test_a_file_that_never_fits_is_too_large(self) -> None:
        self.settings = {"user_quota": 2 * TOTAL}
        self.start()
        one, two, _ = self.workers
        one.begin_one()
        outcome = two.sending(two.create(), total=2 * TOTAL + 1)
        self.failureResultOf(outcome, UploadTooLarge)

    def test_a_create_that_fails_gives_its_place_back(self) -> None:
        one, two, _ = self.workers
        one.create()
        gate = two.backend.hold("create")
        creating = two.creating()
        one.refuse()
        gate.fail(BackendError("not now"))
        self.failureResultOf(creating, BackendError)
        one.create()


class FarLimitTests(WorkersCase):
    """Where all limits are far away, the next session takes the place of one."""

    settings = {"session_limit": 200, "session_timeout": TIMEOUT}
    capacity = 1000

    def test_the_place_is_kept_for_a_moment(self) -> None:
        one, two, _ = self.workers
        one.cancel(one.create())
        self.assertEqual(two.usage("alice"), [(1, 0)] * 2)
        self.clock.advance(1)
        self.assertEqual(two.usage("alice"), [(0, 0)] * 2)

    def test_the_next_session_of_the_same_user_takes_it(self) -> None:
        one, two, _ = self.workers
        one.cancel(one.create())
        second = one.create()
        one.create(BOB)
        self.assertEqual(two.usage("alice"), [(1, 0), (2, 0)])
        self.clock.advance(1)
        self.assertEqual(two.usage("alice"), [(1, 0), (2, 0)])
        one.cancel(second)
        self.clock.advance(1)
        self.assertEqual(two.usage("alice"), [(0, 0), (1, 0)])

    def test_near_a_limit_no_place_is_kept(self) -> None:
        for settings in (
            {"session_limit": 95},
            {"session_limit": 0, "max_sessions": 95},
            {"session_limit": 0, "user_quota": 100 * TOTAL},
            {"session_limit": 0, "directory_quota": 100 * TOTAL},
        ):
            with self.subTest(settings=settings):
                one, two, _ = self.workers
                one.reconfigure(**settings)
                first = one.create()
                one.cancel(one.create())
                self.assertEqual(two.usage("alice"), [(1, 0)] * 2)
                one.cancel(first)
                self.clock.advance(1)

    def test_the_limit_holds_in_all_workers(self) -> None:
        one, two, _ = self.workers
        mine = [one.create() for _ in range(10)]
        for session_id in mine:
            one.cancel(session_id)
        theirs = [two.create() for _ in range(190)]
        two.refuse()
        # It has places of its own, and takes no more than these.
        again = [one.create() for _ in range(10)]
        one.refuse()
        for worker, sessions in ((one, again), (two, theirs)):
            for session_id in sessions:
                worker.cancel(session_id)
        self.clock.advance(1)
        self.assertEqual(two.usage("alice"), [(0, 0)] * 2)

    def test_bytes_of_a_session_in_the_place_of_another_count(self) -> None:
        one, two, _ = self.workers
        one.cancel(one.create())
        session_id = one.begin_one()
        one.reconfigure(session_limit=200, user_quota=9 * TOTAL)
        self.assertEqual(two.usage("alice"), [(1, TOTAL)] * 2)
        # A place with bytes is not kept, even where they are not limited again.
        one.reconfigure(session_limit=200)
        second = one.create()
        one.cancel(session_id)
        self.assertEqual(two.usage("alice"), [(1, 0)] * 2)
        one.cancel(second)
        self.clock.advance(1)
        self.assertEqual(two.usage("alice"), [(0, 0)] * 2)

    def test_new_limits_hold_after_a_moment(self) -> None:
        one, two, _ = self.workers
        one.create()
        one.cancel(one.create())
        one.reconfigure(session_limit=1)
        self.clock.advance(1)
        one.refuse()
        self.assertEqual(two.usage("alice"), [(1, 0)] * 2)

    def test_a_worker_that_begins_anew_counts_what_is_in_the_store(self) -> None:
        one, two, _ = self.workers
        one.cancel(one.create())
        session_id = one.create()
        one.cancel(one.create())
        one.stop()
        one.start()
        self.assertEqual(two.usage("alice"), [(1, 0)] * 2)
        one.cancel(session_id)
        self.clock.advance(1)
        self.assertEqual(two.usage("alice"), [(0, 0)] * 2)


class RestartTests(WorkersCase):
    """A worker ends, and another begins in its place, or all do."""

    def end(self) -> None:
        """The service ends, and the next one has another ledger."""
        for worker in self.workers:
            worker.stop()
        self.supervisor.close()
        self.supervisor = Ledger.create(self.count)

    def test_its_sessions_stay_counted(self) -> None:
        one, two, _ = self.workers
        one.create(), one.create()
        one.stop()
        two.refuse()
        one.start()
        two.refuse()
        one.refuse()

    def test_those_that_are_not_in_the_store_are_counted_no_longer(self) -> None:
        one, two, _ = self.workers
        kept, lost = one.create(), one.create()
        one.stop()
        one.memory._sessions.pop(lost)
        one.start()
        two.create()
        one.refuse()
        one.cancel(kept)
        one.create()

    def test_one_that_ends_before_it_is_counted_again_is_counted_no_longer(
        self,
    ) -> None:
        one, two, _ = self.workers
        first = one.create()
        one.create()
        one.stop()
        gate = one.backend.hold("sessions")
        one.start()
        two.refuse()
        one.cancel(first)
        two.create()
        gate.open()
        two.refuse()
        one.refuse()

    def test_one_that_goes_on_before_it_is_counted_again_is_counted(self) -> None:
        one, two, three = self.workers
        first = one.create()
        self.end()
        gate = one.backend.hold("sessions")
        self.start()
        self.assertEqual(two.usage("alice"), [(0, 0)] * 2)
        self.successResultOf(one.sending(first))
        self.assertEqual(two.usage("alice"), [(1, TOTAL)] * 2)
        gate.open()
        self.assertEqual(three.usage("alice"), [(1, TOTAL)] * 2)

    def test_addresses_stay_known(self) -> None:
        one, two, _ = self.workers
        one.create(ANYONE), one.create(ANYONE)
        one.stop()
        one.start()
        two.refuse(ANYONE)

    def test_a_worker_waits_until_the_others_have_counted_after_a_start(self) -> None:
        one, two, three = self.workers
        one.create(), one.create()
        self.end()
        gate = one.backend.hold("sessions")
        self.start()
        creating, anonymous = two.creating(), two.creating(ANYONE)
        self.successResultOf(anonymous)
        self.clock.advance(1)
        self.assertNoResult(creating)
        gate.open()
        self.clock.advance(1)
        self.failureResultOf(creating, SessionLimitReached)
        three.refuse()

    def test_it_does_not_wait_long(self) -> None:
        _, two, three = self.workers
        self.end()
        for worker in (two, three):
            worker.start()
        creating = two.creating()
        self.clock.pump([0.5] * 18)
        self.assertNoResult(creating)
        self.clock.pump([0.5] * 4)
        self.successResultOf(creating)
        two.create()

    def test_a_stop_does_not_wait_for_it(self) -> None:
        two = self.workers[1]
        self.end()
        two.start()
        creating = two.creating()
        self.assertNoResult(creating)
        two.stop()
        self.failureResultOf(creating, ServerStopping)

    def test_one_whose_store_fails_keeps_nobody_waiting(self) -> None:
        one, two, three = self.workers
        self.end()
        one.backend.hold("sessions").fail(BackendError("no answer"))
        self.start()
        two.create(), three.create()


class FullTests(WorkersCase):
    """The ledger has room for three sessions."""

    capacity = 3
    settings: dict[str, Any] = {"session_limit": 0, "session_timeout": TIMEOUT}

    def test_more_are_refused_until_others_end(self) -> None:
        sessions = [worker.create() for worker in self.workers]
        for worker in self.workers:
            worker.refuse(BOB)
        self.workers[2].cancel(sessions[2])
        self.workers[0].create()

    def test_those_from_before_are_kept_and_the_log_says_that_they_do_not_count(
        self,
    ) -> None:
        one, two, _ = self.workers
        for _ in range(3):
            one.create()
        one.stop()
        for number in range(3):
            other = UUID(int=number + 1)
            self.put(other, "bob", one.memory)
        with capturedLogs() as events:
            one.start()
        lines = [
            formatEvent(one) for one in events if "not counted" in formatEvent(one)
        ]
        self.assertEqual(len(lines), 1)
        self.assertEqual(len(one.memory._sessions), 6)
        two.refuse()


@implementer(IShared)
class _SharedBackend(RecordingBackend):
    """All see the same sessions."""


class SharedStoreTests(WorkersCase):
    """All workers see all sessions, and each takes any packet."""

    is_shared = True
    backend_class = _SharedBackend

    def stores(self) -> list[MemoryBackend]:
        return [MemoryBackend(self.clock, wall=self.wall)] * self.count

    def test_each_session_counts_once_whoever_has_listed_it(self) -> None:
        one, two, three = self.workers
        one.create()
        for worker in self.workers:
            self.successResultOf(worker.manager._upkeep.count_anew())
        two.create()
        for worker in self.workers:
            worker.refuse()
        self.clock.advance(TIMEOUT / 2)
        for worker in self.workers:
            worker.refuse()
        three.create(BOB)

    def test_whoever_ends_it_gives_its_place_back(self) -> None:
        one, two, three = self.workers
        first = one.create()
        one.create()
        two.cancel(first)
        three.create()
        one.refuse()

    def test_bytes_count_once_whoever_takes_the_first(self) -> None:
        self.settings = {"user_quota": 2 * TOTAL}
        self.start()
        one, two, three = self.workers
        first, second, third = (worker.create() for worker in self.workers)
        self.successResultOf(two.sending(first))
        self.successResultOf(two.sending(second))
        for worker in self.workers:
            self.successResultOf(worker.manager._upkeep.count_anew())
            self.failureResultOf(worker.sending(third), QuotaReached)
        one.cancel(second)
        self.successResultOf(three.sending(third))

    def test_bytes_are_counted_together_though_nothing_limits_them(self) -> None:
        one, two, three = self.workers
        first, second = one.begin_one(), one.begin_one()
        self.assertEqual(two.usage("alice"), [(2, 2 * TOTAL)] * 2)
        two.cancel(first)
        # That the session has ended is not known here yet.
        one.reconfigure(user_quota=9 * TOTAL)
        self.assertEqual(three.usage("alice"), [(1, TOTAL)] * 2)
        one.cancel(second)

    def test_those_of_other_nodes_are_found_and_those_that_are_gone_too(self) -> None:
        one, two, three = self.workers
        one.create()
        theirs = UUID(int=1)
        memory = one.memory
        self.put(theirs, "alice", memory)
        self.successResultOf(two.manager._upkeep.count_anew())
        three.refuse()
        memory._sessions.pop(theirs)
        # Whoever finds the limit reached looks into the store.
        three.create()
        one.refuse()

    def test_addresses_are_known_in_all_workers(self) -> None:
        one, two, three = self.workers
        one.create(ANYONE)
        self.successResultOf(two.manager._upkeep.count_anew())
        two.create(ANYONE)
        three.refuse(ANYONE)

    def test_the_store_is_listed_by_one_worker_for_all(self) -> None:
        self.settings = {"session_limit": 4, "session_timeout": 10 * TIMEOUT}
        for worker in self.workers:
            worker.stop()
            worker.start()
        self.workers[0].create()
        self.clock.advance(601)
        for worker in self.workers:
            worker.backend.calls.clear()
            worker.create()
        calls = [call for worker in self.workers for call in worker.backend.calls]
        self.assertEqual(calls.count("sessions"), 1, calls)
