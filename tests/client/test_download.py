"""
Downloads over sockets on loopback, from a server that does what a test says.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.client.downloads import DATA, DownloadCase, ScriptedFile
from txbits.client import (
    ConnectionSettings,
    Credentials,
    DownloadFailed,
    InvalidURL,
    Progress,
    Waiting,
    download,
)
from txbits.client._fetch import moved
from txbits.client._partial import Origin, Partial

reactor: Any = _reactor


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
        await self.some_arrives()
        error = await self.failure(self.download())
        self.assertTrue(error.transient)
        first.cancel()
        await self.assertFailure(first, CancelledError)
        await self.download()
        self.assert_arrived()


class PatienceTests(DownloadCase):
    """What counts as progress."""

    async def test_bytes_that_came_before_do_not(self):
        # A firewall takes Range away, and the connection breaks at the same byte.
        self.file.knows_ranges = False
        self.file.cuts = [1000] * 1000
        error = await self.failure(self.download(retry_for=0.5))
        self.assertTrue(error.transient)
        self.assertIn("gave up after 0.5 seconds without progress", str(error))
        self.assertGreater(len(self.file.requests), 2)

    async def test_nor_do_those_of_an_earlier_run(self):
        self.place(DATA[:2000])
        self.file.knows_ranges = False
        self.file.cuts = [1000] * 1000
        self.assertTrue((await self.failure(self.download(retry_for=0.5))).transient)

    async def test_each_byte_beyond_does(self):
        self.file.knows_ranges = False
        self.file.cuts = [1000 * n for n in range(1, 5)]
        # A pause is at least as long as half of this.
        await self.download(retry_for=0.5)
        self.assert_arrived()


class StrangerTests(DownloadCase):
    """Answers that are none of the server's."""

    async def test_a_login_page_does_not_take_the_place_of_what_has_come(self):
        self.place(DATA[:1000])
        login = ScriptedFile(b"<html>log in</html>", etag="")
        portal = self.serve(login)
        self.file.answers = [(302, {"Location": portal})] * 2
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA) - 1000)
        waits = [each for each in self.events if isinstance(each, Waiting)]
        self.assertEqual(len(waits), 2)
        self.assertIn("login page", waits[0].cause)

    async def test_a_file_that_became_shorter_comes_anew(self):
        # The server does not know If-Range, and holds what is here, as far as it knows.
        self.place(DATA[:1000], length=5000)
        self.file.data = DATA[:1000]
        self.file.knows_if_range = False
        await self.download()
        self.assert_arrived(DATA[:1000])

    async def test_the_schemes_that_a_401_offers_are_named(self):
        self.file.answers = [(401, {"WWW-Authenticate": 'NTLM, Basic realm="r"'})]
        error = await self.failure(self.download())
        self.assertIn("it asks for NTLM (not supported) or Basic", str(error))


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
        part = await self.some_arrives()
        first.cancel()
        await self.assertFailure(first, CancelledError)
        self.assertEqual(self.names(), [".file.txbits-part", ".file.txbits-part.json"])
        held = part.stat().st_size
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

    async def test_what_a_crash_may_have_made_zeros_of_comes_again(self):
        partial = Partial.open(str(self.path), boot="another")
        partial.begin(Origin.of(self.url, '"1"', len(DATA)))
        partial.write(DATA[:1000])
        partial.save()
        partial.write(bytes(500))
        # As a crash leaves it.
        os.close(partial._descriptor)
        result = await self.download()
        self.assert_arrived()
        self.assertEqual(result.received, len(DATA) - 1000)
        self.assertEqual(self.file.asked("Range"), ["bytes=1000-"])

    async def test_what_has_come_is_made_safe_while_the_connection_is_lost(self):
        self.file.cuts = [50_000]
        ran = []

        def in_thread(function, *args, **kwargs):
            ran.append(function.__name__)
            return maybeDeferred(function, *args, **kwargs)

        await self.download(in_thread=in_thread)
        self.assert_arrived()
        self.assertEqual(ran, ["open_partial", "begin", "save", "finish", "close"])

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
        ended = self.assertFailure(downloading, CancelledError)
        while self.waiting:
            self.waiting.pop().callback(None)
        return ended

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

    async def test_so_is_the_rest_of_one(self):
        self.place(DATA[:3000])
        self.file.headers = {"Content-Encoding": "gzip"}
        error = await self.failure(self.download())
        self.assertIn("gzip only", str(error))
        self.assertEqual(self.file.asked("Range"), ["bytes=3000-", None])
        self.assertEqual(self.names(), [])

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
        self.assertIn("redirected 10 times", str(error))

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
