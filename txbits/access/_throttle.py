"""
How often something may fail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from attrs import define, field


@define(eq=False)
class Throttle:
    """
    Counts failures by a key, such as an address, and forgets them one by one.

    :param seconds: A steady clock.
    :param burst: How many failures are free.
    :param interval: The seconds in which one failure is forgotten.
    :param most: How many keys are remembered. When there are more, those that failed
        least recently are forgotten.
    """

    _seconds: Callable[[], float]
    _burst: int
    _interval: float
    _most: int = 10_000
    # When all failures of a key are forgotten.
    _until: OrderedDict[Hashable, float] = field(factory=OrderedDict, init=False)

    def wait(self, key: Hashable) -> float:
        """Tell for how many seconds a key may not try again; 0 if it may now."""
        until = self._until.get(key)
        if until is None:
            return 0.0
        left = until - self._seconds()
        return max(0.0, left - (self._burst - 1) * self._interval)

    def charge(self, key: Hashable) -> None:
        """Count a failure, or a try that may become one."""
        now = self._seconds()
        until = max(now, self._until.get(key, now)) + self._interval
        self._until[key] = until
        self._until.move_to_end(key)
        if len(self._until) > self._most:
            self._until.popitem(last=False)

    def refund(self, key: Hashable) -> None:
        """Take back what a try was charged with, since it did not fail."""
        until = self._until.get(key)
        if until is None:
            return
        until -= self._interval
        if until <= self._seconds():
            del self._until[key]
        else:
            self._until[key] = until
