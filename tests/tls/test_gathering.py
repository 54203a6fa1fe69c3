"""
What a TLS connection delivers of a read, and how it encrypts long writes, without a
network.
"""

import os

from attrs import define, evolve, field
from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.openssl import Authority
from tests.tls.test_files import FilesCase
from txbits.tls._connections import (
    GatheringTransport,
    HttpsFactory,
    Loaded,
    gather_records,
)

LONG = 1024 * 1024


class Recorder(Protocol):
    """
    Keeps what is delivered to it.

    :cvar on_data: Called with it after each delivery.
    """

    def __init__(self):
        self.pieces = []
        self.reasons = []

    def dataReceived(self, data):
        self.pieces.append(data)
        self.factory.on_data(self)

    def connectionLost(self, reason):
        self.reasons.append(reason)


@define
class Peer:
    """A client, of which only the bytes exist."""

    connection: SSL.Connection = field(init=False)

    def __attrs_post_init__(self):
        self.connection = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD))
        self.connection.set_connect_state()

    def taken(self):
        """What it sends."""
        parts = []
        while True:
            try:
                parts.append(self.connection.bio_read(65536))
            except SSL.WantReadError:
                return b"".join(parts)

    def shake_hands(self, transport, wire):
        for _ in range(4):
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                transport.dataReceived(self.taken())
                self.connection.bio_write(wire.value())
                wire.clear()
            else:
                transport.dataReceived(self.taken())
                return
        raise AssertionError("the handshake does not end")

    def encrypted(self, data, size=16384):
        """The records of some data, each of *size* bytes."""
        parts = []
        for start in range(0, len(data), size):
            self.connection.send(data[start : start + size])
            parts.append(self.taken())
        return b"".join(parts)


class GatheringTests(FilesCase):
    def setUp(self):
        super().setUp()
        loaded = Loaded.of(self.files.read())
        self.factory = Factory.forProtocol(Recorder)
        self.factory.on_data = lambda recorder: None
        self.secure = HttpsFactory(loaded, self.factory, Clock())
        self.transport = self.secure.buildProtocol(None)
        self.wire = StringTransport()
        self.transport.makeConnection(self.wire)
        self.recorder = self.transport.wrappedProtocol
        self.peer = Peer()
        self.peer.shake_hands(self.transport, self.wire)

    def test_a_long_read_is_delivered_in_one_piece(self):
        data = os.urandom(LONG)
        self.transport.dataReceived(self.peer.encrypted(data))
        self.assertEqual(self.recorder.pieces, [data])

    def received(self, records):
        """What the peer receives by some records."""
        self.peer.connection.bio_write(records)
        data = b""
        while True:
            try:
                data += self.peer.connection.recv(65536)
            except SSL.WantReadError:
                return data

    def test_a_long_write_is_encrypted_in_slices(self):
        self.received(self.wire.value())
        data = bytearray(os.urandom(200_000))
        sent = bytes(data)
        received, count = b"", 0
        while count < len(sent):
            encrypted, records = self.transport.encrypt(memoryview(data)[count:])
            self.assertEqual(encrypted, min(65536, len(sent) - count))
            # It is not kept.
            data[count : count + encrypted] = bytes(encrypted)
            received += self.received(records)
            count += encrypted
        self.assertEqual(received, sent)

    def test_records_of_a_write_follow_those_that_wait(self):
        self.received(self.wire.value())
        self.wire.clear()
        self.transport.write(b"first")
        self.assertEqual(self.transport.encrypt(memoryview(b"second")), (0, b""))
        self.secure._clock.advance(0)
        self.assertEqual(self.received(self.wire.value()), b"first")
        count, records = self.transport.encrypt(memoryview(b"second"))
        self.assertEqual(count, 6)
        self.assertEqual(self.received(records), b"second")

    def test_nothing_is_encrypted_before_the_handshake_and_after_the_end(self):
        fresh = self.secure.buildProtocol(None)
        fresh.makeConnection(StringTransport())
        self.assertEqual(fresh.encrypt(memoryview(b"x")), (0, b""))
        self.transport.loseConnection()
        self.assertEqual(self.transport.encrypt(memoryview(b"x")), (0, b""))
        self.transport.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.transport.encrypt(memoryview(b"x")), (0, b""))

    def test_a_short_read_is_delivered_in_one_piece(self):
        data = os.urandom(40_000)
        self.transport.dataReceived(self.peer.encrypted(data))
        self.assertEqual(self.recorder.pieces, [data])

    def test_reads_may_end_anywhere(self):
        data = os.urandom(LONG)
        sent = self.peer.encrypted(data)
        start = 0
        for length in (3, 70_000, 1, 16384, 100_000, LONG):
            self.transport.dataReceived(sent[start : start + length])
            start += length
        self.assertEqual(b"".join(self.recorder.pieces), data)
        self.assertLessEqual(len(self.recorder.pieces), 6)

    def test_what_came_before_the_end_is_delivered_before_it(self):
        for length in (1000, LONG):
            self.setUp()
            sent = self.peer.encrypted(b"x" * length)
            self.peer.connection.shutdown()
            self.transport.dataReceived(sent + self.peer.taken() + b"more" * length)
            self.assertEqual(self.recorder.pieces, [b"x" * length])
            self.assertTrue(self.wire.disconnecting)
            self.transport.connectionLost(Failure(ConnectionDone()))
            [reason] = self.recorder.reasons
            reason.trap(ConnectionDone)

    def test_what_came_before_a_broken_record_is_delivered(self):
        for length in (1000, LONG):
            self.setUp()
            sent = self.peer.encrypted(b"x" * length)
            broken = bytearray(self.peer.encrypted(b"y" * LONG))
            broken[100] ^= 1
            self.transport.dataReceived(sent + broken)
            self.assertEqual(self.recorder.pieces, [b"x" * length])
            self.assertTrue(self.wire.disconnecting)
            self.transport.connectionLost(Failure(ConnectionLost()))
            [reason] = self.recorder.reasons
            reason.trap(SSL.Error)
            self.assertIn("bad record mac", str(reason.value))

    def test_nothing_is_delivered_after_an_end(self):
        self.peer.connection.shutdown()
        self.transport.dataReceived(self.peer.taken())
        self.transport.dataReceived(b"x" * LONG)
        self.assertEqual(self.recorder.pieces, [])

    def test_a_protocol_may_abort_while_it_gets_data(self):
        self.factory.on_data = lambda recorder: recorder.transport.abortConnection()
        self.transport.dataReceived(self.peer.encrypted(b"x" * LONG))
        self.assertEqual(len(self.recorder.pieces), 1)
        self.transport.dataReceived(self.peer.encrypted(b"x" * LONG))
        self.assertEqual(len(self.recorder.pieces), 1)

    def test_a_protocol_may_answer_while_it_gets_data(self):
        self.factory.on_data = lambda recorder: recorder.transport.write(b"thanks")
        self.transport.dataReceived(self.peer.encrypted(b"x" * LONG))
        self.secure._clock.advance(0)
        self.peer.connection.bio_write(self.wire.value())
        self.assertEqual(self.peer.connection.recv(100), b"thanks")

    def test_a_protocol_may_get_views_of_memory_that_is_used_again(self):
        views = []

        def view_received(view):
            views.append(view)
            self.recorder.pieces.append(bytes(view))

        self.recorder.view_received = view_received
        for byte in (b"a", b"b"):
            self.transport.dataReceived(self.peer.encrypted(byte * 100_000))
        self.transport.dataReceived(self.peer.encrypted(b"c"))
        self.assertEqual(self.recorder.pieces, [b"a" * 100_000, b"b" * 100_000, b"c"])
        self.assertEqual(bytes(views[0][:2]), b"cb")

    def test_what_is_too_long_for_one_piece_is_delivered_in_several(self):
        data = os.urandom(3 * LONG + 12_345)
        self.transport.dataReceived(self.peer.encrypted(data, 16_000))
        self.assertEqual(len(self.recorder.pieces), 4)
        self.assertTrue(b"".join(self.recorder.pieces) == data)

    def test_short_records_are_noticed(self):
        for size, is_short in ((16384, False), (100, True), (2048, False), (1, True)):
            self.transport.dataReceived(self.peer.encrypted(b"x" * 100_000, size))
            self.assertEqual(self.transport.has_short_records, is_short, size)

    def test_a_few_short_records_are_not_many(self):
        self.transport.dataReceived(self.peer.encrypted(b"x" * 100, 10))
        self.assertFalse(self.transport.has_short_records)


class PortTests(SynchronousTestCase):
    """Ports of Twisted's own endpoint."""

    def port(self, factory):
        @define
        class Port:
            factory: object

        return Port(factory)

    def test_their_connections_gather_as_well(self):
        factory = TLSMemoryBIOFactory(
            CertificateOptions(), False, Factory.forProtocol(Recorder), Clock()
        )
        gather_records(self.port(factory))
        self.assertIsInstance(factory.buildProtocol(None), GatheringTransport)

    def test_others_stay_as_they_are(self):
        factory = Factory.forProtocol(Recorder)
        gather_records(self.port(factory))
        self.assertIs(factory.protocol, Recorder)
        gather_records(object())


class TicketKeyTests(FilesCase):
    """When a server makes new keys for the tickets of sessions."""

    def contexts(self, **files):
        """A function that returns the context of a new connection, and the clock."""
        clock = Clock()
        factory = HttpsFactory(
            Loaded.of(evolve(self.files, **files).read()),
            Factory.forProtocol(Recorder),
            clock,
        )

        def context():
            transport = factory.buildProtocol(None)
            transport.makeConnection(StringTransport())
            return transport.getHandle().get_context()

        return context, clock

    def test_once_a_day(self):
        context, clock = self.contexts()
        first = context()
        clock.advance(24 * 3600 - 1)
        self.assertIs(context(), first)
        clock.advance(2)
        second = context()
        self.assertIsNot(second, first)
        self.assertIs(context(), second)

    def test_not_without_tickets(self):
        clients = Authority(self.folder, "clients")
        context, clock = self.contexts(client_ca=str(clients.certificate))
        first = context()
        clock.advance(10 * 24 * 3600)
        self.assertIs(context(), first)
