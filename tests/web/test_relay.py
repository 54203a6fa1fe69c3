"""
Requests that reach another worker than the one that has their session.

Where a test compares, it sends the same to the worker that has the session: the client
must not notice a difference.
"""

from __future__ import annotations

import itertools
import os
import random
import socket
from base64 import b64encode
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    optionsForClientTLS,
)
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests.access.test_keytab import key_of, keytab
from tests.access.test_negotiate import PlayedAcceptor, at_once
from tests.openssl import Authority
from tests.web.relayed import SECRET, Client, RelayCase, turn
from tests.web.support import (
    DESTINATION,
    PATH,
    UNKNOWN_ID,
    Authenticator,
    Response,
    chunked,
    chunked_fragment,
    fragment,
    packet,
    refusal,
    request,
)
from tests.web.test_replies import Application
from txbits._workers import Worker, new_session_id
from txbits.access.certificate import CertificateAuthenticator
from txbits.access.negotiate import NegotiateAuthenticator
from txbits.backends.memory import MemoryBackend
from txbits.errors import CredentialsRejected
from txbits.interfaces import Credentials, Identity
from txbits.web import Relay
from txbits.web._relay import incoming, relay
from txbits.web._relay.opening import Client as Known
from txbits.web._relay.opening import read_opening
from txbits.web._streaming import READ_SIZE

_LONG = 4 * 1024 * 1024
_DATA = bytes(range(256)) * (_LONG // 256)


class UploadTests(RelayCase):
    """Uploads all of whose packets but the first are passed on."""

    async def test_whole_upload(self) -> None:
        session_id = await self.create()
        half = _LONG // 2
        client = await self.connect()
        for one in (
            fragment(session_id, 0, _DATA[:half], _LONG),
            fragment(session_id, half, _DATA[half:], _LONG),
            packet(b"Close-Session", session_id),
        ):
            ack = await client.ask(one)
            self.assertEqual(ack.status, 200)
            self.assertEqual(ack["BITS-Session-Id"], session_id.decode())
        self.assertEqual(self.there.memory.files, {("a", "b.txt"): _DATA})
        self.assertEqual(self.here.memory.files, {})
        self.assertEqual(self.here.relay.passed_on, 3)
        self.assertEqual(len(self.there.passed), 1)

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
                b"bytes 0-%d/%d" % (_LONG - 1, _LONG),
                chunked(_DATA[:7], _DATA[7:1000], _DATA[1000:]),
                target=b"/chunked",
            )
        )
        self.assertEqual(ack["BITS-Received-Content-Range"], str(_LONG))
        await client.ask(packet(b"Close-Session", session_id, target=b"/chunked"))
        self.assertEqual(
            self.there.memory.files,
            {("short",): b"abc", ("empty",): b"", ("chunked",): _DATA},
        )

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
        head, body = fragment(
            session_id, 0, _DATA, _LONG, expect=b"100-continue"
        ).split(b"\r\n\r\n", 1)
        ack = await client.ask(head + b"\r\n\r\n")
        self.assertEqual(ack.status, 100)
        ack = await client.ask(body)
        self.assertEqual(ack.status, 200)
        self.assertEqual(self.there.held(), _DATA)

    async def test_body_that_is_refused_is_not_asked_for(self) -> None:
        other = UNKNOWN_ID[:1] + (await self.create())[1:]
        other = other.replace(other[1:9], b"00000000")
        client = await self.connect()
        head = fragment(other, 0, _DATA, _LONG, expect=b"100-continue")
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
            (fragment(other, 0, _DATA, _LONG), "session-not-found"),
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


class LossTests(RelayCase):
    """Clients and packets that end early."""

    async def test_what_came_before_a_client_was_lost_is_kept(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        client.transport.write(fragment(session_id, 0, _DATA, _LONG)[:-100])
        await self.until(lambda: len(self.there.held()) >= _LONG // 2)
        client.transport.loseConnection()
        await self.until(lambda: not self.there.passed)
        held = self.there.held()
        self.assertEqual(held, _DATA[: _LONG - 100])
        client = await self.connect()
        ack = await client.ask(
            fragment(session_id, len(held), _DATA[len(held) :], _LONG)
        )
        self.assertEqual(ack["BITS-Received-Content-Range"], str(_LONG))

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

    def sessions(self) -> list[Any]:
        return list(self.there.memory._sessions.values())

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


class AccessTests(RelayCase):
    """Who sends a packet is established where its session is."""

    async def start(self, **settings: Any) -> None:
        self.authenticator = Authenticator(Identity("alice", "told"))
        settings.setdefault("authenticators", [self.authenticator])
        await super().start(**settings)

    async def test_client_is_known_by_its_own_address(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        session_id = await self.create()
        client = await self.connect()
        asked = self.authenticator.asked
        asked.clear()
        await client.ask(packet(b"Close-Session", session_id, target=b"/a/b.txt?q"))
        (credentials,) = asked
        self.assertEqual(credentials.address, "127.0.0.1")
        self.assertEqual(credentials.query, b"q")
        self.assertFalse(credentials.is_secure)
        self.assertFalse(credentials.is_proxied)
        self.assertIsNone(credentials.certificate())
        (channel,) = self.there.passed
        self.assertEqual(channel.getPeer(), client.transport.getHost())
        self.assertEqual(channel.getHost(), self.here.port.getHost())
        (closed,) = [one for one in events if one.get("outcome") == "published"]
        self.assertEqual(closed["client"], "127.0.0.1")

    async def test_proxies_are_trusted_by_their_address(self) -> None:
        await self.restart(
            authenticators=[self.authenticator], trusted_proxies=["127.0.0.1"]
        )
        session_id = await self.create()
        client = await self.connect()
        self.authenticator.asked.clear()
        await client.ask(
            packet(b"Close-Session", session_id, x_forwarded_for=b"192.0.2.7")
        )
        (credentials,) = self.authenticator.asked
        self.assertEqual(credentials.address, "192.0.2.7")
        self.assertTrue(credentials.from_trusted_proxy)

    async def test_challenge_reaches_the_client_which_goes_on(self) -> None:
        session_id = await self.create()
        client = await self.connect()
        self.authenticator.answer = CredentialsRejected("no")
        for body in (b"abc", _DATA):
            ack = await client.ask(fragment(session_id, 0, body, len(body)))
            self.assertEqual(ack.status, 401)
            self.assertEqual(ack.headers["www-authenticate"], ["Told"])
        self.authenticator.answer = Identity("alice", "told")
        ack = await client.ask(fragment(session_id, 0, b"abc", 3))
        self.assertEqual(ack.status, 200)

    async def test_what_is_remembered_is_that_of_one_connection(self) -> None:
        session_id = await self.create()
        memories = []
        for _ in range(2):
            client = await self.connect()
            for _ in range(2):
                await client.ask(fragment(session_id, 0, b"abc", 9))
                memories.append(self.authenticator.asked[-1].connection)
        first, again, other, _ = memories
        self.assertIs(first, again)
        self.assertIsNot(first, other)


class LoginTests(RelayCase):
    """Schemes that authenticate connections."""

    async def start(self, **settings: Any) -> None:
        path = Path(self.mktemp())
        path.write_bytes(keytab(key_of("HTTP", "a")))
        path.chmod(0o600)
        self.acceptor = PlayedAcceptor()
        for site in (self.here, self.there):
            one = NegotiateAuthenticator(
                reactor,
                str(path),
                ["EXAMPLE.TEST"],
                acceptor=self.acceptor,
                in_thread=at_once,
            )
            await site.start(authenticators=[one])
            self.addCleanup(site.stop)

    def token(self, said: bytes) -> bytes:
        """What a client sends that logs in."""
        return b"Negotiate " + b64encode(said)

    async def status(self, client: Any, data: bytes) -> int:
        """The status of the answer to a packet."""
        return int((await client.ask(data)).status)

    async def test_login_holds_at_both_workers(self) -> None:
        session_id = await self.create(authorization=self.token(b"alice"))
        client = await self.connect()
        ping = packet(b"Ping", authorization=self.token(b"alice"))
        self.assertEqual(await self.status(client, ping), 200)
        self.acceptor.seen.clear()
        for number in range(3):
            data = fragment(session_id, number, b"a", 9)
            self.assertEqual(await self.status(client, data), 200)
        self.assertEqual(self.acceptor.seen, [])
        # It does not hold on another connection.
        client = await self.connect()
        self.assertEqual(await self.status(client, data), 401)
        data = fragment(session_id, 3, b"a", 9, authorization=self.token(b"alice"))
        self.assertEqual(await self.status(client, data), 200)
        data = fragment(session_id, 4, b"a", 9)
        self.assertEqual(await self.status(client, data), 200)
        self.assertEqual(len(self.acceptor.seen), 1)

    async def test_client_is_who_has_logged_in_last(self) -> None:
        session_id = await self.create(authorization=self.token(b"alice"))
        client = await self.connect()
        first = fragment(session_id, 0, b"a", 9, authorization=self.token(b"alice"))
        self.assertEqual(await self.status(client, first), 200)
        for other in (
            {"authorization": self.token(b"bob")},
            {"authorization": b"Basic YTpi"},
            {"target": PATH + b"?txbits-link=x"},
        ):
            await client.ask(packet(b"Ping", **other))
            again = await self.status(client, fragment(session_id, 1, b"a", 9))
            self.assertNotEqual(again, 200)
            self.assertEqual(await self.status(client, first), 200)
            # Here nobody is known since then.
            self.assertEqual(await self.status(client, packet(b"Ping")), 401)
            self.assertEqual(
                await self.status(client, fragment(session_id, 1, b"a", 9)), 200
            )

    async def test_login_of_several_steps(self) -> None:
        session_id = await self.create(authorization=self.token(b"alice"))
        client = await self.connect()
        # The body is withheld until the server is content.
        withheld = fragment(
            session_id,
            0,
            b"abc",
            3,
            content_length=b"0",
            authorization=self.token(b"more"),
        )[:-3]
        self.acceptor.seen.clear()
        ack = await client.ask(withheld)
        self.assertEqual(ack.status, 401)
        self.assertEqual(
            ack.headers["www-authenticate"], [self.token(b"answer").decode()]
        )
        data = fragment(session_id, 0, b"abc", 3, authorization=self.token(b"alice"))
        ack = await client.ask(data)
        self.assertEqual(ack.status, 200)
        self.assertEqual(ack.headers["persistent-auth"], ["true"])
        self.assertEqual(self.acceptor.seen, [(None, b"more"), (1, b"alice")])


class TLSTests(RelayCase):
    """What a client has shown in the handshake of TLS."""

    async def start(self, **settings: Any) -> None:
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        self.authority = Authority(folder)
        certificate, key = self.authority.issue_server()
        self.identity = self.authority.issue("alice")
        endpoint = serverFromString(
            reactor,
            f"https:0:interface=127.0.0.1:certificate={certificate}:key={key}"
            f":client-ca={self.authority.certificate}",
        )
        settings = {"authenticators": [CertificateAuthenticator()]}
        await self.here.start(endpoint, **settings)
        self.addCleanup(self.here.stop)
        await self.there.start(**settings)
        self.addCleanup(self.there.stop)

    async def test_certificate_counts_at_the_other_worker(self) -> None:
        address = self.here.port.getHost()
        read = CertificateAuthenticator()
        certificate, key = (Path(one).read_bytes() for one in self.identity)
        trust = Certificate.loadPEM(self.authority.certificate.read_bytes())
        options = optionsForClientTLS(
            "127.0.0.1",
            trustRoot=trust,
            clientCertificate=PrivateCertificate.loadPEM(certificate + key),
        )
        endpoint = wrapClientTLS(
            options, TCP4ClientEndpoint(reactor, "127.0.0.1", address.port)
        )
        # The id that the other worker makes for its own, as alice.
        session_id = self.there.backend.new_id()
        await self.there.backend.create(
            session_id,
            DESTINATION,
            owner="alice",
            content_name=None,
            overwrite=True,
            create_directories=True,
        )
        client: Any = await endpoint.connect(Factory.forProtocol(Client))
        self.clients.append(client)
        written = b"{%b}" % str(session_id).upper().encode()
        ack = await client.ask(fragment(written, 0, _DATA, _LONG))
        self.assertEqual(ack.status, 200, ack)
        (channel,) = self.there.passed
        self.assertTrue(channel.isSecure())
        self.assertEqual(channel.getHost(), address)
        shown = channel.getPeerCertificate
        identity = await read.authenticate(Credentials({}, certificate=shown))
        self.assertEqual(identity, Identity("alice", "certificate"))
        self.assertEqual(self.there.held(), _DATA)


class _Raw(Protocol):
    """A program that connects to a relay socket."""

    def __init__(self) -> None:
        self.data = b""
        self.closed: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


class OpeningTests(RelayCase):
    """Who may speak on a relay socket."""

    async def raw(self) -> _Raw:
        """Connect to the socket."""
        endpoint = UNIXClientEndpoint(reactor, self.paths[1])
        raw: _Raw = await endpoint.connect(Factory.forProtocol(_Raw))
        return raw

    def opening(self, secret: bytes = SECRET) -> bytes:
        address = self.here.port.getHost()
        return Known(address, address).opening(secret)

    async def test_opening_may_come_in_pieces(self) -> None:
        raw = await self.raw()
        for number, byte in enumerate(self.opening()):
            raw.transport.write(bytes([byte]))
            if number % 20 == 0:
                await turn()
        await self.until(lambda: raw.data)
        self.assertEqual(raw.data, b"+")
        raw.transport.write(packet(b"Ping"))
        await self.until(lambda: raw.data.endswith(b"\r\n\r\n"))
        raw.transport.loseConnection()
        await raw.closed

    async def test_nobody_else_is_heard(self) -> None:
        whole = self.opening()
        head = len(SECRET)
        for data in (
            self.opening(b"x" * 32),
            SECRET[:-1] + b"x" + whole[head:],
            packet(b"Ping"),
            SECRET + b"\xff" * 4,
            SECRET + b"\0\0\0\1{",
            SECRET + b"\0\0\0\2{}",
            SECRET + b"\0\0\0\1" + b"1",
        ):
            raw = await self.raw()
            raw.transport.write(data)
            await raw.closed
            self.assertEqual(raw.data, b"", data)

    async def test_other_users_are_not_heard(self) -> None:
        self.patch(incoming.os, "geteuid", lambda: os.getuid() + 1)
        raw = await self.raw()
        raw.transport.write(self.opening())
        await raw.closed
        self.assertEqual(raw.data, b"")

    async def test_who_says_nothing_is_dropped(self) -> None:
        self.patch(incoming, "_OPENING_TIMEOUT", 0.01)
        raw = await self.raw()
        await raw.closed

    async def test_who_leaves_at_once_leaves_nothing(self) -> None:
        raw = await self.raw()
        raw.transport.loseConnection()
        await raw.closed
        for _ in range(5):
            await turn()
        self.assertEqual(self.there.passed, set())

    def test_clients_of_all_kinds(self) -> None:
        for address in (
            IPv4Address("TCP", "192.0.2.1", 443),
            IPv6Address("TCP", "2001:db8::1", 443),
            UNIXAddress(None),
        ):
            for is_secure, certificate in ((False, None), (True, bytes(range(256)))):
                logins = [(1, ["alice", "EXAMPLE.TEST", None])]
                known = Known(address, address, is_secure, certificate, logins)
                data = known.opening(SECRET)
                found = read_opening(data + b"rest", SECRET)
                self.assertEqual(found, (known, b"rest"))
                self.assertIsNone(read_opening(data[:-1], SECRET))

    def test_sessions_that_all_workers_share_are_not_passed_on(self) -> None:
        shared = MemoryBackend(reactor)
        for number in range(2):
            session_id = new_session_id(number)
            found = self.here.relay.owner_of(None, shared, session_id)
            self.assertIsNone(found)

    def test_settings_that_cannot_be_right(self) -> None:
        for count, secret in ((1, SECRET), (2, b"short")):
            with self.assertRaises(ValueError):
                Relay(Worker(0, 2), ["x"] * count, secret, reactor)


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
        port = incoming.RelayPort.adopt(
            reactor,
            self.there.listening.fileno(),
            factory,  # type: ignore[arg-type]
        )
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
        client.transport.write(fragment(session_id, 0, _DATA, _LONG))
        for _ in range(50):
            await turn()
        self.assertEqual(client.data, b"")
        self.there.listen()
        self.assertEqual((await client.answer()).status, 200)
        self.assertEqual(self.there.held(), _DATA)

    async def test_packet_does_not_wait_for_long(self) -> None:
        session_id = await self.create()
        await self.there.hang()
        self.patch(relay, "_PATIENCE", 0.05)
        client = await self.connect()
        for _ in range(2):
            ack = await client.ask(fragment(session_id, 0, _DATA, _LONG))
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
        client.transport.write(fragment(session_id, 0, _DATA, _LONG))
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
        await self.play((_DATA[:READ_SIZE], b"", True))
        client = await self.connect()
        ack = await client.ask(fragment(session_id, 0, _DATA, _LONG))
        self.assert_unavailable(ack, session_id)
        await self.play((_DATA, b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n", False))
        ack = await client.ask(fragment(session_id, 0, _DATA, _LONG))
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
        size = _LONG // 8
        cuts, client = 0, await self.connect()
        for start in range(0, _LONG, size):
            data = fragment(session_id, start, _DATA[start : start + size], _LONG)
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
        self.assertEqual(self.there.memory.files, {DESTINATION: _DATA})
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
