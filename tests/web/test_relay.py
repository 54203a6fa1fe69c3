"""
Requests that reach another worker than the one that has their session.

Where a test compares, it sends the same to the worker that has the session: the client
must not notice a difference.
"""

from __future__ import annotations

import itertools
import os
import socket
from typing import Any

from twisted.logger import capturedLogs, formatEvent

from tests.web.clients import Client
from tests.web.relayed import DATA, LONG, RelayCase, turn
from tests.web.support import (
    UNKNOWN_ID,
    Response,
    chunked,
    chunked_fragment,
    fragment,
    packet,
    refusal,
    request,
)
from tests.web.test_replies import Application
from txbits.web._relay.pipe import Pipe
from txbits.web._streaming import READ_SIZE
from txbits.web._streaming.bodies import PIECE_SIZE, PIECES, SHORT_BODY


class UploadTests(RelayCase):
    """Uploads all of whose packets but the first are passed on."""

    async def test_whole_upload(self) -> None:
        session_id = await self.create()
        half = LONG // 2
        client = await self.connect()
        for one in (
            fragment(session_id, 0, DATA[:half], LONG),
            fragment(session_id, half, DATA[half:], LONG),
            packet(b"Close-Session", session_id),
        ):
            ack = await client.ask(one)
            self.assertEqual(ack.status, 200)
            self.assertEqual(ack["BITS-Session-Id"], session_id.decode())
        self.assertEqual(self.there.memory.files, {("a", "b.txt"): DATA})
        self.assertEqual(self.here.memory.files, {})
        self.assertEqual(self.here.relay.passed_on, 3)
        self.assertEqual(len(self.there.passed), 1)

    async def test_relay_connections_are_not_logged(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        with capturedLogs() as events:
            ack = await client.ask(fragment(session_id, 0, b"abc", 3))
            client.transport.loseConnection()
            await self.until(lambda: not self.there.passed)
        self.assertEqual(ack.status, 200)
        self.assertEqual([formatEvent(one) for one in events], [])

    async def test_what_belongs_to_no_other_worker_stays(self) -> None:
        client = await self.connect()
        await client.ask(packet(b"Ping"))
        ack = await client.ask(packet(b"Create-Session"))
        session_id = (ack["BITS-Session-Id"] or "").encode()
        await client.ask(fragment(session_id, 0, b"abc", 3))
        await client.ask(packet(b"Close-Session", session_id))
        self.assertEqual(self.here.memory.files, {("a", "b.txt"): b"abc"})
        self.assertEqual(self.here.relay.passed_on, 0)

    async def test_short_and_chunked_and_empty_bodies(self) -> None:
        for name, fragments in {
            b"short": [fragment, (0, b"abc", 3)],
            b"empty": [fragment, (0, b"", 0)],
        }.items():
            make, arguments = fragments
            target = b"/" + name
            session_id = await self.create(target=target)
            client = await self.connect()
            ack = await client.ask(make(session_id, *arguments, target=target))
            self.assertEqual(ack.status, 200)
            ack = await client.ask(packet(b"Close-Session", session_id, target=target))
            self.assertEqual(ack.status, 200)
        session_id = await self.create(target=b"/chunked")
        client = await self.connect()
        ack = await client.ask(
            chunked_fragment(
                session_id,
                b"bytes 0-%d/%d" % (LONG - 1, LONG),
                chunked(DATA[:7], DATA[7:1000], DATA[1000:]),
                target=b"/chunked",
            )
        )
        self.assertEqual(ack["BITS-Received-Content-Range"], str(LONG))
        await client.ask(packet(b"Close-Session", session_id, target=b"/chunked"))
        self.assertEqual(
            self.there.memory.files,
            {("short",): b"abc", ("empty",): b"", ("chunked",): DATA},
        )

    async def test_bodies_that_are_said_not_to_be_encoded(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        inner = packet(b"Cancel-Session", session_id)
        for first, data in ((0, b"abc"), (3, inner)):
            ack = await client.ask(
                fragment(session_id, first, data, 9999, transfer_encoding=b"identity")
            )
            self.assertEqual(ack["BITS-Received-Content-Range"], str(first + len(data)))
        self.assertEqual(self.there.held(), b"abc" + inner)
        ack = await client.ask(packet(b"Ping", session_id))
        self.assertEqual(ack.status, 200)

    async def test_requests_that_were_sent_ahead_are_answered_in_order(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        client.transport.write(
            b"".join(
                [
                    fragment(session_id, 0, b"abc", 6),
                    packet(b"Ping"),
                    fragment(session_id, 3, b"def", 6),
                    packet(b"Close-Session", session_id),
                ]
            )
        )
        answers = [await client.answer() for _ in range(4)]
        self.assertEqual([one.status for one in answers], [200] * 4)
        received = [one["BITS-Received-Content-Range"] for one in answers]
        self.assertEqual(received, ["3", None, "6", None])
        self.assertEqual(self.there.memory.files, {("a", "b.txt"): b"abcdef"})

    async def test_body_is_sent_when_the_other_worker_asks_for_it(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        head, body = fragment(session_id, 0, DATA, LONG, expect=b"100-continue").split(
            b"\r\n\r\n", 1
        )
        ack = await client.ask(head + b"\r\n\r\n")
        self.assertEqual(ack.status, 100)
        ack = await client.ask(body)
        self.assertEqual(ack.status, 200)
        self.assertEqual(self.there.held(), DATA)

    async def test_body_that_is_refused_is_not_asked_for(self) -> None:
        other = UNKNOWN_ID[:1] + (await self.create())[1:]
        other = other.replace(other[1:9], b"00000000")
        client = await self.connect()
        head = fragment(other, 0, DATA, LONG, expect=b"100-continue")
        ack = await client.ask(head.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
        self.assertEqual(ack.status, 500)
        self.assertEqual(ack.headers["connection"], ["close"])
        await client.closed
        await self.until(lambda: not self.there.passed)

    async def test_clients_of_http_1_0(self) -> None:
        session_id = await self.create()
        for kept, connection in (
            (False, None),
            (True, b"keep-alive"),
            (True, b"Keep-Alive"),
        ):
            client = await self.connect()
            for _ in range(1 + kept):
                ack = await client.ask(
                    fragment(
                        session_id,
                        0,
                        b"abc",
                        9,
                        version=b"HTTP/1.0",
                        connection=connection,
                    )
                )
                self.assertEqual(ack.status, 200)
                value = "Keep-Alive" if kept else "close"
                self.assertEqual(ack.headers["connection"], [value])
            if not kept:
                await client.closed

    async def test_connection_that_the_client_wants_closed_is(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        ack = await client.ask(
            packet(b"Close-Session", session_id, connection=b"close")
        )
        self.assertEqual((ack.status, ack.headers["connection"]), (200, ["close"]))
        await client.closed
        await self.until(lambda: not self.there.passed)

    async def test_relay_connection_ends_with_that_of_the_client(self) -> None:
        session_id = await self.create()
        before = self.descriptors()
        client = await self.connect()
        await client.ask(fragment(session_id, 0, b"abc", 9))
        await client.ask(fragment(session_id, 3, b"def", 9))
        self.assertEqual(len(self.there.passed), 1)
        client.transport.loseConnection()
        await self.until(lambda: not self.there.passed)
        await self.until(lambda: self.descriptors() <= before)


class SameAnswerTests(RelayCase):
    """The answer to a packet does not depend on the worker that it reaches."""

    async def both(self, data: bytes, *, is_head: bool = False) -> Response:
        """Ask both workers, and compare."""
        answers = []
        for site in (self.there, self.here):
            client = await self.connect(site)
            answer = await client.ask(data, is_head=is_head)
            self.assertEqual(answer.headers.pop("date", None) is None, False)
            answers.append((answer, list(answer.headers)))
        self.assertEqual(answers[0], answers[1], data)
        return answers[0][0]

    async def test_refusals(self) -> None:
        session_id = await self.create()
        other = session_id.replace(session_id[1:9], b"00000000")
        for data, name in (
            (fragment(session_id, 5, b"abc", 9), "out-of-step"),
            (fragment(other, 0, b"abc", 9), "session-not-found"),
            (fragment(other, 0, DATA, LONG), "session-not-found"),
            (packet(b"Close-Session", other), "session-not-found"),
            (packet(b"Cancel-Session", other), "session-not-found"),
            (
                packet(b"Close-Session", session_id, target=b"/other"),
                "session-not-found",
            ),
            (
                packet(b"Close-Session", session_id, method=b"POST", target=b"/%ff"),
                "session-not-found",
            ),
        ):
            before = self.here.relay.passed_on
            answer = await self.both(data)
            row = refusal(name)
            self.assertEqual(answer.status, row.status)
            self.assertEqual(self.here.relay.passed_on, before + 1)

    async def test_close_that_is_sent_again(self) -> None:
        session_id = await self.create()
        for method in (b"BITS_POST", b"POST"):
            answer = await self.both(
                packet(b"Close-Session", session_id, method=method)
            )
            self.assertEqual(answer.status, 200)
        answer = await self.both(packet(b"Cancel-Session", session_id))
        self.assertEqual(answer.status, 500)

    async def test_body_that_is_too_long_to_discard(self) -> None:
        session_id = await self.create()
        other = session_id.replace(session_id[1:9], b"00000000")
        total = 64 * 1024 * 1024
        data = fragment(other, 0, b"x", total, content_length=b"%d" % total)
        data = data.replace(b"bytes 0-0/", b"bytes 0-%d/" % (total - 1))
        answer = await self.both(data)
        self.assertEqual(answer.status, 500)
        self.assertEqual(answer.headers["connection"], ["close"])

    async def test_header_that_is_as_long_as_it_may_be(self) -> None:
        session_id = await self.create()
        # Blanks before the values are none that came.
        many = {f"x-{number}": b"y" * 700 for number in range(85)}
        data = fragment(session_id, 0, b"abc", 9, **many).replace(b": ", b":")
        answer = await self.both(data)
        self.assertEqual(answer.status, 200)


class MovedTests(RelayCase):
    """Long bodies, which the system moves to the other worker."""

    def setUp(self) -> Any:
        self.moved = 0
        move = Pipe.move

        def counted(*args: Any) -> Any:
            moved = move(*args)
            self.moved += 0 if moved is None else moved[0]
            return moved

        self.patch(Pipe, "move", counted)
        return super().setUp()

    async def test_a_long_body_is_moved(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        ack = await client.ask(fragment(session_id, 0, DATA, LONG))
        self.assertEqual(ack["BITS-Received-Content-Range"], str(LONG))
        self.assertEqual(self.there.held(), DATA)
        # All but what came with the head.
        self.assertTrue(LONG - READ_SIZE <= self.moved < LONG, self.moved)

    async def test_bodies_of_all_lengths_arrive(self) -> None:
        start = 0
        lengths = [
            PIECE_SIZE - 1,
            PIECE_SIZE,
            PIECE_SIZE + 1,
            PIECES * PIECE_SIZE,
            PIECES * PIECE_SIZE + 1,
            SHORT_BODY,
        ]
        total = sum(lengths)
        data = os.urandom(total)
        session_id = await self.create()
        client = await self.connect()
        for length in lengths:
            piece = data[start : start + length]
            ack = await client.ask(fragment(session_id, start, piece, total))
            start += length
            self.assertEqual(ack["BITS-Received-Content-Range"], str(start))
        self.assertEqual(self.there.held(), data)
        self.assertGreater(self.moved, 0)

    async def test_the_next_request_may_follow_at_once(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        half = LONG // 2
        client.transport.write(
            fragment(session_id, 0, DATA[:half], LONG)
            + fragment(session_id, half, DATA[half:], LONG)
            + packet(b"Close-Session", session_id)
        )
        for _ in range(3):
            self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(self.there.memory.files, {("a", "b.txt"): DATA})
        self.assertGreater(self.moved, 0)

    async def test_many_use_one_pipe(self) -> None:
        clients = []
        for number in range(4):
            target = b"/%d" % number
            session_id = await self.create(target=target)
            client = await self.connect()
            data = bytes([number]) * LONG
            client.transport.write(fragment(session_id, 0, data, LONG, target=target))
            clients.append((client, data))
        for client, _ in clients:
            self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(
            sorted(b"".join(one._pieces) for one in self.sessions()),
            [data for _, data in clients],
        )
        self.assertGreater(self.moved, LONG)

    async def test_what_was_on_its_way_to_a_lost_worker_reaches_nobody_else(
        self,
    ) -> None:
        lost, kept = [await self.create(target=target) for target in (b"/1", b"/2")]
        client = await self.connect()
        client.transport.write(fragment(lost, 0, b"x" * LONG, LONG, target=b"/1")[:-9])
        await self.until(lambda: self.moved)
        await self.there.hang()
        self.there.listen()
        client.transport.abortConnection()
        other = await self.connect()
        ack = await other.ask(fragment(kept, 0, DATA, LONG, target=b"/2"))
        self.assertEqual(ack.status, 200, ack)
        self.assertEqual(b"".join(self.sessions()[1]._pieces), DATA)

    async def test_a_body_that_is_refused_is_discarded(self) -> None:
        client = await self.connect()
        other = str(self.there.backend.new_id()).encode()
        unknown = b"{%b}" % other
        ack = await client.ask(fragment(unknown, 0, DATA, LONG))
        self.assertEqual(ack["BITS-Error-Code"], "0x8020001F")
        session_id = await self.create()
        ack = await client.ask(fragment(session_id, 0, DATA, LONG))
        self.assertEqual(ack.status, 200)
        self.assertEqual(self.there.held(), DATA)

    async def test_what_is_discarded_is_not_moved(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        client.transport.write(fragment(session_id, 0, DATA, LONG)[: LONG // 2])
        await self.until(lambda: self.moved)
        (channel,) = self.here.site.channels
        channel._body.refuse()
        moved = self.moved
        client.transport.write(DATA[: LONG // 4])
        await self.until(lambda: channel._body._drained)
        self.assertEqual(self.moved, moved)

    async def send_half(self) -> Client:
        """Send the first half of a body, and wait until it has arrived."""
        session_id = await self.create()
        client = await self.connect()
        half = LONG // 2
        client.transport.write(fragment(session_id, 0, DATA, LONG)[:-half])
        await self.until(lambda: len(self.there.held()) == half)
        return client

    async def test_urgent_data_does_not_stop_it(self) -> None:
        client = await self.send_half()
        # No part of the body, as for any other body.
        self.assertEqual(client.transport.socket.send(b"!", socket.MSG_OOB), 1)
        ack = await client.ask(DATA[LONG // 2 :])
        self.assertEqual(ack.status, 200)
        self.assertEqual(self.there.held(), DATA)
        self.assertGreater(self.moved, 0)

    async def test_client_that_waits_to_be_asked_for_the_body(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        whole = fragment(session_id, 0, DATA, LONG, expect=b"100-continue")
        client.transport.write(whole[:-LONG])
        await self.until(lambda: client.data)
        self.assertEqual(client.data, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.data.clear()
        self.assertEqual((await client.ask(DATA)).status, 200)
        self.assertEqual(self.there.held(), DATA)
        # Of this one, nothing came with the head.
        self.assertGreaterEqual(self.moved, LONG - READ_SIZE)

    async def test_newer_packet_ends_a_body_that_is_moved(self) -> None:
        session_id = await self.create()
        older = await self.connect()
        older.transport.write(fragment(session_id, 0, DATA, LONG)[:-9])
        await self.until(lambda: len(self.there.held()) == LONG - 9)
        newer = await self.connect()
        ack = await newer.ask(fragment(session_id, LONG - 9, DATA[-9:], LONG))
        self.assertEqual(ack["BITS-Received-Content-Range"], str(LONG))
        await older.closed
        self.assertEqual(older.data, b"")
        self.assertEqual(self.there.held(), DATA)
        self.assertGreater(self.moved, 0)

    async def begin(self) -> tuple[bytes, Client]:
        """Create a session, and send all but the last 9 bytes of a body to be moved."""
        session_id = await self.create()
        client = await self.connect()
        client.transport.write(fragment(session_id, 0, DATA, LONG)[:-9])
        await self.until(lambda: self.moved)
        return session_id, client

    async def resume(self, session_id: bytes) -> None:
        """Send the rest of what was kept."""
        held = len(self.there.held())
        self.assertEqual(self.there.held(), DATA[:held])
        client = await self.connect()
        ack = await client.ask(fragment(session_id, held, DATA[held:], LONG))
        self.assertEqual(ack["BITS-Received-Content-Range"], str(LONG))
        self.assertEqual(self.there.held(), DATA)

    async def test_upload_goes_on_after_its_worker_was_lost(self) -> None:
        session_id, client = await self.begin()
        await self.there.hang()
        client.transport.write(DATA[-9:])
        self.assertEqual((await client.answer()).status, 503)
        self.there.listen()
        await self.resume(session_id)

    async def test_client_that_resets_its_connection(self) -> None:
        session_id, client = await self.begin()
        client.transport.abortConnection()
        await self.until(lambda: not self.there.passed)
        await self.resume(session_id)

    async def test_a_relay_connection_that_ends_takes_no_more_by_itself(self) -> None:
        client = await self.send_half()
        (channel,) = self.here.site.channels
        (line,) = channel.attached.open.values()
        line.is_closed = True
        moved = self.moved
        self.assertEqual((await client.ask(DATA[LONG // 2 :])).status, 200)
        self.assertEqual(self.moved, moved)
        self.assertEqual(self.there.held(), DATA)

    async def test_chunks_are_not_moved(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        value = b"bytes 0-%d/%d" % (LONG - 1, LONG)
        ack = await client.ask(chunked_fragment(session_id, value, chunked(DATA)))
        self.assertEqual(ack.status, 200)
        self.assertEqual(self.there.held(), DATA)
        self.assertEqual(self.moved, 0)

    async def test_without_splice_bodies_are_copied(self) -> None:
        self.patch(Pipe, "move", lambda *_: None)
        # More than the sockets hold while the other worker takes nothing.
        total = 32 * 1024 * 1024
        data = os.urandom(total)
        session_id = await self.create()
        gate = self.there.backend.hold("write")
        client = await self.connect()
        client.transport.write(fragment(session_id, 0, data, total))
        await self.until(lambda: gate.waiting)
        (channel,) = self.here.site.channels
        await self.until(lambda: channel.state.name == "held")
        # Another body uses the same memory meanwhile.
        other_id = await self.create(target=b"/other")
        other = await self.connect()
        other.transport.write(
            fragment(other_id, 0, bytes(total), total, target=b"/other")
        )
        for _ in range(50):
            await turn()
        gate.open()
        for one in (client, other):
            self.assertEqual((await one.answer()).status, 200)
        held = [b"".join(one._pieces) for one in self.sessions()]
        self.assertEqual(held, [data, bytes(total)])


class LossTests(RelayCase):
    """Clients and packets that end early."""

    async def test_what_came_before_a_client_was_lost_is_kept(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        client.transport.write(fragment(session_id, 0, DATA, LONG)[:-100])
        await self.until(lambda: len(self.there.held()) >= LONG // 2)
        client.transport.loseConnection()
        await self.until(lambda: not self.there.passed)
        held = self.there.held()
        self.assertEqual(held, DATA[: LONG - 100])
        client = await self.connect()
        ack = await client.ask(fragment(session_id, len(held), DATA[len(held) :], LONG))
        self.assertEqual(ack["BITS-Received-Content-Range"], str(LONG))

    async def test_newer_packet_ends_an_older_one(self) -> None:
        ways = itertools.product((self.here, self.there), repeat=2)
        for number, (first, second) in enumerate(ways):
            target = b"/%d" % number
            session_id = await self.create(target=target)
            older = await self.connect(first)
            data = fragment(session_id, 0, b"abcdef", 6, target=target)
            older.transport.write(data[:-3])
            session = self.sessions()[-1]
            await self.until(lambda session=session: session.offset == 3)
            newer = await self.connect(second)
            ack = await newer.ask(fragment(session_id, 3, b"def", 6, target=target))
            self.assertEqual(ack["BITS-Received-Content-Range"], "6")
            await older.closed
            self.assertEqual(older.data, b"")

    async def test_newer_packet_ends_one_whose_body_nobody_reads(self) -> None:
        session_id = await self.create()
        gate = self.there.backend.hold("write")
        older = await self.connect()
        older.transport.write(fragment(session_id, 0, b"abcdef", 6)[:-3])
        await self.until(lambda: gate.waiting)
        newer = await self.connect()
        newer.transport.write(packet(b"Cancel-Session", session_id))
        for _ in range(20):
            await turn()
        gate.open()
        self.assertEqual((await newer.answer()).status, 200)
        await older.closed
        self.assertEqual(self.there.memory._sessions, {})

    async def test_cancel_is_acknowledged_after_the_release(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        await client.ask(fragment(session_id, 0, b"abc", 9))
        gate = self.there.backend.hold("release")
        client.transport.write(packet(b"Cancel-Session", session_id))
        await self.until(lambda: gate.waiting)
        for _ in range(20):
            await turn()
        self.assertEqual(client.data, b"")
        gate.open()
        self.assertEqual((await client.answer()).status, 200)

    async def test_client_that_does_not_wait_for_the_answer(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        gate = self.there.backend.hold("publish")
        client.transport.write(packet(b"Close-Session", session_id))
        await self.until(lambda: gate.waiting)
        client.transport.abortConnection()
        await self.until(lambda: not self.there.passed)
        gate.open()
        client = await self.connect()
        ack = await client.ask(packet(b"Close-Session", session_id))
        self.assertEqual(ack.status, 200)

    async def test_client_that_sends_faster_than_the_store_takes(self) -> None:
        session_id = await self.create()
        total = 64 * 1024 * 1024
        gate = self.there.backend.hold("write")
        client = await self.connect()
        client.transport.socket.setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, READ_SIZE
        )
        (channel,) = self.here.site.channels
        data = b"x" * total
        client.transport.write(fragment(session_id, 0, data, total))
        await self.until(lambda: gate.waiting)
        left = -1
        while left != (left := client.transport.offset) or not left:
            for _ in range(50):
                await turn()
        self.assertEqual(channel.state.name, "held")
        self.assertLessEqual(len(channel._body.waiting), 2 * READ_SIZE)
        (line,) = channel.attached.open.values()
        self.assertEqual(len(line.transport.dataBuffer), 0)
        self.assertEqual(line.transport._tempDataLen, 0)
        self.assertLess(len(line._rest), READ_SIZE)
        gate.open()
        self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(self.there.held(), data)


class ReplyTests(RelayCase):
    """Replies of server applications."""

    async def start(self, **settings: Any) -> None:
        self.application = Application(b"")
        await super().start(notifier=self.application, **settings)

    async def upload(self, reply: bytes) -> bytes:
        """Upload a file, and return the path of the reply to it."""
        self.application.data = reply
        session_id = await self.create()
        client = await self.connect()
        ack = await client.ask(fragment(session_id, 0, b"abc", 3))
        url = ack["BITS-Reply-URL"] or ""
        self.assertTrue(url.startswith("http://upload.example/BITS"), ack)
        return url.removeprefix("http://upload.example").encode()

    async def test_reply_is_the_same_at_each_worker(self) -> None:
        path = await self.upload(b"reply" * 1000)
        for method, headers in (
            (b"GET", {}),
            (b"HEAD", {}),
            (b"GET", {"range": b"bytes=10-19"}),
            (b"GET", {"range": b"bytes=10-19,30-39"}),
            (b"GET", {"range": b"bytes=999999-"}),
            (b"GET", {"version": b"HTTP/1.0"}),
            (b"GET", {"version": b"HTTP/1.0", "connection": b"keep-alive"}),
            (b"GET", {"content_length": b"3", "body": b"abc"}),
        ):
            answers = []
            for site in (self.there, self.here):
                client = await self.connect(site)
                answer = await client.ask(
                    request(method, path, **headers), is_head=method == b"HEAD"
                )
                body = answer.body
                self.assertEqual(len(answer.headers.pop("date")), 1)
                if b"multipart" in (answer["Content-Type"] or "").encode():
                    # Each has a boundary of its own.
                    body = body.replace(body[2:42], b"-" * 40)
                    answer.headers["content-type"] = []
                answers.append((answer.status, answer.headers, body))
            self.assertEqual(*answers)
            self.assertIn(answers[0][0], (200, 206, 416))

    async def test_client_that_reads_slowly(self) -> None:
        reply = os.urandom(64 * 1024) * 1024
        path = await self.upload(reply)
        client = await self.connect()
        client.transport.pauseProducing()
        client.transport.write(request(b"GET", path))
        channels = self.here.site.channels
        await self.until(lambda: any(one._waitingForTransport for one in channels))
        for _ in range(200):
            await turn()
        for one in channels:
            self.assertLess(len(one.transport.dataBuffer), 2 * READ_SIZE)
            self.assertLess(one.transport._tempDataLen, 2 * READ_SIZE)
        client.transport.resumeProducing()
        self.assertEqual((await client.answer()).body, reply)
        # The connection can be used again.
        self.assertEqual((await client.ask(request(b"GET", path))).body, reply)

    async def test_client_that_leaves_while_it_reads(self) -> None:
        path = await self.upload(bytes(64 * 1024 * 1024))
        client = await self.connect()
        client.transport.pauseProducing()
        client.transport.write(request(b"GET", path))
        await self.until(lambda: self.there.passed)
        client.transport.abortConnection()
        await self.until(lambda: len(self.there.passed) <= 1)
        for one in self.clients:
            one.transport.abortConnection()
        await self.until(lambda: not self.there.passed)
