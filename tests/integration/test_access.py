"""
Users and permissions, in real processes: what is refused at the start, and who is
revoked by SIGHUP in the middle of an upload.
"""

import base64
import os
import signal
from http.client import HTTPConnection

import bcrypt
from twisted.internet.threads import deferToThread

from tests.integration.test_service import LOOPBACK, ServiceTestCase, pause
from tests.integration.wire import PROTOCOL, Wire

DATA = b"0123456789"

SETTINGS = """
listen = ["{listen}"]

[groups]
desk = ["alice"]

[[directory]]
mount = "/"
backend = "disk:root"
create-directories = true
allow-downloads = true
authenticate = ["basic"]
password-file = "users"
{more}

[[directory.permission]]
users = ["@desk"]
path = "/"
may = ["upload", "download"]

[[directory.permission]]
users = ["*"]
path = "/{{user}}"
may = ["upload"]
"""


def basic(name, password="secret"):
    """The value of Authorization."""
    pair = f"{name}:{password}".encode()
    return b"Basic " + base64.b64encode(pair)


class AccessCase(ServiceTestCase):
    """A server with users alice and bob, whose passwords are 'secret'."""

    def setUp(self):
        super().setUp()
        (self.cwd / "root").mkdir()
        self.write_users("alice", "bob")

    def write(self, more="", listen=LOOPBACK):
        (self.cwd / "txbits.toml").write_text(SETTINGS.format(more=more, listen=listen))

    def write_users(self, *names):
        """The password file; its name is not that of a complete file meanwhile."""
        hashed = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
        new = self.cwd / "users.new"
        new.write_text("".join(f"{name}:{hashed}\n" for name in names))
        new.chmod(0o600)
        new.replace(self.cwd / "users")

    async def serve(self):
        self.write()
        self.program = self.twistd("--config", "txbits.toml")
        self.port = await self.program.listening()
        self.wire = Wire(self.port)
        self.addCleanup(self.wire.close)

    async def hang_up(self, expected):
        """Send the signal; wait until *expected* is in the log."""
        before = len(self.program.stdout)
        os.kill(self.program.transport.pid, signal.SIGHUP)
        while expected not in self.program.stdout[before:]:
            self.assertIsNone(self.program.status, self.program.output)
            await pause()
        return self.program.stdout[before:]

    async def packet(self, path, kind, session=None, body=b"", user=None, **headers):
        """Send a packet; its status and the headers of the Ack."""
        if session is not None:
            headers["BITS_Session_Id"] = session
        if user is not None:
            headers["Authorization"] = basic(user)
        return await deferToThread(self.wire.packet, path, kind, body, **headers)

    async def create(self, path, user):
        return await self.packet(
            path, b"Create-Session", user=user, BITS_Supported_Protocols=PROTOCOL
        )

    async def fragment(self, path, session, first, last, user):
        return await self.packet(
            path,
            b"Fragment",
            session,
            DATA[first:last],
            user,
            Content_Range=b"bytes %d-%d/%d" % (first, last - 1, len(DATA)),
        )

    async def get(self, path, user):
        def get():
            connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                value = {"Authorization": basic(user).decode()}
                connection.request("GET", path, headers=value)
                response = connection.getresponse()
                return response.status, response.read()
            finally:
                connection.close()

        return await deferToThread(get)


class PermissionTests(AccessCase):
    """Who may upload and download where."""

    async def test_users_reach_what_they_may_and_nothing_else(self):
        await self.serve()
        status, headers = await self.create(b"/bob/x", None)
        self.assertEqual(status, 401)
        self.assertTrue(headers[b"www-authenticate"].startswith(b"Basic realm="))
        for path, user, expected in (
            (b"/bob/x", "bob", 200),
            (b"/alice/x", "bob", 403),
            (b"/x", "bob", 403),
            (b"/bob/y", "alice", 200),
            (b"/bob/y", "carol", 401),
        ):
            status, _ = await self.create(path, user)
            self.assertEqual((path, user, status), (path, user, expected))
        (self.cwd / "root" / "bob").mkdir()
        (self.cwd / "root" / "bob" / "z").write_bytes(DATA)
        self.assertEqual(await self.get("/bob/z", "alice"), (200, DATA))
        self.assertEqual(await self.get("/bob/z", "bob"), (403, b""))

    async def test_a_session_does_not_exist_for_others(self):
        await self.serve()
        _, headers = await self.create(b"/bob/x", "bob")
        session = headers[b"bits-session-id"]
        for kind in (b"Close-Session", b"Cancel-Session"):
            status, headers = await self.packet(b"/bob/x", kind, session, user="alice")
            self.assertEqual(status, 500)
            self.assertEqual(headers[b"bits-error-code"], b"0x8020001F")
        status, _ = await self.fragment(b"/bob/x", session, 0, 10, "alice")
        self.assertEqual(status, 500)
        status, _ = await self.fragment(b"/bob/x", session, 0, 10, "bob")
        self.assertEqual(status, 200)


class RevocationTests(AccessCase):
    """SIGHUP reads secrets and permissions again."""

    async def begin(self):
        """A session of bob's with half of its file."""
        await self.serve()
        status, headers = await self.create(b"/bob/x", "bob")
        self.assertEqual(status, 200)
        self.session = headers[b"bits-session-id"]
        status, _ = await self.fragment(b"/bob/x", self.session, 0, 5, "bob")
        self.assertEqual(status, 200)

    async def go_on(self):
        """The other half; the status, on the same connection as before."""
        status, _ = await self.fragment(b"/bob/x", self.session, 5, 10, "bob")
        return status

    async def close_session(self):
        status, _ = await self.packet(
            b"/bob/x", b"Close-Session", self.session, user="bob"
        )
        return status

    async def test_a_user_who_is_gone_loses_the_next_fragment(self):
        await self.begin()
        self.write_users("alice")
        await self.hang_up("settings reloaded: no changes; credentials of / read again")
        self.assertEqual(await self.go_on(), 401)
        # The session stands until its time-out: the user may come back.
        self.write_users("alice", "bob")
        await self.hang_up("settings reloaded")
        self.assertEqual(await self.go_on(), 200)
        self.assertEqual(await self.close_session(), 200)
        self.assertEqual((self.cwd / "root" / "bob" / "x").read_bytes(), DATA)

    async def test_a_user_who_may_not_any_more_loses_the_next_fragment(self):
        await self.begin()
        file = self.cwd / "txbits.toml"
        text = file.read_text()
        file.write_text(text.replace('users = ["*"]', 'users = ["alice"]'))
        # For alice, the group decides.
        await self.hang_up("can never match")
        self.assertEqual(await self.go_on(), 200)
        file.write_text(text.replace('users = ["*"]', 'users = ["carol"]'))
        await self.hang_up("settings reloaded: changed /")
        status, _ = await self.fragment(b"/bob/x", self.session, 9, 10, "bob")
        self.assertEqual(status, 403)
        self.assertEqual(await self.close_session(), 403)
        self.assertFalse((self.cwd / "root" / "bob").exists())

    async def test_a_broken_file_keeps_what_was_known(self):
        await self.begin()
        (self.cwd / "users").write_text("bob:secret\n")
        log = await self.hang_up("reload failed, keeping the old settings: ")
        self.assertIn("password-file: ", log)
        self.assertNotIn("bob:secret", log)
        self.assertNotIn("Traceback", log)
        self.assertEqual(await self.go_on(), 200)

    async def test_plain_passwords_stay_refused_until_a_restart(self):
        """What counts is where the server listens now."""
        await self.begin()
        self.write(listen="tcp:0")
        log = await self.hang_up("reload failed, keeping the old settings: ")
        self.assertIn("basic on tcp:0, which has no TLS", log)
        self.assertEqual(await self.go_on(), 200)


class RefusalTests(AccessCase):
    """One line, and exit status 1."""

    async def test_a_password_that_the_network_could_read(self):
        self.write(listen="tcp:0")
        for start in (self.twistd, self.twist):
            await self.is_refused(
                start("--config", "txbits.toml"),
                "directory 1 (/): authenticate: basic on tcp:0, which has no TLS",
            )
        await self.is_refused(
            self.twistd("--config", "txbits.toml", "--listen", "tcp:0"), "no TLS"
        )

    async def test_a_password_file_that_everyone_can_read(self):
        self.write()
        (self.cwd / "users").chmod(0o644)
        await self.is_refused(
            self.twistd("--config", "txbits.toml"),
            "directory 1 (/): password-file: ",
            "users is accessible to every user",
        )

    async def test_an_unknown_scheme(self):
        self.write(more='session-credentials = "create"')
        file = self.cwd / "txbits.toml"
        file.write_text(file.read_text().replace('["basic"]', '["digest", "basic"]'))
        await self.is_refused(
            self.twistd("--config", "txbits.toml"),
            "directory 1 (/): authenticate: unknown scheme 'digest'; the schemes are: ",
        )
