"""
Uploads are disabled for a virtual directory (MC-BUP 3.2.4.2): new packets are refused,
and existing sessions are released.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import Shared, deferred, settled
from txbits.errors import BackendError, ServerStopping
from txbits.sessions._active import ActiveSessions
from txbits.sessions._endings import expire
from txbits.sessions._upkeep import Upkeep

_log = Logger()

#: How many sessions are released at a time, so that a slow one delays few others.
_AT_A_TIME = 8

#: How many sessions are released before the reactor gets a turn.
_BEFORE_A_TURN = 20


@define(eq=False)
class Disabling:
    """
    Disables and enables the uploads of a directory.

    What is under way when it is disabled: a fragment that is arriving is ended and its
    connection dropped; a Close-Session that is publishing, and a Cancel-Session, are
    finished and answered; a Create-Session is refused, and a question to a server
    application is cancelled.

    :param upkeep: Lists the sessions.
    """

    _active: ActiveSessions
    _upkeep: Upkeep
    _releasing: Shared[None] = field(factory=Shared, init=False)
    _times_enabled: int = field(default=0, init=False)

    def enable(self) -> None:
        """Take uploads again."""
        self._active.is_disabled = False
        self._times_enabled += 1

    def disable(self) -> Deferred[None]:
        """
        Refuse every packet from now on, and release every session.

        :returns: A Deferred that fires with ``None`` when none is left, or uploads are
            enabled again. It fails with :class:`~txbits.errors.BackendError` if some
            could not be released: the clean-up goes on with them.
        """
        self._active.is_disabled = True
        return self._releasing.run(self._release_all)

    async def _release_all(self) -> None:
        active = self._active
        before, found = -1, 0
        while active.is_disabled and before != self._times_enabled:
            # If it is enabled and disabled again meanwhile, a round ends early.
            before = self._times_enabled
            found = await self._release_existing()
        if not active.is_disabled:
            return
        left = await self._upkeep.session_ids()
        if left and active.is_disabled:
            raise BackendError(
                f"{len(left)} of {found} sessions could not be released; the "
                "clean-up tries again"
            )
        _log.info(
            "uploads to {directory} are disabled: {sessions} sessions released",
            directory=active.name or "/",
            sessions=found,
        )

    async def _release_existing(self) -> int:
        """
        Release sessions as long as uploads are disabled.

        :returns: How many there were.
        """
        active = self._active
        if active.creating:
            await active.created.wait()
        found = await self._upkeep.session_ids() | set(active.table)
        todo = iter(found)
        for outcome in await settled(
            [self._release_from(todo) for _ in range(_AT_A_TIME)]
        ):
            if isinstance(outcome, Failure):
                _log.failure("releasing sessions failed", outcome)
        return len(found)

    @deferred
    async def _release_from(self, todo: Iterator[UUID]) -> None:
        for number, session_id in enumerate(todo, 1):
            if not self._active.is_disabled:
                return
            try:
                await expire(self._active, session_id)
            except ServerStopping:
                return
            if not number % _BEFORE_A_TURN:
                await deferLater(self._active.clock, 0, lambda: None)
