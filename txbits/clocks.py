"""
The two clocks of a process, which are not to be taken for one another.

**The steady clock** is an :class:`~twisted.internet.interfaces.IReactorTime`: pauses,
time-outs and deadlines go by it. What its ``seconds()`` says has a meaning only beside
what the same clock says later.

**The wall clock** is a function, :data:`Wall`, that tells seconds since the epoch. It
is for what is compared over restarts or told to others: when something was stored, how
old it is, ``Date``, signatures. It may be set, forward and back, at any time: a machine
without a battery starts in 1970, until its network is up.

Twisted goes by the wall clock for both (its issue 2424): when that is set back by an
hour, all that waits waits an hour longer, and when it is set forward, every time-out
has passed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import define
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.runtime import seconds as _twisted_seconds
from zope.interface import implementer

#: Tells the time of day, in seconds since the epoch.
Wall = Callable[[], float]


def _on_from(wall: Wall, monotonic: Callable[[], float]) -> Callable[[], float]:
    """Go on from where a wall clock is now; not to be set with it."""
    ahead = wall() - monotonic()
    # It is called several times for each packet.
    return lambda: monotonic() + ahead


@implementer(IReactorTime)
@define(eq=False)
class _SteadyView:
    """A reactor whose ``seconds()`` do not jump. Its timers are the reactor's."""

    _reactor: Any
    seconds: Callable[[], float]
    wall: Wall

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: Any, **kw: Any
    ) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kw)
        return call

    def getDelayedCalls(self) -> Any:
        return self._reactor.getDelayedCalls()


def keep_steady(reactor: Any, monotonic: Callable[[], float] = time.monotonic) -> None:
    """
    Have a reactor's timers, and its ``seconds()``, go by a clock that is never set.

    ``seconds()`` goes on from what it says now, so it still tells the time of day, as
    far as the wall clock is not set from now on. ``twistd txbits`` and the command
    line do this by themselves; a program that embeds txbits calls it once, before or
    after the reactor is run.

    :param reactor: A reactor of Twisted's; one that has a clock of its own, as those
        of tests have, keeps that.
    :param monotonic: Tells seconds by a clock that is never set.
    """
    if _goes_by_the_wall(reactor):
        reactor.seconds = _on_from(reactor.seconds, monotonic)


def steady(clock: IReactorTime) -> IReactorTime:
    """
    What tells how much time has passed, also where :func:`keep_steady` was not called.

    :returns: The clock itself, if it does not go by the wall clock; otherwise one whose
        ``seconds()`` do not, and whose timers are those of the clock.
    """
    if not _goes_by_the_wall(clock):
        return clock
    return _SteadyView(clock, _on_from(clock.seconds, time.monotonic), wall_of(clock))


def wall_of(clock: IReactorTime) -> Wall:
    """
    The wall clock that belongs to a steady one.

    :returns: Its attribute ``wall``, if it has one; ``time.time`` for a reactor of
        Twisted's; the ``seconds`` of anything else, such as a
        :class:`twisted.internet.task.Clock`.
    """
    wall: Wall | None = getattr(clock, "wall", None)
    if wall is not None:
        return wall
    return time.time if isinstance(clock, ReactorBase) else clock.seconds


def _goes_by_the_wall(clock: object) -> bool:
    return (
        isinstance(clock, ReactorBase)
        and getattr(clock, "seconds", None) is _twisted_seconds
    )
