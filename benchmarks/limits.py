"""
What the machine itself allows, so that a goal that is missed can be told from one that
cannot be reached there.
"""

from __future__ import annotations

import mmap
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import middle, table
from benchmarks.servers import Side, running
from benchmarks.small import Sessions, upload

_STEP = 4 * 1024 * 1024
_WARM_UP = 500


def disk_seconds(directory: Path, size: int) -> float:
    """
    Store bytes on the disk, past the page cache, and make them safe.

    No server that makes them safe can be faster, however it receives them.

    :param size: How many bytes; a multiple of 4 MiB.
    :raises OSError: If the file system of the folder has no direct access.
    """
    path = directory / "straight"
    flags = os.O_CREAT | os.O_WRONLY | os.O_EXCL | os.O_DIRECT
    with mmap.mmap(-1, _STEP) as memory:
        memory.write(os.urandom(_STEP))
        fd = os.open(path, flags, 0o600)
        try:
            start = time.perf_counter()
            for offset in range(0, size, _STEP):
                os.pwrite(fd, memory, offset)
            os.fsync(fd)
            return time.perf_counter() - start
        finally:
            os.close(fd)
            path.unlink()


class Apart(NamedTuple):
    """
    A pair of runs.

    :ivar alone: Of a server that runs alone.
    :ivar together: Of two that share the connections.
    """

    alone: Sessions
    together: Sessions


def measure_apart(
    side: Side,
    directory: Path,
    *,
    connections: int,
    sessions: int,
    repetitions: int,
) -> list[Apart]:
    """
    Upload small files to a server, and to two of a kind that share nothing but the
    machine and the driver. Workers that share a folder, an address and a log can be as
    fast at most.

    :param directory: Where the folders of the servers are made.
    :param connections: How many connections share the work.
    :param sessions: How many files a run uploads.
    """
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(running(side, directory / f"apart-{number}"))
            for number in range(2)
        )
        for server in (one, other):
            upload(server, "warm", min(_WARM_UP, sessions), connections)
            server.settle()
        found = []
        for number in range(repetitions):
            runs = {}
            # What slows the machine down for a while hits both of a pair.
            for second in (None, other) if number % 2 else (other, None):
                prefix = f"run{number}-{'alone' if second is None else 'both'}-"
                runs[second] = upload(one, prefix, sessions, connections, other=second)
                one.settle()
                other.settle()
            found.append(Apart(runs[None], runs[other]))
    table(
        f"two servers that share nothing, {side.name}: median (lowest-highest)",
        ["servers", "uploads/s", "CPU ms/upload"],
        [
            [
                count,
                middle([run.count / run.seconds for run in runs], 0),
                middle([1000 * run.cpu / run.count for run in runs], 3),
            ]
            for count, runs in (
                ("1", [pair.alone for pair in found]),
                ("2", [pair.together for pair in found]),
            )
        ],
    )
    return found
