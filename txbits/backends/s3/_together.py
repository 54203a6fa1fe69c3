"""
Several things at once, all of which are waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from txbits._deferreds import begun

R = TypeVar("R")
T = TypeVar("T")


async def together(waiting: Sequence[Deferred[T]]) -> list[T]:
    """
    Wait for all of them, also when one fails: nothing goes on behind anyone's back.

    :returns: What they fire with, in order.
    :raises Exception: What the first of them failed with that failed at all.
    """
    outcomes = await DeferredList(waiting, consumeErrors=True)
    for _, outcome in outcomes:
        if isinstance(outcome, Failure):
            outcome.raiseException()
    return [outcome for _, outcome in outcomes]


async def a_few_at_a_time(
    most: int,
    act: Callable[[T], Coroutine[Deferred[Any], Any, R]],
    things: Iterable[T],
) -> list[R]:
    """
    Do the same with each of many things, until that fails.

    Then no more are begun, and those that are under way are cancelled: where a store is
    away, each would take all the time that a request is tried again. All are over when
    this is.

    :param most: How many are under way at most.
    :returns: What came out of it, in order.
    :raises Exception: What failed first.
    """
    left = iter(enumerate(things))
    done: dict[int, R] = {}
    faults: list[Failure] = []
    workers: list[Deferred[None]] = []

    async def work() -> None:
        for number, thing in left:
            if faults:
                return
            done[number] = await act(thing)

    def failed(failure: Failure) -> None:
        faults.append(failure)
        for worker in workers:
            worker.cancel()

    for _ in range(most):
        workers.append(begun(work()).addErrback(failed))
    await DeferredList(workers)
    if faults:
        faults[0].raiseException()
    return [done[number] for number in sorted(done)]
