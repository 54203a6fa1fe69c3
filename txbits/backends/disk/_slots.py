"""
The slots of a root, and the locks that keep the servers of a root apart.

A server without workers has the whole root: it locks ``lock``. Workers share that lock,
so that they exclude such a server, and each locks the slots that it has. The length of
the file ``workers`` is their number: a root is used by workers of one number, or their
slots would have two owners.

Slot 0 is the staging area itself, and the others are directories in it. Which sessions
a slot has follows from their ids; see :mod:`txbits._workers`.
"""

from __future__ import annotations

import fcntl
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress

from twisted.logger import Logger

from txbits._accounts import system_user
from txbits._workers import MOST_WORKERS, Worker
from txbits.backends.disk._files import DIRECTORY, READ_WRITE, Files, opened, remove
from txbits.backends.disk._probe import NO_LOCKS
from txbits.backends.disk._records import TABLE
from txbits.errors import BackendError

_log = Logger()

#: How lock files are opened.
LOCK = READ_WRITE | os.O_CREAT

#: What is locked while a root is used, or, within a slot, while that is.
LOCK_NAME = "lock"

#: The directory of the remembered closes of a slot.
CLOSED = "closed"

#: Has as many bytes as there are workers.
WORKERS_NAME = "workers"

#: What the worker that has slot 0 locks; the file :data:`LOCK_NAME` is all workers'.
LOCK_OF_SLOT_0 = "slot-0.lock"

#: The names of what each slot has, also if nothing is left in it.
OF_EACH_SLOT = frozenset({LOCK_NAME, TABLE, CLOSED})

_SLOT = re.compile(r"slot-([1-9][0-9]{0,2})")


class InUse(BackendError):
    """Another process has a lock that this one needs."""


def slot_name(slot: int) -> str:
    """The name of the directory of a slot; not of slot 0."""
    return f"slot-{slot}"


def slots_among(names: Iterable[str]) -> list[int]:
    """Which slots there are besides slot 0, by the names in the staging area."""
    matches = map(_SLOT.fullmatch, names)
    slots = sorted(int(one[1]) for one in matches if one is not None)
    return [slot for slot in slots if slot < MOST_WORKERS]


# -- locks


def take_lock(
    files: Files, fd: int, *, shared: bool = False, wait: bool = False
) -> str:
    """
    Lock a file for as long as a descriptor of it is open.

    :param fd: The descriptor, open for reading and writing.
    :param shared: Whether others may share the lock.
    :param wait: Whether to wait for it. It blocks then.
    :returns: What the file system lacks for that, in words; empty if nothing.
    :raises BlockingIOError: If another process has the lock.
    :raises OSError: If locking fails in another way; with one of ``NO_LOCKS`` if it is
        not supported.
    """
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        files.flock(fd, how if wait else how | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        lacking = f"flock ({error.strerror}; fcntl is used)"
    else:
        return ""
    files.lock_open_file(fd, shared=shared, wait=wait)
    return lacking


def take_root(files: Files, lock: int, root: str, worker: Worker) -> str:
    """
    Lock a root.

    :param lock: The descriptor of its lock file.
    :param root: The root's name in errors.
    :returns: As :func:`take_lock`.
    :raises InUse: If another server has it.
    :raises BackendError: If locks are not supported.
    :raises OSError: If locking fails in another way.
    """
    try:
        return take_lock(files, lock, shared=worker.count > 1)
    except BlockingIOError:
        raise _in_use(root) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise BackendError(
            f"{root} is on a file system without locks ({error.strerror}), so two "
            "servers could use it at once; enable locks (NFS: start the lock service, "
            "Lustre: mount with -o flock), or choose a directory on another file system"
        ) from error


def agree_on_count(files: Files, fd: int, root: str, count: int) -> None:
    """
    Make sure that all workers that use a root go by the same number of workers.

    :param fd: The descriptor of the file ``workers``.
    :param root: The root's name in errors.
    :param count: How many workers there are.
    :raises InUse: If there is a worker that goes by another number.
    :raises OSError: If that fails.
    """
    with suppress(BlockingIOError):  # another worker was first
        take_lock(files, fd)
        files.ftruncate(fd, count)
    # Nobody has the lock alone for longer than the call above takes. Another worker may
    # get it before it is shared, and change the number.
    take_lock(files, fd, shared=True, wait=True)
    if files.fstat(fd).st_size != count:
        raise _in_use(root)


def take_slot(files: Files, lock: int, root: str) -> None:
    """
    Lock a slot.

    :param lock: The descriptor of its lock file.
    :param root: The root's name in errors.
    :raises InUse: If another worker has it.
    :raises OSError: If locking fails in another way.
    """
    try:
        take_lock(files, lock)
    except BlockingIOError:
        raise _in_use(root) from None


def _in_use(root: str) -> InUse:
    return InUse(
        f"{root} is in use by another txbits; stop that one, or give this "
        "one a directory of its own"
    )


# -- directories


def make_alike(files: Files, directory: int, path: str, base: os.stat_result) -> None:
    """
    Give the directory of a slot the group and mode of the staging area.

    An operator changes these for a server application.

    :param directory: The descriptor of the slot's directory.
    :param path: Its path.
    :param base: What ``fstat`` returns for the staging area.
    :raises OSError: If that fails. If this process may not set the group, it logs that
        instead.
    """
    there = files.fstat(directory)
    if there.st_gid != base.st_gid:
        try:
            files.fchown(directory, -1, base.st_gid)
        except PermissionError as error:
            _log.warn(
                "cannot give {path} the group of the staging area, {gid} ({reason}); "
                "add user {user} to that group",
                path=path,
                gid=base.st_gid,
                reason=error.strerror,
                user=system_user(),
            )
    if stat.S_IMODE(there.st_mode) != stat.S_IMODE(base.st_mode):
        files.fchmod(directory, stat.S_IMODE(base.st_mode))


def remove_slot(files: Files, base: int, slot: int) -> None:
    """
    Remove the directory of a slot in which nothing is left. It blocks.

    If this is interrupted, the next start finds the slot again, and nothing in it.

    :param base: The descriptor of the staging area.
    :raises OSError: If that fails.
    """
    name = slot_name(slot)
    with opened(files, name, DIRECTORY, base) as directory:
        remove(files, TABLE, directory)
        with suppress(FileNotFoundError):  # an earlier attempt was interrupted
            files.rmdir(CLOSED, dir_fd=directory)
        remove(files, LOCK_NAME, directory)
    files.rmdir(name, dir_fd=base)
