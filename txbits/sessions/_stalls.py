"""
The end of Fragments without progress.

A session without progress for its time-out is released (MC-BUP 3.2.6.1), also while a
Fragment of it is under way on a connection that still lives: bytes may come that are
held already, or none. One timer watches them all; it is set anew only when it has
fired, or when a Fragment begins whose session is older than the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from txbits._deferreds import begun
from txbits.errors import ServerStopping
from txbits.sessions._session import Session

if TYPE_CHECKING:
    from txbits.sessions.manager import SessionManager

_log = Logger()

#: Seconds that the timer fires after the time-out, so that it has passed for sure.
_LATER = 0.001


@define(eq=False)
class Stalls:
    """
    Watches the Fragments that are arriving.

    :param manager: Whose.
    :param clock: The steady clock.
    """

    _manager: SessionManager
    _clock: IReactorTime
    _arriving: set[Session] = field(factory=set, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _fires: float = field(default=float("inf"), init=False)
    _has_stopped: bool = field(default=False, init=False)

    def begins(self, session: Session) -> None:
        """A Fragment begins to arrive."""
        if self._has_stopped:
            # It came before, and the store took its time; it is ended at once.
            return
        self._arriving.add(session)
        ends = session.expires
        if ends < self._fires:
            self._watch(ends)

    def ends(self, session: Session) -> None:
        """It does no longer."""
        self._arriving.discard(session)

    def stop(self) -> None:
        """Watch no longer, whatever still begins."""
        self._has_stopped = True
        self._arriving.clear()
        self._fires = float("inf")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _watch(self, until: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._fires = until
        delay = max(0.0, until - self._clock.seconds()) + _LATER
        self._timer = self._clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._timer, self._fires = None, float("inf")
        now = self._clock.seconds()
        stalled = [one for one in self._arriving if one.expires < now]
        for session in stalled:
            # Once is enough: it ends the Fragment, whatever becomes of the rest.
            self._arriving.discard(session)
            begun(self._end(session))
        if self._arriving and self._timer is None:
            self._watch(min(one.expires for one in self._arriving))

    async def _end(self, session: Session) -> None:
        try:
            await self._manager.expire(session.upload.session_id)
        except ServerStopping:
            return  # which ends its Fragment as well
