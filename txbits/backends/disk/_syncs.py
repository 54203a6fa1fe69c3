"""
How bytes and names are made to survive a system crash without blocking the reactor.

An fsync may take long, so the reactor's thread never calls it. The kernel's
asynchronous I/O (Linux 4.18 and later) takes many at a time, and the file system
combines them in one commit. Without it, threads call fsync, for twice the CPU time:
after each call they have to win the interpreter back from the reactor.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import Waiters
from txbits.backends.disk._files import storage_error
from txbits.backends.disk._probe import syncs_no_names
from txbits.errors import BackendError

_log = Logger()

#: How many fsyncs the kernel gets at a time; others wait.
MOST_SYNCS = 64

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

    :param instead: Does those that the kernel does not accept.
    """

    _reactor: Any
    _instead: Sync
    _context: Any
    _fsync: Callable[[int], Any]
    _under_way: set[Deferred[None]] = field(factory=set, init=False)
    _waiting: deque[tuple[int, Deferred[None]]] = field(factory=deque, init=False)
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
        """Sync *fd*."""
        done: Deferred[None] = Deferred()
        if len(self._under_way) < MOST_SYNCS:
            self._submit(fd, done)
        else:
            self._waiting.append((fd, done))
        return done

    def stop(self) -> Deferred[None]:
        """
        Stop.

        :returns: A Deferred that fires with ``None`` when no fsync is in progress.
        """
        rested: Deferred[None] = succeed(None)
        if self._under_way:
            rested = self._rested = Deferred()
        return rested.addCallback(lambda _: self._reactor.removeReader(self))

    def _submit(self, fd: int, done: Deferred[None]) -> None:
        operation = self._fsync(fd)
        operation.set_callback(lambda result: self._completed(result, done))
        try:
            self._context.submit(operation)
        except (OSError, OverflowError, SystemError, ValueError) as error:
            # Nothing was tried, so this says nothing about the file.
            _log.debug("the kernel did not accept an fsync: {error}", error=error)
            self._instead(fd).addBoth(done.callback)
        else:
            self._under_way.add(done)

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
        while self._waiting and len(self._under_way) < MOST_SYNCS:
            self._submit(*self._waiting.popleft())
        if self._rested is not None and not self._under_way:
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

    :param is_done: Whether it does; if not, the kernel is not asked.
    """

    _sync: Sync
    _is_done: bool

    def __call__(self, fd: int, /) -> Deferred[None]:
        """Sync the names in a directory."""
        if not self._is_done:
            return succeed(None)
        return self._sync(fd).addErrback(_fail_if_done)


def _fail_if_done(failure: Failure) -> None:
    fault = failure.value
    if fault is not None and not syncs_no_names(fault.__cause__):
        raise fault


@define(eq=False)
class SharedSync:
    """
    Syncs one descriptor for several callers.

    A call during an fsync may be too late for that one, and shares the next one.
    """

    _sync: Sync
    _fd: int
    _running: bool = field(default=False, init=False)
    _next: Waiters[None] = field(factory=Waiters, init=False)

    def __call__(self) -> Deferred[None]:
        """
        Sync the changes of the file or directory so far.

        :returns: A Deferred that fires with ``None``, or fails like the fsync.
        """
        done = self._next.wait()
        if not self._running:
            self._begin()
        return done

    def _begin(self) -> None:
        sharing, self._next = self._next, Waiters()
        self._running = True
        self._sync(self._fd).addBoth(self._end, sharing)

    def _end(self, outcome: Failure | None, sharing: Waiters[None]) -> None:
        self._running = False
        too_late: Waiters[None] | None = None
        if isinstance(outcome, Failure):
            # Bytes that were written meanwhile may be lost as well, which the next
            # fsync would not tell.
            too_late, self._next = self._next, Waiters()
        elif self._next.is_awaited:
            self._begin()
        sharing.fire(outcome)
        if too_late is not None:
            too_late.fire(outcome)
