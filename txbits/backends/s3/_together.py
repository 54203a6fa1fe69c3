"""
Several things at once, all of which are waited for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

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
