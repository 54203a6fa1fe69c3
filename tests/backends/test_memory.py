"""
The memory backend: the contract, and what is its own.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.memory import MemoryBackend, PublishedFiles
from txbits.errors import BackendError
from txbits.interfaces import (
    IAbilities,
    IAnswerable,
    IClaimable,
    IDownloadable,
    IPaged,
    IReadable,
    ISorted,
)
from txbits.testing import BackendContract
from txbits.testing.backend import contract


class MemoryContractTests(BackendContract, SynchronousTestCase):
    """The contract, on a clock of our own."""

    abilities = frozenset(
        {
            *(IAbilities, IAnswerable, IClaimable, IDownloadable, IPaged, IReadable),
            ISorted,
        }
    )
    has_directories = False

    def make_backend(self):
        clock = Clock()
        clock.advance(time.time())
        return MemoryBackend(clock)

    def reopen_backend(self, backend):
        return None

    def published(self, backend, destination):
        return backend.files.get(destination)

    def place(self, backend, destination, data):
        backend.files[destination] = data

    def leftovers(self, backend):
        return [str(one) for one in backend._sessions]

    def now(self, backend):
        return backend._clock.seconds()

    @contract
    async def test_progress_is_told_by_the_clock(self):
        backend: Any = await self.started()
        session = await self.new(backend)
        created = session.last_progress
        backend._clock.advance(7)
        await self.append(session, 5)
        self.assertEqual(session.last_progress, created)
        await self.append(session, 5, b"a")
        self.assertEqual(session.last_progress, created + 7)
        (summary,) = await backend.sessions()
        self.assertEqual(summary.last_progress, created + 7)

    @contract
    async def test_an_id_is_not_used_twice(self):
        backend = await self.started()
        one = uuid4()
        await self.new(backend, session_id=one)
        await self.fails(BackendError, self.new_again(backend, one))

    def new_again(self, backend, one):
        return backend.create(
            one,
            ("other",),
            owner=None,
            content_name=None,
            overwrite=False,
            create_directories=False,
        )

    @contract
    async def test_a_file_that_an_embedder_takes_away_may_come_again(self):
        backend: Any = await self.started()
        session = await self.complete(backend, ("a", "b"))
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(backend.files.pop(("a", "b")), b"whole")
        again = await self.complete(backend, ("a",), b"now a file")
        await again.publish(overwrite=False, create_directories=False)
        self.assertEqual(backend.files, {("a",): b"now a file"})

    @contract
    async def test_more_bytes_than_announced_are_refused(self):
        session = await self.new(await self.started())
        writer = await session.open_writer(3)
        await self.fails(BackendError, writer.write(b"abcd"))
        self.assertEqual(session.offset, 0)

    @contract
    async def test_one_writer_at_a_time_and_one_total(self):
        session = await self.new(await self.started())
        writer = await session.open_writer(3)
        await self.fails(BackendError, session.open_writer(3))
        await writer.close()
        await self.fails(BackendError, session.open_writer(4))
        await session.release()
        await self.fails(BackendError, session.open_writer(3))


class PublishedFilesTests(SynchronousTestCase):
    """Files, and the directories that they make up."""

    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.lists(st.sampled_from("ab"), min_size=1, max_size=4).map(tuple),
            )
        )
    )
    def test_a_directory_is_there_as_long_as_a_file_is_below_it(self, steps):
        files = PublishedFiles()
        for is_added, path in steps:
            if is_added:
                files[path] = b"".join(part.encode() for part in path)
            else:
                files.pop(path, None)
        above = {path[:end] for path in files for end in range(1, len(path))}
        self.assertEqual(set(files.directories), above)
        self.assertEqual(len(files), len(list(files)))
        self.assertEqual(files, {path: "".join(path).encode() for path in list(files)})
        self.assertIn(repr(dict(files)), repr(files))
