"""
The edge between coroutines inside and Deferreds outside.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import wraps
from types import coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

P = ParamSpec("P")
T = TypeVar("T")


def deferred(
    function: Callable[P, Coroutine[Deferred[Any], Any, T]],
) -> Callable[P, Deferred[T]]:
    """
    Let a coroutine function return a Deferred, as our interfaces promise.

    The coroutine runs at once, up to its first ``await`` of something unfired.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return begun(function(*args, **kwargs))

    return call


def begun(body: Coroutine[Deferred[Any], Any, T]) -> Deferred[T]:
    """
    Run a coroutine, as ``Deferred.fromCoroutine`` does.

    Most of ours never have to wait: memory and disk answer at once. Those are spared
    what it takes to wait, which is more than all they do.

    :param body: What to run.
    :returns: A Deferred that fires with what it returns, or fails with what it raises.
    """
    try:
        awaited = body.send(None)
    except StopIteration as stop:
        return succeed(stop.value)
    except BaseException:  # noqa: BLE001 - the Deferred carries it
        return fail()
    return Deferred.fromCoroutine(_going_on(body, awaited))


@coroutine
def _going_on(
    body: Coroutine[Deferred[Any], Any, T], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, T]:
    """Go on with a coroutine that has begun to wait."""
    while True:
        try:
            try:
                outcome = yield awaited
            except GeneratorExit:
                body.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is handed on
                awaited = body.throw(error)
            else:
                awaited = body.send(outcome)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def shielded(work: Deferred[T]) -> Deferred[T]:
    """
    Let whoever waits go, when that is cancelled, while the work goes on to its end.

    :returns: A Deferred that fires, or fails, as the work does.
    """
    outcome: Deferred[T] = Deferred()
    work.addBoth(outcome.callback)
    return outcome
