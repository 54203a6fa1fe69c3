"""
Upload links in real processes: ``txbits link`` makes one on the host of the server;
``curl`` and ``txbits upload`` use it, and it expires, is revoked, or is used up.
"""

import os
import random
import signal
from urllib.parse import urlsplit

from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.procutils import which

from tests.integration.programs import ROOT, TWISTD, Program
from tests.integration.test_service import LOOPBACK, ServiceTestCase, pause
from tests.integration.wire import Wire

DATA = random.Random(12).randbytes(200_000)
CLI = ("-m", "txbits")

_PROTOCOLS = "BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}"


class LinksCase(ServiceTestCase):
    """A server on disk that accepts links only."""

    timeout = 120

    def setUp(self):
        super().setUp()
        (self.cwd / "root").mkdir()
        (self.cwd / "data.bin").write_bytes(DATA)
        self.revoked = "[]"

    async def serve(self, *lines):
        await self.add_key()
        self.write(*lines)
        self.program = self.twistd("--config", "txbits.toml")
        self.port = await self.program.listening()

    def write(self, *lines):
        text = f"""
            listen = ["{LOOPBACK}"]
            public-url = "http://127.0.0.1:{getattr(self, "port", 1)}"
            [[directory]]
            mount = "/cases"
            backend = "disk:root"
            create-directories = true
            authenticate = ["link"]
            link-key-file = "keys"
            revoked-links = {self.revoked}
        """
        (self.cwd / "txbits.toml").write_text("\n".join([text, *lines]))

    async def add_key(self, *others):
        """Sign with a new key from now on."""
        key = await self.run_to_end(*CLI, "link", "--new-key")
        path = self.cwd / "keys"
        path.write_text("".join([key, *others]))
        path.chmod(0o600)
        return key

    async def run_to_end(self, *arguments, status=0):
        """Run a program of Python; what it has written."""
        program = Program.start(self, *arguments, cwd=self.cwd)
        await program.ended()
        self.assertEqual(program.status, status, program.output)
        return program.output

    async def link(self, *options, path="/cases/17/", expires="7d"):
        """Make a link with the port of the server in it."""
        output = await self.run_to_end(
            *(*CLI, "link", "--config", "txbits.toml", "--path", path),
            *("--expires", expires, *options),
        )
        url = output.splitlines()[0]
        return url.replace(":1/", f":{getattr(self, 'port', 1)}/")

    async def show(self, url):
        return await self.run_to_end(
            *CLI, "link", "--config", "txbits.toml", "--show", url
        )

    def at(self, url, name):
        """The URL of a file in the folder that a link is for."""
        return url.replace("/?", f"/{name}?")

    async def curl(self, url, kind, *options):
        """Send a packet with curl; its status, and the session of its Ack."""
        curl = which("curl")[0]
        out, err, status = await getProcessOutputAndValue(
            curl,
            [
                *("-sS", "-X", "BITS_POST", "-H", f"BITS-Packet-Type: {kind}"),
                *("-o", "/dev/null", "-w", "%{http_code} %header{bits-session-id}"),
                *(*options, url),
            ],
            env=os.environ,
            path=str(self.cwd),
        )
        self.assertEqual(status, 0, err)
        code, _, session = out.decode().partition(" ")
        return int(code), session

    async def create(self, url):
        return await self.curl(url, "Create-Session", "-H", _PROTOCOLS)

    async def fragment(self, url, session):
        length = len(DATA)
        return (
            await self.curl(
                *(url, "Fragment", "-H", f"BITS-Session-Id: {session}"),
                *("-H", f"Content-Range: bytes 0-{length - 1}/{length}"),
                *("--data-binary", "@data.bin"),
            )
        )[0]

    async def close(self, url, session):
        return (
            await self.curl(url, "Close-Session", "-H", f"BITS-Session-Id: {session}")
        )[0]

    async def hang_up(self, text):
        """Send SIGHUP, and wait until the log has more of that text."""
        count = self.program.stdout.count(text)
        os.kill(self.program.transport.pid, signal.SIGHUP)
        while self.program.stdout.count(text) == count:
            self.assertIsNone(self.program.status, self.program.output)
            await pause()

    def assert_secret(self, *urls):
        """No signature is in the log, in the staging area, or in a journal."""
        for url in urls:
            signature = url.rpartition(".")[2]
            self.assertNotIn(signature, self.program.output)
            for folder, _, names in os.walk(self.cwd):
                for name in names:
                    with open(os.path.join(folder, name), "rb") as file:
                        self.assertNotIn(signature.encode(), file.read(), name)


class UploadTests(LinksCase):
    """A link in the hands of a client."""

    async def test_curl_uploads_in_three_packets(self):
        await self.serve()
        url = await self.link("--name", "anna")
        file = self.at(url, "a.bin")
        code, session = await self.create(file)
        self.assertEqual(code, 200)
        self.assertEqual(await self.fragment(file, session), 200)
        self.assertEqual(await self.close(file, session), 200)
        self.assertEqual((self.cwd / "root" / "17" / "a.bin").read_bytes(), DATA)
        self.assertIn("link/anna (link)", self.program.stdout)
        for other in (
            url.replace("/17/?", "/18/b.bin?"),
            url.replace("/17/?", "/17/../18/b.bin?"),
        ):
            code, _ = await self.curl(
                other, "Create-Session", "-H", _PROTOCOLS, "--path-as-is"
            )
            self.assertEqual(code, 403)
        code, _ = await self.create(file)
        self.assertEqual(code, 403, "it would replace a file")
        code, _ = await self.create(file.partition("?")[0])
        self.assertEqual(code, 401)
        self.assertIn("valid", await self.show(url))
        self.assert_secret(url)

    async def test_our_client_uploads_files_and_directories(self):
        await self.serve()
        url = await self.link()
        (self.cwd / "d").mkdir()
        (self.cwd / "d" / "e.bin").write_bytes(b"e")
        upload = (*CLI, "upload", "--state", "state", "--retry-for", "0")
        (self.cwd / "state").mkdir()
        output = await self.run_to_end(*upload, "-v", "data.bin", url)
        output += await self.run_to_end(*upload, "-r", "d", url)
        folder = self.cwd / "root" / "17"
        self.assertEqual((folder / "data.bin").read_bytes(), DATA)
        self.assertEqual((folder / "d" / "e.bin").read_bytes(), b"e")
        self.revoked = '["%s"]' % (await self.id_of(url))
        self.write()
        await self.hang_up("settings reloaded")
        output += await self.run_to_end(*upload, "txbits.toml", url, status=2)
        self.assertIn("the link may have expired", output)
        self.assertNotIn("txbits-link", output)
        self.assertIn("revoked", await self.show(url))
        self.assert_secret(url)

    async def test_other_commands_take_a_link(self):
        await self.serve()
        url = await self.link()
        await self.run_to_end(*CLI, "ping", url)
        code, session = await self.create(self.at(url, "a.bin"))
        self.assertEqual(code, 200)
        cancel = (*CLI, "cancel", "--state", "state", self.at(url, "a.bin"))
        output = await self.run_to_end(*cancel, session)
        output += await self.run_to_end(*CLI, "check", "--timeout", "60", url)
        self.assertIn("0 failed", output)
        self.assertNotIn("txbits-link", output)
        self.assert_secret(url)

    async def id_of(self, url):
        shown = await self.show(url)
        return next(
            line.split()[1] for line in shown.splitlines() if line.startswith("id")
        )

    async def test_a_file_that_is_too_long(self):
        await self.serve()
        file = self.at(await self.link("--max-size", "199999"), "a.bin")
        _, session = await self.create(file)
        self.assertEqual(await self.fragment(file, session), 500)

    async def test_an_expired_link_goes_on_with_what_it_has_begun(self):
        await self.serve()
        url = await self.link(expires="3s")
        file = self.at(url, "a.bin")
        code, session = await self.create(file)
        self.assertEqual(code, 200)
        while (await self.create(self.at(url, "b.bin")))[0] != 401:
            await pause()
        self.assertIn("open sessions only", await self.show(url))
        self.assertEqual(await self.fragment(file, session), 200)
        self.assertEqual(await self.close(file, session), 200)
        self.write("link-grace = 0")
        await self.hang_up("settings reloaded")
        self.assertEqual(await self.close(file, session), 401)
        self.assertIn("state     expired", await self.show(url))
        self.assert_secret(url)


class ReloadTests(LinksCase):
    """SIGHUP takes a link away between two packets."""

    async def test_a_link_is_revoked(self):
        await self.serve()
        bobs, annas = await self.link("--name", "bob"), await self.link("--name", "ann")
        file, other = self.at(bobs, "a.bin"), self.at(annas, "b.bin")
        _, session = await self.create(file)
        self.revoked = '["bob"]'
        self.write()
        await self.hang_up("settings reloaded")
        self.assertEqual(await self.fragment(file, session), 401)
        self.assertEqual((await self.create(other))[0], 200)
        self.assert_secret(bobs, annas)

    async def test_keys_are_rotated(self):
        await self.serve()
        old = await self.link()
        before = (self.cwd / "keys").read_text()
        await self.add_key(before)
        await self.hang_up("settings reloaded")
        new = await self.link()
        for number, url in enumerate((old, new)):
            code, _ = await self.create(self.at(url, f"{number}.bin"))
            self.assertEqual(code, 200)
        path = self.cwd / "keys"
        path.write_text(path.read_text().replace(before, ""))
        await self.hang_up("settings reloaded")
        self.assertEqual((await self.create(self.at(old, "2.bin")))[0], 401)
        self.assertEqual((await self.create(self.at(new, "3.bin")))[0], 200)
        self.assert_secret(old, new)


class OnceTests(LinksCase):
    """A link that is good once."""

    async def test_it_is_used_up_by_one_file(self):
        await self.serve()
        url = await self.link("--once")
        sessions = [
            (self.at(url, name), (await self.create(self.at(url, name)))[1])
            for name in ("a.bin", "b.bin")
        ]
        for file, session in sessions:
            self.assertEqual(await self.fragment(file, session), 200)
        one, other = sessions
        self.assertEqual(await self.close(*one), 200)
        self.assertEqual(await self.close(*other), 403)
        self.assertEqual(await self.close(*one), 200)
        self.assertEqual((await self.create(self.at(url, "c.bin")))[0], 403)
        self.assertEqual(os.listdir(self.cwd / "root" / "17"), ["a.bin"])

    async def test_a_backend_that_cannot_remember_it_is_refused(self):
        await self.add_key()
        self.write()
        url = await self.link("--once")
        path = self.cwd / "txbits.toml"
        path.write_text(path.read_text().replace("disk:root", "sqlite:uploads.db"))
        example = [ROOT / "docs" / "examples" / "sqlite_backend"]
        making = Program.start(
            self,
            *(*CLI, "link", "--config", "txbits.toml", "--path", "/cases/17/"),
            *("--expires", "1d", "--once"),
            cwd=self.cwd,
            path=example,
        )
        await making.ended()
        self.assertEqual(making.status, 1, making.output)
        self.assertIn("--once: sqlite:uploads.db cannot remember", making.stderr)
        self.program = Program.start(
            self,
            *(*TWISTD, "-n", "txbits", "--config", "txbits.toml"),
            cwd=self.cwd,
            path=example,
        )
        self.port = await self.program.listening()
        file = self.at(url, "a.bin").replace(":1/", f":{self.port}/")
        self.assertEqual((await self.create(file))[0], 403)
        self.assertIn("make links without --once", self.program.stdout)

    async def test_one_file_appears_whenever_the_server_is_killed(self):
        await self.serve()
        chance = random.Random()
        for number in range(3):
            url = await self.link("--once", path=f"/cases/{number}/")
            target = urlsplit(url)
            path, query = target.path.encode(), target.query.encode()
            files = [b"%b%b?%b" % (path, name, query) for name in (b"a", b"b")]
            wire = await self.wire()
            ids = [await deferToThread(wire.create, file) for file in files]
            for file, session in zip(files, ids, strict=True):
                await deferToThread(wire.fragment, file, session, DATA, 0, len(DATA))
            await deferToThread(
                *(wire.packet, files[0], b"Close-Session", b"", 10_000),
                BITS_Session_Id=ids[0],
            )
            await deferToThread(_spin, chance.randrange(40_000))
            await self.program.end(signal.SIGKILL)
            self.program = self.twistd("--config", "txbits.toml")
            self.port = await self.program.listening()
            self.write()
            wire = await self.wire()
            # The other one is closed first.
            closed = {
                file: (await deferToThread(wire.close_session, file, session))[0]
                for file, session in [(files[1], ids[1]), (files[0], ids[0])]
            }
            self.assertEqual(sorted(closed.values()), [200, 403])
            (there,) = os.listdir(self.cwd / "root" / str(number))
            self.assertEqual(closed[files["ab".index(there)]], 200)
        self.assertNotIn("Traceback", self.program.stdout)

    async def wire(self):
        wire = await deferToThread(Wire, self.port)
        self.addCleanup(wire.close)
        return wire


def _spin(count):
    for _ in range(count):
        pass
