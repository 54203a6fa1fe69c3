"""
A file on disk that was opened to be served.
"""

from __future__ import annotations

import os
import stat

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.backends._files import Files
from txbits.backends._reading import Reading
from txbits.backends._work import InThread, Joint, translated
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import IStoredFile

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


@implementer(IStoredFile)
@define(eq=False)
class DiskFile:
    """
    The file behind a descriptor; see :class:`~txbits.interfaces.IStoredFile`.

    :param fd: The descriptor, which is this object's from now on.
    """

    _files: Files
    _in_thread: InThread
    _fd: int
    length: int
    modified: float
    etag: str
    _seen: tuple[int, int]
    _reading: Reading | None = field(default=None, init=False)
    _ending: Joint | None = field(default=None, init=False)

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
            files,
            in_thread,
            fd,
            there.st_size,
            there.st_mtime,
            f"{there.st_ino:x}-{there.st_mtime_ns:x}-{there.st_size:x}",
            _version(there),
        )

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed bytes of it; see :class:`~txbits.interfaces.IStoredFile`."""
        if self._reading is not None:
            raise BackendError("the file is being read already")
        if self._fd < 0:
            raise BackendError("the file is closed")

        def read(offset: int, length: int) -> Deferred[bytes]:
            return self._in_thread(translated, self._read, offset, length)

        self._reading = Reading(consumer, read)
        try:
            await self._reading.run(start, end)
        finally:
            self._reading = None
            ending, self._ending = self._ending, None
            if ending is not None:
                self._close()
                ending.end(None)

    def _read(self, offset: int, length: int) -> bytes:
        data = self._files.pread(self._fd, length, offset)
        if _version(self._files.fstat(self._fd)) != self._seen:
            raise StagedDataLost("the file was changed while it was read")
        return data

    @deferred
    async def release(self) -> None:
        """Close it; see :class:`~txbits.interfaces.IStoredFile`."""
        if self._reading is None:
            self._close()
            return
        if self._ending is None:
            self._ending = Joint()
        joined = self._ending.join()
        self._reading.stopProducing()
        await joined

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            translated(self._files.close, fd)


def _version(there: os.stat_result) -> tuple[int, int]:
    return there.st_mtime_ns, there.st_size
