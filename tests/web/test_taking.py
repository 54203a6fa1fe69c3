"""
How much of what was sent a peer has yet to take, and what is sent at once.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock, StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txbits.web._streaming.taking import (
    send_some,
    socket_below,
    takes_long_reads,
    untaken,
)


class _Above:
    """What stands above a connection, as TLS does."""

    def __init__(self, transport: Any) -> None:
        self.transport = transport


class _Encrypting(_Above):
    """Encrypts up to ten bytes at a time, as far as *most* allows."""

    most = 1 << 30

    def encrypt(self, data: memoryview) -> tuple[int, bytes]:
        part = bytes(data[: min(10, self.most)])
        self.most -= len(part)
        return len(part), part and b"<%b>" % part


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

    def test_the_socket_below_is_found(self) -> None:
        self.assertIs(socket_below(self.connection), self.connection)
        self.assertIs(socket_below(_Above(_Above(self.connection))), self.connection)
        self.assertIsNone(socket_below(_Above(StringTransport())))

    def test_long_reads_are_of_use_without_tls(self) -> None:
        self.assertTrue(takes_long_reads(_Above(self.connection)))

    def test_what_the_socket_takes_is_sent_at_once(self) -> None:
        data = memoryview(b"x" * 300_000)
        self.connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        sent = send_some(self.connection, data)
        self.assertGreater(sent, Connection.SEND_LIMIT)
        self.assertEqual(self.connection.dataBuffer, b"")
        while sent < 1 << 23:
            more = send_some(self.connection, data)
            sent += more
            if more < len(data):
                break
        self.assertEqual(send_some(self.connection, data), 0)
        taken = 0
        while taken < sent:
            taken += len(self.theirs.recv(1 << 20))
        self.assertEqual(send_some(self.connection, data[:5]), 5)

    def test_nothing_is_sent_before_what_waits(self) -> None:
        self.connection.write(b"first")
        self.assertEqual(send_some(self.connection, b"second"), 0)

    def test_nothing_is_sent_past_what_stands_above(self) -> None:
        self.assertEqual(send_some(_Above(self.connection), b"x"), 0)

    def test_what_is_encrypted_is_sent_at_once(self) -> None:
        above = _Encrypting(self.connection)
        self.assertEqual(send_some(above, memoryview(b"0123456789abcde")), 15)
        self.assertEqual(self.theirs.recv(100), b"<0123456789><abcde>")
        above.most = 3
        self.assertEqual(send_some(above, b"0123456789"), 3)
        self.assertEqual(self.theirs.recv(100), b"<012>")
        self.assertEqual(send_some(above, b"0123456789"), 0)

    def test_what_was_encrypted_waits_for_a_full_socket(self) -> None:
        above = _Encrypting(self.connection)
        data, sent = memoryview(b"0123456789" * 100_000), 0
        while not self.connection.dataBuffer and not self.connection._tempDataBuffer:
            sent += send_some(above, data)
        self.assertLess(sent % len(data), len(data))
        self.assertLessEqual(self.connection._tempDataLen, 12)
        self.assertEqual(send_some(above, data), 0)
        came = b""
        while len(came) < sent // 10 * 12:
            came += self.theirs.recv(1 << 20)
            self.connection.doWrite()
        self.assertEqual(came, b"<0123456789>" * (sent // 10))

    def test_a_lost_connection_takes_nothing(self) -> None:
        self.theirs.close()
        self.assertEqual(send_some(self.connection, b"x"), 0)
