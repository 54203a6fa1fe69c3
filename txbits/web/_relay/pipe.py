"""
Bytes that go from one socket to another without passing through this process.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from weakref import finalize

# Of splice(2); os has them since Python 3.12.
_MOVE, _NONBLOCK = 1, 2

#: How many bytes it has room for, if the system allows that: pipe(7).
_ROOM = 1 << 20


class Pipe:
    """
    Moves bytes from a socket to another one through a pipe, by ``splice(2)`` of Linux:
    the kernel passes on the memory in which they arrived. Between two calls, the pipe
    is empty, so one serves all sockets.
    """

    def __init__(self) -> None:
        self._is_of_use = hasattr(os, "splice")
        self._ends: tuple[int, int] | None = None
        self._finalizers: list[finalize[..., Pipe]] = []

    def move(self, source: int, target: int, most: int) -> tuple[int, bytes] | None:
        """
        Move what has arrived at a socket.

        :param source: The descriptor of that socket.
        :param target: The descriptor of the other one.
        :param most: The most bytes to move.
        :returns: How many bytes were taken from the source, 0 at its end; and those of
            them that the target did not take. ``None`` if bytes cannot be moved like
            this; then none were taken.
        :raises BlockingIOError: If nothing has arrived, or urgent data is next, which
            ``splice(2)`` does not pass. None were taken.
        :raises OSError: If the source is lost, or bytes are.
        """
        if not self._is_of_use:
            return None
        try:
            reader, writer = self._open()
            count = os.splice(source, writer, most, flags=_MOVE | _NONBLOCK)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                return None
            if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EPERM):
                self._is_of_use = False
                return None
            raise
        left = count
        try:
            # A target that is lost takes no bytes. Whoever sends the rest notices that.
            with suppress(OSError):
                while left and (
                    moved := os.splice(reader, target, left, flags=_MOVE | _NONBLOCK)
                ):
                    left -= moved
            rest = b""
            if left:
                # To a caller, this error says that nothing was taken.
                with suppress(BlockingIOError):
                    rest = os.read(reader, left)
            if len(rest) != left:
                raise OSError(errno.EIO, "the pipe has lost bytes")
        except BaseException:
            # What is left in it must not get to another target.
            self._close()
            raise
        return count, rest

    def _open(self) -> tuple[int, int]:
        """Open the pipe when it is needed for the first time."""
        if self._ends is None:
            self._ends = ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            self._finalizers = [finalize(self, os.close, end) for end in ends]
            with suppress(OSError):
                fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _ROOM)
        return self._ends

    def _close(self) -> None:
        """Close it; the next call opens another one."""
        self._ends = None
        for close in self._finalizers:
            close()
