"""
Part (i): what it costs to watch a server. A JSON log and the operator's listener are
on or off, and the metrics of many sessions are read.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from attrs import define, field

from benchmarks.driver import (
    LoadFailed,
    Packets,
    close_all,
    drive,
    half_upload,
)
from benchmarks.report import Goal, goals, middle, paired, table
from benchmarks.servers import Server, Side, running, txbits
from benchmarks.small import names_of, raise_open_files, upload

#: Uploads of a run, and how many pairs of runs two servers have.
_SESSIONS = 300
_PAIRS = 6

#: How often the metrics of many sessions are read, and during how many seconds.
_READS = 30
_QUIET = 6.0

_BODY = bytes(range(256)) * 2


def measure(
    directory: Path,
    *,
    template: str,
    options: list[str],
    connections: int,
    repetitions: int,
    sessions: int,
) -> tuple[list[Goal], list[Goal]]:
    """
    Upload small files to two servers in turn, one of which is watched, then read the
    metrics of one with many sessions; print how that went.

    :param directory: Where the folders of the servers are made.
    :param template: The command that starts txbits; see
        :func:`~benchmarks.servers.txbits`.
    :param options: What else to append to it.
    :param connections: How many keep-alive connections share the work.
    :param repetitions: How often two servers are started.
    :param sessions: How many sessions are open while the metrics are read.
    :returns: What the first cost, and what the second.
    """
    with TemporaryDirectory(prefix="txbits-") as folder:
        admin = f"{folder}/admin"
        watched = [
            *options,
            *("--log-format", "json", "--admin-listen", f"unix:{admin}:mode=600"),
        ]
        sides = {"off": txbits(template, options), "on": txbits(template, watched)}
        costs: dict[str, list[float]] = {"off": [], "on": []}
        for repetition in range(repetitions):
            where = directory / f"operating-{repetition}"
            _compare(sides, where, connections, costs)
        cost = _tell(costs)
        raise_open_files(sessions + 1000)
        with running(sides["on"], directory / "operating-many") as server:
            return cost, _read_of_many(server, admin, sessions)


def _compare(
    sides: Mapping[str, Side],
    directory: Path,
    connections: int,
    costs: Mapping[str, list[float]],
) -> None:
    """
    Upload to both sides in turn.

    Two processes of the same side can differ by a tenth, as long as they live: their
    memory is laid out differently. So each call starts new ones.

    :param costs: Gets the server's CPU time for a session, in microseconds.
    """
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(running(side, directory / name))
            for name, side in sides.items()
        }
        for server in servers.values():
            upload(server, "warm", _SESSIONS, connections)
        for pair in range(_PAIRS):
            pairs = list(servers.items())
            for name, server in pairs if pair % 2 else pairs[::-1]:
                run = upload(server, f"p{pair}-", _SESSIONS, connections)
                costs[name].append(1e6 * run.cpu / run.count)


def _tell(costs: Mapping[str, list[float]]) -> list[Goal]:
    """Print what the runs have cost."""
    table(
        f"(i) a JSON log and the operator's listener, {len(costs['on'])} pairs of "
        f"{_SESSIONS} small uploads: median (lowest-highest)",
        ["side", "server CPU us/session"],
        [[side, middle(found, 0)] for side, found in costs.items()],
    )
    reached = [Goal("CPU", paired(costs["on"], costs["off"]), "at most", 1.05)]
    goals("(i) goals: on / off", reached)
    return reached


def _read_of_many(server: Server, admin: str, sessions: int) -> list[Goal]:
    """Open many sessions, and print how long it takes to read the metrics."""
    port = server.run.port
    packets = Packets.for_port(port)
    scripts = (half_upload(packets, name, _BODY) for name in names_of("held", sessions))
    sockets = drive(
        port,
        scripts,
        concurrency=16,
        deadline=300.0,
        # The sessions of one address are limited.
        source=lambda number: f"127.0.1.{1 + number % 200}",
    )
    close_all(sockets)
    server.settle()
    reads: list[float] = []
    cpu = 0.0
    quiet, busy = _Pings(port), _Pings(port)
    with quiet.sent():
        time.sleep(_QUIET)
    with busy.sent():
        for _ in range(_READS):
            time.sleep(_QUIET / _READS)
            before = server.cpu_seconds()
            reads.append(_read(admin))
            cpu += server.cpu_seconds() - before
    longest, usual = max(busy.took), max(quiet.took)
    table(
        f"(i) the metrics of {sessions} open sessions, read {_READS} times: median "
        "(lowest-highest)",
        ["ms", "server CPU ms", "longest Ping ms", "longest before ms"],
        [
            [
                middle([1000 * one for one in reads], 1),
                f"{1000 * cpu / _READS:.1f}",
                f"{1000 * longest:.1f}",
                f"{1000 * usual:.1f}",
            ]
        ],
    )
    reached = [
        Goal("ms", 1000 * median(reads), "at most", 50.0),
        Goal("longest Ping ms", 1000 * longest, "at most", 20.0),
    ]
    goals("(i) goals with sessions open", reached)
    return reached


@define
class _Pings:
    """
    Pings, one after the other, while something else goes on.

    :ivar took: How long each took, in seconds.
    """

    port: int
    took: list[float] = field(factory=list)
    _over: threading.Event = field(factory=threading.Event)

    @contextmanager
    def sent(self) -> Iterator[None]:
        """Send them during the block."""
        thread = threading.Thread(target=self._send)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _send(self) -> None:
        packet = (
            b"BITS_POST / HTTP/1.1\r\nHost: localhost\r\nBITS-Packet-Type: Ping\r\n"
            b"Content-Length: 0\r\n\r\n"
        )
        with closing(socket.create_connection(("127.0.0.1", self.port))) as connection:
            while not self._over.wait(0.002):
                began = time.perf_counter()
                connection.sendall(packet)
                if not connection.recv(65536).startswith(b"HTTP/1.1 200 "):
                    raise LoadFailed("a Ping was refused")
                self.took.append(time.perf_counter() - began)


def _read(admin: str) -> float:
    """Read the metrics, and return the seconds that took."""
    began = time.perf_counter()
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.settimeout(30)
        connection.connect(admin)
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: txbits\r\n\r\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    took = time.perf_counter() - began
    if b"\ntxbits_sessions_created_total" not in answer:
        raise LoadFailed(f"these are no metrics: {answer[:200]!r}")
    return took
