"""
Several views of sessions as one: those of all directories, or of all worker processes.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred

from txbits._deferreds import deferred
from txbits.admin.sessions import (
    DEFAULT_LIMIT,
    InvalidCursor,
    Purged,
    SessionFilter,
    SessionRecord,
    SessionsPage,
    SessionsView,
)
from txbits.errors import BackendError, NoSuchSession, ServerStopping
from txbits.sessions import Caller

P = TypeVar("P", SessionsPage, Purged)


@frozen(eq=False)
class CombinedSessions:
    """
    Lists the sessions of several views, one view after the other; see
    :class:`~txbits.admin.sessions.SessionsView`.

    A view that fails is omitted, and the page says so.

    :param views: Returns the views by name. They may change: a list
        continues with the names after that of the view that it has reached.
    """

    _views: Callable[[], Mapping[str, SessionsView]]

    @deferred
    async def page(
        self,
        filters: SessionFilter,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> SessionsPage:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        return await self._step(
            SessionsPage,
            cursor,
            limit,
            lambda view, inner, left: view.page(filters, inner, left),
        )

    @deferred
    async def get(self, session_id: str) -> SessionRecord:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        return await self._of_owner(lambda view: view.get(session_id))

    @deferred
    async def cancel(self, session_id: str, operator: Caller) -> SessionRecord:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        return await self._of_owner(lambda view: view.cancel(session_id, operator))

    @deferred
    async def purge(
        self,
        filters: SessionFilter,
        operator: Caller,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Purged:
        """See :class:`~txbits.admin.sessions.SessionsView`."""
        filters.required_idle()
        return await self._step(
            Purged,
            cursor,
            limit,
            lambda view, inner, left: view.purge(filters, operator, inner, left),
        )

    async def _step(
        self,
        make: type[P],
        cursor: str | None,
        limit: int,
        ask: Callable[[SessionsView, str | None, int], Deferred[P]],
    ) -> P:
        """Ask one view after the other, until there is enough for a page."""
        views = sorted(self._views().items())
        inner: str | None = None
        if cursor is not None:
            first, inner = _read(cursor)
            views = [(name, view) for name, view in views if name >= first]
            if views and views[0][0] != first:
                inner = None
        found: list[SessionRecord] = []
        faults: list[str] = []
        for name, view in views:
            if len(found) >= limit:
                return make(found, _written(name, None), faults)
            begin, inner = inner, None
            try:
                page = await ask(view, begin, limit - len(found))
            except (BackendError, ServerStopping) as error:
                faults.append(f"{name}: {error}")
                continue
            found += page.sessions
            faults += page.faults
            if page.next is not None:
                return make(found, _written(name, page.next), faults)
        return make(found, None, faults)

    async def _of_owner(
        self, ask: Callable[[SessionsView], Awaitable[SessionRecord]]
    ) -> SessionRecord:
        """
        Ask the view that has a session.

        :raises NoSuchSession: If none has it.
        :raises BackendError: If none has it, as far as the others can tell.
        :raises ServerStopping: Likewise.
        """
        fault: Exception = NoSuchSession("no view has the session")
        for _, view in sorted(self._views().items()):
            try:
                return await ask(view)
            except NoSuchSession:
                continue
            except (BackendError, ServerStopping) as error:
                fault = error
        raise fault


def _written(name: str, inner: str | None) -> str:
    said = json.dumps([name, inner]).encode()
    return urlsafe_b64encode(said).decode("ascii").rstrip("=")


def _read(cursor: str) -> tuple[str, str | None]:
    try:
        said = urlsafe_b64decode(cursor.encode("ascii") + b"==")
        name, inner = json.loads(said)
    except (ValueError, TypeError, RecursionError):
        raise InvalidCursor("the cursor is not valid") from None
    if not isinstance(name, str) or not isinstance(inner, str | None):
        raise InvalidCursor("the cursor is not valid")
    return name, inner
