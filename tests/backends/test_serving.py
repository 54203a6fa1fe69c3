"""
Stored bytes fed to a consumer at its pace, until it stops or they end; and open files:
one reading at a time, and closed when none is left.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txbits.backends._serving import PIECE, Reading, StoredFile, by_pieces
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import ICodedFile, IEagerConsumer


@implementer(IConsumer)
@define(eq=False, slots=False)
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


@implementer(IEagerConsumer)
@define(eq=False, slots=False)
class _Eager(_Consumer):
    """
    Uses bytes at once.

    :ivar room: How many it uses at most in the next calls; all, if that is empty.
    :ivar used: The bytes that it has used.
    """

    room: list[int] = field(factory=list)
    used: bytes = b""

    def write_some(self, data):
        taken = bytes(data[: self.room.pop(0)]) if self.room else bytes(data)
        self.used += taken
        return len(taken)

    def write(self, data):
        assert isinstance(data, bytes)
        self.used += data
        super().write(data)


class EagerTests(SynchronousTestCase):
    """A consumer that uses bytes at once, and a store that has some of them at once."""

    def setUp(self):
        self.content = bytes(range(256)) * (20 * 1024 * 4) + b"end"
        self.at_once = len(self.content)
        self.asked = []
        self.consumer = _Eager()
        self.reading = Reading(self.consumer, self.read, self.peek)

    def peek(self, offset, length):
        if offset >= self.at_once:
            return None
        buffer = bytearray(self.content[offset : offset + length])
        return memoryview(buffer)

    def read(self, offset, length):
        if offset < self.at_once:
            return succeed(self.content[offset : offset + length])
        answer: Deferred[bytes] = Deferred()
        self.asked.append((offset, length, answer))
        return answer

    def run_it(self, start=0, end=None):
        end = len(self.content) if end is None else end
        return Deferred.fromCoroutine(self.reading.run(start, end))

    def test_a_part_of_a_file_is_not_copied(self):
        self.successResultOf(self.run_it(5, 2 * PIECE))
        self.assertEqual(self.consumer.used, self.content[5 : 2 * PIECE])
        self.assertEqual(self.consumer.received, [])
        self.assertIsNone(self.consumer.producer)

    def test_what_is_not_used_is_written(self):
        self.consumer.room = [10, 0]
        self.successResultOf(self.run_it(0, 3 * PIECE))
        self.assertEqual(self.consumer.used, self.content[: 3 * PIECE])
        self.assertEqual(list(map(len, self.consumer.received)), [PIECE - 10, PIECE])

    def test_after_some_mebibytes_a_piece_is_written(self):
        """A consumer pauses the producer then, so that others have their turn."""
        self.successResultOf(self.run_it())
        self.assertEqual(self.consumer.used, self.content)
        between = 4 * 1024 * 1024 + PIECE
        self.assertEqual(len(self.consumer.received), len(self.content) // between)

    def test_nothing_is_used_while_paused(self):
        self.consumer.room = [0]
        write = self.consumer.write

        def full(data):
            write(data)
            self.reading.pauseProducing()

        self.consumer.write = full
        done = self.run_it(0, 3 * PIECE)
        self.assertEqual(len(self.consumer.used), PIECE)
        self.assertNoResult(done)
        self.reading.resumeProducing()
        self.successResultOf(done)
        self.assertEqual(self.consumer.used, self.content[: 3 * PIECE])

    def test_what_is_not_there_at_once_is_read_ahead_while_paused(self):
        self.at_once = PIECE
        done = self.run_it(0, 3 * PIECE)
        self.assertEqual([one[:2] for one in self.asked], [(PIECE, PIECE)])
        self.reading.pauseProducing()
        self.asked[0][2].callback(self.content[PIECE : 2 * PIECE])
        self.assertEqual(len(self.consumer.used), PIECE)
        self.reading.resumeProducing()
        self.assertEqual([one[0] for one in self.asked], [PIECE, 2 * PIECE])
        self.asked[1][2].callback(self.content[2 * PIECE : 3 * PIECE])
        self.successResultOf(done)
        self.assertEqual(self.consumer.used, self.content[: 3 * PIECE])

    def test_what_is_there_at_once_again_is_not_copied(self):
        self.at_once = 0
        done = self.run_it(0, 6 * PIECE)
        self.at_once = len(self.content)
        self.asked[0][2].callback(self.content[:PIECE])
        self.successResultOf(done)
        self.assertEqual(self.consumer.used, self.content[: 6 * PIECE])
        # The first was slow. That the second is there at once is known when it is read.
        self.assertEqual(list(map(len, self.consumer.received)), [PIECE, PIECE])

    def test_bytes_that_end_early_are_lost(self):
        self.at_once += 1
        done = self.run_it(0, len(self.content) + 1)
        self.failureResultOf(done, StagedDataLost)
        self.assertEqual(self.consumer.used, self.content)
        self.assertIsNone(self.consumer.producer)

    def test_a_consumer_that_stops_gets_nothing_more(self):
        self.consumer.room = [0]
        write = self.consumer.write

        def stop(data):
            write(data)
            self.reading.stopProducing()

        self.consumer.write = stop
        self.failureResultOf(self.run_it(), BackendError)
        self.assertEqual(len(self.consumer.used), PIECE)


class StoredFileTests(SynchronousTestCase):
    """A store whose answers are in our hands."""

    def setUp(self):
        self.asked = []
        self.closed = 0
        self.file = StoredFile(5, 1.0, "tag", by_pieces(self.read), self.close)

    def read(self, offset, length):
        self.asked.append(Deferred())
        return self.asked[-1]

    def close(self):
        self.closed += 1

    def test_it_is_a_stored_file(self):
        verifyObject(ICodedFile, self.file)
        self.assertIsNone(self.file.content_encoding)

    def test_one_after_the_other_may_read(self):
        for data in (b"first", b"again"):
            consumer = _Consumer()
            reading = self.file.read_into(consumer, 0, 5)
            self.asked[-1].callback(data)
            self.successResultOf(reading)
            self.assertEqual(consumer.received, [data])

    def test_two_at_a_time_may_not(self):
        first = self.file.read_into(_Consumer(), 0, 5)
        self.failureResultOf(self.file.read_into(_Consumer(), 0, 5), BackendError)
        self.asked[0].callback(b"first")
        self.successResultOf(first)

    def test_it_is_closed_at_once_if_nobody_reads(self):
        self.successResultOf(self.file.release())
        self.successResultOf(self.file.release())
        self.assertEqual(self.closed, 1)
        self.failureResultOf(self.file.read_into(_Consumer(), 0, 5), BackendError)

    def test_it_is_not_closed_in_the_middle_of_a_read(self):
        """The number of its descriptor could be another file's by then."""
        consumer = _Consumer()
        reading = self.file.read_into(consumer, 0, 5)
        released = [self.file.release(), self.file.release()]
        for one in released:
            self.assertNoResult(one)
        self.assertEqual(self.closed, 0)
        self.asked[0].callback(b"first")
        self.failureResultOf(reading, BackendError)
        self.assertEqual(consumer.received, [])
        for one in released:
            self.successResultOf(one)
        self.assertEqual(self.closed, 1)

    def test_what_needs_no_closing_has_none(self):
        file = StoredFile(5, 1.0, "tag", by_pieces(self.read))
        self.successResultOf(file.release())
