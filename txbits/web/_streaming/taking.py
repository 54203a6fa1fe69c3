"""
How much of what was sent has not been taken yet.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any

from twisted.internet.tcp import Connection


def untaken(transport: Any) -> int:
    """
    Count the bytes that a peer has yet to take.

    A system holds megabytes for a peer, and asks for more only when a good part of them
    is taken: from that alone one who takes little at a time seems to take nothing.

    :param transport: The connection to it.
    :returns: How many there are, with us and with the system; 0 if that cannot be told.
    """
    # TLS stands above the connection.
    while not isinstance(transport, Connection):
        transport = getattr(transport, "transport", None)
        if transport is None:
            return 0
    ours = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    try:
        answer = fcntl.ioctl(transport.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):
        # It is closed, or the system does not tell.
        return int(ours)
    (of_the_system,) = struct.unpack("i", answer)
    return int(ours + of_the_system)
