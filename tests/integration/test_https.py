"""
``https:`` in real processes: what stops the start, and SIGHUP while clients upload.
"""

import os
import signal
import ssl

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.threads import deferToThread

from tests.integration.programs import at_once
from tests.integration.test_service import ServiceTestCase, pause
from tests.integration.wire import Lost, Wire
from tests.openssl import Authority

#: Each has a connection of its own.
CLIENTS = 300

#: In how many pieces each of them sends its fragment.
PIECES = 6

PIECE = 3000


class SecureWire(Wire):
    """
    A connection over TLS.

    :param case: The test case.
    :param client: The name of the client's certificate, if it has one.
    """

    def __init__(self, case, client=None):
        super().__init__(case.port)
        context = ssl.create_default_context(cafile=str(case.authority.certificate))
        if client is not None:
            context.load_cert_chain(
                case.cwd / f"{client}.pem", case.cwd / f"{client}.key"
            )
        self.socket = context.wrap_socket(self.socket, server_hostname="127.0.0.1")
        self.socket.settimeout(120)

    def serial(self):
        """The serial number of the server's certificate."""
        return self.socket.getpeercert()["serialNumber"]


class HttpsTestCase(ServiceTestCase):
    def setUp(self):
        super().setUp()
        self.authority = Authority(self.cwd)
        self.authority.issue_server()

    def endpoint(self, extra=""):
        return (
            "https:0:interface=127.0.0.1:certificate=server.pem:key=server.key" + extra
        )


class StartTests(HttpsTestCase):
    """What is wrong with the files is one line, before anything listens."""

    async def test_files_that_cannot_be_used(self):
        _, other = self.authority.issue_server("other")
        for files, reason in (
            ("certificate=no.pem:key=server.key", "no.pem cannot be read"),
            ("certificate=server.pem:key=no.key", "no.key cannot be read"),
            (f"certificate=server.pem:key={other}", "is not the key of"),
            ("certificate=server.key:key=server.key", "no valid certificate"),
        ):
            listen = f"https:0:{files}"
            await at_once(
                *(
                    self.is_refused(
                        start("--listen", listen, "--backend", "memory:"),
                        *(f"--listen: {listen}: ", reason),
                    )
                    for start in (self.twistd, self.twist)
                )
            )

    async def test_a_key_that_everyone_can_read(self):
        (self.cwd / "server.key").chmod(0o644)
        program = self.twistd("--listen", self.endpoint(), "--backend", "memory:")
        await self.is_refused(program, "key: ", "run chmod o-rw on it")


class RenewalTests(HttpsTestCase):
    """Certificates that are renewed while clients upload."""

    async def serve(self, extra=""):
        (self.cwd / "root").mkdir()
        self.program = self.twistd(
            *("--listen", self.endpoint(extra), "--backend", "disk:root"),
        )
        self.port = await self.program.listening()

    async def hang_up(self, expected):
        """Send the signal; wait until something is in the log."""
        before = len(self.program.stdout)
        os.kill(self.program.transport.pid, signal.SIGHUP)
        while expected not in self.program.stdout[before:]:
            self.assertIsNone(self.program.status, self.program.output)
            await pause()

    def connect(self, client=None):
        wire = SecureWire(self, client)
        self.addCleanup(wire.close)
        return wire

    async def test_no_connection_is_lost_when_a_certificate_is_renewed(self):
        await self.serve()
        serials = set()
        wires, sessions = [], []

        def begin(count):
            for _ in range(count):
                wire = self.connect()
                serials.add(wire.serial())
                path = b"/%d" % len(wires)
                wires.append(wire)
                sessions.append(wire.create(path))

        def send(number):
            """All clients send one more piece of their fragments."""
            for wire, session, n in zip(wires, sessions, range(CLIENTS), strict=True):
                if number == 0:
                    data = bytes([n % 256]) * (PIECE * PIECES)
                    wire.fragment(b"/%d" % n, session, data, 0, len(data), cut=PIECE)
                else:
                    piece, wire.rest = wire.rest[:PIECE], wire.rest[PIECE:]
                    wire.socket.sendall(piece)

        def finish():
            for n, (wire, session) in enumerate(zip(wires, sessions, strict=True)):
                wire.socket.sendall(wire.rest)
                self.assertEqual(wire.ack()[0], 200)
                self.assertEqual(wire.close_session(b"/%d" % n, session)[0], 200)

        # Half of them connect while the first renewal is under way.
        await deferToThread(begin, CLIENTS // 2)
        self.authority.issue_server()
        await gatherResults(
            [
                deferToThread(begin, CLIENTS - CLIENTS // 2),
                self.renewed(),
            ]
        )
        for number in range(PIECES - 1):
            self.authority.issue_server()
            await gatherResults([deferToThread(send, number), self.renewed()])
        await deferToThread(finish)
        self.assertEqual(len(wires), CLIENTS)
        self.assertLessEqual(len(serials), 2)
        new = await deferToThread(self.connect)
        self.assertNotIn(new.serial(), serials)
        for n in range(CLIENTS):
            content = (self.cwd / "root" / str(n)).read_bytes()
            self.assertEqual(content, bytes([n % 256]) * (PIECE * PIECES))
        self.assertNotIn("Traceback", self.program.stdout)

    def renewed(self):
        return Deferred.fromCoroutine(self.hang_up("certificates reloaded: CN=server"))

    async def test_a_broken_certificate_keeps_the_old_one(self):
        await self.serve()
        old = await deferToThread(self.connect)
        (self.cwd / "server.pem").write_text("half a certi")
        await self.hang_up("reload failed, keeping the old certificates: certificate:")
        new = await deferToThread(self.connect)
        self.assertEqual(old.serial(), new.serial())
        session = await deferToThread(old.create, b"/x")
        await deferToThread(old.fragment, b"/x", session, b"abc", 0, 3)
        status, _ = await deferToThread(old.close_session, b"/x", session)
        self.assertEqual(status, 200)

    async def test_a_client_is_revoked_between_two_fragments(self):
        for name in ("alice", "bob"):
            self.authority.issue(name)
        self.authority.list_revoked()
        await self.serve(":client-ca=ca.pem:crl-file=ca.crl")
        wires = {name: self.connect(name) for name in ("alice", "bob")}
        sessions = {}
        for name, wire in wires.items():
            path = f"/{name}".encode()
            sessions[name] = await deferToThread(wire.create, path)
            await deferToThread(wire.fragment, path, sessions[name], b"abcdef", 0, 3)
        self.authority.revoke("bob")
        self.authority.list_revoked()
        await self.hang_up("dropped the connection of 127.0.0.1: CN=bob is revoked")
        status, _ = await deferToThread(
            wires["alice"].fragment, b"/alice", sessions["alice"], b"abcdef", 3, 6
        )
        self.assertEqual(status, 200)
        lost = deferToThread(
            wires["bob"].fragment, b"/bob", sessions["bob"], b"abcdef", 3, 6
        )
        await self.assertFailure(lost, Lost)
        # A client of TLS 1.3 learns with its first answer that it was refused.
        again = await deferToThread(self.connect, "bob")
        await self.assertFailure(deferToThread(again.create, b"/b"), Lost)

    async def test_twisted_s_endpoint_says_that_it_cannot(self):
        listen = "ssl:0:interface=127.0.0.1:certKey=server.pem:privateKey=server.key"
        self.program = self.twistd("--listen", listen, "--backend", "memory:")
        self.port = await self.program.listening()
        await self.hang_up(f":{self.port}: restart required for new certificates")
