"""
Requests that are to be passed on to a worker that is away, or ends.
"""

from __future__ import annotations

import itertools
import os
import random
import socket

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol

from tests.web.relayed import DATA, LONG, Client, RelayCase, turn
from tests.web.support import (
    DESTINATION,
    Response,
    fragment,
    packet,
    refusal,
    request,
)
from txbits._adopted import adopt
from txbits.web._relay import relay
from txbits.web._streaming import READ_SIZE


class _Script(Protocol):
    """A worker that does as its factory says."""

    def __init__(self) -> None:
        self._data = b""

    def connectionMade(self) -> None:
        # Welcome, whoever it is.
        self.transport.write(b"+")
        self.factory.made.append(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        script = self.factory.script
        if script and script[0][0] in self._data:
            self._data = b""
            _, answer, is_end = script.pop(0)
            self.transport.write(answer)
            if is_end:
                self.transport.loseConnection()


class AbsenceTests(RelayCase):
    """The other worker is away, or ends."""

    async def play(self, *script: tuple[bytes, bytes, bool]) -> None:
        """
        Let the other worker be played.

        :param script: What it waits for in all that has come, what it answers, and
            whether it ends then.
        """
        await self.there.hang()
        factory = Factory.forProtocol(_Script)
        factory.script = list(script)
        self.played, self.made = factory.script, []
        factory.made = self.made
        listening = os.dup(self.there.listening.fileno())
        port = adopt(reactor, listening, socket.AF_UNIX, factory)
        self.addCleanup(port.stopListening)

    def assert_unavailable(self, answer: Response, session_id: bytes) -> None:
        """The client is to try again later."""
        row = refusal("worker-unavailable")
        self.assertEqual(answer.status, row.status)
        self.assertEqual(answer["Retry-After"], "10")
        self.assertEqual(answer["BITS-Error-Code"], "0x800700AA")
        self.assertEqual(answer["BITS-Session-Id"], session_id.decode())

    async def test_packet_waits_for_a_worker_that_starts_again(self) -> None:
        session_id = await self.create()
        await self.there.hang()
        client = await self.connect()
        client.transport.write(fragment(session_id, 0, DATA, LONG))
        for _ in range(50):
            await turn()
        self.assertEqual(client.data, b"")
        self.there.listen()
        self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(self.there.held(), DATA)

    async def test_packet_does_not_wait_for_long(self) -> None:
        session_id = await self.create()
        await self.there.hang()
        self.patch(relay, "_PATIENCE", 0.05)
        client = await self.connect()
        for _ in range(2):
            ack = await client.ask(fragment(session_id, 0, DATA, LONG))
            self.assert_unavailable(ack, session_id)
        path = b"/BITS-Sessions/Replies/%b/responsefile.bin" % session_id
        answer = await client.ask(request(b"GET", path))
        self.assertEqual((answer.status, answer["Retry-After"]), (503, "10"))

    async def test_worker_without_a_socket(self) -> None:
        session_id = await self.create()
        os.unlink(self.paths[1])
        self.patch(relay, "_PATIENCE", 0.05)
        client = await self.connect()
        ack = await client.ask(packet(b"Close-Session", session_id))
        self.assert_unavailable(ack, session_id)

    async def test_client_that_does_not_wait(self) -> None:
        session_id = await self.create()
        await self.there.hang()
        before = self.descriptors()
        client = await self.connect()
        client.transport.write(fragment(session_id, 0, DATA, LONG))
        await self.until(lambda: self.here.relay.passed_on)
        for _ in range(10):
            await turn()
        client.transport.abortConnection()
        await self.until(lambda: self.descriptors() <= before)

    async def test_short_packet_is_repeated(self) -> None:
        session_id = await self.create()
        for data in (
            fragment(session_id, 0, b"abc", 9),
            packet(b"Close-Session", session_id),
        ):
            await self.play(
                (b"BITS_POST", b"", True),
                (b"BITS_POST", b"HTTP/1.1 200 OK\r\nContent-Le", True),
                (b"BITS_POST", b"That is no HTTP\r\n\r\n", False),
                (b"BITS_POST", b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n", True),
            )
            client = await self.connect()
            ack = await client.ask(data)
            self.assertEqual((ack.status, self.played), (202, []))

    async def test_body_that_is_lost_has_to_be_sent_again(self) -> None:
        session_id = await self.create()
        await self.play((DATA[:READ_SIZE], b"", True))
        client = await self.connect()
        ack = await client.ask(fragment(session_id, 0, DATA, LONG))
        self.assert_unavailable(ack, session_id)
        await self.play((DATA, b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n", False))
        ack = await client.ask(fragment(session_id, 0, DATA, LONG))
        self.assertEqual(ack.status, 202)

    async def test_answer_that_breaks_off(self) -> None:
        session_id = await self.create()
        path = b"/BITS-Sessions/Replies/%b/responsefile.bin" % session_id
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"
        await self.play((b"GET", head + b"abc", True))
        client = await self.connect()
        client.transport.write(request(b"GET", path))
        await client.closed
        self.assertNotIn(b"503", client.data)

    async def test_answer_that_ends_with_its_connection(self) -> None:
        session_id = await self.create()
        path = b"/BITS-Sessions/Replies/%b/responsefile.bin" % session_id
        for version in (b"HTTP/1.1", b"HTTP/1.0"):
            await self.play((b"GET", b"HTTP/1.1 200 OK\r\n\r\nabc", True))
            client = await self.connect()
            client.transport.write(
                request(b"GET", path, version=version, connection=b"close")
            )
            await client.closed
            self.assertIn(b"abc", client.data)

    async def test_worker_that_says_more_than_it_was_asked(self) -> None:
        session_id = await self.create()
        answer = b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n"
        await self.play((b"BITS_POST", 2 * answer, False), (b"BITS", answer, False))
        client = await self.connect()
        for _ in range(2):
            ack = await client.ask(packet(b"Close-Session", session_id))
            self.assertEqual(ack.status, 202)

    async def test_worker_that_speaks_without_being_asked(self) -> None:
        session_id = await self.create()
        answer = b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n"
        await self.play(*[(b"BITS_POST", answer, False)] * 2)
        client = await self.connect()
        for number in (1, 2):
            ack = await client.ask(packet(b"Close-Session", session_id))
            self.assertEqual(ack.status, 202)
            self.assertEqual(len(self.made), number)
            self.made[-1].transport.write(answer)
            await self.until(lambda: not self.made[-1].transport.connected)

    async def test_worker_that_has_started_again_between_two_packets(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        for number in range(3):
            ack = await client.ask(fragment(session_id, number, b"a", 9))
            self.assertEqual(ack.status, 200)
            await self.there.hang()
            self.there.listen()


class KillTests(RelayCase):
    """The other worker is lost at any byte, again and again."""

    async def test_nothing_is_lost(self) -> None:
        chance = random.Random(13)
        session_id = await self.create()
        size = LONG // 8
        cuts, client = 0, await self.connect()
        for start in range(0, LONG, size):
            data = fragment(session_id, start, DATA[start : start + size], LONG)
            status, kills = 0, 3
            while status != 200:
                if client.closed.called:
                    client = await self.connect()
                ending = self.end_of(client, data)
                if kills:
                    kills -= 1
                    for _ in range(chance.randrange(12)):
                        await turn()
                    await self.there.hang()
                    self.there.listen()
                    cuts += 1
                status = await ending
                self.assertIn(status, (0, 200, 503))
        ack = await client.ask(packet(b"Close-Session", session_id))
        self.assertEqual(ack.status, 200)
        self.assertEqual(self.there.memory.files, {DESTINATION: DATA})
        self.assertGreaterEqual(cuts, 8)

    def end_of(self, client: Client, data: bytes) -> Deferred[int]:
        """Send a packet; fires with the status of the answer, or 0 without one."""

        async def ask() -> int:
            try:
                return int((await client.ask(data)).status)
            except AssertionError:
                return 0

        return Deferred.fromCoroutine(ask())


class ManyTests(RelayCase):
    """More workers than one client should need."""

    count = 12

    async def test_relay_connections_of_a_client_are_few(self) -> None:
        client = await self.connect()
        for path in self.paths[2:]:
            os.unlink(path)
            os.symlink(self.paths[1], path)
        for number in itertools.chain(range(1, 12), range(1, 12)):
            session_id = b"{11111111-2222-8333-8444-5555AAAABB%02X}" % number
            ack = await client.ask(packet(b"Close-Session", session_id))
            self.assertEqual(ack.status, 500)
        self.assertEqual(self.here.relay.passed_on, 22)
        await self.until(lambda: len(self.there.passed) == 8)
