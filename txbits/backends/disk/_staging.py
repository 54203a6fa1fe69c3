"""
The staging area of the disk backend: what lies in ``ROOT/.bits-sessions``, and how it
is read back.

::

    lock                    held while a server uses the root
    sessions-1              the records of the sessions, see _table.py
    {GUID}.json             a record that is too long for that
    {GUID}.part             the bytes of a session; the file's length is the offset, but
                            after a crash of the machine
    {GUID}.answer           what a server application answered, see _answer_file.py
    {GUID}.reply            its reply
    closed/0000000001       closes that are remembered, see _closes.py
    probe-...               while it is found out what there is, see _probe.py

A staged file without a record is nobody's: a crash of the machine has lost a record
that was never promised to survive one, or has taken back the end of a release.

A crash of the machine leaves of what was not synced whatever it likes, and so a session
that was written to before this start of the machine is settled before it is used; see
_recovery.py.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Literal
from uuid import UUID

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred

from txbits.backends._destinations import checked_segments
from txbits.backends._threads import InThread
from txbits.backends.disk import _lock
from txbits.backends.disk._answer_file import (
    Asked,
    UnreadableAnswer,
    read_answer,
)
from txbits.backends.disk._close_memory import CloseMemory, recover_closes
from txbits.backends.disk._closes import Closes
from txbits.backends.disk._file_clock import FileClock
from txbits.backends.disk._files import Files, storage_error, translated
from txbits.backends.disk._ownership import Ownership
from txbits.backends.disk._probe import FileSystem, Way, can_move, probe, sync_names
from txbits.backends.disk._records import Phase, Record, Table, part_name
from txbits.backends.disk._root import Root
from txbits.backends.disk._syncs import NameSyncs, SharedSync, Sync
from txbits.backends.disk._take_over import make_root, take_over
from txbits.backends.disk._tree import Tree
from txbits.errors import (
    BackendError,
    DestinationForbidden,
    DestinationIsDirectory,
    NoSuchSession,
    OutOfSpace,
    ParentMissing,
)
from txbits.interfaces import SessionSummary

FsyncPolicy = Literal["close", "fragment", "never"]

#: What is left free on the file system, in bytes, when a file is accepted.
RESERVE = 1 << 20

# How many directories are known to survive a crash; then it is begun anew.
_MOST_WAYS = 10_000

# Seconds by which the clock of a disk may seem to be wrong, and be right: some tell
# times by two seconds, and most behind by the tick of a timer.
_ROUGHLY = 5.0

# How much is compared at a time, in bytes.
_COMPARED = 1 << 20

# So many names are looked at in one piece of a clean-up.
_PIECE = 1000

# Also what an application may have put there on its way to a reply.
_OF_A_SESSION = re.compile(r"([0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})\.(?s:.+)")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _DIRECTORY | os.O_NOFOLLOW
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOCK = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


@frozen
class Found:
    """
    A session as it lies on disk.

    :ivar offset: How many bytes are staged; all of them if it is published.
    :ivar last_progress: When they were, in seconds since the epoch.
    :ivar published: Whether its file stands at the destination.
    :ivar in_doubt: Whether bytes that were acknowledged may be missing.
    :ivar asked: What an application answered, ``None`` if none was asked.
    :ivar is_settled: Whether all that lies there is as this says. If not, the machine
        may have crashed, and it is to be made so by
        :func:`~txbits.backends.disk._recovery.settle`.
    """

    record: Record
    offset: int
    last_progress: float
    published: bool
    in_doubt: bool
    asked: Asked | None = None
    is_settled: bool = True

    @property
    def releasing(self) -> bool:
        """Whether its release has begun."""
        return self.record.phase is Phase.RELEASING


@define(eq=False)
class Staging:
    """
    The staging area of one root, opened and locked.

    :ivar path: Its absolute path.
    :ivar directory: It, opened.
    :ivar tree: Where its sessions are published.
    :ivar table: Their records.
    :ivar closes: The closes that are remembered.
    :ivar fsync: When bytes are made to survive a crash of the machine.
    :ivar is_to_be_safe: Whether they are made to at all.
    :ivar in_thread: Calls what may take long.
    :ivar sync: Calls fsync.
    :ivar seconds: Tells seconds since the epoch.
    :ivar file_system: What the file system can do.
    :ivar root: Where the root is to be.
    :ivar ownership: Whose the published files are.
    :ivar disk_ahead: Seconds that the clock of the disk, which may be another
        machine's, is ahead of that of *seconds*.
    :ivar answered: The sessions that an application was asked about, so that the others
        need not be looked at for that.
    :ivar unsafe: The sessions that may hold more bytes than their records say are safe.
    :ivar file_clock: The clock of its file system.
    """

    files: Files
    path: str
    directory: int
    tree: Tree
    table: Table
    closes: Closes
    fsync: FsyncPolicy
    seconds: Callable[[], float]
    in_thread: InThread
    sync: Sync
    _lock: int
    answered: set[UUID]
    file_system: FileSystem
    root: Root
    ownership: Ownership
    disk_ahead: float = 0.0
    unsafe: set[UUID] = field(factory=set, init=False)
    is_to_be_safe: bool = field(init=False)
    sync_names: NameSyncs = field(init=False)
    sync_table: SharedSync = field(init=False)
    _sync_root: SharedSync = field(init=False)
    sync_directory: SharedSync = field(init=False)
    close_memory: CloseMemory = field(init=False)
    file_clock: FileClock = field(init=False)
    _safe_ways: set[tuple[str, ...]] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.is_to_be_safe = self.fsync != "never"
        self.sync_table = SharedSync(self.sync, self.table.fd)
        self.sync_names = NameSyncs(self.sync, self.file_system.syncs_names)
        self.sync_directory = SharedSync(self.sync_names, self.directory)
        self._sync_root = SharedSync(self.sync_names, self.tree.fd)
        self.close_memory = CloseMemory(
            self.closes, self.table, self.sync, self.sync_names, self.is_to_be_safe
        )
        self.file_clock = FileClock(
            self.files, self._lock, shows_links=self.file_system.shows_links
        )

    @classmethod
    def opened(
        cls,
        root: str,
        files: Files,
        fsync: FsyncPolicy,
        seconds: Callable[[], float],
        boot: bytes,
        in_thread: InThread,
        sync: Sync,
        go_on: Callable[[], None] = lambda: None,
    ) -> Staging:
        """
        Make what is missing of the root, and take it for this process. Slow; for a
        thread.

        :param boot: This start of the machine.
        :param go_on: Called again and again; what it raises ends this.
        :raises BackendError: In one line, if the root cannot be used.
        """
        descriptors: list[int] = []
        is_to_be_safe = fsync != "never"

        def opened(path: str, flags: int, **where: int) -> int:
            fd = files.open(path, flags, 0o600, **where)
            descriptors.append(fd)
            return fd

        try:
            make_root(files, root, is_to_be_safe)
            real = os.path.realpath(root)
            path = os.path.join(real, ".bits-sessions")
            for name in (path, os.path.join(path, "closed")):
                with suppress(FileExistsError):
                    files.mkdir(name, 0o700)
            directory = opened(path, _DIRECTORY)
            lock = opened("lock", _LOCK, dir_fd=directory)
            no_lock = _lock.take(files, lock, root)
            fd = opened(real, _DIRECTORY)
            if not files.access(real, os.W_OK | os.X_OK):
                raise BackendError(
                    f"{root} is not writable; let the user that txbits runs as write "
                    "there"
                )
            there = files.fstat(fd)
            device = there.st_dev
            inside = files.fstat(directory)
            if inside.st_dev != device or not can_move(files, directory, fd):
                raise BackendError(
                    f"{path} is on another file system than {root}; files could not "
                    "be published from there, so make it a directory of that one"
                )
            disk_ahead = _disk_ahead(files, lock, seconds)
            file_system = probe(files, directory, syncs=is_to_be_safe)
            if no_lock:
                file_system = evolve(
                    file_system, lacking=(no_lock, *file_system.lacking)
                )
            ownership = Ownership.of_staging(
                files, os.getegid(), directory, file_system
            )
            closed = opened("closed", _BELOW, dir_fd=directory)
            closes = Closes(files, closed, is_to_be_safe)
            table = Table.opened(files, directory, boot, go_on)
            descriptors.append(table.fd)
            take_over(
                files,
                directory,
                table,
                keeps=fsync == "fragment",
                disk_ahead=disk_ahead,
                seconds=seconds,
                go_on=go_on,
            )
            if is_to_be_safe:
                # The names in them, which whatever is made safe later lies behind.
                files.fsync(table.fd)
                for one in (directory, fd):
                    sync_names(files, one)
            recover_closes(files, closes, table, is_to_be_safe)
            answered = _answered(files.listdir(directory))
        except BaseException as error:
            for descriptor in descriptors:
                files.close(descriptor)
            if isinstance(error, OSError):
                raise BackendError(
                    f"{root} cannot be used: {error}; name a directory that the user "
                    "txbits runs as may write to"
                ) from error
            raise
        identity = (inside.st_dev, inside.st_ino)
        tree = Tree(
            files,
            os.fsencode(real),
            fd,
            device,
            identity,
            is_to_be_safe and file_system.syncs_names,
            directory,
            file_system.limits_names,
        )
        return cls(
            files,
            path,
            directory,
            tree,
            table,
            closes,
            fsync,
            seconds,
            in_thread,
            sync,
            lock,
            answered,
            file_system,
            Root(files, root, fd, (device, there.st_ino), seconds),
            ownership,
            disk_ahead,
        )

    def close(self) -> None:
        """Give the root back."""
        self.closes.close()
        self.table.close()
        for fd in (self.tree.fd, self._lock, self.directory):
            with suppress(OSError):  # nothing was written through these
                self.files.close(fd)

    def sync_parent(self, fd: int) -> Deferred[None]:
        """Make the names in a directory of the tree survive a crash of the machine."""
        return self._sync_root() if fd == self.tree.fd else self.sync_names(fd)

    async def sync_way(self, segments: tuple[str, ...]) -> None:
        """
        Make the names of the directories that a destination lies in survive a crash of
        the machine.

        Whoever has made them, as another upload just now, or a process that was killed,
        may not have come so far. Once is enough.

        :raises BackendError: If that cannot be done.
        """
        way = segments[:-1]
        if way not in self._safe_ways:
            await self.in_thread(translated, self.tree.sync_way, segments)
            if len(self._safe_ways) >= _MOST_WAYS:
                self._safe_ways.clear()
            self._safe_ways.add(way)

    def sync_record(self, session_id: UUID) -> list[Deferred[None]]:
        """
        Make the record of a session survive a crash of the machine.

        :returns: What is to be waited for, all of it.
        :raises BackendError: If that cannot be done.
        """
        syncs = [self.sync_table()]
        aside = translated(self.table.open_aside, session_id)
        if aside is not None:

            def synced(outcome: None) -> None:
                with suppress(OSError):  # it was only read
                    self.files.close(aside)
                return outcome

            syncs += [self.sync(aside).addBoth(synced), self.sync_directory()]
        return syncs

    def sync_record_in_thread(self, session_id: UUID) -> None:
        """
        Do the same, and wait. For a thread.

        :raises OSError: If that cannot be done.
        """
        files = self.files
        aside = self.table.open_aside(session_id)
        if aside is not None:
            try:
                files.fsync(aside)
            finally:
                files.close(aside)
            sync_names(files, self.directory)
        files.fsync(self.table.fd)

    def need_space(self, length: int) -> None:
        """
        Look whether *length* more bytes fit.

        :raises OutOfSpace: If they do not.
        """
        if not self.file_system.tells_space:
            return
        there = self.files.statvfs(self.directory)
        if not (there.f_blocks and there.f_frsize):
            return  # these zeros stand for no numbers
        free = there.f_bavail * there.f_frsize - RESERVE
        if length and length > free:
            raise OutOfSpace(f"{length} bytes do not fit: {max(free, 0)} are free")

    def load(self, session_id: UUID) -> Found:
        """
        Read a session back.

        :raises NoSuchSession: If there is none.
        :raises BackendError: If it cannot be read.
        """
        part = part_name(session_id)
        staged = self.staged(part)
        try:
            record = self.table.read(session_id)
        except NoSuchSession:
            if staged is not None and self.table.damaged:
                raise BackendError(
                    f"{part} may be of a session whose record cannot be read"
                ) from self.table.damaged[0]
            raise
        has_crashed = record.boot != self.table.boot
        asked = self._asked(session_id, has_crashed)
        if asked is not None and asked.has_taken:
            # The application may have moved or changed the bytes, or linked them to
            # wherever it likes.
            last = asked.written if staged is None else staged.st_mtime
            last -= self.disk_ahead
            return Found(record, record.total or 0, last, False, False, asked)
        # What was acknowledged may be missing, if there was no fsync before.
        in_doubt = record.in_doubt or (has_crashed and not record.is_kept)
        is_settled = not has_crashed or record.phase is Phase.RELEASING
        total, phase = record.total, record.phase
        if staged is None:
            published = phase in (Phase.PUBLISHING, Phase.PUBLISHED) and (
                not has_crashed or self._stands(record.destination, total)
            )
            return Found(
                record,
                (total or 0) if published else 0,
                (asked.written - self.disk_ahead)
                if asked is not None and asked.written
                else record.created,
                published,
                # There was a staged file once.
                not published
                and (in_doubt or (phase is not Phase.RELEASING and total is not None)),
                asked,
                is_settled,
            )
        if (
            total is None
            and has_crashed
            and self.is_linked(record.destination, staged, staged.st_size)
        ):
            # It was synced before it was linked; the record was not.
            record = evolve(record, total=staged.st_size)
            total = record.total
        if total is None:
            # A crash of the machine has lost the total, and the Ack that it came
            # before, if there was one, was not for keeping.
            return Found(record, 0, record.created, False, in_doubt, asked, is_settled)
        if staged.st_size > total:
            raise BackendError(f"{part} has {staged.st_size} bytes")
        # After a crash of the machine the record may be wrong: the link may be lost.
        published = (phase is Phase.PUBLISHED and not has_crashed) or self.is_linked(
            record.destination, staged, total
        )
        offset = staged.st_size
        if not (is_settled or published):
            # One whose release has begun is as long as ever: that takes as long.
            offset = min(offset, record.safe)
        return Found(
            record,
            offset,
            staged.st_mtime - self.disk_ahead,
            published,
            # What is known to have been there may be gone all the same.
            offset < total and (in_doubt or offset < record.safe),
            asked,
            is_settled,
        )

    def note_unsafe(self, found: Found) -> None:
        """Note whether a session may hold more than its record says is safe."""
        record = found.record
        if found.offset > record.safe and self.is_to_be_safe and not found.published:
            self.unsafe.add(record.session_id)

    def _asked(self, session_id: UUID, has_crashed: bool) -> Asked | None:
        """
        Read back what an application answered.

        :raises BackendError: If it cannot be read.
        """
        if session_id not in self.answered:
            return None
        try:
            return read_answer(self.files, self.directory, session_id)
        except UnreadableAnswer as error:
            if has_crashed:
                # Only that the application was asked is not made to survive that, or
                # nothing is.
                return Asked()
            raise BackendError(str(error)) from error

    def is_linked(
        self, destination: tuple[str, ...], staged: os.stat_result, total: int
    ) -> bool:
        """Whether a staged file is the one at its destination."""
        if staged.st_nlink < 2 or staged.st_size != total:
            return False
        there = self._at(destination)
        return there is not None and os.path.samestat(there, staged)

    def is_same(self, session_id: UUID, segments: tuple[str, ...], parent: int) -> bool:
        """
        Tell whether what stands at a destination has the bytes of a staged file. It may
        take long, so it is for a thread.

        That is how it is known again where a link cannot be seen to be one: it was made
        before a crash, or could not be taken back.

        :param parent: The descriptor of the directory that the destination is in.
        :raises BackendError: If that cannot be told, like OSError.
        """
        files = self.files
        part = part_name(session_id)
        there = self.tree.check_name(parent, segments, overwrite=True)
        here = self.staged(part)
        if (
            here is None
            or there is None
            or not stat.S_ISREG(there.st_mode)
            or there.st_size != here.st_size
        ):
            return False
        staged = files.open(part, _READ, dir_fd=self.directory)
        try:
            other = files.open(segments[-1].encode(), _READ, dir_fd=parent)
            try:
                return _same_bytes(files, staged, other)
            finally:
                files.close(other)
        finally:
            files.close(staged)

    def _stands(self, destination: tuple[str, ...], total: int | None) -> bool:
        """
        Whether a file stands at a destination that may be the one published there.

        The name of the staged file need not have got to the disk for its record to,
        so that it is gone does not say that it was published.
        """
        there = self._at(destination)
        return (
            there is not None and stat.S_ISREG(there.st_mode) and there.st_size == total
        )

    def _at(self, destination: tuple[str, ...]) -> os.stat_result | None:
        """Look at what stands at a destination."""
        try:
            segments = checked_segments(destination)
            parent = self.tree.open_parent(segments)
            try:
                return self.tree.check_name(parent, segments, overwrite=True)
            finally:
                self.tree.let_go(parent)
        except (DestinationForbidden, DestinationIsDirectory, ParentMissing):
            return None

    def summaries(
        self, session_ids: Iterable[UUID]
    ) -> tuple[list[SessionSummary], list[BackendError]]:
        """
        Read sessions back. Slow; for a thread.

        :returns: What :meth:`load` finds, and the faults of what it fails on.
        """
        found: list[SessionSummary] = []
        faults: list[BackendError] = []
        for session_id in session_ids:
            try:
                one = self.load(session_id)
            except NoSuchSession:
                continue  # gone meanwhile
            except BackendError as fault:
                faults.append(fault)
            except OSError as error:
                faults.append(storage_error(error))
            else:
                self.note_unsafe(one)
                found.append(
                    SessionSummary(
                        session_id,
                        one.record.owner,
                        one.last_progress,
                        one.published or one.releasing,
                        one.published and not one.releasing,
                    )
                )
        return found, faults

    def clean_up(
        self, closed_before: float, concluded: int
    ) -> Iterator[BackendError | None]:
        """
        Forget old closes, remove what is no session's. Slow; each step is for a thread.

        :param concluded: See :meth:`Closes.clean_up`.
        :returns: The steps: the fault of something that could not be removed, which
            ends nothing, or ``None`` after a piece of work.
        """
        yield from self.closes.clean_up(closed_before, concluded, self.seconds())
        names = self.files.listdir(self.directory)
        yield None
        for number, name in enumerate(names, 1):
            if not number % _PIECE:
                yield None
            match = _OF_A_SESSION.fullmatch(name)
            # A record is there before all else of its session, and ids are never used
            # again, so what is listed here and has none will not get one.
            if match is None or UUID(match[1]) in self.table:
                continue
            if self._is_evidence(name, closed_before):
                continue
            if self.table.damaged:
                # It may be of a session whose record is among those.
                yield BackendError(f"{name} is kept: {self.table.damaged[0]}")
                continue
            try:
                self.files.unlink(name, dir_fd=self.directory)
            except FileNotFoundError:
                pass  # somebody else has done it
            except OSError as error:
                yield storage_error(error)

    def _is_evidence(self, name: str, closed_before: float) -> bool:
        """
        Whether a staged file without a record may be the only thing that tells that it
        was published: for as long as closes are remembered, a Close may ask for that.
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

        :raises BackendError: If all of them are gone.
        """
        try:
            return self.files.lstat(part, dir_fd=self.directory)
        except FileNotFoundError:
            if not self.files.fstat(self.directory).st_nlink:
                raise BackendError(
                    f"{self.path} was removed; restart txbits to begin anew"
                ) from None
            return None


def _disk_ahead(files: Files, fd: int, seconds: Callable[[], float]) -> float:
    """Find out how far the clock of a file's disk is ahead of that of the machine."""
    try:
        # The time is the disk's word.
        files.utime(fd)
    except OSError:
        return 0.0  # one that cannot be asked is taken for right
    there = files.fstat(fd)
    if abs(there.st_mtime - there.st_ctime) > _ROUGHLY:
        # Some FUSE file systems store another time than the present one, or do not
        # date changes.
        return 0.0
    ahead = there.st_mtime - seconds()
    return ahead if abs(ahead) > _ROUGHLY else 0.0


def _answered(names: list[str]) -> set[UUID]:
    # All that lies there for that: an answer, one that was not there yet under its own
    # name, and a reply, which may be all that a crash of the machine has left. Not by
    # the pattern at first: there may be a million names.
    matches = map(
        _OF_A_SESSION.fullmatch,
        (name for name in names if not name.endswith((".part", ".part-new", ".json"))),
    )
    return {UUID(one[1]) for one in matches if one}


def _same_bytes(files: Files, one: int, other: int) -> bool:
    at = 0
    while True:
        bytes_of_one = files.pread(one, _COMPARED, at)
        if bytes_of_one != files.pread(other, _COMPARED, at):
            return False
        if not bytes_of_one:
            return True
        at += len(bytes_of_one)
