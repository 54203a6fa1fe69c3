"""
The string ``https:...``, reloading, and the PROXY protocol.
"""

import socket
import ssl
import threading
from pathlib import Path

from cryptography import x509
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IListeningPort
from twisted.internet.testing import MemoryReactorClock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.openssl import Authority
from tests.tls.support import PING, HttpsCase
from txbits.errors import InvalidSetting
from txbits.interfaces import ICertified, IReloadable
from txbits.tls.endpoint import Files, HttpsEndpoint
from txbits.web import Limits


class DescriptionTests(SynchronousTestCase):
    """What the string may contain."""

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        Authority(self.folder).issue_server()
        self.files = (
            f"certificate={self.folder}/server.pem:key={self.folder}/server.key"
        )
        self.reactor = MemoryReactorClock()

    def complaint(self, text):
        error = self.assertRaises(
            InvalidSetting, serverFromString, self.reactor, f"https:{text}"
        )
        return str(error)

    def listened(self, text):
        endpoint = serverFromString(self.reactor, f"https:{text}")
        self.successResultOf(endpoint.listen(None))
        port, _, backlog, interface = self.reactor.tcpServers[-1]
        return port, backlog, interface

    def test_twisted_finds_it(self):
        self.assertEqual(self.listened(f"443:{self.files}"), (443, 50, ""))
        self.assertEqual(
            self.listened(f"port=443:{self.files}:interface=\\:\\:1:backlog=9"),
            (443, 9, "::1"),
        )

    def test_what_is_missing(self):
        self.assertIn("must have one port", self.complaint(self.files))
        self.assertIn("must have one port", self.complaint(f"1:2:{self.files}"))
        self.assertIn("certificate: missing", self.complaint("443"))
        self.assertIn("key: missing", self.complaint("443:certificate=x"))

    def test_what_is_no_number(self):
        for text in ("x", "-1", "4_4", "1" * 400):
            self.assertIn("port: must be a number", self.complaint(f"{text}:key=x"))
        text = self.complaint(f"443:{self.files}:backlog=many")
        self.assertEqual(text, "backlog: must be a number, not 'many'")

    def test_an_argument_that_does_not_exist(self):
        text = self.complaint(f"443:{self.files}:client_ca=x")
        self.assertIn("unknown argument 'client_ca'; there are port, ", text)
        self.assertIn("client-ca", text)

    def test_an_empty_file_name_does_not_turn_a_check_off(self):
        for name in ("client-ca", "crl-file", "chain"):
            text = self.complaint(f"443:{self.files}:{name}=")
            self.assertEqual(text, f"{name}: must not be empty")

    def test_a_wrong_file_is_found_before_anything_listens(self):
        text = self.complaint(f"443:certificate=/no:key={self.folder}/server.key")
        self.assertEqual(
            text, "certificate: /no cannot be read: No such file or directory"
        )

    def test_paths_are_of_the_directory_at_the_start(self):
        endpoint = HttpsEndpoint(
            self.reactor,
            443,
            Files(f"{self.folder}/server.pem", f"{self.folder}/server.key"),
        )
        self.successResultOf(endpoint.listen(None))
        relative = "certificate=server.pem:key=server.key"
        self.assertIn(
            f"certificate: {Path.cwd()}/server.pem cannot be read",
            self.complaint(f"443:{relative}"),
        )


class Upload:
    """A connection of a client that sends one long fragment, in pieces."""

    def __init__(self, case, client=None):
        context = ssl.create_default_context(cafile=str(case.authority.certificate))
        if client is not None:
            context.load_cert_chain(
                case.folder / f"{client}.pem", case.folder / f"{client}.key"
            )
        raw = socket.create_connection(("127.0.0.1", case.number), timeout=60)
        self.socket = context.wrap_socket(raw, server_hostname="127.0.0.1")

    def ping(self):
        """The first bytes of the answer to a Ping."""
        self.socket.sendall(
            b"BITS_POST /x HTTP/1.1\r\nHost: x\r\n"
            b"BITS-Packet-Type: Ping\r\nContent-Length: 0\r\n\r\n"
        )
        return self.socket.recv(65536)[:12]

    def serial(self):
        return self.socket.getpeercert()["serialNumber"]

    def is_lost(self):
        """Whether the server closes the connection."""
        try:
            while self.socket.recv(4096):
                pass
        except OSError:
            return True
        return True


class ReloadTests(HttpsCase):
    """Files that change while the server runs."""

    async def setUp(self):
        await super().setUp()
        for name in ("alice", "bob"):
            self.authority.issue(name)

    async def connect(self, client="alice"):
        upload = await deferToThread(Upload, self, client)
        self.addCleanup(upload.socket.close)
        self.assertEqual(await deferToThread(upload.ping), b"HTTP/1.1 200")
        return upload

    async def test_the_port_can_be_reloaded(self):
        await self.listen()
        verifyObject(IReloadable, self.port)
        verifyObject(IListeningPort, self.port)
        self.assertIn("CN=server, valid until ", await self.port.reload())

    async def test_the_port_knows_when_its_certificate_expires(self):
        await self.listen()
        verifyObject(ICertified, self.port)
        for _ in range(2):
            pem = (self.folder / "server.pem").read_bytes()
            certificate = x509.load_pem_x509_certificate(pem)
            self.assertEqual(
                self.port.expires, certificate.not_valid_after_utc.timestamp()
            )
            self.authority.issue_server()
            await self.port.reload()

    async def test_a_new_certificate_is_for_new_connections(self):
        await self.listen()
        old = await self.connect()
        self.authority.issue_server()
        await self.port.reload()
        new = await self.connect()
        self.assertNotEqual(old.serial(), new.serial())
        self.assertEqual(await deferToThread(old.ping), b"HTTP/1.1 200")

    async def test_a_broken_file_keeps_the_old_ones(self):
        await self.listen()
        old = await self.connect()
        (self.folder / "server.pem").write_text("nothing")
        failure = await self.assertFailure(self.port.reload(), InvalidSetting)
        self.assertIn("has no valid certificate in PEM", str(failure))
        self.assertEqual((await self.connect()).serial(), old.serial())
        self.assertEqual(await deferToThread(old.ping), b"HTTP/1.1 200")

    async def test_a_client_that_is_revoked_loses_its_connection(self):
        await self.listen(crl_file=self.authority.list_revoked())
        alice, bob = await self.connect("alice"), await self.connect("bob")
        self.authority.revoke("bob")
        self.authority.list_revoked()
        await self.port.reload()
        self.assertTrue(await deferToThread(bob.is_lost))
        self.assertEqual(await deferToThread(alice.ping), b"HTTP/1.1 200")
        [line] = self.lines("^dropped the connection")
        self.assertEqual(
            line,
            "dropped the connection of 127.0.0.1: CN=bob is revoked, or its authority "
            "is no longer in client-ca",
        )
        self.assertEqual(await self.ping(client="bob"), "000")
        self.assertEqual(await self.ping(client="alice"), "200")

    async def test_clients_of_an_authority_that_is_removed_lose_theirs(self):
        other = Authority(self.folder, "other")
        other.issue("carol")
        both = self.folder / "both.pem"
        both.write_bytes(
            self.authority.certificate.read_bytes() + other.certificate.read_bytes()
        )
        await self.listen(client_ca=both)
        alice, carol = await self.connect("alice"), await self.connect("carol")
        both.write_bytes(self.authority.certificate.read_bytes())
        await self.port.reload()
        self.assertTrue(await deferToThread(carol.is_lost))
        self.assertEqual(await deferToThread(alice.ping), b"HTTP/1.1 200")

    async def test_a_renewed_authority_with_the_same_key_keeps_its_clients(self):
        """The certificate of an authority is renewed before it expires."""
        renewed = self.folder / "renewed.pem"
        self.authority.renew(renewed)
        bundle = self.folder / "bundle.pem"
        bundle.write_bytes(self.authority.certificate.read_bytes())
        await self.listen(client_ca=bundle)
        alice = await self.connect("alice")
        bundle.write_bytes(renewed.read_bytes())
        await self.port.reload()
        self.assertEqual(await deferToThread(alice.ping), b"HTTP/1.1 200")
        self.assertEqual(await self.ping(client="alice"), "200")

    async def test_a_handshake_that_began_before_is_checked_again(self):
        await self.listen(crl_file=self.authority.list_revoked())
        goes_on = threading.Event()
        began = deferToThread(self.slowly, "bob", goes_on)
        while not self.site.channels:
            await self.pause()
        self.authority.revoke("bob")
        self.authority.list_revoked()
        await self.port.reload()
        goes_on.set()
        self.assertTrue(await began)
        self.assertEqual(len(self.lines("^dropped the connection .*CN=bob")), 1)

    def slowly(self, client, goes_on):
        """Connect, and begin the handshake later; whether the server closes."""
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        context.load_cert_chain(
            self.folder / f"{client}.pem", self.folder / f"{client}.key"
        )
        with socket.create_connection(("127.0.0.1", self.number), timeout=60) as raw:
            goes_on.wait(60)
            try:
                connection = context.wrap_socket(raw, server_hostname="127.0.0.1")
                while connection.recv(4096):
                    pass
            except OSError:
                return True
        return True


class ProxyTests(HttpsCase):
    """``haproxy:https:...``, with the header of the PROXY protocol before TLS."""

    requires = False

    async def test_the_address_is_that_of_the_client(self):
        await self.listen(prefix="haproxy:")
        status = await self.curl(
            *("-X", "BITS_POST", "-H", "BITS-Packet-Type: Create-Session"),
            *("-H", "Content-Length: 0", "--haproxy-protocol"),
            *("-H", "BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}"),
        )
        self.assertEqual(status, "200")
        status = await deferToThread(
            self.proxied, b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n"
        )
        self.assertEqual(status, b"HTTP/1.1 200")
        self.assertEqual(len(self.lines("created for /x by 192.0.2.7$")), 1)

    def proxied(self, header):
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        with socket.create_connection(("127.0.0.1", self.number)) as raw:
            raw.sendall(header)
            connection = context.wrap_socket(raw, server_hostname="127.0.0.1")
            connection.sendall(
                b"BITS_POST /x HTTP/1.1\r\nHost: x\r\n"
                b"BITS-Packet-Type: Create-Session\r\nContent-Length: 0\r\n"
                b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}"
                b"\r\n\r\n"
            )
            return connection.recv(65536)[:12]

    async def test_a_failed_handshake_is_told_with_the_address_of_the_client(self):
        await self.listen(
            prefix="haproxy:", **{"client-ca": self.authority.certificate}
        )
        header = b"PROXY TCP4 192.0.2.7 192.0.2.1 40000 443\r\n"
        error = await deferToThread(self.assertRaises, OSError, self.proxied, header)
        self.assertIn("certificate required", str(error).replace("_", " ").lower())
        [line] = self.lines("^TLS handshake")
        self.assertIn("with 192.0.2.7 failed", line)

    async def test_the_port_can_be_reloaded(self):
        await self.listen(prefix="haproxy:")
        self.authority.issue_server()
        await self.port.reload()
        self.assertEqual(await self.ping("--haproxy-protocol"), "200")

    async def test_nobody_gets_in_without_the_header(self):
        await self.listen(prefix="haproxy:")
        self.assertEqual(await self.curl(*PING), "000")

    async def test_the_limit_of_connections(self):
        await self.listen(
            prefix="haproxy:",
            limits=Limits(max_connections=1, max_connections_per_peer=1),
        )
        with socket.create_connection(("127.0.0.1", self.number)):
            while not self.site.channels:
                await self.pause()
            self.assertEqual(await self.ping("--haproxy-protocol"), "000")
        while self.site.channels:
            await self.pause()
        self.assertEqual(await self.ping("--haproxy-protocol"), "200")
        self.assertEqual(self.flushLoggedErrors(), [])
