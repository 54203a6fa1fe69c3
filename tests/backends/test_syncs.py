"""
Fsyncs that keep nobody waiting: given to the kernel, and shared.
"""

from __future__ import annotations

import errno
import os

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txbits.backends._syncs import MOST_SYNCS, KernelSyncs, SharedSync, all_done
from txbits.errors import BackendError


class KernelSyncsTests(TestCase):
    """The kernel's asynchronous I/O, on the real reactor."""

    def setUp(self):
        self.syncs = KernelSyncs.opened(reactor)
        self.addCleanup(self.syncs.stop)

    def file(self):
        fd = os.open(self.mktemp(), os.O_RDWR | os.O_CREAT)
        self.addCleanup(os.close, fd)
        os.write(fd, b"x")
        return fd

    async def test_a_file_and_its_directory_are_synced(self):
        await self.syncs(self.file())
        directory = os.open(".", os.O_RDONLY)
        self.addCleanup(os.close, directory)
        await self.syncs(directory)

    async def test_more_than_the_kernel_is_given_wait(self):
        fd = self.file()
        syncs = [self.syncs(fd) for _ in range(3 * MOST_SYNCS)]
        self.assertEqual(self.syncs._under_way, MOST_SYNCS)
        self.assertEqual(len(self.syncs._waiting), 2 * MOST_SYNCS)
        await gatherResults(syncs)
        self.assertEqual(self.syncs._under_way, 0)

    async def test_what_cannot_be_synced_is_a_fault(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        closed = os.dup(reading)
        os.close(closed)
        for fd in (reading, closed):
            with self.assertRaises(BackendError):
                await self.syncs(fd)
        await self.syncs(self.file())

    async def test_a_fault_of_the_disk_is_told(self):
        done: Deferred[None] = Deferred()
        self.syncs._under_way += 1
        self.syncs._completed(2**64 - errno.EIO, done)
        with self.assertRaisesRegex(BackendError, os.strerror(errno.EIO)):
            await done

    async def test_stopping_waits_for_what_is_under_way(self):
        syncs = [self.syncs(self.file()) for _ in range(5)]
        await self.syncs.stop()
        self.assertTrue(all(one.called for one in syncs))
        self.assertNotIn(self.syncs, reactor.getReaders())


class UnavailableTests(SynchronousTestCase):
    """Where there is no such thing."""

    def test_a_reactor_without_descriptors_has_none(self):
        self.assertIsNone(KernelSyncs.opened(Clock()))


class SharedSyncTests(SynchronousTestCase):
    """One fsync for all who want the same."""

    def setUp(self):
        self.under_way: list[Deferred[None]] = []
        self.shared = SharedSync(self.sync, 7)

    def sync(self, fd):
        self.assertEqual(fd, 7)
        self.under_way.append(Deferred())
        return self.under_way[-1]

    def test_who_comes_too_late_shares_the_next(self):
        first, second, third = (self.shared() for _ in range(3))
        self.assertEqual(len(self.under_way), 1)
        self.under_way.pop().callback(None)
        self.successResultOf(first)
        self.assertNoResult(second)
        self.under_way.pop().callback(None)
        self.successResultOf(second)
        self.successResultOf(third)
        self.assertEqual(self.under_way, [])

    def test_a_fault_is_told_to_those_who_shared_it(self):
        first, second = self.shared(), self.shared()
        self.under_way.pop().errback(BackendError("broken"))
        self.failureResultOf(first, BackendError)
        self.under_way.pop().callback(None)
        self.successResultOf(second)


class AllDoneTests(SynchronousTestCase):
    """Several pieces of work."""

    def test_all_are_waited_for_when_one_fails(self):
        first, second = Deferred[None](), Deferred[None]()
        both = Deferred.fromCoroutine(all_done(first, second))
        first.errback(Failure(BackendError("broken")))
        self.assertNoResult(both)
        second.callback(None)
        self.failureResultOf(both, BackendError)
