"""
The disk backend: the contract under each policy of fsync, and with real threads.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.backends.disk.mortal import InMemory, OnDisk
from txbits._workers import Worker
from txbits.testing import BackendContract
from txbits.testing.backend import contract


class FsyncAtCloseTests(OnDisk, BackendContract, SynchronousTestCase):
    """The default."""


class FsyncAtFragmentTests(InMemory, OnDisk, BackendContract, SynchronousTestCase):
    """Every Ack is durable."""

    fsync = "fragment"


class FsyncNeverTests(OnDisk, BackendContract, SynchronousTestCase):
    """Nothing waits for the disk."""

    fsync = "never"


class WorkerTests(InMemory, OnDisk, BackendContract, SynchronousTestCase):
    """One of several processes."""

    worker = Worker(1, 3)


class ThreadsTests(OnDisk, BackendContract, TestCase):
    """The backend's own threads, on the real reactor."""

    fsync = "fragment"
    in_thread = None

    @contract
    async def test_stopping_waits_for_work_and_ends_the_threads(self):
        backend = self.make_backend()
        await backend.start()
        session = await self.complete(backend)
        publishing = session.publish(overwrite=False, create_directories=False)
        threads = list(backend._threads._threads)
        self.assertNotEqual(threads, [])
        await backend.stop()
        await publishing
        self.assertFalse(any(one.is_alive() for one in threads))
        self.assertEqual(self.published(backend, ("name.txt",)), b"whole")

    @contract
    async def test_a_start_that_fails_leaves_no_threads(self):
        first: Any = await self.started()
        second = self.disk(first.root)
        with self.assertRaisesRegex(Exception, "in use by another txbits"):
            await second.start()
        self.assertIsNone(second._threads)
