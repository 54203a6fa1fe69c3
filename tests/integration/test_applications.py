"""
The server applications of ``docs/examples`` and the service, each in a process of its
own: uploads reach the applications, and their replies the client.
"""

import socket
from pathlib import Path
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase

from tests.integration.cluster import remains
from tests.integration.programs import ROOT, TWIST, Program
from tests.integration.s3_application import reply_to
from tests.integration.wire import Lost, Wire, leftovers
from tests.ports import free_ports
from tests.seaweedfs import ENVIRONMENT, Bucket

EXAMPLES = ROOT / "docs" / "examples"
SECRET = "a secret that both of them have"
DATA = b"".join(b"line %d\n" % number for number in range(100_000))
REPLY = b"100000 lines\n"


class ApplicationCase(TestCase):
    """Starts servers and applications."""

    timeout = 100

    def setUp(self):
        self.cwd = Path(self.mktemp()).absolute()
        self.cwd.mkdir(parents=True)

    def start(self, *arguments, secret=SECRET):
        """Start an example."""
        return Program.start(
            self, *arguments, cwd=self.cwd, environment={"BITS_SECRET": secret}
        )

    async def serve(self, url, by, backend="disk:uploads"):
        """Serve uploads, and have an application asked about them; the port."""
        secret = self.cwd / "secret"
        secret.write_text(f"{SECRET}\n")
        secret.chmod(0o600)
        service = Program.start(
            self,
            *TWIST,
            "txbits",
            *("--listen", "tcp:0:interface=127.0.0.1"),
            *("--backend", backend),
            *("--notify-url", url),
            *("--notify-by", by),
            *("--notify-secret-file", secret),
            cwd=self.cwd,
            environment=ENVIRONMENT,
        )
        return await service.listening()

    async def connect(self, port):
        """A connection to the server."""
        wire = await deferToThread(Wire, port)
        self.addCleanup(wire.close)
        return wire

    async def sent(self, wire, path=b"/today.log", data=DATA):
        """Send an upload, but no Close-Session; its session and the last Ack."""
        session = await deferToThread(wire.create, path)
        middle = len(data) // 2
        status, ack = await deferToThread(wire.fragment, path, session, data, 0, middle)
        self.assertEqual(status, 200, ack)
        self.assertNotIn(b"bits-reply-url", ack)
        return session, await deferToThread(
            wire.fragment, path, session, data, middle, len(data)
        )

    async def finish(self, wire, session, ack, path=b"/today.log"):
        """Fetch the reply, and close; the reply."""
        port = wire.socket.getpeername()[1]
        url = urlsplit(ack[b"bits-reply-url"].decode("ascii"))
        reply = await deferToThread(get, port, url.path)
        status, closed = await deferToThread(wire.close_session, path, session)
        self.assertEqual(status, 200, closed)
        gone = await deferToThread(get, port, url.path)
        self.assertTrue(gone.startswith(b"HTTP/1.1 404 "), gone)
        return reply.partition(b"\r\n\r\n")[2]

    async def assert_serves(self, program, by, backend="disk:uploads"):
        """It gets an upload, and its reply arrives."""
        number = await program.listening()
        port = await self.serve(f"http://127.0.0.1:{number}/uploads", by, backend)
        wire = await self.connect(port)
        session, (status, ack) = await self.sent(wire)
        self.assertEqual(status, 200, f"{ack}\n{program.output}")
        self.assertEqual(await self.finish(wire, session, ack), REPLY)

    def assert_published(self):
        """The file stands at its destination."""
        published = self.cwd / "uploads" / "today.log"
        self.assertEqual(published.read_bytes(), DATA)

    async def assert_refuses(self, program, by):
        """It does not listen to who has another secret."""
        number = await program.listening()
        port = await self.serve(f"http://127.0.0.1:{number}/uploads", by)
        wire = await self.connect(port)
        _, (status, ack) = await self.sent(wire)
        self.assertEqual(
            (status, ack[b"bits-error-code"], ack[b"bits-error-context"]),
            (503, b"0x801901F7", b"0x7"),
        )


class FlaskTests(ApplicationCase):
    """``flask_app.py``, by value."""

    def application(self, port=0, **settings):
        program = EXAMPLES / "server_application" / "flask_app.py"
        return self.start(program, port, **settings)

    async def test_uploads_reach_it_and_its_replies_the_client(self):
        await self.assert_serves(self.application(), "value")
        self.assert_published()

    async def test_uploads_to_s3_reach_it_and_its_replies_the_client(self):
        bucket = Bucket(self)
        await self.assert_serves(self.application(), "value", bucket.description())
        self.assertEqual(await deferToThread(bucket.read, "today.log"), DATA)
        self.assertEqual(await deferToThread(remains, bucket), [])

    async def test_it_refuses_who_has_another_secret(self):
        await self.assert_refuses(self.application(secret="another"), "value")

    async def test_one_that_comes_later_is_asked_then(self):
        (number,) = free_ports(1)
        port = await self.serve(f"http://127.0.0.1:{number}/uploads", "value")
        wire = await self.connect(port)
        session, (status, ack) = await self.sent(wire)
        self.assertEqual((status, ack[b"bits-error-code"]), (502, b"0x80072EFD"))
        await self.application(number).listening()
        status, ack = await deferToThread(
            wire.fragment, b"/today.log", session, DATA, len(DATA) - 1, len(DATA)
        )
        self.assertEqual(status, 200, ack)
        self.assertEqual(await self.finish(wire, session, ack), REPLY)


class KleinTests(ApplicationCase):
    """``klein_app.py``, by reference."""

    def application(self, **settings):
        program = EXAMPLES / "server_application" / "klein_app.py"
        return self.start(program, "tcp:0:interface=127.0.0.1", **settings)

    async def test_uploads_reach_it_and_its_replies_the_client(self):
        await self.assert_serves(self.application(), "reference")
        self.assert_published()

    async def test_it_refuses_who_has_another_secret(self):
        await self.assert_refuses(self.application(secret="another"), "reference")


class S3ReferenceTests(ApplicationCase):
    """``s3_application.py``, by reference: both programs see the same bucket."""

    async def test_it_reads_uploads_and_writes_replies_in_the_bucket(self):
        bucket = Bucket(self)
        program = Program.start(
            self,
            *("-m", "tests.integration.s3_application", bucket.server.endpoint),
            cwd=self.cwd,
        )
        number = await program.listening()
        port = await self.serve(
            f"http://127.0.0.1:{number}/", "reference", bucket.description()
        )
        wire = await self.connect(port)
        # In the record of the session, in one piece, and in parts.
        for size in (1000, len(DATA), 11 << 20):
            data = (DATA * (size // len(DATA) + 1))[:size]
            session, (status, ack) = await self.sent(wire, data=data)
            self.assertEqual(status, 200, f"{ack}\n{program.output}")
            self.assertEqual(await deferToThread(bucket.read, "today.log"), None)
            reply = await self.finish(wire, session, ack)
            self.assertEqual(reply, reply_to(data))
            self.assertEqual(await deferToThread(bucket.read, "today.log"), data)
            self.assertEqual(await deferToThread(remains, bucket), [])
            await deferToThread(bucket.clear)


class Silent(Protocol):
    """Takes what comes, and never answers."""

    def connectionMade(self):
        self.factory.asked.callback(self)
        self.ended = Deferred()

    def connectionLost(self, reason=connectionDone):
        self.ended.callback(None)


class CancelTests(ApplicationCase):
    """Cancel-Session while an application is being asked, which does not answer."""

    async def assert_cancelled(self, by):
        """Cancel ends the asking, and leaves nothing."""
        silent = Factory.forProtocol(Silent)
        silent.asked = Deferred()
        listener = reactor.listenTCP(0, silent, interface="127.0.0.1")
        self.addCleanup(listener.stopListening)
        number = listener.getHost().port
        port = await self.serve(f"http://127.0.0.1:{number}/", by)
        waiting, wire = await self.connect(port), await self.connect(port)
        session = await deferToThread(waiting.create, b"/today.log")
        last = deferToThread(
            waiting.fragment, b"/today.log", session, DATA, 0, len(DATA)
        )
        asked = await silent.asked
        status, ack = await deferToThread(wire.cancel_session, b"/today.log", session)
        self.assertEqual(status, 200, ack)
        self.assertEqual(leftovers(FilePath(str(self.cwd / "uploads"))), [])
        await asked.ended
        with self.assertRaises(Lost):
            await last
        status, ack = await deferToThread(wire.cancel_session, b"/today.log", session)
        self.assertEqual((status, ack[b"bits-error-code"]), (500, b"0x8020001F"))

    async def test_by_reference(self):
        await self.assert_cancelled("reference")

    async def test_by_value(self):
        await self.assert_cancelled("value")


class EmbeddedTests(ApplicationCase):
    """``embed_with_application.py``, which is server and application in one."""

    async def test_uploads_reach_it_and_its_replies_the_client(self):
        program = self.start(
            EXAMPLES / "embed_with_application.py", "tcp:0:interface=127.0.0.1"
        )
        wire = await self.connect(await program.listening())
        path = b"/upload/today.log"
        session, (status, ack) = await self.sent(wire, path)
        self.assertEqual(status, 200, ack)
        self.assertEqual(await self.finish(wire, session, ack, path), REPLY)
        self.assert_published()


def get(port, path):
    """GET something; the whole response."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(
            b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            % path.encode("ascii")
        )
        response = b""
        while more := connection.recv(65536):
            response += more
    return response
