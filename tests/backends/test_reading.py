"""
Staged bytes fed to a consumer: at its pace, until it goes away, or they do.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txbits.backends._reading import PIECE, Reading
from txbits.errors import BackendError, StagedDataLost


@implementer(IConsumer)
@define(eq=False)
class _Consumer:
    """Keeps everything."""

    received: list[bytes] = field(factory=list)
    producer: object = None

    def registerProducer(self, producer, streaming):
        assert streaming
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def write(self, data):
        self.received.append(data)


class ReadingTests(SynchronousTestCase):
    """A consumer, and a store whose answers are in our hands."""

    def setUp(self):
        self.asked = []
        self.consumer = _Consumer()
        self.reading = Reading(self.consumer, self.read)

    def read(self, offset, length):
        answer: Deferred[bytes] = Deferred()
        self.asked.append((offset, length, answer))
        return answer

    def run_it(self, start, end):
        return Deferred.fromCoroutine(self.reading.run(start, end))

    def answer(self, data):
        self.asked[-1][2].callback(data)

    def test_it_is_a_push_producer(self):
        verifyObject(IPushProducer, self.reading)

    def test_it_asks_for_one_piece_at_a_time(self):
        done = self.run_it(5, 5 + PIECE + 3)
        self.assertEqual([one[:2] for one in self.asked], [(5, PIECE)])
        self.answer(b"x" * PIECE)
        self.assertEqual([one[:2] for one in self.asked[1:]], [(5 + PIECE, 3)])
        self.answer(b"end")
        self.successResultOf(done)
        self.assertEqual(self.consumer.received, [b"x" * PIECE, b"end"])
        self.assertIsNone(self.consumer.producer)

    def test_short_answers_are_gone_on_from(self):
        done = self.run_it(0, 5)
        self.answer(b"ab")
        self.assertEqual(self.asked[-1][:2], (2, 3))
        self.answer(b"cde")
        self.successResultOf(done)

    def test_nothing_is_written_while_paused(self):
        done = self.run_it(0, 5)
        self.reading.pauseProducing()
        self.reading.pauseProducing()
        self.answer(b"ab")
        self.assertEqual(self.consumer.received, [])
        self.reading.resumeProducing()
        self.assertEqual(self.consumer.received, [b"ab"])
        self.answer(b"cde")
        self.successResultOf(done)

    def test_a_consumer_that_stops_ends_it(self):
        for before in (lambda: None, self.reading.pauseProducing):
            self.setUp()
            done = self.run_it(0, 5)
            before()
            self.reading.stopProducing()
            self.reading.pauseProducing()
            self.answer(b"ab")
            self.failureResultOf(done, BackendError)
            self.assertEqual(self.consumer.received, [])
            self.assertIsNone(self.consumer.producer)

    def test_bytes_that_end_early_are_lost(self):
        done = self.run_it(0, 5)
        self.answer(b"ab")
        self.answer(b"")
        self.failureResultOf(done, StagedDataLost)
        self.assertIsNone(self.consumer.producer)

    def test_a_read_that_fails_is_passed_on(self):
        done = self.run_it(0, 5)
        self.asked[-1][2].errback(BackendError("on purpose"))
        self.failureResultOf(done, BackendError)
        self.assertIsNone(self.consumer.producer)
