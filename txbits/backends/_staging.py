"""
The staging area of the disk backend: what lies in ``ROOT/.bits-sessions``, and how it
is read back.

::

    lock                    held while a server uses the root
    sessions-1              the records of the sessions, see _table.py
    {GUID}.json             a record that is too long for that
    {GUID}.part             the bytes of a session; the file's length is the offset
    {GUID}.answer           what a server application answered, see _answer_file.py
    {GUID}.reply            its reply
    closed/0000000001       closes that are remembered, see _closes.py
    probe-...               while it is found out what there is, see _probe.py

A staged file without a record is nobody's: the release of its session was cut short,
or a crash of the machine has lost a record that was never promised to survive one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Literal
from uuid import UUID

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred

from txbits.backends import _lock
from txbits.backends._answer_file import (
    ENDING,
    Asked,
    UnreadableAnswer,
    read_answer,
)
from txbits.backends._closes import Closes
from txbits.backends._file_clock import FileClock
from txbits.backends._files import Files
from txbits.backends._ownership import Ownership
from txbits.backends._paths import checked_segments
from txbits.backends._probe import FileSystem, can_move, probe
from txbits.backends._root import Root
from txbits.backends._syncs import NameSyncs, SharedSync, Sync
from txbits.backends._table import Phase, Record, Table, part_name
from txbits.backends._tree import Tree
from txbits.backends._work import InThread, storage_error
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

# How wrong the clock may have been when the machine was started, in seconds.
_CLOCK_ERROR = 60.0

# Seconds by which the clock of a disk may seem to be wrong, and be right: some tell
# times by two seconds, and most behind by the tick of a timer.
_ROUGHLY = 5.0

# So many names are looked at in one piece of a clean-up.
_PIECE = 1000

# Also what an application may have put there on its way to a reply.
_OF_A_SESSION = re.compile(r"([0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12})\.(?s:.+)")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_BELOW = _DIRECTORY | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
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
    """

    record: Record
    offset: int
    last_progress: float
    published: bool
    in_doubt: bool
    asked: Asked | None = None

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
    booted: Callable[[], float]
    in_thread: InThread
    sync: Sync
    _lock: int
    answered: set[UUID]
    file_system: FileSystem
    root: Root
    ownership: Ownership
    disk_ahead: float = 0.0
    sync_names: NameSyncs = field(init=False)
    sync_table: SharedSync = field(init=False)
    _sync_root: SharedSync = field(init=False)
    sync_directory: SharedSync = field(init=False)
    file_clock: FileClock = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.sync_table = SharedSync(self.sync, self.table.fd)
        self.sync_names = NameSyncs(self.sync, self.file_system.syncs_names)
        self.sync_directory = SharedSync(self.sync_names, self.directory)
        self._sync_root = SharedSync(self.sync_names, self.tree.fd)
        self.file_clock = FileClock(self.files, self._lock)

    @classmethod
    def opened(
        cls,
        root: str,
        files: Files,
        fsync: FsyncPolicy,
        seconds: Callable[[], float],
        booted: Callable[[], float],
        in_thread: InThread,
        sync: Sync,
        go_on: Callable[[], None] = lambda: None,
    ) -> Staging:
        """
        Make what is missing of the root, and take it for this process. Slow; for a
        thread.

        :param go_on: Called again and again; what it raises ends this.

        :raises BackendError: In one line, if the root cannot be used.
        """
        descriptors: list[int] = []

        def opened(path: str, flags: int, **where: int) -> int:
            fd = files.open(path, flags, 0o600, **where)
            descriptors.append(fd)
            return fd

        try:
            os.makedirs(root, exist_ok=True)
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
            file_system = probe(files, directory, syncs=fsync != "never")
            if no_lock:
                file_system = evolve(
                    file_system, lacking=(no_lock, *file_system.lacking)
                )
            ownership = Ownership.of_staging(
                files, os.getegid(), directory, file_system
            )
            closes = Closes(files, opened("closed", _BELOW, dir_fd=directory))
            table = Table.opened(files, directory, go_on)
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
            fsync != "never" and file_system.syncs_names,
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
            booted,
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
        staged = self._staged(part)
        try:
            record = self.table.read(session_id)
        except NoSuchSession:
            if staged is not None and self.table.damaged:
                raise BackendError(
                    f"{part} may be of a session whose record cannot be read"
                ) from self.table.damaged[0]
            raise
        asked = self._asked(session_id)
        if asked is not None and asked.has_taken:
            # The application may have moved or changed the bytes, or linked them to
            # wherever it likes.
            last = asked.written if staged is None else staged.st_mtime
            last -= self.disk_ahead
            return Found(record, record.total or 0, last, False, False, asked)
        total, phase = record.total, record.phase
        if staged is None:
            published = phase in (Phase.PUBLISHING, Phase.PUBLISHED)
            return Found(
                record,
                (total or 0) if published else 0,
                record.created if asked is None else asked.written - self.disk_ahead,
                published,
                # There was a staged file once.
                self._is_in_doubt(record.created)
                or (phase is Phase.OPEN and total is not None),
                asked,
            )
        in_doubt = self._is_in_doubt(staged.st_mtime)
        if total is None:
            # A crash of the machine has lost the total, and the Ack that it came
            # before, if there was one, was not for keeping.
            return Found(record, 0, record.created, False, in_doubt, asked)
        if staged.st_size > total:
            raise BackendError(f"{part} has {staged.st_size} bytes")
        # After a crash of the machine the record may be wrong: the link may be lost.
        published = (
            phase is Phase.PUBLISHED and not self.may_have_crashed(staged.st_ctime)
        ) or self._is_linked(record.destination, staged, total)
        return Found(
            record,
            staged.st_size,
            staged.st_mtime - self.disk_ahead,
            published,
            in_doubt,
            asked,
        )

    def _asked(self, session_id: UUID) -> Asked | None:
        """
        Read back what an application answered.

        :raises BackendError: If it cannot be read.
        """
        if session_id not in self.answered:
            return None
        try:
            return read_answer(self.files, self.directory, session_id)
        except UnreadableAnswer as error:
            if self.may_have_crashed(error.changed):
                # Only that the application was asked is not made to survive that, or
                # nothing is.
                return Asked()
            raise BackendError(str(error)) from error

    def measure(self, session_id: UUID) -> int:
        """
        Find out up to where the bytes of a session in doubt are there. For a thread.

        A crash of the machine may leave a length that is ahead of the bytes: what was
        never written is a hole then, and is cut off.

        :returns: How many bytes are left.
        """
        files = self.files
        fd = files.open(part_name(session_id), _WRITE, dir_fd=self.directory)
        try:
            length = files.fstat(fd).st_size
            sure = files.lseek(fd, 0, os.SEEK_HOLE) if length else 0
            if sure < length:
                files.ftruncate(fd, sure)
            return sure
        finally:
            files.close(fd)

    def _is_linked(
        self, destination: tuple[str, ...], staged: os.stat_result, total: int
    ) -> bool:
        """Whether a staged file is the one at its destination."""
        if staged.st_nlink < 2 or staged.st_size != total:
            return False
        try:
            segments = checked_segments(destination)
            parent = self.tree.open_parent(segments)
            try:
                there = self.tree.check_name(parent, segments, overwrite=True)
            finally:
                self.tree.let_go(parent)
        except (DestinationForbidden, DestinationIsDirectory, ParentMissing):
            return False
        return there is not None and os.path.samestat(there, staged)

    def _is_in_doubt(self, last_progress: float) -> bool:
        # The page cache survives the process, but not the machine.
        return self.fsync != "fragment" and self.may_have_crashed(last_progress)

    def may_have_crashed(self, since: float) -> bool:
        """Whether the machine may have, after that time."""
        return since < self.booted() + _CLOCK_ERROR

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

    def _staged(self, part: str) -> os.stat_result | None:
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
    ahead = files.fstat(fd).st_mtime - seconds()
    return ahead if abs(ahead) > _ROUGHLY else 0.0


def _answered(names: list[str]) -> set[UUID]:
    # Also where it was not there yet under its own name.
    matches = map(_OF_A_SESSION.fullmatch, (name for name in names if ENDING in name))
    return {UUID(one[1]) for one in matches if one}
