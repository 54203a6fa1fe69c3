"""
The system calls of the disk backend, all in one place.

Tests put an object of their own here, that fails or "dies" at the n-th call.
"""

from __future__ import annotations

import fcntl
import os

#: Read only what the page cache has; 0 where the kernel cannot be asked so.
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)


class Files:
    """
    What the disk backend asks of the operating system.

    Most functions stand here as they are, so that going through this costs nothing.
    """

    access = staticmethod(os.access)
    close = staticmethod(os.close)
    flock = staticmethod(fcntl.flock)
    fstat = staticmethod(os.fstat)
    fsync = staticmethod(os.fsync)
    ftruncate = staticmethod(os.ftruncate)
    link = staticmethod(os.link)
    lstat = staticmethod(os.lstat)
    mkdir = staticmethod(os.mkdir)
    open = staticmethod(os.open)
    pread = staticmethod(os.pread)
    pwrite = staticmethod(os.pwrite)
    rename = staticmethod(os.rename)
    statvfs = staticmethod(os.statvfs)
    unlink = staticmethod(os.unlink)

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
