"""
Threads for work that may block, and one way to wait for work that others wait for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure

#: More threads do not make fsync faster, and make Python slower.
MOST_THREADS = 8


class InThread(Protocol):
    """Calls a function that may block; the Deferred fires with what it returns."""

    def __call__(
        self, function: Callable[..., Any], /, *args: Any
    ) -> Deferred[Any]: ...


_Job = tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]


@define(eq=False)
class Threads:
    """
    A few threads, each started when it is first needed.

    They are separate from the reactor's threads, which look up host names. A
    ``ThreadPool`` with ``deferToThreadPool`` does the same for more CPU time: for an
    empty job, 68 µs instead of 27 µs one at a time, 33 instead of 8 with 8 at a time,
    19 instead of 3 with 32 at a time (medians). A small upload takes about 650 µs, and
    three such jobs where threads call fsync. Most of the difference is that outcomes
    which arrive together wake up the reactor once.
    """

    _reactor: Any
    _jobs: SimpleQueue[_Job | None] = field(factory=SimpleQueue, init=False)
    _outcomes: deque[tuple[Deferred[Any], Any]] = field(factory=deque, init=False)
    _threads: list[Thread] = field(factory=list, init=False)
    _announced: bool = field(default=False, init=False)
    _at_work: int = field(default=0, init=False)
    _rested: Deferred[None] | None = field(default=None, init=False)

    def __call__(self, function: Callable[..., Any], /, *args: Any) -> Deferred[Any]:
        """
        Call *function* in one of the threads.

        :returns: A Deferred that fires with what it returns, or fails with what it
            raises.
        """
        self._at_work += 1
        if len(self._threads) < min(self._at_work, MOST_THREADS):
            thread = Thread(target=self._work, name="txbits", daemon=True)
            self._threads.append(thread)
            thread.start()
        work: Deferred[Any] = Deferred()
        self._jobs.put((work, function, args))
        return work

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, function, args = job
            outcome: Any
            try:
                outcome = function(*args)
            except BaseException:  # noqa: BLE001 - it is passed on whole
                outcome = Failure()  # type: ignore[no-untyped-call]
            self._outcomes.append((work, outcome))
            # A thread that sees it set has appended before _hand_over clears it.
            if not self._announced:
                self._announced = True
                self._reactor.callFromThread(self._hand_over)
            del job, work, function, args, outcome

    def _hand_over(self) -> None:
        """Fire the Deferreds of finished work, on the reactor's thread."""
        self._announced = False
        while self._outcomes:
            work, outcome = self._outcomes.popleft()
            self._at_work -= 1
            work.callback(outcome)
        if self._rested is not None and not self._at_work:
            rested, self._rested = self._rested, None
            rested.callback(None)

    def stop(self) -> Deferred[None]:
        """
        End the threads, after the work that is in progress.

        :returns: A Deferred that fires with ``None`` when no thread is left.
        """
        if not self._at_work:
            self._join()
            return succeed(None)
        self._rested = Deferred()
        return self._rested.addCallback(lambda _: self._join())

    def _join(self) -> None:
        # Joining blocks, but they rest, and end at once.
        for _ in self._threads:
            self._jobs.put(None)
        while self._threads:
            self._threads.pop().join()
