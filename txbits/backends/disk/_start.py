"""
How the disk backend takes a root when it starts: one that is new, or that another
process has left.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any
from uuid import UUID

from attrs import define, evolve, frozen

from txbits._accounts import system_user
from txbits._workers import Worker
from txbits.backends._threads import InThread
from txbits.backends.disk._boot import take_over
from txbits.backends.disk._claims import Claims
from txbits.backends.disk._close_memory import recover_closes
from txbits.backends.disk._closes import Closes
from txbits.backends.disk._file_clock import FileClock
from txbits.backends.disk._files import DIRECTORY, Files, reason, with_remedy
from txbits.backends.disk._ownership import Ownership
from txbits.backends.disk._partition import Partition
from txbits.backends.disk._probe import (
    FileSystem,
    can_move,
    probe,
    remove_leftovers,
    sync_names,
)
from txbits.backends.disk._records import Table
from txbits.backends.disk._recovery import decide_published
from txbits.backends.disk._slots import (
    CLOSED,
    LOCK,
    LOCK_NAME,
    LOCK_OF_SLOT_0,
    WORKERS_NAME,
    InUse,
    agree_on_count,
    make_alike,
    remove_slot,
    slot_name,
    slots_among,
    take_root,
    take_slot,
)
from txbits.backends.disk._staging import OF_A_SESSION, FsyncPolicy, Staging
from txbits.backends.disk._syncs import Sync
from txbits.backends.disk._tree import Root, Tree
from txbits.errors import BackendError

# A disk's clock that seems wrong by fewer seconds may be right: some file systems count
# two seconds at a time, and most lag by the tick of a timer.
_ROUGHLY = 5.0

# For how many seconds to wait before a lock is tried again.
_PAUSE = 0.05

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def open_root(
    root: str,
    files: Files,
    fsync: FsyncPolicy,
    seconds: Callable[[], float],
    boot: bytes,
    in_thread: InThread,
    sync: Sync,
    *,
    create: bool,
    worker: Worker,
    patience: float = 0.0,
    go_on: Callable[[], None] = lambda: None,
) -> Partition:
    """
    Lock a root, create what is missing in it, and open its slots. Slow; for a thread.

    :param boot: The current boot of the machine.
    :param create: Whether to create the root if it is missing.
    :param worker: Which of the processes that use the root this is.
    :param patience: For how many seconds to wait for the locks of other processes.
    :param go_on: Called again and again; raises an exception to stop this.
    :returns: The slots of this process: the one in which it makes its sessions, and
        others in which something is left.
    :raises BackendError: In one line, if the root cannot be used.
    """
    start = _Start(root, files, fsync, seconds, boot, in_thread, sync, worker, go_on)
    ends = time.monotonic() + patience
    while True:
        try:
            return start.open(create=create)
        except InUse:
            # All locks are given back meanwhile, since several workers may wait.
            if time.monotonic() >= ends:
                raise
        except OSError as error:
            text = f"{root} cannot be used: {reason(error)}"
            raise BackendError(with_remedy(text, error)) from error
        go_on()
        time.sleep(_PAUSE)


@frozen
class _Place:
    """
    Where a slot lies.

    :ivar directory: The descriptor of its directory.
    :ivar lock: The descriptor of a file that only this process uses.
    """

    slot: int
    path: str
    directory: int
    lock: int


@define(eq=False)
class _Start:
    """One start; for its arguments see :func:`open_root`."""

    _root: str
    _files: Files
    _fsync: FsyncPolicy
    _seconds: Callable[[], float]
    _boot: bytes
    _in_thread: InThread
    _sync: Sync
    _worker: Worker
    _go_on: Callable[[], None]

    @property
    def _is_to_be_safe(self) -> bool:
        return self._fsync != "never"

    def open(self, *, create: bool) -> Partition:
        """Do it; see :func:`open_root`."""
        root, files = self._root, self._files
        if create:
            _make_root(files, root, self._is_to_be_safe)
        else:
            _require_root(files, root)
        path = os.path.join(os.path.realpath(root), ".bits-sessions")
        with suppress(FileExistsError):
            files.mkdir(path, 0o700)
        with ExitStack() as descriptors:
            base = self._opened(descriptors, path, _DIRECTORY)
            own = self._open_own(descriptors, path, base)
            adopted = {}
            for slot in slots_among(files.listdir(base)):
                self._go_on()
                if slot == own.slot or not self._worker.owns(slot):
                    continue
                with ExitStack() as those_of_slot:
                    staging = self._adopt(those_of_slot, slot, path, base, own)
                    if staging.is_empty():
                        remove_slot(files, base, slot)
                    else:
                        descriptors.enter_context(those_of_slot.pop_all())
                        adopted[slot] = staging
            descriptors.pop_all()
            return Partition(self._worker, own, adopted)

    def _opened(
        self, descriptors: ExitStack, path: str, flags: int, **where: int
    ) -> int:
        fd = self._files.open(path, flags, 0o600, **where)
        descriptors.callback(self._files.close, fd)
        return fd

    def _open_own(self, descriptors: ExitStack, path: str, base: int) -> Staging:
        """
        Open the slot in which this process makes its sessions, and the root.

        :param path: The path of the staging area.
        :param base: The descriptor of the staging area.
        """
        root, files, seconds = self._root, self._files, self._seconds
        worker = self._worker
        is_shared = worker.count > 1
        lock = self._opened(descriptors, LOCK_NAME, LOCK, dir_fd=base)
        no_lock = take_root(files, lock, root, worker)
        held = [lock]
        if is_shared:
            workers = self._opened(descriptors, WORKERS_NAME, LOCK, dir_fd=base)
            agree_on_count(files, workers, root, worker.count)
            held.append(workers)
        real = os.path.dirname(path)
        fd = self._opened(descriptors, real, _DIRECTORY)
        held.append(fd)
        if not files.access(real, os.W_OK | os.X_OK):
            raise BackendError(
                f"{root} is not writable; let user {system_user()} write there"
            )
        there, inside = files.fstat(fd), files.fstat(base)
        if worker.number:
            held.append(base)
            place = self._place(descriptors, worker.number, path, base)
        elif is_shared:
            own_lock = self._opened(descriptors, LOCK_OF_SLOT_0, LOCK, dir_fd=base)
            take_slot(files, own_lock, root)
            place = _Place(0, path, base, own_lock)
        else:
            place = _Place(0, path, base, lock)
        if place.lock != lock:
            held.append(place.lock)
        self._require_near(place, fd, there)
        disk_ahead = _disk_ahead(files, place.lock, seconds)
        file_system = probe(files, place.directory, syncs=self._is_to_be_safe)
        if no_lock:
            file_system = evolve(file_system, lacking=(no_lock, *file_system.lacking))
        if self._is_to_be_safe:
            # Whatever is synced later is reached through these names.
            for one in (base, fd):
                sync_names(files, one)
        tree = Tree(
            files,
            path=os.fsencode(real),
            fd=fd,
            device=there.st_dev,
            staging=(inside.st_dev, inside.st_ino),
            sync=self._is_to_be_safe and file_system.syncs_names,
            staged=place.directory,
            limits_names=file_system.limits_names,
        )
        return self._staging(
            descriptors,
            place,
            base,
            tree=tree,
            file_system=file_system,
            root=Root(files, root, fd, (there.st_dev, there.st_ino), seconds),
            claims=Claims(files, base, self._in_thread, is_shared),
            file_clock=FileClock(
                files,
                place.lock,
                shows_links=file_system.shows_links,
                is_shared=is_shared,
            ),
            held=tuple(reversed(held)),
            disk_ahead=disk_ahead,
        )

    def _adopt(
        self, descriptors: ExitStack, slot: int, path: str, base: int, own: Staging
    ) -> Staging:
        """Open a slot that another worker has left."""
        files, tree = self._files, own.tree
        place = self._place(descriptors, slot, path, base)
        self._require_near(place, tree.fd, files.fstat(tree.fd))
        remove_leftovers(files, place.directory)
        return self._staging(
            descriptors,
            place,
            base,
            tree=tree,
            file_system=own.file_system,
            root=own.root,
            claims=own.claims,
            file_clock=own.file_clock,
            held=(place.lock,),
            disk_ahead=own.disk_ahead,
            own=own,
        )

    def _place(self, descriptors: ExitStack, slot: int, path: str, base: int) -> _Place:
        """Make the directory of a slot, other than slot 0, and lock it."""
        files, name = self._files, slot_name(slot)
        with suppress(FileExistsError):
            files.mkdir(name, 0o700, dir_fd=base)
        path = os.path.join(path, name)
        directory = self._opened(descriptors, name, DIRECTORY, dir_fd=base)
        lock = self._opened(descriptors, LOCK_NAME, LOCK, dir_fd=directory)
        take_slot(files, lock, self._root)
        make_alike(files, directory, path, files.fstat(base))
        return _Place(slot, path, directory, lock)

    def _require_near(self, place: _Place, fd: int, there: os.stat_result) -> None:
        """
        Refuse a slot whose files could not be published.

        :param fd: The descriptor of the root.
        :param there: What ``fstat`` returns for it.
        """
        files, directory = self._files, place.directory
        if files.fstat(directory).st_dev != there.st_dev or not can_move(
            files, directory, fd
        ):
            raise BackendError(
                f"{place.path} is on another file system than {self._root}, so files "
                "could not be published from there; replace it with a plain directory"
            )

    def _staging(
        self,
        descriptors: ExitStack,
        place: _Place,
        base: int,
        *,
        file_system: FileSystem,
        disk_ahead: float,
        **others: Any,
    ) -> Staging:
        """
        Open the records of a slot, and take over what another process has left there.

        :param others: What the slots of a root have in common.
        """
        files, directory = self._files, place.directory
        is_to_be_safe = self._is_to_be_safe
        with suppress(FileExistsError):
            files.mkdir(CLOSED, 0o700, dir_fd=directory)
        closed = self._opened(descriptors, CLOSED, DIRECTORY, dir_fd=directory)
        closes = Closes(files, closed, is_to_be_safe)
        table = Table.opened(files, directory, self._boot, self._go_on)
        descriptors.callback(files.close, table.fd)
        take_over(
            files,
            directory,
            table,
            keeps=self._fsync == "fragment",
            disk_ahead=disk_ahead,
            seconds=self._seconds,
            go_on=self._go_on,
        )
        if is_to_be_safe:
            files.fsync(table.fd)
            sync_names(files, directory)
        recover_closes(files, closes, table, is_to_be_safe)
        staging = Staging(
            slot=place.slot,
            files=files,
            path=place.path,
            directory=directory,
            base=base,
            table=table,
            closes=closes,
            fsync=self._fsync,
            seconds=self._seconds,
            in_thread=self._in_thread,
            sync=self._sync,
            answered=_answered(files.listdir(directory)),
            file_system=file_system,
            ownership=Ownership.of_staging(files, os.getegid(), directory, file_system),
            disk_ahead=disk_ahead,
            **others,
        )
        decide_published(staging, self._go_on)
        return staging


def _require_root(files: Files, root: str) -> None:
    try:
        there = files.stat(root)
    except FileNotFoundError:
        raise BackendError(
            f"{root} does not exist; mount its volume or create the directory, or "
            "append :create=yes to have txbits create it"
        ) from None
    if not stat.S_ISDIR(there.st_mode):
        raise BackendError(f"{root} is not a directory; choose another path")


def _make_root(files: Files, root: str, is_to_be_safe: bool) -> None:
    """
    Create a directory and its missing parents.

    :param is_to_be_safe: Whether they have to survive a system crash.
    :raises OSError: If that fails.
    """
    parents = []
    path = os.path.abspath(root)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
        parents.append(path)
    os.makedirs(root, exist_ok=True)
    if not is_to_be_safe:
        return
    for parent in parents:
        fd = files.open(parent, _DIRECTORY)
        try:
            sync_names(files, fd)
        finally:
            files.close(fd)


def _disk_ahead(files: Files, fd: int, seconds: Callable[[], float]) -> float:
    """Measure how far the clock of a file's disk is ahead of the machine's."""
    try:
        # This takes the time from the disk's clock.
        files.utime(fd)
    except OSError:
        return 0.0  # assume that it is right
    there = files.fstat(fd)
    if abs(there.st_mtime - there.st_ctime) > _ROUGHLY:
        # Some FUSE file systems store another time than the current one, or do not
        # date changes.
        return 0.0
    ahead = there.st_mtime - seconds()
    return ahead if abs(ahead) > _ROUGHLY else 0.0


def _answered(names: list[str]) -> set[UUID]:
    """
    Find the sessions that an application was asked about.

    An answer, one under its temporary name, and a reply all count: after a system
    crash, any one of them may be alone.
    """
    # The pattern comes last: there may be a million names.
    matches = map(
        OF_A_SESSION.fullmatch,
        (name for name in names if not name.endswith((".part", ".part-new", ".json"))),
    )
    return {UUID(one[1]) for one in matches if one}
