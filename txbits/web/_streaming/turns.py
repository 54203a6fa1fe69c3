"""
The order in which connections are served that have sent requests ahead.

A client may send its next request before the last one is answered (RFC 9112 9.3.2), and
one read of a socket can bring hundreds of short ones. If they were served in a row, all
other clients would have to wait. So a connection gets one request served when it is
read; for the next one it waits in line here, and is not read until its turn.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger()

#: How many requests that were sent ahead are served in one turn of the reactor. With
#: one, the reactor would spend more time on polling than on serving. The number of
#: connections does not lengthen the turn.
PER_TURN = 8


class Waiting(Protocol):
    """A connection that has sent a request ahead."""

    def take_turn(self) -> None:
        """Serve that request, unless the connection has ended."""

    def abort(self) -> None:
        """Drop the connection: serving it went wrong."""


@define(eq=False)
class Turns:
    """
    Serves one request of each connection in turn, a few in each turn of the reactor.

    :ivar reactor: Begins the turns.
    """

    reactor: IReactorTime
    _line: deque[Waiting] = field(factory=deque, init=False)
    _is_called: bool = field(default=False, init=False)

    def wait(self, waiting: Waiting) -> None:
        """Put a connection at the end of the line; it must not be in it yet."""
        self._line.append(waiting)
        self._go_on()

    def _go_on(self) -> None:
        if self._line and not self._is_called:
            self._is_called = True
            self.reactor.callLater(0, self._serve)

    def _serve(self) -> None:
        self._is_called = False
        for _ in range(min(PER_TURN, len(self._line))):
            waiting = self._line.popleft()
            try:
                waiting.take_turn()
            except Exception:  # noqa: BLE001 - as the reactor does when it reads
                _log.failure(
                    "dropped a connection: serving a request raised an exception"
                )
                waiting.abort()
        self._go_on()
