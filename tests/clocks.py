"""
Clocks that run with the reactor's, and tell another time.
"""

from __future__ import annotations

from twisted.internet import reactor


class Ahead:
    """
    The reactor, of a machine whose clock is ahead.

    :ivar ahead: By how many seconds.
    """

    def __init__(self, ahead=0.0):
        self.ahead = ahead

    def seconds(self):
        return reactor.seconds() + self.ahead  # type: ignore[attr-defined]

    def __getattr__(self, name):
        return getattr(reactor, name)
