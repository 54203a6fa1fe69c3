"""
Bodies: exact lengths, bounded memory, and a loop that can be paused and stopped.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.iweb import IBodyProducer
from zope.interface.verify import verifyObject

from tests.client.fakes import MemorySource, Sink
from txbits.client._bodies import CHUNK, NoBody, RangeBody, Throttle
from txbits.client.source import SourceChanged


class NoBodyTests(SynchronousTestCase):
    """The body of a packet that has none."""

    def test_it_is_a_producer_of_nothing(self) -> None:
        body = NoBody()
        verifyObject(IBodyProducer, body)
        sink = Sink()
        self.assertEqual(body.length, 0)
        self.assertIsNone(self.successResultOf(body.startProducing(sink)))
        for method in (body.pauseProducing, body.resumeProducing, body.stopProducing):
            method()
        self.assertEqual(sink.taken, b"")


class RangeBodyTests(SynchronousTestCase):
    """A range of a source that is somewhat longer than two chunks."""

    def setUp(self) -> None:
        self.source = MemorySource(bytes(range(256)) * (CHUNK // 100))
        self.sink = Sink()
        self.moves: list[int] = []
        self.clock = Clock()
        self.rate: int | None = None

    def body(self, first: int, length: int) -> RangeBody:
        throttle = Throttle(self.clock, self.rate)
        return RangeBody(self.source, first, length, throttle, self.moves.append)

    def test_it_is_a_body_producer(self) -> None:
        verifyObject(IBodyProducer, self.body(0, 1))

    def test_the_range_is_produced_exactly(self) -> None:
        body = self.body(7, 2 * CHUNK + 3)
        self.assertFalse(body.finished)
        self.assertIsNone(self.successResultOf(body.startProducing(self.sink)))
        self.assertEqual(self.sink.taken, self.source.data[7 : 2 * CHUNK + 10])
        self.assertTrue(body.finished)

    def test_no_more_than_a_chunk_is_read_at_a_time(self) -> None:
        self.body(0, 2 * CHUNK + 3).startProducing(self.sink)
        self.assertEqual(self.source.largest, CHUNK)
        self.assertEqual(self.moves, [CHUNK, 2 * CHUNK, 2 * CHUNK + 3])

    def test_nothing_is_written_while_paused(self) -> None:
        body = self.body(0, 2 * CHUNK)
        self.sink.on_write = body.pauseProducing
        result = body.startProducing(self.sink)
        self.assertEqual(len(self.sink.taken), CHUNK)
        self.assertNoResult(result)
        body.resumeProducing()
        self.assertEqual(self.sink.taken, self.source.data[: 2 * CHUNK])
        self.successResultOf(result)

    def test_pausing_and_resuming_twice_is_safe(self) -> None:
        body = self.body(0, 2 * CHUNK)
        body.resumeProducing()
        body.pauseProducing()
        body.pauseProducing()
        result = body.startProducing(self.sink)
        body.resumeProducing()
        body.resumeProducing()
        self.successResultOf(result)

    def test_nothing_is_written_after_stop(self) -> None:
        body = self.body(0, 2 * CHUNK)
        self.sink.on_write = body.pauseProducing
        result = body.startProducing(self.sink)
        body.stopProducing()
        body.stopProducing()
        body.resumeProducing()
        self.assertEqual(len(self.sink.taken), CHUNK)
        self.assertNoResult(result)

    def test_stop_while_a_read_is_under_way_writes_nothing(self) -> None:
        held: Deferred[None] = Deferred()
        self.source.held = held
        body = self.body(0, 10)
        result = body.startProducing(self.sink)
        body.stopProducing()
        held.callback(None)
        self.assertEqual(self.sink.taken, b"")
        self.assertNoResult(result)

    def test_stop_from_within_a_write_is_obeyed(self) -> None:
        body = self.body(0, 2 * CHUNK)
        self.sink.on_write = body.stopProducing
        self.assertNoResult(body.startProducing(self.sink))
        self.assertEqual(len(self.sink.taken), CHUNK)

    def test_a_read_that_fails_after_stop_is_nobody_s_concern(self) -> None:
        held: Deferred[None] = Deferred()
        self.source.held = held
        body = self.body(0, 10)
        result = body.startProducing(self.sink)
        body.stopProducing()
        held.errback(SourceChanged("too late"))
        self.assertNoResult(result)

    def test_cancelling_stops(self) -> None:
        body = self.body(0, 2 * CHUNK)
        self.sink.on_write = body.pauseProducing
        result = body.startProducing(self.sink)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual(len(self.sink.taken), CHUNK)

    def test_it_fails_as_its_source_does(self) -> None:
        self.source.changed = True
        result = self.body(0, 10).startProducing(self.sink)
        self.failureResultOf(result, SourceChanged)

    def test_a_throttle_spreads_it_over_time(self) -> None:
        self.rate = 1000
        body = self.body(0, 1000)
        result = body.startProducing(self.sink)
        self.assertEqual(self.moves, [250])
        for moved in (500, 750, 1000):
            self.assertNoResult(result)
            self.clock.advance(0.25)
            self.assertEqual(self.moves[-1], moved)
        self.successResultOf(result)
        self.assertEqual(self.sink.taken, self.source.data[:1000])

    def test_stopping_ends_a_wait_for_the_throttle(self) -> None:
        self.rate = 1000
        body = self.body(0, 1000)
        result = body.startProducing(self.sink)
        body.stopProducing()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(result)
        self.assertEqual(self.moves, [250])


class ThrottleTests(SynchronousTestCase):
    """So many bytes in a second."""

    def test_a_pause_is_as_long_as_what_was_sent_before_takes(self) -> None:
        clock = Clock()
        throttle = Throttle(clock, 100)
        self.assertEqual([throttle.pause(50) for _ in range(3)], [0, 0.5, 1.0])
        clock.advance(10)
        self.assertEqual(throttle.pause(50), 0)

    def test_chunks_are_short_at_low_rates(self) -> None:
        for rate, chunk in ((1, 1), (100, 25), (10**9, CHUNK), (None, CHUNK)):
            self.assertEqual(Throttle(Clock(), rate).chunk, chunk)
