"""
SIGHUP, in real processes: the file is reloaded during uploads.
"""

import os
import signal
import socket
from http.client import HTTPConnection
from urllib.parse import urlsplit

from twisted.internet.threads import deferToThread

from tests.integration.programs import TWISTD, Program
from tests.integration.test_service import LOOPBACK, ServiceTestCase, pause
from tests.integration.wire import Wire

DATA = b"0123456789"
TOP = f'listen = ["{LOOPBACK}"]\n'


#: A server application: its reply says what it was told.
_APPLICATION = """
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import unquote

class Application(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        upload = Path(unquote(self.headers["BITS-Request-DataFile-Name"])).read_text()
        Path(unquote(self.headers["BITS-Response-DataFile-Name"])).write_text(
            f"attempt {self.headers['BITS-Notification-Attempt']} of {self.path}: "
            f"{upload}, {'signed' if 'Signature' in self.headers else 'not signed'}"
        )
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.send_header("BITS-Copy-File-To-Destination", "yes")
        self.end_headers()

server = HTTPServer(("127.0.0.1", 0), Application)
print(server.server_port, flush=True)
server.serve_forever()
"""


class ReloadTests(ServiceTestCase):
    """A server with a file, and a client in the middle of an upload."""

    def setUp(self):
        super().setUp()
        for root in ("root", "one", "two", "twist", "twistd"):
            (self.cwd / root).mkdir()

    def write(self, *directories, top=TOP):
        tables = "".join(f"[[directory]]\n{one}\n" for one in directories)
        (self.cwd / "txbits.toml").write_text(top + tables)

    async def serve(self, *directories, start=None):
        self.write(*directories)
        self.program = (start or self.twistd)("--config", "txbits.toml")
        self.port = await self.program.listening()
        self.wire = self.connect()

    def connect(self):
        wire = Wire(self.port)
        self.addCleanup(wire.close)
        return wire

    async def hang_up(self, *expected):
        """Send the signal; wait until all of *expected* is in the log."""
        before = len(self.program.stdout)
        os.kill(self.program.transport.pid, signal.SIGHUP)
        while not all(one in self.program.stdout[before:] for one in expected):
            self.assertIsNone(self.program.status, self.program.output)
            await pause()
        return self.program.stdout[before:]

    async def packet(self, method, *arguments):
        status, _ = await deferToThread(method, *arguments)
        return status

    async def test_new_settings_are_for_new_sessions_and_no_upload_is_disturbed(self):
        for start in (self.twistd, self.twist):
            root = f"disk:{start.__name__}"
            await self.serve(f'mount = "/"\nbackend = "{root}"', start=start)
            data = os.urandom(200_000)
            session = await deferToThread(self.wire.create, b"/x")
            size = len(data)
            await deferToThread(self.wire.fragment, b"/x", session, data, 0, 100_000)
            self.write(f'mount = "/"\nbackend = "{root}"\nmax-upload-size = 10')
            await self.hang_up("settings reloaded: changed /")
            # On the same connection.
            status = await self.packet(
                self.wire.fragment, b"/x", session, data, 100_000, size
            )
            self.assertEqual(status, 200)
            status = await self.packet(self.wire.close_session, b"/x", session)
            self.assertEqual(status, 200)
            self.assertEqual((self.cwd / start.__name__ / "x").read_bytes(), data)
            session = await deferToThread(self.wire.create, b"/y")
            status = await self.packet(self.wire.fragment, b"/y", session, data, 0, 20)
            self.assertEqual(status, 500)
            await self.program.end(signal.SIGTERM)
            self.assertIn(self.program.status, (0, -signal.SIGTERM))
            self.assertNotIn("Traceback", self.program.stdout)

    async def test_a_directory_that_is_disabled_loses_its_sessions(self):
        await self.serve('mount = "/"\nbackend = "disk:root"')
        staging = self.cwd / "root" / ".bits-sessions"
        session = await deferToThread(self.wire.create, b"/x")
        await deferToThread(self.wire.fragment, b"/x", session, DATA, 0, 5)
        self.assertNotEqual(list(staging.glob("*.part")), [])
        # One more is just arriving, on a connection of its own.
        other = self.connect()
        arriving = await deferToThread(other.create, b"/y")
        await deferToThread(
            other.fragment, b"/y", arriving, b"y" * 100_000, 0, 100_000, cut=50_000
        )
        self.write('mount = "/"\nbackend = "disk:root"\nenabled = false')
        await self.hang_up("are disabled: 2 sessions released")
        self.assertEqual(list(staging.glob("*.part")), [])
        self.assertEqual(await self.packet(self.wire.packet, b"/x", b"Ping"), 501)
        status = await self.packet(self.wire.fragment, b"/x", session, DATA, 5, 10)
        self.assertEqual(status, 501)
        self.write('mount = "/"\nbackend = "disk:root"')
        await self.hang_up("settings reloaded: changed /")
        self.assertEqual(await self.packet(self.wire.packet, b"/x", b"Ping"), 200)

    async def test_one_that_is_disabled_at_the_start_loses_its_sessions(self):
        await self.serve('mount = "/"\nbackend = "disk:root"')
        staging = self.cwd / "root" / ".bits-sessions"
        session = await deferToThread(self.wire.create, b"/x")
        await deferToThread(self.wire.fragment, b"/x", session, DATA, 0, 5)
        await self.program.end(signal.SIGTERM)
        self.assertNotEqual(list(staging.glob("*.part")), [])
        await self.serve('mount = "/"\nbackend = "disk:root"\nenabled = false')
        while list(staging.glob("*.part")):
            await pause()
        self.assertEqual(await self.packet(self.wire.packet, b"/x", b"Ping"), 501)

    async def test_an_application_that_is_mended_is_asked_about_uploads_under_way(self):
        secret = self.cwd / "secret"
        secret.write_text("0123456789abcdef\n")
        secret.chmod(0o600)
        application = Program.start(self, "-c", _APPLICATION, cwd=self.cwd)
        while "\n" not in application.stdout:
            self.assertIsNone(application.status, application.output)
            await pause()
        port = int(application.stdout)
        directory = (
            'mount = "/"\nbackend = "disk:root"\nnotify-by = "reference"\n'
            'notify-secret-file = "secret"\n'
        )
        # Nobody listens on port 1.
        await self.serve(f'{directory}notify-url = "http://127.0.0.1:1/"')
        session = await deferToThread(self.wire.create, b"/x")
        last = (self.wire.fragment, b"/x", session, DATA, 0, 10)
        self.assertEqual(await self.packet(*last), 502)
        self.write(f'{directory}notify-url = "http://127.0.0.1:{port}/uploaded"')
        await self.hang_up("settings reloaded: changed /")
        status, headers = await deferToThread(*last)
        self.assertEqual(status, 200)
        reply = urlsplit(headers[b"bits-reply-url"].decode())
        self.assertEqual(
            await deferToThread(self.get, reply.path),
            b"attempt 2 of /uploaded: 0123456789, signed",
        )
        status = await self.packet(self.wire.close_session, b"/x", session)
        self.assertEqual(status, 200)
        self.assertEqual((self.cwd / "root" / "x").read_bytes(), DATA)
        self.assertNotIn("0123456789abcdef", self.program.output)

    def get(self, path):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", path)
        return connection.getresponse().read()

    async def test_directories_come_and_go(self):
        one = 'mount = "/one"\nbackend = "disk:one"'
        two = 'mount = "/two"\nbackend = "disk:two"'
        await self.serve(one)
        session = await deferToThread(self.wire.create, b"/one/x")
        await deferToThread(self.wire.fragment, b"/one/x", session, DATA, 0, 6)
        self.assertEqual(await self.packet(self.wire.packet, b"/two/x", b"Ping"), 404)
        self.write(two)
        await self.hang_up("settings reloaded: added /two; removed /one")
        self.assertEqual(await self.packet(self.wire.packet, b"/two/x", b"Ping"), 200)
        self.assertEqual(await self.packet(self.wire.packet, b"/one/x", b"Ping"), 404)
        # Its sessions are where they were, and it may come back.
        self.write(two, one)
        await self.hang_up("settings reloaded: added /one")
        status = await self.packet(self.wire.fragment, b"/one/x", session, DATA, 6, 10)
        self.assertEqual(status, 200)
        status = await self.packet(self.wire.close_session, b"/one/x", session)
        self.assertEqual(status, 200)
        self.assertEqual((self.cwd / "one" / "x").read_bytes(), DATA)

    async def test_a_directory_moves_to_another_mount_with_its_uploads(self):
        await self.serve('mount = "/one"\nbackend = "disk:one"')
        session = await deferToThread(self.wire.create, b"/one/x")
        await deferToThread(self.wire.fragment, b"/one/x", session, DATA, 0, 6)
        self.write('mount = "/two"\nbackend = "disk:one"')
        await self.hang_up("settings reloaded: changed /two")
        self.assertEqual(await self.packet(self.wire.packet, b"/one/x", b"Ping"), 404)
        status = await self.packet(self.wire.fragment, b"/two/x", session, DATA, 6, 10)
        self.assertEqual(status, 200)
        status = await self.packet(self.wire.close_session, b"/two/x", session)
        self.assertEqual(status, 200)
        self.assertEqual((self.cwd / "one" / "x").read_bytes(), DATA)

    async def test_a_broken_file_and_one_that_cannot_start_change_nothing(self):
        (self.cwd / "file").touch()
        good = 'mount = "/"\nbackend = "disk:root"'
        await self.serve(good)
        session = await deferToThread(self.wire.create, b"/x")
        for directories, reason in (
            ([good, "monut = '/y'"], "directory 2: unknown key 'monut'"),
            (["backend = "], "not valid TOML"),
            (
                [f"{good}\nsession-limit = 1", 'mount="/y"\nbackend="disk:file"'],
                "directory 2 (/y): backend: disk:file: ",
            ),
        ):
            self.write(*directories)
            log = await self.hang_up(f"{self.cwd}/txbits.toml: {reason}")
            (line,) = [one for one in log.splitlines() if reason in one]
            self.assertIn("reload failed, keeping the old settings: ", line)
            self.assertNotIn("Traceback", log)
        status = await self.packet(self.wire.fragment, b"/x", session, b"1", 0, 1)
        self.assertEqual(status, 200)
        self.assertEqual(await self.packet(self.wire.packet, b"/y/x", b"Ping"), 200)

    async def test_what_requires_a_restart_is_said(self):
        await self.serve('mount = "/"\nbackend = "disk:root"')
        self.write('mount = "/"\nbackend = "disk:other"', top='listen = ["tcp:1"]\n')
        await self.hang_up(
            f"restart required: {self.cwd}/txbits.toml: listen: still {LOOPBACK}",
            "directory 1 (/): backend: still disk:root",
        )
        self.assertEqual(await self.packet(self.wire.packet, b"/x", b"Ping"), 200)

    async def test_a_stop_does_not_wait_for_a_new_directory_whose_store_is_away(self):
        silent = socket.socket()
        self.addCleanup(silent.close)
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        store = f"s3:bucket:endpoint=http\\://127.0.0.1\\:{port}:region=x"

        def start(*arguments):
            return Program.start(
                self,
                *(*TWISTD, "-n", "txbits", *arguments),
                cwd=self.cwd,
                environment={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
            )

        good = 'mount = "/"\nbackend = "memory:"'
        await self.serve(good, start=start)
        self.write(good, f"mount = '/s3'\nbackend = '{store}'")
        await self.hang_up("not ready after 4 s, waiting")
        self.assertEqual(await self.packet(self.wire.packet, b"/x", b"Ping"), 200)
        await self.program.end(signal.SIGTERM)
        self.assertIn("reload cancelled: the server is stopping", self.program.stdout)
        self.assertNotIn("stopping takes longer", self.program.stdout)
        self.assertNotIn("Traceback", self.program.stdout)

    async def test_without_a_file_it_is_said_that_there_is_none(self):
        for start in (self.twistd, self.twist):
            self.program = start("--listen", LOOPBACK, "--backend", "memory:")
            self.port = await self.program.listening()
            await self.hang_up("no settings to reload: started without --config")
            wire = self.connect()
            self.assertEqual(await self.packet(wire.packet, b"/x", b"Ping"), 200)
            await self.program.end(signal.SIGTERM)

    async def test_relative_paths_begin_where_the_server_was_started(self):
        (self.cwd / "elsewhere").mkdir()
        secret = self.cwd / "secret"
        secret.write_bytes(b"x" * 20)
        secret.chmod(0o600)
        one = (
            'mount = "/one"\nbackend = "disk:one"\nnotify-url = "http://127.0.0.1:1/"\n'
            'notify-secret-file = "secret"'
        )
        self.write(one)
        arguments = ("--rundir", "elsewhere", "-n", "txbits", "--config", "txbits.toml")
        self.program = Program.start(self, *TWISTD, *arguments, cwd=self.cwd)
        self.port = await self.program.listening()
        self.write(one, 'mount = "/two"\nbackend = "disk:two"')
        await self.hang_up("settings reloaded: added /two")
        for name in ("one", "two"):
            self.assertTrue((self.cwd / name / ".bits-sessions").is_dir())
        self.assertEqual(list((self.cwd / "elsewhere").iterdir()), [])

    async def test_a_daemon_reads_its_file_again_and_still_rotates_its_log(self):
        self.write('mount = "/"\nbackend = "memory:"')
        await self.daemon("--config", "txbits.toml").ended()
        pid = self.pid()
        log = self.cwd / "twistd.log"
        try:
            while "listening on" not in log.read_text():
                await pause()
            os.kill(pid, signal.SIGUSR1)
            while not (self.cwd / "twistd.log.1").exists():
                await pause()
            self.write('mount = "/"\nbackend = "memory:"\nsession-limit = 1')
            os.kill(pid, signal.SIGHUP)
            while "settings reloaded: changed /" not in log.read_text():
                await pause()
        finally:
            os.kill(pid, signal.SIGTERM)
        while (self.cwd / "twistd.pid").exists():
            await pause()
