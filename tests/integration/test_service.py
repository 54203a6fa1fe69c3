"""
``twistd txbits`` and ``twist txbits`` as an operator sees them, in real processes.

A mistake is one line on standard error and exit status 1, whichever of the two runs;
a signal ends the server cleanly.
"""

import os
import signal
import socket
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.programs import TWIST, TWISTD, Program, at_once
from tests.integration.wire import Wire
from txbits._version import versions

LOOPBACK = "tcp:0:interface=127.0.0.1"

_WITH_OWN_PIDFILE = """
import os
with open("twistd.pid", "w") as file:
    file.write(str(os.getpid()))
from twisted.scripts.twistd import run
run()
"""


class ServiceTestCase(TestCase):
    """Runs servers in an empty directory."""

    def setUp(self):
        self.cwd = Path(self.mktemp()).absolute()
        self.cwd.mkdir(parents=True)

    def twistd(self, *arguments):
        return Program.start(self, *TWISTD, "-n", "txbits", *arguments, cwd=self.cwd)

    def twist(self, *arguments):
        return Program.start(self, *TWIST, "txbits", *arguments, cwd=self.cwd)

    def daemon(self, *arguments):
        return Program.start(self, *TWISTD, "txbits", *arguments, cwd=self.cwd)

    def pid(self):
        return int((self.cwd / "twistd.pid").read_text())

    async def is_refused(self, program, *parts):
        """The program ends with one line that has these parts, and status 1."""
        await program.ended()
        self.assertEqual(program.status, 1, program.output)
        self.assertEqual(len(program.stderr.splitlines()), 1, program.stderr)
        self.assertTrue(program.stderr.startswith("txbits: "), program.stderr)
        for part in parts:
            self.assertIn(part, program.stderr)
        self.assertNotIn("listening on", program.stdout)
        self.assertNotIn("Traceback", program.stdout)
        # Once: a terminal, and a journal, have both streams.
        self.assertNotIn(program.stderr.strip(), program.stdout)

    async def are_refused(self, *arguments, parts, daemon=False):
        """
        Both commands end in that way, with the same arguments.

        :param daemon: Whether ``twistd`` does so without ``-n`` as well.
        """
        starts = [self.twistd, self.twist, *([self.daemon] if daemon else [])]
        await at_once(*(self.is_refused(start(*arguments), *parts) for start in starts))


class PidfileTests(ServiceTestCase):
    """The pid file of a server that was killed."""

    async def test_a_server_starts_though_its_pid_is_that_of_the_last_run(self):
        """In a container the pid is the same in each run: 1, for the most part."""
        program = Program.start(
            self,
            *("-c", _WITH_OWN_PIDFILE, "-n", "txbits", "--listen", LOOPBACK),
            cwd=self.cwd,
        )
        await program.listening()
        self.assertEqual(self.pid(), program.transport.pid)
        self.assertNotIn("Another", program.output)
        await program.end()
        self.assertFalse((self.cwd / "twistd.pid").exists())


class WrongSettingTests(ServiceTestCase):
    """One line and status 1, before anything listens."""

    async def test_wrong_option(self):
        await self.are_refused(
            *("--session-timeout", "soon"), parts=["--session-timeout"], daemon=True
        )

    async def test_unknown_option(self):
        await self.are_refused("--alow-overwrites", parts=["--allow-overwrites"])

    async def test_unknown_backend(self):
        await self.are_refused(
            "--backend", "nonsense:x", parts=["'nonsense'"], daemon=True
        )

    async def test_wrong_endpoint(self):
        await self.are_refused("--listen", "tcp:http", parts=["tcp:http"])
        await self.are_refused(
            *("--backend", "memory:", "--listen", "tcp:99999"),
            parts=["--listen: tcp:99999"],
        )

    async def test_wrong_file(self):
        file = self.cwd / "txbits.toml"
        file.write_text("[[directory]]\nbackendd = 'memory:'\n")
        await self.are_refused(
            *("--config", file),
            parts=[str(file), "'backendd'", "'backend'"],
            daemon=True,
        )

    async def test_missing_file(self):
        await self.is_refused(self.twistd("--config", "none.toml"), "none.toml")

    async def test_root_that_cannot_be_used(self):
        file = self.cwd / "file"
        file.touch()
        await self.are_refused(
            *("--listen", LOOPBACK, "--backend", f"disk:{file}"),
            parts=["--backend", str(file)],
        )

    async def test_root_that_does_not_exist(self):
        await self.are_refused(
            *("--listen", LOOPBACK, "--backend", "disk:root:create=no"),
            parts=["--backend: disk:root:create=no: ", "does not exist"],
        )
        self.assertFalse((self.cwd / "root").exists())

    async def test_root_of_a_settings_file_that_does_not_exist(self):
        (self.cwd / "txbits.toml").write_text(
            f'listen = ["{LOOPBACK}"]\n[[directory]]\nbackend = "disk:root"\n'
        )
        await self.is_refused(
            self.twistd("--config", "txbits.toml"), "disk:root: ", "does not exist"
        )
        self.assertFalse((self.cwd / "root").exists())

    async def test_root_that_another_server_uses(self):
        arguments = ("--listen", LOOPBACK, "--backend", "disk:root")
        await self.twist(*arguments).listening()
        await self.is_refused(self.twist(*arguments), "--backend: disk:root: ")

    async def test_port_in_use(self):
        taken = socket.socket()
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
        await self.are_refused(
            *("--backend", "memory:", "--listen", endpoint), parts=[endpoint, "in use"]
        )

    async def test_a_log_in_a_file_has_the_line_as_well(self):
        (self.cwd / "file").touch()
        program = Program.start(
            self,
            *(*TWISTD, "-n", "--logfile", "log", "txbits", "--listen", LOOPBACK),
            *("--backend", "disk:file"),
            cwd=self.cwd,
        )
        await self.is_refused(program, "--backend: disk:file: ")
        log = (self.cwd / "log").read_text()
        self.assertEqual(log.count(program.stderr.strip()), 1)

    async def test_a_daemon_that_cannot_start_says_so_in_its_log(self):
        (self.cwd / "file").touch()
        await self.daemon("--listen", LOOPBACK, "--backend", "disk:file").ended()
        log = self.cwd / "twistd.log"
        while not log.exists() or "Server Shut Down" not in log.read_text():
            await pause()
        self.assertIn("txbits: --backend: disk:file: ", log.read_text())
        self.assertNotIn("listening on", log.read_text())
        self.assertNotIn("Traceback", log.read_text())
        self.assertFalse((self.cwd / "twistd.pid").exists())


class LifeTests(ServiceTestCase):
    """From the start to a clean end."""

    async def test_ends_on_sigterm_with_idle_connections_open(self):
        (self.cwd / "root").mkdir()
        for start in (self.twistd, self.twist):
            program = start("--listen", LOOPBACK, "--backend", "disk:root")
            wire = Wire(await program.listening())
            self.addCleanup(wire.close)
            status, _ = await deferToThread(wire.packet, b"/x", b"Ping")
            self.assertEqual(status, 200)
            await program.end(signal.SIGTERM)
            # Twisted ends with the signal that it was sent, once all is done.
            self.assertIn(program.status, (0, -signal.SIGTERM))
            self.assertIn("stopped", program.stdout)
            self.assertIn(f"{versions()} starting", program.stdout)
            self.assertIn("listening on 127.0.0.1:", program.stdout)
            self.assertNotIn("factory", program.stdout)
            self.assertEqual(program.stderr, "")
            self.assertNotIn("Traceback", program.stdout)

    async def test_a_fragment_under_way_keeps_its_bytes_on_sigterm(self):
        (self.cwd / "root").mkdir()
        data = os.urandom(300_000)
        program = self.twist("--listen", LOOPBACK, "--backend", "disk:root")
        wire = Wire(await program.listening())
        self.addCleanup(wire.close)
        session = await deferToThread(wire.create, b"/x")
        await deferToThread(
            wire.fragment, b"/x", session, data, 0, len(data), cut=200_000
        )
        staging = self.cwd / "root" / ".bits-sessions"
        while not sum(file.stat().st_size for file in staging.glob("*.part")):
            await pause()
        await program.end(signal.SIGTERM)

        program = self.twist("--listen", LOOPBACK, "--backend", "disk:root")
        wire = Wire(await program.listening())
        self.addCleanup(wire.close)
        status, headers = await deferToThread(
            wire.fragment, b"/x", session, data, len(data) - 1, len(data)
        )
        self.assertEqual(status, 416)
        held = int(headers[b"bits-received-content-range"])
        self.assertGreater(held, 0)
        status, _ = await deferToThread(
            wire.fragment, b"/x", session, data, held, len(data)
        )
        self.assertEqual(status, 200)
        status, _ = await deferToThread(wire.close_session, b"/x", session)
        self.assertEqual(status, 200)
        self.assertEqual((self.cwd / "root" / "x").read_bytes(), data)

    async def test_a_daemon_serves_and_ends_on_sigterm(self):
        parent = self.daemon("--listen", LOOPBACK, "--backend", "memory:")
        await parent.ended()
        self.assertEqual(parent.status, 0, parent.output)
        pid = self.pid()
        log = self.cwd / "twistd.log"
        try:
            while "listening on" not in log.read_text():
                await pause()
        finally:
            os.kill(pid, signal.SIGTERM)
        while (self.cwd / "twistd.pid").exists():
            await pause()
        self.assertIn("stopped", log.read_text())

    async def test_directories_of_a_file_are_served_side_by_side(self):
        (self.cwd / "txbits.toml").write_text(
            f"""
            listen = ["{LOOPBACK}"]
            [[directory]]
            mount = "/logs"
            backend = "disk:logs:create=yes"
            [[directory]]
            mount = "/"
            backend = "disk:rest:create=yes"
            [[directory]]
            mount = "/off"
            backend = "memory:"
            enabled = false
            """
        )
        program = self.twistd("--config", "txbits.toml")
        wire = Wire(await program.listening())
        self.addCleanup(wire.close)
        for path in (b"/logs/a", b"/b"):
            session = await deferToThread(wire.create, path)
            await deferToThread(wire.fragment, path, session, path, 0, len(path))
            await deferToThread(wire.close_session, path, session)
        self.assertEqual((self.cwd / "logs" / "a").read_bytes(), b"/logs/a")
        self.assertEqual((self.cwd / "rest" / "b").read_bytes(), b"/b")
        status, _ = await deferToThread(wire.packet, b"/off/a", b"Ping")
        self.assertEqual(status, 501)


class VersionTests(ServiceTestCase):
    """What is running."""

    async def test_the_version_is_told(self):
        for start in (self.twistd, self.twist):
            program = await start("--version").ended()
            self.assertEqual(program.status, 0, program.stderr)
            self.assertEqual(program.stdout, f"{versions()}\n")


class StoreAwayTests(ServiceTestCase):
    """A store that cannot be reached, or does not answer, when the server starts."""

    async def test_the_log_says_what_is_waited_for_and_sigterm_ends_it(self):
        silent = socket.socket()
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        programs = []
        # Nobody listens on port 1.
        for port in (1, silent.getsockname()[1]):
            backend = f"s3:bucket:endpoint=http\\://127.0.0.1\\:{port}:region=x"
            arguments = ("-n", "--pidfile=", "txbits", "--listen", LOOPBACK)
            program = Program.start(
                self,
                *(*TWISTD, *arguments, "--backend", backend),
                cwd=self.cwd,
                environment={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
            )
            programs.append((program, backend))
        for program, backend in programs:
            await program.says(f"--backend: {backend}: not ready after 4 s, waiting")
        for program, _ in programs:
            self.assertIsNone(program.status, program.output)
            await program.end(signal.SIGTERM)
            self.assertIn(program.status, (0, -signal.SIGTERM))
            self.assertIn("stopped", program.stdout)
            self.assertNotIn("stopping takes longer", program.stdout)
            self.assertNotIn("Traceback", program.stdout)


_HANGING = """
from threading import Event, Thread
from txbits.service._process import Process

Thread(target=Event().wait).start()
Process(None).end_by_force(0.2)
print("waiting for a thread that never ends", flush=True)
"""


class ForceTests(ServiceTestCase):
    """A shutdown has a time limit, whatever hangs."""

    async def test_a_thread_that_hangs_does_not_keep_the_process(self):
        program = await Program.start(self, "-c", _HANGING, cwd=self.cwd).ended()
        self.assertEqual(program.status, 1, program.stderr)
        self.assertIn("waiting", program.stdout)


def pause():
    """Let others run for a moment, while polling for what they do."""
    from twisted.internet import reactor

    paused = Deferred()
    reactor.callLater(0.02, paused.callback, None)
    return paused
