"""
Downloads: over sockets on loopback, from a server that does what a test says, and from
Twisted's own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.protocols.portforward import ProxyFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import ResponseDone
from twisted.web.http_headers import Headers
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import File

from tests.backends.s3.test_access import certificate
from tests.client.fakes import Pipe
from tests.client.test_sockets import Command
from txbits.client import (
    ConnectionSettings,
    Credentials,
    DownloadFailed,
    InvalidURL,
    Progress,
    Waiting,
    download,
)
from txbits.client._fetch import Body, Head, moved
from txbits.client._partial import Origin, Partial, boot_id
from txbits.client._requests import NoAnswer
from txbits.client.cli import parse
from txbits.client.commands._command import Context, Status, run

reactor: Any = _reactor

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "download.py"

DATA = bytes(n * 31 % 251 for n in range(200_000))


@define(eq=False)
class ScriptedFile(Resource):
    """
    A file.

    :ivar etag: Its ETag; none if empty.
    :ivar cuts: After how many bytes to end the connection, one answer each.
    :ivar stops: Fires when an answer has stopped in the middle, if it is set.
    :ivar answers: What to answer instead, one request each: statuses and headers.
    :ivar headers: What goes with each answer.
    :ivar knows_ranges: Whether parts are given.
    :ivar knows_if_range: Whether If-Range is looked at.
    :ivar requests: The headers of each request.
    """

    isLeaf = True
    data: bytes = DATA
    etag: str = '"1"'
    cuts: list[int] = field(factory=list)
    stops: Deferred[None] | None = None
    answers: list[tuple[int, dict[str, str]]] = field(factory=list)
    headers: dict[str, str] = field(factory=dict)
    knows_ranges: bool = True
    knows_if_range: bool = True
    requests: list[Headers] = field(factory=list)

    def __attrs_pre_init__(self):
        super().__init__()

    def asked(self, name):
        """The values of a header in all requests."""
        values = [
            headers.getRawHeaders(name.encode(), [None])[0] for headers in self.requests
        ]
        return [value and value.decode() for value in values]

    def render_GET(self, request):
        self.requests.append(request.requestHeaders.copy())
        for name, value in self.headers.items():
            request.setHeader(name.encode(), value.encode())
        if self.answers:
            status, headers = self.answers.pop(0)
            request.setResponseCode(status)
            for name, value in headers.items():
                request.setHeader(name.encode(), value.encode())
            return b""
        if self.etag:
            request.setHeader(b"ETag", self.etag.encode())
        body = self.data
        match = re.fullmatch(rb"bytes=(\d+)-", request.getHeader(b"Range") or b"")
        condition = request.getHeader(b"If-Range")
        is_same = condition == self.etag.encode() or not self.knows_if_range
        if match and is_same and self.knows_ranges:
            first, total = int(match[1]), len(self.data)
            if first >= total:
                request.setResponseCode(416)
                request.setHeader(b"Content-Range", b"bytes */%d" % total)
                return b""
            request.setResponseCode(206)
            value = b"bytes %d-%d/%d" % (first, total - 1, total)
            request.setHeader(b"Content-Range", value)
            body = body[first:]
        request.setHeader(b"Content-Length", b"%d" % len(body))
        if self.stops is not None:
            stops, self.stops = self.stops, None
            request.write(body[: len(body) // 2])
            reactor.callLater(0.01, stops.callback, None)
            return NOT_DONE_YET
        if self.cuts:
            request.write(body[: self.cuts.pop(0)])
            # What was written goes out before.
            request.transport.loseConnection()
            return NOT_DONE_YET
        return body


class DownloadCase(TestCase):
    """A site, and a folder to download to."""

    timeout = 60

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"
        self.file = ScriptedFile()
        self.events = []
        self.url = self.serve(self.file)

    def serve(self, resource):
        site = Site(resource, timeout=None)
        port = reactor.listenTCP(0, site, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}/x"

    def download(self, url=None, **more):
        return download(
            url or self.url,
            self.path,
            reactor=reactor,
            random=lambda: 0.0,
            on_event=self.events.append,
            **more,
        )

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def assert_arrived(self, data=DATA):
        self.assertEqual(self.path.read_bytes(), data)
        self.assertEqual(self.names(), ["file"])

    async def failure(self, downloading):
        try:
            await downloading
        except DownloadFailed as error:
            return error
        return self.fail("it did not fail")

    def place(self, data, validator='"1"', length=None, url=None):
        """Leave a part there, as an earlier run would have."""
        length = len(DATA) if length is None else length
        partial = Partial.open(str(self.path))
        partial.begin(Origin(url or self.url, validator, length, boot_id()))
        partial.write(data)
        partial.close()


class ArrivalTests(DownloadCase):
    """Downloads that succeed."""

    async def test_a_file_arrives(self):
        result = await self.download()
        self.assert_arrived()
        self.assertEqual((result.length, result.received), (len(DATA), len(DATA)))
        self.assertEqual(self.file.asked("Range"), [None])

    async def test_an_empty_file_arrives(self):
        self.file.data = b""
        result = await self.download()
        self.assertEqual(result.length, 0)
        self.assert_arrived(b"")

    async def test_bytes_are_asked_for_as_they_are(self):
        await self.download()
        (headers,) = self.file.requests
        self.assertEqual(headers.getRawHeaders(b"Accept-Encoding"), [b"identity"])

    async def test_progress_is_told(self):
        await self.download()
        counts = [each.acknowledged for each in self.events]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual((counts[0], counts[-1]), (0, len(DATA)))
        self.assertEqual({each.total for each in self.events}, {len(DATA)})

    async def test_a_failing_watcher_changes_nothing(self):
        def fail(event):
            raise RuntimeError("no")

        await download(self.url, self.path, reactor=reactor, on_event=fail)
        self.assert_arrived()
        self.assertTrue(self.flushLoggedErrors(RuntimeError))

    async def test_a_file_that_is_there_is_not_touched(self):
        self.path.write_bytes(b"old")
        await self.assertFailure(self.download(), FileExistsError)
        self.assert_arrived(b"old")
        self.assertEqual(self.file.requests, [])

    async def test_it_is_replaced_if_that_is_wanted(self):
        self.path.write_bytes(b"old")
        await self.download(overwrite=True)
        self.assert_arrived()

    async def test_one_that_appears_meanwhile_is_not_touched(self):
        self.file.stops = stopped = Deferred()
        downloading = self.download(
            retry_for=5, settings=ConnectionSettings(request_timeout=0.1)
        )
        await stopped
        self.path.write_bytes(b"new")
        await self.assertFailure(downloading, FileExistsError)
        self.assertEqual(self.path.read_bytes(), b"new")

    async def test_urls_that_are_none_are_refused(self):
        await self.assertFailure(self.download("ftp://h/x"), InvalidURL)
        self.assertEqual(self.names(), [])

    async def test_places_that_are_none_are_refused(self):
        self.path = self.folder / "none" / "file"
        await self.assertFailure(self.download(), FileNotFoundError)

    async def test_two_downloads_of_one_file_do_not_meet(self):
        self.file.stops = stopped = Deferred()
        first = self.download()
        await stopped
        error = await self.failure(self.download())
        self.assertTrue(error.transient)
        first.cancel()
        await self.assertFailure(first, CancelledError)
        await self.download()
        self.assert_arrived()


class ResumptionTests(DownloadCase):
    """Downloads that go on where they stopped."""

    async def test_no_byte_comes_twice_though_connections_break(self):
        self.file.cuts = [50_000, 60_000, 1]
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA))
        self.assertEqual(
            self.file.asked("Range"),
            [None, "bytes=50000-", "bytes=110000-", "bytes=110001-"],
        )
        self.assertEqual(self.file.asked("If-Range"), [None, '"1"', '"1"', '"1"'])
        waits = [each for each in self.events if isinstance(each, Waiting)]
        self.assertEqual(len(waits), 3)

    async def test_another_run_goes_on(self):
        self.file.stops = stopped = Deferred()
        first = self.download()
        await stopped
        first.cancel()
        await self.assertFailure(first, CancelledError)
        self.assertEqual(self.names(), [".file.txbits-part", ".file.txbits-part.json"])
        held = (self.folder / ".file.txbits-part").stat().st_size
        result = await self.download()
        self.assert_arrived()
        self.assertGreater(held, 0)
        self.assertEqual(result.received, len(DATA) - held)
        progress = next(each for each in self.events[::-1] if each.acknowledged == held)
        self.assertIsInstance(progress, Progress)

    async def test_a_changed_file_comes_anew(self):
        self.place(b"old" * 1000)
        self.file.etag = '"2"'
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA))
        self.assertEqual(self.file.asked("If-Range"), ['"1"'])

    async def test_also_from_a_server_without_if_range(self):
        self.place(b"old" * 1000)
        self.file.etag = '"2"'
        self.file.knows_if_range = False
        await self.download()
        self.assert_arrived()
        self.assertEqual(self.file.asked("Range"), ["bytes=3000-", None])

    async def test_and_one_of_another_length(self):
        self.place(b"old" * 1000, length=4000)
        self.file.knows_if_range = False
        await self.download()
        self.assert_arrived()

    async def test_a_server_without_ranges_sends_all(self):
        self.file.knows_ranges = False
        self.file.cuts = [50_000]
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, 50_000 + len(DATA))

    async def test_without_a_strong_validator_it_begins_anew(self):
        for etag in ('W/"1"', "", "1"):
            self.file.etag = etag
            self.file.cuts = [50_000]
            self.file.requests.clear()
            await self.download(overwrite=True)
            self.assert_arrived()
            self.assertEqual(self.file.asked("Range"), [None, None])

    async def test_a_part_that_is_all_is_only_asked_about(self):
        self.place(DATA)
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, 0)
        self.assertEqual(self.file.asked("Range"), [f"bytes={len(DATA)}-"])

    async def test_a_part_that_is_too_much_is_thrown_away(self):
        self.place(DATA + b"x", length=len(DATA) + 1)
        await self.download()
        self.assert_arrived()

    async def test_a_part_from_before_a_restart_of_the_machine_is_thrown_away(self):
        partial = Partial.open(str(self.path))
        partial.begin(Origin(self.url, '"1"', len(DATA), "another"))
        partial.write(bytes(1000))
        # As a crash leaves it.
        os.close(partial._descriptor)
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA))

    async def test_a_part_of_another_url_is_thrown_away(self):
        self.place(b"old" * 1000, url="http://127.0.0.1/other")
        await self.download()
        self.assert_arrived()
        self.assertEqual(self.file.asked("Range"), [None])

    async def test_a_part_outlives_a_refusal(self):
        self.place(DATA[:1000])
        self.file.answers = [(404, {})]
        await self.failure(self.download())
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA) - 1000)


class ThreadTests(DownloadCase):
    """Downloads that are cancelled while a thread is at work, which cannot be."""

    def setUp(self):
        super().setUp()
        self.waiting = []

    def later(self, function, *args, **kwargs):
        """Run a function when the test says so."""
        asked = Deferred()
        self.waiting.append(asked)
        return asked.addCallback(lambda _: function(*args, **kwargs))

    def until_nothing_is_left(self, downloading):
        downloading.cancel()
        self.assertNoResult(downloading)
        self.waiting.pop().callback(None)
        return self.assertFailure(downloading, CancelledError)

    async def test_while_it_opens_the_part(self):
        downloading = self.download(in_thread=self.later)
        await self.until_nothing_is_left(downloading)
        self.assertEqual(self.names(), [])

    async def test_while_it_makes_the_file(self):
        self.file.data = b"x"
        downloading = self.download(in_thread=self.later)
        while not self.path.exists():
            turn: Deferred[None] = Deferred()
            reactor.callLater(0, turn.callback, None)
            await turn
            held = [one for one in self.events if one.acknowledged]
            if held and self.waiting:
                # The end has begun: it is done, though nobody wants it any more.
                await self.until_nothing_is_left(downloading)
            elif self.waiting:
                self.waiting.pop().callback(None)
        self.assert_arrived(b"x")


class TrustTests(DownloadCase):
    """Servers with certificates."""

    def serve_tls(self):
        crt, key = certificate(self.mktemp())
        relay = ProxyFactory("127.0.0.1", int(self.url.split(":")[2].split("/")[0]))
        relay.noisy = False
        context = DefaultOpenSSLContextFactory(key, crt)
        port = reactor.listenSSL(0, relay, context, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"https://127.0.0.1:{port.getHost().port}/x", Path(crt).read_bytes()

    async def test_one_that_is_trusted(self):
        url, authorities = self.serve_tls()
        await self.download(url, settings=ConnectionSettings(authorities=authorities))
        self.assert_arrived()

    async def test_one_that_is_not(self):
        url, _ = self.serve_tls()
        error = await self.failure(self.download(url))
        self.assertFalse(error.transient)
        self.assertIn("not trusted", str(error))
        self.assertEqual(self.names(), [])


class TwistedTests(DownloadCase):
    """From ``twisted.web.static.File``."""

    def setUp(self):
        super().setUp()
        self.source = self.folder.parent / f"{self.folder.name}-source"
        self.source.write_bytes(DATA)
        os.utime(self.source, (1_000_000_000, 1_000_000_000))
        root = Resource()
        root.putChild(b"x", File(str(self.source)))
        self.url = self.serve(root)

    async def test_a_file_arrives(self):
        await self.download()
        self.assert_arrived()

    async def test_it_goes_on_with_its_date(self):
        self.place(DATA[:1000], "Sun, 09 Sep 2001 01:46:40 GMT")
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA) - 1000)

    async def test_a_changed_file_comes_anew(self):
        self.place(b"x" * 1000, "Sun, 09 Sep 2001 01:46:39 GMT")
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA))


class RefusalTests(DownloadCase):
    """Downloads that fail."""

    async def test_what_will_not_pass_is_final(self):
        for status in (400, 401, 403, 404, 410, 501):
            self.file.answers = [(status, {})]
            error = await self.failure(self.download())
            self.assertEqual((error.status, error.transient), (status, False))
        self.assertEqual(self.names(), [])

    async def test_what_may_pass_is_tried_again(self):
        self.file.answers = [(503, {"Retry-After": "0"}), (429, {})]
        await self.download()
        self.assert_arrived()
        waits = [each.cause for each in self.events if isinstance(each, Waiting)]
        self.assertEqual(waits, ["the server answered 503", "the server answered 429"])

    async def test_it_is_given_up(self):
        self.file.answers = [(503, {})]
        error = await self.failure(self.download(retry_for=0))
        self.assertEqual((error.status, error.transient), (503, True))
        self.assertIn("gave up after 0 seconds", str(error))

    async def test_nobody_waits_longer_than_there_is_time(self):
        self.file.answers = [(503, {"Retry-After": "3600"})]
        error = await self.failure(self.download(retry_for=60))
        self.assertTrue(error.transient)

    async def test_a_port_without_a_server_is_given_up(self):
        port = reactor.listenTCP(0, Site(Resource()), interface="127.0.0.1")
        url = f"http://127.0.0.1:{port.getHost().port}/"
        await port.stopListening()
        error = await self.failure(self.download(url, retry_for=0))
        self.assertTrue(error.transient)

    async def test_silence_is_given_up(self):
        self.file.stops = Deferred()
        settings = ConnectionSettings(request_timeout=0.2)
        error = await self.failure(self.download(retry_for=0, settings=settings))
        self.assertTrue(error.transient)
        self.assertIn("nothing was heard of the server for 0.2 seconds", str(error))

    async def test_a_file_without_a_length_is_refused(self):
        # Twisted sends in chunks what has none.
        class Endless(Resource):
            isLeaf = True

            def render_GET(self, request):
                request.write(b"some")
                request.finish()
                return NOT_DONE_YET

        error = await self.failure(self.download(self.serve(Endless())))
        self.assertIn("does not tell how long", str(error))
        self.assertFalse(error.transient)

    async def test_a_file_that_is_encoded_is_refused(self):
        for encoding in ("br", "gzip"):
            self.file.headers = {"Content-Encoding": encoding}
            error = await self.failure(self.download())
            self.assertFalse(error.transient)
        self.assertEqual(self.names(), [])

    async def test_parts_that_nobody_asked_for_are_refused(self):
        self.file.answers = [(206, {"Content-Range": "bytes 0-9/10"})]
        error = await self.failure(self.download())
        self.assertEqual((error.status, error.transient), (206, False))


class RedirectTests(DownloadCase):
    """Servers that point elsewhere."""

    def moved_to(self, location, status=302):
        self.file.answers.append((status, {"Location": location}))

    async def test_it_is_followed(self):
        for status in (301, 302, 303, 307, 308):
            self.moved_to("/elsewhere", status)
            await self.download(overwrite=True)
            self.assert_arrived()

    async def test_what_is_held_goes_along(self):
        self.place(DATA[:1000])
        self.moved_to("y")
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA) - 1000)

    async def test_not_for_ever(self):
        for _ in range(20):
            self.moved_to("/x")
        error = await self.failure(self.download())
        self.assertIn("pointed elsewhere 10 times", str(error))

    async def test_secrets_stay_with_their_server(self):
        other = ScriptedFile()
        self.moved_to(self.serve(other))
        settings = ConnectionSettings(
            headers=[("X-Token", "secret")], credentials=Credentials("u", "p")
        )
        await self.download(settings=settings)
        self.assertEqual(self.file.asked("X-Token"), ["secret"])
        self.assertEqual(other.asked("X-Token"), [None])
        self.assert_arrived()

    def test_where_nobody_should_go_nobody_goes(self):
        for location in ("ftp://h/x", "http://h:99999/", "http://u:p@h/"):
            self.assertRaises(DownloadFailed, moved, "http://h/x", location)
        self.assertRaises(DownloadFailed, moved, "https://h/x", "http://h/x")
        self.assertEqual(moved("http://h/x", "https://h/y#z"), "https://h/y")


class BodyTests(SynchronousTestCase):
    """Bodies of responses."""

    def setUp(self):
        self.clock = Clock()
        self.taken = b""
        self.drops = 0
        self.body = Body(self.clock, 10, self.take, self.drop)

    def take(self, data):
        if data == b"bad":
            raise OSError(28, "No space left on device")
        self.taken += data

    def drop(self):
        self.drops += 1

    def test_it_comes(self):
        self.body.dataReceived(b"12")
        self.body.dataReceived(b"34")
        self.assertNoResult(self.body.ended)
        self.body.connectionLost(Failure(ResponseDone()))
        self.successResultOf(self.body.ended)
        self.assertEqual((self.taken, self.drops), (b"1234", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_is_lost(self):
        self.body.connectionLost(Failure(ConnectionLost()))
        self.failureResultOf(self.body.ended, NoAnswer)

    def test_every_byte_is_a_sign_of_life(self):
        for _ in range(5):
            self.clock.advance(9)
            self.body.dataReceived(b"x")
        self.assertNoResult(self.body.ended)
        self.clock.advance(10)
        self.failureResultOf(self.body.ended, NoAnswer)
        self.assertEqual(self.drops, 1)
        self.body.connectionLost(Failure(ConnectionLost()))

    def test_a_disk_that_is_full_ends_it(self):
        self.body.dataReceived(b"bad")
        self.failureResultOf(self.body.ended, OSError)
        self.assertEqual(self.drops, 1)
        self.body.dataReceived(b"more")
        self.assertEqual(self.taken, b"")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_can_be_cancelled(self):
        self.body.ended.cancel()
        self.failureResultOf(self.body.ended, CancelledError)
        self.assertEqual(self.drops, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class HeadTests(SynchronousTestCase):
    """Which states of a file can be told apart."""

    def validator(self, **headers):
        class Response:
            code = 200
            length = 1

        response: Any = Response()
        raw = {
            name.replace("_", "-").encode(): [value.encode()]
            for name, value in headers.items()
        }
        response.headers = Headers(raw)
        return Head.of(response).validator

    def test_strong_etags_do(self):
        self.assertEqual(self.validator(ETag='"1"', Last_Modified="x"), '"1"')

    def test_weak_ones_do_not(self):
        for etag in ('W/"1"', "1", '"1', '"a"b"'):
            self.assertIsNone(self.validator(ETag=etag, Last_Modified="x"))

    def test_dates_do_that_have_passed(self):
        changed = "Sun, 09 Sep 2001 01:46:40 GMT"
        for date, expected in (
            ("Sun, 09 Sep 2001 01:46:41 GMT", changed),
            (changed, None),
            ("Sun, 09 Sep 2001 01:46:39 GMT", None),
            ("soon", None),
        ):
            found = self.validator(Last_Modified=changed, Date=date)
            self.assertEqual(found, expected, date)
        self.assertIsNone(self.validator(Last_Modified=changed))
        self.assertIsNone(self.validator(Last_Modified="then", Date=changed))


class CommandTests(DownloadCase):
    """``txbits download``."""

    def run_it(self, *more):
        self.out, self.err = Pipe(), Pipe()
        options = parse(["download", self.url, str(self.path), *more])
        return run(Context(reactor, self.out, self.err, deferToThread), options)

    async def test_a_file_arrives(self):
        self.assertEqual(await self.run_it(), Status.DONE)
        self.assert_arrived()
        self.assertIn("200,000 bytes are in /", self.out.getvalue())
        self.assertEqual(self.err.getvalue(), "")

    async def test_programs_get_json(self):
        self.assertEqual(await self.run_it("--json"), Status.DONE)
        *events, done = map(json.loads, self.out.getvalue().splitlines())
        self.assertEqual({each["event"] for each in events}, {"progress"})
        self.assertEqual(
            done,
            {
                "event": "done",
                "file": os.path.abspath(self.path),
                "length": len(DATA),
                "received": len(DATA),
            },
        )
        self.file.answers = [(404, {})]
        status = await self.run_it("--json", "--overwrite")
        self.assertEqual(status, Status.REFUSED)
        failed = json.loads(self.out.getvalue())
        self.assertEqual((failed["event"], failed["status"]), ("failed", 404))

    async def test_quiet_is_quiet(self):
        self.assertEqual(await self.run_it("-q"), Status.DONE)
        self.assertEqual(self.out.getvalue() + self.err.getvalue(), "")

    async def test_headers_go_along(self):
        await self.run_it("--header", "X-Token: secret")
        self.assertEqual(self.file.asked("X-Token"), ["secret"])

    async def test_names_that_are_none_are_1(self):
        self.path = "a\0b"
        self.assertEqual(await self.run_it(), Status.USAGE)
        self.assertIn("null", self.err.getvalue())

    async def test_a_file_that_is_there_is_1(self):
        self.path.write_bytes(b"old")
        self.assertEqual(await self.run_it(), Status.USAGE)
        self.assertIn("is there already (try --overwrite)", self.err.getvalue())
        self.assertEqual(await self.run_it("--overwrite"), Status.DONE)
        self.assert_arrived()

    async def test_a_place_that_is_none_is_1(self):
        self.path = self.folder / "none" / "file"
        self.assertEqual(await self.run_it(), Status.USAGE)
        self.assertIn("No such file or directory", self.err.getvalue())

    async def test_a_refusal_is_2(self):
        self.file.answers = [(404, {})]
        self.assertEqual(await self.run_it(), Status.REFUSED)
        self.assertEqual(self.err.getvalue(), "txbits: the server answered 404\n")

    async def test_to_give_up_is_3(self):
        self.file.answers = [(503, {})]
        self.assertEqual(await self.run_it("--retry-for", "0"), Status.GAVE_UP)

    def spawn(self, *program):
        command = Command()
        program = program or ("-m", "txbits", "download")
        argv = [sys.executable, *program, self.url, str(self.path)]
        paths = os.pathsep.join(filter(None, sys.path))
        environment = {**os.environ, "PYTHONPATH": paths}
        process = reactor.spawnProcess(command, sys.executable, argv, environment)
        self.addCleanup(lambda: process.pid and process.signalProcess("KILL"))
        command.transport = process
        return command

    async def test_one_that_was_killed_goes_on(self):
        self.file.stops = stopped = Deferred()
        command = self.spawn()
        await stopped
        part = self.folder / ".file.txbits-part"
        while not part.exists() or not part.stat().st_size:
            turn: Deferred[None] = Deferred()
            reactor.callLater(0.01, turn.callback, None)
            await turn
        command.transport.signalProcess(signal.SIGKILL)
        await command.ended
        held = part.stat().st_size
        command = self.spawn()
        self.assertEqual(await command.ended, 0, command.err)
        self.assert_arrived()
        self.assertEqual(self.file.asked("Range"), [None, f"bytes={held}-"])

    async def test_one_that_is_interrupted_is_130_and_goes_on(self):
        self.file.stops = stopped = Deferred()
        command = self.spawn()
        await stopped
        command.transport.signalProcess(signal.SIGINT)
        self.assertEqual(await command.ended, 130)
        self.assertEqual(
            command.err,
            b"txbits: interrupted; the same command goes on where it stopped\n",
        )
        command = self.spawn()
        self.assertEqual(await command.ended, 0, command.err)
        self.assert_arrived()

    async def test_the_example_downloads(self):
        self.file.cuts = [50_000]
        command = self.spawn(str(EXAMPLE))
        self.assertEqual(await command.ended, 0, command.err)
        self.assert_arrived()
        self.assertIn(b"the connection was lost; trying again in", command.out)
        self.assertTrue(command.out.endswith(b"200000 of 200000 bytes came now\n"))

    async def test_the_example_says_what_went_wrong(self):
        self.file.answers = [(404, {})]
        command = self.spawn(str(EXAMPLE))
        self.assertEqual(await command.ended, 1)
        self.assertEqual(command.err, b"the server answered 404 (give up)\n")
