"""
Server applications behind real sockets, on loopback: with TLS, or impolite.

``Impolite`` is a server that does as it is told with each connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from io import BytesIO
from ipaddress import ip_address
from typing import Any, cast

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import (
    Certificate,
    PrivateCertificate,
    trustRootFromCertificates,
)
from twisted.internet.task import deferLater
from twisted.logger import LogEvent, formatEvent, globalLogPublisher
from twisted.protocols.basic import FileSender
from twisted.protocols.policies import WrappingFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.notification.support import Held, Place, Reading, pause
from txbits.errors import (
    ApplicationError,
    ApplicationRefused,
    ApplicationUnreachable,
)
from txbits.interfaces import Answer, CompleteUpload
from txbits.notification import HTTPNotifier

reactor: Any = _reactor


class SocketsCase(TestCase):
    """Applications on ports of loopback, and 8 MiB to tell them of."""

    timeout = 60

    def setUp(self) -> None:
        self.session = Held(data=os.urandom(1 << 13) * (1 << 10))
        self.place = Place()

    def listen(self, factory: Any, tls: Any = None) -> str:
        """Listen for the test's duration; the URL."""
        if tls is None:
            port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        else:
            # Wrapped, it negotiates no protocol: the lowest Twisted cannot, with the
            # latest pyOpenSSL.
            wrapped = WrappingFactory(factory)
            port = reactor.listenSSL(0, wrapped, tls, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        scheme = "http" if tls is None else "https"
        return f"{scheme}://127.0.0.1:{port.getHost().port}/notify"

    def ask(self, url: str, **settings: Any) -> Deferred[Answer]:
        """Ask by value."""
        session: Any = self.session
        upload = CompleteUpload(
            session=session,
            request_url="http://h/a",
            attempt=1,
            sha256=sha256(self.session.data).digest(),
        )
        by = settings.pop("by", "value")
        return HTTPNotifier(reactor, url, by=by, **settings).notify(upload, self.place)

    async def stands_still(self, position: Callable[[], int]) -> None:
        """
        Wait until something does not move any more.

        How much sockets hold is the machine's choice; that it ends is ours.
        """
        before = -1
        while before != position():
            before = position()
            await deferLater(reactor, 0.1)

    async def failure_of(
        self, asking: Deferred[Answer], kind: type[ApplicationError]
    ) -> Any:
        """Wait for it to fail like that, having left nothing; the error."""
        try:
            await asking
        except kind as error:
            self.assertFalse(self.session.is_read)
            self.assertEqual(self.place.opened, self.place.closed)
            return error
        raise AssertionError("it did not fail")


class Echo(Resource):
    """Replies with what it got."""

    isLeaf = True

    def render_POST(self, request: Any) -> bytes:
        request.setHeader(b"BITS-Copy-File-To-Destination", b"")
        body: bytes = request.content.read()
        return body


class Impolite(Protocol):
    """Does as it is told, and notices the end."""

    transport: Any

    def __init__(self, does: Callable[[Impolite, bytes], None]) -> None:
        self.does = does
        self.received = 0
        self.ended: Deferred[None] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += len(data)
        self.does(self, data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.ended.callback(None)


class ImpoliteFactory(Factory):
    """Makes them."""

    def __init__(self, does: Callable[[Impolite, bytes], None]) -> None:
        self.does = does
        self.connections: list[Impolite] = []
        self.connected: Deferred[Impolite] = Deferred()

    def buildProtocol(self, addr: Any) -> Impolite:
        one = Impolite(self.does)
        self.connections.append(one)
        return one


class PoliteTests(SocketsCase):
    """An ordinary site."""

    async def test_nothing_is_logged_but_by_the_application(self) -> None:
        events: list[LogEvent] = []
        url = self.listen(Site(Echo()))
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        await self.ask(url, secret=b"a secret of both")
        (line,) = [formatEvent(event) for event in events]
        self.assertIn('"POST /notify HTTP/1.1" 200', line)

    async def test_an_upload_goes_and_comes_back(self) -> None:
        url = self.listen(Site(Echo()))
        answer = await self.ask(url)
        self.assertEqual(answer, Answer(publishes=True))
        self.assertEqual(self.place.content, self.session.data)
        self.assertEqual(self.place.closed, 1)

    async def test_nobody_there_is_unreachable(self) -> None:
        port = reactor.listenTCP(0, Factory(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()
        asking = self.ask(f"http://127.0.0.1:{number}/")
        error = await self.failure_of(asking, ApplicationUnreachable)
        self.assertIn(f"127.0.0.1:{number}", str(error))


class ImpoliteTests(SocketsCase):
    """Servers that are none, or bad ones."""

    async def test_what_speaks_another_protocol_is_unreachable(self) -> None:
        def greet(one: Impolite, data: bytes) -> None:
            one.transport.write(b"220 mail.example ESMTP\r\n")

        for by in ("reference", "value"):
            asking = self.ask(self.listen(ImpoliteFactory(greet)), by=by)
            await self.failure_of(asking, ApplicationUnreachable)

    async def test_what_closes_at_once_is_unreachable(self) -> None:
        def close(one: Impolite, data: bytes) -> None:
            one.transport.abortConnection()

        for by in ("reference", "value"):
            asking = self.ask(self.listen(ImpoliteFactory(close)), by=by)
            await self.failure_of(asking, ApplicationUnreachable)

    async def test_a_refusal_before_the_upload_is_out_is_heard(self) -> None:
        def refuse(one: Impolite, data: bytes) -> None:
            if one.received > len(data):
                return
            # It reads no more, and answers, as many do.
            one.transport.pauseProducing()
            one.transport.write(
                b"HTTP/1.1 403 Forbidden\r\nContent-Length: 5\r\n"
                b"Connection: close\r\n\r\nno, n"
            )

        factory = ImpoliteFactory(refuse)
        error = await self.failure_of(
            self.ask(self.listen(factory)), ApplicationRefused
        )
        self.assertEqual(error.status, 403)
        (one,) = factory.connections
        self.assertLess(one.received, len(self.session.data))
        one.transport.resumeProducing()
        await one.ended

    async def test_cancelling_ends_the_connection_and_the_reading(self) -> None:
        begun: Deferred[Impolite] = Deferred()

        def stall(one: Impolite, data: bytes) -> None:
            if not begun.called:
                one.transport.pauseProducing()
                begun.callback(one)

        asking = self.ask(self.listen(ImpoliteFactory(stall)))
        one = await begun
        self.assertTrue(self.session.is_read)
        asking.cancel()
        try:
            await asking
        except CancelledError:
            self.assertFalse(self.session.is_read)
        one.transport.resumeProducing()
        await one.ended

    async def test_an_application_that_does_not_read_holds_the_upload_back(
        self,
    ) -> None:
        begun: Deferred[Impolite] = Deferred()

        def stall(one: Impolite, data: bytes) -> None:
            if not begun.called:
                one.transport.pauseProducing()
                begun.callback(one)
            elif one.received > len(self.session.data):
                one.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        self.session.data *= 4
        asking = self.ask(self.listen(ImpoliteFactory(stall)))
        one = await begun
        reading = cast(Reading, self.session.reading)
        await self.stands_still(lambda: reading.at)
        self.assertTrue(reading.paused)
        self.assertLess(reading.at, len(self.session.data))
        one.transport.resumeProducing()
        self.assertEqual(await asking, Answer())

    async def test_storage_that_does_not_write_holds_the_reply_back(self) -> None:
        reply = BytesIO(self.session.data * 4)
        begun: Deferred[None] = Deferred()
        self.place.held = held = pause()

        def answer(one: Impolite, data: bytes) -> None:
            one.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
                % len(reply.getbuffer())
            )
            FileSender().beginFileTransfer(reply, one.transport)
            begun.callback(None)

        self.session.data = b"x"
        asking = self.ask(self.listen(ImpoliteFactory(answer)))
        await begun
        await self.stands_still(reply.tell)
        self.assertLess(reply.tell(), len(reply.getbuffer()))
        held.callback(None)
        self.assertEqual(await asking, Answer())
        self.assertEqual(self.place.content, reply.getvalue())


def certificate(
    name: str, issuer: tuple[x509.Certificate, Any] | None = None
) -> tuple[x509.Certificate, Any]:
    """Make a certificate for 127.0.0.1, or for a CA if nobody issues it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer[0].subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True
        )
    )
    if issuer is not None:
        names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key if issuer is None else issuer[1], SHA256()), key


class TLSTests(SocketsCase):
    """By https."""

    def setUp(self) -> None:
        super().setUp()
        ca = certificate("CA of this test")
        signed, key = certificate("127.0.0.1", ca)
        pem = signed.public_bytes(Encoding.PEM) + key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        self.options = PrivateCertificate.loadPEM(pem).options()
        self.trusting = BrowserLikePolicyForHTTPS(
            trustRootFromCertificates(
                [Certificate.loadPEM(ca[0].public_bytes(Encoding.PEM))]
            )
        )

    async def test_an_upload_goes_and_comes_back(self) -> None:
        url = self.listen(Site(Echo()), self.options)
        answer = await self.ask(url, policy=self.trusting)
        self.assertEqual(answer, Answer(publishes=True))
        self.assertEqual(self.place.content, self.session.data)

    async def test_whom_the_system_does_not_trust_is_not_told(self) -> None:
        url = self.listen(Site(Echo()), self.options)
        error = await self.failure_of(self.ask(url), ApplicationUnreachable)
        self.assertIn("certificate", str(error))

    async def test_another_name_is_not_trusted(self) -> None:
        url = self.listen(Site(Echo()), self.options)
        asking = self.ask(url.replace("127.0.0.1", "localhost"), policy=self.trusting)
        error = await self.failure_of(asking, ApplicationUnreachable)
        self.assertIn("certificate", str(error))

    async def test_what_speaks_no_tls_is_unreachable(self) -> None:
        def refuse(one: Impolite, data: bytes) -> None:
            one.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            one.transport.loseConnection()

        url = self.listen(ImpoliteFactory(refuse)).replace("http:", "https:")
        asking = self.ask(url, policy=self.trusting)
        await self.failure_of(asking, ApplicationUnreachable)
