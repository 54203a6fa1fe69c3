"""
Who sends requests that are passed on to another worker, and who may pass them on.
"""

from __future__ import annotations

import os
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
from tests.web.clients import Client
from tests.web.relayed import DATA, LONG, SECRET, RelayCase, turn
from tests.web.support import (
    DESTINATION,
    PATH,
    Authenticator,
    fragment,
    packet,
)
from txbits._workers import Worker, new_session_id
from txbits.access.certificate import CertificateAuthenticator
from txbits.access.negotiate import NegotiateAuthenticator
from txbits.backends.memory import MemoryBackend
from txbits.errors import CredentialsRejected
from txbits.interfaces import Credentials, Identity, IPartitioned
from txbits.web import Relay
from txbits.web._relay import incoming
from txbits.web._relay.opening import Client as Known
from txbits.web._relay.opening import read_opening


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
        for body in (b"abc", DATA):
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

    async def test_login_is_told_for_the_first_request_only(self) -> None:
        session_id = await self.create(authorization=self.token(b"alice"))
        address = self.here.port.getHost()
        login = [(0, ["alice", "EXAMPLE.TEST", None])]
        for first, status in (
            # It is refused before anyone looks who sends it. What follows may be for
            # another directory, with other schemes.
            (packet(b"Fragment", session_id), 401),
            (packet(b"Ping"), 200),
        ):
            endpoint = UNIXClientEndpoint(reactor, self.paths[1])
            client: Client = await endpoint.connect(Factory.forProtocol(Client))
            self.clients.append(client)
            client.transport.write(
                Known(address, address, logins=login).opening(SECRET)
            )
            await self.until(lambda client=client: client.data)
            del client.data[:1]
            await client.ask(first)
            data = fragment(session_id, 0, b"a", 9)
            self.assertEqual(await self.status(client, data), status)

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
        ack = await client.ask(fragment(written, 0, DATA, LONG))
        self.assertEqual(ack.status, 200, ack)
        (channel,) = self.there.passed
        self.assertTrue(channel.isSecure())
        self.assertEqual(channel.getHost(), address)
        shown = channel.getPeerCertificate
        identity = await read.authenticate(Credentials({}, certificate=shown))
        self.assertEqual(identity, Identity("alice", "certificate"))
        self.assertEqual(self.there.held(), DATA)
        # What the socket of the client gets is encrypted.
        self.assertIsNone(self.here.relay._pipe._ends)


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
        shared = IPartitioned(MemoryBackend(reactor), None)
        for number in range(2):
            session_id = new_session_id(number)
            found = self.here.relay.owner_of(None, shared, session_id)
            self.assertIsNone(found)

    def test_settings_that_cannot_be_right(self) -> None:
        for count, secret in ((1, SECRET), (2, b"short")):
            with self.assertRaises(ValueError):
                Relay(Worker(0, 2), ["x"] * count, secret, reactor)
