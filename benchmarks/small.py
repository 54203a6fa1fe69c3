"""
Part (b), thousands of small uploads, and part (c), open sessions.
"""

from __future__ import annotations

import gc
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.conditions import Bystanders, new_file_seconds
from benchmarks.driver import (
    LoadFailed,
    Packets,
    close_all,
    drive,
    half_upload,
    small_uploads,
)
from benchmarks.report import Goal, goals, middle, percentile, table
from benchmarks.servers import Server, Side, running

_BODY = bytes(range(256)) * 4
_WARM_UP = 500
_KIB = 1024
_MIB = 1024 * 1024
# The tolerance for fluctuations of the allocator: 105 bytes for each of 10,000
# sessions.
_NO_GROWTH_MIB = 1.0


# (b)


@frozen
class Sessions:
    """
    One run.

    :ivar count: How many sessions.
    :ivar seconds: What they took together.
    :ivar cpu: The server's CPU seconds.
    :ivar driver_cpu: The driver's CPU seconds.
    :ivar first: Sessions a second while the first quarter of them ended.
    :ivar last: Sessions a second while the last quarter of them ended.
    :ivar others: The share of one CPU that other programs used.
    """

    count: int
    seconds: float
    cpu: float
    driver_cpu: float
    first: float
    last: float
    others: float


def measure_sessions(
    sides: Sequence[Side],
    directory: Path,
    *,
    connections: int,
    sessions: int,
    repetitions: int,
) -> None:
    """
    Upload small files to all sides in turn, and print how that went.

    :param directory: Where the folders of the runs are made.
    :param connections: How many keep-alive connections share the work.
    :param sessions: How many files a run uploads.
    """
    results: dict[str, list[Sessions]] = {side.name: [] for side in sides}
    new_files: dict[str, list[float]] = {side.name: [] for side in sides}
    for repetition in range(repetitions):
        for side in sides:
            folder = directory / f"sessions-{repetition}-{side.name}"
            with running(side, folder) as server:
                upload(server, "warm", min(_WARM_UP, sessions), connections)
                server.settle()
                new_files[side.name].append(new_file_seconds(folder))
                results[side.name].append(upload(server, "file", sessions, connections))
            _verify(server.run.files, sessions)
    rates = {
        side: [run.count / run.seconds for run in runs]
        for side, runs in results.items()
    }
    costs = {
        side: [1000 * run.cpu / run.count for run in runs]
        for side, runs in results.items()
    }
    table(
        f"(b) {sessions} uploads of {len(_BODY)} bytes (Create, Fragment, Close) on "
        f"{connections} connections: median (lowest-highest)",
        [
            "side",
            "sessions/s",
            "first quarter",
            "last quarter",
            "server CPU ms/session",
            "driver CPU ms",
            "new file us",
            "others, at most",
        ],
        [
            [
                side,
                middle(rates[side], 0),
                f"{median(run.first for run in runs):.0f}",
                f"{median(run.last for run in runs):.0f}",
                middle(costs[side], 3),
                f"{median(1000 * run.driver_cpu / run.count for run in runs):.3f}",
                middle([1e6 * seconds for seconds in new_files[side]], 0),
                f"{max(run.others for run in runs):.0%}",
            ]
            for side, runs in results.items()
        ],
    )
    if {"txbits", "buffered"} <= results.keys():
        rate = median(rates["txbits"]) / median(rates["buffered"])
        cost = median(costs["txbits"]) / median(costs["buffered"])
        goals(
            "(b) goals",
            [
                Goal("sessions/s, txbits / buffered", rate, limit=1.0),
                Goal("CPU ms/session, txbits / buffered", cost),
            ],
        )


def upload(
    server: Server, prefix: str, sessions: int, connections: int, more: bytes = b""
) -> Sessions:
    """
    Upload small files to a server that runs.

    :param prefix: What their names begin with.
    :param more: Other headers of each request.
    """
    gc.collect()
    port = server.run.port
    names = names_of(prefix, sessions)
    packets = Packets.for_port(port, more)
    times: list[tuple[float, float]] = []
    scripts = [small_uploads(packets, names, _BODY, times) for _ in range(connections)]
    bystanders = Bystanders()
    driver_cpu, cpu = time.process_time(), server.cpu_seconds()
    start = time.perf_counter()
    sockets = drive(port, scripts, concurrency=connections, deadline=120.0)
    seconds = time.perf_counter() - start
    cpu = server.cpu_seconds() - cpu
    driver_cpu = time.process_time() - driver_cpu
    others = bystanders.share(cpu + driver_cpu)
    close_all(sockets)
    quarter = max(1, sessions // 4)
    ends = sorted(end for _, end in times)
    return Sessions(
        count=sessions,
        seconds=seconds,
        cpu=cpu,
        driver_cpu=driver_cpu,
        first=quarter / (ends[quarter - 1] - start),
        last=quarter / (ends[-1] - ends[-quarter - 1]),
        others=others,
    )


def names_of(prefix: str, count: int) -> Iterator[bytes]:
    """Names of one length; one iterator may feed many connections."""
    return (b"%b%06d" % (prefix.encode("ascii"), number) for number in range(count))


def _verify(files: Path, sessions: int) -> None:
    for name in names_of("file", sessions):
        path = files / name.decode("ascii")
        if not path.exists() or path.read_bytes() != _BODY:
            raise LoadFailed(f"{path.name} is not what was sent")


# (c)


@frozen
class Latency:
    """
    How long small uploads took, one after the other.

    :ivar p50: Median of a session's seconds; the median over the rounds.
    :ivar p99: 99th percentile likewise.
    :ivar highest: The slowest of all.
    """

    p50: float
    p99: float
    highest: float


def measure_memory(
    side: Side,
    directory: Path,
    *,
    open_sessions: Sequence[int],
    latency_sessions: int,
    rounds: int,
    passing_sessions: int,
) -> None:
    """
    Look at one side with sessions open, then with sessions come and gone.

    :param directory: Where the folders of the runs are made.
    :param open_sessions: How many sessions to hold open, rising.
    :param latency_sessions: How many uploads a round of latencies takes.
    :param rounds: The number of latency rounds.
    :param passing_sessions: How many sessions come and go.
    """
    _measure_open(
        side, directory / f"open-{side.name}", open_sessions, latency_sessions, rounds
    )
    _measure_growth(side, directory / f"growth-{side.name}", passing_sessions)


def _measure_open(
    side: Side,
    folder: Path,
    open_sessions: Sequence[int],
    latency_sessions: int,
    rounds: int,
) -> None:
    held: list[socket.socket] = []
    rows: list[list[str]] = []
    reached: list[Goal] = []
    try:
        with running(side, folder) as server:
            upload(server, "warm", _WARM_UP, 4)
            none_open = latency_of(server, "none", latency_sessions, rounds)
            server.settle()
            idle = server.resident_bytes()
            rows.append(_row(0, idle, 0.0, none_open))
            grown = 0
            for count in open_sessions:
                # Count only growth while sessions open, without that of the uploads in
                # between.
                before = server.resident_bytes()
                held += _open(server, len(held), count - len(held))
                server.settle()
                now = server.resident_bytes()
                grown += now - before
                latency = latency_of(server, f"open{count}-", latency_sessions, rounds)
                rows.append(_row(count, now, grown / count, latency))
                last = count == open_sessions[-1]
                reached += [
                    Goal(
                        f"KiB a session, {count} open",
                        grown / count / _KIB,
                        "at most",
                        8.0 if last else None,
                    ),
                    Goal(
                        f"p99, {count} open / none open",
                        latency.p99 / none_open.p99,
                        "at most",
                        2.0,
                    ),
                ]
    finally:
        close_all(held)
    table(
        f"(c) {side.name}: sessions open and idle, each half sent on a connection of "
        f"its own; {rounds} x {latency_sessions} small uploads one by one",
        ["open", "resident MiB", "KiB/session", "p50 ms", "p99 ms", "highest ms"],
        rows,
    )
    if side.name == "txbits":
        goals("(c) goals with sessions open", reached)


def _row(count: int, resident: int, each: float, latency: Latency) -> list[str]:
    return [
        str(count),
        f"{resident / _MIB:.1f}",
        f"{each / _KIB:.2f}" if count else "-",
        f"{1000 * latency.p50:.2f}",
        f"{1000 * latency.p99:.2f}",
        f"{1000 * latency.highest:.2f}",
    ]


def _open(server: Server, first: int, count: int) -> list[socket.socket]:
    port = server.run.port
    packets = Packets.for_port(port)
    scripts = (
        half_upload(packets, b"held%06d" % number, _BODY)
        for number in range(first, first + count)
    )
    return drive(
        port,
        scripts,
        concurrency=min(16, count),
        deadline=120.0,
        # Servers can limit the connections of one peer.
        source=lambda number: f"127.0.1.{1 + number % 200}",
    )


def latency_of(
    server: Server, prefix: str, sessions: int, rounds: int, more: bytes = b""
) -> Latency:
    """
    Upload small files one after the other.

    :param prefix: What their names begin with.
    :param sessions: How many a round has.
    :param more: Other headers of each request.
    """
    packets = Packets.for_port(server.run.port, more)
    p50s, p99s, highest = [], [], 0.0
    for number in range(rounds):
        times: list[tuple[float, float]] = []
        names = names_of(f"{prefix}{number}-", sessions)
        script = small_uploads(packets, names, _BODY, times)
        gc.collect()
        close_all(drive(server.run.port, [script], concurrency=1, deadline=120.0))
        latencies = [end - start for start, end in times]
        p50s.append(percentile(latencies, 50))
        p99s.append(percentile(latencies, 99))
        highest = max(highest, *latencies)
    return Latency(median(p50s), median(p99s), highest)


def _measure_growth(side: Side, folder: Path, sessions: int) -> None:
    with running(side, folder) as server:
        warm_up = max(1, sessions // 5)
        upload(server, "warm", warm_up, 32)
        server.settle()
        before = server.resident_bytes()
        upload(server, "file", sessions, 32)
        server.settle()
        after = server.resident_bytes()
    grown = after - before
    table(
        f"(c) {side.name}: sessions come and gone, 32 at a time",
        ["sessions", "resident MiB"],
        [
            [f"{warm_up} (warm-up)", f"{before / _MIB:.2f}"],
            [f"{sessions} more", f"{after / _MIB:.2f}"],
        ],
    )
    if side.name == "txbits":
        goals(
            "(c) goals with sessions gone",
            [
                Goal("MiB grown", grown / _MIB, "at most", _NO_GROWTH_MIB),
                Goal("bytes a session", grown / sessions),
            ],
        )


def raise_open_files(needed: int) -> None:
    """
    Let this process, and the servers that it starts, have enough files open.

    :raises SystemExit: If the system does not allow that.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= needed:
        return
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, max(needed, hard)))
    except (ValueError, OSError):
        raise SystemExit(
            f"{needed} open files are needed, {hard} allowed: raise the limit "
            f"(ulimit -Hn), or hold fewer sessions open (--open)"
        ) from None
