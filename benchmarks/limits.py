"""
What the machine itself allows, so that a goal that is missed can be told from one that
cannot be reached there.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import NamedTuple

from benchmarks.report import middle, table
from benchmarks.servers import Server, Side, running
from benchmarks.small import upload

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


class Rates(NamedTuple):
    """
    Uploads a second.

    :ivar alone: Of a server that runs alone.
    :ivar together: Of two at the same time, taken together.
    """

    alone: float
    together: float


def measure_apart(
    side: Side,
    directory: Path,
    *,
    connections: int,
    sessions: int,
    repetitions: int,
) -> list[Rates]:
    """
    Upload small files to a server, and to two of a kind at the same time, each with a
    driver of its own. They share nothing but the machine, so workers that share a
    folder, an address and a log can be as fast at most.

    :param directory: Where the folders of the servers are made.
    :param connections: How many connections share the work.
    :param sessions: How many files a run uploads.
    """
    with ExitStack() as stack:
        servers = [
            stack.enter_context(running(side, directory / f"apart-{number}"))
            for number in range(2)
        ]
        for server in servers:
            upload(server, "warm", min(_WARM_UP, sessions), connections)
            server.settle()
        found = []
        for number in range(repetitions):
            rates = [0.0, 0.0]
            # What slows the machine down for a while hits both of a pair.
            for count in (1, 2) if number % 2 else (2, 1):
                rates[count - 1] = _rate(
                    servers[:count],
                    f"run{number}-{count}-",
                    connections // count,
                    sessions // count,
                )
            found.append(Rates(*rates))
    table(
        f"two servers that share nothing, {side.name}: median (lowest-highest)",
        ["servers", "uploads/s"],
        [
            ["1", middle([one.alone for one in found], 0)],
            ["2", middle([one.together for one in found], 0)],
        ],
    )
    return found


def _rate(
    servers: Sequence[Server], prefix: str, connections: int, sessions: int
) -> float:
    """
    Upload to all servers at the same time.

    :param connections: How many to each.
    :param sessions: How many files to each.
    """
    context = get_context("fork")
    begin = context.Barrier(len(servers))
    drivers = []
    for server in servers:
        here, there = context.Pipe(duplex=False)
        driver = context.Process(
            target=_drive,
            args=(server, prefix, sessions, connections, begin, there),
        )
        driver.start()
        # Only the driver is to have it: reading ends with the driver.
        there.close()
        drivers.append((driver, here))
    seconds = [here.recv() for _, here in drivers]
    for driver, here in drivers:
        driver.join()
        here.close()
    for server in servers:
        server.settle()
    return len(servers) * sessions / float(max(seconds))


def _drive(
    server: Server,
    prefix: str,
    sessions: int,
    connections: int,
    begin: Barrier,
    result: Connection,
) -> None:
    begin.wait(60)
    result.send(upload(server, prefix, sessions, connections).seconds)
