"""
Who gets through a TLS handshake, with real clients, and what the log says of others.
"""

import socket
import ssl

from OpenSSL import SSL
from twisted.internet.threads import deferToThread

from tests.openssl import Authority
from tests.tls.support import HttpsCase
from txbits.access.certificate import CertificateAuthenticator
from txbits.web import Limits

VERSIONS = ("1.2", "1.3")


class ClientTests(HttpsCase):
    """Clients of a server that requires certificates."""

    async def refused(self, why, client):
        """A client is refused, and the log says why, once."""
        for version in VERSIONS:
            status = await self.ping("--tls-max", version, client=client)
            self.assertEqual(status, "000")
        [line] = await self.failures()
        self.assertEqual(line, f"TLS handshake with 127.0.0.1 failed: {why}")

    async def failures(self):
        while not (found := self.lines("^TLS handshake")):
            await self.pause()
        return found

    async def test_with_a_certificate_of_the_authority(self):
        await self.listen()
        self.authority.issue("alice")
        # Without an extended key usage, a certificate is for all purposes.
        self.authority.issue("any", extensions="basicConstraints=CA:FALSE")
        for client in ("alice", "any"):
            for version in VERSIONS:
                status = await self.ping("--tls-max", version, client=client)
                self.assertEqual(status, "200")
        self.assertEqual(self.lines("^TLS handshake"), [])

    async def test_without_one(self):
        await self.listen()
        await self.refused("it has sent no client certificate", None)

    async def test_of_a_stranger(self):
        Authority(self.folder, "other").issue("stranger")
        await self.listen()
        await self.refused(
            "its certificate is refused: CN=stranger, issued by CN=Authority other, "
            "leads to no authority in client-ca",
            "stranger",
        )

    async def test_of_a_stranger_who_has_the_name_of_the_authority(self):
        (self.folder / "fake").mkdir()
        certificate, key = Authority(self.folder / "fake").issue("stranger")
        await self.listen()
        status = await self.ping("--cert", certificate, "--key", key)
        self.assertEqual(status, "000")
        [line] = await self.failures()
        self.assertIn("its certificate is refused: CN=stranger", line)

    async def test_expired(self):
        self.authority.issue("old", days=-1)
        await self.listen()
        await self.refused("its certificate is refused: CN=old has expired", "old")

    async def test_of_a_server(self):
        await self.listen()
        await self.refused(
            "its certificate is refused: CN=server is not for clients, according to "
            "its key usage or extended key usage",
            "server",
        )

    async def test_revoked(self):
        for name in ("alice", "bob"):
            self.authority.issue(name)
        self.authority.revoke("bob")
        await self.listen(crl_file=self.authority.list_revoked())
        self.assertEqual(await self.ping(client="alice"), "200")
        self.assertEqual(await self.ping(client="bob"), "000")
        [line] = await self.failures()
        self.assertRegex(line, r"CN=bob \(serial number [0-9a-f]+\) is revoked$")

    async def test_nobody_gets_in_with_a_revocation_list_that_has_expired(self):
        self.authority.issue("alice")
        times = ("-crl_lastupdate", "20200101000000Z")
        until = ("-crl_nextupdate", "20200102000000Z")
        await self.listen(crl_file=self.authority.list_revoked(*times, *until))
        warnings = self.lines("^the CRL of CN=Authority ca expired on 2020-01-02")
        self.assertEqual(len(warnings), 1)
        await self.refused(
            "its certificate is refused: CN=alice: the CRL of CN=Authority ca has "
            "expired; renew crl-file, and send SIGHUP",
            "alice",
        )

    async def test_nobody_gets_in_whose_authority_has_no_revocation_list(self):
        self.authority.issue("alice")
        other = Authority(self.folder, "other")
        await self.listen(crl_file=other.list_revoked())
        await self.refused(
            "its certificate is refused: CN=alice: crl-file has no CRL of CN=Authority "
            "ca, which has issued it",
            "alice",
        )

    async def test_an_authority_below_a_root_is_trusted_by_itself(self):
        """Neither its root nor a revocation list of the root is needed."""
        below = Authority(self.folder, "below", above=self.authority)
        for name in ("alice", "bob"):
            below.issue(name)
        self.authority.issue("carol")
        below.revoke("bob")
        await self.listen(client_ca=below.certificate, crl_file=below.list_revoked())
        self.assertEqual(await self.ping(client="alice"), "200")
        self.assertEqual(await self.ping(client="bob"), "000")
        self.assertEqual(await self.ping(client="carol"), "000")

    async def test_the_client_sends_authorities_between(self):
        below = Authority(self.folder, "below", above=self.authority)
        certificate, _ = below.issue("alice")
        certificate.write_bytes(
            certificate.read_bytes() + below.certificate.read_bytes()
        )
        both = self.folder / "both.crl"
        both.write_bytes(
            below.list_revoked().read_bytes()
            + self.authority.list_revoked().read_bytes()
        )
        await self.listen(crl_file=both)
        self.assertEqual(await self.ping(client="alice"), "200")

    async def test_an_authority_between_is_revoked(self):
        below = Authority(self.folder, "below", above=self.authority)
        certificate, _ = below.issue("alice")
        certificate.write_bytes(
            certificate.read_bytes() + below.certificate.read_bytes()
        )
        self.authority.revoke("below")
        both = self.folder / "both.crl"
        both.write_bytes(
            below.list_revoked().read_bytes()
            + self.authority.list_revoked().read_bytes()
        )
        await self.listen(crl_file=both)
        self.assertEqual(await self.ping(client="alice"), "000")
        [line] = await self.failures()
        self.assertRegex(line, r"CN=Authority below \(serial number \w+\) is revoked$")

    async def test_control_characters_in_a_name_do_not_reach_the_log(self):
        other = Authority(self.folder, "other")
        other.issue("odd", subject="/CN=a\nb\x1b[31mc")
        await self.listen()
        self.assertEqual(await self.ping(client="odd"), "000")
        [line] = await self.failures()
        self.assertTrue(line.isprintable(), line)

    async def test_failures_of_one_kind_are_one_line_a_minute(self):
        await self.listen()
        for _ in range(5):
            self.assertEqual(await self.ping(), "000")
        self.assertEqual(len(await self.failures()), 1)

    async def test_the_authorities_are_named_to_the_client(self):
        """Windows looks for a certificate of one of them."""
        await self.listen()
        out = await self.client("-tls1_2")
        self.assertIn("Acceptable client certificate CA names\nCN = Authority ca", out)

    async def client(self, *arguments, client="alice"):
        """Run ``openssl s_client`` until the server closes."""
        if not (self.folder / "alice.pem").exists():
            self.authority.issue("alice")
        return await self.run_client(
            *("-cert", f"{client}.pem", "-key", f"{client}.key"), *arguments
        )

    async def test_no_session_is_ever_resumed(self):
        """Otherwise somebody whose certificate has expired would resume it."""
        await self.listen()
        for version in ("-tls1_2", "-tls1_3"):
            name = f"session{version}"
            await self.client(version, "-sess_out", name)
            if (self.folder / name).exists():
                out = await self.client(version, "-sess_in", name)
                self.assertIn("New, TLSv1.", out)
                self.assertNotIn("Reused", out)

    async def test_the_name_is_that_of_the_user(self):
        await self.listen(authenticators=[CertificateAuthenticator()])
        self.authority.issue("alice")
        self.authority.issue("odd", subject="/CN=one/CN=two")
        self.assertEqual(await self.ping(client="alice"), "200")
        self.assertEqual(await self.ping(client="odd"), "401")
        # What passes a proxy may be of any of its clients.
        via = await self.ping("-H", "Via: 1.1 proxy", client="alice")
        self.assertEqual(via, "401")


class ProtocolTests(HttpsCase):
    """Versions, ciphers, ALPN, and what is not TLS."""

    requires = False

    async def test_tls_1_1_is_refused(self):
        await self.listen()
        status = await self.ping(
            "--tlsv1.0", "--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"
        )
        self.assertEqual(status, "000")
        [line] = self.lines("^TLS handshake")
        self.assertIn("it supports only versions before TLS 1.2", line)

    async def test_a_weak_cipher_is_refused(self):
        await self.listen()
        status = await self.ping(
            "--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES256-SHA"
        )
        self.assertEqual(status, "000")
        [line] = self.lines("^TLS handshake")
        self.assertIn("it supports none of the ciphers", line)

    async def test_http_1_1_is_the_only_protocol(self):
        await self.listen()
        out = await self.run_client("-alpn", "h2,http/1.1")
        self.assertIn("ALPN protocol: http/1.1", out)
        out = await self.run_client("-alpn", "h2")
        self.assertIn("No ALPN negotiated", out)
        self.assertEqual(await self.ping("--http2"), "200")

    async def test_sessions_are_resumed_until_a_reload(self):
        await self.listen()
        for version in ("-tls1_2", "-tls1_3"):
            await self.run_client(version, "-sess_out", "session")
            out = await self.run_client(version, "-sess_in", "session")
            self.assertIn("Reused, TLSv1.", out)
            self.assertIn("HTTP/1.1 405", out)
            await self.port.reload()
            out = await self.run_client(version, "-sess_in", "session")
            self.assertIn("New, TLSv1.", out)
            self.assertNotIn("Reused", out)
        self.assertEqual(self.lines("^TLS handshake"), [])

    async def test_nobody_can_renegotiate(self):
        await self.listen()
        error = await deferToThread(self.renegotiate)
        self.assertIn("no renegotiation", str(error))

    def renegotiate(self):
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_2_VERSION)
        with socket.create_connection(("127.0.0.1", self.number)) as raw:
            # Without a time-out, which would make it non-blocking.
            raw.settimeout(None)
            connection = SSL.Connection(context, raw)
            connection.set_connect_state()
            connection.do_handshake()
            connection.renegotiate()
            return self.assertRaises(SSL.Error, connection.do_handshake)

    async def test_a_client_that_does_not_trust_the_server(self):
        other = Authority(self.folder, "other")
        await self.listen()
        self.assertEqual(await self.ping("--cacert", other.certificate), "000")
        while not self.lines("^TLS handshake"):
            await self.pause()
        [line] = self.lines("^TLS handshake")
        self.assertIn("it refuses our certificate", line)

    async def test_what_is_not_tls(self):
        await self.listen()
        for data, reason in (
            (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "it sent plain HTTP"),
            (b"\x00\x01\x02 nonsense nonsense", "it sent something that is not TLS"),
        ):
            await deferToThread(self.send, data)
            while not self.lines(reason):
                await self.pause()

    async def test_who_only_opens_a_connection_is_not_in_the_log(self):
        """Balancers do it all the time, to see whether the server is there."""
        await self.listen()
        await deferToThread(self.send, b"")
        self.assertEqual(await self.ping(), "200")
        self.assertEqual(self.lines("TLS handshake"), [])

    def send(self, data):
        with socket.create_connection(("127.0.0.1", self.number)) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1000):
                pass

    async def test_the_limit_of_connections(self):
        await self.listen(limits=Limits(max_connections=1, max_connections_per_peer=1))
        first = await deferToThread(self.connect)
        self.addCleanup(first.close)
        self.assertEqual(await self.ping(), "000")
        first.close()
        while self.site.channels:
            await self.pause()
        self.assertEqual(await self.ping(), "200")
        self.assertEqual(self.flushLoggedErrors(), [])

    def connect(self):
        context = ssl.create_default_context(cafile=str(self.authority.certificate))
        raw = socket.create_connection(("127.0.0.1", self.number))
        return context.wrap_socket(raw, server_hostname="127.0.0.1")
