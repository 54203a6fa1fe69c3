"""
Ports of 127.0.0.1 for servers that cannot choose one by themselves.
"""

from __future__ import annotations

import random
import socket
from contextlib import ExitStack

# Linux gives outgoing connections ports from 32,768 on, by default. A port below that
# is still free when the server starts, also if other tests run at the same time.
_PORTS = range(10_000, 32_000)

# Not the common source: property tests give that a fixed seed.
_random = random.SystemRandom()


def free_ports(number: int) -> list[int]:
    """Find different ports on which nothing listens."""
    found = []
    with ExitStack() as stack:
        while len(found) < number:
            listening = stack.enter_context(socket.socket())
            port = _random.choice(_PORTS)
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            found.append(port)
    return found
