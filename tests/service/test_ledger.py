"""
What the services of several workers count together.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txbits._ledger import Ledger
from txbits._workers import Worker
from txbits.errors import (
    CredentialsRejected,
    CredentialsUncheckable,
    SessionLimitReached,
)
from txbits.interfaces import Identity
from txbits.service._access import Shared
from txbits.service._served import Builder
from txbits.service.maker import assemble
from txbits.service.settings import Configuration, Directory
from txbits.sessions import Caller, Settings
from txbits.web import Limits

ALICE = Caller("alice", "192.0.2.1")


class LedgerCase(SynchronousTestCase):
    """Two workers with a reactor each."""

    def setUp(self) -> None:
        self.supervisor = Ledger.create(2)
        self.addCleanup(self.supervisor.close)
        self.reactors = [MemoryReactorClock(), MemoryReactorClock()]
        self.ledgers = [self.open(number) for number in range(2)]

    def open(self, number: int) -> Ledger:
        ledger = Ledger.open(os.dup(self.supervisor.fd), Worker(number, 2))
        self.addCleanup(ledger.close)
        return ledger


class AssembleTests(LedgerCase):
    """``assemble`` with a ledger."""

    def assembled(self, **more: Any) -> list[Any]:
        """The service of each worker."""
        settings = Settings(session_limit=1)
        directories = [
            Directory(where="", mount=mount, backend="memory:", settings=settings)
            for mount in ("/one", "/two")
        ]
        configuration = Configuration(directories=tuple(directories), **more)
        return [
            assemble(configuration, reactor, ledger=ledger)
            for reactor, ledger in zip(self.reactors, self.ledgers, strict=True)
        ]

    def creating(self, service: Any, mount: int) -> Deferred[Any]:
        manager = service.directories[mount].manager
        self.successResultOf(manager.backend.start())
        created: Deferred[Any] = manager.create(("a.bin",), ALICE, None)
        return created

    def test_sessions_of_a_directory_count_in_both(self) -> None:
        one, other = self.assembled()
        for service, manager in ((one, 0), (other, 1)):
            self.successResultOf(self.creating(service, manager))
        for service, manager in ((one, 1), (other, 0), (one, 0), (other, 1)):
            self.failureResultOf(self.creating(service, manager), SessionLimitReached)

    def test_connections_count_in_both(self) -> None:
        one, other = self.assembled(limits=Limits(max_connections=1))
        address = IPv4Address("TCP", "192.0.2.1", 54321)
        self.assertIsNotNone(one.site.buildProtocol(address))
        self.assertIsNone(other.site.buildProtocol(address))


class DirectoryTests(LedgerCase):
    """Which directory of a worker is which of another."""

    def key(self, number: int, mount: str, backend: str) -> object:
        """What the ledger knows the directory by."""
        directory = Directory(where="", mount=mount, backend=backend)
        builder = Builder(self.reactors[number], self.ledgers[number])
        manager = builder.build(
            directory, Configuration(directories=(directory,))
        ).manager
        assert manager.ledger is not None
        return manager.ledger._all

    def test_one_with_a_place_of_its_own_may_be_mounted_elsewhere(self) -> None:
        root = self.mktemp()
        os.mkdir(root)
        key = self.key(0, "/before", f"disk:{root}")
        self.assertEqual(self.key(1, "/after", f"disk:{root}"), key)
        self.assertNotEqual(self.key(1, "/before", f"disk:{self.mktemp()}"), key)

    def test_others_are_known_by_their_mounts(self) -> None:
        key = self.key(0, "/one", "memory:")
        self.assertEqual(self.key(1, "/one", "memory:"), key)
        self.assertNotEqual(self.key(1, "/two", "memory:"), key)


class PasswordTests(LedgerCase):
    """``Shared`` with a ledger."""

    def ask(self, number: int, name: str, is_right: bool) -> Deferred[Any]:
        identity = Identity(name, "basic") if is_right else None
        checks = self.shared[number].checks
        return checks.ask(
            checks.key(b"%d" % is_right),
            b"hash",
            name,
            "-",
            lambda _: succeed(identity),
        )

    def test_failures_count_in_both_and_successes_are_known(self) -> None:
        self.shared = [
            Shared(reactor, ledger)
            for reactor, ledger in zip(self.reactors, self.ledgers, strict=True)
        ]
        self.successResultOf(self.ask(0, "alice", is_right=True))
        for number in range(10):
            asked = self.ask(number % 2, "alice", is_right=False)
            self.failureResultOf(asked, CredentialsRejected)
        for number in range(2):
            asked = self.ask(number, "alice", is_right=False)
            self.failureResultOf(asked, CredentialsUncheckable)
        self.successResultOf(self.ask(1, "alice", is_right=True))
