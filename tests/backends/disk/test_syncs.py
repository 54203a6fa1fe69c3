"""
Fsyncs that keep nobody waiting: given to the kernel, and shared.
"""

from __future__ import annotations

import errno
import os

from twisted.internet import reactor
from twisted.internet.defer import (
    CancelledError,
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

from txbits.backends.disk._files import Files, translated
from txbits.backends.disk._syncs import (
    MOST_SYNCS,
    FolderSyncs,
    KernelSyncs,
    NameSyncs,
    SharedSync,
)
from txbits.errors import BackendError


class BusyContext:
    """Takes nothing, and has nothing to tell, but that a signal came."""

    def submit(self, *operations):
        raise OverflowError("EAGAIN")

    def poll(self):
        return 1

    def process_events(self):
        raise SystemError("EINTR")


class Operation:
    """An fsync."""

    def __init__(self, fd):
        self.fd = fd

    def set_callback(self, completed):
        self.completed = completed


class WillingContext:
    """
    Takes all but some.

    :ivar refused: The descriptors of those that it does not take.
    :ivar batches: The descriptors of those that it took, by calls.
    """

    def __init__(self):
        self.refused = set()
        self.batches = []
        self.under_way = []

    def submit(self, *operations):
        taken = []
        for one in operations:
            if one.fd in self.refused:
                break
            taken.append(one)
        if not taken:
            raise ValueError("EBADF")
        self.batches.append([one.fd for one in taken])
        self.under_way += taken
        return len(taken)

    def complete(self, result=0):
        """End all fsyncs."""
        under_way, self.under_way = self.under_way, []
        for one in under_way:
            one.completed(result)


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
        self.syncs._end_turn()
        self.assertEqual(len(self.syncs._under_way), MOST_SYNCS)
        self.assertEqual(len(self.syncs._waiting), 2 * MOST_SYNCS)
        await gatherResults(syncs)
        self.assertEqual(self.syncs._under_way, set())
        self.assertEqual(self.instead, [])

    async def test_what_cannot_be_synced_is_a_fault(self):
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        # A number that no other file gets in the meantime.
        closed = 1 << 30
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
        self.syncs._end_turn()
        self.syncs.gather(lambda: syncs.append(self.syncs(fd)))
        context = self.syncs._context
        self.syncs.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(len(syncs), MOST_SYNCS + 4)
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


class TurnTests(SynchronousTestCase):
    """The fsyncs of a turn of the reactor, which begin at its end."""

    def setUp(self):
        self.clock = Clock()
        self.context = WillingContext()
        self.instead = []
        self.syncs = KernelSyncs(self.clock, self.sync_instead, self.context, Operation)

    def sync_instead(self, fd):
        self.instead.append(fd)
        return succeed(None)

    def end_turn(self):
        self.clock.advance(0)

    def test_all_are_passed_on_with_one_call(self):
        syncs = [self.syncs(fd) for fd in (3, 4, 5)]
        self.assertEqual(self.context.batches, [])
        self.end_turn()
        self.assertEqual(self.context.batches, [[3, 4, 5]])
        for one in syncs:
            self.assertNoResult(one)
        self.context.complete()
        for one in syncs:
            self.successResultOf(one)

    def test_those_of_the_next_turn_do_not_wait_for_them(self):
        for fd in (3, 4):
            self.syncs(fd)
            self.end_turn()
        self.assertEqual(self.context.batches, [[3], [4]])

    def test_what_begins_with_them_is_among_them(self):
        self.syncs(3)
        self.syncs.gather(lambda: self.syncs(5))
        self.syncs(4)
        self.end_turn()
        self.assertEqual(self.context.batches, [[3, 4, 5]])
        self.end_turn()
        self.assertEqual(len(self.context.batches), 1)

    def test_one_that_is_not_accepted_holds_no_other_back(self):
        for refused in (3, 4, 5):
            self.setUp()
            self.context.refused = {refused}
            syncs = [self.syncs(fd) for fd in (3, 4, 5)]
            self.end_turn()
            self.assertEqual(self.instead, [refused])
            self.assertEqual(
                [fd for batch in self.context.batches for fd in batch],
                [fd for fd in (3, 4, 5) if fd != refused],
            )
            self.context.complete()
            for one in syncs:
                self.successResultOf(one)

    def test_if_none_is_accepted_none_is_forgotten(self):
        self.context.refused = set(range(3 * MOST_SYNCS))
        syncs = [self.syncs(fd) for fd in range(3 * MOST_SYNCS)]
        self.end_turn()
        for one in syncs:
            self.successResultOf(one)
        self.assertEqual(len(self.instead), 3 * MOST_SYNCS)

    def test_stopping_waits_for_those_that_have_not_begun(self):
        removed = []
        self.clock.removeReader = removed.append
        self.syncs(3)
        stopping = self.syncs.stop()
        self.assertNoResult(stopping)
        self.end_turn()
        self.assertNoResult(stopping)
        self.context.complete()
        self.successResultOf(stopping)
        self.assertEqual(removed, [self.syncs])

    def test_stopping_waits_no_longer_than_for_those_that_were_not_accepted(self):
        self.clock.removeReader = lambda _: None
        self.context.refused = {3}
        self.syncs(3)
        stopping = self.syncs.stop()
        self.end_turn()
        self.successResultOf(stopping)


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
            clock, context = Clock(), WillingContext()
            syncs = KernelSyncs(clock, self.sync, context, Operation)
            outcome = NameSyncs(syncs, True)(3)
            clock.advance(0)
            self.assertNoResult(outcome)
            # As an unsigned number of 64 bits.
            context.complete((1 << 64) - number)
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

    def test_those_of_a_turn_share_the_one_at_its_end(self):
        beginning = []
        self.shared = SharedSync(self.sync, 7, beginning.append)
        first, second = self.shared(), self.shared()
        self.assertEqual(self.under_way, [])
        beginning.pop()()
        third = self.shared()
        self.assertEqual((len(self.under_way), beginning), (1, []))
        self.under_way.pop().callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertNoResult(third)
        fourth = self.shared()
        beginning.pop()()
        self.under_way.pop().callback(None)
        self.successResultOf(third)
        self.successResultOf(fourth)

    def test_it_tells_when_it_has_nothing_to_do(self):
        idle = []
        self.shared = SharedSync(self.sync, 7, idle=lambda: idle.append(True))
        first, second = self.shared(), self.shared()
        self.under_way.pop().callback(None)
        self.successResultOf(first)
        self.assertEqual(idle, [])
        self.under_way.pop().callback(None)
        self.successResultOf(second)
        self.assertEqual(idle, [True])


class FolderSyncsTests(SynchronousTestCase):
    """Those who want the names in one directory synced."""

    def setUp(self):
        self.under_way = []
        self.folders = FolderSyncs(
            Files(), NameSyncs(self.sync, True), lambda begin: begin()
        )
        self.here = self.directory()

    def sync(self, fd):
        os.fstat(fd)
        self.under_way.append((fd, Deferred()))
        return self.under_way[-1][1]

    def complete(self, outcome=None):
        """End the fsync that began first; its directory is still open."""
        fd, done = self.under_way.pop(0)
        os.fstat(fd)
        done.callback(outcome)
        return fd

    def directory(self):
        path = self.mktemp()
        os.makedirs(path)
        return os.open(path, os.O_RDONLY)

    def test_they_share_an_fsync_each_with_a_descriptor_of_their_own(self):
        other = os.dup(self.here)
        first = self.folders(self.here, "here")
        second, third = (self.folders(other, "here") for _ in range(2))
        # Who was first may leave.
        os.close(self.here)
        os.close(other)
        self.assertEqual(len(self.under_way), 1)
        self.complete()
        self.successResultOf(first)
        self.assertNoResult(second)
        own = self.complete()
        self.successResultOf(second)
        self.successResultOf(third)
        self.assertEqual(self.under_way, [])
        with self.assertRaises(OSError):
            os.fstat(own)

    def test_one_who_leaves_takes_the_fsync_from_no_other(self):
        leaving, staying = (self.folders(self.here, "here") for _ in range(2))
        leaving.cancel()
        self.failureResultOf(leaving, CancelledError)
        os.close(self.here)
        self.complete()
        self.assertNoResult(staying)
        self.complete()
        self.successResultOf(staying)

    def test_other_directories_are_synced_at_the_same_time(self):
        there = self.directory()
        syncs = [self.folders(self.here, "here"), self.folders(there, "there")]
        self.assertEqual(len(self.under_way), 2)
        for fd in (self.here, there):
            os.close(fd)
            self.complete()
        for one in syncs:
            self.successResultOf(one)

    def test_a_fault_is_told_to_all_and_the_next_begins_anew(self):
        first, second = (self.folders(self.here, "here") for _ in range(2))
        self.complete(Failure(BackendError("broken")))
        for one in (first, second):
            self.failureResultOf(one, BackendError)
        third = self.folders(self.here, "here")
        os.close(self.here)
        self.complete()
        self.successResultOf(third)

    def test_where_names_are_not_synced_nothing_is_opened(self):
        os.close(self.here)
        folders = FolderSyncs(
            Files(), NameSyncs(self.sync, False), lambda begin: begin()
        )
        self.successResultOf(folders(self.here, "here"))
        self.assertEqual(self.under_way, [])

    def test_too_many_open_files_are_a_fault(self):
        os.close(self.here)
        with self.assertRaises(BackendError):
            self.folders(self.here, "here")
