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
from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorFDSet, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.backends.disk._files import storage_error
from txbits.backends.disk._probe import syncs_no_names
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

    :param instead: Does those that the kernel does not take.
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
        Begin, if the kernel and the reactor allow it.

        :returns: ``None`` if they do not: in some sandboxes, and with reactors that
            watch no descriptors.
        """
        if not IReactorFDSet.providedBy(reactor):
            return None
        try:
            # Here, since even the import fails where the kernel refuses.
            from caio.linux_aio import Context, Operation

            context = Context(max_requests=MOST_SYNCS)
        except (ImportError, OSError, SystemError) as error:
            _log.info("no asynchronous fsync here, threads do it: {error}", error=error)
            return None
        syncs = cls(reactor, instead, context, Operation.fsync)
        reactor.addReader(syncs)
        return syncs

    def __call__(self, fd: int, /) -> Deferred[None]:
        """Have *fd* synced."""
        done: Deferred[None] = Deferred()
        if len(self._under_way) < MOST_SYNCS:
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
        operation = self._fsync(fd)
        operation.set_callback(lambda result: self._completed(result, done))
        try:
            self._context.submit(operation)
        except (OSError, OverflowError, SystemError, ValueError) as error:
            # Nothing has been tried, so nothing is said of the file.
            _log.debug("the kernel took no fsync: {error}", error=error)
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
        """What becomes readable when an fsync has ended."""
        number: int = self._context.fileno
        return number

    def doRead(self) -> None:
        """Hear how they ended."""
        try:
            self._context.poll()
            self._context.process_events()
        except BlockingIOError:
            return  # heard of already
        except SystemError as error:
            # A signal came, and there was nothing to hear.
            _log.debug("nothing heard of fsyncs: {error}", error=error)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor does not watch any more: nobody waits for ever."""
        abandoned = [*self._under_way, *(done for _, done in self._waiting)]
        self._under_way.clear()
        self._waiting.clear()
        for done in abandoned:
            done.errback(BackendError("nobody hears how this fsync ends"))

    def logPrefix(self) -> str:
        """What the log calls this."""
        return "fsync"


@define(eq=False)
class NameSyncs:
    """
    Syncs directories, as far as their file system does.

    :param is_done: Whether it does; if not, the kernel is not asked.
    """

    _sync: Sync
    _is_done: bool

    def __call__(self, fd: int, /) -> Deferred[None]:
        """Have the names in a directory synced."""
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
        if isinstance(outcome, Failure):
            # What was written meanwhile may have been lost with the rest, which the
            # next fsync would not tell.
            sharing, self._next = sharing + self._next, []
        elif self._next:
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
