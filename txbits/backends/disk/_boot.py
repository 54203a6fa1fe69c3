"""
Which start of the machine this is.

What the page cache held is there after a crash of the process, and is not after one of
the machine, and what a session holds is told apart by that. Times do not tell: clocks
are set, and are wrong after a crash more often than at any other moment.
"""

from __future__ import annotations

import os
from hashlib import blake2b

from twisted.logger import Logger

_log = Logger()

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

# Where the times since the start are shifted for a process and its children: whoever
# rehearses a crash of the machine does so in a time namespace, under the same kernel.
_SHIFTS = "/proc/self/timens_offsets"


def this_boot(boot_id: str = _BOOT_ID, shifts: str = _SHIFTS) -> bytes:
    """
    Name this start of the machine. It blocks.

    :param boot_id: The file in which the kernel does.
    :param shifts: That of the offsets of the process's time namespace.
    :returns: 16 hexadecimal digits, the same until the machine is started again. Where
        the kernel does not tell, they are others each time: nobody then knows whether
        the machine has crashed, and it has to be reckoned with.
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
