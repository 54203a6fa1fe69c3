"""
Part (a): the speed of large uploads, and their cost for the server.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from attrs import frozen

from benchmarks.conditions import Bystanders, warm_page_cache
from benchmarks.driver import BITSUpload, Payload, PutUpload, RelayedUpload, transfer
from benchmarks.report import Goal, goals, middle, paired, table
from benchmarks.servers import Server, Side, running

MIB = 1024 * 1024
GIB = 1024 * MIB

_UPLOADS = {"bits": BITSUpload, "relayed": RelayedUpload, "put": PutUpload}


@frozen
class Sizes:
    """
    The uploads of each run.

    :ivar total: Bytes over all connections.
    :ivar fragment: Bytes a Fragment, or a PUT.
    """

    total: int = GIB
    fragment: int = 10 * MIB


@frozen
class Transfer:
    """
    One run.

    :ivar seconds: From the first request until all bytes are acknowledged.
    :ivar closing: Seconds from then until all uploads are closed.
    :ivar cpu: The server's CPU seconds during ``seconds``.
    :ivar closing_cpu: The server's CPU seconds during ``closing``.
    :ivar system_cpu: The part of both that it spent in system calls.
    :ivar driver_cpu: The driver's CPU seconds during ``seconds``.
    :ivar others: The share of one CPU that other programs used.
    """

    seconds: float
    closing: float
    cpu: float
    closing_cpu: float
    system_cpu: float
    driver_cpu: float
    others: float

    @property
    def whole_seconds(self) -> float:
        """From the first request until all uploads are closed."""
        return self.seconds + self.closing

    @property
    def whole_cpu(self) -> float:
        """The server's CPU seconds in that time."""
        return self.cpu + self.closing_cpu


def measure(
    sides: Sequence[Side],
    directory: Path,
    *,
    connections: Sequence[int],
    repetitions: int,
    sizes: Sizes,
    part: str = "a",
) -> dict[tuple[int, str], list[Transfer]]:
    """
    Run all sides in turn, as often as asked, and print what came out.

    :param directory: Where the folders of the runs are made.
    :param connections: The numbers of connections to try.
    :param part: The letter of the part, for the titles.
    :returns: The runs of each number of connections and each side.
    """
    results = _collect(
        sides,
        directory,
        connections=connections,
        repetitions=repetitions,
        sizes=sizes,
    )
    for count in connections:
        runs = {side: results[count, side.name] for side in sides}
        _tell(count, runs, sizes, part)
    return results


def _collect(
    sides: Sequence[Side],
    directory: Path,
    *,
    connections: Sequence[int],
    repetitions: int,
    sizes: Sizes,
) -> dict[tuple[int, str], list[Transfer]]:
    payload = Payload(sizes.fragment)
    results: dict[tuple[int, str], list[Transfer]] = {}
    for repetition in range(repetitions):
        for count in connections:
            # What slows the machine down for a while hits both sides of a pair.
            for side in sides if repetition % 2 == 0 else sides[::-1]:
                folder = directory / f"throughput-{repetition}-{count}-{side.name}"
                with running(side, folder) as server:
                    result = _run(
                        side, server, payload, count, sizes.total, not repetition
                    )
                results.setdefault((count, side.name), []).append(result)
                # In the page cache, they would take the memory of the runs that follow.
                for file in server.run.files.glob("upload*"):
                    file.unlink()
    return results


def _run(
    side: Side,
    server: Server,
    payload: Payload,
    connections: int,
    total: int,
    verify: bool,
) -> Transfer:
    kind = _UPLOADS[side.protocol]
    port = server.run.port
    share = total // connections
    context = server.run.client_context()
    first = len(next(payload.pieces(0, total)))
    transfer([kind(port, connections, payload, first, context)], lambda: None)
    uploads = [
        kind(port, number, payload, share, context) for number in range(connections)
    ]
    warm_page_cache(server.run.directory, total + total // 2)
    gc.collect()

    bystanders = Bystanders()
    cpu = server.cpu_seconds() + time.process_time()
    system = server.system_seconds()
    marks: list[tuple[float, float, float]] = []
    transfer(
        uploads,
        lambda: marks.append(
            (time.perf_counter(), server.cpu_seconds(), time.process_time())
        ),
    )
    others = bystanders.share(server.cpu_seconds() + time.process_time() - cpu)
    system = server.system_seconds() - system
    if verify:
        for upload in uploads:
            upload.verify(server.run.files)
    start, sent, closed = marks
    return Transfer(
        seconds=sent[0] - start[0],
        closing=closed[0] - sent[0],
        cpu=sent[1] - start[1],
        closing_cpu=closed[1] - sent[1],
        system_cpu=system,
        driver_cpu=sent[2] - start[2],
        others=others,
    )


def _tell(
    count: int, results: dict[Side, list[Transfer]], sizes: Sizes, part: str = "a"
) -> None:
    """
    Print the runs of a number of connections.

    :param part: The letter of the part, for the title.
    """
    mib, gib = sizes.total / MIB, sizes.total / GIB
    on = f"on {count} connection{'s' if count > 1 else ''}"
    rates = {
        side.name: [mib / run.seconds for run in runs] for side, runs in results.items()
    }
    cpu = {side.name: [run.cpu / gib for run in runs] for side, runs in results.items()}
    rows = []
    for side, runs in results.items():
        closing = ["-", "-"]
        if side.protocol != "put":
            closing = [
                middle([run.closing for run in runs]),
                middle([run.closing_cpu for run in runs]),
            ]
        rows.append(
            [
                side.name,
                middle(rates[side.name], 0),
                middle([run.seconds for run in runs]),
                middle(cpu[side.name]),
                *closing,
                f"{median(run.driver_cpu for run in runs):.2f}",
                f"{max(run.others for run in runs):.0%}",
            ]
        )
    table(
        f"({part}) {mib:.0f} MiB in pieces of {sizes.fragment / MIB:.0f} MiB {on}: "
        "median (lowest-highest)",
        [
            "side",
            "MiB/s",
            "wall s",
            "server CPU s/GiB",
            "Close s",
            "Close CPU s",
            "driver CPU s",
            "others, at most",
        ],
        rows,
    )
    goals(f"({part}) goals {on}", _reached(rates, cpu))


def _reached(rates: dict[str, list[float]], cpu: dict[str, list[float]]) -> list[Goal]:
    def ratio(values: dict[str, list[float]], side: str, other: str) -> float:
        return paired(values[side], values[other])

    reached = []
    for side, other, rate, cost in (
        ("txbits", "nginx", 0.85, 1.3),
        ("txbits-never", "nginx", 1.0, 1.0),
        ("txbits-tls", "nginx-tls", 0.75, 1.6),
        ("relayed", "direct", 0.7, None),
    ):
        if {side, other} <= rates.keys():
            pair = f"{side} / {other}"
            reached += [
                Goal(f"MiB/s, {pair}", ratio(rates, side, other), limit=rate),
                Goal(f"CPU s/GiB, {pair}", ratio(cpu, side, other), "at most", cost),
            ]
    for other, limit in (("bare", 0.8), ("bare-threads", None), ("buffered", None)):
        if {"txbits", other} <= rates.keys():
            text = f"MiB/s, txbits / {other}"
            reached.append(Goal(text, ratio(rates, "txbits", other), limit=limit))
    return reached
