"""
Transports and the sockets below them: how they read, what they still have to send, and
how much of it the peer has not taken yet.
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Any

from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol


def socket_below(transport: Any) -> Connection | None:
    """
    Find the socket below a transport, such as TLS.

    :returns: ``None`` if there is none.
    """
    while not isinstance(transport, Connection):
        transport = getattr(transport, "transport", None)
        if transport is None:
            return None
    return transport


def takes_long_reads(transport: Any) -> bool:
    """
    Whether long reads of the socket below a transport are of use.

    They are not if TLS passes each record on by itself, or if records are short: each
    takes its time, so a long read of them would keep all others waiting.
    """
    while not isinstance(transport, Connection):
        if isinstance(transport, TLSMemoryBIOProtocol) and getattr(
            transport, "has_short_records", True
        ):
            return False
        transport = transport.transport
    return True


def untaken(transport: Any) -> int:
    """
    Count the bytes that a peer has yet to take.

    The system buffers megabytes for a peer, and asks for more only when a good part of
    them has been taken. By that alone, a slow peer would seem to take nothing.

    :param transport: The connection to the peer.
    :returns: The number of bytes in the buffers of the transport and the system; 0 if
        it cannot be determined.
    """
    connection: Any = socket_below(transport)
    if connection is None:
        return 0
    ours = len(connection.dataBuffer) - connection.offset + connection._tempDataLen
    try:
        answer = fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4))
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


def send_some(transport: Any, data: bytes | memoryview) -> int:
    """
    Send what a socket takes at once; *data* is not kept.

    :returns: How many of the bytes were sent; 0 if others have to be sent before them.
    """
    if not has_nothing_to_send(transport):
        return 0
    count = 0
    while count < len(data):
        sent = transport.writeSomeData(data[count:] if count else data)
        if not isinstance(sent, int) or sent <= 0:
            # It is full, or lost: writing the rest shows that again.
            break
        count += sent
    return count


def send_now(transport: Any, data: bytes) -> None:
    """Write *data*, if possible at once."""
    # A transport that has nothing else to send would ask epoll to tell it that the
    # socket accepts data, and then not to any more: two system calls for an Ack.
    sent = send_some(transport, data)
    if sent < len(data):
        transport.write(data[sent:])
