"""
Clocks that run with another one, and tell another time.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

#: What time it is when a :class:`SettableClock` is made: far from what a steady clock
#: of a test says, so that none can be taken for the other.
EPOCH = 1_700_000_000.0


@implementer(IReactorTime)
class Ahead:
    """
    The reactor, of a machine whose clocks are ahead.

    :ivar ahead: By how many seconds.
    :ivar wall: Its wall clock.
    """

    def __init__(self, ahead=0.0):
        self.ahead = ahead
        self.wall = SettableClock(self, ahead=0.0)

    def seconds(self):
        return reactor.seconds() + self.ahead  # type: ignore[attr-defined]

    def __getattr__(self, name):
        return getattr(reactor, name)


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
