"""
What depends on real sockets, on loopback: how much is read at a time, that an answer
reaches a client which reads it only when it has sent everything, and TLS.

Everything else of the web is tested in memory.
"""

from __future__ import annotations

from errno import ENOSPC
from pathlib import Path
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.tcp import Connection
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource

from tests.web.clients import Client
from tests.web.support import (
    DESTINATION,
    UNKNOWN_ID,
    fragment,
    packet,
)
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._files import Files
from txbits.backends.memory import MemoryBackend
from txbits.interfaces import IBackend
from txbits.testing.faults import HoldableBackend
from txbits.web import BITSResource, BITSSite
from txbits.web._streaming import DRAIN_LIMIT, READ_SIZE

_LENGTH = 4 * 1024 * 1024


class SocketCase(TestCase):
    """A site behind a real port."""

    def make_backend(self) -> IBackend:
        """Make the backend of the site."""
        raise NotImplementedError("each case has its own")

    async def setUp(self) -> None:  # type: ignore[override]
        self.backend = self.make_backend()
        self.resource = BITSResource(self.backend, reactor=reactor)
        await self.resource.manager.start()
        root = Resource()
        root.putChild(b"a", self.resource)
        self.site = BITSSite(root, reactor=reactor)
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(
            self.site
        )
        self.clients: list[Client] = []

    async def tearDown(self) -> None:  # type: ignore[override]
        for client in self.clients:
            client.transport.abortConnection()
            await client.closed
        await self.port.stopListening()
        while self.site.channels:
            await self.turn()
        await self.resource.manager.stop()

    async def turn(self) -> None:
        """Let the reactor do what is ready."""
        turn: Deferred[None] = Deferred()
        reactor.callLater(0, turn.callback, None)
        await turn

    async def connect(self) -> Client:
        """Connect to the site."""
        client: Client = await TCP4ClientEndpoint(
            reactor, "127.0.0.1", self.port.getHost().port
        ).connect(Factory.forProtocol(Client))
        self.clients.append(client)
        return client

    async def create(self, client: Client) -> bytes:
        """Create a session."""
        client.transport.write(packet(b"Create-Session"))
        ack = await client.answer()
        self.assertEqual(ack.status, 200)
        return (ack["BITS-Session-Id"] or "").encode()


class SocketTests(SocketCase):
    """Any store."""

    backend: HoldableBackend

    def make_backend(self) -> IBackend:
        self.memory = MemoryBackend(reactor)
        return HoldableBackend(self.memory)

    async def test_whole_upload(self) -> None:
        client = await self.connect()
        session_id = await self.create(client)
        data = bytes(range(256)) * (_LENGTH // 256)
        half = _LENGTH // 2
        for one in (
            fragment(session_id, 0, data[:half], _LENGTH),
            fragment(session_id, half, data[half:], _LENGTH),
            packet(b"Close-Session", session_id),
        ):
            client.transport.write(one)
            self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(self.memory.files, {("b.txt",): data})
        self.assertEqual(DESTINATION[1:], ("b.txt",))

    async def test_long_bodies_are_read_in_large_pieces_and_only_they(self) -> None:
        client = await self.connect()
        session_id = await self.create(client)
        (channel,) = self.site.channels
        self.assertEqual(channel.transport.bufferSize, Connection.bufferSize)
        client.transport.write(fragment(session_id, 0, b"x" * _LENGTH, _LENGTH)[:-1])
        while self.held() < _LENGTH // 2:
            await self.turn()
        self.assertEqual(channel.transport.bufferSize, READ_SIZE)
        client.transport.write(b"x")
        self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(channel.transport.bufferSize, Connection.bufferSize)
        (session,) = self.memory._sessions.values()
        self.assertLessEqual(max(map(len, session._pieces)), READ_SIZE)

    def held(self) -> int:
        """How many bytes the backend holds."""
        return sum(one.offset for one in self.memory._sessions.values())

    async def test_held_writer_bounds_what_is_read(self) -> None:
        client = await self.connect()
        session_id = await self.create(client)
        gate = self.backend.hold("write")
        client.transport.write(fragment(session_id, 0, b"x" * _LENGTH, _LENGTH))
        while not gate.waiting:
            await self.turn()
        (channel,) = self.site.channels
        for _ in range(50):
            await self.turn()
        self.assertLessEqual(channel._body.received, READ_SIZE)
        gate.open()
        self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(self.held(), _LENGTH)

    def refused_fragment(self, client: Client, length: int) -> Deferred[None]:
        """Begin to send a fragment that is refused; fires when all is sent."""
        client.transport.write(
            packet(
                b"Fragment",
                UNKNOWN_ID,
                content_length=b"%d" % length,
                content_range=b"bytes 0-%d/%d" % (length - 1, length),
            )
        )
        sent: Deferred[None] = Deferred()
        client.transport.registerProducer(_Zeros(client, length, sent), False)
        return sent

    async def test_refusal_reaches_a_client_that_sends_everything_first(self) -> None:
        client = await self.connect()
        client.transport.pauseProducing()
        await self.refused_fragment(client, 13 * 1024 * 1024)
        client.transport.resumeProducing()
        ack = await client.answer()
        self.assertEqual((ack.status, ack["Connection"]), (500, None))
        client.transport.write(packet(b"Ping"))
        self.assertEqual((await client.answer()).status, 200)

    async def test_refusal_of_what_is_too_long_reaches_a_client_that_reads(
        self,
    ) -> None:
        client = await self.connect()
        sent = self.refused_fragment(client, 100 * DRAIN_LIMIT)
        ack = await client.answer()
        self.assertEqual((ack.status, ack["Connection"]), (500, "close"))
        client.transport.abortConnection()
        await client.closed
        self.clients.remove(client)
        await self.assertFailure(sent, ConnectionError)

    async def test_dropped_connection_is_noticed_by_its_peer(self) -> None:
        older, newer = await self.connect(), await self.connect()
        session_id = await self.create(older)
        older.transport.write(fragment(session_id, 0, b"helloworld", 10)[:-5])
        while self.held() < 5:
            await self.turn()
        newer.transport.write(fragment(session_id, 5, b"world", 10))
        self.assertEqual((await newer.answer()).status, 200)
        await older.closed
        self.clients.remove(older)
        self.assertEqual(older.data, b"")

    async def test_a_client_that_ends_its_side_gets_its_ack(self) -> None:
        client = await self.connect()
        session_id = await self.create(client)
        client.transport.write(fragment(session_id, 0, b"hello", 5))
        self.assertEqual((await client.answer()).status, 200)
        gate = self.backend.hold("publish")
        client.transport.write(packet(b"Close-Session", session_id))
        client.transport.loseWriteConnection()
        (channel,) = self.site.channels
        while not (gate.waiting and channel._half_closed):
            await self.turn()
        gate.open()
        ack = await client.answer()
        self.assertEqual((ack.status, self.memory.files), (200, {("b.txt",): b"hello"}))
        await client.closed
        while self.site.channels:
            await self.turn()

    async def test_connections_that_end_leave_nothing(self) -> None:
        """Whether a client ends its side or all, and whatever it has sent before."""
        for data in (
            b"",
            packet(b"Ping"),
            packet(b"Ping")[:-9],
            packet(b"Ping") * 300,
            fragment(UNKNOWN_ID, 0, b"hello", 5)[:-2],
            b"GET /a/none HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            for ends_all in (False, True):
                client = await self.connect()
                client.transport.write(data)
                if ends_all:
                    client.transport.loseConnection()
                else:
                    client.transport.loseWriteConnection()
                await client.closed
                while self.site.channels:
                    await self.turn()

    async def test_connection_lost_mid_fragment_keeps_the_prefix(self) -> None:
        client = await self.connect()
        session_id = await self.create(client)
        client.transport.write(fragment(session_id, 0, b"helloworld", 10)[:-5])
        while self.held() < 5:
            await self.turn()
        client.transport.abortConnection()
        await client.closed
        self.clients.clear()
        client = await self.connect()
        client.transport.write(fragment(session_id, 9, b"d", 10))
        ack = await client.answer()
        self.assertEqual(ack["BITS-Received-Content-Range"], "5")


class StoredTests(SocketCase):
    """A store that does not keep what it is given: fragments share memory."""

    def make_backend(self) -> IBackend:
        self.path = self.mktemp()
        self.files = _Files()
        return DiskBackend(self.path, reactor, files=self.files)

    def stored(self, name: str) -> bytes:
        """The content of a published file."""
        return (Path(self.path) / name).read_bytes()

    def reads_as_usual(self) -> bool:
        """Whether the transports have the method of their class again."""
        return not any("doRead" in vars(one.transport) for one in self.site.channels)

    async def begin(self, name: bytes) -> tuple[Client, bytes]:
        """Create a session on a connection of its own."""
        client = await self.connect()
        client.transport.write(packet(b"Create-Session", target=b"/a/" + name))
        ack = await client.answer()
        return client, (ack["BITS-Session-Id"] or "").encode()

    async def send(self, client: Client, data: bytes, random: Random) -> None:
        """Send pieces of any length, with some turns between them."""
        at = 0
        while at < len(data):
            piece = data[at : at + random.choice((1, 1000, 70_000, 400_000, 900_000))]
            at += len(piece)
            client.transport.write(piece)
            for _ in range(random.randrange(3)):
                await self.turn()

    async def test_fragments_that_arrive_at_the_same_time(self) -> None:
        async def upload(name: bytes, seed: int) -> tuple[bytes, bytes]:
            random = Random(seed)
            data = random.randbytes(3 * READ_SIZE + 12_345)
            client, session_id = await self.begin(name)
            cut = random.randrange(len(data))
            target = b"/a/" + name
            for first, end in ((0, cut), (cut, len(data))):
                body = fragment(
                    session_id, first, data[first:end], len(data), target=target
                )
                # The next packet follows at once.
                await self.send(client, body + packet(b"Ping"), random)
                self.assertEqual((await client.answer()).status, 200)
                self.assertEqual((await client.answer()).status, 200)
            client.transport.write(packet(b"Close-Session", session_id, target=target))
            self.assertEqual((await client.answer()).status, 200)
            return data, self.stored(name.decode())

        uploads = [
            Deferred.fromCoroutine(upload(b"file%d" % seed, seed)) for seed in range(4)
        ]
        for data, stored in await gatherResults(uploads, consumeErrors=True):
            # Not assertEqual, which would print them.
            self.assertTrue(stored == data)
        self.assertTrue(self.files.views)
        self.assertTrue(self.reads_as_usual())

    async def test_a_fragment_that_is_cut_keeps_what_came(self) -> None:
        data = Random(0).randbytes(_LENGTH)
        client, session_id = await self.begin(b"c")
        half = fragment(session_id, 0, data, len(data), target=b"/a/c")[: -_LENGTH // 2]
        client.transport.write(half)
        client.transport.loseWriteConnection()
        await client.closed
        self.clients.remove(client)
        client = await self.connect()
        client.transport.write(
            fragment(
                session_id,
                _LENGTH // 2,
                data[_LENGTH // 2 :],
                len(data),
                target=b"/a/c",
            )
        )
        self.assertEqual((await client.answer()).status, 200)
        client.transport.write(packet(b"Close-Session", session_id, target=b"/a/c"))
        self.assertEqual((await client.answer()).status, 200)
        self.assertTrue(self.stored("c") == data)

    async def test_a_fragment_without_room_is_refused_and_can_be_sent_again(
        self,
    ) -> None:
        data = Random(0).randbytes(_LENGTH)
        client, session_id = await self.begin(b"c")
        body = fragment(session_id, 0, data, len(data), target=b"/a/c")
        self.files.room = READ_SIZE
        client.transport.write(body)
        ack = await client.answer()
        self.assertEqual((ack.status, ack["BITS-Error-Code"]), (500, "0x80070070"))
        self.assertEqual(self.files.room, 0)
        self.files.room = None
        client.transport.write(body)
        self.assertEqual((await client.answer()).status, 200)
        client.transport.write(packet(b"Close-Session", session_id, target=b"/a/c"))
        self.assertEqual((await client.answer()).status, 200)
        self.assertTrue(self.stored("c") == data)
        self.assertTrue(self.reads_as_usual())


class _Files(Files):
    """
    Files on a disk that may be full.

    :ivar room: How many more bytes it takes; ``None`` if it has enough.
    :ivar views: How many times what is written was in memory that is used again.
    """

    room: int | None = None
    views = 0

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self.views += isinstance(data, memoryview)
        if self.room is not None and len(data) > 1000:
            if not self.room:
                raise OSError(ENOSPC, "no room")
            data = data[: self.room]
            self.room -= len(data)
        return super().pwrite(fd, data, offset)


class _Zeros:
    """Writes a body as fast as it is taken."""

    def __init__(self, client: Client, length: int, done: Deferred[None]) -> None:
        self.client = client
        self.left = length
        self.done = done

    def resumeProducing(self) -> None:
        piece = min(self.left, 1024 * 1024)
        self.left -= piece
        if piece:
            self.client.transport.write(bytes(piece))
        else:
            self.client.transport.unregisterProducer()
            self.done.callback(None)

    def stopProducing(self) -> None:
        if not self.done.called:
            self.done.errback(Failure(ConnectionError("lost before all was sent")))
