"""
How far an upload is, for its journal; and how far it was.
"""

from __future__ import annotations

from math import inf

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from txbits.client.journal import Entry, Journal
from txbits.protocol.upload import Position

#: An offset alone is written no sooner than so many seconds after the last one.
_OFFSET_AFTER = 1.0


@define
class Record:
    """
    Keeps a journal, if there is one.

    The times in it are the calendar's, since another run has another clock. An offset
    alone is written now and then only, since each version goes to the disk: one that is
    too low costs a fragment at most, and the server knows it better anyway.

    :ivar clock: The upload's.
    :ivar journal: Where to write.
    """

    clock: IReactorTime
    journal: Journal | None
    _saved: Position = field(init=False, factory=Position)
    _saved_at: float = field(init=False, default=-inf)
    _began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self.clock.seconds()

    def seconds(self) -> float:
        """For how many seconds the upload has been under way, earlier runs included."""
        seconds = self.clock.seconds() - self._began
        journal = self.journal
        if journal is not None and journal.found is not None:
            seconds = max(seconds, journal.now() - journal.found.began)
        return seconds

    def stale(self) -> Position | None:
        """Where an earlier run stopped that sent another state of the file."""
        journal = self.journal
        if journal is None or journal.stale is None or journal.stale.done:
            return None
        return self._position(journal, journal.stale)

    def found(self) -> Position | None:
        """Where an earlier run stopped."""
        journal = self.journal
        if journal is None or journal.found is None or journal.found.done:
            return None
        self._saved = self._position(journal, journal.found)
        return self._saved

    async def write(self, position: Position) -> None:
        """
        The upload is so far.

        :raises JournalError: If that cannot be written down.
        """
        now = self.clock.seconds()
        is_new_offset_only = evolve(position, offset=self._saved.offset) == self._saved
        if is_new_offset_only and now - self._saved_at < _OFFSET_AFTER:
            return
        await self.catch_up(position)

    async def catch_up(self, position: Position) -> None:
        """
        The upload is so far, and may end here.

        :raises JournalError: If that cannot be written down.
        """
        if self.journal is not None and position != self._saved:
            self._saved, self._saved_at = position, self.clock.seconds()
            await self.journal.save(self._entry(self.journal, position))

    async def finish(self, position: Position) -> None:
        """
        The file is at its destination.

        :raises JournalError: If that cannot be written down.
        """
        if self.journal is not None:
            await self.journal.finish(self._entry(self.journal, position))

    async def remove(self) -> None:
        """The upload is over, and nothing of it is to be gone on with."""
        if self.journal is not None:
            await self.journal.remove()

    def _position(self, journal: Journal, entry: Entry) -> Position:
        since = entry.position.failing_since
        if since is None:
            return entry.position
        ago = max(0.0, journal.now() - since)
        return evolve(entry.position, failing_since=self.clock.seconds() - ago)

    def _entry(self, journal: Journal, position: Position) -> Position:
        since = position.failing_since
        if since is None:
            return position
        ago = self.clock.seconds() - since
        return evolve(position, failing_since=journal.now() - ago)
