"""
What ``txbits.web._streaming`` leans on in twisted.web, pinned.

These names are private, or their order of events is nowhere promised. When a test here
fails on another version of Twisted, the module has to be read again with that version
beside it; the tests of behaviour tell what is broken then.
"""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import (
    IHalfCloseableDescriptor,
    IHalfCloseableProtocol,
)
from twisted.internet.task import Clock
from twisted.internet.tcp import Connection
from twisted.internet.testing import StringTransport
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http import (
    HTTPChannel,
    HTTPFactory,
    Request,
    _IdentityTransferDecoder,
)
from twisted.web.resource import Resource
from twisted.web.server import Request as ServerRequest
from twisted.web.server import Site
from zope.interface import implementer

from tests.web.support import chunked, request
from txbits.web import BITSSite
from txbits.web._streaming import StreamingRequest


class _Recorder(HTTPChannel):
    """Notes the stations of a request as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.stations: list[Any] = []

    def lineReceived(self, line: bytes) -> None:
        self.stations.append(("line", line[:4]))
        super().lineReceived(line)

    def allHeadersReceived(self) -> None:
        self.stations.append(
            ("headers", self._command, self._path, self._version, self.length)
        )
        super().allHeadersReceived()

    def allContentReceived(self) -> None:
        self.stations.append(("content", self._command, self._path, self._version))
        super().allContentReceived()
        self.stations.append(("gone", hasattr(self, "_command")))

    def requestDone(self, request: Request) -> None:
        self.stations.append(("done", self._handlingRequest))
        super().requestDone(request)

    def _send100Continue(self) -> None:
        self.stations.append(("continue",))
        super()._send100Continue()


class _RecordedRequest(Request):
    """Notes as well, in its channel, and answers at once."""

    def gotLength(self, length: int | None) -> None:
        self.channel.stations.append(("length", length))
        super().gotLength(length)

    def handleContentChunk(self, data: bytes) -> None:
        self.channel.stations.append(("chunk", data))
        super().handleContentChunk(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self.channel.stations.append(("received", command, path, version))
        super().requestReceived(command, path, version)

    def process(self) -> None:
        self.setHeader(b"Content-Length", b"0")
        self.finish()


class ChannelTests(SynchronousTestCase):
    """The stations of a request in an ``HTTPChannel``."""

    def setUp(self) -> None:
        self.transport = StringTransport()
        self.channel = _Recorder()
        self.channel.requestFactory = _RecordedRequest
        self.channel.makeConnection(self.transport)

    def stations(self, data: bytes) -> list[Any]:
        """Have the channel receive, and take what was noted."""
        self.channel.dataReceived(data)
        found, self.channel.stations = self.channel.stations, []
        return found

    def test_stations_of_a_request_without_body(self) -> None:
        self.assertEqual(
            self.stations(b"PUT /a HTTP/1.1\r\nX: y\r\n\r\n"),
            [
                ("line", b"PUT "),
                ("line", b"X: y"),
                ("line", b""),
                ("headers", b"PUT", b"/a", b"HTTP/1.1", 0),
                ("length", 0),
                ("content", b"PUT", b"/a", b"HTTP/1.1"),
                ("received", b"PUT", b"/a", b"HTTP/1.1"),
                ("done", True),
                ("gone", False),
            ],
        )

    def test_stations_of_a_request_with_a_body(self) -> None:
        head = b"PUT /a HTTP/1.1\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        self.assertEqual(
            self.stations(head)[-3:],
            [
                ("headers", b"PUT", b"/a", b"HTTP/1.1", 5),
                ("length", 5),
                ("continue",),
            ],
        )
        self.assertEqual(self.transport.value(), b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertFalse(self.channel._handlingRequest)
        self.assertEqual(self.stations(b"hel"), [("chunk", b"hel")])
        self.assertEqual(
            self.stations(b"lo")[:3],
            [
                ("chunk", b"lo"),
                ("content", b"PUT", b"/a", b"HTTP/1.1"),
                ("received", b"PUT", b"/a", b"HTTP/1.1"),
            ],
        )

    def test_length_of_a_chunked_body_is_none(self) -> None:
        data = request(b"PUT", b"/a", transfer_encoding=b"chunked", body=chunked(b"x"))
        found = self.stations(data)
        self.assertIn(("headers", b"PUT", b"/a", b"HTTP/1.1", None), found)
        self.assertIn(("chunk", b"x"), found)

    def test_decoder_is_chosen_by_name_and_value(self) -> None:
        self.channel.lineReceived(b"PUT /a HTTP/1.1")
        self.assertTrue(
            self.channel._maybeChooseTransferDecoder(b"Content-Length", b"5")
        )
        self.assertEqual(self.channel.length, 5)
        self.assertFalse(
            self.channel._maybeChooseTransferDecoder(b"Transfer-Encoding", b"chunked")
        )

    def test_a_decoder_hands_pieces_on_and_what_follows_the_last(self):
        channel, pieces, rest = HTTPChannel(), [], []
        channel._transferDecoder = _IdentityTransferDecoder(
            5, pieces.append, rest.append
        )
        channel.rawDataReceived(b"abc")
        channel.rawDataReceived(b"defg")
        self.assertEqual((pieces, rest), ([b"abc", b"de"], [b"fg"]))

    def test_lines_are_kept_in_a_buffer_and_raw_data_is_not(self) -> None:
        self.assertIs(HTTPChannel.__mro__[1], LineReceiver)
        self.channel.dataReceived(b"PUT /a HTTP/1.1\r\nContent-")
        self.assertEqual(self.channel._buffer, b"Content-")
        self.assertFalse(self.channel._busyReceiving)
        self.channel.dataReceived(b"Length: 5\r\n\r\nhel")
        self.assertEqual((self.channel._buffer, self.channel.line_mode), (b"", 0))

    def test_what_comes_behind_a_request_is_kept_in_a_list_of_its_own(self) -> None:
        pending: list[Any] = []

        class Waiting(_RecordedRequest):
            def process(self) -> None:
                pending.append(self)

        self.channel.requestFactory = Waiting
        self.channel.dataReceived(b"PUT /a HTTP/1.1\r\n\r\n")
        self.assertEqual((self.channel._dataBuffer, self.channel.line_mode), ([], 0))
        self.assertTrue(self.channel._handlingRequest)
        self.channel.dataReceived(b"PUT")
        self.assertEqual(self.channel._dataBuffer, [b"PUT"])
        self.assertEqual(self.transport.producerState, "producing")
        self.channel.dataReceived(b"x" * 0x4001)
        self.assertEqual(self.transport.producerState, "paused")
        self.assertEqual(self.channel.requests, pending)

    def test_no_more_lines_are_taken_while_it_is_paused(self) -> None:
        class Pausing(_RecordedRequest):
            def process(self) -> None:
                self.channel.paused = True
                super().process()

        self.channel.requestFactory = Pausing
        data = b"PUT /a HTTP/1.1\r\n\r\n"
        self.channel.dataReceived(data * 2)
        self.assertEqual((self.channel._buffer, self.channel.requests), (data, []))
        self.assertFalse(self.channel._busyReceiving)
        self.channel.paused = False
        self.channel._buffer = b""
        self.channel.dataReceived(data)
        self.assertEqual(self.transport.value().count(b"HTTP/1.1 200"), 2)

    def test_there_is_a_request_from_its_first_line_to_its_end(self) -> None:
        self.assertEqual(self.channel.requests, [])
        self.channel.dataReceived(b"\r\n")
        self.assertEqual(self.channel.requests, [])
        self.channel.dataReceived(b"PUT /a HTTP/1.1\r\n")
        self.assertEqual(len(self.channel.requests), 1)
        self.channel.dataReceived(b"\r\n")
        self.assertEqual(self.channel.requests, [])

    def test_how_much_is_read_ahead_is_an_attribute(self) -> None:
        self.assertEqual(HTTPChannel._optimisticEagerReadSize, 0x4000)

    def test_network_producer_is_the_transport(self) -> None:
        self.channel._networkProducer.pauseProducing()
        self.assertEqual(self.transport.producerState, "paused")
        self.channel._networkProducer.resumeProducing()
        self.assertEqual(self.transport.producerState, "producing")
        self.assertIs(self.transport.producer, self.channel)
        self.assertFalse(self.channel._waitingForTransport)
        self.channel.pauseProducing()
        self.assertTrue(self.channel._waitingForTransport)
        self.assertEqual(self.transport.producerState, "paused")
        self.channel.resumeProducing()
        self.assertFalse(self.channel._waitingForTransport)
        self.assertEqual(self.transport.producerState, "producing")

    def test_a_producer_may_begin_though_the_transport_waits(self) -> None:
        """Ours may not: see ``StreamingChannel.registerProducer``."""
        calls: list[str] = []

        class Producer:
            def __getattr__(self, name: str) -> Any:
                return lambda: calls.append(name)

        self.channel.pauseProducing()
        self.channel.registerProducer(Producer(), True)
        self.assertEqual(calls, [])
        self.channel.resumeProducing()
        self.channel.pauseProducing()
        self.channel.stopProducing()
        self.channel.unregisterProducer()
        self.channel.resumeProducing()
        self.assertEqual(calls, ["resumeProducing", "pauseProducing", "stopProducing"])

    def test_bad_request_is_answered_and_the_connection_closed(self) -> None:
        self.channel._respondToBadRequestAndDisconnect()
        self.assertEqual(self.transport.value(), b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertTrue(self.transport.disconnecting)

    def test_limits_of_a_head_are_attributes(self) -> None:
        for name in ("MAX_LENGTH", "totalHeadersSize", "maxHeaders"):
            self.assertIsInstance(getattr(HTTPChannel, name), int)

    def test_persistence_is_decided_by_a_method(self) -> None:
        made = _RecordedRequest(self.channel)
        self.assertTrue(self.channel.checkPersistence(made, b"HTTP/1.1"))
        self.assertFalse(self.channel.checkPersistence(made, b"HTTP/1.0"))

    def test_lost_connections_are_told_to_requests(self) -> None:
        self.channel.dataReceived(b"PUT /a HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
        (made,) = self.channel.requests
        self.assertFalse(made._disconnected)
        self.channel.connectionLost(None)
        self.assertTrue(made._disconnected)


class RequestTests(SynchronousTestCase):
    """A request of ``twisted.web.server``."""

    def test_process_finds_the_resource_by_path(self) -> None:
        found: list[Any] = []

        class Leaf(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                found.append((request.prepath, request.postpath, request.args))
                return b""

        root = Resource()
        root.putChild(b"a", Leaf())
        site = Site(root, reactor=Clock())
        channel = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        assert channel is not None
        channel.makeConnection(StringTransport())
        channel.dataReceived(request(b"GET", b"/a/b%20/c?d=e"))
        self.assertEqual(found, [([b"a"], [b"b ", b"c"], {b"d": [b"e"]})])

    def test_our_requests_have_what_requests_have(self) -> None:
        """Those of packets are made without ``Request.__init__``."""
        site = BITSSite(Resource(), reactor=Clock())
        channel = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        assert channel is not None
        channel.makeConnection(StringTransport())
        theirs, ours = ServerRequest(channel), StreamingRequest(channel)
        for name, value in vars(theirs).items():
            self.assertEqual(getattr(ours, name), value, name)
            self.assertIs(getattr(ours, name), getattr(ours, name), name)

    def test_site_gives_its_channel_a_site_and_a_factory(self) -> None:
        site = Site(Resource())
        channel = site.buildProtocol(IPv4Address("TCP", "192.0.2.1", 1))
        assert channel is not None
        self.assertIs(channel.site, site)
        self.assertIs(channel.factory, site)
        self.assertTrue(issubclass(Site, HTTPFactory))


class TransportTests(SynchronousTestCase):
    """A TCP connection of Twisted's."""

    def test_how_much_is_read_is_an_attribute(self) -> None:
        self.assertIsInstance(Connection.bufferSize, int)

    def test_what_is_still_to_be_sent_is_in_two_attributes(self) -> None:
        self.assertTrue(issubclass(Connection, FileDescriptor))
        descriptor = FileDescriptor(reactor=Clock())
        self.assertEqual(descriptor.dataBuffer, b"")
        self.assertEqual(descriptor._tempDataBuffer, [])
        descriptor.connected = True
        descriptor.startWriting = lambda: None
        descriptor.write(b"abc")
        self.assertEqual((descriptor._tempDataLen, descriptor.offset), (3, 0))

    def test_a_protocol_may_be_told_of_the_end_of_one_side(self) -> None:
        self.assertTrue(IHalfCloseableDescriptor.implementedBy(Connection))

        @implementer(IHalfCloseableProtocol)
        class Half:
            told = 0

            def readConnectionLost(self) -> None:
                self.told += 1

            def writeConnectionLost(self) -> None:
                """Not here."""

        half = Half()
        with socket.socket() as own:
            connection = Connection(own, half, reactor=Clock())
            connection.readConnectionLost(Failure(ConnectionDone()))
        self.assertEqual(half.told, 1)

    def test_something_is_written_at_once_by_a_method(self) -> None:
        self.assertTrue(callable(Connection.writeSomeData))
        self.assertTrue(callable(Connection.loseWriteConnection))
