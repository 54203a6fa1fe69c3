"""
The staging area of the disk backend: what lies in ``ROOT/.bits-sessions``.

::

    lock                    locked while a server, or several workers, use the root
    sessions-1              the records of the sessions, see _records.py
    {GUID}.json             a record that is too long for that file
    {GUID}.part             the bytes of a session; the file's length is the offset,
                            except after a system crash
    {GUID}.answer           what a server application answered, see _answer_file.py
    {GUID}.reply            its reply
    closed/0000000001       remembered closes, see _closes.py
    claims/                 what is good for one upload, see _claims.py
    probe-...               temporary files of a start, see _probe.py
    slot-{NUMBER}/          the same again, without claims: the sessions that another
                            worker has made, see _slots.py
    workers, slot-0.lock, claims.lock
                            keep workers apart

A staged file without a record belongs to no session: a system crash has lost a record
that was not promised to survive it, or has undone the end of a release.

A session whose record was written during an earlier boot of the machine may have
suffered a system crash, and is repaired before it is used; see _recovery.py.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Literal
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred

from txbits.backends._threads import InThread
from txbits.backends.disk._claims import Claims
from txbits.backends.disk._close_memory import CloseMemory
from txbits.backends.disk._closes import Closes
from txbits.backends.disk._file_clock import FileClock
from txbits.backends.disk._files import Files, Removed, Step, storage_error, translated
from txbits.backends.disk._ownership import Ownership
from txbits.backends.disk._probe import FileSystem, Way
from txbits.backends.disk._records import Table
from txbits.backends.disk._slots import OF_EACH_SLOT
from txbits.backends.disk._syncs import (
    FolderSyncs,
    NameSyncs,
    SharedSync,
    Sync,
    gather_for,
)
from txbits.backends.disk._tree import MOMENT, Root, Tree
from txbits.backends.disk._write_behind import WriteBehind
from txbits.errors import BackendError, OutOfSpace

FsyncPolicy = Literal["close", "fragment", "never"]

#: The bytes to leave free on the file system when a file is accepted.
RESERVE = 1 << 20

#: The names of the files of sessions, including those that a server application may
#: leave on its way to a reply.
OF_A_SESSION = re.compile(r"([0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})\.(?s:.+)")

# How many directories are remembered as safe before all are forgotten.
_MOST_WAYS = 10_000

# How many names one step of a clean-up looks at.
_PIECE = 1000


@define(eq=False)
class _Space:
    """
    The free space of a file system.

    While there is plenty, it is looked at once a moment. Nobody is refused without a
    look, and who is accepted although others were faster fails when the disk is full.

    :param directory: The descriptor of a directory in it.
    :param root: The path to show.
    """

    _files: Files
    _directory: int
    _root: str
    _seconds: Callable[[], float]
    _seen: float = field(default=float("-inf"), init=False)
    _left: float = field(default=0, init=False)

    def need(self, length: int) -> None:
        """
        Check that *length* more bytes fit.

        :raises OutOfSpace: If they do not.
        """
        now = self._seconds()
        if length > self._left or not self._seen <= now < self._seen + MOMENT:
            self._look()
            self._seen = now
        if length and length > self._left:
            raise OutOfSpace(
                f"{self._root}: {length} bytes do not fit, {max(self._left, 0)} are "
                "free; free some space"
            )
        self._left -= length

    def _look(self) -> None:
        there = self._files.statvfs(self._directory)
        self._left = there.f_bavail * there.f_frsize - RESERVE
        if not (there.f_blocks and there.f_frsize):
            self._left = float("inf")  # the file system reports no numbers


@define(eq=False)
class Staging:
    """
    One slot of the staging area of a root, opened and locked: without workers, all of
    it.

    :ivar slot: Its number.
    :ivar path: Its absolute path.
    :ivar directory: It, opened.
    :ivar base: The staging area of the root, opened; slot 0 is the same.
    :ivar tree: Where its sessions are published.
    :ivar table: Their records.
    :ivar closes: The remembered closes.
    :ivar claims: What is good for one upload, in all slots.
    :ivar fsync: When bytes are made to survive a system crash.
    :ivar is_to_be_safe: Whether they ever are.
    :ivar in_thread: Calls functions that may block.
    :ivar sync: Calls fsync.
    :ivar seconds: Tells seconds since the epoch.
    :ivar answered: The sessions that an application was asked about; the others have no
        files of that.
    :ivar file_system: What the file system can do.
    :ivar root: The path of the root.
    :ivar ownership: Group and ACL of published files.
    :ivar disk_ahead: How many seconds the clock of the disk, which may be another
        machine's, is ahead of *seconds*.
    :ivar file_clock: The clock of its file system.
    :ivar write_behind: Writes long files while they arrive.
    :param held: The descriptors to close with it; the locks are last.
    :param own: The slot in which this process makes its sessions, if that is another
        one. What they have in common belongs to that.
    """

    slot: int
    files: Files
    path: str
    directory: int
    base: int
    tree: Tree
    table: Table
    closes: Closes
    fsync: FsyncPolicy
    seconds: Callable[[], float]
    in_thread: InThread
    sync: Sync
    answered: set[UUID]
    file_system: FileSystem
    root: Root
    ownership: Ownership
    claims: Claims
    file_clock: FileClock
    _held: tuple[int, ...]
    disk_ahead: float = 0.0
    _own: Staging | None = None
    is_to_be_safe: bool = field(init=False)
    sync_names: NameSyncs = field(init=False)
    sync_table: SharedSync = field(init=False)
    _sync_root: SharedSync = field(init=False)
    _sync_folder: FolderSyncs = field(init=False)
    sync_directory: SharedSync = field(init=False)
    close_memory: CloseMemory = field(init=False)
    write_behind: WriteBehind = field(init=False)
    _space: _Space = field(init=False)
    _safe_ways: set[tuple[str, ...]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.is_to_be_safe = self.fsync != "never"
        gather = gather_for(self.sync)
        self.sync_table = SharedSync(self.sync, self.table.fd, gather)
        if self._own is not None:
            self._share(self._own)
        else:
            self.sync_names = NameSyncs(self.sync, self.file_system.syncs_names)
            self._sync_root = SharedSync(self.sync_names, self.tree.fd, gather)
            self._sync_folder = FolderSyncs(self.files, self.sync_names, gather)
            self.write_behind = WriteBehind(self.files, self.in_thread)
            self._space = _Space(
                self.files, self.directory, self.root.path, self.seconds
            )
        self.sync_directory = SharedSync(self.sync_names, self.directory, gather)
        self.close_memory = CloseMemory(
            self.closes,
            self.table,
            self.in_thread,
            self.sync,
            self.sync_names,
            self.is_to_be_safe,
        )

    def _share(self, own: Staging) -> None:
        self.sync_names = own.sync_names
        self._sync_root = own._sync_root
        self._sync_folder = own._sync_folder
        self.write_behind = own.write_behind
        self._space = own._space
        self._safe_ways = own._safe_ways

    def close(self) -> None:
        """Give the slot back; with the own one, which is the last, the root."""
        self.closes.close()
        self.table.close()
        for fd in (self.directory, *self._held):
            with suppress(OSError):  # nothing was written through these
                self.files.close(fd)

    def sync_parent(
        self, fd: int, way: tuple[str, ...], there: os.stat_result
    ) -> Deferred[None]:
        """
        Make the names in a directory of the tree survive a system crash.

        :param fd: The directory, opened. It may be closed at once.
        :param way: Its path below the root.
        :param there: What ``fstat`` returned for it.
        :raises BackendError: If the process has too many open files.
        """
        if fd == self.tree.fd:
            return self._sync_root()
        # With the path, since the inode numbers of some file systems are not unique.
        return self._sync_folder(fd, (way, there.st_dev, there.st_ino))

    async def sync_way(self, segments: tuple[str, ...]) -> None:
        """
        Make the names of the directories above a destination survive a system crash.

        Another upload, or a process that was killed, may have created them without
        syncing. Each directory is synced once.

        :raises BackendError: If that fails.
        """
        way = segments[:-1]
        if way not in self._safe_ways:
            await self.in_thread(translated, self.tree.sync_way, segments)
            if len(self._safe_ways) >= _MOST_WAYS:
                self._safe_ways.clear()
            self._safe_ways.add(way)

    def sync_record(self, session_id: UUID) -> list[Deferred[None]]:
        """
        Make the record of a session survive a system crash.

        :returns: The fsyncs to wait for, all of them.
        :raises BackendError: If that fails.
        """
        syncs = [self.sync_table()]
        aside = translated(self.table.open_aside, session_id)
        if aside is not None:

            def synced(outcome: None) -> None:
                with suppress(OSError):  # nothing was written through it
                    self.files.close(aside)
                return outcome

            syncs += [self.sync(aside).addBoth(synced), self.sync_directory()]
        return syncs

    def need_space(self, length: int) -> None:
        """
        Check that *length* more bytes fit.

        :raises OutOfSpace: If they do not.
        """
        if self.file_system.tells_space:
            self._space.need(length)

    def clean_up(self, closed_before: float, concluded: int) -> Iterator[Step]:
        """
        Forget old closes, and remove files that belong to no session. Slow; each step
        is for a thread.

        :param concluded: See :meth:`Closes.clean_up`.
        :returns: The steps. After an error the clean-up continues.
        """
        yield from self.closes.clean_up(closed_before, concluded, self.seconds())
        if self._own is None:
            yield from self.claims.clean_up(self.seconds())
        names = self.files.listdir(self.directory)
        yield None
        for number, name in enumerate(names, 1):
            if not number % _PIECE:
                yield None
            match = OF_A_SESSION.fullmatch(name)
            # A session's record is made first, and ids are not reused, so a name that
            # is listed here without a record stays without one.
            if match is None or UUID(match[1]) in self.table:
                continue
            if self._is_evidence(name, closed_before):
                continue
            if self.table.damaged:
                # It may belong to a session whose record is among those.
                yield BackendError(f"{name} is kept: {self.table.damaged[0]}")
                continue
            try:
                self.files.unlink(name, dir_fd=self.directory)
            except FileNotFoundError:
                pass  # removed meanwhile
            except OSError as error:
                yield storage_error(error)
            else:
                yield Removed("stray")

    def is_empty(self) -> bool:
        """
        Tell whether nothing of a session is left, not even the memory of its close.

        :raises OSError: If that is not certain.
        """
        table = self.table
        if table.ids() or table.damaged or table.closed or not self.closes.is_empty():
            return False
        return OF_EACH_SLOT.issuperset(self.files.listdir(self.directory))

    def _is_evidence(self, name: str, closed_before: float) -> bool:
        """
        Whether a staged file without a record may be the only evidence that it was
        published. A Close may ask for that as long as closes are remembered.
        """
        if not name.endswith(".part"):
            return False
        staged = self.staged(name)
        return (
            staged is not None
            and (staged.st_nlink > 1 or self.file_system.way is Way.COMPARED)
            and staged.st_ctime - self.disk_ahead >= closed_before
        )

    def staged(self, part: str) -> os.stat_result | None:
        """
        Look at a staged file.

        :returns: ``None`` if it does not exist.
        :raises BackendError: If the staging area was removed.
        """
        try:
            return self.files.lstat(part, dir_fd=self.directory)
        except FileNotFoundError:
            if not self.files.fstat(self.directory).st_nlink:
                raise BackendError(
                    f"{self.path} was removed; restart txbits to create it again"
                ) from None
            return None
