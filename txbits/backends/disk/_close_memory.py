"""
The memory of closes, which survives a system crash although nothing waits for an
fsync.

When a session is closed, its line in the table is safe on the disk and says
"published". The line is freed with the record of the close in it, so at any time the
disk has the one or the other; a start appends the records that it finds in lines. Such
lines are used again when their records are in the files of
:class:`~txbits.backends.disk._closes.Closes`, which takes one write and one fsync for
many lines.
"""

from __future__ import annotations

from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from txbits._deferreds import Shared, deferred, together
from txbits.backends._threads import InThread
from txbits.backends.disk._closes import Closes, key_of, record_of
from txbits.backends.disk._files import FULL, Files, translated
from txbits.backends.disk._probe import sync_names
from txbits.backends.disk._records import Table
from txbits.backends.disk._syncs import Sync
from txbits.errors import BackendError, OutOfSpace
from txbits.interfaces import AnyOwner

_log = Logger()

#: How many lines keep records of closes before these are synced.
MOST_KEPT = 256


@define(eq=False)
class CloseMemory:
    """
    Remembers and recalls closes.

    :param in_thread: Calls functions that may block.
    :param sync: Calls fsync.
    :param sync_names: The same, for a directory.
    :param is_to_be_safe: Whether closes have to survive a system crash.
    """

    _closes: Closes
    _table: Table
    _in_thread: InThread
    _sync: Sync
    _sync_names: Sync
    _is_to_be_safe: bool
    _standing: dict[UUID, bytes] = field(factory=dict, init=False)
    _settling: Shared[None] = field(factory=Shared, init=False)
    _settles_at: int = field(default=MOST_KEPT, init=False)
    _late: set[UUID] = field(factory=set, init=False)
    _syncing: DeferredLock = field(factory=DeferredLock, init=False)
    _recalling: DeferredLock = field(factory=DeferredLock, init=False)

    def remember(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | None,
        at: float,
        *,
        in_line: bool,
    ) -> None:
        """
        Remember the close of a session that still has its record.

        :param at: The time, in seconds since the epoch.
        :param in_line: Whether the session's line tells as much until :meth:`drop`:
            it says "published" and nothing else.
        :raises OSError: If that fails.
        :raises OutOfSpace: If there is no room for it.
        """
        record = record_of(session_id, destination, owner, at)
        has_line = self._is_to_be_safe and session_id in self._table
        if has_line and in_line:
            # From drop() to settle(), the line has the record itself.
            self._closes.note(record)
        else:
            self._closes.append(record)
        if not has_line:
            return
        self._standing[session_id] = record
        if len(self._table.closed) >= self._settles_at:
            self.settle()

    async def recalls(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | AnyOwner | None,
    ) -> bool:
        """
        Tell whether a close is remembered.

        :raises BackendError: If that is not certain.
        """
        closes = self._closes
        key = key_of(session_id, destination, owner)
        if closes.is_present(key):
            return True
        for name in translated(closes.names):
            if not closes.is_indexed(name):
                # One at a time: anybody can ask, and all need the same indexes.
                await self._recalling.run(
                    self._in_thread, translated, closes.index, name
                )
            if translated(closes.holds, name, key):
                return True
        return False

    def drop(self, session_id: UUID) -> None:
        """
        Remove the record of a session, which goes last.

        :raises OSError: If something of it is left; call it again then.
        """
        self._table.drop(session_id, self._standing.get(session_id))
        self._standing.pop(session_id, None)

    def settle(self) -> Deferred[None]:
        """
        Sync the closes of released sessions, and free their lines.

        :returns: A Deferred that fires with ``None`` when that is done, or has failed,
            which is logged; the lines are kept then.
        """
        if not (self._settling.is_running or self._table.closed):
            return succeed(None)
        return self._settling.run(self._settle)

    async def _settle(self) -> None:
        table = self._table
        count = len(table.closed)
        try:
            await self._make_safe()
            translated(table.let_go, count)
        except BackendError as fault:
            _log.error("could not sync the records of closes: {fault}", fault=fault)
        finally:
            self._settles_at = len(table.closed) + MOST_KEPT

    def _note_again(self) -> None:
        """Note what a failed fsync may have lost: a second one would not tell."""
        closes = self._closes
        closes.drop_noted()
        closes.conclude()
        # In this order: a thread that ends a session takes its record over.
        records = list(self._standing.values())
        records += (record for _, record in self._table.closed)
        closes.note(*records)

    @deferred
    async def _make_safe(self) -> None:
        # One at a time, since they close files.
        await self._syncing.run(self._sync_all)

    @deferred
    async def _sync_all(self) -> None:
        translated(self._closes.write_noted)
        unsafe = self._closes.unsafe()
        try:
            await together(
                self._sync_names(unsafe.directory),
                *(self._sync(fd) for fd in unsafe.files),
            )
        except BackendError:
            # At once: the records may no longer be readable either.
            self._note_again()
            raise
        finally:
            self._closes.let_go(unsafe)

    async def remember_late(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | None,
        at: float,
    ) -> None:
        """
        Remember the close of a session that has no record any more, and wait until that
        is safe.

        :param at: The time, in seconds since the epoch.
        :raises BackendError: If that fails.
        """
        if self._is_to_be_safe:
            self._late.add(session_id)
        translated(self._closes.remember, session_id, destination, owner, at)
        if self._is_to_be_safe:
            await self._make_safe()
            self._late.discard(session_id)

    def is_late(self, session_id: UUID) -> bool:
        """
        Tell whether the close of a session is being remembered late, so that it may not
        be safe yet.
        """
        return session_id in self._late


def recover_closes(
    files: Files, closes: Closes, table: Table, is_to_be_safe: bool
) -> None:
    """
    Append the records of closes that the lines of the table keep. It blocks.

    If the disk is too full for that, the lines keep them until there is room.

    :raises OSError: If that fails in another way.
    """
    if not table.closed:
        return
    records = [record for _, record in table.closed]
    closes.note(*records)
    try:
        closes.write_noted()
        if is_to_be_safe:
            unsafe = closes.unsafe()
            sync_names(files, unsafe.directory)
            for fd in unsafe.files:
                files.fsync(fd)
    except (OSError, OutOfSpace) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        _log.warn("could not store the records of closes yet: {fault}", fault=error)
        closes.drop_noted()
        closes.note(*records)
    else:
        table.let_go(len(records))
    finally:
        closes.conclude()
        closes.let_go(closes.unsafe())
