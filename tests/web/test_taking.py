"""
How much of what was sent a peer has yet to take.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txbits.web._streaming.taking import untaken


class _Above:
    """What stands above a connection, as TLS does."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport


class UntakenTests(SynchronousTestCase):
    """A pair of sockets, one end of which is a connection of Twisted's."""

    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(self.theirs.close)
        ours.setblocking(False)
        self.connection: Any = Connection(ours, None, MemoryReactorClock())
        self.connection.connected = True

    def test_nothing_was_sent(self) -> None:
        self.assertEqual(untaken(self.connection), 0)

    def test_what_waits_with_us_counts(self) -> None:
        self.connection.write(b"x" * 1000)
        self.assertEqual(untaken(self.connection), 1000)
        self.assertEqual(untaken(_Above(_Above(self.connection))), 1000)

    def test_what_waits_with_the_system_counts_until_it_is_taken(self) -> None:
        self.connection.write(b"x" * 100_000)
        self.connection.doWrite()
        self.assertGreaterEqual(untaken(self.connection), 100_000)
        taken = 0
        while taken < 100_000:
            taken += len(self.theirs.recv(65536))
            self.connection.doWrite()
        self.assertEqual(untaken(self.connection), 0)

    def test_a_closed_connection_does_not_tell(self) -> None:
        self.connection.write(b"x" * 10)
        self.connection.socket.close()
        self.assertEqual(untaken(self.connection), 10)

    def test_what_is_no_connection_does_not_tell(self) -> None:
        self.assertEqual(untaken(StringTransport()), 0)
        self.assertEqual(untaken(_Above(None)), 0)
