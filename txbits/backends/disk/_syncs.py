"""
How bytes and names are made to survive a system crash without blocking the reactor.

An fsync may take long, so the reactor's thread never calls it. The kernel's
asynchronous I/O (Linux 4.18 and later) takes many at a time, and the file system
combines them in one commit. All fsyncs of a turn of the reactor are passed on with one
system call at its end, and those who want the same file or directory synced share one.
Without asynchronous I/O, threads call fsync, for twice the CPU time: after each call
they have to win the interpreter back from the reactor.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import Waiters
from txbits.backends.disk._files import Files, storage_error, translated
from txbits.backends.disk._probe import syncs_no_names
from txbits.errors import BackendError

_log = Logger()

#: How many fsyncs the kernel gets at a time; others wait.
MOST_SYNCS = 64

#: Calls a function when the next fsyncs begin.
Gather = Callable[[Callable[[], None]], None]

# A negative result arrives as an unsigned number of 64 bits.
_NEGATIVE = 1 << 63


class Sync(Protocol):
    """
    Calls fsync without blocking.

    The Deferred fires with ``None``, or fails with a
    :class:`~txbits.errors.BackendError`. The descriptor must stay open until then.
    """

    def __call__(self, fd: int, /) -> Deferred[None]: ...


@implementer(IReadDescriptor)
@define(eq=False)
class KernelSyncs:
    """
    Passes fsyncs to the kernel, and gets the results through the reactor.

    Each fsync covers what was written before it begins, so waiting for the end of the
    reactor's turn only adds to that.

    :param instead: Does those that the kernel does not accept.
    """

    _reactor: Any
    _instead: Sync
    _context: Any
    _fsync: Callable[[int], Any]
    _under_way: set[Deferred[None]] = field(factory=set, init=False)
    _waiting: deque[tuple[int, Deferred[None]]] = field(factory=deque, init=False)
    _beginning: deque[Callable[[], None]] = field(factory=deque, init=False)
    _is_planned: bool = field(default=False, init=False)
    _rested: Deferred[None] | None = field(default=None, init=False)

    @classmethod
    def opened(cls, reactor: Any, instead: Sync) -> KernelSyncs | None:
        """
        Start, if the kernel and the reactor support this.

        :returns: ``None`` if they do not, as in some sandboxes and with reactors that
            do not watch descriptors.
        """
        if not IReactorFDSet.providedBy(reactor):
            return None
        try:
            # Here, since the import fails if the kernel refuses.
            from caio.linux_aio import Context, Operation

            context = Context(max_requests=MOST_SYNCS)
        except (ImportError, OSError, SystemError) as error:
            _log.info("no asynchronous fsync, using threads: {error}", error=error)
            return None
        syncs = cls(reactor, instead, context, Operation.fsync)
        reactor.addReader(syncs)
        return syncs

    def __call__(self, fd: int, /) -> Deferred[None]:
        """Sync *fd*. This begins at the end of the reactor's turn."""
        done: Deferred[None] = Deferred()
        self._waiting.append((fd, done))
        self._plan()
        return done

    def gather(self, begin: Callable[[], None]) -> None:
        """
        Call *begin* at the end of the reactor's turn, right before fsyncs begin. Those
        that it asks for are among these.
        """
        self._beginning.append(begin)
        self._plan()

    def stop(self) -> Deferred[None]:
        """
        Stop.

        :returns: A Deferred that fires with ``None`` when no fsync is in progress.
        """
        rested: Deferred[None] = succeed(None)
        if not self._is_idle():
            rested = self._rested = Deferred()
        return rested.addCallback(lambda _: self._reactor.removeReader(self))

    def _is_idle(self) -> bool:
        return not (self._under_way or self._waiting or self._beginning)

    def _plan(self) -> None:
        if not self._is_planned:
            self._is_planned = True
            self._reactor.callLater(0, self._end_turn)

    def _end_turn(self) -> None:
        try:
            while self._beginning:
                self._beginning.popleft()()
        finally:
            # What they ask for needs no turn of its own.
            self._is_planned = False
        waiting = self._waiting
        while waiting and (room := MOST_SYNCS - len(self._under_way)):
            self._submit([waiting.popleft() for _ in range(min(room, len(waiting)))])
        self._tell_rested()

    def _submit(self, syncs: list[tuple[int, Deferred[None]]]) -> None:
        operations = [self._operation(fd, done) for fd, done in syncs]
        at = 0
        while at < len(syncs):
            taken = 0
            try:
                # The kernel takes them in order, up to one that it does not accept.
                taken = self._context.submit(*operations[at:])
            except (OSError, OverflowError, SystemError, ValueError) as error:
                _log.debug("the kernel did not accept an fsync: {error}", error=error)
            if taken:
                self._under_way.update(done for _, done in syncs[at : at + taken])
                at += taken
            else:
                # Nothing was tried, so this says nothing about the file.
                fd, done = syncs[at]
                self._instead(fd).addBoth(done.callback)
                at += 1

    def _operation(self, fd: int, done: Deferred[None]) -> Any:
        operation = self._fsync(fd)
        operation.set_callback(lambda result: self._completed(result, done))
        return operation

    def _completed(self, result: int, done: Deferred[None]) -> None:
        if done not in self._under_way:
            return  # given up
        self._under_way.discard(done)
        outcome: Failure | None = None
        if result >= _NEGATIVE:
            number = 2 * _NEGATIVE - result
            error = OSError(number, os.strerror(number))
            fault = storage_error(error)
            fault.__cause__ = error
            outcome = Failure(fault)  # type: ignore[no-untyped-call]
        done.callback(outcome)
        if self._waiting:
            self._plan()
        self._tell_rested()

    def _tell_rested(self) -> None:
        if self._rested is not None and self._is_idle():
            rested, self._rested = self._rested, None
            rested.callback(None)

    # For the reactor

    def fileno(self) -> int:
        """The descriptor that becomes readable when an fsync has ended."""
        number: int = self._context.fileno
        return number

    def doRead(self) -> None:
        """Get the results."""
        try:
            self._context.poll()
            self._context.process_events()
        except BlockingIOError:
            return  # no result is left
        except SystemError as error:
            # A signal arrived, and no result.
            _log.debug("no results of fsyncs: {error}", error=error)

    def connectionLost(self, reason: Failure) -> None:
        """Fail all fsyncs: the reactor no longer watches the descriptor."""
        while self._beginning:
            self._beginning.popleft()()
        abandoned = [*self._under_way, *(done for _, done in self._waiting)]
        self._under_way.clear()
        self._waiting.clear()
        for done in abandoned:
            done.errback(BackendError("the result of this fsync was lost"))

    def logPrefix(self) -> str:
        """The name in the log."""
        return "fsync"


@define(eq=False)
class NameSyncs:
    """
    Syncs directories, if their file system supports that.

    :ivar is_done: Whether it does; if not, the kernel is not asked.
    """

    _sync: Sync
    is_done: bool

    def __call__(self, fd: int, /) -> Deferred[None]:
        """Sync the names in a directory."""
        if not self.is_done:
            return succeed(None)
        return self._sync(fd).addErrback(_fail_if_done)


def _fail_if_done(failure: Failure) -> None:
    fault = failure.value
    if fault is not None and not syncs_no_names(fault.__cause__):
        raise fault


def _at_once(begin: Callable[[], None]) -> None:
    begin()


def gather_for(sync: Sync) -> Gather:
    """Tell how those that several share are begun: at once, unless *sync* waits too."""
    return sync.gather if isinstance(sync, KernelSyncs) else _at_once


@define(eq=False)
class SharedSync:
    """
    Syncs one descriptor for several callers.

    A call before an fsync begins shares it. A call during an fsync may be too late for
    that one, and shares the next one.

    :param gather: See :func:`gather_for`.
    :param idle: Called when no fsync is in progress or asked for any more.
    """

    _sync: Sync
    _fd: int
    _gather: Gather = _at_once
    _idle: Callable[[], None] | None = None
    _is_busy: bool = field(default=False, init=False)
    _next: Waiters[None] = field(factory=Waiters, init=False)

    def __call__(self) -> Deferred[None]:
        """
        Sync the changes of the file or directory so far.

        :returns: A Deferred that fires with ``None``, or fails like the fsync.
        """
        done = self._next.wait()
        if not self._is_busy:
            self._is_busy = True
            self._gather(self._begin)
        return done

    def _begin(self) -> None:
        sharing, self._next = self._next, Waiters()
        self._sync(self._fd).addBoth(self._end, sharing)

    def _end(self, outcome: Failure | None, sharing: Waiters[None]) -> None:
        too_late: Waiters[None] | None = None
        self._is_busy = False
        if isinstance(outcome, Failure):
            # Bytes that were written meanwhile may be lost as well, which the next
            # fsync would not tell.
            too_late, self._next = self._next, Waiters()
        elif self._next.is_awaited:
            self._is_busy = True
            self._gather(self._begin)
        sharing.fire(outcome)
        if too_late is not None:
            too_late.fire(outcome)
        if self._idle is not None and not self._is_busy:
            self._idle()


@define(eq=False)
class FolderSyncs:
    """
    Syncs the names in directories that callers have opened, each with one fsync for all
    who ask for the same at the same time.

    :param sync: Syncs a directory.
    :param gather: See :func:`gather_for`.
    """

    _files: Files
    _sync: NameSyncs
    _gather: Gather
    _shared: dict[Hashable, SharedSync] = field(factory=dict, init=False)

    def __call__(self, fd: int, folder: Hashable) -> Deferred[None]:
        """
        Sync the names in a directory so far.

        :param fd: The directory, opened. It may be closed at once.
        :param folder: Which one it is. Two directories that are open at the same time
            must not have the same.
        :returns: A Deferred that fires with ``None``, or fails like the fsync.
        :raises BackendError: If the process has too many open files.
        """
        if not self._sync.is_done:
            return succeed(None)
        shared = self._shared.get(folder)
        if shared is None:
            # Whoever opened it may be gone before those who share this.
            own = translated(self._files.dup, fd)

            def forget() -> None:
                del self._shared[folder]
                with suppress(OSError):  # nothing was written through it
                    self._files.close(own)

            shared = SharedSync(self._sync, own, self._gather, forget)
            self._shared[folder] = shared
        return shared()
