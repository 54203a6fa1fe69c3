"""
How often something may fail.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from attrs import define, field


class Failures(Protocol):
    """Remembers when all failures of a key are forgotten, by some clock."""

    def get(self, key: str) -> float | None:
        """The time, in seconds; ``None`` if there are none."""

    def put(self, key: str, until: float) -> None:
        """Remember the time, in seconds."""

    def remove(self, key: str) -> None:
        """Forget them."""


@define(eq=False)
class RecentFailures:
    """
    The failures that this process knows of.

    :param most: How many keys are remembered. When there are more, those that failed
        least recently are forgotten.
    """

    _most: int = 10_000
    _until: OrderedDict[str, float] = field(factory=OrderedDict, init=False)

    def get(self, key: str) -> float | None:
        """See :class:`Failures`."""
        return self._until.get(key)

    def put(self, key: str, until: float) -> None:
        """See :class:`Failures`."""
        self._until[key] = until
        self._until.move_to_end(key)
        if len(self._until) > self._most:
            self._until.popitem(last=False)

    def remove(self, key: str) -> None:
        """See :class:`Failures`."""
        self._until.pop(key, None)


@define(eq=False)
class Throttle:
    """
    Counts failures by a key, such as an address, and forgets them one by one.

    :param seconds: A steady clock, which the failures go by.
    :param burst: How many failures are free.
    :param interval: The seconds in which one failure is forgotten.
    :param failures: Remembers them.
    """

    _seconds: Callable[[], float]
    _burst: int
    _interval: float
    _failures: Failures = field(factory=RecentFailures)

    def wait(self, key: str) -> float:
        """Tell for how many seconds a key may not try again; 0 if it may now."""
        until = self._failures.get(key)
        if until is None:
            return 0.0
        left = until - self._seconds()
        return max(0.0, left - (self._burst - 1) * self._interval)

    def charge(self, key: str) -> None:
        """Count a failure, or a try that may become one."""
        now = self._seconds()
        until = self._failures.get(key)
        until = now if until is None else max(now, until)
        self._failures.put(key, until + self._interval)

    def refund(self, key: str) -> None:
        """Take back what a try was charged with, since it did not fail."""
        until = self._failures.get(key)
        if until is None:
            return
        until -= self._interval
        if until <= self._seconds():
            self._failures.remove(key)
        else:
            self._failures.put(key, until)
