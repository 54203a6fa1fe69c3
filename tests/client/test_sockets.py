"""
Uploads over real sockets on loopback, to a plain site around the model server, and
the command in a process of its own.
"""

from __future__ import annotations

import io
import os
import signal
import sys
from typing import Any
from uuid import UUID

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from zope.interface.verify import verifyObject

from tests.client.fakes import Line
from tests.protocol.model_server import ModelServer
from txbits.client import (
    ConnectionSettings,
    Event,
    UploadFailed,
    UploadResult,
    Waiting,
    upload,
)
from txbits.client._exchange import HTTPLine, ILine
from txbits.protocol.codec import encode_ack, parse_request

reactor: Any = _reactor


class ModelResource(Resource):
    """
    The model server, as a resource.

    :ivar drops: How many fragments are to be answered with the end of the connection:
        half of their bytes are taken, and there is no Ack.
    :ivar stuck: Fires when the first packet came that is not to be answered at all, if
        it is set.
    :ivar unanswered: That packet's request.
    """

    isLeaf = True

    def __init__(self, server: ModelServer) -> None:
        super().__init__()
        self.model = server
        # What reads and writes the packets here is the server's half.
        server.new_id = lambda number: UUID(int=number)
        self.drops = 0
        self.stuck: Deferred[None] | None = None
        self.unanswered: Any = None
        self.connections: set[object] = set()

    def render(self, request: Any) -> Any:
        self.connections.add(request.getClientAddress().port)
        headers = {
            name.lower(): values
            for name, values in request.requestHeaders.getAllRawHeaders()
        }
        packet = parse_request(request.method, headers)
        body = request.content.read()
        if body and self.stuck is not None:
            stuck, self.stuck = self.stuck, None
            self.unanswered = request
            stuck.callback(None)
            return NOT_DONE_YET
        if body and self.drops:
            self.drops -= 1
            self.model.receive(packet, body[: len(body) // 2])
            request.transport.abortConnection()
            return NOT_DONE_YET
        ack = self.model.receive(packet, body)
        request.setResponseCode(ack.status)
        for name, value in encode_ack(ack):
            request.responseHeaders.setRawHeaders(name, [value])
        return b""


class SocketsTestCase(TestCase):
    """A site on a port of loopback, and a file of 3 MB."""

    timeout = 60

    def setUp(self) -> None:
        self.server = ModelServer()
        self.resource = ModelResource(self.server)
        port = reactor.listenTCP(
            0, Site(self.resource, timeout=None), interface="127.0.0.1"
        )
        self.port = port.getHost().port
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{self.port}/x"
        self.data = os.urandom(1000) * 3000
        self.path, self.state = self.mktemp(), self.mktemp()
        with open(self.path, "wb") as file:
            file.write(self.data)


class LibraryTests(SocketsTestCase):
    """The library."""

    async def test_a_file_arrives_over_one_connection(self) -> None:
        result = await upload(
            self.path, self.url, reactor=reactor, fragment_size=1_000_000
        )
        self.assertEqual(result.length, len(self.data))
        self.assertEqual(self.server.published, self.data)
        self.assertEqual(len(self.resource.connections), 1)

    async def test_an_empty_file_arrives(self) -> None:
        with open(self.path, "wb"):
            pass
        await upload(self.path, self.url, reactor=reactor)
        self.assertEqual(self.server.published, b"")

    async def test_a_file_arrives_although_connections_break(self) -> None:
        self.resource.drops = 3
        events: list[Event] = []
        await upload(
            self.path,
            self.url,
            reactor=reactor,
            fragment_size=1_000_000,
            random=lambda: 0.0,
            on_event=events.append,
        )
        self.assertEqual(self.server.published, self.data)
        waits = [event for event in events if isinstance(event, Waiting)]
        self.assertEqual(len(waits), 3)

    async def test_a_port_without_a_server_is_given_up(self) -> None:
        free = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        url = f"http://127.0.0.1:{free.getHost().port}/x"
        await free.stopListening()
        try:
            await upload(self.path, url, reactor=reactor, retry_for=0)
        except UploadFailed as error:
            self.assertTrue(error.transient)
            self.assertIn("refused", str(error))
        else:
            self.fail("it was not given up")

    async def test_what_is_no_bits_server_is_refused(self) -> None:
        site = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        self.addCleanup(site.stopListening)
        url = f"http://127.0.0.1:{site.getHost().port}/x"
        try:
            await upload(self.path, url, reactor=reactor)
        except UploadFailed as error:
            self.assertEqual((error.status, error.transient), (404, False))
        else:
            self.fail("it was not refused")


class LineTests(SocketsTestCase):
    """A connection that is kept for one upload after the other."""

    def setUp(self) -> None:
        super().setUp()
        self.line = HTTPLine(reactor, ConnectionSettings())
        self.addCleanup(self.line.close)

    def upload(self, data: bytes) -> Deferred[UploadResult]:
        return upload(
            io.BytesIO(data),
            self.url,
            reactor=reactor,
            exchange=self.line.exchange(self.url),
            random=lambda: 0.0,
        )

    def test_it_provides_the_interface(self) -> None:
        verifyObject(ILine, self.line)
        verifyObject(ILine, Line(lambda *_: self.line.exchange("")))

    async def test_several_uploads_use_one_connection(self) -> None:
        for number in range(3):
            await self.upload(b"%d" % number)
            self.assertEqual(self.server.published, b"%d" % number)
        self.assertEqual(len(self.resource.connections), 1)

    async def test_one_that_broke_is_replaced(self) -> None:
        self.resource.drops = 1
        await self.upload(b"first")
        await self.upload(b"second")
        self.assertEqual(self.server.published, b"second")
        self.assertEqual(len(self.resource.connections), 2)

    async def test_it_can_be_used_after_an_upload_was_stopped(self) -> None:
        stuck: Deferred[None] = Deferred()
        self.resource.stuck = stuck
        uploading = self.upload(b"first")
        await stuck
        uploading.cancel()
        await self.assertFailure(uploading, CancelledError)
        await self.upload(b"second")
        self.assertEqual(self.server.published, b"second")


class Command(ProcessProtocol):
    """The command in a process: what it writes, and how it ends."""

    transport: Any

    def __init__(self) -> None:
        self.out = b""
        self.err = b""
        self.ended: Deferred[int] = Deferred()

    def outReceived(self, data: bytes) -> None:
        self.out += data

    def errReceived(self, data: bytes) -> None:
        self.err += data

    def processEnded(self, reason: Failure) -> None:
        error: Any = reason.value
        ended = isinstance(error, ProcessTerminated)
        self.ended.callback(error.exitCode if ended else 0)


class CommandTests(SocketsTestCase):
    """``python -m txbits upload``."""

    def spawn(self, url: str, *options: str, shell: str = 'exec "$@"') -> Command:
        command = Command()
        argv = [sys.executable, "-m", "txbits", "upload", self.path, url, *options]
        argv = ["/bin/sh", "-c", shell, "sh", *argv]
        # A checkout that is not installed is found by where the tests found it.
        paths = os.pathsep.join(filter(None, sys.path))
        environment = {
            **os.environ,
            "PYTHONPATH": paths,
            "XDG_STATE_HOME": os.path.abspath(self.state),
        }
        process = reactor.spawnProcess(command, argv[0], argv, environment)
        self.addCleanup(lambda: process.pid and process.signalProcess("KILL"))
        command.transport = process
        return command

    async def test_a_file_arrives(self) -> None:
        command = self.spawn(self.url, "--fragment-size", "1000000")
        self.assertEqual(await command.ended, 0)
        self.assertEqual(self.server.published, self.data)
        self.assertEqual(command.err, b"")
        self.assertIn(b"3,000,000 bytes are at", command.out)

    async def test_standard_input_arrives(self) -> None:
        # The first fragment is sent twice, though a pipe can be read only once.
        self.resource.drops = 1
        self.path = "-"
        length = str(len(self.data))
        command = self.spawn(self.url, "--length", length)
        command.transport.write(self.data)
        command.transport.closeStdin()
        self.assertEqual(await command.ended, 0)
        self.assertEqual(self.server.published, self.data)

    async def test_standard_input_that_ends_too_soon_is_4(self) -> None:
        self.path = "-"
        command = self.spawn(self.url, "--length", str(len(self.data) + 1))
        command.transport.write(self.data)
        command.transport.closeStdin()
        self.assertEqual(await command.ended, 4)
        self.assertIn(b"ended after 3,000,000 of 3,000,001 bytes", command.err)
        self.assertEqual(self.server.held, {})

    async def test_a_refusal_is_one_line_and_2(self) -> None:
        self.server.largest = 0
        command = self.spawn(self.url)
        self.assertEqual(await command.ended, 2)
        self.assertEqual(len(command.err.splitlines()), 1)

    async def test_an_interrupt_ends_it_with_130_and_leaves_the_session(self) -> None:
        stuck: Deferred[None] = Deferred()
        self.resource.stuck = stuck
        command = self.spawn(self.url)
        await stuck
        command.transport.signalProcess(signal.SIGINT)
        self.assertEqual(await command.ended, 130)
        self.assertIn(b"txbits: interrupted; run the same command", command.err)
        self.assertEqual(len(self.server.held), 1)

    async def test_an_interrupt_that_was_ignored_stays_so(self) -> None:
        # As in the background of a shell's script.
        stuck: Deferred[None] = Deferred()
        self.resource.stuck = stuck
        command = self.spawn(self.url, shell='trap "" INT; exec "$@"')
        await stuck
        command.transport.signalProcess(signal.SIGINT)
        self.resource.unanswered.transport.abortConnection()
        self.assertEqual(await command.ended, 0)
        self.assertEqual(self.server.published, self.data)

    async def test_the_same_command_goes_on_after_a_kill(self) -> None:
        stuck: Deferred[None] = Deferred()
        self.resource.stuck = stuck
        command = self.spawn(self.url)
        await stuck
        command.transport.signalProcess(signal.SIGKILL)
        await command.ended
        command = self.spawn(self.url)
        self.assertEqual(await command.ended, 0)
        self.assertEqual(self.server.published, self.data)
        self.assertEqual(self.server._count, 1)
        self.assertEqual(os.listdir(os.path.join(self.state, "txbits")), [])


class WithoutRichTests(TestCase):
    """Where the extra ``cli`` is not installed."""

    timeout = 60

    async def test_there_are_lines_in_place_of_bars_and_tables(self) -> None:
        program = """
import sys
sys.modules["rich"] = None
from tests.client.fakes import Terminal
from twisted.internet.task import Clock
from txbits.client.commands._show import display_for
print(type(display_for(Terminal(), Clock())).__name__)
from txbits.client.commands.status import _say_table
from txbits.client.commands._command import Context
out = Terminal()
_say_table(Context(None, out, out, None), [["a", "b", "c", "d", "e", "f"]])
print(out.getvalue().splitlines()[1].split())
"""
        command = Command()
        paths = os.pathsep.join(filter(None, sys.path))
        process = reactor.spawnProcess(
            command,
            sys.executable,
            [sys.executable, "-c", program],
            {**os.environ, "PYTHONPATH": paths},
        )
        self.addCleanup(lambda: process.pid and process.signalProcess("KILL"))
        self.assertEqual(await command.ended, 0, command.err)
        self.assertEqual(
            command.out.decode().splitlines(),
            ["PlainDisplay", "['a', 'b', 'c', 'd', 'e', 'f']"],
        )
