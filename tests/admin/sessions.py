"""
What the tests of open sessions have in common: directories in memory, and a view that
is a list.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txbits._deferreds import deferred
from txbits.admin.directories import DirectorySessions
from txbits.admin.sessions import (
    Purged,
    SessionFilter,
    SessionRecord,
    SessionsPage,
    SessionsView,
)
from txbits.backends.memory import MemoryBackend
from txbits.errors import BackendError, NoSuchSession
from txbits.sessions import Caller, SessionManager, Settings

OPERATOR = Caller("root", "198.51.100.1")


def record(number: int = 1, **changes: Any) -> SessionRecord:
    """A session."""
    said: dict[str, Any] = {
        "session": str(UUID(int=number)).upper(),
        "directory": "/logs",
        "destination": f"a/{number}.txt",
        "file_name": None,
        "owner": "alice",
        "scheme": None,
        "client": None,
        "bytes": 5,
        "total": 10,
        "rate": None,
        "created": 0.0,
        "last_progress": 0.0,
        "state": "receiving",
        "attempts": 0,
        **changes,
    }
    return SessionRecord(**said)


@define(eq=False)
class ListView:
    """
    A view of sessions in a list.

    :ivar fault: What all its calls fail with.
    :ivar cancelled: The sessions that were cancelled, and who wanted it.
    """

    sessions: list[SessionRecord]
    fault: Exception | None = None
    cancelled: list[tuple[str, Caller]] = field(factory=list)
    now: float = 1000.0

    def _fail(self) -> None:
        if self.fault is not None:
            raise self.fault

    @deferred
    async def page(
        self, filters: SessionFilter, cursor: str | None = None, limit: int = 100
    ) -> SessionsPage:
        self._fail()
        begin = 0 if cursor is None else int(cursor)
        end = begin + limit
        found = [
            one for one in self.sessions[begin:end] if filters.takes(one, self.now)
        ]
        return SessionsPage(found, None if end >= len(self.sessions) else str(end))

    @deferred
    async def get(self, session_id: str) -> SessionRecord:
        self._fail()
        for one in self.sessions:
            if one.session == session_id:
                return one
        raise NoSuchSession("no")

    @deferred
    async def cancel(self, session_id: str, operator: Caller) -> SessionRecord:
        found = await self.get(session_id)
        self.cancelled.append((session_id, operator))
        return found

    @deferred
    async def purge(
        self,
        filters: SessionFilter,
        operator: Caller,
        cursor: str | None = None,
        limit: int = 100,
    ) -> Purged:
        page = await self.page(filters, cursor, limit)
        for one in page.sessions:
            await self.cancel(one.session, operator)
        return Purged(page.sessions, page.next, ("one is left",))


class ViewCase(SynchronousTestCase):
    """
    Views of sessions, and directories in memory.

    :ivar ids: The ids of the next sessions, from the last one on; random if empty.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.ids: list[UUID] = []

    def manager(
        self, backend: MemoryBackend | None = None, **settings: Any
    ) -> SessionManager:
        """Make and start the manager of a directory."""
        manager = SessionManager(
            backend or MemoryBackend(self.clock),
            Settings(**{"session_limit": 0, **settings}),
            self.clock,
            self.next_id,
        )
        self.successResultOf(manager.start())
        return manager

    def next_id(self) -> UUID:
        """The id of the next session."""
        return self.ids.pop() if self.ids else uuid4()

    def create(self, manager: SessionManager, name: str, caller: Any = None) -> str:
        """Create a session, and return its id as records have it."""
        made = manager.create((name,), caller or Caller("alice", "192.0.2.1"), None)
        return str(self.successResultOf(made)).upper()

    def fired(self, waiting: Deferred[Any]) -> Any:
        """What a Deferred fires with after some turns of the reactor."""
        for _ in range(10):
            self.clock.advance(0)
        return self.successResultOf(waiting)

    def everything(
        self,
        view: SessionsView,
        filters: SessionFilter | None = None,
        limit: int = 100,
    ) -> list[SessionRecord]:
        """All pages of a list."""
        found: list[SessionRecord] = []
        cursor: str | None = None
        while True:
            page = self.fired(view.page(filters or SessionFilter(), cursor, limit))
            self.assertLessEqual(len(page.sessions), limit)
            found += page.sessions
            cursor = page.next
            if cursor is None:
                return found

    def view(self, mount: str, manager: SessionManager) -> DirectorySessions:
        """The view of a directory."""
        return DirectorySessions(mount, manager)


#: For tests that make a view fail.
ON_FIRE = BackendError("on fire")
