"""
A file on disk that was opened to be served.
"""

from __future__ import annotations

import os
import stat

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer

from txbits.backends._files import Files
from txbits.backends._reading import Reading
from txbits.backends._served import IFeeder, ServedFile
from txbits.backends._work import InThread, translated
from txbits.errors import BackendError, StagedDataLost

# A pipe that somebody has put in the file's place would keep the open waiting.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_plain(files: Files, name: str | bytes, directory: int) -> int:
    """
    Open a file to be read, if it is one.

    :raises OSError: If it cannot be opened, or is a symbolic link.
    :raises BackendError: If it is no plain file.
    """
    fd = files.open(name, _READ, dir_fd=directory)
    if not stat.S_ISREG(files.fstat(fd).st_mode):
        files.close(fd)
        raise BackendError(f"{os.fsdecode(name)!a} is no plain file")
    return fd


@define(eq=False)
class DiskFile(ServedFile):
    """
    The file behind a descriptor; see :class:`~txbits.interfaces.IStoredFile`.

    :param fd: The descriptor, which is this object's from now on.
    """

    _files: Files
    _in_thread: InThread
    _fd: int
    _seen: tuple[int, int]

    @classmethod
    def of(cls, files: Files, in_thread: InThread, fd: int) -> DiskFile:
        """
        Take an open file as it is now.

        :raises OSError: If it cannot be looked at; the descriptor is closed then.
        """
        try:
            there = files.fstat(fd)
        except BaseException:
            files.close(fd)
            raise
        return cls(
            there.st_size,
            there.st_mtime,
            f"{there.st_ino:x}-{there.st_mtime_ns:x}-{there.st_size:x}",
            files,
            in_thread,
            fd,
            _version(there),
        )

    def feeder(self, consumer: IConsumer) -> IFeeder:
        """Make what reads it, a piece at a time."""

        def read(offset: int, length: int) -> Deferred[bytes]:
            return self._in_thread(translated, self._read, offset, length)

        return Reading(consumer, read)

    def _read(self, offset: int, length: int) -> bytes:
        data = self._files.pread(self._fd, length, offset)
        if _version(self._files.fstat(self._fd)) != self._seen:
            raise StagedDataLost("the file was changed while it was read")
        return data

    def shut(self) -> None:
        """Close the descriptor."""
        translated(self._files.close, self._fd)


def _version(there: os.stat_result) -> tuple[int, int]:
    return there.st_mtime_ns, there.st_size
