"""
The programs of ``docs/examples`` do what they say, in processes of their own.
"""

import shutil
from pathlib import Path

import bcrypt
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.integration.programs import ROOT, TWIST, Program
from tests.integration.wire import Wire

EXAMPLES = ROOT / "docs" / "examples"
LOOPBACK = "tcp:0:interface=127.0.0.1"

ALICE = b"Basic YWxpY2U6c2VjcmV0"  # alice:secret
BOB = b"Basic Ym9iOmhpZGRlbg=="  # bob:hidden


def hashed(name, password):
    """A line of a password file."""
    stored = bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()
    return f"{name}:{stored}\n"


class ExampleTestCase(TestCase):
    """Runs programs in an empty directory."""

    def setUp(self):
        self.cwd = Path(self.mktemp()).absolute()
        self.cwd.mkdir(parents=True)

    async def wire(self, program):
        wire = Wire(await program.listening())
        self.addCleanup(wire.close)
        return wire

    async def upload(self, wire, path, data, **headers):
        """Upload in two fragments; the status of each Ack."""
        middle = len(data) // 2
        status, ack = await deferToThread(
            wire.packet,
            path,
            b"Create-Session",
            BITS_Supported_Protocols=b"{7df0354d-249b-430f-820d-3d2a9bef4931}",
            **headers,
        )
        self.assertEqual(status, 200, ack)
        session = ack[b"bits-session-id"]
        for first, last in ((0, middle), (middle, len(data))):
            status, ack = await deferToThread(
                wire.packet,
                path,
                b"Fragment",
                data[first:last],
                BITS_Session_Id=session,
                Content_Range=b"bytes %d-%d/%d" % (first, last - 1, len(data)),
                **headers,
            )
            self.assertEqual(status, 200, ack)
        status, ack = await deferToThread(
            wire.packet, path, b"Close-Session", BITS_Session_Id=session, **headers
        )
        self.assertEqual(status, 200, ack)
        return session


class EmbedTests(ExampleTestCase):
    """``embed.py``, ``embed_with_observer.py`` and ``embed_with_users.py``."""

    async def test_uploads_stand_beside_another_resource(self):
        program = Program.start(
            self, EXAMPLES / "embed.py", LOOPBACK, "up", cwd=self.cwd
        )
        wire = await self.wire(program)
        await self.upload(wire, b"/upload/file", b"contents")
        self.assertEqual((self.cwd / "up" / "file").read_bytes(), b"contents")
        hello = await deferToThread(get, wire, b"/hello")
        self.assertTrue(hello.startswith(b"HTTP/1.1 200 "), hello)
        self.assertTrue(hello.endswith(b"\r\n\r\nHello!\n"), hello)

    async def test_the_application_ends_cleanly(self):
        program = Program.start(self, EXAMPLES / "embed.py", LOOPBACK, cwd=self.cwd)
        await program.listening()
        await program.end()
        self.assertEqual(program.stderr, "")

    async def test_an_observer_is_told_of_each_file(self):
        program = Program.start(
            self, EXAMPLES / "embed_with_observer.py", LOOPBACK, cwd=self.cwd
        )
        wire = await self.wire(program)
        await self.upload(wire, b"/upload/file", b"contents")
        await program.says("uploads/file has 8 bytes")

    async def test_sessions_belong_to_users(self):
        users = self.cwd / "users"
        users.touch(0o600)
        users.write_text(hashed("alice", b"secret") + hashed("bob", b"hidden"))
        program = Program.start(
            self, EXAMPLES / "embed_with_users.py", LOOPBACK, cwd=self.cwd
        )
        wire = await self.wire(program)
        status, ack = await deferToThread(wire.packet, b"/upload/alice/x", b"Ping")
        self.assertEqual(status, 401)
        self.assertEqual(
            ack[b"www-authenticate"], b'Basic realm="txbits", charset="UTF-8"'
        )

        wire = await self.wire(program)
        status, ack = await deferToThread(
            wire.packet,
            b"/upload/alice/other",
            b"Create-Session",
            BITS_Supported_Protocols=b"{7df0354d-249b-430f-820d-3d2a9bef4931}",
            Authorization=ALICE,
        )
        self.assertEqual(status, 200)
        status, ack = await deferToThread(
            wire.packet,
            b"/upload/alice/other",
            b"Cancel-Session",
            BITS_Session_Id=ack[b"bits-session-id"],
            Authorization=BOB,
        )
        self.assertEqual(status, 403)

        await self.upload(wire, b"/upload/alice/file", b"contents", Authorization=ALICE)
        file = self.cwd / "uploads" / "alice" / "file"
        self.assertEqual(file.read_bytes(), b"contents")


class ThirdPartyBackendTests(ExampleTestCase):
    """``sqlite_backend``: outside the package, found as a plugin."""

    def setUp(self):
        super().setUp()
        # A copy, since Twisted keeps a cache of plugins beside them.
        self.folder = self.cwd / "third-party"
        shutil.copytree(EXAMPLES / "sqlite_backend", self.folder)

    def twist(self, *arguments, path):
        return Program.start(
            self, *TWIST, "txbits", *arguments, cwd=self.cwd, path=path
        )

    async def test_it_is_listed_where_it_is_installed(self):
        program = await self.twist("--help-backends", path=[self.folder]).ended()
        self.assertEqual(program.status, 0)
        for form in ("disk:PATH[:create=yes]", "memory:", "sqlite:PATH"):
            self.assertIn(f"{form}\n", program.stdout)

    async def test_it_is_unknown_where_it_is_not(self):
        program = await self.twist("--backend", "sqlite:x", path=[]).ended()
        self.assertEqual(program.status, 1)
        self.assertIn("unknown backend 'sqlite'", program.stderr)

    async def test_a_wrong_description_is_one_line_and_status_1(self):
        for description in ("sqlite:", "sqlite:a:b", "sqlite:a:b=c"):
            program = self.twist("--backend", description, path=[self.folder])
            await program.ended()
            self.assertEqual(program.status, 1)
            self.assertEqual(len(program.stderr.splitlines()), 1, program.stderr)
            self.assertIn("sqlite:PATH", program.stderr)

    async def test_it_serves_and_sessions_outlive_the_server(self):
        arguments = ("--listen", LOOPBACK, "--backend", "sqlite:uploads.sqlite")
        data = bytes(range(256)) * 1000
        program = self.twist(*arguments, path=[self.folder])
        wire = await self.wire(program)
        await self.upload(wire, b"/logs/one", data)
        session = await deferToThread(wire.create, b"/logs/two")
        await deferToThread(wire.fragment, b"/logs/two", session, data, 0, 1000)
        await program.end()
        self.assertNotIn("Traceback", program.output)

        program = self.twist(*arguments, path=[self.folder])
        wire = await self.wire(program)
        status, ack = await deferToThread(
            wire.fragment, b"/logs/two", session, data, 0, len(data)
        )
        self.assertEqual(status, 200, ack)
        status, _ = await deferToThread(wire.close_session, b"/logs/two", session)
        self.assertEqual(status, 200)
        status, ack = await deferToThread(
            wire.packet,
            b"/logs/one",
            b"Create-Session",
            BITS_Supported_Protocols=b"{7df0354d-249b-430f-820d-3d2a9bef4931}",
        )
        self.assertEqual(status, 403, "the file exists")

    async def test_a_database_in_use_is_one_line_and_status_1(self):
        arguments = ("--listen", LOOPBACK, "--backend", "sqlite:uploads.sqlite")
        await self.twist(*arguments, path=[self.folder]).listening()
        program = await self.twist(*arguments, path=[self.folder]).ended()
        self.assertEqual(program.status, 1)
        self.assertEqual(len(program.stderr.splitlines()), 1, program.stderr)
        self.assertIn("uploads.sqlite", program.stderr)
        self.assertIn("locked", program.stderr)


def get(wire, path):
    """GET something, on the connection's last breath; the whole response."""
    wire.socket.sendall(
        b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % path
    )
    response = b""
    while more := wire.socket.recv(65536):
        response += more
    return response
