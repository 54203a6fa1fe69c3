"""
The body of a response between a client and the files that it is made of: whoever is
first to pause, to go away, or to begin.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IConsumer, IPullProducer, IPushProducer
from twisted.internet.tcp import Connection
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txbits.errors import BackendError
from txbits.interfaces import IEagerConsumer
from txbits.web._sending import ClientGone, Sending


class _Request:
    """What is asked of a request."""

    _disconnected = False
    startedWriting = 1
    chunked = 0
    sentLength = 0

    def __init__(self) -> None:
        self.channel = self
        self.transport: Any = _Socket()
        self.finished: Deferred[None] = Deferred()
        self.producer: Any = None
        self.written = b""

    def notifyFinish(self) -> Deferred[None]:
        return self.finished

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.written += data


class _Socket(Connection):
    """Takes five bytes."""

    def __init__(self) -> None:
        # Without a socket.
        FileDescriptor.__init__(self, MemoryReactorClock())
        self.connected = True
        self.taken = b""

    def writeSomeData(self, data: bytes) -> int:
        taken = bytes(data[: 5 - len(self.taken)])
        self.taken += taken
        return len(taken)


@implementer(IPushProducer)
class _Producer:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def pauseProducing(self) -> None:
        self.told.append("pause")

    def resumeProducing(self) -> None:
        self.told.append("resume")

    def stopProducing(self) -> None:
        self.told.append("stop")


class _File:
    """A file that is read when a test says so."""

    def __init__(self) -> None:
        self.readings: list[tuple[Any, Deferred[None]]] = []

    def read_into(self, consumer: Any, start: int, end: int) -> Deferred[None]:
        self.readings.append((consumer, Deferred()))
        return self.readings[-1][1]


class SendingTests(SynchronousTestCase):
    """A request and a file in our hands."""

    def setUp(self) -> None:
        self.request: Any = _Request()
        self.sending = Sending(self.request)
        self.file: Any = _File()
        self.producer = _Producer()

    def begin(self) -> Deferred[None]:
        """Begin to send, and then to read a file."""
        self.sending.begin()
        return Deferred.fromCoroutine(self.sending.send_file(self.file, 0, 5))

    def lose(self) -> None:
        """The client goes away."""
        self.request._disconnected = True
        self.request.finished.errback(Failure(ConnectionLost()))

    def test_it_is_consumer_and_producer(self) -> None:
        verifyObject(IConsumer, self.sending)
        verifyObject(IPushProducer, self.sending)

    def test_what_the_socket_takes_is_sent_at_once(self) -> None:
        self.begin()
        verifyObject(IEagerConsumer, self.sending)
        self.assertEqual(self.sending.write_some(memoryview(b"abcdefg")), 5)
        self.assertEqual(self.request.transport.taken, b"abcde")
        self.assertEqual((self.sending.sent, self.request.sentLength), (5, 5))
        self.assertEqual(self.sending.write_some(memoryview(b"fg")), 0)

    def test_nothing_is_sent_at_once_out_of_turn(self) -> None:
        data = memoryview(b"abc")
        self.begin()
        self.request.startedWriting = 0
        self.assertEqual(self.sending.write_some(data), 0)
        self.request.startedWriting, self.request.chunked = 1, 1
        self.assertEqual(self.sending.write_some(data), 0)
        self.request.chunked = 0
        self.sending.pauseProducing()
        self.assertEqual(self.sending.write_some(data), 0)
        self.sending.resumeProducing()
        self.assertEqual(self.sending.write_some(data), 3)
        self.sending.stopProducing()
        self.assertEqual(self.sending.write_some(data), 0)
        self.assertEqual(self.request.transport.taken, b"abc")

    def test_what_the_client_tells_is_passed_on(self) -> None:
        self.begin()
        self.sending.registerProducer(self.producer, True)
        self.sending.pauseProducing()
        self.sending.pauseProducing()
        self.sending.resumeProducing()
        self.sending.unregisterProducer()
        self.sending.pauseProducing()
        self.assertEqual(self.producer.told, ["pause", "resume"])

    def test_a_reading_that_begins_while_the_client_has_enough_is_paused(self) -> None:
        self.begin()
        self.sending.pauseProducing()
        self.sending.registerProducer(self.producer, True)
        self.assertEqual(self.producer.told, ["pause"])

    def test_a_reading_that_begins_when_the_client_is_gone_is_stopped(self) -> None:
        sent = self.begin()
        self.lose()
        self.sending.registerProducer(self.producer, True)
        self.assertEqual(self.producer.told, ["stop"])
        self.sending.write(b"late")
        self.assertEqual(self.request.written, b"")
        self.file.readings[0][1].errback(BackendError("stopped"))
        self.failureResultOf(sent, ClientGone)
        self.sending.end()
        self.assertIs(self.request.producer, self.sending)

    def test_a_fault_of_the_file_is_its_own(self) -> None:
        sent = self.begin()
        self.file.readings[0][1].errback(BackendError("a bad block"))
        self.failureResultOf(sent, BackendError)
        self.sending.end()
        self.assertIsNone(self.request.producer)

    def test_nothing_is_begun_for_a_client_that_has_enough_or_is_gone(self) -> None:
        self.sending.begin()
        self.sending.pauseProducing()
        waiting = [
            Deferred.fromCoroutine(self.sending.send(b"head")),
            Deferred.fromCoroutine(self.sending.send_file(self.file, 0, 5)),
        ]
        self.assertEqual((self.request.written, self.file.readings), (b"", []))
        self.lose()
        for one in waiting:
            self.failureResultOf(one, ClientGone)
        self.assertEqual((self.request.written, self.file.readings), (b"", []))

    def test_it_does_not_begin_for_one_who_is_gone_already(self) -> None:
        self.request._disconnected = True
        self.assertRaises(ClientGone, self.sending.begin)
        self.sending.end()

    def test_pull_producers_are_refused(self) -> None:
        @implementer(IPullProducer)
        class Pull:
            """Has to be asked for each piece."""

        self.begin()
        with self.assertRaisesRegex(TypeError, "push"):
            self.sending.registerProducer(Pull(), False)
