"""
The open sessions of one virtual directory of this process.
"""

from __future__ import annotations

from itertools import compress
from uuid import UUID

from attrs import field, frozen
from twisted.internet.task import deferLater

from txbits._deferreds import a_few_at_a_time, deferred
from txbits._workers import Worker
from txbits.admin.sessions import (
    DEFAULT_LIMIT,
    InvalidCursor,
    Purged,
    SessionFilter,
    SessionRecord,
    SessionsPage,
    shown_mount,
)
from txbits.errors import BackendError, NoSuchSession
from txbits.interfaces import IShared
from txbits.sessions import Caller, OpenSession, SessionManager

#: How many pages of the store are looked at for one page here.
_MOST_PAGES = 8

#: How many sessions are cancelled at the same time.
_AT_ONCE = 8

#: States in which only the release is left to do.
_ENDING = ("published", "discarding", "cancelling", "gone")


def are_told_elsewhere(manager: SessionManager, worker: Worker) -> bool:
    """
    Whether another process lists and counts the sessions of a directory.

    If several processes share a store, all of them see its sessions, and the first
    process reports them.

    :param worker: Which of several processes this is.
    """
    return worker.number > 0 and IShared.providedBy(manager.backend)


@frozen(eq=False)
class DirectorySessions:
    """
    The open sessions of a virtual directory; see
    :class:`~txbits.admin.sessions.SessionsView`.

    :param mount: Where it is mounted.
    :param manager: Processes its packets.
    :param worker: Which of several processes this is.
    """

    _mount: str = field(converter=shown_mount)
    _manager: SessionManager
    _worker: Worker = field(factory=Worker)

    @deferred
    async def page(
        self,
        filters: SessionFilter,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> SessionsPage:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        manager = self._manager
        after = None if cursor is None else _id_in(cursor)
        found: list[SessionRecord] = []
        is_told = not are_told_elsewhere(manager, self._worker)
        if not (is_told and filters.takes_directory(self._mount)):
            return SessionsPage(found)
        for number in range(_MOST_PAGES):
            if number:
                # Some stores answer at once.
                await deferLater(manager.clock, 0)
            listed, after = await manager.list_open(after)
            now = manager.wall()
            for one in listed:
                record = self._record(one)
                if not filters.takes(record, now):
                    continue
                if len(found) == limit:
                    # There is one more.
                    return SessionsPage(found, found[-1].session)
                found.append(record)
            if after is None:
                return SessionsPage(found)
        return SessionsPage(found, str(after))

    @deferred
    async def get(self, session_id: str) -> SessionRecord:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        return self._record(await self._manager.open_session(_id_of(session_id)))

    @deferred
    async def cancel(self, session_id: str, operator: Caller) -> SessionRecord:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        record = self._record(await self._manager.open_session(_id_of(session_id)))
        await self._manager.end_session(_id_of(session_id), operator)
        return record

    @deferred
    async def purge(
        self,
        filters: SessionFilter,
        operator: Caller,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Purged:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        idle = filters.required_idle()
        page = await self.page(filters, cursor, limit)
        faults = list(page.faults)

        async def ended(record: SessionRecord) -> bool:
            session_id = UUID(record.session)
            try:
                return await self._manager.end_session(session_id, operator, idle=idle)
            except NoSuchSession:
                return False  # its client, or its time-out, was faster
            except BackendError as error:
                faults.append(f"session {record.session} is left: {error}")
                return False

        # A store may be far away.
        are_ended = await a_few_at_a_time(_AT_ONCE, ended, page.sessions)
        return Purged(compress(page.sessions, are_ended), page.next, faults)

    def busiest(self, most: int) -> list[SessionRecord]:
        """
        Look at the sessions in which bytes arrive now.

        :param most: How many, at most.
        :returns: The sessions, those first in which most bytes arrive a second.
        """
        return [self._record(one) for one in self._manager.busiest(most)]

    def _record(self, one: OpenSession) -> SessionRecord:
        destination = one.destination
        return SessionRecord(
            session=str(one.session_id).upper(),
            directory=self._mount,
            destination=None if destination is None else "/".join(destination),
            file_name=one.content_name,
            owner=one.owner,
            scheme=one.scheme,
            client=one.client,
            bytes=one.offset,
            total=one.total,
            rate=one.rate,
            created=one.created,
            last_progress=one.last_progress,
            state="releasing" if one.state in _ENDING else one.state,
            attempts=one.attempts,
            active=one.is_active,
        )


def _id_in(cursor: str) -> UUID:
    try:
        return UUID(cursor)
    except ValueError:
        raise InvalidCursor("the cursor is not valid") from None


def _id_of(session_id: str) -> UUID:
    """
    Read an id that somebody has written.

    :raises NoSuchSession: If it is none.
    """
    try:
        return UUID(session_id)
    except ValueError:
        raise NoSuchSession("no session has such an id") from None
