"""
Servers that ask for a password or a certificate, proxies, and replies, on loopback.

The servers around the model server are Twisted's own, so that it is not our code on
both sides that says who is there.
"""

from __future__ import annotations

import gzip
import os
from typing import Any

from OpenSSL import crypto
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet import reactor as _reactor
from twisted.internet.endpoints import SSL4ServerEndpoint, TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    KeyPair,
    trustRootFromCertificates,
)
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import TestCase
from twisted.web.guard import (
    BasicCredentialFactory,
    DigestCredentialFactory,
    HTTPAuthSessionWrapper,
)
from twisted.web.http import HTTPFactory
from twisted.web.proxy import Proxy
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import Data
from zope.interface import implementer

from tests.client.certificates import Identity, authority, issued_by, self_signed
from tests.client.test_sockets import ModelResource
from tests.protocol.model_server import ModelServer
from txbits.client import (
    ConnectionSettings,
    Credentials,
    InvalidSettings,
    UploadFailed,
    UploadResult,
    upload,
)
from txbits.client._reply import LONGEST_REPLY
from txbits.client._requests import CertificateRefused
from txbits.web import BITSSite

reactor: Any = _reactor
DATA = os.urandom(300_000)
ME = Credentials("me", "sesame, ö")


class NetworkTestCase(TestCase):
    """A site around the model server, and a file."""

    timeout = 60

    def setUp(self) -> None:
        self.server = ModelServer()
        self.resource = ModelResource(self.server)
        self.path = self.mktemp()
        with open(self.path, "wb") as file:
            file.write(DATA)

    def listen(self, resource: Any, scheme: str = "http") -> str:
        return self.listen_with(Site(resource, timeout=None), scheme)

    def listen_with(self, factory: Any, scheme: str = "http") -> str:
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"{scheme}://127.0.0.1:{port.getHost().port}"

    async def send(self, url: str, **settings: Any) -> UploadResult:
        more = {
            name: settings.pop(name)
            for name in ("reply", "retry_for")
            if name in settings
        }
        return await upload(
            self.path,
            url,
            reactor=reactor,
            fragment_size=100_000,
            settings=ConnectionSettings(**settings),
            **more,
        )

    async def assert_delivered(self, url: str, **settings: Any) -> None:
        self.server.published = None
        await self.send(url, **settings)
        self.assertEqual(self.server.published, DATA)

    async def refuse(self, url: str, **settings: Any) -> UploadFailed:
        try:
            await self.send(url, **{"retry_for": 0, **settings})
        except UploadFailed as error:
            return error
        raise AssertionError("it was not refused")


@implementer(IRealm)
class Realm:
    """Lets everyone in who has a password, to one resource."""

    def __init__(self, resource: Any) -> None:
        self.resource = resource

    def requestAvatar(self, avatar: Any, mind: Any, *interfaces: Any) -> Any:
        return IResource, self.resource, lambda: None


class PasswordTests(NetworkTestCase):
    """Servers that ask who is there."""

    def guarded(self, *factories: Any) -> str:
        checker = InMemoryUsernamePasswordDatabaseDontUse()
        checker.addUser(b"me", ME.password.encode())
        portal = Portal(Realm(self.resource), [checker])
        return self.listen(HTTPAuthSessionWrapper(portal, list(factories)))

    async def test_basic_is_answered(self) -> None:
        url = self.guarded(BasicCredentialFactory(b"r"))
        await self.assert_delivered(f"{url}/x", credentials=ME)

    async def test_digests_are_answered(self) -> None:
        for algorithm in (b"md5", b"sha"):
            url = self.guarded(DigestCredentialFactory(algorithm, b"r"))
            if algorithm == b"md5":
                await self.assert_delivered(f"{url}/x?a=b", credentials=ME)
            else:
                # It is none of HTTP's.
                error = await self.refuse(f"{url}/x", credentials=ME)
                self.assertEqual(error.status, 401)

    async def test_whoever_is_not_known_is_refused(self) -> None:
        url = self.guarded(BasicCredentialFactory(b"r"))
        for credentials in (None, Credentials("me", "wrong"), Credentials("you", "x")):
            error = await self.refuse(f"{url}/x", credentials=credentials)
            self.assertEqual((error.status, error.transient), (401, False))
        self.assertEqual(self.server.held, {})


class TLSTestCase(NetworkTestCase):
    """A site that shows a certificate."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = authority()

    async def listen_tls(
        self, identity: Identity, clients: Identity | None = None
    ) -> str:
        trust = None
        if clients is not None:
            root = Certificate.loadPEM(clients.certificate)
            trust = trustRootFromCertificates([root])
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, identity.key)
        options = CertificateOptions(
            privateKey=KeyPair(key).original,
            certificate=Certificate.loadPEM(identity.certificate).original,
            trustRoot=trust,
        )
        endpoint = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1")
        # A Site would talk about HTTP/2. For that Twisted 24.10 changes a context that
        # is in use, which pyOpenSSL allows no more.
        site = WrappingFactory(Site(self.resource, timeout=None))
        port = await endpoint.listen(site)
        self.addCleanup(port.stopListening)
        return f"https://127.0.0.1:{port.getHost().port}/x"

    def of_server(self) -> Identity:
        return issued_by(self.authority, "server", "127.0.0.1")


class CertificateTests(TLSTestCase):
    """TLS."""

    async def test_an_authority_can_be_trusted(self) -> None:
        url = await self.listen_tls(self.of_server())
        await self.assert_delivered(url, authorities=self.authority.certificate)

    async def test_one_of_several_is_enough(self) -> None:
        url = await self.listen_tls(self.of_server())
        both = authority("Another").certificate + self.authority.certificate
        await self.assert_delivered(url, authorities=both)

    async def test_another_authority_is_not_trusted(self) -> None:
        url = await self.listen_tls(self.of_server())
        for trusted in (None, authority().certificate):
            error = await self.refuse(url, authorities=trusted)
            self.assertIn("certificate is not trusted", str(error))
            self.assertFalse(error.transient)

    async def test_each_reason_for_distrust_has_words_of_its_own(self) -> None:
        here = "127.0.0.1"
        old = issued_by(self.authority, "Old authority", ca=True, days=-9)
        for identity, words in (
            (issued_by(self.authority, "s", here, days=-9), "it has expired (20"),
            (issued_by(self.authority, "s", here, days=9), "it is not valid yet (20"),
            (issued_by(self.authority, "s", "127.0.0.2"), "it is not for 127.0.0.1"),
            (issued_by(self.authority, "s"), "it names no host"),
            (self_signed("s", here), "it is self-signed"),
            (
                issued_by(old, "s", here),
                "its issuer, 'CN=Old authority', is not trusted",
            ),
        ):
            url = await self.listen_tls(identity)
            error = await self.refuse(url, authorities=self.authority.certificate)
            self.assertIn(f"certificate is not trusted: {words}", str(error))
            self.assertFalse(error.transient)
            self.assertTrue(error.resumable)

    async def test_a_server_without_tls_is_said_to_be_one(self) -> None:
        site = BITSSite(self.resource, reactor=reactor)
        error = await self.refuse(self.listen_with(site, "https"))
        self.assertRegex(str(error), r"^gave up .*: 127\.0\.0\.1:[0-9]+: ")
        self.assertIn(" does not speak TLS (", str(error))
        self.assertIn("; check the port, or use http://", str(error))
        self.assertTrue(error.transient)

    async def test_that_of_an_authority_may_be_what_has_expired(self) -> None:
        between = issued_by(self.authority, "Old authority", ca=True, days=-9)
        identity = issued_by(between, "s", "127.0.0.1")
        both = self.authority.certificate + between.certificate
        error = await self.refuse(await self.listen_tls(identity), authorities=both)
        self.assertIn(
            "the certificate of its issuer, 'CN=Old authority', has", str(error)
        )

    async def test_a_certificate_is_shown_to_a_server_that_wants_one(self) -> None:
        clients = authority()
        mine = issued_by(clients, "me")
        url = await self.listen_tls(self.of_server(), clients)
        trusted = self.authority.certificate
        await self.assert_delivered(
            url, authorities=trusted, certificate=mine.certificate, key=mine.key
        )
        together = mine.key + mine.certificate
        await self.assert_delivered(url, authorities=trusted, certificate=together)
        error = await self.refuse(url, authorities=trusted)
        self.assertIn("the server requires a client certificate", str(error))
        self.assertIsInstance(error.__cause__, CertificateRefused)
        self.assertFalse(error.transient)
        other = issued_by(authority("Another"), "me")
        error = await self.refuse(
            url, authorities=trusted, certificate=other.certificate, key=other.key
        )
        self.assertIn("did not accept the client certificate: tls", str(error))
        self.assertFalse(error.transient)

    async def test_the_certificates_between_are_shown_as_well(self) -> None:
        clients = authority()
        between = issued_by(clients, "between", ca=True)
        mine = issued_by(between, "me")
        url = await self.listen_tls(self.of_server(), clients)
        trusted = self.authority.certificate
        chain = mine.certificate + between.certificate
        await self.assert_delivered(
            url, authorities=trusted, certificate=chain, key=mine.key
        )
        await self.refuse(
            url, authorities=trusted, certificate=mine.certificate, key=mine.key
        )

    async def test_what_is_no_certificate_is_said(self) -> None:
        mine = issued_by(self.authority, "me")
        for settings in (
            {"authorities": b""},
            {"authorities": b"-----BEGIN CERTIFICATE-----\nAA\n"},
            {"certificate": b"x"},
            {"certificate": mine.certificate},
            {"certificate": mine.certificate, "key": b"x"},
        ):
            try:
                await self.send("https://127.0.0.1/", **settings)
            except InvalidSettings as error:
                self.assertEqual(len(str(error).splitlines()), 1)
            else:
                self.fail(f"{settings} was taken")


class TunnelProxy(Protocol):
    """A proxy for https, that may want to know who is there."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.head = b""
        self.other: Any = None
        self.waiting: list[bytes] = []

    def dataReceived(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)
            return
        self.head += data
        if b"\r\n\r\n" not in self.head or self.factory.heads is None:
            return
        self.factory.heads.append(self.head)
        if self.factory.answer is not None:
            self.transport.write(self.factory.answer)
        elif self.factory.wants and self.factory.wants not in self.head:
            self.transport.write(
                b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Basic realm=p\r\n"
                b"Content-Length: 0\r\n\r\n"
            )
        else:
            host, _, port = self.head.split()[1].rpartition(b":")
            endpoint = TCP4ClientEndpoint(reactor, host.decode(), int(port))
            endpoint.connect(Factory.forProtocol(lambda: Other(self)))

    def connectionLost(self, reason: Any = None) -> None:
        if self.other is not None:
            self.other.transport.loseConnection()


class Other(Protocol):
    """The proxy's connection to the server."""

    transport: Any

    def __init__(self, proxy: TunnelProxy) -> None:
        self.proxy = proxy

    def connectionMade(self) -> None:
        self.proxy.other = self
        self.proxy.transport.write(b"HTTP/1.1 200 Established\r\n\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.proxy.transport.write(data)

    def connectionLost(self, reason: Any = None) -> None:
        self.proxy.transport.loseConnection()


class ProxyTests(TLSTestCase):
    """Through a proxy."""

    def tunnels(self, answer: bytes | None = None, wants: bytes = b"") -> str:
        factory: Any = Factory.forProtocol(TunnelProxy)
        factory.heads, factory.answer, factory.wants = [], answer, wants
        self.heads = factory.heads
        return self.listen_with(factory)

    async def test_http_goes_through_it_as_it_is(self) -> None:
        factory: Any = HTTPFactory()
        factory.protocol = Proxy
        proxy = self.listen_with(factory)
        url = self.listen(self.resource)
        await self.assert_delivered(f"{url}/x", proxy=proxy)

    async def test_https_goes_through_a_tunnel(self) -> None:
        url = await self.listen_tls(self.of_server())
        proxy = self.tunnels()
        trusted = self.authority.certificate
        await self.assert_delivered(url, proxy=proxy, authorities=trusted)
        self.assertEqual(len(self.heads), 1)
        self.assertTrue(self.heads[0].startswith(b"CONNECT 127.0.0.1:"))

    async def test_an_ipv6_address_has_a_port_behind_its_brackets(self) -> None:
        for url, netloc in (
            ("https://[2001:db8::1]/x", b"[2001:db8::1]:443"),
            ("https://[2001:db8::1]:8443/x", b"[2001:db8::1]:8443"),
            ("https://h.example/x", b"h.example:443"),
            ("https://h.example:8/x", b"h.example:8"),
        ):
            await self.refuse(url, proxy=self.tunnels(b"HTTP/1.1 403 No\r\n\r\n"))
            first, host, *_ = self.heads[0].split(b"\r\n")
            self.assertEqual(first, b"CONNECT %b HTTP/1.1" % netloc)
            self.assertEqual(host, b"Host: " + netloc)

    async def test_the_server_s_certificate_counts_and_not_the_proxy(self) -> None:
        url = await self.listen_tls(self.of_server())
        error = await self.refuse(url, proxy=self.tunnels())
        self.assertIn("certificate is not trusted", str(error))

    async def test_a_proxy_that_asks_is_answered_and_the_server_is_not(self) -> None:
        url = await self.listen_tls(self.of_server())
        await self.assert_delivered(
            url,
            proxy=self.tunnels(
                wants=b"Proxy-Authorization: Basic bWU6c2VzYW1lLCDDtg=="
            ),
            proxy_credentials=ME,
            authorities=self.authority.certificate,
        )
        self.assertNotIn(b"Proxy-Authorization", self.heads[0])

    async def test_a_proxy_gets_no_token(self) -> None:
        url = await self.listen_tls(self.of_server())
        await self.assert_delivered(
            url,
            proxy=self.tunnels(),
            token="sesame",
            authorities=self.authority.certificate,
        )
        self.assertNotIn(b"sesame", b"".join(self.heads))

    async def test_a_proxy_that_refuses_is_named(self) -> None:
        for answer, transient in (
            (b"HTTP/1.1 403 No\r\n\r\n", False),
            (b"HTTP/1.1 407 Who\r\n\r\n", False),
            (b"HTTP/1.1 503 Later\r\n\r\n", True),
            (b"SSH-2.0-OpenSSH\r\n\r\n", True),
            (b"x" * 100_000, True),
        ):
            error = await self.refuse("https://127.0.0.1/", proxy=self.tunnels(answer))
            self.assertEqual(error.transient, transient, answer[:20])
            self.assertIn("proxy", str(error))


class ReplyTests(NetworkTestCase):
    """Replies of server applications."""

    def replying(self, resource: Any, reply_url: str) -> str:
        """A site whose last fragment's Ack names a reply that *resource* has."""
        model = self.server

        class Replying(ModelResource):
            def render(self, request: Any) -> Any:
                result = super().render(request)
                if any(len(held) == len(DATA) for held in model.held.values()):
                    request.setHeader("BITS-Reply-URL", reply_url)
                return result

        root = Resource()
        root.putChild(b"x", Replying(model))
        root.putChild(b"reply", resource)
        return self.listen(root) + "/x"

    async def test_a_reply_is_downloaded(self) -> None:
        url = self.replying(Data(b"r" * 200_000, "text/plain"), "\\reply")
        path = self.mktemp()
        result = await self.send(url, reply=path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"r" * 200_000)
        self.assertEqual(result.reply_url, url.replace("/x", "/reply"))
        self.assertEqual(self.server.published, DATA)

    async def test_a_reply_is_asked_for_with_the_link_of_the_upload(self) -> None:
        asked: list[bytes] = []

        class Reply(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                asked.append(request.uri)
                return b"reply"

        url = self.replying(Reply(), "/reply")
        path = self.mktemp()
        result = await self.send(f"{url}?a=1&txbits-link=SECRET", reply=path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"reply")
        self.assertEqual(asked, [b"/reply?txbits-link=SECRET"])
        self.assertEqual(result.reply_url, url.replace("/x", "/reply"))

    async def test_a_reply_that_is_not_there_is_a_failure(self) -> None:
        url = self.replying(Resource(), "\\replies")
        path = self.mktemp()
        error = await self.refuse(url, reply=path)
        self.assertEqual((error.status, error.transient), (404, False))
        self.assertFalse(os.path.exists(path))
        self.assertIsNone(self.server.published)

    async def test_a_login_page_on_the_way_to_it_is_waited_for_to_go_away(self) -> None:
        class Portal(Resource):
            isLeaf = True
            asked = 0

            def render_GET(self, request: Any) -> bytes:
                self.asked += 1
                if self.asked == 1:
                    request.redirect(b"http://login.example/")
                    return b""
                return b"the reply"

        portal = Portal()
        path = self.mktemp()
        await self.send(self.replying(portal, "\\reply"), reply=path, retry_for=30)
        self.assertEqual(portal.asked, 2)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"the reply")
        self.assertEqual(self.server.published, DATA)

    async def test_a_reply_that_is_cut_short_is_downloaded_again(self) -> None:
        attempts: list[int] = []

        class Shaky(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> Any:
                attempts.append(1)
                if len(attempts) == 1:
                    request.setResponseCode(503)
                    return b"later"
                request.setHeader(b"Content-Length", b"1000")
                request.write(b"r" * 500)
                if len(attempts) == 2:
                    request.transport.loseConnection()
                    return NOT_DONE_YET
                return b"r" * 500

        path = self.mktemp()
        await self.send(self.replying(Shaky(), "\\reply"), reply=path)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"r" * 1000)
        self.assertEqual(len(attempts), 3)
        self.assertEqual(os.listdir(os.path.dirname(path)), [os.path.basename(path)])

    async def test_a_reply_that_does_not_go_on_is_downloaded_again(self) -> None:
        attempts: list[int] = []

        class Stalling(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> Any:
                attempts.append(1)
                request.setHeader(b"Content-Length", b"10")
                request.write(b"reply")
                return NOT_DONE_YET if len(attempts) == 1 else b"reply"

        path = self.mktemp()
        url = self.replying(Stalling(), "\\reply")
        await self.send(url, reply=path, response_timeout=0.5)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), b"replyreply")
        self.assertEqual(len(attempts), 2)

    async def test_a_reply_that_would_fill_the_disk_is_refused(self) -> None:
        class Endless(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> Any:
                request.setHeader(b"Content-Length", b"%d" % (LONGEST_REPLY + 1))
                request.write(b"r")
                return NOT_DONE_YET

        path = self.mktemp()
        error = await self.refuse(self.replying(Endless(), "\\reply"), reply=path)
        self.assertIn("longer than", str(error))
        self.assertFalse(os.path.exists(path))

    async def test_a_reply_that_comes_packed_only_is_refused(self) -> None:
        """Nobody asked for that, and the file would not be what the server sent."""
        asked: list[Any] = []

        class Packed(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                asked.extend(request.requestHeaders.getRawHeaders("Accept-Encoding"))
                request.setHeader(b"Content-Encoding", b"gzip")
                return gzip.compress(b"reply")

        path = self.mktemp()
        error = await self.refuse(self.replying(Packed(), "\\reply"), reply=path)
        self.assertIn("gives it as gzip only", str(error))
        self.assertEqual((error.status, error.transient), (200, False))
        self.assertEqual(asked, ["identity"])
        self.assertFalse(os.path.exists(path))
        self.assertIsNone(self.server.published)

    async def test_passwords_go_to_no_other_server(self) -> None:
        seen: list[Any] = []

        class Elsewhere(Resource):
            isLeaf = True

            def render_GET(self, request: Any) -> bytes:
                seen.append(dict(request.requestHeaders.getAllRawHeaders()))
                return b"reply"

        other = self.listen(Elsewhere())
        url = self.replying(Resource(), f"{other}/r")
        await self.send(url, reply=self.mktemp(), headers=[("X-Token", "secret")])
        self.assertEqual(len(seen), 1)
        self.assertNotIn(b"X-Token", seen[0])

    async def test_nor_to_one_that_the_server_names_unless_it_is_trusted(self) -> None:
        told: set[tuple[str, str, bool]] = set()

        class Noting(ModelResource):
            """Names itself by another name, and notes who is told what."""

            def render(self, request: Any) -> Any:
                name = request.getRequestHostname().decode()
                has_token = request.requestHeaders.hasHeader(b"X-Token")
                told.add((request.method.decode(), name, has_token))
                if request.method == b"GET":
                    return b"reply"
                port = request.getHost().port
                result = super().render(request)
                request.setHeader("BITS-Host-Id", f"localhost:{port}")
                request.setHeader("BITS-Reply-URL", "reply")
                return result

        for trusted in (False, True):
            told.clear()
            self.server = ModelServer()
            await self.send(
                self.listen(Noting(self.server)) + "/x",
                reply=self.mktemp(),
                headers=[("X-Token", "secret")],
                trust_host_id=trusted,
            )
            self.assertEqual(self.server.published, DATA)
            self.assertEqual(
                told,
                {
                    ("BITS_POST", "127.0.0.1", True),
                    ("BITS_POST", "localhost", trusted),
                    ("GET", "localhost", trusted),
                },
            )
