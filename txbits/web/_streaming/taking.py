"""
What a transport still has to send, and how much of it the peer has not taken yet.
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

    The system buffers megabytes for a peer, and asks for more only when a good part of
    them has been taken. By that alone, a slow peer would seem to take nothing.

    :param transport: The connection to the peer.
    :returns: The number of bytes in the buffers of the transport and the system; 0 if
        it cannot be determined.
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
        # It is closed, or the system does not support this.
        return int(ours)
    (of_the_system,) = struct.unpack("i", answer)
    return int(ours + of_the_system)


def has_nothing_to_send(transport: Any) -> bool:
    """Whether this is a connected socket, without TLS, that has sent everything."""
    return bool(
        isinstance(transport, Connection)
        and transport.connected
        and not transport.disconnecting
        and not getattr(transport, "TLS", False)
        and not transport.dataBuffer
        and not transport._tempDataBuffer
    )


def send_now(transport: Any, data: bytes) -> None:
    """Write *data*, if possible at once."""
    # A transport that has nothing else to send would ask epoll to tell it that the
    # socket accepts data, and then not to any more: two system calls for an Ack.
    if has_nothing_to_send(transport):
        sent = transport.writeSomeData(data)
        if isinstance(sent, int):
            data = data[sent:]
    if data:
        transport.write(data)
