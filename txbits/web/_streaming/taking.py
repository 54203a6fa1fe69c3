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

    :param transport: The socket, or TLS above it that has a method ``encrypt``.
    :returns: How many of the bytes were sent, or encrypted and left to the socket; 0 if
        others have to be sent before them.
    """
    if not has_nothing_to_send(transport):
        return _send_encrypted(transport, data)
    if len(data) > transport.SEND_LIMIT:
        # Twisted would send it in several calls.
        transport.SEND_LIMIT = len(data)
    count = 0
    while count < len(data):
        sent = transport.writeSomeData(data[count:] if count else data)
        if not isinstance(sent, int) or sent <= 0:
            # It is full, or lost: writing the rest shows that again.
            break
        count += sent
    return count


def _send_encrypted(transport: Any, data: bytes | memoryview) -> int:
    encrypt = getattr(transport, "encrypt", None)
    if encrypt is None:
        return 0
    below: Any = socket_below(transport)
    if below is None or not has_nothing_to_send(below):
        return 0
    view, count = memoryview(data), 0
    while count < len(view):
        encrypted, records = encrypt(view[count:])
        if not encrypted:
            break
        count += encrypted
        sent = send_some(below, records)
        if sent < len(records):
            below.write(records[sent:])
            break
    return count


def send_now(transport: Any, data: bytes) -> None:
    """Write *data*, if possible at once."""
    # A transport that has nothing else to send would ask epoll to tell it that the
    # socket accepts data, and then not to any more: two system calls for an Ack.
    sent = send_some(transport, data)
    if sent < len(data):
        transport.write(data[sent:])
