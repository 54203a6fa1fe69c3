"""
The order of a store's sessions, to list them a page at a time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from uuid import UUID

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

#: So many ids are put in order before the reactor gets a turn.
_MANY = 4096

_INT = attrgetter("int")


@define(eq=False)
class Order:
    """
    The ids of sessions in order, as they were when a list of them was begun last.

    Ordering them all for each page would take long where there are many. Sessions that
    were there when an earlier list was begun, and still are, were there at the last
    beginning as well, so that lists may share what is kept here.

    :param clock: Gives the reactor its turns.
    """

    _clock: IReactorTime
    # By the first octet of the id, which is random. Each is sorted when it is reached:
    # sorting all of them at once would block the reactor.
    _shelves: list[list[UUID]] | None = field(default=None, init=False)

    async def after(
        self, session_id: UUID | None, limit: int, ids: Callable[[], Sequence[UUID]]
    ) -> tuple[list[UUID], UUID | None]:
        """
        Choose the sessions of a page.

        :param session_id: The session before them; ``None`` for the first page.
        :param limit: How many there are at most.
        :param ids: Lists all sessions as they are now, in any order.
        :returns: Their ids, in order; and the last of them, ``None`` if no more follow.
        """
        shelves = self._shelves
        if session_id is None or shelves is None:
            shelves = self._shelves = await self._shelved(ids())
        found: list[UUID] = []
        for shelf in shelves[0 if session_id is None else _shelf_of(session_id) :]:
            shelf.sort(key=_INT)
            begin = 0
            if session_id is not None:
                begin = bisect_right(shelf, session_id.int, key=_INT)
            found += shelf[begin : begin + limit + 1 - len(found)]
            if len(found) > limit:
                return found[:limit], found[limit - 1]
        self._shelves = None
        return found, None

    async def _shelved(self, ids: Sequence[UUID]) -> list[list[UUID]]:
        shelves: list[list[UUID]] = [[] for _ in range(256)]
        for at in range(0, len(ids), _MANY):
            if at:
                await deferLater(self._clock, 0)
            for session_id in ids[at : at + _MANY]:
                shelves[_shelf_of(session_id)].append(session_id)
        return shelves


def _shelf_of(session_id: UUID) -> int:
    return session_id.int >> 120
