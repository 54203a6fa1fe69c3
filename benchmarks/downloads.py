"""
Part (e): the speed of downloads, and their cost for the server.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Thread

from attrs import define, field, frozen

from benchmarks.conditions import Bystanders
from benchmarks.driver import LoadFailed
from benchmarks.report import Goal, goals, middle, paired, table
from benchmarks.servers import Run, Server, Side, running

MIB = 1024 * 1024
GIB = 1024 * MIB

_NAME = "download"
_TIMEOUT = 60.0


@frozen
class Fetch:
    """
    One run.

    :ivar seconds: From the first request to the last byte.
    :ivar cpu: The server's CPU seconds in that time.
    :ivar others: The share of one CPU that other programs used.
    """

    seconds: float
    cpu: float
    others: float


@define
class _Client:
    """
    Downloads a part of the file on a separate connection, and discards it.

    :ivar problem: What went wrong, if anything did.
    """

    _run_of: Run
    _first: int
    _last: int
    _expected: bytes | None
    _context: ssl.SSLContext | None
    problem: str | None = None
    _buffer: bytearray = field(factory=lambda: bytearray(MIB))

    def run(self) -> None:
        try:
            self._run()
        except OSError as error:
            self.problem = str(error)

    def _run(self) -> None:
        address = ("127.0.0.1", self._run_of.port)
        with self._secured(
            socket.create_connection(address, timeout=_TIMEOUT)
        ) as connection:
            connection.sendall(
                b"GET /%b HTTP/1.1\r\nHost: localhost\r\nRange: bytes=%d-%d\r\n"
                b"Connection: close\r\n\r\n" % (_NAME.encode(), self._first, self._last)
            )
            received = b""
            while b"\r\n\r\n" not in received:
                data = connection.recv(4096)
                if not data:
                    break
                received += data
            head, _, body = received.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 206 "):
                self.problem = f"answered {head[:100]!r}"
                return
            count = self._take(0, body)
            while read := connection.recv_into(self._buffer):
                count = self._take(count, memoryview(self._buffer)[:read])
        if count != self._last + 1 - self._first and not self.problem:
            self.problem = f"{count} bytes came"

    def _secured(self, plain: socket.socket) -> socket.socket:
        if self._context is None:
            return plain
        return self._context.wrap_socket(plain, server_hostname="127.0.0.1")

    def _take(self, count: int, data: bytes | memoryview) -> int:
        end = count + len(data)
        if self._expected is not None:
            expected = self._expected[self._first + count : self._first + end]
            if bytes(data) != expected:
                self.problem = f"other bytes came after {count}"
        return end


def measure(
    sides: Sequence[Side],
    directory: Path,
    *,
    connections: Sequence[int],
    repetitions: int,
    total: int,
) -> dict[tuple[int, str], list[Fetch]]:
    """
    Run all sides in turn, as often as asked, and print what came out.

    All servers are there from the beginning, and serve the same file.

    :param directory: Where the folders of the runs are made.
    :param connections: The numbers of connections to try, each of which fetches its
        share.
    :param total: The length of the file.
    :returns: The runs of each number of connections and each side.
    """
    results = _collect(
        sides,
        directory,
        connections=connections,
        repetitions=repetitions,
        total=total,
    )
    for count in connections:
        _tell(count, {side: results[count, side.name] for side in sides}, total)
    return results


def _collect(
    sides: Sequence[Side],
    directory: Path,
    *,
    connections: Sequence[int],
    repetitions: int,
    total: int,
) -> dict[tuple[int, str], list[Fetch]]:
    content = os.urandom(MIB) * (total // MIB)
    file = directory / _NAME
    file.write_bytes(content)
    results: dict[tuple[int, str], list[Fetch]] = {}
    with ExitStack() as stack:
        servers = []
        for side in sides:
            folder = directory / f"downloads-{side.name}"
            server = stack.enter_context(running(side, folder))
            (server.run.files / _NAME).hardlink_to(file)
            servers.append((side.name, server))
            # Compare what comes. It is in the page cache afterwards.
            for count in connections:
                _run_clients(server, count, total, content)
        for number in range(repetitions):
            for count in connections:
                for name, server in servers if number % 2 else servers[::-1]:
                    results.setdefault((count, name), []).append(
                        _run(server, count, total)
                    )
    file.unlink()
    return results


def _run(server: Server, connections: int, total: int) -> Fetch:
    bystanders = Bystanders()
    busy = server.cpu_seconds() + time.process_time()
    start, cpu = time.perf_counter(), server.cpu_seconds()
    _run_clients(server, connections, total, None)
    seconds = time.perf_counter() - start
    used = server.cpu_seconds() - cpu
    others = bystanders.share(server.cpu_seconds() + time.process_time() - busy)
    return Fetch(seconds, used, others)


def _run_clients(
    server: Server, connections: int, total: int, expected: bytes | None
) -> None:
    share = total // connections
    context = server.run.client_context()
    clients = [
        _Client(server.run, number * share, (number + 1) * share - 1, expected, context)
        for number in range(connections)
    ]
    threads = [Thread(target=client.run) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    problems = [client.problem for client in clients if client.problem]
    if problems:
        raise LoadFailed(f"a download failed: {problems[0]}")


def _tell(count: int, results: dict[Side, list[Fetch]], total: int) -> None:
    """Print the runs of a number of connections."""
    mib, gib = total / MIB, total / GIB
    on = f"on {count} connection{'s' if count > 1 else ''}"
    rates = {
        side.name: [mib / run.seconds for run in runs] for side, runs in results.items()
    }
    cpu = {side.name: [run.cpu / gib for run in runs] for side, runs in results.items()}
    table(
        f"(e) {mib:.0f} MiB fetched {on}: median (lowest-highest)",
        ["side", "MiB/s", "server CPU s/GiB", "others, at most"],
        [
            [
                side.name,
                middle(rates[side.name], 0),
                middle(cpu[side.name]),
                f"{max(run.others for run in runs):.0%}",
            ]
            for side, runs in results.items()
        ],
    )
    reached = []
    for side, other in (("txbits", "nginx"), ("txbits-tls", "nginx-tls")):
        if {side, other} <= rates.keys():
            rate = paired(rates[side], rates[other])
            cost = paired(cpu[side], cpu[other])
            pair = f"{side} / {other}"
            reached += [
                Goal(f"MiB/s, {pair}", rate, limit=0.9),
                Goal(f"CPU s/GiB, {pair}", cost, "at most", 1.3),
            ]
    goals(f"(e) goals {on}", reached)
