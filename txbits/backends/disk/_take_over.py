"""
How the disk backend takes over a root: one that is new, or that another process left.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from txbits.backends.disk._files import Files
from txbits.backends.disk._probe import sync_names
from txbits.backends.disk._records import Table, part_name

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# How wrong the clock may have been when the machine was started, in seconds, where an
# older version has left nothing else to go by; and how far in the future a time may be.
_CLOCK_ERROR = 60.0


def make_root(files: Files, root: str, is_to_be_safe: bool) -> None:
    """
    Make a directory, and the parents that it lacks.

    :param is_to_be_safe: Whether they are to survive a crash of the machine.
    :raises OSError: If that cannot be done.
    """
    parents = []
    path = os.path.abspath(root)
    while not os.path.lexists(path):
        path = os.path.dirname(path)
        parents.append(path)
    os.makedirs(root, exist_ok=True)
    if not is_to_be_safe:
        return
    for parent in parents:
        fd = files.open(parent, _DIRECTORY)
        try:
            sync_names(files, fd)
        finally:
            files.close(fd)


def _up() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def take_over(
    files: Files,
    directory: int,
    table: Table,
    *,
    keeps: bool,
    disk_ahead: float = 0.0,
    seconds: Callable[[], float] = time.time,
    up: Callable[[], float] = _up,
    go_on: Callable[[], None] = lambda: None,
) -> None:
    """
    Have the records that another process left say what holds from now on. It blocks.

    :param directory: The descriptor of the staging area.
    :param keeps: Whether all that is acknowledged from now on is safe before.
    :param disk_ahead: Seconds that the clock of the disk is ahead of that of *seconds*.
    :param seconds: Tells seconds since the epoch.
    :param up: Tells for how many seconds the machine has been up.
    :param go_on: Called again and again; what it raises ends this, and the next start
        goes on with it.
    :raises OSError: If that cannot be done.
    """
    for session_id in list(table.older):
        go_on()
        try:
            staged = files.lstat(part_name(session_id), dir_fd=directory)
        except FileNotFoundError:
            changed = table.read(session_id).created
        else:
            changed = staged.st_ctime - disk_ahead
        now = seconds()
        # What seems to be in the future is of a clock that was set since, or is not set
        # yet, and tells nothing.
        is_known = now - up() + _CLOCK_ERROR <= changed <= now + _CLOCK_ERROR
        table.renew(session_id, has_crashed=not is_known)
    if not keeps:
        table.unkeep()
