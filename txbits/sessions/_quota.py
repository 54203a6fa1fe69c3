"""
How many sessions each user has open, those from before a restart among them.
"""

from __future__ import annotations

from uuid import UUID

from attrs import define, field

from txbits.errors import SessionLimitReached

#: Seconds after which a client refused for its number of sessions may come again: the
#: delay that Windows takes by itself.
_LIMIT_RETRY_AFTER = 600


@define(eq=False)
class Quota:
    """
    Counts the sessions of one directory.

    :ivar has_counted: Whether those that the store held at the start are counted.
    """

    has_counted: bool = field(default=False, init=False)
    _owned: dict[str, set[UUID]] = field(factory=dict, init=False)
    _gone: set[UUID] = field(factory=set, init=False)
    _changed: dict[UUID, str | None] | None = field(default=None, init=False)

    def count(self, owner: str) -> int:
        """How many sessions a user has, as far as is known."""
        return len(self._owned.get(owner, ()))

    def reserve(self, session_id: UUID, owner: str | None, limit: int) -> None:
        """
        Count a session that is about to be made.

        :param limit: How many its owner may have; 0 for any number.
        :raises SessionLimitReached: If that is one too many.
        """
        if owner is None:
            return
        owned = self._owned.setdefault(owner, set())
        if limit and len(owned) >= limit:
            raise SessionLimitReached(
                f"{owner} has {len(owned)} sessions open", _LIMIT_RETRY_AFTER
            )
        owned.add(session_id)
        if self._changed is not None:
            self._changed[session_id] = owner

    def give_back(self, session_id: UUID, owner: str | None) -> None:
        """Stop counting a session."""
        if not self.has_counted:
            # It may be among those that are being listed just now.
            self._gone.add(session_id)
        if self._changed is not None:
            self._changed[session_id] = None
        if owner is not None and (owned := self._owned.get(owner)) is not None:
            owned.discard(session_id)
            if not owned:
                del self._owned[owner]

    def give_back_of_any(self, session_id: UUID) -> None:
        """Stop counting a session, of any owner."""
        for owner in list(self._owned):
            self.give_back(session_id, owner)

    def inventory(self, session_id: UUID, owner: str | None) -> None:
        """Count a session that was found in the store toward its owner's limit."""
        if owner is not None and session_id not in self._gone:
            self._owned.setdefault(owner, set()).add(session_id)

    def counted(self) -> None:
        """All sessions that the store held at the start have been counted."""
        self.has_counted = True
        self._gone.clear()

    def owned(self) -> list[set[UUID]]:
        """The sessions that are counted, those of each owner."""
        return list(self._owned.values())

    def begin_recount(self) -> None:
        """Note what comes and goes here from now on, while the store is listed."""
        self._changed = {}

    def give_up_recount(self) -> None:
        """Keep the present count: the store could not be listed."""
        self._changed = None

    def recount(self, listed: dict[str, set[UUID]]) -> None:
        """
        Replace the count by what the store has listed.

        For sessions that came or went here since :meth:`begin_recount`, this process
        knows better than the listing.

        :param listed: The sessions that the store has listed, by their owners. It
            belongs to this object from now on.
        """
        changed, self._changed = self._changed or {}, None
        gone = {one for one, owner in changed.items() if owner is None}
        if gone:
            for ids in listed.values():
                ids -= gone
        for one, owner in changed.items():
            if owner is not None:
                listed.setdefault(owner, set()).add(one)
        self._owned = {owner: ids for owner, ids in listed.items() if ids}
