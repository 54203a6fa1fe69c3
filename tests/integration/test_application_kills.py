"""
The server is killed with SIGKILL around the moment at which a server application
answers, and started again.

One killed while the application works asks again; one killed after it has answered does
not. The application is a site of the test's own, which answers when it is told to.
"""

import os
import signal
from pathlib import Path
from urllib.parse import urlsplit

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredQueue
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.integration.programs import TWIST, Program
from tests.integration.test_applications import get
from tests.integration.wire import Lost, Wire, leftovers
from tests.ports import free_ports

PATH = b"/dump.bin"
DATA = os.urandom(1 << 10) * 300
REPLY = b"a reply\n" * 1000
SECRET = "a secret that nobody reads in a log"


class Application(Resource):
    """
    Keeps those who ask it waiting.

    :ivar attempts: How often it was asked, as they say.
    :ivar asked: Those who ask.
    """

    isLeaf = True

    def __init__(self):
        super().__init__()
        self.attempts = []
        self.asked = DeferredQueue()

    def render_POST(self, request):
        self.attempts.append(
            int(request.requestHeaders.getRawHeaders("BITS-Notification-Attempt")[0])
        )
        request.ended = Deferred()
        request.notifyFinish().addBoth(lambda _: request.ended.callback(None))
        self.asked.put(request)
        return NOT_DONE_YET


class KillCase(TestCase):
    """A server, and the application that it asks."""

    timeout = 100

    def setUp(self):
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)
        self.uploads = FilePath(str(self.folder / "uploads"))
        self.secret = self.folder / "secret"
        self.secret.write_text(f"{SECRET}\n")
        self.secret.chmod(0o600)
        self.application = Application()
        listener = reactor.listenTCP(0, Site(self.application), interface="127.0.0.1")
        self.addCleanup(listener.stopListening)
        self.application_port = listener.getHost().port
        (self.port,) = free_ports(1)
        self.logs = []

    async def start(self, by, *options):
        """Start the server."""
        self.server = Program.start(
            self,
            *TWIST,
            *("txbits", "--listen", f"tcp:{self.port}:interface=127.0.0.1"),
            *("--backend", "disk:uploads"),
            *("--notify-url", f"http://127.0.0.1:{self.application_port}/"),
            *("--notify-by", by, "--notify-secret-file", self.secret),
            *options,
            cwd=self.folder,
        )
        await self.server.listening()
        return await self.connect()

    async def restart(self, by, *options):
        """Kill it, and start another."""
        await self.server.end(signal.SIGKILL)
        self.logs.append(self.server.output)
        return await self.start(by, *options)

    async def connect(self):
        """A connection to the server."""
        wire = await deferToThread(Wire, self.port)
        self.addCleanup(wire.close)
        return wire

    def last(self, wire, session):
        """Send the last fragment, which overlaps what is held."""
        return deferToThread(
            wire.fragment, PATH, session, DATA, len(DATA) // 3, len(DATA)
        )

    async def begin(self, wire):
        """Send all but the last fragment; the session."""
        session = await deferToThread(wire.create, PATH)
        status, ack = await deferToThread(
            wire.fragment, PATH, session, DATA, 0, len(DATA) // 2
        )
        self.assertEqual(status, 200, ack)
        return session

    def answer(self, request, by, **headers):
        """Answer with a reply, having looked at the upload."""
        header = request.requestHeaders.getRawHeaders
        if by == "value":
            self.assertEqual(request.content.read(), DATA)
        else:
            staged = Path(header("BITS-Request-DataFile-Name")[0])
            self.assertEqual(staged.read_bytes(), DATA)
            Path(header("BITS-Response-DataFile-Name")[0]).write_bytes(REPLY)
        for name, value in headers.items():
            request.setHeader(name.replace("_", "-"), value)
        if by == "value":
            request.write(REPLY)
        request.finish()

    async def finish(self, wire, session, ack):
        """Fetch the reply, and close."""
        url = urlsplit(ack[b"bits-reply-url"].decode("ascii"))
        reply = await deferToThread(get, self.port, url.path)
        self.assertEqual(reply.partition(b"\r\n\r\n")[2], REPLY)
        status, ack = await deferToThread(wire.close_session, PATH, session)
        self.assertEqual(status, 200, ack)
        self.assertEqual(leftovers(self.uploads), [])
        for line in "".join([*self.logs, self.server.output]).splitlines():
            self.assertNotIn(SECRET, line)
            self.assertLess(len(line), 1000, line)

    def published(self):
        """What stands at the destination."""
        return self.uploads.child("dump.bin").getContent()


class KilledBeforeTests(KillCase):
    """The application has not answered yet."""

    async def assert_asked_again(self, by, *options):
        wire = await self.start(by, *options)
        session = await self.begin(wire)
        last = self.last(wire, session)
        request = await self.application.asked.get()
        wire = await self.restart(by, *options)
        with self.assertRaises(Lost):
            await last
        await request.ended
        last = self.last(wire, session)
        request = await self.application.asked.get()
        self.answer(request, by, BITS_Copy_File_To_Destination="1")
        status, ack = await last
        self.assertEqual((status, self.application.attempts), (200, [1, 2]), ack)
        await self.finish(wire, session, ack)
        self.assertEqual(self.published(), DATA)

    async def test_it_is_asked_again_by_value(self):
        await self.assert_asked_again("value")

    async def test_it_is_asked_again_by_reference(self):
        await self.assert_asked_again("reference", "--fsync", "fragment")

    async def test_it_is_asked_again_before_an_early_publication(self):
        await self.assert_asked_again("value", "--publish-on", "last-fragment")


class KilledAfterTests(KillCase):
    """The application has answered."""

    async def answered(self, by, answer, *options, is_read):
        """
        Have it answer, and kill the server.

        :param answer: Called with the request, and answers it.
        :param is_read: Whether the client gets its Ack.
        """
        wire = await self.start(by, *options)
        session = await self.begin(wire)
        last = self.last(wire, session)
        request = await self.application.asked.get()
        if not is_read:
            wire.socket.shutdown(2)
            with self.assertRaises(Lost):
                await last
        answer(request)
        if is_read:
            status, ack = await last
            self.assertEqual(status, 200, ack)
        else:
            await self.server.says("the application has answered 200")
        return await self.restart(by, *options), session

    async def assert_not_asked_again(self, by, *options, is_read):
        def publish(request):
            self.answer(request, by, BITS_Copy_File_To_Destination="1")

        wire, session = await self.answered(by, publish, *options, is_read=is_read)
        status, ack = await self.last(wire, session)
        self.assertEqual((status, self.application.attempts), (200, [1]), ack)
        await self.finish(wire, session, ack)
        self.assertEqual(self.published(), DATA)

    async def test_it_is_not_asked_again_before_the_ack(self):
        for by in ("value", "reference"):
            await self.assert_not_asked_again(by, is_read=False)
            await self.start_anew()

    async def test_it_is_not_asked_again_after_the_ack(self):
        for by in ("value", "reference"):
            await self.assert_not_asked_again(by, is_read=True)
            await self.start_anew()

    async def test_it_is_not_asked_again_after_an_early_publication(self):
        early = ("--publish-on", "last-fragment", "--allow-overwrites")
        for is_read in (False, True):
            await self.assert_not_asked_again("value", *early, is_read=is_read)
            await self.start_anew()

    async def start_anew(self):
        """Be ready for another server."""
        await self.server.end(signal.SIGKILL)
        self.logs.clear()
        self.application.attempts.clear()
        published = self.uploads.child("dump.bin")
        if published.exists():
            published.remove()

    async def test_an_upload_that_it_has_moved_away_is_closed_all_the_same(self):
        moved = self.folder / "moved"

        def move(request):
            header = request.requestHeaders.getRawHeaders
            Path(header("BITS-Request-DataFile-Name")[0]).rename(moved)
            Path(header("BITS-Response-DataFile-Name")[0]).write_bytes(REPLY)
            request.finish()

        for is_read in (False, True):
            wire, session = await self.answered("reference", move, is_read=is_read)
            status, ack = await self.last(wire, session)
            self.assertEqual((status, self.application.attempts), (200, [1]), ack)
            await self.finish(wire, session, ack)
            self.assertEqual(moved.read_bytes(), DATA)
            self.assertFalse(self.uploads.child("dump.bin").exists())
            await self.start_anew()
