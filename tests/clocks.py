"""
Clocks that run with another one, and tell another time.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from txbits.clocks import wall_of

#: What time it is when a :class:`SettableClock` is made: far from what a steady clock
#: of a test says, so that none can be taken for the other.
EPOCH = 1_700_000_000.0


@implementer(IReactorTime)
class Ahead:
    """
    A reactor or a steady clock, of a machine whose clocks are ahead.

    :ivar ahead: By how many seconds.
    :ivar wall: Its wall clock.
    :param of: What it is ahead of. Two steady clocks have nothing in common, so this
        must be the one that it stands in for.
    """

    def __init__(self, ahead=0.0, of=reactor):
        self.ahead = ahead
        self.of = of
        self.wall = SettableClock(self, ahead=wall_of(of)() - of.seconds())

    def seconds(self):
        return self.of.seconds() + self.ahead

    def __getattr__(self, name):
        return getattr(self.of, name)


class SettableClock:
    """
    A wall clock that runs with a steady one, until it is set.

    :param steady: Any object that has ``seconds()``.
    :ivar ahead: By how many seconds it is ahead of that.
    """

    def __init__(self, steady, ahead=EPOCH):
        self.steady = steady
        self.ahead = ahead

    def __call__(self):
        return self.steady.seconds() + self.ahead

    def set(self, seconds):
        """Set it forward by so many seconds; back, if negative."""
        self.ahead += seconds
