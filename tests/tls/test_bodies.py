"""
Long bodies over TLS: they stream into the backend, at its pace.
"""

import re
import socket
import ssl
from pathlib import Path
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.internet.tcp import Connection
from twisted.internet.threads import deferToThread

from tests.tls.support import HttpsCase
from txbits.backends.disk import DiskBackend
from txbits.tls._connections import gather_records
from txbits.web._streaming.bodies import READ_SIZE
from txbits.web._streaming.taking import socket_below

LENGTH = 32 * 1024 * 1024

_CREATE = (
    b"BITS_POST /%b HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Create-Session\r\n"
    b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}\r\n"
    b"Content-Length: 0\r\n\r\n"
)
_FRAGMENT = (
    b"BITS_POST /%b HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Fragment\r\n"
    b"BITS-Session-Id: %b\r\nContent-Range: bytes %d-%d/%d\r\n"
    b"Content-Length: %d\r\n\r\n"
)
_CLOSE = (
    b"BITS_POST /%b HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Close-Session\r\n"
    b"BITS-Session-Id: %b\r\nContent-Length: 0\r\n\r\n"
)
_PING = (
    b"BITS_POST /x HTTP/1.1\r\nHost: x\r\nBITS-Packet-Type: Ping\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class BodyCase(HttpsCase):
    requires = False

    def connected(self):
        """A new connection; this may run in a thread."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        raw = socket.create_connection(("127.0.0.1", self.number), timeout=120)
        client = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.addCleanup(client.close)
        return client


class BodyTests(BodyCase):
    prefix = b""

    def connect(self):
        self.client = self.connected()
        self.client.sendall(self.prefix)

    def exchange(self, head, body=b""):
        """Send a packet; the head of its Ack."""
        self.client.sendall(head)
        self.client.sendall(body)
        return self.client.recv(65536)

    def held(self):
        """How many bytes the backend holds."""
        sessions = self.backend.backend._sessions.values()
        return sum(session.offset for session in sessions)

    def twisted_s_own(self):
        """An endpoint string of Twisted's."""
        files = f"certKey={self.folder}/server.pem:privateKey={self.folder}/server.key"
        return f"ssl:0:interface=127.0.0.1:{files}"

    async def begin(self):
        """Create a session; the head of a Fragment with all of its file."""
        await deferToThread(self.connect)
        created = await deferToThread(self.exchange, _CREATE % b"x")
        session = re.search(rb"(?i)BITS-Session-Id: ([^\r]+)", created)[1]
        return _FRAGMENT % (b"x", session, 0, LENGTH - 1, LENGTH, LENGTH)

    async def read_size(self, data):
        """
        Upload a file.

        :returns: How much is read from the socket at a time in the middle of it.
        """
        head = await self.begin()
        (channel,) = self.site.channels
        below = socket_below(channel.transport)
        self.assertEqual(below.bufferSize, Connection.bufferSize)
        await deferToThread(self.client.sendall, head + data[:-1])
        while self.held() < LENGTH // 2:
            await self.pause()
        size = below.bufferSize
        answer = await deferToThread(self.exchange, data[-1:])
        self.assertEqual(answer[:12], b"HTTP/1.1 200")
        self.assertEqual(below.bufferSize, Connection.bufferSize)
        (session,) = self.backend.backend._sessions.values()
        self.assertLessEqual(max(map(len, session._pieces)), size)
        self.assertEqual(b"".join(session._pieces), data)
        return size

    async def test_long_bodies_are_read_in_large_pieces_and_only_they(self):
        data = bytes(range(256)) * (LENGTH // 256)
        await self.listen()
        self.assertEqual(await self.read_size(data), READ_SIZE)

    async def test_so_are_those_of_twisted_s_own_endpoint(self):
        data = bytes(range(256)) * (LENGTH // 256)
        for prefix in ("", "haproxy:"):
            await self.listen_at(prefix + self.twisted_s_own())
            gather_records(self.port)
            self.prefix = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" if prefix else b""
            self.assertEqual(await self.read_size(data), READ_SIZE)

    async def test_but_not_where_each_record_is_passed_on_by_itself(self):
        await self.listen_at(self.twisted_s_own())
        size = await self.read_size(bytes(LENGTH))
        self.assertEqual(size, Connection.bufferSize)

    async def test_a_body_streams_with_back_pressure(self):
        await self.listen()
        head = await self.begin()
        gate = self.backend.hold("write")
        sent = deferToThread(self.exchange, head, bytes(LENGTH))
        while not gate.waiting:
            await self.pause()
        (channel,) = self.site.channels
        for _ in range(50):
            await self.pause()
        # What was read at once, and the rest of what TLS had read before it was paused.
        self.assertLessEqual(channel._body.received, READ_SIZE)
        self.assertLessEqual(len(channel._buffer), READ_SIZE)
        self.assertFalse(sent.called)
        gate.open()
        self.assertEqual((await sent)[:12], b"HTTP/1.1 200")
        self.assertEqual(self.held(), LENGTH)


class StoredTests(BodyCase):
    """On disk, fragments are stored from memory that all connections share."""

    def make_backend(self):
        self.path = Path(self.mktemp())
        return DiskBackend(self.path, reactor)

    def upload(self, name, seed):
        """
        Upload a file, in a thread.

        :returns: What it is to contain.
        """
        random = Random(seed)
        data = random.randbytes(3 * READ_SIZE + 4321)
        client = self.connected()
        answers = client.makefile("rb")

        def answer():
            lines = list(iter(answers.readline, b"\r\n"))
            assert lines[0].startswith(b"HTTP/1.1 200"), lines
            return b"".join(lines)

        client.sendall(_CREATE % name)
        session = re.search(rb"(?i)BITS-Session-Id: ([^\r]+)", answer())[1]
        cut = random.randrange(len(data))
        for first, end in ((0, cut), (cut, len(data))):
            sizes = first, end - 1, len(data), end - first
            packets = _FRAGMENT % (name, session, *sizes) + data[first:end] + _PING
            while packets:
                size = random.choice((1, 5000, 100_000, 1_000_000))
                client.sendall(packets[:size])
                packets = packets[size:]
            answer()
            answer()
        client.sendall(_CLOSE % (name, session))
        answer()
        return data

    async def test_fragments_that_arrive_at_the_same_time(self):
        await self.listen()
        uploads = [deferToThread(self.upload, b"file%d" % n, n) for n in range(3)]
        for number, data in enumerate(await gatherResults(uploads, consumeErrors=True)):
            # Not assertEqual, which would print them.
            self.assertTrue((self.path / f"file{number}").read_bytes() == data)
