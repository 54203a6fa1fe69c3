"""
Users of the system: the one that this process runs as, and those of its peers.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct

# struct ucred of unix(7): the process, the user and the group.
_CREDENTIALS = struct.Struct("3i")


def system_user() -> str:
    """The name of the user that this process runs as, or its number."""
    uid = os.geteuid()
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def peer_user(connection: socket.socket) -> int:
    """
    The number of the user whose process has connected.

    :param connection: A connected Unix socket.
    """
    said = connection.getsockopt(
        socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size
    )
    _, user, _ = _CREDENTIALS.unpack(said)
    return int(user)
