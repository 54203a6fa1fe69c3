"""
Which boot of the machine a record was written in, and the records of older versions,
which do not tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from hashlib import blake2b

from twisted.logger import Logger

from txbits.backends.disk._files import Files
from txbits.backends.disk._records import Table
from txbits.backends.disk._staged import part_name

_log = Logger()

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# A time namespace shifts the times since the boot for a process and its children. Tests
# that simulate a reboot use one, under the same kernel.
_SHIFTS = "/proc/self/timens_offsets"

# How wrong the clock may have been at boot, in seconds, where an older version has left
# no other evidence; and how far in the future a time may be.
_CLOCK_ERROR = 60.0


def this_boot(boot_id: str = _BOOT_ID, shifts: str = _SHIFTS) -> bytes:
    """
    Name the current boot of the machine. It blocks.

    The page cache survives a crash of the process, but not one of the system, and a
    session's boot tells which one happened. Times do not tell: clocks are set, and are
    wrong after a crash more often than at any other moment.

    :param boot_id: The kernel's file with the name.
    :param shifts: The file of the offsets of the process's time namespace.
    :returns: 16 hexadecimal digits, the same until the machine reboots. If the kernel
        gives no name, they differ each time, so that each start counts as one after a
        system crash.
    """
    try:
        with open(boot_id, "rb") as file:
            name = file.read(64).strip()
        if not name:
            raise OSError(f"{boot_id} is empty")
    except OSError as error:
        _log.warn(
            "cannot read the kernel's boot id: {error}; each restart of the server is "
            "treated as a reboot, and clients resend bytes that were not synced",
            error=error,
        )
        name = os.urandom(16)
    try:
        with open(shifts, "rb") as file:
            name += file.read(256)
    except OSError as error:
        _log.debug("no time namespaces here: {error}", error=error)
    return blake2b(name, digest_size=8).hexdigest().encode()


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
    Update the records that another process has left. It blocks.

    :param directory: The descriptor of the staging area.
    :param keeps: Whether only safe bytes are acknowledged from now on.
    :param disk_ahead: How far the disk's clock is ahead of *seconds*.
    :param seconds: Tells seconds since the epoch.
    :param up: Tells for how many seconds the machine has been up.
    :param go_on: Called again and again; raises an exception to stop this. The next
        start continues.
    :raises OSError: If that fails.
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
        # A time that seems to be in the future proves nothing: the clock was set since,
        # or is not set yet.
        is_known = now - up() + _CLOCK_ERROR <= changed <= now + _CLOCK_ERROR
        table.renew(session_id, has_crashed=not is_known)
    if not keeps:
        table.unkeep()
