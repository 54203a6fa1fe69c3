"""
What several workers count together.

Most tests have several ledgers over one memory in this process, where a lock keeps
nobody out. ``KilledTests`` has processes that are killed at any time, and
``InterruptedTests`` tries each point in a change where that could happen.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from math import inf
from pathlib import Path
from random import Random
from time import monotonic, sleep
from typing import Any, Self
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests import ledger_worker
from tests.ledger_worker import CALLERS, PEERS, ids_of
from txbits._ledger import (
    ConnectionLedger,
    Ledger,
    LedgerFull,
    SessionLedger,
    Usage,
)
from txbits._ledger._memory import Memory, Table
from txbits._workers import Worker

DIRECTORY = "file:/srv/uploads"
IDS = [UUID(int=(number << 100) + 1) for number in range(1, 40)]


class Refused(Exception):
    """A test does not allow a change."""


def allow(usage: Usage | None, everyone: Usage, more: int) -> bool:
    """Allow it, near a limit."""
    return False


def allow_far(usage: Usage | None, everyone: Usage, more: int) -> bool:
    """Allow it, far from all limits."""
    return True


def refuse(usage: Usage | None, everyone: Usage, more: int) -> bool:
    """Do not allow it."""
    raise Refused


def numbers(usage: Usage) -> tuple[int, int]:
    """The sessions and the bytes."""
    return usage.sessions, usage.staged


class LedgerCase(SynchronousTestCase):
    """A supervisor and three workers."""

    capacities: dict[str, int] = {
        "sessions": 10,
        "callers": 14,
        "peers": 4,
        "failures": 8,
    }

    def setUp(self) -> None:
        self.clock = Clock()
        self.supervisor = Ledger.create(3, **self.capacities)
        self.addCleanup(self.supervisor.close)
        self.workers = [self.open(number) for number in range(3)]

    def open(self, number: int) -> Ledger:
        fd = os.dup(self.supervisor.fd)
        ledger = Ledger.open(fd, Worker(number, 3), self.clock.seconds)
        self.addCleanup(ledger.close)
        return ledger


class MemoryTests(LedgerCase):
    """``Ledger.create`` and ``open``."""

    def test_a_ledger_for_another_number_of_workers_is_refused(self) -> None:
        fd = self.supervisor.fd
        self.assertRaises(ValueError, Ledger.open, fd, Worker(0, 2))

    def test_another_file_is_refused(self) -> None:
        for content in (b"", b"x" * 100):
            with self.subTest(content=content), open(self.mktemp(), "w+b") as file:
                file.write(content)
                file.flush()
                fd = file.fileno()
                self.assertRaises(ValueError, Ledger.open, fd, Worker(0, 3))

    def test_nobody_can_make_the_memory_shorter_or_longer(self) -> None:
        size = os.fstat(self.supervisor.fd).st_size
        for length in (0, size - 8, size + 8):
            with self.assertRaises(PermissionError):
                os.ftruncate(self.supervisor.fd, length)

    def test_another_program_does_not_get_it_by_accident(self) -> None:
        self.assertFalse(os.get_inheritable(self.supervisor.fd))
        fd = os.dup(self.supervisor.fd)
        os.set_inheritable(fd, True)
        worker = Ledger.open(fd, Worker(0, 3))
        self.addCleanup(worker.close)
        self.assertFalse(os.get_inheritable(fd))

    def test_an_empty_one_takes_little_memory(self) -> None:
        ledger = Ledger.create(16)
        self.addCleanup(ledger.close)
        self.assertLess(512 * os.fstat(ledger.fd).st_blocks, 100_000)

    def test_an_exception_undoes_all_within(self) -> None:
        sessions = self.workers[0].sessions_of(DIRECTORY, is_shared=False)
        with self.assertRaises(Refused), self.workers[0]:
            sessions.add(IDS[0], "alice", allow)
            raise Refused
        self.assertEqual(numbers(sessions.usage("alice")[1]), (0, 0))

    def test_what_was_removed_within_is_there_again(self) -> None:
        sessions = self.workers[0].sessions_of(DIRECTORY, is_shared=False)
        connections = self.workers[0].connections()
        sessions.add(IDS[0], "alice", allow)
        sessions.resize(IDS[0], None, 5, allow)
        connections.add("192.0.2.1", 9, 9)
        with self.assertRaises(Refused), self.workers[0]:
            sessions.remove(IDS[0])
            connections.remove("192.0.2.1")
            # They take the same places.
            sessions.add(IDS[1], "bob", allow)
            connections.add("192.0.2.2", 9, 9)
            raise Refused
        self.assertEqual(numbers(sessions.usage("alice")[0]), (1, 5))
        self.assertFalse(connections.add("192.0.2.1", 9, 1))
        sessions.remove(IDS[0])
        self.assertEqual(numbers(sessions.usage("alice")[1]), (0, 0))

    def test_an_exception_that_is_caught_within_undoes_only_its_own_part(self) -> None:
        sessions = self.workers[0].sessions_of(DIRECTORY, is_shared=False)
        with self.workers[0]:
            sessions.add(IDS[0], "alice", allow)
            with self.assertRaises(Refused):
                sessions.resize(IDS[1], "bob", 7, refuse)
            sessions.resize(IDS[0], None, 5, allow)
        self.assertEqual(numbers(sessions.usage("bob")[0]), (0, 0))
        self.assertEqual(numbers(sessions.usage("bob")[1]), (1, 5))


class SessionTests(LedgerCase):
    """``SessionLedger``."""

    def setUp(self) -> None:
        super().setUp()
        self.sessions = [
            one.sessions_of(DIRECTORY, is_shared=False) for one in self.workers
        ]

    def assert_used(self, who: str, its: tuple[int, int], all: tuple[int, int]) -> None:
        """All workers see the same."""
        for sessions in self.sessions:
            used = [numbers(one) for one in sessions.usage(who)]
            self.assertEqual(used, [its, all])

    def test_sessions_of_all_workers_count(self) -> None:
        for session_id, who, sessions in zip(
            IDS, ("alice", "alice", "bob"), self.sessions, strict=False
        ):
            sessions.add(session_id, who, allow)
            sessions.resize(session_id, None, 10, allow)
        self.assert_used("alice", (2, 20), (3, 30))
        self.sessions[0].remove(IDS[0])
        self.assert_used("alice", (1, 10), (2, 20))

    def test_what_is_not_allowed_does_not_count(self) -> None:
        with self.assertRaises(Refused):
            self.sessions[0].add(IDS[0], "alice", refuse)
        self.sessions[0].add(IDS[1], "alice", allow)
        with self.assertRaises(Refused):
            self.sessions[0].resize(IDS[1], None, 5, refuse)
        self.assert_used("alice", (1, 0), (1, 0))

    def test_whoever_allows_it_knows_what_is_used(self) -> None:
        seen: list[Any] = []

        def look(usage: Usage | None, everyone: Usage, more: int) -> bool:
            seen.append((usage and numbers(usage), numbers(everyone), more))
            return False

        self.sessions[0].add(IDS[0], "alice", look)
        self.sessions[0].resize(IDS[0], None, 5, look)
        self.sessions[1].add(IDS[1], "alice", look)
        self.sessions[1].resize(IDS[2], None, 7, look)
        self.assertEqual(
            seen,
            [
                ((0, 0), (0, 0), 0),
                ((1, 0), (1, 0), 5),
                ((1, 5), (1, 5), 0),
                (None, (3, 5), 7),
            ],
        )

    def test_a_file_gets_no_shorter(self) -> None:
        self.sessions[0].add(IDS[0], "alice", allow)
        self.sessions[0].resize(IDS[0], None, 5, allow)
        self.sessions[0].resize(IDS[0], None, 3, refuse)
        self.assert_used("alice", (1, 5), (1, 5))

    def test_sums_have_no_limit(self) -> None:
        size = (1 << 64) - 1
        for session_id in IDS[:3]:
            self.sessions[0].add(session_id, "alice", allow)
            self.sessions[0].resize(session_id, None, size, allow)
        self.assert_used("alice", (3, 3 * size), (3, 3 * size))
        for session_id in IDS[:3]:
            self.sessions[0].remove(session_id)
        self.assert_used("alice", (0, 0), (0, 0))

    def test_a_length_that_no_file_has_counts_as_the_longest(self) -> None:
        self.sessions[0].add(IDS[0], "alice", allow)
        self.sessions[0].resize(IDS[0], None, 1 << 200, allow)
        self.sessions[0].listed(IDS[0], None, 1 << 200, self.sessions[0].now())
        self.assert_used("alice", (1, (1 << 64) - 1), (1, (1 << 64) - 1))

    def test_directories_are_apart(self) -> None:
        other = self.workers[0].sessions_of("file:/srv/other", is_shared=False)
        other.add(IDS[0], "alice", allow)
        self.assert_used("alice", (0, 0), (0, 0))

    def test_names_of_any_characters_are_told_apart(self) -> None:
        names = ["", "a", "a\0", "1:a", "\udcff", "\N{SNOWMAN}"]
        for session_id, who in zip(IDS, names, strict=False):
            self.sessions[0].add(session_id, who, allow)
        for who in names:
            self.assertEqual(numbers(self.sessions[1].usage(who)[0]), (1, 0))

    def test_a_full_ledger_refuses_and_goes_on_when_there_is_room(self) -> None:
        for session_id in IDS[:10]:
            self.sessions[0].add(session_id, "alice", allow)
        for _ in range(3):
            with self.assertRaises(LedgerFull):
                self.sessions[1].add(IDS[10], "bob", allow)
            self.assert_used("bob", (0, 0), (10, 0))
        self.sessions[0].remove(IDS[3])
        self.sessions[1].add(IDS[10], "bob", allow)
        self.assert_used("bob", (1, 0), (10, 0))

    def test_more_callers_than_there_is_room_for_are_refused(self) -> None:
        other = self.workers[0].sessions_of("file:/srv/other", is_shared=False)
        for number, session_id in enumerate(IDS[:8]):
            self.sessions[0].add(session_id, f"user {number}", allow)
        other.add(IDS[8], "a", allow)
        for number in range(3):
            self.sessions[number].note_counted()
        with self.assertRaises(LedgerFull):
            other.add(IDS[9], "b", allow)
        other.add(IDS[9], "a", allow)
        # There is none for this either, which does no harm.
        other.note_counted()
        other.note_listing(0)
        self.assertFalse(other.have_all_counted())
        self.assertEqual(other.age(), inf)

    def test_a_successor_does_not_count_sessions_twice(self) -> None:
        first = self.sessions[1]
        first.add(IDS[0], "alice", allow)
        first.resize(IDS[0], None, 10, allow)
        first.add(IDS[1], "alice", allow)
        self.sessions[0].add(IDS[2], "alice", allow)

        successor = self.open(1).sessions_of(DIRECTORY, is_shared=False)
        since = successor.now()
        self.assert_used("alice", (3, 10), (3, 10))
        successor.add(IDS[3], "alice", allow)
        successor.listed(IDS[0], "alice", 10, since)
        successor.listed(IDS[4], None, 5, since)
        self.assert_used("alice", (4, 10), (5, 15))
        # The store does not have the second one, which was never made, and the new one
        # came after it was asked.
        for _ in successor.drop_others({IDS[0], IDS[4]}, since):
            pass
        self.assert_used("alice", (3, 10), (4, 15))

    def test_what_has_changed_since_is_known_better_than_a_listing(self) -> None:
        since = self.sessions[0].now()
        self.sessions[0].add(IDS[0], "alice", allow)
        self.sessions[0].resize(IDS[0], None, 10, allow)
        self.sessions[0].listed(IDS[0], "alice", 3, since)
        self.assert_used("alice", (1, 10), (1, 10))
        self.sessions[0].listed(IDS[0], "alice", 3, self.sessions[0].now())
        self.assert_used("alice", (1, 3), (1, 3))

    def test_in_a_shared_store_anybody_may_drop_a_session(self) -> None:
        one, other = (
            ledger.sessions_of("s3://bucket", is_shared=True)
            for ledger in self.workers[:2]
        )
        one.add(IDS[0], "alice", allow)
        one.add(IDS[1], "alice", allow)
        other.remove(IDS[0])
        since = other.now()
        other.listed(IDS[1], "alice", 0, since)
        self.assertEqual(numbers(one.usage("alice")[1]), (1, 0))
        for _ in other.drop_others(set(), since):
            pass
        self.assertEqual(numbers(one.usage("alice")[1]), (0, 0))

    def test_dropping_works_a_part_at_a_time(self) -> None:
        ledger = Ledger.create(1, sessions=3000, callers=10)
        self.addCleanup(ledger.close)
        sessions = ledger.sessions_of(DIRECTORY, is_shared=False)
        for number in range(1, 3000):
            sessions.add(UUID(int=number), "alice", allow)
        left = []
        for _ in sessions.drop_others(set(), sessions.now()):
            left.append(sessions.usage("alice")[1].sessions)
            sessions.add(UUID(int=5000 + len(left)), "alice", allow)
        self.assertEqual(left, [1999, 1000])

    def test_all_have_counted_when_each_has(self) -> None:
        for number, sessions in enumerate(self.sessions):
            self.assertFalse(any(one.have_all_counted() for one in self.sessions))
            sessions.note_counted()
            sessions.note_counted()
            del number
        self.assertTrue(all(one.have_all_counted() for one in self.sessions))
        successor = self.open(1).sessions_of(DIRECTORY, is_shared=False)
        self.assertTrue(successor.have_all_counted())

    def test_all_know_when_the_store_was_listed_last(self) -> None:
        one, other = (
            ledger.sessions_of("s3://bucket", is_shared=True)
            for ledger in self.workers[:2]
        )
        self.assertEqual(one.age(), inf)
        self.clock.advance(100)
        other.note_listing(5)
        self.clock.advance(10)
        self.assertEqual([one.age(), other.age()], [15, 15])
        one.note_listing(0.5)
        self.assertEqual([one.age(), other.age()], [0.5, 0.5])

    def test_in_a_shared_store_nobody_waits_for_others(self) -> None:
        shared = self.workers[0].sessions_of("s3://bucket", is_shared=True)
        self.assertTrue(shared.have_all_counted())


class KeptTests(LedgerCase):
    """The counts of sessions that have ended, where limits are far away."""

    def setUp(self) -> None:
        super().setUp()
        self.sessions, self.other = (
            one.sessions_of(DIRECTORY, is_shared=False, later=self.clock.callLater)
            for one in self.workers[:2]
        )

    def used(self, who: str = "alice") -> int:
        """The sessions of a caller that another worker sees."""
        return self.other.usage(who)[0].sessions

    def test_it_is_kept_for_a_moment(self) -> None:
        self.sessions.add(IDS[0], "alice", allow_far)
        self.sessions.remove(IDS[0], "alice")
        self.assertEqual(self.used(), 1)
        self.clock.advance(1)
        self.assertEqual(self.used(), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_is_passed_on_without_asking(self) -> None:
        self.sessions.add(IDS[0], "alice", allow_far)
        self.sessions.remove(IDS[0], "alice")
        self.sessions.add(IDS[1], "alice", refuse)
        self.clock.advance(1)
        self.assertEqual(self.used(), 1)
        with self.assertRaises(Refused):
            self.sessions.add(IDS[2], "alice", refuse)
        self.sessions.remove(IDS[1], "alice")
        self.assertEqual(self.used(), 0)

    def test_it_is_not_passed_on_to_another_caller_or_worker(self) -> None:
        self.sessions.add(IDS[0], "alice", allow_far)
        self.sessions.remove(IDS[0], "alice")
        for sessions, who in ((self.sessions, "bob"), (self.other, "alice")):
            with self.assertRaises(Refused):
                sessions.add(IDS[1], who, refuse)

    def test_it_is_not_kept_near_a_limit_or_if_that_is_not_asked(self) -> None:
        self.sessions.add(IDS[0], "alice", allow)
        self.sessions.remove(IDS[0], "alice")
        self.assertEqual(self.used(), 0)
        self.sessions.add(IDS[1], "alice", allow_far)
        self.sessions.remove(IDS[1])
        self.assertEqual(self.used(), 0)

    def test_only_so_many_are_kept(self) -> None:
        ledger = Ledger.create(3, sessions=40)
        self.addCleanup(ledger.close)
        sessions = ledger.sessions_of(
            DIRECTORY, is_shared=False, later=self.clock.callLater
        )
        for session_id in IDS:
            sessions.add(session_id, "alice", allow_far)
        for session_id in IDS:
            sessions.remove(session_id, "alice")
        self.assertEqual(sessions.usage("alice")[0].sessions, 16)
        self.clock.advance(1)
        self.assertEqual(sessions.usage("alice")[0].sessions, 0)

    def test_sessions_that_all_workers_see_are_not_kept(self) -> None:
        sessions = self.workers[2].sessions_of(
            "s3://bucket", is_shared=True, later=self.clock.callLater
        )
        sessions.add(IDS[0], "alice", allow_far)
        sessions.remove(IDS[0], "alice")
        self.assertEqual(sessions.usage("alice")[0].sessions, 0)

    def test_a_session_that_is_removed_again_takes_nobody_elses_count(self) -> None:
        self.sessions.add(IDS[0], "alice", allow_far)
        self.sessions.remove(IDS[0], "alice")
        self.sessions.remove(IDS[0])
        self.assertEqual(self.used(), 1)
        self.sessions.add(IDS[1], "alice", allow_far)
        self.sessions.remove(IDS[0])
        self.assertEqual(self.used(), 1)
        self.sessions.remove(IDS[1])
        self.assertEqual(self.used(), 0)
        # Its id can be counted again.
        self.sessions.add(IDS[0], "alice", allow)
        self.sessions.remove(IDS[0])
        self.assertEqual(self.used(), 0)

    def test_a_session_in_the_place_of_another_counts_once(self) -> None:
        self.sessions.add(IDS[0], "alice", allow_far)
        self.sessions.remove(IDS[0], "alice")
        self.sessions.add(IDS[1], "alice", allow_far)
        self.sessions.listed(IDS[1], "alice", 5, self.sessions.now())
        self.sessions.resize(IDS[1], "alice", 7, allow)
        self.assertEqual(numbers(self.other.usage("alice")[0]), (1, 7))
        self.sessions.remove(IDS[1])
        self.assertEqual(numbers(self.other.usage("alice")[0]), (0, 0))


class ConnectionTests(LedgerCase):
    """``ConnectionLedger``."""

    def setUp(self) -> None:
        super().setUp()
        self.connections = [one.connections() for one in self.workers]

    def test_connections_of_all_workers_count(self) -> None:
        for connections in self.connections:
            self.assertTrue(connections.add("192.0.2.1", 4, 3))
        for connections in self.connections:
            self.assertFalse(connections.add("192.0.2.1", 4, 3))
        self.assertTrue(self.connections[1].add("192.0.2.2", 4, 3))
        for connections in self.connections:
            self.assertFalse(connections.add("192.0.2.3", 4, 3))
            self.assertEqual(connections.count(), 4)
        self.connections[2].remove("192.0.2.1")
        self.assertTrue(self.connections[0].add("192.0.2.1", 4, 3))

    def test_those_of_a_worker_that_has_ended_are_cleared(self) -> None:
        for peer in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
            self.connections[1].add(peer, 100, 100)
        self.connections[2].add("192.0.2.1", 100, 100)
        self.supervisor.clear_connections(1)
        self.supervisor.clear_connections(0)
        self.assertEqual(self.connections[0].count(), 1)
        self.assertFalse(self.connections[0].add("192.0.2.1", 100, 1))
        self.assertTrue(self.connections[0].add("192.0.2.2", 100, 1))

    def test_one_that_was_cleared_is_not_taken_out_again(self) -> None:
        self.connections[0].add("192.0.2.1", 100, 100)
        self.connections[1].add("192.0.2.1", 100, 100)
        self.connections[1].add("192.0.2.2", 100, 100)
        self.supervisor.clear_connections(1)
        self.connections[1].remove("192.0.2.1")
        self.connections[1].remove("192.0.2.2")
        self.assertEqual(self.connections[0].count(), 1)

    def test_too_many_addresses_are_refused_until_others_have_gone(self) -> None:
        for number in range(3):
            self.assertTrue(self.connections[0].add(f"192.0.2.{number}", 100, 100))
        for _ in range(3):
            self.assertFalse(self.connections[1].add("192.0.2.9", 100, 100))
            self.assertEqual(self.connections[1].count(), 3)
        self.connections[0].remove("192.0.2.1")
        self.assertTrue(self.connections[1].add("192.0.2.9", 100, 100))


class FailureTests(LedgerCase):
    """``FailureLedger``, which remembers at most eight."""

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(1000)
        self.failures = [one.failures_of("passwords") for one in self.workers]

    def test_all_workers_know_of_a_failure(self) -> None:
        self.failures[0].put("alice", 1010.5)
        self.assertEqual([one.get("alice") for one in self.failures], [1010.5] * 3)
        self.failures[1].put("alice", 1020.0)
        self.assertEqual([one.get("alice") for one in self.failures], [1020.0] * 3)
        self.failures[2].remove("alice")
        self.failures[2].remove("alice")
        self.assertEqual([one.get("alice") for one in self.failures], [None] * 3)

    def test_kinds_are_apart(self) -> None:
        self.failures[0].put("alice", 1010.0)
        self.assertIsNone(self.workers[0].failures_of("tokens").get("alice"))

    def test_the_oldest_are_forgotten(self) -> None:
        for number in range(20):
            self.failures[number % 3].put(f"user {number}", 5000.0)
            self.clock.advance(1)
        known = [n for n in range(20) if self.failures[0].get(f"user {n}") is not None]
        self.assertEqual(known, list(range(12, 20)))

    def test_those_that_are_over_are_forgotten_first(self) -> None:
        for number in range(8):
            self.failures[0].put(f"user {number}", 1003.0 if number == 5 else 5000.0)
            self.clock.advance(1)
        self.failures[0].put("another", 5000.0)
        known = [n for n in range(8) if self.failures[0].get(f"user {n}") is not None]
        self.assertEqual(known, [0, 1, 2, 3, 4, 6, 7])


class ClearingTests(LedgerCase):
    """The supervisor clears what a worker has left half done."""

    def test_a_connection_that_was_being_counted(self) -> None:
        worker = self.workers[0]
        memory = worker.memory
        whole = bytes(memory.map)
        with _Writes(memory) as writes:
            self.assertTrue(worker.connections().add("192.0.2.1", 9, 9))
        other = self.workers[1].connections()
        for count in range(len(writes.log) + 1):
            memory.map[:] = whole
            writes.repeat(count)
            self.supervisor.clear_connections(0)
            self.assertEqual(other.count(), 0)
            for number in range(3):
                self.assertTrue(other.add(f"192.0.2.{number}", 3, 1))
            self.assertFalse(other.add("192.0.2.9", 4, 1))


class _Writes:
    """
    The words of a memory, which remember each write while this is a context manager.

    One that was interrupted while it wrote adjacent words may leave anything in them.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._words, self._pack = memory.words, memory._pack
        self.log: list[tuple[int, int]] = []

    def __enter__(self) -> Self:
        self._memory.words = self  # type: ignore[assignment]
        self._memory._pack = [self._packing] * len(self._pack)
        return self

    def __exit__(self, *exception: object) -> None:
        self._memory.words, self._memory._pack = self._words, self._pack

    def __getitem__(self, at: Any) -> Any:
        return self._words[at]

    def __setitem__(self, at: int, value: int) -> None:
        self.log.append((at, value))
        self._words[at] = value

    def _packing(self, into: object, offset: int, *values: int) -> None:
        first = offset // 8
        for at in range(first, first + len(values)):
            self[at] = Random(at).getrandbits(64)
        for at, value in enumerate(values, first):
            self[at] = value

    def repeat(self, count: int) -> None:
        """Write again what was written first."""
        for at, value in self.log[:count]:
            self._words[at] = value


class InterruptedTests(LedgerCase):
    """A process is killed between any two assignments of a change."""

    def state(self, ledger: Ledger) -> Any:
        """All that others can see."""
        sessions = ledger.sessions_of(DIRECTORY, is_shared=False)
        connections = ledger.connections()
        return (
            [numbers(one) for who in CALLERS for one in sessions.usage(who)],
            connections.count(),
            # Which of them have no connections.
            [ledger.peers.find(connections._peer(peer)) != 0 for peer in PEERS],
            [ledger.failures_of("passwords").get(who) for who in CALLERS],
            # What is read without the lock: which records are in use.
            self.in_use(ledger.sessions),
        )

    def in_use(self, table: Table) -> int:
        """How many records are in use. Those that never were have no first field."""
        words, first, width = table.memory.words, table._first, table._width
        never = range(first + words[table._start + 1] * width, table.end, width)
        self.assertEqual([words[record] for record in never], [0] * len(never))
        return sum(value != 0 for batch in table.batches(0) for _, value in batch)

    def assert_whole_or_not_at_all(self, change: Callable[[Ledger], None]) -> None:
        worker, successor = self.workers[:2]
        memory = worker.memory
        before, whole = self.state(successor), bytes(memory.map)
        with _Writes(memory) as writes:
            change(worker)
        after = self.state(successor)
        self.assertNotEqual(before, after)
        states = []
        for count in range(len(writes.log) + 1):
            memory.map[:] = whole
            writes.repeat(count)
            states.append(self.state(successor))
            self.assertIn(states[-1], (before, after))
            if states[-1] == before:
                # What was undone can be done again.
                change(worker)
                self.assertEqual(self.state(successor), after)
        self.assertEqual(states[0], before)
        self.assertEqual(states[-1], after)

    def test_every_change(self) -> None:
        failures = "passwords"
        changes: list[Callable[[Ledger], None]] = [
            lambda one: self.of(one).add(IDS[0], "alice", allow),
            lambda one: self.of(one).add(IDS[1], "alice", allow),
            lambda one: self.of(one).resize(IDS[0], None, 1 << 63, allow),
            lambda one: self.of(one).resize(IDS[1], None, 1 << 63, allow),
            lambda one: self.of(one).resize(IDS[2], "bob", 9, allow),
            lambda one: self.of(one).listed(IDS[2], "bob", 7, self.of(one).now()),
            lambda one: self.of(one).remove(IDS[0]),
            lambda one: self.of(one).remove(IDS[1]),
            lambda one: self.of(one).add(IDS[3], "carol", allow),
            lambda one: self.of(one).remove(IDS[2]),
            # Nobody knows whose these are.
            lambda one: self.of(one).add(IDS[4], None, allow),
            lambda one: self.of(one).resize(IDS[4], None, 1 << 63, allow),
            lambda one: self.of(one).resize(IDS[5], None, 1 << 63, allow),
            lambda one: self.of(one).remove(IDS[4]),
            self.replace,
            lambda one: self.of(one).remove(IDS[6]),
            lambda one: self.of(one).remove(IDS[5]),
            lambda one: self.assertTrue(one.connections().add(PEERS[0], 9, 9)),
            lambda one: self.assertTrue(one.connections().add(PEERS[0], 9, 9)),
            lambda one: self.assertTrue(one.connections().add(PEERS[1], 9, 9)),
            lambda one: one.connections().remove(PEERS[0]),
            lambda one: one.connections().remove(PEERS[0]),
            lambda one: self.assertTrue(one.connections().add(PEERS[2], 9, 9)),
            lambda one: one.failures_of(failures).put("alice", 10.0),
            lambda one: one.failures_of(failures).put("alice", 20.0),
            lambda one: one.failures_of(failures).remove("alice"),
        ]
        for change in changes:
            self.assert_whole_or_not_at_all(change)

    def of(self, ledger: Ledger) -> SessionLedger:
        return ledger.sessions_of(DIRECTORY, is_shared=False)

    def replace(self, ledger: Ledger) -> None:
        """Several in one change, the last of which take the places of the first."""
        with ledger:
            self.of(ledger).remove(IDS[3])
            self.of(ledger).remove(IDS[5])
            self.of(ledger).add(IDS[5], "alice", allow)
            self.of(ledger).resize(IDS[6], "bob", 9, allow)
            ledger.connections().add(PEERS[0], 9, 9)
            ledger.connections().remove(PEERS[0])

    def test_an_undoing_that_is_interrupted_is_done_again(self) -> None:
        worker, successor = self.workers[:2]
        self.of(worker).add(IDS[0], "alice", allow)
        before, memory = self.state(successor), worker.memory
        whole = bytes(memory.map)
        with _Writes(memory) as writes, self.assertRaises(Refused), worker:
            self.of(worker).resize(IDS[0], None, 10, allow)
            begins = len(writes.log)
            raise Refused
        for count in range(begins, len(writes.log) + 1):
            memory.map[:] = whole
            writes.repeat(count)
            self.assertEqual(self.state(successor), before)


class LedgerMachine(RuleBasedStateMachine):
    """Three workers do anything, against a model."""

    @initialize()
    def begin(self) -> None:
        self.supervisor = Ledger.create(3, sessions=6, callers=5, peers=4)
        self.workers = [self.open(number) for number in range(3)]
        self.model: dict[UUID, tuple[str, int, int]] = {}
        self.connected: Counter[tuple[int, str]] = Counter()

    def open(self, number: int) -> Ledger:
        return Ledger.open(os.dup(self.supervisor.fd), Worker(number, 3))

    def teardown(self) -> None:
        for ledger in (self.supervisor, *self.workers):
            ledger.close()

    def sessions(self, number: int) -> SessionLedger:
        return self.workers[number].sessions_of(DIRECTORY, is_shared=False)

    def is_full(self, who: str, added: UUID) -> bool:
        callers = {one for one, _, _ in self.model.values()}
        new = who not in callers
        # All callers of the directory together need a record, too.
        return len(self.model) == 6 or len(callers) + new + 1 > 5

    @rule(
        number=st.integers(0, 2),
        one=st.integers(0, 3),
        who=st.sampled_from("abcdefg"),
        size=st.one_of(st.none(), st.integers(0, 1 << 65)),
    )
    def add(self, number: int, one: int, who: str, size: int | None) -> None:
        session_id, sessions = ids_of(number)[one], self.sessions(number)
        is_new = session_id not in self.model
        is_full = is_new and self.is_full(who, session_id)
        try:
            if size is None:
                sessions.add(session_id, who, allow)
            else:
                sessions.resize(session_id, who, size, allow)
        except LedgerFull:
            assert is_full
            return
        assert not is_full
        if is_new:
            self.model[session_id] = who, 0, number
        who, its, number = self.model[session_id]
        size = min(size or 0, (1 << 64) - 1)
        self.model[session_id] = who, max(size, its), number

    @rule(number=st.integers(0, 2), one=st.integers(0, 3))
    def remove(self, number: int, one: int) -> None:
        session_id = ids_of(number)[one]
        self.sessions(number).remove(session_id)
        self.model.pop(session_id, None)

    @rule(number=st.integers(0, 2), kept=st.sets(st.integers(0, 3)))
    def restart(self, number: int, kept: set[int]) -> None:
        """Some of its sessions are in the store, and the connections are lost."""
        self.workers[number].close()
        self.supervisor.clear_connections(number)
        self.workers[number] = self.open(number)
        sessions = self.sessions(number)
        since = sessions.now()
        known = {ids_of(number)[one] for one in kept} & self.model.keys()
        for session_id in known:
            who, size, _ = self.model[session_id]
            sessions.listed(session_id, who, size // 2, since)
            self.model[session_id] = who, size // 2, number
        for _ in sessions.drop_others(known, since):
            pass
        for session_id in [one for one, its in self.model.items() if its[2] == number]:
            if session_id not in known:
                del self.model[session_id]
        for key in [key for key in self.connected if key[0] == number]:
            del self.connected[key]

    @rule(number=st.integers(0, 2), peer=st.sampled_from("vwxyz"))
    def connect(self, number: int, peer: str) -> None:
        peers = {other for _, other in self.connected}
        of_peer = sum(n for (_, one), n in self.connected.items() if one == peer)
        admitted = self.workers[number].connections().add(peer, 6, 3)
        is_room = len(peers | {peer}) + 1 <= 4
        expected = is_room and self.connected.total() < 6 and of_peer < 3
        assert admitted == expected
        if admitted:
            self.connected[number, peer] += 1

    @rule(number=st.integers(0, 2), peer=st.sampled_from("vwxyz"))
    def disconnect(self, number: int, peer: str) -> None:
        if self.connected[number, peer]:
            self.workers[number].connections().remove(peer)
            self.connected[number, peer] -= 1
        self.connected += Counter()

    @invariant()
    def all_workers_see_what_the_model_says(self) -> None:
        everyone = len(self.model), sum(size for _, size, _ in self.model.values())
        for number in range(3):
            for who in "abcdefg":
                its = [size for one, size, _ in self.model.values() if one == who]
                used = self.sessions(number).usage(who)
                assert numbers(used[0]) == (len(its), sum(its))
                assert numbers(used[1]) == everyone
            count = self.workers[number].connections().count()
            assert count == self.connected.total()


class KeptMachine(RuleBasedStateMachine):
    """Three workers keep counts for a moment, below a limit."""

    LIMIT = 12

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.supervisor = Ledger.create(3, sessions=60)
        self.ledgers: dict[int, Ledger] = {}
        self.sessions: dict[int, SessionLedger] = {}
        self.open: dict[UUID, tuple[int, str]] = {}
        self.made = 0
        for number in range(3):
            self.start(number)

    def start(self, number: int) -> None:
        ledger = Ledger.open(os.dup(self.supervisor.fd), Worker(number, 3))
        self.ledgers[number] = ledger
        self.sessions[number] = ledger.sessions_of(
            DIRECTORY, is_shared=False, later=self.clock.callLater
        )

    def teardown(self) -> None:
        self.clock.advance(1)
        for ledger in (self.supervisor, *self.ledgers.values()):
            ledger.close()

    def allow(self, usage: Usage | None, everyone: Usage, more: int) -> bool:
        assert usage is not None
        if usage.sessions >= self.LIMIT:
            raise Refused
        return usage.sessions <= self.LIMIT // 2

    def count(self, who: str) -> int:
        return sum(1 for _, one in self.open.values() if one == who)

    @rule(number=st.integers(0, 2), who=st.sampled_from("ab"))
    def create(self, number: int, who: str) -> None:
        self.made += 1
        session_id = UUID(int=self.made)
        try:
            self.sessions[number].add(session_id, who, self.allow)
        except Refused:
            # Or there are as many open, or were a moment ago.
            assert self.count(who) >= self.LIMIT // 2
        else:
            self.open[session_id] = number, who

    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        if self.open:
            session_id = data.draw(st.sampled_from(sorted(self.open)))
            number, who = self.open.pop(session_id)
            self.sessions[number].remove(session_id, who)

    @rule()
    def pause(self) -> None:
        self.clock.advance(1)
        for who in "ab":
            for sessions in self.sessions.values():
                assert sessions.usage(who)[0].sessions == self.count(who)

    @rule(number=st.integers(0, 2))
    def restart(self, number: int) -> None:
        # Nobody calls what the worker that was killed wanted to be called.
        for call in self.clock.getDelayedCalls():
            if call.func.__self__ is self.sessions[number]:
                call.cancel()
        self.ledgers.pop(number).close()
        self.start(number)
        sessions = self.sessions[number]
        since = sessions.now()
        known = {one for one, (its, _) in self.open.items() if its == number}
        for session_id in known:
            sessions.listed(session_id, self.open[session_id][1], 0, since)
        for _ in sessions.drop_others(known, since):
            pass

    @invariant()
    def no_limit_is_exceeded_and_nobody_is_forgotten(self) -> None:
        for who in "ab":
            counted = self.sessions[0].usage(who)[0].sessions
            assert self.count(who) <= counted <= self.LIMIT


class ModelTests(SynchronousTestCase):
    def test_random_changes_by_several_workers(self) -> None:
        run_state_machine_as_test(LedgerMachine)

    def test_counts_that_are_kept_for_a_moment(self) -> None:
        run_state_machine_as_test(KeptMachine)


class KilledTests(SynchronousTestCase):
    """Workers that are killed at any time, and begin again."""

    def test_limits_hold_and_nothing_is_left(self) -> None:
        random, count = Random(), 3
        ledger = Ledger.create(count, sessions=64, callers=16, peers=4)
        self.addCleanup(ledger.close)
        sessions = ledger.sessions_of("/uploads", is_shared=False)
        connections = ledger.connections()
        workers = [self.start(ledger, number, count) for number in range(count)]
        for kill in range(6):
            self.wait_for(sessions, sessions.now() + random.randrange(50, 300))
            number = kill % count
            workers[number].kill()
            workers[number].wait()
            ledger.clear_connections(number)
            self.check(ledger, sessions, connections)
            workers[number] = self.start(ledger, number, count)
        for number, worker in enumerate(workers):
            worker.kill()
            worker.wait()
            self.check(ledger, sessions, connections)
            ledger.clear_connections(number)
        self.assertEqual(connections.count(), 0)
        for session_id in [one for n in range(count) for one in ids_of(n)]:
            sessions.remove(session_id)
        for who in CALLERS:
            used = sessions.usage(who)
            self.assertEqual([numbers(one) for one in used], [(0, 0), (0, 0)])

    def wait_for(self, sessions: SessionLedger, changes: int) -> None:
        """Let the workers make changes."""
        ends = monotonic() + 60
        while sessions.now() < changes:
            self.assertLess(monotonic(), ends)
            sleep(0.001)

    def start(self, ledger: Ledger, number: int, count: int) -> subprocess.Popen[bytes]:
        arguments = map(str, (ledger.fd, number, count))
        worker = subprocess.Popen(
            [sys.executable, "-m", ledger_worker.__name__, *arguments],
            pass_fds=[ledger.fd],
            cwd=Path(__file__).parents[1],
        )
        self.addCleanup(worker.wait)
        self.addCleanup(worker.kill)
        return worker

    def check(
        self, ledger: Ledger, sessions: SessionLedger, connections: ConnectionLedger
    ) -> None:
        """The limits hold, and the sums are right."""
        with ledger:
            used = [sessions.usage(who) for who in CALLERS]
            count = connections.count()
        total = used[0][1]
        self.assertLessEqual(total.sessions, ledger_worker.MOST_SESSIONS)
        self.assertEqual(total.sessions, sum(its.sessions for its, _ in used))
        self.assertEqual(total.staged, sum(its.staged for its, _ in used))
        self.assertLessEqual(count, ledger_worker.MOST_CONNECTIONS)
