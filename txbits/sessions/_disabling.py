"""
Uploads are disabled for a virtual directory (MC-BUP 3.2.4.2): nothing new is taken, and
the sessions that are there are released.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.logger import Logger

from txbits._deferreds import Shared, deferred
from txbits.errors import BackendError, ServerStopping, UploadsDisabled

if TYPE_CHECKING:
    from txbits.sessions._upkeep import Upkeep
    from txbits.sessions.manager import SessionManager

_log = Logger()

#: How many sessions are released at a time: one that takes long keeps few others.
_AT_A_TIME = 8

#: So many sessions are released before the reactor gets a turn.
_BEFORE_A_TURN = 20


@define(eq=False)
class Disabling:
    """
    Whether a directory takes uploads, and the end of its sessions when it does not.

    What is under way when it is disabled: a fragment that is arriving is ended and its
    connection dropped; a Close-Session that is publishing, and a Cancel-Session, are
    finished and answered; a Create-Session is refused, and a server application is
    told no more.

    :param manager: Whose sessions.
    :param upkeep: Lists them.
    :ivar is_disabled: Whether nothing is taken.
    """

    _manager: SessionManager
    _upkeep: Upkeep
    is_disabled: bool
    _releasing: Shared[None] = field(factory=Shared, init=False)
    _times_enabled: int = field(default=0, init=False)
    _creating: int = field(default=0, init=False)
    _for_creation: list[Deferred[None]] = field(factory=list, init=False)

    def require_enabled(self) -> None:
        """
        Take nothing new when uploads are disabled.

        :raises UploadsDisabled: If they are.
        """
        if self.is_disabled:
            raise UploadsDisabled("uploads are disabled here")

    def creation_begins(self) -> None:
        """A session is about to be made, which may not be listed yet."""
        self._creating += 1

    def creation_ends(self) -> None:
        """It is made, and listed, or never will be."""
        self._creating -= 1
        if not self._creating:
            waiting, self._for_creation = self._for_creation, []
            for one in waiting:
                one.callback(None)

    def enable(self) -> None:
        """Take uploads again."""
        self.is_disabled = False
        self._times_enabled += 1

    def disable(self) -> Deferred[None]:
        """
        Take nothing from now on, and release every session.

        :returns: A Deferred that fires with ``None`` when none is left, or uploads are
            enabled again. It fails with :class:`~txbits.errors.BackendError` if some
            could not be released: the clean-up goes on with them.
        """
        self.is_disabled = True
        return self._releasing.run(self._release_all)

    async def _release_all(self) -> None:
        before, found = -1, 0
        while self.is_disabled and before != self._times_enabled:
            # Who is enabled and disabled again meanwhile leaves off in the middle.
            before = self._times_enabled
            found = await self._release_those_there()
        if not self.is_disabled:
            return
        left = await self._upkeep.session_ids()
        if left and self.is_disabled:
            raise BackendError(
                f"{len(left)} of {found} sessions could not be released; the "
                "clean-up tries again"
            )
        _log.info("uploads are disabled: {sessions} sessions released", sessions=found)

    async def _release_those_there(self) -> int:
        """
        Release sessions as long as uploads are disabled.

        :returns: How many there were.
        """
        manager = self._manager
        if self._creating:
            created: Deferred[None] = Deferred()
            self._for_creation.append(created)
            await created
        found = await self._upkeep.session_ids() | manager.active()
        todo = iter(found)
        for success, failure in await DeferredList(
            [self._release_from(todo) for _ in range(_AT_A_TIME)],
            consumeErrors=True,
        ):
            if not success:
                _log.failure("releasing sessions failed", failure)
        return len(found)

    @deferred
    async def _release_from(self, todo: Iterator[UUID]) -> None:
        for number, session_id in enumerate(todo, 1):
            if not self.is_disabled:
                return
            try:
                await self._manager.expire(session_id)
            except ServerStopping:
                return
            if not number % _BEFORE_A_TURN:
                await deferLater(self._manager.clock, 0, lambda: None)
