"""
The measured servers: how to start, observe and stop each of them.

Each server runs in a separate process with an empty folder. The benchmarks stop it by
its process ids, also after an error.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import ssl
import string
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from attrs import frozen

CHECKOUT = Path(__file__).resolve().parents[1]
#: ``twistd``, in the foreground, from the checkout.
TWISTD = (
    "{python} -c 'from twisted.scripts.twistd import run; run()' "
    "--nodaemon --pidfile= txbits"
)
DEFAULT_COMMAND = TWISTD + " --listen {listen} --backend {backend}"
_START_SECONDS = 30.0
_STOP_SECONDS = 15.0


class ServerFailed(Exception):
    """A server did not start; the text holds the end of its log."""


@frozen
class Run:
    """
    The place of one run of one server.

    :ivar directory: A fresh folder: configuration, log, and all below.
    :ivar files: The folder in it where uploads arrive.
    :ivar port: The port on 127.0.0.1 to listen on.
    """

    directory: Path
    files: Path
    port: int

    @property
    def certificate(self) -> Path:
        """The certificate of a server with TLS."""
        return self.directory / "server.pem"

    @property
    def key(self) -> Path:
        """Its key."""
        return self.directory / "server.key"

    def make_certificate(self) -> None:
        """Make a certificate with a key on P-256, as usual today."""
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-days", "2"),
                *("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                *("-subj", "/CN=benchmarks", "-addext", "subjectAltName=IP:127.0.0.1"),
                *("-out", self.certificate, "-keyout", self.key),
            ],
            check=True,
            capture_output=True,
        )

    def client_context(self) -> ssl.SSLContext | None:
        """What clients need for TLS; ``None`` if this run has no certificate."""
        if not self.certificate.exists():
            return None
        return ssl.create_default_context(cafile=str(self.certificate))


@frozen
class Side:
    """
    One of the servers that are compared.

    :ivar name: What the command line and the tables call it.
    :ivar protocol: How it is spoken to: ``"bits"``, ``"relayed"`` or ``"put"``.
    :ivar command: Makes the command that starts it.
    :ivar is_secure: Whether it is spoken to over TLS.
    """

    name: str
    protocol: str
    command: Callable[[Run], list[str]]
    is_secure: bool = False


def txbits(
    template: str,
    options: list[str],
    backend: str | None = None,
    *,
    name: str | None = None,
    is_secure: bool = False,
) -> Side:
    """
    txbits, as its service is started from the command line.

    :param template: The command, with ``{python}``, ``{listen}``, ``{directory}`` and
        ``{backend}``, or ``{port}`` instead of ``{listen}``.
    :param options: What else to append to it.
    :param backend: The description of its backend; the folder of the run if ``None``.
    :param name: The name of the side, if it is not ``txbits`` or ``txbits-tls``.
    :param is_secure: Whether it listens with ``https:``.
    """

    def command(run: Run) -> list[str]:
        listen = f"tcp:{run.port}:interface=127.0.0.1"
        if is_secure:
            listen = (
                f"https:{run.port}:interface=127.0.0.1:"
                f"certificate={run.certificate}:key={run.key}"
            )
        escaped = str(run.files).replace("\\", "\\\\").replace(":", "\\:")
        words = {
            "python": sys.executable,
            "port": str(run.port),
            "listen": listen,
            "directory": str(run.files),
            "backend": backend or f"disk:{escaped}",
        }
        return [word.format(**words) for word in shlex.split(template)] + options

    name = name or ("txbits-tls" if is_secure else "txbits")
    return Side(name, "bits", command, is_secure)


def has_option(template: str, option: str) -> bool:
    """
    Whether the txbits that a command starts has an option.

    :param template: See :func:`txbits`.
    :param option: The option, such as ``--workers``.
    """
    words = [
        sys.executable if word == "{python}" else word for word in shlex.split(template)
    ]
    if "txbits" not in words:
        return False
    shown = subprocess.run(
        [*words[: words.index("txbits") + 1], "--help"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    return option in shown.stdout.replace("=", " ").split()


def buffered(durable: str | None = None) -> Side:
    """
    ``twisted.web`` with bodies that it has buffered.

    :param durable: What its sessions outlive: ``"kill"`` or ``"crash"``; ``None`` for
        nothing.
    """
    options = [] if durable is None else ["--durable", durable]

    def command(run: Run) -> list[str]:
        module = "benchmarks.buffered_site"
        return [sys.executable, "-m", module, str(run.port), str(run.files), *options]

    return Side("-".join(["buffered", *options[1:]]), "bits", command)


def two_workers(name: str, protocol: str) -> Side:
    """
    Two workers: the one on 127.0.0.1 gets all sessions, and the one on 127.0.0.2 passes
    their packets on to it.
    """

    def command(run: Run) -> list[str]:
        module = "benchmarks.two_workers"
        return [sys.executable, "-m", module, str(run.port), str(run.files)]

    return Side(name, protocol, command)


def bare_loop(name: str = "bare", *options: str) -> Side:
    """A loop that moves bytes from a socket to a file."""

    def command(run: Run) -> list[str]:
        module = "benchmarks.bare_loop"
        return [sys.executable, "-m", module, str(run.port), str(run.files), *options]

    return Side(name, "put", command)


def nginx_binary() -> str | None:
    """Where nginx is; it is often outside the search path of a user."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")


def nginx(
    binary: str, name: str = "nginx", more: str = "", *, is_secure: bool = False
) -> Side:
    """
    nginx with one worker, storing PUTs, and serving files.

    :param more: What else to put into its configuration.
    :param is_secure: Whether it listens for TLS.
    """

    def command(run: Run) -> list[str]:
        secure = (
            f"ssl_certificate {run.certificate}; ssl_certificate_key {run.key};"
            if is_secure
            else ""
        )
        template = (Path(__file__).parent / "nginx.conf.template").read_text()
        (run.directory / "temp").mkdir()
        configuration = run.directory / "nginx.conf"
        configuration.write_text(
            string.Template(template).substitute(
                # A worker of root would change to another user, who cannot write.
                user="user root;" if os.geteuid() == 0 else "",
                directory=run.directory,
                files=run.files,
                port=f"{run.port} ssl" if is_secure else run.port,
                more=f"{more} {secure}",
            )
        )
        return [binary, "-p", str(run.directory), "-c", str(configuration)]

    return Side(name, "put", command, is_secure)


class Server:
    """
    A server that runs.

    :ivar run: Where it runs.
    """

    def __init__(self, run: Run, pids: list[int]) -> None:
        self.run = run
        self._pids = pids

    @property
    def pids(self) -> list[int]:
        """The ids of its processes."""
        return self._pids

    def look_for_children(self) -> None:
        """Observe the processes that the server has started meanwhile, too."""
        self._pids = _family(self._pids[0])

    def cpu_seconds(self) -> float:
        """The CPU time of all its processes and threads so far, in seconds."""
        # utime and stime of /proc/PID/stat, but in nanoseconds instead of ticks of
        # 10 ms: clock_getcpuclockid(3) converts a pid to a clock like this.
        return sum(time.clock_gettime((~pid << 3) | 2) for pid in self._pids)

    def system_seconds(self) -> float:
        """The CPU time of them in the kernel, in seconds, in ticks of 10 ms."""
        total = 0
        for pid in self._pids:
            stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(stat[12])
        return total / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """The resident memory of its processes."""
        # Like VmRSS of /proc/PID/status, but exact.
        total = 0
        for pid in self._pids:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    total += int(line.split()[1]) * 1024
        return total

    def peak_bytes(self) -> int:
        """The most resident memory that its processes have had."""
        total = 0
        for pid in self._pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1]) * 1024
        return total

    def settle(self, quiet: float = 0.5, limit: float = 10.0) -> None:
        """
        Wait until it has stopped working on its own account.

        :param quiet: For how many seconds it must have been idle.
        :param limit: When to stop waiting, in seconds.
        """
        deadline = time.monotonic() + limit
        before = self.cpu_seconds()
        while time.monotonic() < deadline:
            time.sleep(quiet)
            now = self.cpu_seconds()
            if now - before < 0.01 * quiet:
                return
            before = now


@contextmanager
def running(side: Side, directory: Path) -> Iterator[Server]:
    """
    Start a server; stop it at the end of the block.

    :param side: Which one.
    :param directory: Its folder, which must not exist yet.
    :raises ServerFailed: If it does not listen in time.
    """
    files = directory / "files"
    files.mkdir(parents=True)
    run = Run(directory, files, _free_port())
    if side.is_secure:
        run.make_certificate()
    log = directory / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            side.command(run),
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    server = Server(run, [process.pid])
    try:
        if not _listens(process, run.port):
            tail = log.read_text(errors="replace")[-2000:]
            raise ServerFailed(f"{side.name} did not start; its log ends:\n{tail}")
        server.look_for_children()
        yield server
    finally:
        _stop(process, server.pids)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return True
    return False


def _family(pid: int) -> list[int]:
    """The process and its children, as nginx has a worker."""
    family = [pid]
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # It has just ended.
        if int(fields[1]) == pid:
            family.append(int(stat.parent.name))
    return family


def _stop(process: subprocess.Popen[bytes], pids: list[int]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        process.wait(_STOP_SECONDS)
