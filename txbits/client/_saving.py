"""
When the part of a download is synced, while more bytes arrive.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from txbits.clocks import steady

#: After how many bytes or seconds a part is synced. A crash of the machine costs no
#: more than that.
SAVED_BYTES = 32 * 1024 * 1024
SAVED_AFTER = 5.0


class Savable(Protocol):
    """See :class:`~txbits.client._partial.Partial`."""

    @property
    def unsafe(self) -> int:
        """How many bytes are not synced."""

    def save(self) -> None:
        """Sync the part. It blocks."""


@define
class Saving:
    """
    Saves a part regularly.

    :ivar clock: The clock.
    :ivar partial: The part.
    :ivar run: Runs a function that blocks, and returns a Deferred.
    """

    clock: IReactorTime = field(converter=steady)
    partial: Savable
    run: Callable[[Callable[[], None]], Deferred[Any]]
    _began_at: float | None = field(init=False, default=None)
    _is_running: bool = field(init=False, default=False)
    _failure: Failure | None = field(init=False, default=None)

    def more_came(self) -> None:
        """
        Start to save if it is due.

        :raises OSError: If the last save failed.
        """
        if self._failure is not None:
            self._failure.raiseException()
        now = self.clock.seconds()
        if self._began_at is None:
            self._began_at = now
        is_due = (
            self.partial.unsafe >= SAVED_BYTES or now - self._began_at >= SAVED_AFTER
        )
        if is_due and not self._is_running:
            self._began_at = now
            self._is_running = True
            self.run(self.partial.save).addBoth(self._end)

    def _end(self, outcome: Failure | None) -> None:
        self._is_running, self._failure = False, outcome
