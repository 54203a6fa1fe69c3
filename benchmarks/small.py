"""
Part (b), thousands of small uploads, and part (c), open sessions.
"""

from __future__ import annotations

import gc
import resource
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
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
    half_uploads,
    small_uploads,
)
from benchmarks.report import Goal, goals, middle, paired, percentile, table
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
    :ivar cpu: The CPU seconds of the server, or of both.
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
) -> dict[str, list[Sessions]]:
    """
    Upload small files to all sides in turn, and print how that went.

    All servers are there from the beginning, so that the runs of a pair follow each
    other at once. Those that are not asked anything use no CPU.

    :param directory: Where the folders of the runs are made.
    :param connections: How many keep-alive connections share the work.
    :param sessions: How many files a run uploads.
    :returns: The runs of each side.
    """
    results, new_files = _collect_sessions(
        sides,
        directory,
        connections=connections,
        sessions=sessions,
        repetitions=repetitions,
    )
    _tell_sessions(results, new_files, connections, sessions)
    return results


def _collect_sessions(
    sides: Sequence[Side],
    directory: Path,
    *,
    connections: int,
    sessions: int,
    repetitions: int,
) -> tuple[dict[str, list[Sessions]], dict[str, list[float]]]:
    """
    Upload the files.

    :returns: The runs of each side, and how long a new file took before each, in
        seconds.
    """
    results: dict[str, list[Sessions]] = {side.name: [] for side in sides}
    new_files: dict[str, list[float]] = {side.name: [] for side in sides}
    with ExitStack() as stack:
        servers = []
        for side in sides:
            folder = directory / f"sessions-{side.name}"
            server = stack.enter_context(running(side, folder))
            upload(server, "warm", min(_WARM_UP, sessions), connections)
            server.look_for_children()
            server.settle()
            servers.append((side.name, server, folder))
        for number in range(repetitions):
            for name, server, folder in servers if number % 2 else servers[::-1]:
                new_files[name].append(new_file_seconds(folder / f"new-{number}"))
                prefix = f"run{number}-"
                run = upload(server, prefix, sessions, connections)
                results[name].append(run)
                server.settle()
                _verify(server.run.files, prefix, sessions)
    return results, new_files


def _tell_sessions(
    results: dict[str, list[Sessions]],
    new_files: dict[str, list[float]],
    connections: int,
    sessions: int,
) -> None:
    """Print the runs of all sides; see :func:`_collect_sessions`."""
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
    reached = []
    if {"txbits", "buffered"} <= results.keys():
        rate = paired(rates["txbits"], rates["buffered"])
        cost = paired(costs["txbits"], costs["buffered"])
        reached += [
            Goal("sessions/s, txbits / buffered", rate),
            Goal("CPU ms/session, txbits / buffered", cost, "at most", 1.1),
        ]
    for one, two, limit in (
        ("txbits", "txbits-2", 1.35),
        ("txbits-never", "txbits-2-never", 1.8),
    ):
        if {one, two} <= results.keys():
            rate = paired(rates[two], rates[one])
            reached.append(Goal(f"sessions/s, {two} / {one}", rate, limit=limit))
    goals("(b) goals", reached)


def upload(
    server: Server,
    prefix: str,
    sessions: int,
    connections: int,
    more: bytes = b"",
    *,
    other: Server | None = None,
) -> Sessions:
    """
    Upload small files to a server that runs.

    :param prefix: What their names begin with.
    :param more: Other headers of each request.
    :param other: A second server, which half of the connections go to.
    """
    servers = [server] if other is None else [server, other]
    gc.collect()
    port = server.run.port
    names = names_of(prefix, sessions)
    packets = Packets.for_port(port, more)
    times: list[tuple[float, float]] = []
    scripts = [small_uploads(packets, names, _BODY, times) for _ in range(connections)]
    bystanders = Bystanders()
    driver_cpu = time.process_time()
    cpu = sum(one.cpu_seconds() for one in servers)
    start = time.perf_counter()
    sockets = drive(
        port,
        scripts,
        concurrency=connections,
        deadline=120.0,
        other_port=None if other is None else other.run.port,
    )
    seconds = time.perf_counter() - start
    cpu = sum(one.cpu_seconds() for one in servers) - cpu
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


def _verify(files: Path, prefix: str, sessions: int) -> None:
    for name in names_of(prefix, sessions):
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


def session_bytes(side: Side, folder: Path, count: int, *, connected: bool) -> float:
    """
    Measure the memory of an open session.

    :param side: Which server.
    :param folder: The folder of the run.
    :param count: How many sessions to open.
    :param connected: Whether each stays on a connection of its own; otherwise, a few
        connections open all of them, and end.
    :returns: The growth of the server's resident memory for each session, in bytes.
    """
    held: list[socket.socket] = []
    try:
        with running(side, folder) as server:
            upload(server, "warm", _WARM_UP, 32)
            server.settle()
            before = server.resident_bytes()
            if connected:
                held = _open(server, 0, count)
            else:
                packets = Packets.for_port(server.run.port)
                names = names_of("held", count)
                scripts = [half_uploads(packets, names, _BODY) for _ in range(16)]
                close_all(
                    drive(server.run.port, scripts, concurrency=16, deadline=600.0)
                )
            server.settle()
            return (server.resident_bytes() - before) / count
    finally:
        close_all(held)


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
