"""
How the disk backend takes a root when it starts: one that is new, or that another
process has left.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from hashlib import blake2b
from uuid import UUID

from attrs import evolve
from twisted.logger import Logger

from txbits._accounts import system_user
from txbits.backends._threads import InThread
from txbits.backends.disk._close_memory import recover_closes
from txbits.backends.disk._closes import Closes
from txbits.backends.disk._files import (
    DIRECTORY,
    READ_WRITE,
    Files,
    reason,
    with_remedy,
)
from txbits.backends.disk._ownership import Ownership
from txbits.backends.disk._probe import NO_LOCKS, can_move, probe, sync_names
from txbits.backends.disk._records import Table
from txbits.backends.disk._staged import part_name
from txbits.backends.disk._staging import OF_A_SESSION, FsyncPolicy, Staging
from txbits.backends.disk._syncs import Sync
from txbits.backends.disk._tree import Root, Tree
from txbits.errors import BackendError

_log = Logger()

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# A time namespace shifts the times since the boot for a process and its children. Tests
# that simulate a reboot use one, under the same kernel.
_SHIFTS = "/proc/self/timens_offsets"

# How wrong the clock may have been at boot, in seconds, where an older version has left
# no other evidence; and how far in the future a time may be.
_CLOCK_ERROR = 60.0

# A disk's clock that seems wrong by fewer seconds may be right: some file systems count
# two seconds at a time, and most lag by the tick of a timer.
_ROUGHLY = 5.0

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK = READ_WRITE | os.O_CREAT


def this_boot(boot_id: str = _BOOT_ID, shifts: str = _SHIFTS) -> bytes:
    """
    Name the current boot of the machine. It blocks.

    The page cache survives a crash of the process, but not one of the system, and a
    session's boot tells which one happened. Times do not tell: clocks are set, and are
    wrong after a crash more often than at any other moment.

    :param boot_id: The kernel's file with the name.
    :param shifts: The file of the offsets of the process's time namespace.
    :returns: 16 hexadecimal digits, the same until the machine reboots. If the kernel
        gives no name, they differ each time, so that each start counts as one after a
        system crash.
    """
    try:
        with open(boot_id, "rb") as file:
            name = file.read(64).strip()
        if not name:
            raise OSError(f"{boot_id} is empty")
    except OSError as error:
        _log.warn(
            "cannot read the kernel's boot id: {error}; each restart of the server is "
            "treated as a reboot, and clients resend bytes that were not synced",
            error=error,
        )
        name = os.urandom(16)
    try:
        with open(shifts, "rb") as file:
            name += file.read(256)
    except OSError as error:
        _log.debug("no time namespaces here: {error}", error=error)
    return blake2b(name, digest_size=8).hexdigest().encode()


def open_staging(
    root: str,
    files: Files,
    fsync: FsyncPolicy,
    seconds: Callable[[], float],
    boot: bytes,
    in_thread: InThread,
    sync: Sync,
    *,
    create: bool,
    go_on: Callable[[], None] = lambda: None,
) -> Staging:
    """
    Lock a root, create what is missing in it, and open its staging area. Slow; for a
    thread.

    :param boot: The current boot of the machine.
    :param create: Whether to create the root if it is missing.
    :param go_on: Called again and again; raises an exception to stop this.
    :raises BackendError: In one line, if the root cannot be used.
    """
    try:
        with ExitStack() as descriptors:

            def opened(path: str, flags: int, **where: int) -> int:
                fd = files.open(path, flags, 0o600, **where)
                descriptors.callback(files.close, fd)
                return fd

            is_to_be_safe = fsync != "never"
            if create:
                _make_root(files, root, is_to_be_safe)
            else:
                _require_root(files, root)
            real = os.path.realpath(root)
            path = os.path.join(real, ".bits-sessions")
            for name in (path, os.path.join(path, "closed")):
                with suppress(FileExistsError):
                    files.mkdir(name, 0o700)
            directory = opened(path, _DIRECTORY)
            lock = opened("lock", _LOCK, dir_fd=directory)
            no_lock = _take_lock(files, lock, root)
            fd = opened(real, _DIRECTORY)
            if not files.access(real, os.W_OK | os.X_OK):
                raise BackendError(
                    f"{root} is not writable; let user {system_user()} write there"
                )
            there, inside = files.fstat(fd), files.fstat(directory)
            if inside.st_dev != there.st_dev or not can_move(files, directory, fd):
                raise BackendError(
                    f"{path} is on another file system than {root}, so files could not "
                    "be published from there; replace it with a plain directory"
                )
            disk_ahead = _disk_ahead(files, lock, seconds)
            file_system = probe(files, directory, syncs=is_to_be_safe)
            if no_lock:
                file_system = evolve(
                    file_system, lacking=(no_lock, *file_system.lacking)
                )
            closed = opened("closed", DIRECTORY, dir_fd=directory)
            closes = Closes(files, closed, is_to_be_safe)
            table = Table.opened(files, directory, boot, go_on)
            descriptors.callback(files.close, table.fd)
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
                # Whatever is synced later is reached through these names.
                files.fsync(table.fd)
                for one in (directory, fd):
                    sync_names(files, one)
            recover_closes(files, closes, table, is_to_be_safe)
            tree = Tree(
                files,
                path=os.fsencode(real),
                fd=fd,
                device=there.st_dev,
                staging=(inside.st_dev, inside.st_ino),
                sync=is_to_be_safe and file_system.syncs_names,
                staged=directory,
                limits_names=file_system.limits_names,
            )
            staging = Staging(
                files=files,
                path=path,
                directory=directory,
                tree=tree,
                table=table,
                closes=closes,
                fsync=fsync,
                seconds=seconds,
                in_thread=in_thread,
                sync=sync,
                lock=lock,
                answered=_answered(files.listdir(directory)),
                file_system=file_system,
                root=Root(files, root, fd, (there.st_dev, there.st_ino), seconds),
                ownership=Ownership.of_staging(
                    files, os.getegid(), directory, file_system
                ),
                disk_ahead=disk_ahead,
            )
            descriptors.pop_all()
            return staging
    except OSError as error:
        text = f"{root} cannot be used: {reason(error)}"
        raise BackendError(with_remedy(text, error)) from error


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


def _take_lock(files: Files, fd: int, root: str) -> str:
    """
    Lock a root for as long as the descriptor of its lock file is open.

    :param fd: That descriptor, open for writing.
    :param root: The root's name in errors.
    :returns: What the file system lacks for that, in words; empty if nothing.
    :raises BackendError: If another server has the lock, or locks are not supported.
    :raises OSError: If locking fails in another way.
    """
    try:
        try:
            files.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            lacking = f"flock ({error.strerror}; fcntl is used)"
        else:
            return ""
        try:
            files.lock_open_file(fd)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            raise BackendError(
                f"{root} is on a file system without locks ({error.strerror}), so two "
                "servers could use it at once; enable locks (NFS: start the lock "
                "service, Lustre: mount with -o flock), or choose a directory on "
                "another file system"
            ) from error
    except BlockingIOError:
        raise BackendError(
            f"{root} is in use by another txbits; stop that one, or give this "
            "one a directory of its own"
        ) from None
    return lacking


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


def _up() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def take_over(
    files: Files,
    directory: int,
    table: Table,
    *,
    keeps: bool,
    disk_ahead: float = 0.0,
    seconds: Callable[[], float] = time.time,
    up: Callable[[], float] = _up,
    go_on: Callable[[], None] = lambda: None,
) -> None:
    """
    Update the records that another process has left. It blocks.

    :param directory: The descriptor of the staging area.
    :param keeps: Whether only safe bytes are acknowledged from now on.
    :param disk_ahead: How far the disk's clock is ahead of *seconds*.
    :param seconds: Tells seconds since the epoch.
    :param up: Tells for how many seconds the machine has been up.
    :param go_on: Called again and again; raises an exception to stop this. The next
        start continues.
    :raises OSError: If that fails.
    """
    for session_id in list(table.older):
        go_on()
        try:
            staged = files.lstat(part_name(session_id), dir_fd=directory)
        except FileNotFoundError:
            changed = table.read(session_id).created
        else:
            changed = staged.st_ctime - disk_ahead
        now = seconds()
        # A time that seems to be in the future proves nothing: the clock was set since,
        # or is not set yet.
        is_known = now - up() + _CLOCK_ERROR <= changed <= now + _CLOCK_ERROR
        table.renew(session_id, has_crashed=not is_known)
    if not keeps:
        table.unkeep()
