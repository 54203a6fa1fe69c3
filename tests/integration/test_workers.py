"""
Several workers, as an operator sees them: real processes that are killed, reloaded and
stopped, and clients that notice nothing but a lost connection.
"""

import json
import os
import random
import re
import signal
import socket
import ssl
import stat
import threading
import time
from contextlib import closing
from pathlib import Path
from uuid import UUID

from twisted.internet.threads import deferToThread

from tests.integration.programs import TWISTD, Program
from tests.integration.test_service import LOOPBACK, ServiceTestCase, pause
from tests.integration.test_sessions import ask
from tests.integration.test_supervised import ACTIVATE, get
from tests.integration.wire import PROTOCOL, Lost, Wire
from tests.openssl import Authority
from tests.seaweedfs import ENVIRONMENT, Bucket
from txbits._workers import slot_of

_RUNS = re.compile(r"worker (\d+) accepts connections, pid (\d+)")


def exists(pid):
    """Whether there is such a process, and it has not ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


class WorkersCase(ServiceTestCase):
    """Runs servers with workers."""

    timeout = 120

    def setUp(self):
        super().setUp()
        (self.cwd / "root").mkdir()

    def write(self, more="", top="", listen=(LOOPBACK,), backend="disk:root"):
        (self.cwd / "txbits.toml").write_text(
            f"workers = 2\nlisten = {json.dumps(listen)}\n{top}\n"
            f'[[directory]]\nbackend = "{backend}"\n{more}\n'
        )

    def serve(self, *options, before=(), **environment):
        return Program.start(
            self,
            *(*before, *TWISTD, "-n", "--pidfile=", *options, "txbits"),
            *("--config", "txbits.toml"),
            cwd=self.cwd,
            environment=environment,
        )

    def pids(self, log):
        """The processes of the workers, the last ones of each number."""
        return {int(number): int(pid) for number, pid in _RUNS.findall(log)}

    def wire(self, port):
        wire = Wire(port)
        self.addCleanup(wire.close)
        return wire

    async def upload(self, port, path, data):
        """Upload a file in two fragments, over connections of their own."""
        wires = [await deferToThread(self.wire, port) for _ in range(3)]
        session = await deferToThread(wires[0].create, path)
        half = len(data) // 2
        for wire, first, last in ((wires[1], 0, half), (wires[2], half, len(data))):
            status, headers = await deferToThread(
                wire.fragment, path, session, data, first, last
            )
            self.assertEqual(status, 200, headers)
        status, headers = await deferToThread(wires[0].close_session, path, session)
        self.assertEqual(status, 200, headers)
        return session


class LifeTests(WorkersCase):
    """From start to end."""

    async def test_a_killed_worker_costs_its_clients_a_connection_and_no_byte(self):
        self.write()
        program = self.serve()
        port = await program.listening()
        workers = set()
        for number in range(8):
            name = f"file-{number}"
            data = os.urandom(1000)
            session = await self.upload(port, f"/{name}".encode(), data)
            self.assertEqual((self.cwd / "root" / name).read_bytes(), data)
            workers.add(slot_of(UUID(session.decode())))
        self.assertEqual(workers, {0, 1})

        data = os.urandom(300_000)
        wire = await deferToThread(self.wire, port)
        session = await deferToThread(wire.create, b"/big")
        owner = slot_of(UUID(session.decode()))
        await deferToThread(
            wire.fragment, b"/big", session, data, 0, len(data), cut=200_000
        )
        folder = self.cwd / "root" / ".bits-sessions"
        staging = folder if not owner else folder / f"slot-{owner}"
        while not sum(file.stat().st_size for file in staging.glob("*.part")):
            await pause()
        before = self.pids(program.stdout)
        os.kill(before[owner], signal.SIGKILL)
        await program.says(
            f"worker {owner}, pid {before[owner]}, was killed by SIGKILL"
        )
        status, headers = await self.until_answered(
            port,
            lambda wire: wire.fragment(
                b"/big", session, data, len(data) - 1, len(data)
            ),
        )
        self.assertEqual(status, 416)
        held = int(headers[b"bits-received-content-range"])
        self.assertGreater(held, 0)
        wire = await deferToThread(self.wire, port)
        status, _ = await deferToThread(
            wire.fragment, b"/big", session, data, held, len(data)
        )
        self.assertEqual(status, 200)
        status, _ = await deferToThread(wire.close_session, b"/big", session)
        self.assertEqual(status, 200)
        self.assertEqual((self.cwd / "root" / "big").read_bytes(), data)
        after = self.pids(program.stdout)
        self.assertNotEqual(after[owner], before[owner])
        self.assertEqual(after[1 - owner], before[1 - owner])

        await program.end(signal.SIGTERM)
        self.assertIn(program.status, (0, -signal.SIGTERM))
        self.assertEqual(program.stderr, "")
        self.assertIn("stopped", program.stdout)
        self.assertNotIn("Traceback", program.stdout)
        self.assertEqual([pid for pid in after.values() if exists(pid)], [])

    async def until_answered(self, port, ask):
        """Ask again while connections are lost: as a client does."""

        def once():
            wire = Wire(port)
            try:
                return ask(wire)
            except Lost:
                return 503, {}
            finally:
                wire.close()

        for _ in range(100):
            status, headers = await deferToThread(once)
            if status != 503:
                return status, headers
            await pause()
        raise AssertionError("no worker answers")

    async def test_no_worker_outlives_a_killed_supervisor_and_the_next_start_works(
        self,
    ):
        self.write(top='log-format = "json"')
        program = self.serve("--logfile", "log")
        log = self.cwd / "log"
        while not log.exists() or "listening on" not in log.read_text():
            self.assertIsNone(program.status, program.output)
            await pause()
        events = [json.loads(line) for line in log.read_text().splitlines()]
        port = next(
            int(one["message"].split("127.0.0.1:")[1].split()[0])
            for one in events
            if one["message"].startswith("listening on")
        )
        data = os.urandom(1000)
        wire = await deferToThread(self.wire, port)
        session = await deferToThread(wire.create, b"/x")
        await deferToThread(wire.fragment, b"/x", session, data, 0, 500)
        # What it has logged is not lost.
        owner = slot_of(UUID(session.decode()))
        pids = self.pids(log.read_text())
        self.assertEqual(set(pids), {0, 1})
        os.kill(pids[owner], signal.SIGKILL)
        while f"worker {owner}, pid" not in log.read_text():
            await pause()
        events = [json.loads(line) for line in log.read_text().splitlines()]
        shown = str(UUID(session.decode())).upper()
        told = [one for one in events if one.get("session") == shown]
        self.assertIn("created", [one.get("outcome") for one in told])
        self.assertEqual({one["worker"] for one in told}, {owner})
        while len(_RUNS.findall(log.read_text())) < 3:
            await pause()

        pids = self.pids(log.read_text())
        await program.end(signal.SIGKILL)
        while any(exists(pid) for pid in pids.values()):
            await pause()

        self.write(listen=(f"tcp:{port}:interface=127.0.0.1",))
        program = self.serve()
        self.assertEqual(await program.listening(), port)
        wire = await deferToThread(self.wire, port)
        status, _ = await deferToThread(
            wire.fragment, b"/x", session, data, 500, len(data)
        )
        self.assertEqual(status, 200)
        status, _ = await deferToThread(wire.close_session, b"/x", session)
        self.assertEqual(status, 200)
        self.assertEqual((self.cwd / "root" / "x").read_bytes(), data)

        # Another service gets neither the root nor the port.
        await self.is_refused(self.serve(), f"tcp:{port}", "in use")
        self.write()
        await self.is_refused(self.serve(), "disk:root")

    async def test_all_workers_get_new_settings_or_none_does(self):
        name = f"txbits-test-{os.getpid()}-{id(self)}"
        told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(told.close)
        told.settimeout(30)
        told.bind(f"\0{name}")

        def receive(line):
            while line not in (lines := told.recv(4096).decode().split("\n")):
                pass
            return lines

        self.write(top='health-path = "/health"')
        program = self.serve(NOTIFY_SOCKET=f"@{name}", WATCHDOG_USEC="900000")
        port = await program.listening()
        lines = await deferToThread(receive, "READY=1")
        self.assertIn(
            "STATUS=2 of 2 workers running; 0 sessions open, 0 connections", lines
        )
        await deferToThread(receive, "WATCHDOG=1")
        await deferToThread(receive, "WATCHDOG=1")

        async def statuses(path):
            """What all workers answer; connections spread by chance."""
            answers = [
                await deferToThread(get, socket.AF_INET, ("127.0.0.1", port), path)
                for _ in range(12)
            ]
            return {int(answer.split()[1]) for answer in answers}

        self.assertEqual(await statuses(b"/health"), {200})
        self.write("enabled = maybe", top='health-path = "/other"')
        program.end(signal.SIGHUP)
        await program.says("reload failed, keeping the old settings")
        self.assertEqual(await statuses(b"/health"), {200})
        # Only a worker finds out that this cannot be.
        self.write("password-file = 'none'\nauthenticate = ['basic']")
        program.end(signal.SIGHUP)
        while program.stdout.count("reload failed, keeping the old settings") < 2:
            await pause()
        self.assertEqual(await statuses(b"/health"), {200})
        self.write(top='health-path = "/other"')
        program.end(signal.SIGHUP)
        await program.says("settings reloaded: ")
        await deferToThread(receive, "RELOADING=1")
        self.assertEqual(await statuses(b"/other"), {200})
        self.assertEqual(program.stdout.count("settings reloaded: "), 1)
        # A worker that starts later has them as well.
        for pid in self.pids(program.stdout).values():
            os.kill(pid, signal.SIGKILL)
        while len(_RUNS.findall(program.stdout)) < 4:
            await pause()
        self.assertEqual(await statuses(b"/other"), {200})
        self.assertNotIn("Traceback", program.output)


class KillTests(WorkersCase):
    """Workers that are killed one after the other, while clients upload."""

    def ask(self, port, about, send, *arguments):
        """
        Send a packet over a connection of its own, as often as it takes.

        :returns: Its status and headers, and how many connections were lost before.
        """
        for lost in range(1000):
            try:
                with closing(Wire(port)) as wire:
                    status, headers = send(wire, *arguments)
            except Lost:
                status = 503
            if status != 503:
                return status, headers, lost
            time.sleep(0.05)
        raise AssertionError(f"no worker answers, {about}")

    def upload_all_the_time(self, port, number, seed, is_over):
        """
        Upload one file after the other.

        :returns: How many, and how many sessions may have been created in vain.
        """
        chance, about = random.Random(f"{seed} {number}"), f"seed {seed}"
        uploads = in_vain = 0
        while not is_over.is_set():
            name = f"file-{number}-{uploads}"
            path, uploads = f"/{name}".encode(), uploads + 1
            data = chance.randbytes(int(10 ** chance.uniform(0, 6)))
            status, headers, lost = self.ask(
                port,
                about,
                lambda wire, path: wire.packet(
                    path, b"Create-Session", BITS_Supported_Protocols=PROTOCOL
                ),
                path,
            )
            self.assertEqual(status, 200, about)
            session, in_vain = headers[b"bits-session-id"], in_vain + lost
            held = 0
            while held < len(data):
                last = chance.randrange(held, len(data)) + 1
                status, headers, _ = self.ask(
                    port,
                    about,
                    Wire.fragment,
                    *(path, session, data, held, last),
                )
                received = int(headers[b"bits-received-content-range"])
                self.assertIn(status, (200, 416), about)
                self.assertGreaterEqual(received, held, f"lost, {about}")
                self.assertLessEqual(received, len(data), about)
                held = received
            status, _, _ = self.ask(
                port,
                about,
                Wire.close_session,
                *(path, session),
            )
            self.assertEqual(status, 200, about)
            self.assertEqual((self.cwd / "root" / name).read_bytes(), data, about)
        return uploads, in_vain

    async def test_nothing_is_lost_and_nothing_is_left(self):
        self.write()
        program = self.serve()
        port = await program.listening()
        seed, is_over = random.randrange(2**32), threading.Event()
        self.addCleanup(is_over.set)
        chance = random.Random(seed)
        clients = [
            deferToThread(self.upload_all_the_time, port, number, seed, is_over)
            for number in range(4)
        ]
        for _ in range(10):
            while not (
                alive := list(filter(exists, self.pids(program.stdout).values()))
            ):
                await pause()
            os.kill(chance.choice(alive), signal.SIGKILL)
            for _ in range(chance.randrange(10)):
                await pause()
        is_over.set()
        done = [await client for client in clients]
        await program.end(signal.SIGTERM)
        self.assertNotIn("Traceback", program.output)
        files = [path.name for path in (self.cwd / "root").glob("file-*")]
        self.assertEqual(len(files), sum(uploads for uploads, _ in done))
        staging = self.cwd / "root" / ".bits-sessions"
        left = [path.name for path in staging.rglob("*") if path.suffix]
        self.assertEqual(left, ["slot-0.lock"], f"seed {seed}")
        lines = [
            line
            for path in staging.rglob("sessions-1")
            for line in path.read_bytes().splitlines()
            if not line.startswith(b"free")
        ]
        # Nobody knows the id of a session whose Ack was lost.
        self.assertLessEqual(len(lines), sum(in_vain for _, in_vain in done), lines)


class BucketTests(WorkersCase):
    """On S3 each worker acts in all sessions."""

    async def test_any_worker_takes_any_packet(self):
        bucket = Bucket(self)
        self.write(
            backend=json.dumps(bucket.description())[1:-1],
            top="log-format = 'json'\nadmin-listen = 'unix:admin:mode=600'",
        )
        program = self.serve(**ENVIRONMENT)
        await program.says("listening on 127.0.0.1")
        port = int(re.search(r"listening on 127.0.0.1:(\d+)", program.stdout)[1])
        for number in range(4):
            data = os.urandom(1000)
            await self.upload(port, b"/file-%d" % number, data)
            self.assertEqual(await deferToThread(bucket.read, f"file-{number}"), data)
        # The operator sees each session once, and any worker ends it.
        wire = await deferToThread(self.wire, port)
        session = str(UUID((await deferToThread(wire.create, b"/left")).decode()))
        admin = os.path.relpath(self.cwd / "admin")
        for _ in range(4):
            status, said = await deferToThread(ask, admin, b"GET", b"/api/sessions")
            self.assertEqual((status, said["faults"]), (200, []))
            self.assertEqual(
                [one["session"] for one in said["sessions"]], [session.upper()]
            )
        path = b"/api/sessions/" + session.encode()
        status, _ = await deferToThread(ask, admin, b"DELETE", path)
        self.assertEqual(status, 200)
        status, said = await deferToThread(ask, admin, b"GET", path)
        self.assertEqual((status, said), (404, {"error": "no such session"}))
        await program.end(signal.SIGTERM)
        workers = [
            event["worker"]
            for event in map(json.loads, program.stdout.splitlines())
            if event.get("outcome") == "created"
        ]
        self.assertEqual(len(workers), 5)


class EndpointTests(WorkersCase):
    """All kinds of endpoints have all workers behind them."""

    async def test_https_unix_sockets_ipv6_and_sockets_of_systemd(self):
        authority = Authority(self.cwd, "authority")
        authority.issue_server()
        self.write(
            top='health-path = "/health"\nadmin-listen = "systemd:domain=UNIX:index=1"',
            listen=(
                "https:0:interface=127.0.0.1:certificate=server.pem:key=server.key",
                "unix:uploads:mode=660",
                "tcp6:0:interface=\\:\\:1",
                "systemd:domain=INET:index=0",
            ),
        )
        program = self.serve(before=("-c", ACTIVATE))
        port = await program.listening()
        await program.says("listening on uploads")
        paths = {
            name: os.path.relpath(self.cwd / name) for name in ("uploads", "admin")
        }
        for name, path in paths.items():
            for _ in range(4):
                answer = await deferToThread(
                    get,
                    socket.AF_UNIX,
                    path,
                    b"/health" if name == "uploads" else b"/health/ready",
                )
                self.assertIn(b" 200 OK\r\n", answer)
        context = ssl.create_default_context(cafile=self.cwd / "authority.pem")

        def secure():
            with (
                socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
                context.wrap_socket(plain, server_hostname="127.0.0.1") as connection,
            ):
                connection.sendall(b"GET /health HTTP/1.0\r\nHost: x\r\n\r\n")
                return connection.recv(65536)

        for _ in range(4):
            self.assertIn(b" 200 OK\r\n", await deferToThread(secure))
        six = int(re.search(r"listening on \[::1\]:(\d+)", program.stdout)[1])
        answer = await deferToThread(get, socket.AF_INET6, ("::1", six), b"/health")
        self.assertIn(b" 200 OK\r\n", answer)
        four = int(re.findall(r"listening on 127.0.0.1:(\d+)", program.stdout)[1])
        for _ in range(4):
            answer = await deferToThread(
                get, socket.AF_INET, ("127.0.0.1", four), b"/health"
            )
            self.assertIn(b" 200 OK\r\n", answer)
        metrics = await deferToThread(get, socket.AF_UNIX, paths["admin"], b"/metrics")
        self.assertIn(b'\ntxbits_workers{state="running"} 2.0\n', metrics)
        # A worker that is stopped leaves the socket and its mode to the others.
        pids = self.pids(program.stdout)
        os.kill(pids[0], signal.SIGTERM)
        while len(_RUNS.findall(program.stdout)) < 3:
            await pause()
        self.assertIn(f"worker 0, pid {pids[0]}, ended with status 0;", program.stdout)
        for name, mode in (("uploads", 0o660), ("admin", 0o640)):
            found = (self.cwd / name).stat().st_mode
            self.assertTrue(stat.S_ISSOCK(found))
            self.assertEqual(stat.S_IMODE(found), mode, name)
        await program.end(signal.SIGTERM)
        self.assertFalse((self.cwd / "uploads").exists())
        self.assertNotIn("Traceback", program.output)


class RefusedTests(WorkersCase):
    """Settings with which there can be no workers: one line, before anything starts."""

    async def test_backend_that_is_in_one_process_only(self):
        self.write(backend="memory:")
        await self.is_refused(
            self.serve(), "txbits.toml: directory 1: backend: memory:", "workers"
        )

    async def test_what_only_a_worker_finds_ends_the_service(self):
        (self.cwd / "root").rmdir()
        self.write()
        await self.is_refused(self.serve(), "disk:root: ", "does not exist")
