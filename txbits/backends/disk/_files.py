"""
The system calls of the disk backend, all in one place.

Tests put an object of their own here, that fails or "dies" at the n-th call.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, fail, succeed

from txbits._renaming import rename_without_replacing
from txbits.errors import BackendError, OutOfSpace

T = TypeVar("T")

#: What a system call fails with where nothing more fits. A file that grows too long for
#: its file system does not fit either.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

#: Read only what the page cache has; 0 where the kernel cannot be asked so.
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)

_OPEN_FILE_LOCK = getattr(fcntl, "F_OFD_SETLK", None)


class Files:
    """
    What the disk backend asks of the operating system.

    Most functions stand here as they are, so that going through this costs nothing.
    """

    access = staticmethod(os.access)
    close = staticmethod(os.close)
    fchmod = staticmethod(os.fchmod)
    fchown = staticmethod(os.fchown)
    flock = staticmethod(fcntl.flock)
    fstat = staticmethod(os.fstat)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    getxattr = staticmethod(os.getxattr)
    link = staticmethod(os.link)
    listxattr = staticmethod(os.listxattr)
    lstat = staticmethod(os.lstat)
    mkdir = staticmethod(os.mkdir)
    open = staticmethod(os.open)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    removexattr = staticmethod(os.removexattr)
    rename = staticmethod(os.rename)
    rename_no_replace = staticmethod(rename_without_replacing)
    rmdir = staticmethod(os.rmdir)
    setxattr = staticmethod(os.setxattr)
    stat = staticmethod(os.stat)
    statvfs = staticmethod(os.statvfs)
    unlink = staticmethod(os.unlink)
    utime = staticmethod(os.utime)

    @staticmethod
    def lock_open_file(fd: int) -> None:
        """
        Lock a whole file for this opening of it, with ``fcntl``, as ``flock`` does.

        :raises BlockingIOError: If somebody else has.
        :raises OSError: If it fails, with ``ENOSYS`` where there is no such call.
        """
        if _OPEN_FILE_LOCK is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        # struct flock: for writing, from the beginning, as long as files get; a lock
        # of an opening has no process.
        everything = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(fd, _OPEN_FILE_LOCK, everything)
        except PermissionError as error:  # POSIX allows both
            raise BlockingIOError(*error.args) from None

    @staticmethod
    def umask() -> int:
        """What is taken from the permissions of new files; it is left as it is."""
        return int(_word_of("/proc/self/status", "Umask"), 8)

    @staticmethod
    def mount_id(fd: int) -> str:
        """What tells the mounts apart that files were opened on."""
        return _word_of(f"/proc/self/fdinfo/{fd}", "mnt_id")

    @staticmethod
    def pread_cached(fd: int, length: int, offset: int) -> bytes | None:
        """
        Read what can be read without waiting for a disk.

        :returns: Some bytes, none at the end of the file; ``None`` if it would wait,
            or that cannot be told.
        """
        if not _NO_WAIT:
            return None
        buffer = bytearray(length)
        try:
            count = os.preadv(fd, [buffer], offset, _NO_WAIT)
        except OSError:
            # It would wait, or this file system cannot tell; or there is a fault, which
            # whoever reads without this comes upon as well.
            return None
        return bytes(memoryview(buffer)[:count])

    @staticmethod
    def listdir(directory: int) -> list[str]:
        """
        The names in an open directory.

        It is opened anew: two who read one descriptor at the same time, each in a
        thread, would get one part of the names each.
        """
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            return os.listdir(fd)
        finally:
            os.close(fd)


def _word_of(path: str, name: str) -> str:
    with open(path) as file:
        for line in file:
            word, _, value = line.partition(":")
            if word == name:
                return value.strip()
    raise OSError(errno.ENOSYS, f"no {name} in {path}")


def storage_error(error: OSError) -> BackendError:
    """Make a failed system call into what the interfaces fail with."""
    return (OutOfSpace if error.errno in FULL else BackendError)(str(error))


def translated(function: Callable[..., T], *args: Any) -> T:
    """
    Call *function*, and raise a BackendError in place of an OSError.

    :raises BackendError: Chained to the OSError.
    """
    try:
        return function(*args)
    except OSError as error:
        raise storage_error(error) from error


def at_once(function: Callable[..., T], *args: Any) -> Deferred[T]:
    """
    Call *function* here and now.

    :returns: A Deferred that has fired already, with the outcome.
    """
    # Not by way of translated(): this is called many times for a small upload.
    try:
        return succeed(function(*args))
    except OSError as error:
        fault = storage_error(error)
        fault.__cause__ = error
        return fail(fault)
    except BaseException:  # noqa: BLE001 - the Deferred carries it
        return fail()
