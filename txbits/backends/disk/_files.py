"""
The system calls of the disk backend, and what their failures mean.

Quick calls are made at once, on the reactor's thread: handing one to a thread costs
more than the call. Tests replace :class:`Files` with an object that fails or "dies" at
the n-th call.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, fail, succeed

from txbits._accounts import system_user
from txbits._renaming import rename_without_replacing
from txbits.errors import BackendError, OutOfSpace

T = TypeVar("T")

# How files of ours are opened: never through a symbolic link.
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
DIRECTORY = READ | os.O_DIRECTORY

#: What a system call fails with where nothing more fits. A file that grows too long for
#: its file system does not fit either.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

# linux/fs.h: begin to write what is not being written yet, and wait for nothing.
_SYNC_FILE_RANGE_WRITE = 2

# Read only from the page cache; 0 if the kernel does not support that.
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)

_OPEN_FILE_LOCK = getattr(fcntl, "F_OFD_SETLK", None)
_OPEN_FILE_LOCK_WAITING = getattr(fcntl, "F_OFD_SETLKW", None)

#: What was read from the page cache last. A buffer of its own for each read would cost
#: as much as the read itself, since it is cleared first.
_CACHED = memoryview(bytearray(1 << 18))


def begin_writing(fd: int, first: int, length: int) -> None:
    """
    Let the kernel begin to write a part of a file to the disk. It may block.

    :raises OSError: If that fails; with ``ENOSYS`` if the C library or the kernel does
        not support it.
    """
    function = _sync_file_range()
    if function is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if function(fd, first, length, _SYNC_FILE_RANGE_WRITE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@cache
def _sync_file_range() -> Any:
    # If the C library has no such function, ctypes raises AttributeError.
    function = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if function is not None:
        function.argtypes = (
            ctypes.c_int,
            ctypes.c_int64,
            ctypes.c_int64,
            ctypes.c_uint,
        )
    return function


class Files:
    """
    What the disk backend asks of the operating system.

    Most functions are here unchanged, so that the indirection costs nothing.
    """

    access = staticmethod(os.access)
    begin_writing = staticmethod(begin_writing)
    close = staticmethod(os.close)
    dup = staticmethod(os.dup)
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
    def lock_open_file(fd: int, *, shared: bool = False, wait: bool = False) -> None:
        """
        Lock a whole file with ``fcntl`` for this open file description, like ``flock``.

        :param shared: Whether others may share the lock.
        :param wait: Whether to wait for it.
        :raises BlockingIOError: If it is locked.
        :raises OSError: If locking fails, with ``ENOSYS`` if there is no such call.
        """
        command = _OPEN_FILE_LOCK_WAITING if wait else _OPEN_FILE_LOCK
        if command is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        # struct flock: for reading or writing, from the start, to the end of any file;
        # such a lock belongs to no process.
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        everything = struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(fd, command, everything)
        except PermissionError as error:  # POSIX allows both
            raise BlockingIOError(*error.args) from None

    @staticmethod
    def umask() -> int:
        """The umask of this process, without changing it."""
        return int(_word_of("/proc/self/status", "Umask"), 8)

    @staticmethod
    def mount_id(fd: int) -> str:
        """The id of the mount that a file was opened on."""
        return _word_of(f"/proc/self/fdinfo/{fd}", "mnt_id")

    @staticmethod
    def pread_cached(fd: int, length: int, offset: int) -> memoryview | None:
        """
        Read bytes if they are in the page cache. Only the reactor's thread may do that.

        :returns: Some bytes, none at the end of the file. They change with the next
            call. ``None`` if reading would wait for the disk, or if that is unknown.
        """
        if not _NO_WAIT:
            return None
        buffer = _CACHED[:length]
        try:
            count = os.preadv(fd, [buffer], offset, _NO_WAIT)
        except OSError:
            # Reading would wait, or the file system cannot tell. After a real error,
            # the caller's ordinary read fails in the same way.
            return None
        return buffer[:count]

    @staticmethod
    def listdir(directory: int) -> list[str]:
        """
        List the names in an open directory.

        It is opened again, since two threads that read one descriptor would each get a
        part of the names.
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


@contextmanager
def opened(
    files: Files, name: str | bytes, flags: int, directory: int, mode: int = 0o600
) -> Iterator[int]:
    """
    Open a file in a directory, and close it at the end.

    :param directory: The descriptor of the directory.
    :raises OSError: If opening or closing fails.
    """
    fd = files.open(name, flags, mode, dir_fd=directory)
    try:
        yield fd
    finally:
        files.close(fd)


@frozen
class Removed:
    """
    What a step of a clean-up has removed.

    :ivar kind: What it was; see :class:`~txbits.interfaces.ICleaning`.
    :ivar count: How many there were.
    """

    kind: str
    count: int = 1


#: What a step of a clean-up has done: found something that cannot be removed, removed
#: something, or neither.
Step = BackendError | Removed | None


def remove(files: Files, name: str, directory: int) -> None:
    """
    Remove a file from a directory, if it exists.

    :param directory: The descriptor of the directory.
    :raises OSError: If that fails.
    """
    with suppress(FileNotFoundError):
        files.unlink(name, dir_fd=directory)


def reason(error: OSError) -> str:
    """Say what failed, without the number of the error."""
    if error.strerror is None:
        return str(error)
    if isinstance(error.filename, str | bytes) and error.filename2 is None:
        return f"{error.strerror} ({os.fsdecode(error.filename)})"
    return error.strerror


def with_remedy(text: str, error: OSError) -> str:
    """Append to *text*, which tells of *error*, what an operator can do about it."""
    if error.errno in FULL:
        return f"{text}; free some space, or raise the quota or limit"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"{text}; let user {system_user()} write there"
    if error.errno == errno.EROFS:
        return f"{text}; mount the file system for writing"
    return text


def storage_error(error: OSError, path: str = "") -> BackendError:
    """
    Translate a failed system call.

    :param path: The root or directory that it failed in, if that is known.
    :returns: The error to raise, of one line.
    """
    kind = OutOfSpace if error.errno in FULL else BackendError
    return kind(with_remedy(f"{path}: {reason(error)}" if path else str(error), error))


def translated(function: Callable[..., T], *args: Any) -> T:
    """
    Call *function*, and raise a BackendError instead of an OSError.

    :raises BackendError: Chained to the OSError.
    """
    try:
        return function(*args)
    except OSError as error:
        raise storage_error(error) from error


def at_once(function: Callable[..., T], *args: Any) -> Deferred[T]:
    """
    Call *function* now.

    :returns: A Deferred that has fired with the outcome; a BackendError instead of an
        OSError.
    """
    # Without translated(): this is called many times for a small upload.
    try:
        return succeed(function(*args))
    except OSError as error:
        fault = storage_error(error)
        fault.__cause__ = error
        return fail(fault)
    except BaseException:  # noqa: BLE001 - the Deferred carries it
        return fail()
