"""
Deferreds that always fail with CancelledError when they are cancelled.
"""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

T = TypeVar("T")


def cancellable(work: Deferred[T]) -> Deferred[T]:
    """
    Make cancellation recognizable.

    A cancelled connection attempt fails in many ways otherwise, for example with a name
    that was not found, which the caller would retry.

    :returns: A Deferred that fires as *work* does, but fails with
        :class:`~twisted.internet.defer.CancelledError` when it was cancelled.
    """
    was_cancelled = False

    def cancel(_: object) -> None:
        nonlocal was_cancelled
        was_cancelled = True
        work.cancel()

    result: Deferred[T] = Deferred(cancel)

    def pass_on(outcome: Any) -> None:
        if result.called:
            return
        if was_cancelled and isinstance(outcome, Failure):
            outcome = Failure(CancelledError())
        result.callback(outcome)

    work.addBoth(pass_on)
    return result
