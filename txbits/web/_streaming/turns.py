"""
Whose turn it is, among the connections that have sent requests ahead.

A client may send its next request before the last one is answered (RFC 9112 9.3.2), and
one read of a socket brings hundreds of short ones. Served in a row they would keep all
other clients waiting for as long as that takes, times the number of those who do so.
So a connection is served one request when it is read from; for the next one it stands
in line here, and is not read from until its turn has come.
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

_log = Logger()

#: How many requests that were sent ahead are served between two looks at the sockets.
#: One each would have the reactor look more often than it serves. A thousand times the
#: connections would make nobody wait for longer.
PER_TURN = 8


class Waiting(Protocol):
    """A connection that has sent a request ahead."""

    def take_turn(self) -> None:
        """Serve that request, unless it is too late for that."""

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
        """Put a connection at the end of the line; it must not stand in it yet."""
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
