"""
How long to wait before a packet is sent again, and when to give up.

Pauses begin short, since most servers that are away are being restarted, and double up
to half a minute. They vary at random, so that clients do not all reconnect at once.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txbits.clocks import steady

#: The first pause and the longest, in seconds, before the random part.
FIRST = 0.5
LONGEST = 30.0

#: The shortest pause, in seconds.
_LEAST = 0.1


@define
class Backoff:
    """
    The pauses of one upload.

    The time without progress counts from the first failure after the last progress:
    a fragment may take long without anything being wrong.

    :ivar clock: The clock.
    :ivar random: Returns numbers from 0 up to, but excluding, 1.
    :ivar patience: How many seconds to retry without progress.
    """

    clock: IReactorTime = field(converter=steady)
    random: Callable[[], float]
    patience: float
    _failures: int = field(init=False, default=0)
    _since: float | None = field(init=False, default=None)

    def progress(self) -> None:
        """The server has acknowledged more bytes than before."""
        self._failures = 0
        self._since = None

    def pause(self, retry_after: int | None) -> float | None:
        """
        A packet failed for a reason that may be temporary.

        :param retry_after: The seconds in the server's Retry-After.
        :returns: Seconds to wait, or ``None`` to give up: because the time is over, or
            *retry_after* is longer than what is left.
        """
        now = self.clock.seconds()
        if self._since is None:
            self._since = now
        left = self._since + self.patience - now
        if left < _LEAST or (retry_after or 0) > left:
            return None
        # An upload can fail for days; 2.0 ** 1024 is too much for a float.
        longest = min(LONGEST, FIRST * 2.0 ** min(self._failures, 30))
        self._failures += 1
        # At least half, so that no client turns into a busy one.
        delay = longest * (0.5 + self.random() / 2)
        return min(left, max(delay, retry_after or 0))
