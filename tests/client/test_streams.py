"""
Sources that can be read only once: pipes and producers.
"""

from __future__ import annotations

import io
import os
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txbits.client._streams import PipeSource, ProducerSource, Window, source_of
from txbits.client.source import (
    FileSource,
    ISource,
    ObjectSource,
    SourceChanged,
    SourceError,
)


class WindowTests(SynchronousTestCase):
    """What is kept of a stream of ten bytes."""

    def setUp(self) -> None:
        self.window = Window(10, "the stream")

    def test_what_came_can_be_read_in_any_pieces(self) -> None:
        for data in (b"01", b"2345", b"6789"):
            self.window.add(data)
        for first in range(10):
            for last in range(first, 11):
                read = self.window.read(first, last - first)
                self.assertEqual(self.successResultOf(read), b"0123456789"[first:last])

    def test_what_has_not_come_is_waited_for(self) -> None:
        result = self.window.read(0, 4)
        self.window.add(b"01")
        self.assertNoResult(result)
        self.assertTrue(self.window.wanted)
        self.window.add(b"234")
        self.assertEqual(self.successResultOf(result), b"0123")
        self.assertFalse(self.window.wanted)

    def test_a_read_that_was_given_up_does_not_stand_in_the_way(self) -> None:
        self.window.read(0, 4)
        again = self.window.read(0, 4)
        self.window.add(b"0123")
        self.assertEqual(self.successResultOf(again), b"0123")

    def test_what_the_server_holds_is_not_kept(self) -> None:
        self.window.add(b"01234")
        self.window.add(b"567")
        self.window.forget(5)
        self.assertEqual(self.window.kept, 3)
        self.assertEqual(self.successResultOf(self.window.read(5, 3)), b"567")

    def test_what_is_not_kept_any_more_cannot_be_read(self) -> None:
        self.window.add(b"01234")
        self.window.forget(5)
        error = self.failureResultOf(self.window.read(0, 1), SourceError).value
        self.assertIn("can be read only once", str(error))

    def test_an_end_before_the_length_is_a_change(self) -> None:
        result = self.window.read(0, 10)
        self.window.add(b"01234")
        self.window.end()
        for each in (result, self.window.read(5, 5), self.window.check()):
            error = self.failureResultOf(each, SourceChanged).value
            self.assertIn("ended after 5 of 10 bytes", str(error))

    def test_more_than_the_length_is_a_change(self) -> None:
        self.window.add(b"0123456789+")
        self.failureResultOf(self.window.check(), SourceChanged)

    def test_an_end_at_the_length_is_none(self) -> None:
        self.window.add(b"0123456789")
        self.window.end()
        self.assertIsNone(self.successResultOf(self.window.check()))


@define
class Readers:
    """The part of a reactor that has readers."""

    readers: list[Any] = field(factory=list)

    def addReader(self, reader: Any) -> None:
        if reader not in self.readers:
            self.readers.append(reader)

    def removeReader(self, reader: Any) -> None:
        if reader in self.readers:
            self.readers.remove(reader)


class PipeSourceTests(SynchronousTestCase):
    """A pipe through which ten bytes come."""

    def setUp(self) -> None:
        self.reactor = Readers()
        out, self.into = os.pipe()
        self.addCleanup(os.close, out)
        self.source = PipeSource(self.reactor, out, 10)

    def write(self, data: bytes) -> None:
        os.write(self.into, data)
        self.source.doRead()

    def test_it_is_a_source(self) -> None:
        os.close(self.into)
        verifyObject(ISource, self.source)

    def test_it_is_read_as_far_as_is_asked_for(self) -> None:
        self.assertEqual(self.reactor.readers, [])
        result = self.source.read(0, 5)
        self.assertEqual(self.reactor.readers, [self.source])
        self.write(b"012")
        self.assertNoResult(result)
        self.write(b"34567")
        self.assertEqual(self.successResultOf(result), b"01234")
        self.assertEqual(self.reactor.readers, [])
        os.close(self.into)

    def test_an_end_that_comes_too_soon_is_a_change(self) -> None:
        result = self.source.read(0, 5)
        os.close(self.into)
        self.source.doRead()
        error = self.failureResultOf(result, SourceChanged).value
        self.assertIn("standard input ended after 0 of 10 bytes", str(error))
        self.assertEqual(self.reactor.readers, [])

    def test_what_cannot_be_read_says_why(self) -> None:
        source = PipeSource(self.reactor, self.into, 10)
        result = source.read(0, 5)
        source.doRead()
        error = self.failureResultOf(result, SourceError).value
        self.assertIn("cannot be read: Bad file descriptor", str(error))
        os.close(self.into)

    def test_it_is_not_read_any_more_when_it_is_closed(self) -> None:
        self.source.read(0, 5)
        self.source.close()
        self.assertEqual(self.reactor.readers, [])
        os.close(self.into)


@implementer(IBodyProducer)
@define(eq=False)
class Producer:
    """Produces when the test says so."""

    length: Any = 10
    consumer: Any = None
    paused: bool = False
    stopped: bool = False
    done: Deferred[None] = field(factory=Deferred)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        self.consumer = consumer
        return self.done

    def pauseProducing(self) -> None:
        self.paused = True

    def resumeProducing(self) -> None:
        self.paused = False

    def stopProducing(self) -> None:
        self.stopped = True


class ProducerSourceTests(SynchronousTestCase):
    """A producer of ten bytes."""

    def setUp(self) -> None:
        self.producer = Producer()
        self.source = ProducerSource(self.producer)

    def test_it_is_a_source(self) -> None:
        verifyObject(ISource, self.source)

    def test_it_is_paused_while_there_is_enough(self) -> None:
        result = self.source.read(0, 4)
        self.producer.consumer.write(b"012345")
        self.assertEqual(self.successResultOf(result), b"0123")
        self.assertTrue(self.producer.paused)
        self.assertEqual(self.successResultOf(self.source.read(4, 2)), b"45")
        self.assertTrue(self.producer.paused)
        result = self.source.read(6, 4)
        self.assertFalse(self.producer.paused)
        self.producer.consumer.write(b"6789")
        self.assertEqual(self.successResultOf(result), b"6789")

    def test_a_producer_that_ends_too_soon_is_a_change(self) -> None:
        result = self.source.read(0, 4)
        self.producer.done.callback(None)
        self.failureResultOf(result, SourceChanged)

    def test_a_producer_that_fails_says_why(self) -> None:
        result = self.source.read(0, 4)
        self.producer.done.errback(RuntimeError("tape torn"))
        error = self.failureResultOf(result, SourceError).value
        self.assertIn("tape torn", str(error))

    def test_it_is_stopped_if_it_was_started(self) -> None:
        self.source.close()
        self.assertFalse(self.producer.stopped)
        self.source.read(0, 4)
        self.source.close()
        self.assertTrue(self.producer.stopped)

    def test_one_of_unknown_length_is_refused(self) -> None:
        self.assertRaises(SourceError, ProducerSource, Producer(UNKNOWN_LENGTH))


class SourceOfTests(SynchronousTestCase):
    """Whatever is to be uploaded."""

    def test_each_kind_has_its_source(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"0123456789")
        ready = ObjectSource(io.BytesIO())
        with open(path, "rb") as opened:
            opened.seek(3)
            for what, kind, length, to_close in (
                (path, FileSource, 10, True),
                (opened, FileSource, 7, True),
                (io.BytesIO(b"012"), ObjectSource, 3, False),
                (Producer(), ProducerSource, 10, True),
                (ready, ObjectSource, 0, False),
            ):
                source, closing = source_of(what)
                self.assertIsInstance(source, kind)
                self.assertEqual((source.length, closing), (length, to_close))
                if closing:
                    source.close()

    def test_an_open_file_is_read_from_where_it_stands(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(b"0123456789")
        with open(path, "rb") as opened:
            opened.seek(3)
            source, _ = source_of(opened)
        self.assertEqual(self.successResultOf(source.read(1, 2)), b"45")
        self.assertIsNone(source.identity)
        source.close()

    def test_what_is_none_of_them_is_refused(self) -> None:
        with open(self.mktemp(), "wb") as file, os.fdopen(os.pipe()[0]) as pipe:
            for what in (None, 5, pipe):
                self.assertRaises(SourceError, source_of, what)
            self.assertIsNotNone(file)
