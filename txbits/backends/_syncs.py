"""
How bytes and names are made to survive a crash of the machine, while others are served.

An fsync takes as long as the disk likes, so the reactor's thread never calls it. The
kernel's asynchronous I/O takes many of them at a time (Linux 4.18 and later), and the
file system settles those that come together with one commit. Threads do the same where
there is none of that, for twice the CPU: each of their calls has to win the
interpreter back from the reactor.
"""

from __future__ import annotations

import os
from collections import deque
from typing import Any, Protocol

from attrs import define, field
from caio.linux_aio import Context, Operation
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.backends._work import storage_error
from txbits.errors import BackendError

_log = Logger()

#: How many fsyncs the kernel is given at a time; others wait.
MOST_SYNCS = 64

# A completion that is negative arrives as an unsigned number of 64 bits.
_NEGATIVE = 1 << 63


class Sync(Protocol):
    """
    Calls fsync where it keeps nobody waiting.

    The Deferred fires with ``None``, or fails with a
    :class:`~txbits.errors.BackendError`. The descriptor must stay open until then.
    """

    def __call__(self, fd: int, /) -> Deferred[None]: ...


@implementer(IReadDescriptor)
@define(eq=False)
class KernelSyncs:
    """
    Gives fsyncs to the kernel, and hears from it through the reactor.
    """

    _reactor: Any
    _context: Context
    _under_way: int = field(default=0, init=False)
    _waiting: deque[tuple[int, Deferred[None]]] = field(factory=deque, init=False)
    _rested: Deferred[None] | None = field(default=None, init=False)

    @classmethod
    def opened(cls, reactor: Any) -> KernelSyncs | None:
        """
        Begin, if the kernel and the reactor allow it.

        :returns: ``None`` if they do not: in some sandboxes, and with reactors that
            watch no descriptors.
        """
        if not IReactorFDSet.providedBy(reactor):
            return None
        try:
            context = Context(max_requests=MOST_SYNCS)
        except SystemError as error:
            _log.info("no asynchronous fsync here, threads do it: {error}", error=error)
            return None
        syncs = cls(reactor, context)
        reactor.addReader(syncs)
        return syncs

    def __call__(self, fd: int, /) -> Deferred[None]:
        """Have *fd* synced."""
        done: Deferred[None] = Deferred()
        if self._under_way < MOST_SYNCS:
            self._submit(fd, done)
        else:
            self._waiting.append((fd, done))
        return done

    def stop(self) -> Deferred[None]:
        """
        End.

        :returns: A Deferred that fires with ``None`` when no fsync is under way.
        """
        rested: Deferred[None] = succeed(None)
        if self._under_way:
            rested = self._rested = Deferred()
        return rested.addCallback(lambda _: self._reactor.removeReader(self))

    def _submit(self, fd: int, done: Deferred[None]) -> None:
        operation = Operation.fsync(fd)
        operation.set_callback(lambda result: self._completed(result, done))
        try:
            self._context.submit(operation)
        except (OSError, OverflowError, SystemError, ValueError) as error:
            done.errback(BackendError(f"fsync: {error}"))
        else:
            self._under_way += 1

    def _completed(self, result: int, done: Deferred[None]) -> None:
        self._under_way -= 1
        outcome: Failure | None = None
        if result >= _NEGATIVE:
            number = 2 * _NEGATIVE - result
            fault = storage_error(OSError(number, os.strerror(number)))
            outcome = Failure(fault)  # type: ignore[no-untyped-call]
        done.callback(outcome)
        while self._waiting and self._under_way < MOST_SYNCS:
            self._submit(*self._waiting.popleft())
        if self._rested is not None and not self._under_way:
            rested, self._rested = self._rested, None
            rested.callback(None)

    # For the reactor

    def fileno(self) -> int:
        """What becomes readable when an fsync has ended."""
        return self._context.fileno

    def doRead(self) -> None:
        """Hear how they ended."""
        try:
            self._context.poll()
        except BlockingIOError:
            return  # heard of already
        self._context.process_events()

    def connectionLost(self, reason: Failure) -> None:
        """Nothing is connected."""

    def logPrefix(self) -> str:
        """What the log calls this."""
        return "fsync"


@define(eq=False)
class SharedSync:
    """
    Syncs one descriptor for all who want it.

    Whoever asks while an fsync is under way may have come too late for it, and shares
    the next one.
    """

    _sync: Sync
    _fd: int
    _running: bool = field(default=False, init=False)
    _next: list[Deferred[None]] = field(factory=list, init=False)

    def __call__(self) -> Deferred[None]:
        """
        Make safe what has been done to the file or directory so far.

        :returns: A Deferred that fires with ``None``, or fails, as the fsync does.
        """
        done: Deferred[None] = Deferred()
        self._next.append(done)
        if not self._running:
            self._begin()
        return done

    def _begin(self) -> None:
        sharing, self._next = self._next, []
        self._running = True
        self._sync(self._fd).addBoth(self._end, sharing)

    def _end(self, outcome: Failure | None, sharing: list[Deferred[None]]) -> None:
        self._running = False
        if self._next:
            self._begin()
        for one in sharing:
            one.callback(outcome)


async def all_done(*work: Deferred[None]) -> None:
    """
    Wait for all of several pieces of work, also when one of them fails.

    :raises BackendError: If one did; the first of them.
    """
    fault: BaseException | None = None
    for one in work:
        try:
            await one
        except BaseException as error:  # noqa: BLE001 - it is raised below
            fault = fault or error
    if fault is not None:
        raise fault
