"""
HAProxy in front, which passes TLS through: clients show us their certificates.
"""

import shutil
import socket
from contextlib import closing

from attrs import define, field
from twisted.internet.threads import deferToThread
from zope.interface import implementer

from tests.integration.programs import Program
from tests.ports import free_ports
from tests.tls.support import HttpsCase
from txbits.access.certificate import CertificateAuthenticator
from txbits.interfaces import IAuthenticator

_HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/sbin")

_CONFIGURATION = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s

listen uploads
    bind 127.0.0.1:{port}
    server one 127.0.0.1:{server} {options}
"""

CREATE = (
    *("-X", "BITS_POST", "-H", "BITS-Packet-Type: Create-Session"),
    *("-H", "BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}"),
    *("-H", "Content-Length: 0"),
)


@implementer(IAuthenticator)
@define(eq=False)
class Watched:
    """
    Remembers whom a certificate makes known.

    :ivar known: Names and addresses.
    """

    scheme = "certificate"
    strength = 1
    known: list = field(factory=list)
    _inner: CertificateAuthenticator = field(factory=CertificateAuthenticator)

    def challenge(self, credentials):
        return None

    def authenticate(self, credentials):
        def known(identity):
            name = None if identity is None else identity.name
            self.known.append((name, credentials.address))
            return identity

        return self._inner.authenticate(credentials).addCallback(known)


class HAProxyTests(HttpsCase):
    async def start(self, options="", **arguments):
        """Start the server, and HAProxy in front of it."""
        self.watched = Watched()
        server = await self.listen(authenticators=[self.watched], **arguments)
        [self.number] = free_ports(1)
        path = self.folder / "haproxy.cfg"
        path.write_text(
            _CONFIGURATION.format(port=self.number, server=server, options=options)
        )
        program = Program.start(
            self, "-db", "-f", path, cwd=self.folder, executable=_HAPROXY
        )
        while not await deferToThread(self.is_there):
            self.assertIsNone(program.status, program.output)

    def is_there(self):
        with closing(socket.socket()) as connection:
            connection.settimeout(1)
            return connection.connect_ex(("127.0.0.1", self.number)) == 0

    async def creates(self):
        """Two clients create sessions, each on a connection of its own."""
        for name in ("alice", "bob"):
            self.authority.issue(name)
            self.assertEqual(await self.curl(*CREATE, client=name), "200")
        self.assertEqual([name for name, _ in self.watched.known], ["alice", "bob"])

    async def test_the_certificate_is_that_of_the_client(self):
        await self.start()
        await self.creates()
        self.assertEqual(await self.curl(*CREATE), "000")

    async def test_the_proxy_protocol_tells_the_address(self):
        for options in ("send-proxy", "send-proxy-v2"):
            await self.start(options, prefix="haproxy:")
            await self.creates()
            self.assertEqual(
                {address for _, address in self.watched.known}, {"127.0.0.1"}
            )

    async def test_health_checks_are_not_in_the_log(self):
        await self.start("check inter 20ms")
        for _ in range(20):
            await self.pause()
        self.assertEqual(self.lines("TLS handshake"), [])
