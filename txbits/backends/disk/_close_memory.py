"""
How the closes that the disk backend remembers come to survive a crash of the machine,
while nobody waits for that.

When a session ends, its line in the table is what tells of it, and is safe on the
disk. It is freed with the record of the close in it; so the disk has, at any time, a
line that says "published", or the record. Lines that keep one are used again when an
fsync of the files of :class:`~txbits.backends.disk._closes.Closes` has returned, one
for many of them.
"""

from __future__ import annotations

from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.logger import Logger

from txbits._deferreds import deferred
from txbits.backends._threads import Joint
from txbits.backends.disk._closes import Closes
from txbits.backends.disk._files import Files, translated
from txbits.backends.disk._probe import sync_names
from txbits.backends.disk._records import Table
from txbits.backends.disk._syncs import Sync, all_done
from txbits.errors import BackendError

_log = Logger()

#: How many closed sessions keep their lines until their closes are stored safely.
MOST_KEPT = 256


@define(eq=False)
class CloseMemory:
    """
    The closes whose sessions are not gone yet, or whose lines are not free yet.

    :param sync: Calls fsync.
    :param sync_names: The same, of a directory.
    :param is_to_be_safe: Whether closes are to survive a crash of the machine.
    """

    _closes: Closes
    _table: Table
    _sync: Sync
    _sync_names: Sync
    _is_to_be_safe: bool
    _standing: dict[UUID, bytes] = field(factory=dict, init=False)
    _settling: Joint | None = field(default=None, init=False)
    _settles_at: int = field(default=MOST_KEPT, init=False)
    _is_spoilt: bool = field(default=False, init=False)
    _late: set[UUID] = field(factory=set, init=False)
    _syncing: DeferredLock = field(factory=DeferredLock, init=False)

    def remember(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | None,
        at: float,
    ) -> None:
        """
        Remember the close of a session that stands still.

        :param at: The time, in seconds since the epoch.
        :raises OSError: If that cannot be done.
        :raises OutOfSpace: If there is no room for it.
        """
        record = self._closes.remember(session_id, destination, owner, at)
        if not self._is_to_be_safe:
            return
        if session_id in self._table:
            self._standing[session_id] = record
        if len(self._table.closed) >= self._settles_at:
            self.settle()

    def drop(self, session_id: UUID) -> None:
        """
        Remove the record of a session, of which nothing else is left.

        :raises OSError: If something of it is left; to be called again then.
        """
        self._table.drop(session_id, self._standing.get(session_id))
        self._standing.pop(session_id, None)

    def settle(self) -> Deferred[None]:
        """
        Make the closes of sessions that are gone safe, and their lines free.

        :returns: A Deferred that fires with ``None`` when that is done, or has failed,
            which is logged: the lines stay then.
        """
        if self._settling is not None:
            return self._settling.join()
        if not self._table.closed:
            return succeed(None)
        settling = self._settling = Joint()
        done = settling.join()
        self._settle().addBoth(self._settled).addBoth(settling.end)
        return done

    def _settled(self, outcome: None) -> None:
        self._settling = None
        return outcome

    @deferred
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

    def _append_again(self) -> None:
        """
        Write what an fsync that failed may have lost: a second one would not tell.

        :raises BackendError: If that cannot be done; to be called again then.
        """
        if not self._is_spoilt:
            return
        closes = self._closes
        closes.conclude()
        # In this order: a thread that ends a session takes its record over.
        records = list(self._standing.values())
        records += (record for _, record in self._table.closed)
        for record in records:
            translated(closes.append, record)
        self._is_spoilt = False

    @deferred
    async def _make_safe(self) -> None:
        # One at a time, since they close files.
        await self._syncing.run(self._sync_all)

    @deferred
    async def _sync_all(self) -> None:
        self._append_again()
        unsafe = self._closes.unsafe()
        try:
            await all_done(
                self._sync_names(unsafe.directory),
                *(self._sync(fd) for fd in unsafe.files),
            )
        except BackendError:
            self._is_spoilt = True
            # At once, too: what was written may not be read any more either.
            self._append_again()
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
        survives a crash of the machine.

        :param at: The time, in seconds since the epoch.
        :raises BackendError: If that cannot be done.
        """
        if self._is_to_be_safe:
            self._late.add(session_id)
        translated(self._closes.remember, session_id, destination, owner, at)
        if self._is_to_be_safe:
            await self._make_safe()
            self._late.discard(session_id)

    def is_late(self, session_id: UUID) -> bool:
        """
        Tell whether the close of a session was, or is, to be remembered late, and may
        not survive a crash of the machine yet.
        """
        return session_id in self._late


def recover_closes(
    files: Files, closes: Closes, table: Table, is_to_be_safe: bool
) -> None:
    """
    Remember the closes that only the lines of their sessions may still tell of. It
    blocks.

    :raises OSError: If that cannot be done.
    """
    if not table.closed:
        return
    try:
        for _, record in table.closed:
            closes.append(record)
        if is_to_be_safe:
            unsafe = closes.unsafe()
            sync_names(files, unsafe.directory)
            for fd in unsafe.files:
                files.fsync(fd)
    finally:
        closes.conclude()
        closes.let_go(closes.unsafe())
    table.let_go(len(table.closed))
