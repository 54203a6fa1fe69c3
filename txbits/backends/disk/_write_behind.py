"""
Writing behind: while a long file arrives, its bytes are already on their way to the
disk, so that the fsync at Close-Session has little left to wait for.

This is advice to the kernel, by Linux's ``sync_file_range()``. It makes nothing safe:
the fsync does that, and reports bytes that could not be written.
"""

from __future__ import annotations

from attrs import define, field
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits.backends._threads import InThread
from txbits.backends.disk._files import Files

_log = Logger()

#: How many bytes are written at a time, or a multiple of that. Less costs more calls; a
#: disk that writes 100 MB in a second takes a sixth of a second for this.
PIECE = 16 << 20

#: How many files are written at a time. A call waits while the queue of the disk is
#: full; the pieces of other files then grow.
_AT_ONCE = 2


@define(eq=False)
class WriteBehind:
    """
    Writes parts of staged files behind the uploads.

    :param in_thread: Calls functions that may block.
    """

    _files: Files
    _in_thread: InThread
    _running: set[object] = field(factory=set, init=False)
    _is_supported: bool = field(default=True, init=False)

    def begin(self, writer: object, fd: int, first: int, length: int) -> bool:
        """
        Begin to write a part of a file.

        :param writer: Whose file it is. Each has one part written at a time.
        :param fd: The file. It may be closed at any time.
        :returns: Whether it has begun; if not, ask again with more of the file.
        """
        running = self._running
        if not self._is_supported or writer in running or len(running) >= _AT_ONCE:
            return False
        try:
            own = self._files.dup(fd)
        except OSError as error:
            _log.debug("not written behind: {error}", error=error)
            return False
        running.add(writer)
        self._in_thread(self._write, own, first, length).addBoth(self._end, writer)
        return True

    def _write(self, fd: int, first: int, length: int) -> None:
        try:
            self._files.begin_writing(fd, first, length)
        finally:
            self._files.close(fd)

    def _end(self, outcome: Failure | None, writer: object) -> None:
        self._running.discard(writer)
        if outcome is not None:
            # Not on every file system. The fsync tells of bytes that were lost.
            self._is_supported = False
            _log.info(
                "long uploads are written to the disk when they end: {error}",
                error=outcome.value,
            )
