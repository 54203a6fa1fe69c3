"""
Troubles that an operator has to fix: told in the log, but not a thousand times.

A full disk or a store that is away fails every packet of every client. The log gets one
line when the trouble begins, at most one a minute while it lasts, with the number of
failures that were left out, and one when it is over.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

from attrs import define, field
from twisted.logger import Logger, LogLevel

#: Seconds between two lines about the same trouble.
INTERVAL = 60.0


@define
class _Trouble:
    """
    A trouble that lasts, or is over.

    :ivar began: When it was first reported.
    :ivar told: When it was last logged.
    :ivar failures: How many reports there were.
    :ivar untold: How many of them were not logged.
    :ivar is_told: Whether it has been logged since it began.
    :ivar is_over: Whether it is over.
    """

    began: float = 0.0
    told: float = float("-inf")
    failures: int = 0
    untold: int = 0
    is_told: bool = False
    is_over: bool = True


@define(eq=False)
class Troubles:
    """
    Logs troubles, each at most once a minute.

    :param log: Gets the lines; it belongs to the module that reports.
    :param seconds: A steady clock.
    :param most: How many troubles are tracked. When there are more, the ones reported
        least recently are dropped, without a line that they are over.
    """

    _log: Logger
    _seconds: Callable[[], float]
    _most: int = field(default=64, kw_only=True)
    _known: OrderedDict[Hashable, _Trouble] = field(factory=OrderedDict, init=False)

    def report(
        self,
        key: Hashable,
        log_format: str,
        *,
        level: Any = LogLevel.error,
        **fields: Any,
    ) -> None:
        """
        Report a failure.

        :param key: Identifies the trouble, such as a directory and a kind of fault.
        :param log_format: One line: what is wrong, where, and how to fix it. The event
            also has the field ``untold``, the number of failures left out before it.
        :param level: The level to log at.
        :param fields: What the line is formatted with.
        """
        now = self._seconds()
        trouble = self._known.get(key)
        if trouble is None:
            trouble = self._known[key] = _Trouble()
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        if trouble.is_over:
            trouble.is_over = trouble.is_told = False
            trouble.began, trouble.failures = now, 0
        trouble.failures += 1
        if now - trouble.told < INTERVAL:
            trouble.untold += 1
            return
        if trouble.untold:
            log_format += " ({untold} more failures since the last such line)"
        self._log.emit(level, log_format, untold=trouble.untold, **fields)
        trouble.told, trouble.untold, trouble.is_told = now, 0, True

    def over(self, key: Hashable, log_format: str, **fields: Any) -> None:
        """
        Report a success, which ends the trouble if there is one. Cheap if not.

        :param log_format: What works again. The event also has the fields ``failures``
            and ``lasted``, in seconds.
        """
        trouble = self._known.get(key) if self._known else None
        if trouble is None or trouble.is_over:
            return
        trouble.is_over = True
        # If it comes and goes, the next line about it waits for its minute.
        if trouble.is_told:
            self._log.info(
                log_format + " (failures: {failures}, in {lasted:.0f} s)",
                failures=trouble.failures,
                lasted=self._seconds() - trouble.began,
                **fields,
            )
