"""
Published files read from a bucket, and the URLs that clients are sent to instead.
"""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from tests.backends.s3.support import MIB, S3Case
from txbits._deferreds import begun
from txbits.backends.s3._downloads import Stream
from txbits.backends.s3._pool import _AT_REST
from txbits.errors import (
    BackendError,
    DestinationForbidden,
    DestinationIsDirectory,
    NoSuchFile,
    StagedDataLost,
)
from txbits.interfaces import IDownloadable, IRedirecting, IStoredFile
from txbits.testing._abilities_contract import _Sink
from txbits.testing.backend import contract

NAME = ("folder", "näme {1}+&.txt")


@implementer(IConsumer)
class Slow:
    """Pauses its producer when it has enough, until told otherwise."""

    def __init__(self, enough):
        self.received = b""
        self.enough = enough
        self.full: Deferred[None] = Deferred()
        self.producer = None

    def registerProducer(self, producer, streaming):
        assert IPushProducer.providedBy(producer)
        assert streaming
        self.producer = producer

    def unregisterProducer(self):
        self.producer = None

    def write(self, data):
        self.received += data
        if len(self.received) >= self.enough and not self.full.called:
            self.producer.pauseProducing()
            self.full.callback(None)


class DownloadCase(S3Case):
    """Files in the bucket."""

    async def opened(self, data, backend=None):
        """A backend, and a file that stands there, opened."""
        backend = backend or await self.started()
        await self.put(backend, NAME, data)
        return backend, await backend.open_file(NAME)

    async def read(self, file, start=0, end=None):
        sink = _Sink()
        await file.read_into(sink, start, file.length if end is None else end)
        self.assertIsNone(sink.producer)
        return sink.received


class Paused(Slow):
    """Wants nothing yet."""

    def registerProducer(self, producer, streaming):
        super().registerProducer(producer, streaming)
        producer.pauseProducing()


class GivenUpTests(DownloadCase):
    """Whoever reads goes away before the first byte was wanted."""

    @contract
    async def test_the_connection_is_not_kept(self):
        backend, file = await self.opened(self.data(8 * MIB))
        held, goes_on = self.client(backend).hold_answer("GetObject")
        reading = file.read_into(Paused(1), 0, file.length)
        await held
        await self.turn()
        goes_on.callback(None)
        reading.cancel()
        with self.assertRaises(CancelledError):
            await reading
        for _ in range(1000):
            if all(one.state in _AT_REST for one in backend._pool._all):
                break
            await self.turn()
        self.assertEqual(
            {one.state for one in backend._pool._all} - _AT_REST, frozenset()
        )


class ReadingTests(DownloadCase):
    """What is read, and how."""

    @contract
    async def test_ranges_are_read_in_any_order(self):
        data = self.data(3 * MIB)
        backend, file = await self.opened(data)
        self.assertTrue(IDownloadable.providedBy(backend))
        self.assertTrue(IStoredFile.providedBy(file))
        self.assertEqual(file.length, len(data))
        self.assertLess(abs(file.modified - self.now(backend)), 60)
        self.assertRegex(file.etag, r'^[^"]+$')
        for start, end in ((MIB, len(data)), (0, 1), (5, 2 * MIB), (7, 7)):
            self.assertTrue(data[start:end] == await self.read(file, start, end))
        await file.release()
        await self.fails(BackendError, file.read_into(_Sink(), 0, 1))

    @contract
    async def test_an_empty_file_is_read(self):
        _, file = await self.opened(b"")
        self.assertEqual(file.length, 0)
        self.assertEqual(await self.read(file), b"")

    @contract
    async def test_an_uploaded_file_is_read(self):
        backend = await self.started()
        for data in (b"abc", self.data(11 * MIB)):
            session = await self.new(backend, NAME, overwrite=True)
            await self.send(session, len(data), data)
            await self.close(backend, session, overwrite=True)
            file = await backend.open_file(NAME)
            self.assertTrue(data == await self.read(file))

    @contract
    async def test_reading_takes_one_request_and_looking_another(self):
        backend, _ = await self.opened(self.data(MIB))
        self.client(backend).asked.clear()
        await self.read(await backend.open_file(NAME))
        self.assertEqual(self.client(backend).asked, ["HeadObject", "GetObject"])

    @contract
    async def test_a_file_that_is_replaced_is_not_mixed_with_another(self):
        data = self.data(MIB)
        backend, file = await self.opened(data)
        again = await backend.open_file(NAME)
        self.assertEqual(again.etag, file.etag)
        await self.put(backend, NAME, data[::-1])
        again = await backend.open_file(NAME)
        self.assertNotEqual(again.etag, file.etag)
        await self.fails(StagedDataLost, file.read_into(_Sink(), 0, 5))
        self.assertTrue(data[::-1] == await self.read(again))
        key = backend.settings.key(NAME)
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        await self.fails(StagedDataLost, again.read_into(_Sink(), 0, 5))
        await self.fails(NoSuchFile, backend.open_file(NAME))

    @contract
    async def test_what_is_no_published_file_is_not_there(self):
        backend, _ = await self.opened(b"abc")
        session = await self.new(backend, ("other",))
        name = f"{{{str(session.session_id).upper()}}}"
        for destination, kind in (
            (("folder",), DestinationIsDirectory),
            (("folder", ""), DestinationIsDirectory),
            (("none",), NoSuchFile),
            (("other",), NoSuchFile),
            ((*NAME, "below"), NoSuchFile),
            (("x" * 250,) * 5, NoSuchFile),
            ((".bits-sessions", name, "record"), DestinationForbidden),
            (("..", "x"), DestinationForbidden),
        ):
            await self.fails(kind, backend.open_file(destination))

    @contract
    async def test_a_consumer_that_pauses_holds_the_store_back(self):
        data = self.data(20 * MIB)
        backend, file = await self.opened(data)
        slow = Slow(MIB)
        reading = file.read_into(slow, 0, len(data))
        await slow.full
        producer = slow.producer
        got = len(slow.received)
        # Others are served meanwhile, over connections of their own.
        for _ in range(3):
            await self.read(await backend.open_file(NAME), 0, 5)
        self.assertLess(len(slow.received), got + MIB)
        self.assertFalse(reading.called)
        self.assertEqual(backend.staging.memory.used, 0)
        producer.resumeProducing()
        await reading
        self.assertTrue(slow.received == data)

    @contract
    async def test_a_lost_connection_is_replaced_where_it_was(self):
        data = self.data(8 * MIB)
        backend, file = await self.opened(data)
        slow = Slow(MIB)
        reading = file.read_into(slow, 0, len(data))
        await slow.full
        producer = slow.producer
        producer._receiver.transport.loseConnection()
        producer.resumeProducing()
        await reading
        self.assertTrue(slow.received == data)
        self.assertEqual(self.client(backend).counts["GetObject"], 2)

    @contract
    async def test_a_connection_on_which_nothing_comes_is_replaced(self):
        data = self.data(8 * MIB)
        backend, _ = await self.opened(data)
        key = backend.settings.key(NAME)
        found = await backend.staging.bucket.head(key)
        clock = Clock()
        slow = Slow(MIB)
        stream = Stream(slow, self.client(backend), clock, found)
        reading = begun(stream.run(0, len(data)))
        await slow.full
        # As long as the consumer pauses, there is nothing to wait for.
        clock.advance(100)
        stream._receiver.transport.pauseProducing()
        transport, stream._receiver.transport = stream._receiver.transport, None
        stream.resumeProducing()
        stream.watch()
        stream._receiver.transport = transport
        clock.advance(14)
        self.assertFalse(reading.called)
        clock.advance(2)
        await reading
        self.assertTrue(slow.received == data)
        self.assertEqual(self.client(backend).counts["GetObject"], 2)
        self.assertEqual(clock.getDelayedCalls(), [])

    @contract
    async def test_a_connection_lost_after_the_file_changed_ends_the_reading(self):
        data = self.data(8 * MIB)
        backend, file = await self.opened(data)
        slow = Slow(MIB)
        reading = file.read_into(slow, 0, len(data))
        await slow.full
        await self.put(backend, NAME, data[::-1])
        slow.producer._receiver.transport.loseConnection()
        slow.producer.resumeProducing()
        await self.fails(StagedDataLost, reading)
        self.assertTrue(data.startswith(slow.received))

    @contract
    async def test_releasing_a_file_ends_its_reading(self):
        for pauses in (True, False):
            data = self.data(8 * MIB)
            _, file = await self.opened(data)
            slow = Slow(MIB)
            reading = file.read_into(slow, 0, len(data))
            await self.fails(BackendError, file.read_into(_Sink(), 0, 1))
            if pauses:
                await slow.full
            reading.addErrback(lambda failure: failure.trap(BackendError))
            releases = [file.release(), file.release()]
            for one in releases:
                await one
            self.assertIsNone(slow.producer)
            await reading


class RedirectTests(DownloadCase):
    """URLs that are good for a while."""

    @contract
    async def test_there_are_none_unless_the_settings_say_so(self):
        backend, _ = await self.opened(b"abc")
        self.assertTrue(IRedirecting.providedBy(backend))
        self.assertIsNone(await backend.location(NAME, "GET"))

    @contract
    async def test_a_url_is_good_for_its_method_and_file(self):
        backend = self.node(presign=77)
        await backend.start()
        self.addCleanup(backend.stop)
        await self.opened(b"abc", backend)
        url = await backend.location(NAME, "GET")
        self.assertEqual(parse_qs(urlsplit(url).query)["X-Amz-Expires"], ["77"])
        self.assertNotIn("not-a-secret", url)

        def get(url, method="GET"):
            with urlopen(Request(url, method=method)) as answer:
                return answer.status, answer.read()

        self.assertEqual(await deferToThread(get, url), (200, b"abc"))
        head = await backend.location(NAME, "HEAD")
        self.assertEqual(await deferToThread(get, head, "HEAD"), (200, b""))
        for wrong, method in ((url, "HEAD"), (url.replace(".txt", ".tyt"), "GET")):
            with self.assertRaises(HTTPError) as caught:
                await deferToThread(get, wrong, method)
            self.assertEqual(caught.exception.code, 403)
            caught.exception.close()

    @contract
    async def test_nobody_is_sent_to_what_is_no_file(self):
        backend = self.node(presign=77)
        await backend.start()
        self.addCleanup(backend.stop)
        for destination, kind in (
            (("none",), NoSuchFile),
            ((".bits-sessions", "x", "record"), DestinationForbidden),
        ):
            await self.fails(kind, backend.location(destination, "GET"))
