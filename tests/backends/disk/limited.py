"""
Disks that lack what ext4 has, as FUSE, network and stacked file systems do.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib

from tests.backends.disk.mortal import MortalFiles
from txbits.backends.disk._files import Files

#: No hard links, and no rename without replacing, as on some FUSE file systems.
NEITHER = {"link": errno.EPERM, "rename_no_replace": errno.EINVAL}


_TIMES = ("st_atime_ns", "st_mtime_ns", "st_ctime_ns", "st_mtime", "st_ctime")
_MAKING = ("link", "rename_no_replace")


class LimitedFiles(MortalFiles):
    """
    Mortal files on a disk of this kind.

    :ivar lacking: What each call fails with that there is not, by its name;
        ``sync_names`` is the fsync of a directory.
    :ivar has_inodes: Whether all names of a file have one inode number.
    :ivar is_full: Whether there is no room for another name.
    :ivar refused: Characters that no name may have.
    :ivar is_space_told: Whether ``statvfs`` has more to say than zeros.
    """

    def __init__(self, has_inodes=True, refused="", is_full=False, **lacking):
        super().__init__()
        self.limit(has_inodes, refused, is_full, **lacking)

    def limit(self, has_inodes=True, refused="", is_full=False, **lacking):
        self.is_full = is_full
        self.lacking = lacking
        self.has_inodes = has_inodes
        self.refused = refused
        self.is_space_told = True

    def __getattr__(self, name):
        call = super().__getattr__(name)

        def made(*args, **kwargs):
            made = call
            lacks = self.lacking.get(name)
            if lacks is None and self.is_full and name in _MAKING:
                lacks = errno.ENOSPC
            if name == "fsync" and lacks is None and stat.S_ISDIR(_mode(args[0])):
                lacks = self.lacking.get("sync_names")
            if lacks is not None:
                # It is counted, and dies, like all others.
                self.fail(name, lacks)
            return made(*args, **kwargs)

        return made

    def mkdir(self, path, *args, dir_fd=None):
        try:
            Files.lstat(path, dir_fd=dir_fd)
        except FileNotFoundError:
            if self.is_full:
                self.fail("mkdir", errno.ENOSPC)
        self.__getattr__("mkdir")(path, *args, dir_fd=dir_fd)

    def open(self, path, flags, *args, **kwargs):
        if self.is_full and flags & os.O_EXCL:
            self.fail("open", errno.ENOSPC)
        if flags & os.O_CREAT and any(one in os.fsdecode(path) for one in self.refused):
            self.fail("open", errno.EINVAL)
        return self.__getattr__("open")(path, flags, *args, **kwargs)

    def lstat(self, path, *, dir_fd):
        there = self.__getattr__("lstat")(path, dir_fd=dir_fd)
        return self._numbered(there, Files.fstat(dir_fd).st_ino, os.fsencode(path))

    def fstat(self, fd):
        there = self.__getattr__("fstat")(fd)
        place, name = os.path.split(os.readlink(b"/proc/self/fd/%d" % fd))
        return self._numbered(there, os.stat(place).st_ino, name)

    def _numbered(self, there, place, name):
        if self.has_inodes or stat.S_ISDIR(there.st_mode):
            return there
        numbers = list(there)
        numbers[stat.ST_INO] = zlib.crc32(b"%d %b" % (place, name))
        return os.stat_result(numbers, {one: getattr(there, one) for one in _TIMES})

    def statvfs(self, path):
        if self.is_space_told:
            return super().statvfs(path)
        return os.statvfs_result((512, *[0] * 8, 255))


def _mode(fd):
    return Files.fstat(fd).st_mode


def without_links():
    """exFAT, vfat, CIFS."""
    return LimitedFiles(link=errno.EPERM, sync_names=errno.EINVAL)


def with_links_that_do_not_show():
    """FUSE file systems that give each name a number, and know no flags of rename."""
    return LimitedFiles(has_inodes=False, rename_no_replace=errno.EINVAL)


def without_either():
    """FUSE file systems without links."""
    return LimitedFiles(**NEITHER)
