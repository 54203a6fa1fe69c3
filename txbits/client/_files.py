"""
How the client creates, locks, syncs and renames its own files.

File systems differ in what they support. That is found out by trying, each time,
because another file system may have been mounted in between. All functions block.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from attrs import frozen

from txbits._renaming import rename_without_replacing

#: What a system call fails with if the file system does not support it.
_CANNOT = frozenset(
    {
        errno.EINVAL,
        errno.ENOLCK,
        errno.ENOSYS,
        errno.ENOTSUP,
        errno.EOPNOTSUPP,
        errno.EPERM,
    }
)

#: What opening or syncing a folder fails with where that cannot be done.
_NO_FOLDER_SYNC = _CANNOT | {errno.EACCES, errno.EBADF, errno.EISDIR}


class NotOurs(OSError):
    """A file has one of our names, but we did not create it."""


@frozen
class Files:
    """
    The system calls for the client's own files.

    :ivar flock: Locks a file.
    :ivar fsync: Makes a file durable.
    :ivar link: Creates a hard link.
    :ivar rename: Renames a file, but does not replace another.
    :ivar open: Opens a file or a folder.
    """

    flock: Callable[[int, int], None] = fcntl.flock
    fsync: Callable[[int], None] = os.fsync
    link: Callable[[str, str], None] = os.link
    rename: Callable[[str, str], None] = rename_without_replacing
    open: Callable[..., int] = os.open

    def lock(
        self, descriptor: int, kind: int = fcntl.LOCK_EX, *, wait: bool = False
    ) -> bool:
        """
        Lock a file, for as long as it is open.

        :param kind: ``LOCK_EX`` or ``LOCK_SH``.
        :param wait: Whether to wait while another process has it locked.
        :returns: Whether it is locked; if not, the file system has no locks.
        :raises BlockingIOError: If another process has it locked.
        """
        try:
            self.flock(descriptor, kind if wait else kind | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
            return False
        return True

    def open_locked(
        self, path: str, mode: int = 0o600, *, wait: bool = False
    ) -> tuple[int, bool]:
        """
        Open the file that has a name, or make it, and lock it.

        :param wait: Whether to wait while another process has it locked.
        :returns: Its descriptor, and whether it is locked; if not, the file system has
            no locks.
        :raises BlockingIOError: If another process has locked it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            descriptor = self.open(path, flags, mode)
            try:
                is_locked = self.lock(descriptor, wait=wait)
                if is_at(descriptor, path):
                    return descriptor, is_locked
            except BaseException:
                os.close(descriptor)
                raise
            # It was replaced or removed between opening and locking.
            os.close(descriptor)

    def create(self, path: str, mode: int = 0o600) -> int:
        """
        Create a file with one of our names, for reading and writing.

        A file that has the name is from a killed run, or was planted. It is unlinked,
        but not followed, truncated or written to.
        """
        with suppress(FileNotFoundError):
            os.unlink(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return self.open(path, flags, mode)

    def write(self, path: str, data: bytes, *, is_durable: bool = True) -> None:
        """
        Replace a small file, which only this user can read.

        :param is_durable: Whether to sync the file before it gets the name. Then a
            crash of the machine leaves the old file or the new one; otherwise it may
            leave anything.
        """
        temporary = f"{path}.new"
        descriptor = self.create(temporary)
        try:
            self.fill(descriptor, data, is_durable=is_durable)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)

    def replace_locked(self, path: str, data: bytes) -> int:
        """
        Replace a small file by a new version, which is locked before it gets the name.

        :returns: The descriptor of the new version.
        """
        temporary = f"{path}.new"
        descriptor = self.create(temporary)
        try:
            self.lock(descriptor)
            self.fill(descriptor, data)
            os.replace(temporary, path)
            self.sync_folder_of(path, descriptor)
        except BaseException:
            os.close(descriptor)
            # It would fill the disk.
            with suppress(OSError):
                os.unlink(temporary)
            raise
        return descriptor

    def fill(self, descriptor: int, data: bytes, *, is_durable: bool = True) -> None:
        """Write a small file, and sync it if *is_durable*."""
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if is_durable:
            self.fsync(descriptor)

    def place(self, descriptor: int, path: str, target: str) -> None:
        """
        Give a complete file its final name, unless another file has it.

        This uses a hard link, or a rename that replaces nothing. Without support for
        either, an empty file reserves the name and is then replaced.

        :param descriptor: The open file.
        :param path: Its present name.
        :raises FileExistsError: If another file has the final name.
        """
        try:
            self.link(path, target)
        except FileExistsError:
            # NFS repeats a request whose answer was lost.
            if not is_at(descriptor, target):
                raise
        except OSError:
            # If the reason is not about links, renaming fails with it, too.
            self._rename(path, target)
            return
        os.unlink(path)

    def _rename(self, path: str, target: str) -> None:
        try:
            self.rename(path, target)
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        else:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        claim = self.open(target, flags, 0o600)
        try:
            os.replace(path, target)
        except BaseException:
            if is_at(claim, target):
                os.unlink(target)
            raise
        finally:
            os.close(claim)

    def sync_folder_of(self, path: str, descriptor: int) -> None:
        """
        Make a name durable, as far as the file system supports that.

        :param path: The name.
        :param descriptor: The open file. It is synced if its directory cannot be: most
            file systems then write the name, too.
        """
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            folder = self.open(os.path.dirname(path) or os.curdir, flags)
            try:
                self.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            if error.errno not in _NO_FOLDER_SYNC:
                raise
            self.fsync(descriptor)


def check_ours(descriptor: int, path: str) -> None:
    """
    Check that this user created a file that was found.

    In a shared directory another user may have planted it: to read or change what is
    written, or to have a file of this user overwritten by way of a hard link.

    :raises NotOurs: If not.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        words = "is not a regular file, or has several hard links"
    elif not is_owner(status.st_uid, path):
        words = "belongs to another user"
    else:
        return
    raise NotOurs(errno.EEXIST, f"{path} {words}; remove it", path)


def is_owner(owner: int, path: str, user: int | None = None) -> bool:
    """
    Check whether this user created a file, by its owner.

    On file systems such as CIFS, and on NFS for root, new files get another owner. If
    the owner is not this user, a new file is created to compare with.

    :param path: The file; the new one is created beside it.
    :param user: The user ID; that of this process if ``None``.
    """
    if owner == (os.geteuid() if user is None else user):
        return True
    probe = f"{path}.owner"
    try:
        descriptor = FILES.create(probe)
    except OSError:
        # No file can be created here.
        return False
    try:
        os.unlink(probe)
        return os.fstat(descriptor).st_uid == owner
    finally:
        os.close(descriptor)


def is_at(descriptor: int, path: str) -> bool:
    """Check whether a name belongs to an open file."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def make_folder(path: Path) -> None:
    """
    Create a directory that only this user can access, and its parents.

    "If, when attempting to write a file, the destination directory is non-existent an
    attempt should be made to create it with permission 0700" (XDG Base Directory
    Specification).
    """
    if path.is_dir():
        return
    if os.path.lexists(path):
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if path.parent != path:
        make_folder(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)


def read_up_to(path: str, most: int) -> bytes | None:
    """
    Read a small file that this user created.

    :returns: ``None`` if there is no such file, or if it is longer.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        return None
    try:
        check_ours(descriptor, path)
        data = os.read(descriptor, most + 1)
    except NotOurs:
        return None
    finally:
        os.close(descriptor)
    return data if len(data) <= most else None


#: The calls of the operating system.
FILES = Files()
