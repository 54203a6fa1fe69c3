"""
Part (g), authentication: what it costs each upload, and what wrong passwords cost
others.
"""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

import bcrypt

from benchmarks.driver import LoadFailed
from benchmarks.report import Goal, goals, middle, paired, table
from benchmarks.servers import CHECKOUT, TWISTD, Run, Server, Side, running
from benchmarks.small import Latency, Sessions, latency_of, upload

#: What htpasswd -C is told in the how-to.
_COST = 12

#: How many users there are. The last one is the one whose password is right.
_USERS = 60
_PASSWORD = "correct horse battery staple"

#: Into how many runs a repetition is cut.
_RUNS = 6

_ATTACKERS = 200
_MIB = 1024 * 1024

_SETTINGS = """
listen = ["tcp:{port}:interface=127.0.0.1"]
session-limit = 0

[[directory]]
backend = "disk:{files}"
"""
_WITH_PASSWORDS = """
authenticate = ["basic"]
password-file = "{directory}/users"

[[directory.permission]]
users = ["*"]
path = "/"
may = ["upload"]
"""


def _side(name: str, *, has_passwords: bool) -> Side:
    def command(run: Run) -> list[str]:
        text = _SETTINGS + (_WITH_PASSWORDS if has_passwords else "")
        settings = run.directory / "txbits.toml"
        settings.write_text(
            text.format(port=run.port, files=run.files, directory=run.directory)
        )
        users = run.directory / "users"
        users.touch(0o600)
        # Theirs may be the same: what is remembered depends on the name as well.
        hashed = bcrypt.hashpw(_PASSWORD.encode(), bcrypt.gensalt(_COST)).decode()
        users.write_text("".join(f"user{n}:{hashed}\n" for n in range(_USERS)))
        words = {"python": sys.executable}
        command = [word.format(**words) for word in shlex.split(TWISTD)]
        return [*command, "--config", str(settings)]

    return Side(name, "bits", command)


def _credentials(name: str, password: str) -> bytes:
    pair = b64encode(f"{name}:{password}".encode())
    return b"Authorization: Basic " + pair + b"\r\n"


_RIGHT = _credentials(f"user{_USERS - 1}", _PASSWORD)


def measure(
    directory: Path,
    *,
    sessions: int,
    connections: int,
    latencies: int,
    tries: int,
    repetitions: int,
) -> None:
    """
    Measure uploads without and with passwords, then beside wrong ones, then the time
    that a wrong password takes.

    :param directory: Where the folders of the runs are made.
    :param sessions: How many files a run uploads.
    :param connections: How many connections share that.
    :param latencies: How many uploads are timed one by one.
    :param tries: How many wrong passwords are timed for known and for unknown names.
    """
    _measure_cost(directory, sessions, connections, repetitions)
    _measure_overload(directory, latencies, repetitions)
    _measure_names(directory, tries)


def _measure_cost(
    directory: Path, sessions: int, connections: int, repetitions: int
) -> None:
    sides = [
        (_side("open", has_passwords=False), b""),
        (_side("basic", has_passwords=True), _RIGHT),
    ]
    results: dict[str, list[Sessions]] = {side.name: [] for side, _ in sides}
    with ExitStack() as stack:
        servers = []
        for side, more in sides:
            folder = directory / f"authentication-{side.name}"
            server = stack.enter_context(running(side, folder))
            servers.append((side.name, server, more))
            # With it, bcrypt checks the password.
            upload(server, "warm", 500, connections, more)
            server.settle()
        # Many short runs in turn: a login costs a twentieth of a session, less than
        # what other load changes within seconds.
        for number in range(_RUNS * repetitions):
            for name, server, more in servers if number % 2 else servers[::-1]:
                run = upload(server, f"{number}-", sessions // _RUNS, connections, more)
                results[name].append(run)
    costs = {
        name: [1000 * run.cpu / run.count for run in runs]
        for name, runs in results.items()
    }
    table(
        f"(g) runs of {sessions // _RUNS} small uploads on {connections} connections, "
        "without authentication, and with Basic",
        ["side", "sessions/s", "server CPU ms/session", "others, at most"],
        [
            [
                name,
                middle([run.count / run.seconds for run in runs], 0),
                middle(costs[name], 3),
                f"{max(run.others for run in runs):.0%}",
            ]
            for name, runs in results.items()
        ],
    )
    ratio = paired(costs["basic"], costs["open"])
    goals(
        "(g) goals of cost",
        [Goal("CPU ms/session, basic / open, pairs", ratio, "at most", 1.1)],
    )


@contextmanager
def _attackers(server: Server, count: int, pause: float) -> Iterator[dict[str, int]]:
    """Run clients with wrong passwords; afterwards, the statuses of their answers."""
    statuses: dict[str, int] = {}
    arguments = [str(server.run.port), str(count), str(pause), str(_USERS - 1)]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.wrong_passwords", *arguments],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        # They fill the queue.
        time.sleep(2)
        yield statuses
        out, _ = process.communicate("", timeout=30)
        statuses.update(json.loads(out))
        if process.returncode:
            raise LoadFailed("the clients with wrong passwords failed")
    finally:
        process.kill()
        process.wait()


def _measure_overload(directory: Path, latencies: int, repetitions: int) -> None:
    """Time uploads of a user beside clients that send wrong passwords."""
    rows: list[list[str]] = []
    ratios: list[float] = []
    growth: list[float] = []
    side = _side("basic", has_passwords=True)
    for repetition in range(repetitions):
        folder = directory / f"overload-{repetition}"
        with running(side, folder) as server:
            latency_of(server, "warm", 200, 1, _RIGHT)
            # Once beforehand, for what such clients make a process allocate.
            with _attackers(server, _ATTACKERS, 1.0):
                latency_of(server, "begin", latencies, 1, _RIGHT)
            server.settle(limit=60)
            calm = latency_of(server, "calm", latencies, 1, _RIGHT)
            before = server.resident_bytes()
            with _attackers(server, _ATTACKERS, 1.0) as statuses:
                busy = latency_of(server, "busy", latencies, 1, _RIGHT)
            server.settle(limit=60)
            growth.append((server.resident_bytes() - before) / _MIB)
        ratios.append(busy.p99 / calm.p99)
        rows += [
            ["alone", *_times(calm), "-", "-"],
            [
                f"beside {_ATTACKERS} clients",
                *_times(busy),
                str(statuses.get("401", 0)),
                str(statuses.get("503", 0)),
            ],
        ]
    table(
        f"(g) {latencies} uploads of one user, one by one, beside clients that send a "
        f"wrong password (cost {_COST}) each second",
        ["uploads", "p50 ms", "p99 ms", "highest ms", "401", "503"],
        rows,
    )
    goals(
        "(g) goals of overload",
        [
            Goal("p99, beside / alone, median", median(ratios), "at most", 3.0),
            Goal("MiB grown, median", median(growth), "at most", 1.0),
        ],
    )


def _times(latency: Latency) -> list[str]:
    return [
        f"{1000 * seconds:.2f}"
        for seconds in (latency.p50, latency.p99, latency.highest)
    ]


def _measure_names(directory: Path, tries: int) -> None:
    """Time wrong passwords for names that exist, and for names that do not."""
    known: list[float] = []
    unknown: list[float] = []
    side = _side("basic", has_passwords=True)
    with running(side, directory / "names") as server:
        _refused_seconds(server, "warm", 0)
        for number in range(tries):
            pair = [
                (known, f"user{number % (_USERS - 1)}"),
                (unknown, f"nobody{number % (_USERS - 1)}"),
            ]
            # Which is first changes, so that a drift affects both.
            for times, name in pair if number % 2 else reversed(pair):
                times.append(_refused_seconds(server, name, number))
    table(
        f"(g) {tries} wrong passwords (cost {_COST}) for known and for unknown names, "
        "in turn",
        ["name", "ms"],
        [
            ["known", middle([1000 * seconds for seconds in known])],
            ["unknown", middle([1000 * seconds for seconds in unknown])],
        ],
    )
    pairs = zip(unknown, known, strict=True)
    goals(
        "(g) goals of names",
        [
            Goal(
                "difference of medians, share of a hash",
                abs(median(unknown) / median(known) - 1),
                "at most",
                0.02,
            ),
            Goal("unknown / known, median of pairs", median(u / k for u, k in pairs)),
        ],
    )


def _refused_seconds(server: Server, name: str, number: int) -> float:
    """How long it takes until a wrong password is refused."""
    # Addresses that have not failed before.
    source = (f"127.2.{number // 250}.{1 + number % 250}", 0)
    port = server.run.port
    with socket.create_connection(("127.0.0.1", port), 60, source) as connection:
        start = time.perf_counter()
        connection.sendall(
            b"BITS_POST /wrong HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
            b"BITS-Packet-Type: Ping\r\n%bContent-Length: 0\r\n\r\n"
            % (port, _credentials(name, f"wrong {number}"))
        )
        head = connection.recv(65536)
        seconds = time.perf_counter() - start
    if not head.startswith(b"HTTP/1.1 401 "):
        raise LoadFailed(f"the server answered {head!r}")
    return seconds
