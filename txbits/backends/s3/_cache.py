"""
A cache of sessions, so that a node need not read them for each packet.

Nothing depends on it: sessions that are not in the cache are read from the bucket.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

from attrs import define, field

#: How many sessions are kept.
MOST_KNOWN = 4096


class Cached(Protocol):
    """
    A session, as far as this module needs to know.

    :ivar copy: Bytes of a part that the bucket has as well.
    """

    copy: list[bytes]

    @property
    def session_id(self) -> UUID:
        """Its id."""

    @property
    def inline_size(self) -> int:
        """How many bytes of the file are in its record."""

    def drop_copy(self) -> None:
        """Free the memory of :attr:`copy`."""


S = TypeVar("S", bound=Cached)


@define(eq=False)
class Known(Generic[S]):
    """
    Keeps the sessions that were used last.

    A session that is in use is found here even if it is not kept.

    :param most_bytes: Returns how many bytes of small files the sessions may have in
        their records.
    :ivar bytes_held: How many they have.
    """

    _most_bytes: Callable[[], int]
    _alive: WeakValueDictionary[UUID, S] = field(
        factory=WeakValueDictionary, init=False
    )
    _kept: OrderedDict[UUID, tuple[S, int]] = field(factory=OrderedDict, init=False)
    _copies: OrderedDict[UUID, S] = field(factory=OrderedDict, init=False)
    bytes_held: int = field(default=0, init=False)

    def get(self, session_id: UUID) -> S | None:
        """Return a session, if it is known."""
        return self._alive.get(session_id)

    def keep(self, session: S) -> None:
        """Keep a session, and drop those that were not used for the longest time."""
        self._alive[session.session_id] = session
        self._weigh(session)
        self._kept.move_to_end(session.session_id)
        if session.copy:
            self._copies[session.session_id] = session
            self._copies.move_to_end(session.session_id)
        while len(self._kept) > 1 and (
            len(self._kept) > MOST_KNOWN or self.bytes_held > self._most_bytes()
        ):
            session_id, (oldest, weight) = self._kept.popitem(last=False)
            self._copies.pop(session_id, None)
            self.bytes_held -= weight
            oldest.drop_copy()

    def weigh(self, session: S) -> None:
        """Update the count of bytes after the record of a session has changed."""
        if session.session_id in self._kept:
            self.keep(session)

    def _weigh(self, session: S) -> None:
        _, before = self._kept.get(session.session_id, (session, 0))
        weight = session.inline_size
        self._kept[session.session_id] = session, weight
        self.bytes_held += weight - before

    def forget(self, session_id: UUID) -> None:
        """Drop a session."""
        self._alive.pop(session_id, None)
        self._copies.pop(session_id, None)
        session, weight = self._kept.pop(session_id, (None, 0))
        self.bytes_held -= weight
        if session is not None:
            session.drop_copy()

    def forget_all(self) -> None:
        """Drop all sessions."""
        for session_id in list(self._kept):
            self.forget(session_id)

    def drop_copies(self, too_many: int) -> None:
        """
        Free the memory of bytes that the bucket has, of the oldest sessions first.

        :param too_many: How many bytes at least, if there are so many.
        """
        # Some sessions have passed theirs to a writer since, and are removed here. The
        # writer that gets the memory may use the cache in the same call.
        while too_many > 0 and self._copies:
            _, session = self._copies.popitem(last=False)
            too_many -= sum(map(len, session.copy))
            session.drop_copy()
