"""
What the times of a file tell about its content.

The time of the last change (``ctime``) cannot be set, and grows with each write; but a
clock ticks, and two writes within a tick have the same time. The length of a tick, and
whether the clock agrees with ours, depend on the file system: kernels have ticks of 1
to 10 ms, or finer ones for files that were looked at; others count seconds; the clock
of a file server may be hours ahead. So nothing of that is assumed. Touching a file of
ours reads the clock: a file that changed before that time gets another time with its
next change.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from uuid import UUID

from attrs import define, field, frozen

from txbits.backends.disk._files import Files

_SECOND = 1_000_000_000

# If a file had not changed for so many nanoseconds when the clock was last read, the
# clock need not be read again, even if it was set back since.
_LONG = 3600 * _SECOND

# The pauses in which to wait for a tick, in seconds: none where clocks are fine, and
# together longer than a tick of the slowest kernel.
_PAUSES = (0.0, 0.0, 0.005, 0.010)

# A tick of more nanoseconds is not worth waiting for.
_TICK = 20_000_000

# The age, in nanoseconds, that is enough if the clock cannot be read: some file systems
# count two seconds at a time.
_UNSURE = 2 * _SECOND

# A touch sets both times. If they differ by more nanoseconds, they mean something else.
_SAME = 10_000_000

# A clock that shows the same time for so many seconds has stopped.
_STILL = 3.0


@frozen
class Look:
    """
    The state of an open file.

    :ivar there: What ``fstat`` returns.
    :ivar is_sure: Whether every later change would show in that. ``None`` if it is
        about to change without its content, because one of its names is removed.
    :ivar modified: When its content was last changed, in seconds.
    """

    there: os.stat_result
    is_sure: bool | None
    modified: float


@define(eq=False)
class FileClock:
    """
    Looks at files, and reads the clock that dates their changes.

    It may block, and several threads use it at a time.

    :param fd: The file that is touched; it needs no content.
    :param sleep: Waits for a number of seconds.
    :param seconds: Our own clock.
    :param monotonic: A clock that is never set.
    :param shows_links: Whether two names of a file can be seen to be of one.
    :param is_shared: Whether other processes publish files by a link, too.
    :ivar linked: The inodes of files that were published by a link, and are not
        released yet, by their sessions: to take the first name away changes them.
    """

    _files: Files
    _fd: int
    _sleep: Callable[[float], None] = time.sleep
    _seconds: Callable[[], float] = time.time
    _monotonic: Callable[[], float] = time.monotonic
    _shows_links: bool = True
    _is_shared: bool = False
    linked: dict[UUID, int] = field(factory=dict, init=False)
    _device: int = field(default=-1, init=False)
    _now: int = field(default=0, init=False)
    _moved: float = field(default=0.0, init=False)
    _dates_changes: bool = field(default=False, init=False)

    def look(self, fd: int) -> Look:
        """
        Look at a file.

        :param fd: The file, opened.
        :raises OSError: If that fails.
        """
        there = self._files.fstat(fd)
        if self._is_linked(there):
            self._read()
            return self._seen(there, None)
        if self._is_old(there):
            return self._seen(there, True)
        if self._is_shared and not self._has_one_name(there):
            # Another process may be about to remove one of its names. It does that soon
            # after it has made the other.
            self._read()
            return self._seen(there, True if self._is_old(there) else None)
        for pause in _PAUSES:
            if pause:
                self._sleep(pause)
            now = self._read()
            if now is None:
                break
            # After the clock: later changes have at least that time.
            there = self._files.fstat(fd)
            if not self._is_ours(there):
                break
            ahead = self._changed(there) - now
            if ahead < 0:
                return self._seen(there, True)
            if ahead > _TICK:
                # The clock was set back.
                return self._seen(there, False)
        else:
            # The clock counts seconds.
            return self._seen(there, False)
        past = int(self._seconds() * _SECOND) - self._changed(there)
        return self._seen(there, past > _UNSURE)

    def _is_linked(self, there: os.stat_result) -> bool:
        """Whether this process is about to remove one of its names."""
        if self._has_one_name(there):
            return False
        # A copy, since other threads add to it.
        return there.st_ino in list(self.linked.values())

    def _has_one_name(self, there: os.stat_result) -> bool:
        """Whether the file certainly has only one name."""
        return self._shows_links and there.st_nlink < 2

    def _is_old(self, there: os.stat_result) -> bool:
        """Whether it had not changed for long when the clock was last read."""
        return self._is_ours(there) and self._changed(there) < self._now - _LONG

    def _read(self) -> int | None:
        """
        Read the clock.

        :returns: The time in nanoseconds; ``None`` if it cannot be read: the file
            system may be read-only by now, and some ignore this.
        """
        try:
            self._files.utime(self._fd)
            touched = self._files.fstat(self._fd)
        except OSError:
            return None
        # Some file systems return the time of creation here, or none.
        apart = abs(touched.st_ctime_ns - touched.st_mtime_ns)
        self._dates_changes = apart < _SAME
        self._device = touched.st_dev
        now = self._changed(touched)
        if now != self._now:
            self._now, self._moved = now, self._monotonic()
        return now if self._monotonic() - self._moved < _STILL else None

    def _is_ours(self, there: os.stat_result) -> bool:
        """Whether the file is on the file system whose clock is read."""
        return there.st_dev == self._device

    def _changed(self, there: os.stat_result) -> int:
        """When it was last changed, in nanoseconds."""
        if self._dates_changes:
            return there.st_ctime_ns
        return max(there.st_ctime_ns, there.st_mtime_ns)

    def _seen(self, there: os.stat_result, is_sure: bool | None) -> Look:
        modified = there.st_mtime
        if self._dates_changes and self._is_ours(there):
            # A time in the future was set by a program (RFC 9110 8.8.2.1).
            modified = min(modified, there.st_ctime)
        return Look(there, is_sure, modified)
