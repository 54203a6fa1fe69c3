"""
The sessions that a node knows, so that it need not ask for each packet.

It is a memory, and nothing rests on it: what falls out of it is read from the bucket.
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
    Keeps those sessions that were asked for last.

    One that somebody is working on is found here also when it is not kept.

    :param most_bytes: Tells how many bytes of small files they may have in their
        records.
    """

    _most_bytes: Callable[[], int]
    _alive: WeakValueDictionary[UUID, S] = field(
        factory=WeakValueDictionary, init=False
    )
    _kept: OrderedDict[UUID, tuple[S, int]] = field(factory=OrderedDict, init=False)
    _copies: OrderedDict[UUID, S] = field(factory=OrderedDict, init=False)
    bytes_held: int = field(default=0, init=False)

    def get(self, session_id: UUID) -> S | None:
        """Tell what is known of a session."""
        return self._alive.get(session_id)

    def keep(self, session: S) -> None:
        """Keep a session; the one that was not asked for the longest may go."""
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
        """Notice that the record of a session has got longer, or shorter."""
        if session.session_id in self._kept:
            self.keep(session)

    def _weigh(self, session: S) -> None:
        _, before = self._kept.get(session.session_id, (session, 0))
        weight = session.inline_size
        self._kept[session.session_id] = session, weight
        self.bytes_held += weight - before

    def forget(self, session_id: UUID) -> None:
        """Know a session no more."""
        self._alive.pop(session_id, None)
        self._copies.pop(session_id, None)
        session, weight = self._kept.pop(session_id, (None, 0))
        self.bytes_held -= weight
        if session is not None:
            session.drop_copy()

    def forget_all(self) -> None:
        """Know nothing."""
        for session_id in list(self._kept):
            self.forget(session_id)

    def drop_copies(self, too_many: int) -> None:
        """
        Let go of bytes that the bucket has, those of the oldest first.

        :param too_many: How many, at least.
        """
        # Some have given theirs to a writer since; those are met once. Who gets what is
        # let go of may ask for a session at once.
        while too_many > 0 and self._copies:
            _, session = self._copies.popitem(last=False)
            too_many -= sum(map(len, session.copy))
            session.drop_copy()
