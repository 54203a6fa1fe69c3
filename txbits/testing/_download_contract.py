"""
The contract of backends whose published files can be read.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txbits.errors import (
    BackendError,
    DestinationForbidden,
    DestinationIsDirectory,
    NoSuchFile,
)
from txbits.interfaces import IDownloadable, IStoredFile
from txbits.testing._abilities_contract import _Sink
from txbits.testing._contract import ContractBase, contract, requires
from txbits.testing._creation_contract import HOSTILE

_NAME = ("name.txt",)
_LONG = bytes(range(256)) * 4096

# RFC 9110 8.8.3, and ASCII.
_TAG = r'^[^"\x00-\x20\x7f-\U0010ffff]+$'


@implementer(IConsumer)
class _Stalled(_Sink):
    """Takes one piece, and nothing more."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Deferred[None] = Deferred()

    def write(self, data: bytes) -> None:
        self.received += data
        self.producer.pauseProducing()
        if not self.first.called:
            self.first.callback(None)


class DownloadSteps(ContractBase):
    """What the tests of downloads have in common."""

    async def downloadable(self) -> Any:
        """A started backend whose files can be read."""
        return await self.started()

    async def content(self, file: IStoredFile) -> bytes:
        """All that a file holds; it is closed then."""
        sink = _Sink()
        await file.read_into(sink, 0, file.length)
        self.assertIsNone(sink.producer)
        await file.release()
        return sink.received

    async def stalled_reading(self) -> tuple[IStoredFile, _Stalled, Deferred[None]]:
        """A file, a consumer that takes no more of it, and its reading."""
        backend = await self.downloadable()
        await self.put(backend, _NAME, _LONG)
        file: IStoredFile = await backend.open_file(_NAME)
        stalled = _Stalled()
        reading = file.read_into(stalled, 0, len(_LONG))
        await stalled.first
        return file, stalled, reading


class DownloadContract(DownloadSteps):
    """What ``IDownloadable`` promises."""

    @requires(IDownloadable)
    @contract
    async def test_a_published_file_can_be_read(self) -> None:
        backend = await self.downloadable()
        verifyObject(IDownloadable, backend)
        before = self.now(backend)
        session = await self.complete(backend, data=_LONG)
        await session.publish(overwrite=False, create_directories=False)
        file = await backend.open_file(_NAME)
        verifyObject(IStoredFile, file)
        self.assertEqual(file.length, len(_LONG))
        if file.etag is not None:
            self.assertRegex(file.etag, _TAG)
        # Clocks of stores differ, and some count seconds.
        self.assertLess(abs(file.modified - before), 600)
        self.assertEqual(await self.content(file), _LONG)

    @requires(IDownloadable)
    @contract
    async def test_what_tells_a_file_from_others_stays_the_same(self) -> None:
        """From the first time on, for as long as it is what it is."""
        backend = await self.downloadable()
        session = await self.complete(backend, data=_LONG)
        await session.publish(overwrite=False, create_directories=False)
        first = await backend.open_file(_NAME)
        await first.release()
        await session.release()
        seen = set()
        for _ in range(5):
            file = await backend.open_file(_NAME)
            await file.release()
            self.assertRegex(file.etag, _TAG)
            seen.add((file.length, file.modified, file.etag))
        self.assertEqual(len(seen), 1)
        # While its session is there as well, it may be better to say nothing.
        self.assertIn(first.etag, (None, file.etag))
        self.assertEqual((first.length, first.modified), (file.length, file.modified))

    @requires(IDownloadable)
    @contract
    async def test_files_that_no_upload_brought_can_be_read(self) -> None:
        backend = await self.downloadable()
        for name, data in ((("a", "b", "c.txt"), b"c"), (("empty",), b"")):
            await self.put(backend, name, data)
            file = await backend.open_file(name)
            self.assertEqual(file.length, len(data))
            self.assertEqual(await self.content(file), data)

    @requires(IDownloadable)
    @contract
    async def test_a_file_is_read_in_part_and_again(self) -> None:
        backend = await self.downloadable()
        await self.put(backend, _NAME, _LONG)
        file = await backend.open_file(_NAME)
        for start, end in ((5, 6), (1, 300_001), (7, 7), (len(_LONG) - 1, len(_LONG))):
            sink = _Sink()
            await file.read_into(sink, start, end)
            self.assertEqual(sink.received, _LONG[start:end])
        self.assertEqual(await self.content(file), _LONG)

    @requires(IDownloadable)
    @contract
    async def test_each_content_has_a_tag_of_its_own(self) -> None:
        backend = await self.downloadable()
        tags = set()
        for data in (b"1", b"2", b"3", b"4"):
            await self.put(backend, _NAME, data)
            file = await backend.open_file(_NAME)
            tags.add(file.etag)
            self.assertEqual(await self.content(file), data)
        self.assertEqual(len(tags), 4)

    @requires(IDownloadable)
    @contract
    async def test_an_open_file_shows_no_other_content(self) -> None:
        backend = await self.downloadable()
        await self.put(backend, _NAME, b"before")
        file = await backend.open_file(_NAME)
        session = await self.complete(backend, data=b"after.", overwrite=True)
        await session.publish(overwrite=True, create_directories=False)
        try:
            found = await self.content(file)
        except BackendError:
            await file.release()
        else:
            self.assertEqual(found, b"before")

    @requires(IDownloadable)
    @contract
    async def test_what_is_not_published_cannot_be_read(self) -> None:
        backend = await self.downloadable()
        await self.fails(NoSuchFile, backend.open_file(_NAME))
        session = await self.complete(backend)
        await self.fails(NoSuchFile, backend.open_file(_NAME))
        await session.publish(overwrite=False, create_directories=False)
        await self.fails(NoSuchFile, backend.open_file((*_NAME, "below")))
        await self.fails(NoSuchFile, backend.open_file(("no", "such", "file")))

    @requires(IDownloadable)
    @contract
    async def test_directories_cannot_be_read(self) -> None:
        backend = await self.downloadable()
        await self.put(backend, ("a", "b"), b"c")
        with self.assertRaises((DestinationIsDirectory, NoSuchFile)):
            await backend.open_file(("a",))
        for name in ((), ("",), ("a", "")):
            await self.fails(DestinationIsDirectory, backend.open_file(name))

    @requires(IDownloadable)
    @contract
    async def test_hostile_names_cannot_be_read(self) -> None:
        backend = await self.downloadable()
        for name in (*HOSTILE, (".bits-sessions", "lock"), ("BITS-Sessions", "x")):
            with self.assertRaises((DestinationForbidden, DestinationIsDirectory)):
                await backend.open_file(name)

    @requires(IDownloadable)
    @contract
    async def test_a_closed_file_cannot_be_read(self) -> None:
        backend = await self.downloadable()
        await self.put(backend, _NAME, b"data")
        file = await backend.open_file(_NAME)
        await file.release()
        await file.release()
        with self.assertRaises(BackendError):
            await file.read_into(_Sink(), 0, 4)

    @requires(IDownloadable)
    @contract
    async def test_closing_ends_a_reading(self) -> None:
        file, stalled, reading = await self.stalled_reading()
        await file.release()
        with self.assertRaises(BackendError):
            await reading
        self.assertIsNone(stalled.producer)
        self.assertLess(len(stalled.received), len(_LONG))

    @requires(IDownloadable)
    @contract
    async def test_a_reader_may_go_away(self) -> None:
        file, stalled, reading = await self.stalled_reading()
        stalled.producer.stopProducing()
        with self.assertRaises(BackendError):
            await reading
        self.assertEqual(await self.content(file), _LONG)
