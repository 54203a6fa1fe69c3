"""
The SHA-256 of an upload: over bytes that pass, whatever they pass like, and over bytes
that are read back.
"""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.sessions.support import (
    ALICE,
    NAME,
    SOURCE,
    TOTAL,
    NotifyingCase,
    ScriptedBody,
)
from txbits.backends.memory import MemoryBackend
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import Answer
from txbits.protocol.codec import ContentRange
from txbits.sessions import SessionManager, Settings
from txbits.sessions._digest import Digests, ReadingBack, UploadDigest
from txbits.testing import HoldableNotifier

LONG = bytes(range(256)) * 12_000
ONE, OTHER = UUID(int=1), UUID(int=2)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class PassingTests(NotifyingCase):
    """Fragments in any order, with overlaps and breaks."""

    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 4), st.booleans())))
    def test_whatever_the_fragments_the_digest_is_of_the_file(
        self, fragments: list[tuple[int, int, bool]]
    ) -> None:
        self.setUp()
        session_id = self.create()
        held = 0
        for back, length, is_cut in fragments:
            first = max(0, min(held, TOTAL - 1) - back)
            last = min(first + length, TOTAL)
            body, outcome = self.begin(session_id, first, last - first)
            body.send(SOURCE[first : last - is_cut])
            (body.lose if is_cut else body.end)()
            if is_cut:
                self.failureResultOf(outcome)
            held = max(held, last - is_cut)
            if self.application.asked:
                break
        else:
            self.last(session_id)
        self.assertNotIn("read_into", self.backend.calls)
        self.assertEqual(self.asked.upload.sha256, sha256(SOURCE))
        self.assertIsNotNone(self.manager._active.digests.known(session_id, TOTAL))

    def test_a_write_that_fails_does_not_spoil_it(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.send(session_id, 0, SOURCE), BackendError)
        gate.open()
        self.ask(session_id)
        self.assertEqual(self.asked.upload.sha256, sha256(SOURCE))

    def test_nothing_is_computed_where_nobody_is_told(self) -> None:
        self.notifier = None
        self.restart()
        session_id = self.complete()
        self.assertEqual(len(self.manager._active.digests._kept), 0)
        self.successResultOf(self.close(session_id))


class DigestsTests(SynchronousTestCase):
    """What is kept of the uploads in the making."""

    def setUp(self) -> None:
        self.digests = Digests(Clock())

    def going_on(self, session_id: UUID, offset: int, data: bytes) -> None:
        digest = self.digests.going_on(session_id, offset)
        assert digest is not None
        self.assertIsNone(digest.update(data))

    def test_it_goes_on_where_it_was(self) -> None:
        self.going_on(ONE, 0, b"abc")
        self.going_on(OTHER, 0, b"xyz")
        self.going_on(ONE, 3, b"def")
        self.assertEqual(self.digests.known(ONE, 6), sha256(b"abcdef"))
        self.assertEqual(self.digests.known(OTHER, 3), sha256(b"xyz"))

    def test_of_bytes_that_it_has_not_seen_nothing_is_known(self) -> None:
        self.assertIsNone(self.digests.going_on(ONE, 3))
        self.going_on(ONE, 0, b"abc")
        self.assertIsNone(self.digests.known(ONE, 4))
        self.assertIsNone(self.digests.going_on(ONE, 4))
        self.assertIsNone(self.digests.known(ONE, 3))

    def test_what_begins_anew_is_computed_anew(self) -> None:
        self.going_on(ONE, 0, b"abc")
        self.going_on(ONE, 0, b"xyz")
        self.assertEqual(self.digests.known(ONE, 3), sha256(b"xyz"))

    def test_it_is_forgotten_with_its_session(self) -> None:
        self.going_on(ONE, 0, b"abc")
        for _ in range(2):
            self.digests.forget(ONE)
        self.assertIsNone(self.digests.known(ONE, 3))

    def test_the_oldest_make_room(self) -> None:
        number = 20_000
        for n in range(number + 1):
            self.going_on(UUID(int=n), 0, b"abc")
        self.assertIsNone(self.digests.known(UUID(int=0), 3))
        self.assertIsNotNone(self.digests.known(UUID(int=1), 3))
        self.assertEqual(len(self.digests._kept), number)


class _Producer:
    """Reads bytes of a store that takes its time."""

    def __init__(self, pieces: list[bytes], consumer: ReadingBack) -> None:
        self.pieces, self.consumer = pieces, consumer
        self.is_paused = self.is_stopped = False

    def pauseProducing(self) -> None:
        self.is_paused = True

    def resumeProducing(self) -> None:
        self.is_paused = False

    def stopProducing(self) -> None:
        self.is_stopped = True


class _Upload:
    """Bytes that are written without regard to pauses."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces
        self.producer: _Producer | None = None
        self.end: Deferred[None] = Deferred()

    def read_into(self, consumer: Any, start: int, end: int) -> Deferred[None]:
        self.producer = _Producer(self.pieces, consumer)
        consumer.registerProducer(self.producer, True)
        for piece in self.pieces:
            consumer.write(piece)
        return self.end


class ThreadTests(TestCase):
    """Long pieces are hashed in threads."""

    async def run_manager(self, pieces: list[bytes]) -> bytes:
        """Upload *pieces*, and return the digest that the application is told."""
        clock: Any = reactor
        notifier = HoldableNotifier()
        backend = MemoryBackend(clock)
        manager = SessionManager(backend, Settings(), clock, notifier=notifier)
        await manager.start()
        self.addCleanup(manager.stop)
        session_id = await manager.create(NAME, ALICE, None)
        data = b"".join(pieces)
        body = ScriptedBody()
        for piece in pieces:
            body.send(piece)
        body.end()
        sent = ContentRange(0, len(data) - 1, len(data))
        received = manager.fragment(session_id, NAME, ALICE, sent, body)
        while not notifier.asked:
            await deferLater(clock, 0.001)
        notifier.asked[0].answer(Answer(publishes=True))
        await received
        self.assertEqual(
            manager._active.digests.known(session_id, len(data)), sha256(data)
        )
        return notifier.asked[0].upload.sha256

    def test_long_pieces_and_short_ones(self) -> Deferred[None]:
        pieces = [LONG[:300_000], LONG[300_000:300_005], LONG[300_005:]]

        async def test() -> None:
            self.assertEqual(await self.run_manager(pieces), sha256(LONG))

        return Deferred.fromCoroutine(test())

    def test_reading_back_pauses_whoever_reads(self) -> Deferred[None]:
        async def test() -> None:
            upload = _Upload([LONG, b"and", LONG])
            reading = ReadingBack(UploadDigest(reactor))  # type: ignore[arg-type]
            digest = reading.run(upload, 0)  # type: ignore[arg-type]
            assert upload.producer is not None
            self.assertTrue(upload.producer.is_paused)
            upload.end.callback(None)
            self.assertEqual(await digest, sha256(LONG + b"and" + LONG))
            self.assertFalse(upload.producer.is_paused)

        return Deferred.fromCoroutine(test())

    def test_reading_back_is_over_when_its_thread_is(self) -> Deferred[None]:
        async def test() -> None:
            upload = _Upload([LONG])
            digest = UploadDigest(reactor)  # type: ignore[arg-type]
            outcome = ReadingBack(digest).run(upload, 0)  # type: ignore[arg-type]
            upload.end.errback(StagedDataLost("gone"))
            await self.assertFailure(outcome, StagedDataLost)
            self.assertEqual(digest.value(), sha256(LONG))

        return Deferred.fromCoroutine(test())

    def test_a_reading_that_is_stopped_stops_its_producer(self) -> None:
        upload = _Upload([b"abc"])
        reading = ReadingBack(UploadDigest(None))
        outcome = reading.run(upload, 0)  # type: ignore[arg-type]
        reading.stop()
        assert upload.producer is not None
        self.assertTrue(upload.producer.is_stopped)
        upload.end.errback(BackendError("stopped"))
        self.failureResultOf(outcome, BackendError)
