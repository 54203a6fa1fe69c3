"""
Pausing, resuming and cancelling an upload in progress.

An upload is a coroutine that mostly waits, for an Ack or the end of a pause. A new wish
cancels what it waits for; then the coroutine checks the wish.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any, TypeVar

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, succeed

T = TypeVar("T")


class Wish(Enum):
    """What the user wants an upload to do."""

    GO_ON = auto()
    PAUSE = auto()
    CANCEL = auto()
    STOP = auto()


class Interrupted(Exception):
    """The wish has changed."""


@define(eq=False)
class Control:
    """
    The wish, and the Deferreds that fire when it is fulfilled.

    :ivar wish: What the user wants.
    :ivar cancelling: Whether the session is being cancelled.
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
        """Set the wish."""
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
        """Request a pause. Fires when the upload is paused or over."""
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
        Check the wish.

        :raises Interrupted: If the upload has to pause or be cancelled.
        :raises CancelledError: If it has to stop.
        """
        if self.wish is Wish.STOP:
            raise CancelledError
        if self._interrupts():
            raise Interrupted

    def _interrupts(self) -> bool:
        if self.wish is Wish.CANCEL:
            return not self.cancelling
        return self.wish is Wish.PAUSE

    async def wait(self, awaited: Deferred[T], *, precious: bool = False) -> T:
        """
        Wait for a Deferred, and cancel it if the wish changes.

        :param precious: Whether only :attr:`Wish.STOP` cancels it.
        :raises Interrupted: If the upload has to pause or be cancelled.
        :raises CancelledError: If it has to stop.
        """
        self._awaited, self._precious = awaited, precious
        if self.wish is Wish.STOP or (self._interrupts() and not precious):
            awaited.cancel()
        try:
            return await awaited
        except CancelledError:
            self.check()
            raise
        finally:
            self._awaited = None

    async def rest(self) -> None:
        """Wait until the pause is over."""
        resting: Deferred[None] = Deferred()
        self._resting = resting
        waiting, self._until_rest = self._until_rest, []
        for each in waiting:
            each.callback(None)
        # The callbacks may have changed the wish.
        if self.wish is Wish.PAUSE:
            await resting
        self._resting = None


def _added(waiting: list[Deferred[None]]) -> Deferred[None]:
    result: Deferred[None] = Deferred()
    waiting.append(result)
    return result
