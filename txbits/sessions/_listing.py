"""
Open sessions, for operators to look at: what the store lists, together with what only
this process knows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from uuid import UUID

from attrs import frozen

from txbits.interfaces import ISorted, IUploadSession, SessionDetails, SessionSummary
from txbits.protocol.session import State
from txbits.sessions._active import ActiveSessions
from txbits.sessions._session import Session
from txbits.sessions._upkeep import Upkeep

#: How many sessions are read at a time.
_PAGE = 256

#: Seconds after a Fragment for which its rate is still told.
_RATE_HOLDS = 10.0


@frozen(kw_only=True)
class OpenSession:
    """
    An open session. What is not known is ``None``.

    :ivar destination: Where the file goes.
    :ivar owner: The user who created it; ``None`` also if anonymous.
    :ivar content_name: The client's name for the file.
    :ivar offset: How many bytes are stored.
    :ivar total: The file's length; ``None`` also before the first Fragment.
    :ivar created: When it was created, in seconds since the epoch.
    :ivar last_progress: When bytes were last stored, likewise.
    :ivar state: Its state, see :mod:`txbits.protocol.session`.
    :ivar attempts: How often a server application was asked.
    :ivar client: The address that the last packet came from, if it came to this
        process, like the rest.
    :ivar scheme: How its sender was authenticated.
    :ivar rate: Bytes per second of the Fragment that is arriving, or that arrived
        within the last few seconds.
    :ivar is_active: Whether a packet of it is being processed.
    """

    session_id: UUID
    destination: tuple[str, ...] | None
    owner: str | None
    content_name: str | None
    offset: int | None
    total: int | None
    created: float | None
    last_progress: float
    state: State | None
    attempts: int | None
    client: str | None = None
    scheme: str | None = None
    rate: float | None = None
    is_active: bool = False


async def list_open(
    active: ActiveSessions, upkeep: Upkeep, after: UUID | None
) -> tuple[list[OpenSession], UUID | None]:
    """
    List some open sessions, in the order of their ids.

    :param after: See :class:`~txbits.interfaces.ISorted`.
    :returns: The sessions, and the id to go on after.
    :raises BackendError: If the store cannot be listed.
    :raises ServerStopping: If the server is stopping.
    """
    active.require_running()
    backend = active.backend
    if ISorted.providedBy(backend):
        work = ISorted(backend).list_after(after, _PAGE)
        found, last = await upkeep.listed(work)
        return [_from_details(active, one) for one in found], last
    chosen = _Lowest(after)
    await upkeep.look_at_all(chosen.look)
    last = chosen.page[-1].session_id if chosen.has_more else None
    return [_from_summary(active, one) for one in chosen.page], last


async def open_session(
    active: ActiveSessions, upkeep: Upkeep, session_id: UUID
) -> OpenSession:
    """
    Look at one session.

    :raises NoSuchSession: If there is none.
    :raises BackendError: If the store fails.
    :raises ServerStopping: If the server is stopping.
    """
    active.require_running()
    backend = active.backend
    if ISorted.providedBy(backend):
        details = await upkeep.listed(ISorted(backend).details_of(session_id))
        return _from_details(active, details)
    session = await active.load(session_id)
    return _known(active, session, None, session.upload.last_progress)


def busiest(active: ActiveSessions, most: int) -> list[OpenSession]:
    """
    Find the sessions in which bytes arrive, or have arrived within the last seconds.

    :param most: How many are returned at most.
    :returns: The sessions, the busiest first.
    """
    now = active.clock.seconds()
    rated = [
        (rate, session)
        for session in active.table.values()
        if session.arrival is not None and (rate := _rate(session, now)) is not None
    ]
    chosen = heapq.nlargest(most, rated, key=lambda one: one[0])
    return [
        _known(active, session, None, session.upload.last_progress)
        for _, session in chosen
    ]


class _Lowest:
    """Chooses the sessions of a page from a list of all, in any order."""

    def __init__(self, after: UUID | None) -> None:
        self._after = after
        self.page: list[SessionSummary] = []
        self.has_more = False

    async def look(self, page: Sequence[SessionSummary]) -> None:
        """Take those that are among the lowest so far."""
        after = self._after
        fitting = [one for one in page if after is None or one.session_id > after]
        both = [*self.page, *fitting]
        self.page = heapq.nsmallest(_PAGE, both, key=lambda one: one.session_id.int)
        self.has_more |= len(both) > len(self.page)


def _from_details(active: ActiveSessions, details: SessionDetails) -> OpenSession:
    session = active.table.get(details.session_id)
    if session is not None:
        return _known(active, session, details.created, details.last_progress)
    return OpenSession(
        session_id=details.session_id,
        destination=details.destination,
        owner=details.owner,
        content_name=details.content_name,
        offset=details.offset,
        total=details.total,
        created=details.created,
        last_progress=details.last_progress,
        state=active.rules.state_of(details),
        attempts=details.attempts,
    )


def _from_summary(active: ActiveSessions, summary: SessionSummary) -> OpenSession:
    session = active.table.get(summary.session_id)
    if session is not None:
        return _known(active, session, None, summary.last_progress)
    state: State | None = None
    if summary.published:
        state = "standing" if active.rules.publishes_at_once else "published"
    elif summary.releasing:
        state = "cancelling"
    return OpenSession(
        session_id=summary.session_id,
        destination=None,
        owner=summary.owner,
        content_name=None,
        offset=None,
        total=summary.size or None,
        created=None,
        last_progress=summary.last_progress,
        state=state,
        attempts=None,
    )


def _known(
    active: ActiveSessions,
    session: Session,
    created: float | None,
    last_progress: float,
) -> OpenSession:
    """A session that this process knows: the store may know less."""
    upload = session.upload
    return OpenSession(
        session_id=upload.session_id,
        destination=upload.destination,
        owner=upload.owner,
        content_name=upload.content_name,
        offset=upload.offset,
        total=upload.total,
        created=created,
        last_progress=max(last_progress, upload.last_progress),
        state=session.life.state,
        attempts=_attempts(upload),
        client=session.client,
        scheme=session.scheme,
        rate=_rate(session, active.clock.seconds()),
        is_active=session.newest is not None or session.asking is not None,
    )


def _rate(session: Session, now: float) -> float | None:
    began = session.arrival
    if began is None:
        return None
    ended = now if session.newest is not None else session.progressed
    if ended <= began or now - ended > _RATE_HOLDS:
        return None
    return max(0, session.upload.offset - session.held) / (ended - began)


def _attempts(upload: IUploadSession) -> int | None:
    attempts: int | None = getattr(upload, "attempts", None)
    return attempts
