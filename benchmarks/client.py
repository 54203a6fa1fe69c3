"""
Part (f): ``txbits upload`` compared with ``curl -T``, each with a suitable server.

Both processes send the same file. The time runs from the start of the process to its
exit, and includes the start of Python. nginx does not fsync, so txbits does not either;
another run shows txbits with its default, which does.

For a folder of small files, ``txbits upload -r`` with its journal is compared with one
``curl`` process that sends to all the URLs on one connection.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from attrs import evolve, frozen

from benchmarks.conditions import Bystanders, warm_page_cache
from benchmarks.driver import LoadFailed
from benchmarks.report import Goal, goals, middle, table
from benchmarks.servers import CHECKOUT, Server, Side, running

MIB = 1024 * 1024

#: The interval for reading the memory of a client, in seconds.
_LOOK = 0.02


@frozen
class Client:
    """
    One of the clients that are compared.

    :ivar name: What the tables call it.
    :ivar server: The name of the server that it sends to.
    :ivar options: What else to start that server with.
    :ivar command: Makes the command, of the file and the URL.
    """

    name: str
    server: str
    options: list[str]
    command: Callable[[Path, str], list[str]]


@frozen
class Sent:
    """
    One run.

    :ivar seconds: From the start of the client to its end.
    :ivar cpu: The client's CPU seconds.
    :ivar server_cpu: The server's CPU seconds.
    :ivar peak: The client's resident memory, in MiB, at its highest.
    :ivar others: The share of one CPU that other programs used.
    """

    seconds: float
    cpu: float
    server_cpu: float
    peak: float
    others: float


def _txbits_upload(file: Path, url: str) -> list[str]:
    command = [sys.executable, "-m", "txbits", "upload", "--quiet"]
    return [*command, "--state", f"{file}.journal", str(file), url]


def _curl(file: Path, url: str) -> list[str]:
    return ["curl", "--silent", "--fail", "-T", str(file), url]


def _txbits_upload_folder(folder: Path, url: str) -> list[str]:
    command = [sys.executable, "-m", "txbits", "upload", "--quiet", "-r"]
    state = folder.with_name("journals")
    state.mkdir(exist_ok=True)
    return [*command, "--state", str(state), str(folder), f"{url}/"]


def _curl_folder(folder: Path, url: str) -> list[str]:
    paths = ",".join(sorted(map(str, folder.iterdir())))
    return ["curl", "--silent", "--fail", "-T", f"{{{paths}}}", f"{url}/{folder.name}/"]


OURS, FSYNCED, CURL = "txbits upload", "txbits upload, fsynced", "curl -T"

CLIENTS = [
    Client(OURS, "txbits", ["--fsync", "never"], _txbits_upload),
    Client(FSYNCED, "txbits", [], _txbits_upload),
    Client(CURL, "nginx", [], _curl),
]

SMALL_OURS, SMALL_NEVER = "txbits upload -r", "txbits upload -r, never fsynced"
SMALL_CURL = "curl -T {…}"

SMALL_CLIENTS = [
    Client(SMALL_OURS, "txbits", ["--create-directories"], _txbits_upload_folder),
    Client(
        SMALL_NEVER,
        "txbits",
        ["--create-directories", "--fsync", "never"],
        _txbits_upload_folder,
    ),
    Client(SMALL_CURL, "nginx", [], _curl_folder),
]

#: How many bytes each of the small files has.
SMALL = 4096


def measure(
    sides: dict[str, Side],
    directory: Path,
    *,
    repetitions: int,
    total: int,
    files: int,
) -> None:
    """
    Run all clients in turn, as often as asked, and print what came out.

    :param sides: The servers that can be run here.
    :param directory: Where the folders of the runs are made.
    :param total: How many bytes the big file has.
    :param files: How many small files there are.
    """
    file = directory / "client-source"
    with file.open("wb") as out:
        for _ in range(total // MIB):
            out.write(os.urandom(MIB))
    _tell(_results(CLIENTS, sides, file, repetitions, total), total)
    file.unlink()
    folder = directory / "client-folder"
    folder.mkdir()
    for number in range(files):
        (folder / f"{number:06}").write_bytes(os.urandom(SMALL))
    results = _results(SMALL_CLIENTS, sides, folder, repetitions, files * SMALL)
    _tell_small(results, files)
    shutil.rmtree(folder)


def _results(
    clients: Sequence[Client],
    sides: dict[str, Side],
    source: Path,
    repetitions: int,
    total: int,
) -> dict[str, list[Sent]]:
    clients = [client for client in clients if client.server in sides]
    if shutil.which("curl") is None:
        print("curl is not installed and left out: apt-get install curl")
        clients = [
            client for client in clients if client.name not in (CURL, SMALL_CURL)
        ]
    results: dict[str, list[Sent]] = {client.name: [] for client in clients}
    for repetition in range(repetitions):
        for number, client in enumerate(clients):
            folder = source.with_name(f"client-{repetition}-{number}")
            with running(_side(sides[client.server], client), folder) as server:
                sent = _run(client, server, source, total)
            results[client.name].append(sent)
            shutil.rmtree(folder)
    return results


def _side(side: Side, client: Client) -> Side:
    """The server, started with what the client wants."""
    return evolve(side, command=lambda run: side.command(run) + client.options)


def _run(client: Client, server: Server, source: Path, total: int) -> Sent:
    warm_page_cache(server.run.directory, total)
    url = f"http://127.0.0.1:{server.run.port}/arrived"
    bystanders = Bystanders()
    before = server.cpu_seconds()
    command = client.command(source, url)
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=CHECKOUT)
    peak = 0.0
    while (ended := os.waitid(os.P_PID, process.pid, _ENDED)) is None:
        peak = max(peak, _peak(process.pid))
        time.sleep(_LOOK)
    seconds = time.perf_counter() - start
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    if status:
        raise LoadFailed(f"{client.name} ended with {ended}")
    cpu = usage.ru_utime + usage.ru_stime
    server_cpu = server.cpu_seconds() - before
    if not _is_same(source, server.run.files / "arrived"):
        raise LoadFailed(f"{client.name} delivered other bytes")
    return Sent(seconds, cpu, server_cpu, peak, bystanders.share(cpu + server_cpu))


def _is_same(source: Path, arrived: Path) -> bool:
    if source.is_file():
        return filecmp.cmp(source, arrived, shallow=False)
    names = sorted(os.listdir(source))
    arrived /= source.name
    same, _, _ = filecmp.cmpfiles(source, arrived, names, shallow=False)
    return sorted(os.listdir(arrived)) == names == sorted(same)


_ENDED = os.WEXITED | os.WNOHANG | os.WNOWAIT


def _peak(pid: int) -> float:
    """The highest resident memory of a process so far, in MiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    # It has just ended.
    return 0.0


def _tell(results: dict[str, Sequence[Sent]], total: int) -> None:
    table(
        f"(f) a file of {total / MIB:.0f} MiB: median (lowest-highest)",
        [
            "client",
            "wall s",
            "MiB/s",
            "client CPU s",
            "server CPU s",
            "peak MiB",
            "others, at most",
        ],
        [
            [
                name,
                middle([run.seconds for run in runs]),
                middle([total / MIB / run.seconds for run in runs], 0),
                middle([run.cpu for run in runs]),
                middle([run.server_cpu for run in runs]),
                middle([run.peak for run in runs], 1),
                f"{max(run.others for run in runs):.0%}",
            ]
            for name, runs in results.items()
        ],
    )
    ours = results[OURS]
    reached = []
    if CURL in results:
        ratio = median(run.seconds for run in ours) / median(
            run.seconds for run in results[CURL]
        )
        reached.append(Goal("wall s, txbits upload / curl -T", ratio, "at most", 1.5))
    peak = max(run.peak for run in [*ours, *results[FSYNCED]])
    reached.append(Goal("peak MiB of txbits upload", peak, "at most", 60))
    goals("(f) goals", reached)


def _tell_small(results: dict[str, list[Sent]], files: int) -> None:
    table(
        f"(f) {files} files of {SMALL} bytes: median (lowest-highest)",
        ["client", "wall s", "files/s", "client CPU s", "server CPU s", "peak MiB"],
        [
            [
                name,
                middle([run.seconds for run in runs]),
                middle([files / run.seconds for run in runs], 0),
                middle([run.cpu for run in runs]),
                middle([run.server_cpu for run in runs]),
                middle([run.peak for run in runs], 1),
            ]
            for name, runs in results.items()
        ],
    )
