"""
What a worker process runs: ``python -m txbits.service.worker``, by the supervisor only.

It comes before all that takes time to import: the process is not to outlive a
supervisor that is killed meanwhile, and Twisted looks for sockets of systemd when it is
imported.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from typing import NoReturn

from txbits._loading import Loading

#: PR_SET_PDEATHSIG of prctl(2).
_DEATH_SIGNAL = 1

#: What the supervisor reacts to. A terminal sends SIGINT and SIGHUP to all of us.
_NOT_OURS = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)


def main(descriptor: int) -> NoReturn:
    """
    Be a worker.

    :param descriptor: The socket that leads to the supervisor.
    :raises SystemExit: Always, with the exit status.
    """
    _die_with_the_supervisor()
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    if "LISTEN_FDS" in os.environ:
        # The supervisor has passed them on, but does not know our number.
        os.environ["LISTEN_PID"] = str(os.getpid())
    with Loading():
        from txbits.service._worker_life import live

    raise SystemExit(live(socket.socket(fileno=descriptor)))


def _die_with_the_supervisor() -> None:
    """Have the kernel kill this process when its parent dies, if it can do that."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_DEATH_SIGNAL, signal.SIGKILL)


if __name__ == "__main__":
    main(int(sys.argv[1]))
