"""
The two clocks of a process.

**The steady clock** is an :class:`~twisted.internet.interfaces.IReactorTime`: pauses,
time-outs and deadlines go by it. A value of its ``seconds()`` has a meaning only
compared with another value of the same clock.

**The wall clock** is a function, :data:`Wall`, that returns the seconds since the
epoch. It is for times that are compared over restarts or sent to others: when something
was stored, how old it is, ``Date``, signatures. It may be set forward or back at any
time: a machine without a battery starts in 1970, until its network is up.

Twisted uses the wall clock for both (its issue 2424): when that is set back by an hour,
every timer fires an hour late, and when it is set forward, every time-out expires.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.runtime import seconds as _twisted_seconds
from zope.interface import implementer

#: Returns the time of day, in seconds since the epoch.
Wall = Callable[[], float]


@implementer(IReactorTime)
@frozen(eq=False)
class _SteadyView:
    """A steady clock with the timers of a reactor that goes by the wall clock."""

    wall: Wall
    callLater: Callable[..., IDelayedCall]
    getDelayedCalls: Callable[[], Any]
    seconds: Callable[[], float] = time.monotonic


def keep_steady(reactor: Any, monotonic: Callable[[], float] = time.monotonic) -> None:
    """
    Make a reactor's timers, and its ``seconds()``, use a clock that is never set.

    ``seconds()`` continues from its present value, so it is still the time of day, as
    long as the wall clock is not set. ``twistd txbits`` and the command line do this by
    themselves; a program that embeds txbits calls it once, before or after the reactor
    is run.

    :param reactor: A reactor of Twisted's. One with a clock of its own, as in tests,
        keeps that.
    :param monotonic: Returns the seconds of a clock that is never set.
    """
    if _goes_by_the_wall(reactor):
        ahead = reactor.seconds() - monotonic()
        reactor.seconds = lambda: monotonic() + ahead


def steady(clock: IReactorTime) -> IReactorTime:
    """
    The steady clock of a reactor, also if :func:`keep_steady` was not called.

    :returns: The clock itself, if it does not follow the wall clock; otherwise a clock
        whose ``seconds()`` do not, with the timers of *clock*.
    """
    if not _goes_by_the_wall(clock):
        return clock
    return _SteadyView(wall_of(clock), clock.callLater, clock.getDelayedCalls)


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
