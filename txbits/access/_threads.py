"""
Work that blocks, such as a slow hash, in a few threads and with a bounded queue.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from threading import Thread, get_native_id
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txbits.errors import CredentialsUncheckable

#: How much less of a busy CPU such a thread gets than the reactor's: see nice(1).
_NICENESS = 10


#: Calls a function that may block; the Deferred fires with what it returns.
InThread = Callable[..., Deferred[Any]]


def one_core_less(workers: int = 1) -> int:
    """
    The number of threads that leaves one core to the reactor, at least one.

    :param workers: How many processes share the cores, and these threads.
    """
    return max(1, (len(os.sched_getaffinity(0)) - 1) // workers)


def new_thread(reactor: Any) -> InThread:
    """
    Call each function in a thread of its own, which ends with it.

    Starting one takes some 50 µs, little beside a hash. So no thread is left when an
    authenticator is replaced, and nobody has to stop them.
    """

    def in_thread(function: Callable[..., Any], /, *args: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred()

        def work() -> None:
            outcome: Any
            # On Linux this is for the calling thread alone.
            os.setpriority(os.PRIO_PROCESS, get_native_id(), _NICENESS)
            try:
                outcome = function(*args)
            except BaseException:  # noqa: BLE001 - it is passed on whole
                outcome = Failure()
            reactor.callFromThread(done.callback, outcome)

        Thread(target=work, name="txbits-access", daemon=True).start()
        return done

    return in_thread


_Job = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


@define(eq=False)
class Queue:
    """
    Does work in order, a few pieces at a time.

    Work can be urgent: then it comes before all other work, and is never refused. That
    is for clients that have been known before, so that strangers cannot keep them out
    by filling the queue. The caller bounds how much of it there is.

    :param in_thread: Does one piece of work, such as :func:`new_thread`.
    :param most_at_once: How many pieces are done at the same time.
    :param most_waiting: How many more may wait, without the urgent ones.
    """

    _in_thread: InThread
    _most_at_once: int = field(factory=one_core_less)
    _most_waiting: int = 64
    _waiting: deque[_Job] = field(factory=deque, init=False)
    _urgent: deque[_Job] = field(factory=deque, init=False)
    _running: int = field(default=0, init=False)

    @property
    def is_full(self) -> bool:
        """Whether work that is not urgent is refused now."""
        return len(self._waiting) >= self._most_waiting

    def call(
        self, function: Callable[..., Any], *args: Any, is_urgent: bool = False
    ) -> Deferred[Any]:
        """
        Call a function when it is its turn.

        :returns: A Deferred that fires with what it returns, or fails with what it
            raises, or with :class:`~txbits.errors.CredentialsUncheckable` if too many
            wait. If it is cancelled before its turn, the function is not called.
        """
        if self.is_full and not is_urgent:
            return fail(
                CredentialsUncheckable("too many credentials wait to be checked", 5)
            )
        work: Deferred[Any] = Deferred()
        (self._urgent if is_urgent else self._waiting).append((work, function, args))
        self._begin()
        return work

    def _begin(self) -> None:
        while self._running < self._most_at_once and (self._urgent or self._waiting):
            jobs = self._urgent or self._waiting
            work, function, args = jobs.popleft()
            if work.called:
                continue
            self._running += 1
            self._in_thread(function, *args).addBoth(self._end, work)

    def _end(self, outcome: Any, work: Deferred[Any]) -> None:
        self._running -= 1
        self._begin()
        if not work.called:
            work.callback(outcome)
