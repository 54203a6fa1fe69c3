"""
How late the reactor calls: what every client waits for when something blocks it.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txbits._counts import Histogram

#: Seconds between two calls.
INTERVAL = 1.0


@define(eq=False)
class LoopDelay:
    """
    Measures by how much calls of a reactor are late, once a second.

    :param clock: The reactor, or a steady clock that uses its calls.
    :ivar delays: What was measured.
    """

    _clock: IReactorTime
    delays: Histogram = field(factory=Histogram, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)

    def start(self) -> None:
        """Begin to measure."""
        due = self._clock.seconds() + INTERVAL
        self._call = self._clock.callLater(INTERVAL, self._called, due)

    def stop(self) -> None:
        """Stop measuring."""
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def _called(self, due: float) -> None:
        self.delays.observe(max(0.0, self._clock.seconds() - due))
        self.start()
