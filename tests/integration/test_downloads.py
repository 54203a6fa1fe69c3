"""
Downloads from disk over real sockets: to ``curl``, which knows nothing of us, and to
clients that stop reading, or go away.
"""

from __future__ import annotations

import os
import socket
import ssl
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint, serverFromString
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.procutils import which
from twisted.trial.unittest import TestCase

from tests.backends.s3.test_access import certificate
from txbits.backends._serving import PIECE
from txbits.backends.disk import DiskBackend
from txbits.sessions import Settings
from txbits.web import BITSResource, BITSSite
from txbits.web._streaming.taking import untaken

#: Longer than what the system keeps of a socket.
CONTENT = os.urandom(MIB := 1024 * 1024) * 20


class DownloadCase(TestCase):
    """A disk backend behind a real port, with one file in it."""

    async def setUp(self) -> None:  # type: ignore[override]
        self.cwd = Path(self.mktemp()).absolute()
        self.cwd.mkdir(parents=True)
        self.root = self.cwd / "root"
        self.backend = DiskBackend(str(self.root), reactor)
        resource = BITSResource(
            self.backend, Settings(allow_downloads=True), reactor=reactor
        )
        await resource.manager.start()
        self.addCleanup(resource.manager.stop)
        (self.root / "a b").mkdir()
        (self.root / "a b" / "file.bin").write_bytes(CONTENT)
        self.site = BITSSite(resource, reactor=reactor)
        port = await self.endpoint().listen(self.site)
        self.addCleanup(self.all_closed)
        self.addCleanup(port.stopListening)
        self.port: int = port.getHost().port
        self.url = f"http://127.0.0.1:{self.port}/a%20b/file.bin"

    def endpoint(self) -> Any:
        """Where to listen."""
        return TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")

    async def turn(self) -> None:
        """Let the reactor do what is ready."""
        turn: Deferred[None] = Deferred()
        reactor.callLater(0.001, turn.callback, None)  # type: ignore[attr-defined]
        await turn

    async def all_closed(self) -> None:
        while self.site.channels:
            await self.turn()

    def begun(self, context: ssl.SSLContext | None = None) -> socket.socket:
        """A client that has asked for the file."""
        client = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        self.addCleanup(client.close)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if context is not None:
            client = context.wrap_socket(client, server_hostname="127.0.0.1")
            self.addCleanup(client.close)
        client.sendall(b"GET /a%20b/file.bin HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1)
        return client

    async def channel(self) -> Any:
        """The site's end of the only connection, when all that fits has been sent."""
        while not self.site.channels:
            await self.turn()
        (channel,) = self.site.channels
        quiet = 0
        while quiet < 50:
            await self.turn()
            is_still = channel._waitingForTransport and not channel._is_taking()
            quiet = quiet + 1 if is_still else 0
        return channel

    async def until_nothing_is_open(self) -> None:
        while self.backend._served:
            await self.turn()


class CurlCase(DownloadCase):
    """A client that knows nothing of us."""

    async def curl(self, *arguments: str, status: int = 0) -> bytes:
        """Run it; what it writes to standard output."""
        (program, *_) = which("curl")
        out, err, code = await getProcessOutputAndValue(
            program,
            ["-sS", "--max-time", "60", "--noproxy", "*", *arguments],
            env=os.environ,
            path=str(self.cwd),
        )
        self.assertEqual(code, status, err)
        found: bytes = out
        return found

    async def head(self, *arguments: str) -> Message:
        """What a response's head has; its status is called ``status``."""
        head = await self.curl("-D", "-", "-o", os.devnull, *arguments)
        line, _, rest = head.partition(b"\r\n")
        return message_from_bytes(b"status: " + line.split()[1] + b"\r\n" + rest)


class CurlTests(CurlCase):
    """What ``curl`` gets."""

    async def test_the_whole_file(self) -> None:
        self.assertEqual(await self.curl(self.url), CONTENT)
        await self.until_nothing_is_open()

    async def test_many_on_one_connection(self) -> None:
        self.assertEqual(
            await self.curl("-r", "5-9", self.url, self.url, self.url),
            CONTENT[5:10] * 3,
        )

    async def test_head(self) -> None:
        head = await self.head("-I", self.url)
        self.assertEqual(head["status"], "200")
        self.assertEqual(head["Content-Length"], str(len(CONTENT)))
        self.assertEqual(head["Accept-Ranges"], "bytes")

    async def test_one_range(self) -> None:
        for value, part in (
            ("5000000-5999999", CONTENT[5_000_000:6_000_000]),
            ("20000000-", CONTENT[20_000_000:]),
            ("-7", CONTENT[-7:]),
        ):
            self.assertEqual(await self.curl("-r", value, self.url), part)

    async def test_several_ranges(self) -> None:
        ranges = ((7_000_000, 7_999_999), (0, 9), (5_000_000, 5_000_000))
        value = ",".join(f"{first}-{last}" for first, last in ranges)
        response = await self.curl("-i", "-r", value, self.url)
        status, _, rest = response.partition(b"\r\n")
        self.assertEqual(status.split()[1], b"206")
        head, _, body = rest.partition(b"\r\n\r\n")
        outer = message_from_bytes(head + b"\r\n\r\n")
        self.assertEqual(outer["Content-Length"], str(len(body)))
        boundary = outer.get_boundary()
        assert boundary is not None
        _, *parts, end = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
        self.assertEqual(end, b"--\r\n")
        for part, (first, last) in zip(parts, ranges, strict=True):
            inner, _, data = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
            self.assertEqual(
                message_from_bytes(inner)["Content-Range"],
                f"bytes {first}-{last}/{len(CONTENT)}",
            )
            self.assertEqual(data, CONTENT[first : last + 1])

    async def test_a_download_that_was_broken_off_goes_on(self) -> None:
        part = self.cwd / "part"
        part.write_bytes(CONTENT[:12_345_678])
        await self.curl("-C", "-", "-o", str(part), self.url)
        self.assertEqual(part.read_bytes(), CONTENT)

    async def test_a_file_that_is_known_already(self) -> None:
        os.utime(self.root / "a b" / "file.bin", (1_000_000_000, 1_000_000_000))
        known = self.cwd / "known"
        known.touch()
        head = await self.head("-z", str(known), self.url)
        self.assertEqual(head["status"], "304")
        tag = self.cwd / "tag"
        while not tag.exists() or (await self.tagged(tag)) != "304":
            # As long as its clock has not ticked since it was written, it has no tag
            # that lasts.
            await self.curl("-o", os.devnull, "--etag-save", str(tag), self.url)

    async def tagged(self, tag: Path) -> Any:
        head = await self.head("--etag-compare", str(tag), self.url)
        return head["status"]

    async def test_what_is_not_there(self) -> None:
        for url in (
            self.url + "x",
            f"http://127.0.0.1:{self.port}/a%20b/",
            f"http://127.0.0.1:{self.port}/.bits-sessions/lock",
            f"http://127.0.0.1:{self.port}/%2e%2e/root/a%20b/file.bin",
        ):
            head = await self.head("--path-as-is", url)
            self.assertEqual((head["status"], head["Content-Length"]), ("404", "0"))


class TLSTests(CurlCase):
    """The same under TLS, which holds bytes of its own between us and the socket."""

    def endpoint(self) -> Any:
        path = self.cwd / "server"
        certificate(path)
        return serverFromString(
            reactor,
            f"ssl:0:interface=127.0.0.1:privateKey={path}.key:certKey={path}.crt",
        )

    async def test_the_whole_file_and_a_part_of_it(self) -> None:
        url = self.url.replace("http://", "https://")
        trust = ("--cacert", str(self.cwd / "server.crt"))
        self.assertEqual(await self.curl(*trust, url), CONTENT)
        part = await self.curl(*trust, "-r", "5000000-", url)
        self.assertEqual(part, CONTENT[5_000_000:])

    async def test_little_is_held_for_one_who_does_not_read(self) -> None:
        context = ssl.create_default_context(cafile=str(self.cwd / "server.crt"))
        client = await deferToThread(self.begun, context)
        channel = await self.channel()
        connection = channel.transport.transport
        held = len(connection.dataBuffer) - connection.offset + connection._tempDataLen
        self.assertLessEqual(held, 3 * PIECE)
        self.assertGreater(untaken(channel.transport), held)
        client.close()
        await self.until_nothing_is_open()


class HttpsTests(TLSTests):
    """Under our own endpoint, which encrypts what the socket takes at once."""

    def endpoint(self) -> Any:
        path = self.cwd / "server"
        certificate(path)
        key = path.with_suffix(".key")
        key.chmod(0o600)
        return serverFromString(
            reactor, f"https:0:interface=127.0.0.1:certificate={path}.crt:key={key}"
        )


def drained(client: socket.socket) -> int:
    """Read to the end; how many bytes came."""
    count = 0
    try:
        while data := client.recv(65536):
            count += len(data)
    except ConnectionResetError:
        return count
    return count


class StallingTests(DownloadCase):
    """Clients that do not read all."""

    async def test_little_is_held_for_one_who_does_not_read(self) -> None:
        client = await deferToThread(self.begun)
        channel = await self.channel()
        transport = channel.transport
        held = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
        self.assertLessEqual(held, 2 * PIECE)
        self.assertGreater(untaken(transport), held)
        channel.deadline = 0
        self.site._reap()
        await deferToThread(drained, client)
        await self.until_nothing_is_open()

    async def test_one_who_reads_a_little_is_not_given_up(self) -> None:
        client = await deferToThread(self.begun)
        channel = await self.channel()
        while not channel._is_taking():
            await deferToThread(client.recv, 65536)
        self.assertLess(untaken(channel.transport), len(CONTENT))
        client.close()
        await self.until_nothing_is_open()

    async def test_one_who_goes_away_leaves_nothing_open(self) -> None:
        client = await deferToThread(self.begun)
        await self.channel()
        client.close()
        await self.until_nothing_is_open()
        await self.all_closed()

    async def test_a_file_that_is_cut_while_it_is_sent(self) -> None:
        client = await deferToThread(self.begun)
        os.truncate(self.root / "a b" / "file.bin", 1000)
        received = await deferToThread(drained, client)
        self.assertLess(received, len(CONTENT))
        await self.until_nothing_is_open()
