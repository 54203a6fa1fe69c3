"""
The files that the client leaves behind: how they are made, locked, made durable, and
given their names.

Not every file system does what ext4 does. What one cannot do is found out by trying,
and each time anew: a USB stick may be in place of the disk by now. All of it blocks,
for as long as the disk takes.
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

#: What a file system says that has no locks, no links, or whatever else was asked for.
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
    """A file bears a name that is ours to give, and was not made by us."""


@frozen
class Files:
    """
    Does what the client does with files of its own.

    :ivar flock: Locks a file.
    :ivar fsync: Makes a file durable.
    :ivar link: Gives a file another name.
    :ivar rename: Gives a file another name instead, if nobody has it.
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
        Make a file of a name that is ours to give, for reading and writing.

        Whatever bears it is from a run that was killed, or planted, and loses it. It is
        not followed, emptied or written to.
        """
        with suppress(FileNotFoundError):
            os.unlink(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return self.open(path, flags, mode)

    def write(self, path: str, data: bytes, *, is_durable: bool = True) -> None:
        """
        Write a small file as a whole, which only this user may read.

        :param is_durable: Whether it has to be on the disk before it takes the name, so
            that after a crash of the machine it is the old one or the new one. One that
            is not may be anything then.
        """
        temporary = f"{path}.new"
        descriptor = self.create(temporary)
        try:
            self.fill(descriptor, data, is_durable=is_durable)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)

    def fill(self, descriptor: int, data: bytes, *, is_durable: bool = True) -> None:
        """Write all of a small file, and have it on the disk if it is to be durable."""
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if is_durable:
            self.fsync(descriptor)

    def place(self, descriptor: int, path: str, target: str) -> None:
        """
        Give a whole file its name, unless there is one that bears it.

        A link does that, or a renaming that replaces nothing. Where neither can be, an
        empty file takes the name first, which nobody else can then have, and is
        replaced.

        :param descriptor: The file, which is open.
        :param path: Its name so far.
        :raises FileExistsError: If there is one that bears it.
        """
        try:
            self.link(path, target)
        except FileExistsError:
            # NFS repeats a request whose answer was lost, and finds its own work.
            if not is_at(descriptor, target):
                raise
        except OSError:
            # Whatever the reason was: if it is not about links it comes again.
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
        Make a name durable, as far as the file system does such a thing.

        :param path: The name.
        :param descriptor: The file that bears it. A folder that may not be read cannot
            be synced; most file systems write the name with the file, too.
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
    Look whether a file that we found may be one that we made.

    Where several users can make files, another one could have planted it: to see what
    we write, to write it himself, or to have us write over a file of our own that he
    made a link to.

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
    Tell whether files of that owner are ours.

    On CIFS and the like, and on NFS for root, what we make is not owned by who we are.
    There a new file shows who we are taken for.

    :param path: The file, of which it is told; a new one is made beside it, if needed.
    :param user: Who we are; the user of this process if ``None``.
    """
    if owner == (os.geteuid() if user is None else user):
        return True
    probe = f"{path}.owner"
    try:
        descriptor = FILES.create(probe)
    except OSError:
        # Nothing is made here, by us or for us.
        return False
    try:
        os.unlink(probe)
        return os.fstat(descriptor).st_uid == owner
    finally:
        os.close(descriptor)


def is_at(descriptor: int, path: str) -> bool:
    """Tell whether the file that is open bears a name."""
    try:
        there = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return os.path.samestat(os.fstat(descriptor), there)


def make_folder(path: Path) -> None:
    """
    Make a folder that only this user may look into, and those above it.

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
    Read a small file of ours that was found.

    :returns: ``None`` if it is not there, or none that we made; or if it is longer.
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


#: As the operating system does it.
FILES = Files()
