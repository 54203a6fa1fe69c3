"""
Fsyncs that keep nobody waiting: given to the kernel, and shared.
"""

from __future__ import annotations

import errno
import os

from twisted.internet import reactor
from twisted.internet.defer import (
    Deferred,
    fail,
    gatherResults,
    maybeDeferred,
    succeed,
)
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txbits.backends.disk._files import translated
from txbits.backends.disk._syncs import (
    MOST_SYNCS,
    KernelSyncs,
    NameSyncs,
    SharedSync,
)
from txbits.errors import BackendError


class BusyContext:
    """Takes nothing, and has nothing to tell, but that a signal came."""

    def submit(self, operation):
        raise OverflowError("EAGAIN")

    def poll(self):
        return 1

    def process_events(self):
        raise SystemError("EINTR")


class WillingContext:
    """Takes one, and is the operation itself."""

    def submit(self, operation):
        pass

    def set_callback(self, completed):
        self.completed = completed


class KernelSyncsTests(TestCase):
    """The kernel's asynchronous I/O, on the real reactor."""

    def setUp(self):
        self.instead: list[int] = []
        self.syncs = KernelSyncs.opened(reactor, self.sync_instead)
        self.addCleanup(self.syncs.stop)

    def sync_instead(self, fd):
        self.instead.append(fd)
        return maybeDeferred(translated, os.fsync, fd)

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
        self.assertEqual(len(self.syncs._under_way), MOST_SYNCS)
        self.assertEqual(len(self.syncs._waiting), 2 * MOST_SYNCS)
        await gatherResults(syncs)
        self.assertEqual(self.syncs._under_way, set())
        self.assertEqual(self.instead, [])

    async def test_what_cannot_be_synced_is_a_fault(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        closed = os.dup(reading)
        os.close(closed)
        for fd, number in ((reading, errno.EINVAL), (closed, errno.EBADF)):
            with self.assertRaises(BackendError) as raised:
                await self.syncs(fd)
            self.assertEqual(raised.exception.__cause__.errno, number)
        self.assertEqual(self.instead, [reading, closed])
        await self.syncs(self.file())

    async def test_what_the_kernel_does_not_take_is_synced_all_the_same(self):
        context = self.syncs._context
        self.syncs._context = BusyContext()
        fd = self.file()
        await self.syncs(fd)
        self.assertEqual(self.instead, [fd])
        self.syncs._context = context

    async def test_a_signal_while_there_is_nothing_to_hear_is_nothing(self):
        context = self.syncs._context
        self.syncs._context = BusyContext()
        self.syncs.doRead()
        self.syncs._context = context
        await self.syncs(self.file())

    async def test_nobody_waits_for_ever_when_the_reactor_watches_no_more(self):
        fd = self.file()
        syncs = [self.syncs(fd) for _ in range(MOST_SYNCS + 3)]
        context = self.syncs._context
        self.syncs.connectionLost(Failure(ConnectionDone()))
        for one in syncs:
            with self.assertRaises(BackendError):
                await one
        # What the kernel still does, it does; the next test opens another context.
        context.process_events(min_requests=MOST_SYNCS)

    async def test_a_fault_of_the_disk_is_told(self):
        done: Deferred[None] = Deferred()
        self.syncs._under_way.add(done)
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
        self.assertIsNone(KernelSyncs.opened(Clock(), succeed))


class NameSyncsTests(SynchronousTestCase):
    """Directories, of file systems that may not sync them."""

    def setUp(self):
        self.asked = []
        self.number = 0

    def sync(self, fd):
        self.asked.append(fd)
        return maybeDeferred(translated, self.fsync)

    def fsync(self):
        if self.number:
            raise OSError(self.number, "no")

    def test_one_that_does_is_asked(self):
        self.successResultOf(NameSyncs(self.sync, True)(3))
        self.assertEqual(self.asked, [3])

    def test_one_that_does_not_is_not_asked(self):
        self.successResultOf(NameSyncs(self.sync, False)(3))
        self.assertEqual(self.asked, [])

    def test_that_there_is_no_such_thing_is_no_fault(self):
        for self.number in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            self.successResultOf(NameSyncs(self.sync, True)(3))

    def test_all_else_is(self):
        for self.number in (errno.EIO, errno.ENOSPC, errno.EPERM):
            self.failureResultOf(NameSyncs(self.sync, True)(3), BackendError)

    def test_so_is_what_comes_from_no_call(self):
        syncs = NameSyncs(lambda fd: fail(BackendError("nobody hears")), True)
        self.failureResultOf(syncs(3), BackendError)

    def test_a_fault_that_the_kernel_tells_later_is_told_apart_as_well(self):
        """By the kernel's asynchronous I/O."""
        for number, is_fault in ((errno.EINVAL, False), (errno.EIO, True)):
            context = WillingContext()
            instead = self.sync
            syncs = KernelSyncs(None, instead, context, lambda fd, its=context: its)
            outcome = NameSyncs(syncs, True)(3)
            self.assertNoResult(outcome)
            # As an unsigned number of 64 bits.
            context.completed((1 << 64) - number)
            if is_fault:
                self.failureResultOf(outcome, BackendError)
            else:
                self.successResultOf(outcome)


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

    def test_a_fault_is_told_to_all_whose_work_it_may_have_hit(self):
        """Also to those who came while it was under way."""
        first, second = self.shared(), self.shared()
        self.under_way.pop().errback(BackendError("broken"))
        for one in (first, second):
            self.failureResultOf(one, BackendError)
        third = self.shared()
        self.under_way.pop().callback(None)
        self.successResultOf(third)
