"""
What is wanted of an upload that is under way.

An upload is a coroutine, and mostly waits for something: an Ack, the end of a pause.
Whoever wants something else ends that, and the coroutine sees it when it looks next.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed

T = TypeVar("T")


class Wish(Enum):
    """What is wanted."""

    GO_ON = auto()
    PAUSE = auto()
    CANCEL = auto()
    STOP = auto()


class Interrupted(Exception):
    """Something else is wanted than what was being done."""


@define(eq=False)
class Control:
    """
    The wish, and those who wait until it is fulfilled.

    :ivar wish: What is wanted.
    :ivar cancelling: Whether the upload is being cancelled already.
    :ivar over: Whether the upload has ended.
    """

    wish: Wish = field(init=False, default=Wish.GO_ON)
    cancelling: bool = field(init=False, default=False)
    over: bool = field(init=False, default=False)
    _awaited: Deferred[Any] | None = field(init=False, default=None)
    _precious: bool = field(init=False, default=False)
    _resting: Deferred[None] | None = field(init=False, default=None)
    _until_rest: list[Deferred[None]] = field(init=False, factory=list)
    _until_end: list[Deferred[None]] = field(init=False, factory=list)

    def want(self, wish: Wish) -> None:
        """Want something."""
        self.wish = wish
        resting = self._resting
        if resting is not None and wish is not Wish.PAUSE:
            self._resting = None
            resting.callback(None)
        elif self._awaited is not None and (
            wish is Wish.STOP or (wish is not Wish.GO_ON and not self._precious)
        ):
            self._awaited.cancel()

    def pause(self) -> Deferred[None]:
        """Want a pause; fires when there is one, or the upload is over."""
        if self.over or self._resting is not None:
            return succeed(None)
        paused = _added(self._until_rest)
        if self.wish is Wish.GO_ON:
            self.want(Wish.PAUSE)
        return paused

    def until_end(self) -> Deferred[None]:
        """Fires when the upload is over."""
        return succeed(None) if self.over else _added(self._until_end)

    def end(self) -> None:
        """The upload is over."""
        self.over = True
        for waiting in [*self._until_rest, *self._until_end]:
            waiting.callback(None)

    def check(self) -> None:
        """
        Look whether to go on.

        :raises Interrupted: If something else is to be done.
        :raises CancelledError: If nothing is.
        """
        if self.wish is Wish.STOP:
            raise CancelledError
        if self.wish is Wish.PAUSE or (
            self.wish is Wish.CANCEL and not self.cancelling
        ):
            raise Interrupted

    async def wait(self, awaited: Deferred[T], *, precious: bool = False) -> T:
        """
        Wait for something, unless something else is wanted.

        :param precious: Whether it ends only if nothing more is wanted at all.
        :raises Interrupted: If it was ended.
        :raises CancelledError: If nothing more is wanted.
        """
        self._awaited, self._precious = awaited, precious
        if self.wish is Wish.STOP:
            awaited.cancel()
        try:
            return await awaited
        except CancelledError:
            self.check()
            raise
        finally:
            self._awaited = None

    async def rest(self) -> None:
        """Do nothing while a pause is wanted."""
        resting: Deferred[None] = Deferred()
        self._resting = resting
        waiting, self._until_rest = self._until_rest, []
        for each in waiting:
            each.callback(None)
        # Whoever was told may have wished for something else by now.
        if self.wish is Wish.PAUSE:
            await resting
        self._resting = None


def _added(waiting: list[Deferred[None]]) -> Deferred[None]:
    result: Deferred[None] = Deferred()
    waiting.append(result)
    return result
