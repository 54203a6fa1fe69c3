"""
The chain whose end allows an Ack, and the sharing of what is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from attrs import define
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txbits.interfaces import IReleasable

T = TypeVar("T")


async def release_in_order(*links: IReleasable) -> None:
    """
    Release one after the other, each when the one before it is gone.

    A failure ends the chain there and is raised. Since every release may be repeated,
    the chain is simply walked again then, from its beginning.
    """
    for link in links:
        await link.release()


@define(eq=False)
class Shared(Generic[T]):
    """
    Lets everyone who asks for the same thing at the same time wait for one run of it.
    """

    _waiting: list[Deferred[T]] | None = None

    def run(self, start: Callable[[], Coroutine[Deferred[Any], Any, T]]) -> Deferred[T]:
        """
        Join the run that is under way, or begin one.

        :param start: Begins it.
        :returns: A Deferred that fires, or fails, with the outcome of the run.
        """
        mine: Deferred[T] = Deferred()
        if self._waiting is not None:
            self._waiting.append(mine)
            return mine
        self._waiting = [mine]
        Deferred.fromCoroutine(start()).addBoth(self._end)
        return mine

    @property
    def is_running(self) -> bool:
        """Whether a run is under way."""
        return self._waiting is not None

    def over(self) -> Deferred[None]:
        """
        Wait until no run is under way.

        :returns: A Deferred that fires with ``None`` then, whatever came of it.
        """
        done: Deferred[None] = Deferred()
        if self._waiting is None:
            done.callback(None)
        else:
            ended: Deferred[T] = Deferred()
            ended.addBoth(lambda _: done.callback(None))
            self._waiting.append(ended)
        return done

    def _end(self, outcome: T | Failure) -> None:
        waiting, self._waiting = self._waiting, None
        for one in waiting or ():
            one.callback(outcome)
