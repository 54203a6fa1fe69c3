"""
``txbits check``: its arguments, what it prints, and what it exits with.

It runs against the scripted server, behind a real port.
"""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.check.faults import FAULTS
from tests.check.scripted import SILENCE, Connection, Server
from tests.client.fakes import Pipe, Terminal
from txbits.check import CHECKS
from txbits.client.cli import main, parse
from txbits.client.commands._command import Context, Status, run

reactor: Any = _reactor


class Served(Protocol):
    """A connection to the scripted server, over a socket."""

    is_closed = False

    def __init__(self, server):
        self.connection = Connection(server, self)

    def dataReceived(self, data):
        self.connection.received(data)

    def connectionLost(self, reason=None):
        self.connection.lost()

    def to_client(self, data):
        self.transport.write(data)

    def close(self):
        self.is_closed = True
        self.transport.loseConnection()


class Port(Factory):
    """Serves the scripted server."""

    noisy = False

    def __init__(self, server):
        self.server = server

    def buildProtocol(self, addr):
        return Served(self.server)


class ArgumentTests(SynchronousTestCase):
    """What may stand on the command line."""

    def refuse(self, *argv):
        err = io.StringIO()
        with redirect_stderr(err):
            error = self.assertRaises(SystemExit, main, ["check", *argv])
        self.assertEqual(error.code, 1, argv)
        (line,) = err.getvalue().splitlines()
        return line

    def test_defaults_are_as_documented(self):
        options = parse(["check", "http://h/"])
        self.assertEqual((options.timeout, options.only, options.header), (10, [], []))
        self.assertFalse(options.publish or options.strict or options.json)

    def test_headers_are_taken_apart(self):
        options = parse(["check", "http://h/", "--header", "X-Token:  a:b "])
        self.assertEqual(options.header, [("X-Token", "a:b")])

    def test_headers_that_are_none_are_refused(self):
        for text in ("X-Token", ": x", "X Y: z", "X: a\nY: b", "Ü: x", "BITS-X: y"):
            line = self.refuse("http://h/", "--header", text)
            self.assertIn("argument --header", line)

    def test_durations_are_taken_with_their_units(self):
        self.assertEqual(parse(["check", "http://h/", "--timeout", "1m"]).timeout, 60)

    def test_unknown_checks_are_refused_with_a_hint(self):
        line = self.refuse("http://h/", "--only", "ping-is-acknowledgd")
        self.assertIn("did you mean ping-is-acknowledged?", line)
        self.assertNotIn("did you mean", self.refuse("http://h/", "--only", "zzz"))

    def test_urls_that_are_none_are_refused(self):
        self.assertIn("http://", self.refuse("example.org/x"))


class CommandTests(TestCase):
    """What it does."""

    timeout = 60

    def setUp(self):
        self.out = Pipe()
        self.err = Pipe()
        self.server = Server()

    def serve(self, fault=None):
        if fault is not None:
            self.server = Server(**FAULTS[fault])
        port = reactor.listenTCP(0, Port(self.server), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/folder"

    def run_at(self, url, *more):
        options = parse(["check", url, *more])
        return run(Context(reactor, self.out, self.err, maybeDeferred), options)

    async def test_a_good_server_is_0(self):
        status = await self.run_at(self.serve())
        self.assertEqual(status, Status.DONE, self.out.getvalue())
        self.assertIn("91 passed, 0 failed, 10 not applicable", self.out.getvalue())
        self.assertEqual(self.err.getvalue(), "")
        self.assertEqual(self.server.files, {})

    async def test_a_bad_server_is_2(self):
        status = await self.run_at(self.serve("gap-is-out-of-step"))
        self.assertEqual(status, Status.REFUSED)
        self.assertIn("88 passed, 1 failed", self.out.getvalue())

    async def test_what_only_txbits_promises_is_2_if_strict(self):
        url = self.serve("session-id-without-braces")
        only = ("--only", "session-id-without-braces")
        self.assertEqual(await self.run_at(url, *only), Status.DONE)
        self.assertEqual(await self.run_at(url, *only, "--strict"), Status.REFUSED)

    async def test_only_what_is_asked_for_is_run(self):
        only = ("--only", "ping-is-acknowledged", "--only", "cancel-twice")
        self.assertEqual(await self.run_at(self.serve(), *only), Status.DONE)
        self.assertIn("2 passed, 0 failed, 0 not", self.out.getvalue())

    async def test_files_are_published_if_permitted(self):
        status = await self.run_at(self.serve(), "--publish")
        self.assertEqual(status, Status.DONE)
        self.assertEqual(len(self.server.files), sum(one.publishes for one in CHECKS))
        for path in self.server.files:
            self.assertIn(path, self.out.getvalue())

    async def test_json_is_for_programs(self):
        status = await self.run_at(self.serve("cancel-twice"), "--json")
        self.assertEqual(status, Status.REFUSED)
        report = json.loads(self.out.getvalue())
        failed = [one for one in report["checks"] if one["outcome"] == "failed"]
        self.assertEqual([one["name"] for one in failed], ["cancel-twice"])
        self.assertEqual(report["failed"], 1)

    async def test_a_terminal_sees_how_far_it_is(self):
        self.out = Terminal()
        only = ("--only", "ping-is-acknowledged", "--only", "cancel-twice")
        await self.run_at(self.serve(), *only)
        self.assertIn("\r1 of 2", self.out.getvalue())

    async def test_no_server_is_3_and_one_line(self):
        port = reactor.listenTCP(0, Port(self.server), interface="127.0.0.1")
        url = f"http://127.0.0.1:{port.getHost().port}/"
        await port.stopListening()
        self.assertEqual(await self.run_at(url), Status.GAVE_UP)
        (line,) = self.err.getvalue().splitlines()
        self.assertIn("refused", line)
        self.assertEqual(self.out.getvalue(), "")
        self.assertEqual(await self.run_at(url, "--json"), Status.GAVE_UP)
        self.assertEqual(json.loads(self.out.getvalue())["event"], "failed")

    async def test_no_patience_is_1(self):
        status = await self.run_at(self.serve(), "--timeout", "0")
        self.assertEqual(status, Status.USAGE)

    async def test_passwords_go_along(self):
        seen = set()

        def look(server, request):
            seen.add(request["authorization"])

        self.server = Server(before=look)
        options = parse(
            ["check", self.serve(), "--user", "u", "--only", "cancel-twice"]
        )
        context = Context(reactor, self.out, self.err, maybeDeferred)
        context.environ = {"TXBITS_PASSWORD": "p"}
        self.assertEqual(await run(context, options), Status.DONE)
        self.assertEqual(seen, {"Basic dTpw"})

    async def test_an_interrupted_run_says_what_is_left(self):
        working = None

        def look(server, request):
            if request.kind == "fragment":
                reactor.callLater(0, interrupt)
                return SILENCE
            if request.kind == "cancel-session":
                return server.refuse(403, 0)
            return None

        def interrupt():
            working.cancel()

        self.server = Server(before=look)
        context = Context(reactor, self.out, self.err, maybeDeferred)
        options = parse(["check", self.serve(), "--only", "fragment-is-acknowledged"])
        working = Deferred.fromCoroutine(options.perform(context, options))
        await self.assertFailure(working, CancelledError)
        self.assertIn("left behind: session {ABCDEF00", self.err.getvalue())
