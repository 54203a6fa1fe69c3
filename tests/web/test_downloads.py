"""
Downloads in a streaming site: GET and HEAD, ranges, conditions, and who may have what.

``answers`` reads responses without bodies, too: those to HEAD, and 304.
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import globalLogPublisher
from twisted.web.server import Site
from zope.interface import implementer

from tests.web.support import (
    PATH,
    Policy,
    Response,
    WebCase,
    packet,
    request,
    responses,
)
from txbits._deferreds import deferred
from txbits.backends._serving import StoredFile, by_pieces
from txbits.backends.memory import MemoryBackend
from txbits.errors import AccessDenied, BackendError, InvalidSetting
from txbits.interfaces import IBackend, IDownloadable, IRedirecting, IStoredFile
from txbits.protocol.conditions import format_date
from txbits.sessions import Settings
from txbits.testing.memory import Peer
from txbits.web import BITSResource

CONTENT = bytes(range(256)) * 40
ALLOWED = Settings(allow_downloads=True)


def get(target: bytes = PATH, method: bytes = b"GET", **headers: Any) -> bytes:
    """Write a request for a file."""
    return request(method, target, **headers)


def without_body(data: bytes) -> Response:
    """Read the one response in *data*, which may have no body."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    assert separator and not rest, data
    (found,) = responses(
        re.sub(rb"(?i)\r\ncontent-length: \d+", b"", head) + b"\r\n\r\n"
    )
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    if length is not None:
        found.headers["content-length"] = [length[1].decode()]
    return found


class DownloadCase(WebCase):
    """A directory whose files can be read, with one in it."""

    settings = ALLOWED

    def setUp(self) -> None:
        super().setUp()
        self.memory.files["a", "b.txt"] = CONTENT
        self.clock.advance(3600)

    def head(self, data: bytes) -> Response:
        """Ask on a new connection for what has no body."""
        peer = self.peer()
        peer.send(data)
        return without_body(peer.received())

    def etag(self) -> bytes:
        """The entity tag of the file, with its quotes."""
        tag = self.ask(get())["ETag"]
        assert tag is not None
        return tag.encode("ascii")

    def assert_plain(self, answer: Response, status: int) -> None:
        """It is an answer without a body, and none of BITS."""
        self.assertEqual(answer.status, status, answer)
        self.assertEqual((answer["Content-Length"], answer.body), ("0", b""))
        for name in answer.headers:
            self.assertFalse(name.startswith("bits-"), name)
        self.assertIsNone(answer["Content-Type"])


class WholeTests(DownloadCase):
    """Files as they are."""

    def test_get(self) -> None:
        answer = self.ask(get())
        self.assertEqual((answer.status, answer.body), (200, CONTENT))
        self.assertEqual(answer["Content-Length"], str(len(CONTENT)))
        self.assertEqual(answer["Content-Type"], "application/octet-stream")
        self.assertEqual(answer["X-Content-Type-Options"], "nosniff")
        self.assertEqual(answer["Accept-Ranges"], "bytes")
        self.assertEqual(answer["Server"], "txbits")
        self.assertEqual(answer["Last-Modified"], "Mon, 12 Jan 1970 13:46:40 GMT")
        self.assertEqual(answer["Date"], "Mon, 12 Jan 1970 14:46:40 GMT")
        self.assertRegex(answer["ETag"] or "", '^"[!-~]+"$')

    def test_caches_keep_for_one_user_what_is_not_for_everybody(self) -> None:
        self.assertIsNone(self.ask(get())["Cache-Control"])
        self.site = self.bits_site(self.resource.for_user("alice"))
        self.assertEqual(self.ask(get())["Cache-Control"], "private")
        self.serve(policy=Policy())
        for data in (get(), get(range=b"bytes=0-1"), get(b"/none")):
            self.assertEqual(self.ask(data)["Cache-Control"], "private")
        not_modified = self.head(get(if_none_match=b"*"))
        self.assertEqual(not_modified["Cache-Control"], "private")

    def test_head_has_the_same_head(self) -> None:
        whole = self.ask(get())
        answer = self.head(get(method=b"HEAD"))
        self.assertEqual((answer.status, answer.headers), (200, whole.headers))

    def test_head_reads_nothing(self) -> None:
        backend = UnreadableBackend(self.clock)
        self.site = self.bits_site(self.directory(backend))
        self.assertEqual(self.head(get(method=b"HEAD")).status, 200)
        self.assertEqual(backend.opened, backend.released)
        self.assertEqual(backend.read, 0)

    def test_a_coding_that_it_is_stored_with_goes_along(self) -> None:
        self.site = self.bits_site(self.directory(CodedBackend(self.clock)))
        for data, status, body in (
            (get(), 200, b"packed"),
            (get(range=b"bytes=2-3"), 206, b"ck"),
            # In the head of several parts it would tell of them together.
            (get(range=b"bytes=0-0,2-3"), 200, b"packed"),
        ):
            answer = self.ask(data)
            self.assertEqual((answer.status, answer.body), (status, body))
            self.assertEqual(answer["Content-Encoding"], "gzip")
            self.assertEqual(answer["Content-Length"], str(len(body)))
        self.assertEqual(self.head(get(method=b"HEAD"))["Content-Encoding"], "gzip")
        for data in (get(range=b"bytes=9-"), get(if_match=b'"y"')):
            self.assertIsNone(self.ask(data)["Content-Encoding"])

    def test_there_is_none_otherwise(self) -> None:
        self.assertIsNone(self.ask(get())["Content-Encoding"])

    def test_an_empty_file(self) -> None:
        self.memory.files["a", "b.txt"] = b""
        for data in (get(), get(range=b"bytes=-5")):
            answer = self.ask(data)
            self.assertEqual((answer.status, answer["Content-Length"]), (200, "0"))
        answer = self.ask(get(range=b"bytes=0-"))
        self.assert_plain(answer, 416)
        self.assertEqual(answer["Content-Range"], "bytes */0")

    def test_a_file_that_was_just_uploaded(self) -> None:
        session_id = self.create(b"/new.bin")
        self.assertEqual(self.ask(get(b"/new.bin")).status, 404)
        self.ask(packet(b"Close-Session", session_id, target=b"/new.bin"))
        answer = self.ask(get(b"/new.bin"))
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_many_on_one_connection_and_packets_between(self) -> None:
        peer = self.peer()
        peer.send(get() + packet(b"Ping") + get(range=b"bytes=0-1") + packet(b"Ping"))
        self.assertEqual(
            [one.status for one in responses(peer.received())], [200, 200, 206, 200]
        )
        self.assertFalse(peer.closed)

    def test_http_1_0(self) -> None:
        peer = self.peer()
        peer.send(request(b"GET", PATH, version=b"HTTP/1.0"))
        self.assertEqual(self.answer(peer).body, CONTENT)
        self.assertTrue(peer.closed)

    def test_absolute_urls_and_queries(self) -> None:
        for target in (b"http://h" + PATH, PATH + b"?token=1", b"/%61/b%2Etxt"):
            self.assertEqual(self.ask(get(target)).body, CONTENT)

    def test_in_a_site_that_treats_all_requests_as_ours(self) -> None:
        self.site.only_uploads = True
        self.assertEqual(self.ask(get()).body, CONTENT)
        self.assertEqual(self.head(get(method=b"HEAD"))["Content-Length"], "10240")
        peer = self.peer()
        peer.send(get(content_length=b"3", body=b"abc") + get())
        found = responses(peer.received())
        self.assertEqual([one.body for one in found], [CONTENT, CONTENT])

    def test_in_a_plain_site(self) -> None:
        self.site = Site(self.resource, reactor=self.clock)
        self.site.startFactory()
        self.addCleanup(self.site.stopFactory)
        self.assertEqual(self.ask(get()).body, CONTENT)
        self.assertEqual(self.ask(get(range=b"bytes=1-3")).body, CONTENT[1:4])
        self.assertEqual(self.head(get(method=b"HEAD"))["Content-Length"], "10240")
        self.assert_plain(self.ask(get(b"/nothing")), 404)


class RangeTests(DownloadCase):
    """Parts of files."""

    def test_one_range(self) -> None:
        answer = self.ask(get(range=b"bytes=10-19"))
        self.assertEqual((answer.status, answer.body), (206, CONTENT[10:20]))
        self.assertEqual(answer["Content-Range"], "bytes 10-19/10240")
        self.assertEqual(answer["Content-Type"], "application/octet-stream")

    def test_one_of_several_lies_within_the_file(self) -> None:
        answer = self.ask(get(range=b"bytes=10-19,20000-"))
        self.assertEqual(answer["Content-Range"], "bytes 10-19/10240")

    def test_several_ranges_in_the_order_of_the_request(self) -> None:
        answer = self.ask(get(range=b"bytes=100-199,0-9,50-149,-1"))
        self.assertEqual(answer.status, 206)
        self.assertIsNone(answer["Content-Range"])
        match = re.fullmatch(
            "multipart/byteranges; boundary=([0-9a-f]{40})",
            answer["Content-Type"] or "",
        )
        assert match is not None
        boundary = b"--" + match[1].encode()
        self.assertTrue(answer.body.startswith(boundary + b"\r\n"))
        _, *parts, end = (b"\r\n" + answer.body).split(b"\r\n" + boundary)
        self.assertEqual(end, b"--\r\n")
        expected = ((100, 199), (0, 9), (50, 149), (10239, 10239))
        for part, (first, last) in zip(parts, expected, strict=True):
            head, _, body = part.partition(b"\r\n\r\n")
            self.assertEqual(
                head,
                b"\r\nContent-Type: application/octet-stream"
                b"\r\nContent-Range: bytes %d-%d/10240" % (first, last),
            )
            self.assertEqual(body, CONTENT[first : last + 1])

    def test_boundaries_are_not_known_before(self) -> None:
        data = get(range=b"bytes=0-1,3-4")
        self.assertNotEqual(
            self.ask(data)["Content-Type"], self.ask(data)["Content-Type"]
        )

    def test_none_within_the_file(self) -> None:
        answer = self.ask(get(range=b"bytes=10240-"))
        self.assert_plain(answer, 416)
        self.assertEqual(answer["Content-Range"], "bytes */10240")

    def test_what_is_no_range_gets_the_whole_file(self) -> None:
        for value in (b"bytes=5-2", b"lines=1-2", b"bytes=0-,0-", b"x"):
            answer = self.ask(get(range=value))
            self.assertEqual((answer.status, answer.body), (200, CONTENT), value)

    def test_head_is_answered_as_get_would_be(self) -> None:
        for value in (b"bytes=10-19", b"bytes=20000-", b"bytes=5-2"):
            whole = self.ask(get(range=value))
            answer = self.head(get(method=b"HEAD", range=value))
            self.assertEqual(
                (answer.status, answer.headers), (whole.status, whole.headers)
            )
        one, other = b"bytes=0-9,20-29", b"bytes=20-29,0-9"
        self.assertEqual(
            self.head(get(method=b"HEAD", range=one))["Content-Length"],
            str(len(self.ask(get(range=other)).body)),
        )


@define(eq=False)
class _Unsure(MemoryBackend):
    """A backend that cannot be sure yet that a change of its files would show."""

    @deferred
    async def open_file(self, destination: tuple[str, ...]) -> IStoredFile:
        file: Any = await MemoryBackend.open_file(self, destination)
        file.is_weak = True
        return file  # type: ignore[no-any-return]


class ConditionTests(DownloadCase):
    """Only if it is, or is not, what the client knows."""

    def test_not_modified(self) -> None:
        for headers in (
            {"if_none_match": self.etag()},
            {"if_modified_since": format_date(int(self.clock.seconds()))},
        ):
            for method in (b"GET", b"HEAD"):
                answer = self.head(get(method=method, **headers))
                self.assertEqual(answer.status, 304)
                self.assertEqual(answer["ETag"], self.etag().decode())
                self.assertIsNone(answer["Content-Length"])
                self.assertIsNone(answer["Content-Type"])

    def test_another_content(self) -> None:
        for headers in (
            {"if_match": b'"other"'},
            {"if_unmodified_since": b"Thu, 01 Jan 1970 00:00:00 GMT"},
        ):
            self.assert_plain(self.ask(get(**headers)), 412)

    def test_ranges_of_a_file_that_was_not_changed_as_windows_asks(self) -> None:
        modified = self.ask(get())["Last-Modified"]
        assert modified is not None
        data = get(range=b"bytes=0-1,5-6", if_unmodified_since=modified.encode("ascii"))
        self.assertEqual(self.ask(data).status, 206)
        self.memory.files["a", "b.txt"] = CONTENT
        self.assert_plain(self.ask(data), 412)

    def test_if_range(self) -> None:
        tag = self.etag()
        data = get(range=b"bytes=0-1", if_range=tag)
        self.assertEqual(self.ask(data).status, 206)
        self.memory.files["a", "b.txt"] = CONTENT[::-1]
        answer = self.ask(data)
        self.assertEqual((answer.status, answer.body), (200, CONTENT[::-1]))
        self.assertNotEqual(answer["ETag"], tag.decode())

    def test_nothing_is_modified_before_there_were_dates(self) -> None:
        self.memory.files._changes["a", "b.txt"] = (-1e15, "x")
        answer = self.ask(get())
        self.assertEqual(answer["Last-Modified"], "Thu, 01 Jan 1970 00:00:00 GMT")

    def test_a_tag_that_is_none_is_a_fault_and_the_file_is_closed(self) -> None:
        self.memory.files._changes["a", "b.txt"] = (0.0, "\xfc")
        self.assert_plain(self.ask(get()), 500)
        self.assertEqual(len(self.flushLoggedErrors(UnicodeEncodeError)), 1)

    def test_a_time_in_the_future_stays_what_it_is(self) -> None:
        """For BITS, which asks for the next range if it is still the same."""
        self.memory.files._changes["a", "b.txt"] = (2e9, "x")
        first = self.ask(get(range=b"bytes=0-1"))
        self.assertEqual(first["Last-Modified"], "Wed, 18 May 2033 03:33:20 GMT")
        self.clock.advance(5)
        modified = (first["Last-Modified"] or "").encode()
        data = get(range=b"bytes=2-3", if_unmodified_since=modified)
        second = self.ask(data)
        self.assertEqual(second.status, 206)
        for name in ("Last-Modified", "ETag"):
            self.assertEqual(second[name], first[name])
        self.assertEqual(self.ask(get(if_modified_since=modified)).status, 304)
        # It does not stand for one content alone.
        self.assertEqual(
            self.ask(get(range=b"bytes=2-3", if_range=modified)).status, 200
        )

    def test_nothing_is_modified_after_the_last_date(self) -> None:
        self.memory.files._changes["a", "b.txt"] = (1e15, "x")
        answer = self.ask(get())
        self.assertEqual(answer["Last-Modified"], "Fri, 31 Dec 9999 23:59:59 GMT")

    def test_a_weak_tag_is_told_to_be_one(self) -> None:
        unsure = _Unsure(self.clock)
        unsure.files["a", "b.txt"] = CONTENT
        self.site = self.bits_site(self.directory(unsure))
        answer = self.ask(get(range=b"bytes=0-1"))
        tag = answer["ETag"] or ""
        self.assertEqual((answer.status, tag[:3]), (206, 'W/"'))
        for headers, status in (
            ({"if_none_match": tag}, 304),
            ({"if_match": tag}, 412),
            ({"if_match": tag[2:]}, 412),
            ({"range": "bytes=0-1", "if_range": tag}, 200),
            ({"range": "bytes=0-1", "if_range": tag[2:]}, 200),
        ):
            asked = {name: value.encode() for name, value in headers.items()}
            self.assertEqual(self.ask(get(**asked)).status, status, headers)

    def test_a_file_without_a_tag_has_no_such_header(self) -> None:
        self.memory.files._changes["a", "b.txt"] = (0.0, None)
        for headers, status in (
            ({}, 200),
            ({"if_none_match": b'"None"'}, 200),
            ({"if_none_match": b"*"}, 304),
            ({"if_match": b'"None"'}, 412),
            ({"range": b"bytes=0-1", "if_range": b'"None"'}, 200),
            ({"range": b"bytes=0-1"}, 206),
        ):
            answer = self.ask(get(**headers))
            self.assertEqual(answer.status, status, headers)
            self.assertIsNone(answer["ETag"])
            self.assertIsNotNone(answer["Last-Modified"])


class RefusalTests(DownloadCase):
    """What is not to be had."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[Any] = []
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)

    def test_what_is_not_there(self) -> None:
        for target in (
            b"/",
            b"/a",
            b"/a/",
            b"/nothing",
            b"/a/b.txt/below",
            b"/a/../a/b.txt",
            b"/a%2Fb.txt",
            b"/%00",
            b"/%ff",
            b"/.bits-sessions/lock",
            b"/.BITS-sessions/lock",
            b"/BITS-Sessions/Replies",
            b"/a/bits-sessions/x",
        ):
            self.assert_plain(self.ask(get(target)), 404)
            answer = self.head(get(target, method=b"HEAD"))
            self.assertEqual((answer.status, answer["Content-Length"]), (404, "0"))

    def test_why_is_in_the_log(self) -> None:
        self.ask(get(b"/no%0Athing"))
        (event,) = [one for one in self.events if one.get("method") == "GET"]
        self.assertEqual(event["status"], 404)
        self.assertEqual(event["file"], r"no\nthing")
        self.assertEqual(event["client"], "192.0.2.1")

    def test_other_methods(self) -> None:
        for method in (b"PUT", b"DELETE", b"OPTIONS"):
            ack = self.ask(get(method=method))
            self.assert_refused(ack, "method-not-allowed")
            self.assertEqual(ack["Allow"], "BITS_POST, GET, HEAD")

    def test_without_the_setting_there_are_no_downloads(self) -> None:
        self.serve(Settings())
        for method in (b"GET", b"PUT"):
            ack = self.ask(get(method=method))
            self.assert_refused(ack, "method-not-allowed")
            self.assertEqual(ack["Allow"], "BITS_POST")

    def test_a_directory_that_is_disabled(self) -> None:
        self.serve(Settings(allow_downloads=True, enabled=False))
        self.assert_plain(self.ask(get()), 501)

    def test_a_server_that_stops(self) -> None:
        self.successResultOf(self.resource.manager.stop())
        answer = self.ask(get())
        self.assert_plain(answer, 503)
        self.assertEqual(answer["Retry-After"], "30")

    def test_the_policy_is_asked(self) -> None:
        policy = Policy()
        self.serve(policy=policy)
        self.ask(get())
        self.head(get(method=b"HEAD"))
        self.assertEqual(
            policy.asked,
            [(None, ("a", "b.txt"), "GET"), (None, ("a", "b.txt"), "HEAD")],
        )
        policy.answer = AccessDenied("not you")
        self.assert_plain(self.ask(get()), 403)

    def test_a_store_that_fails(self) -> None:
        gate = self.backend.hold("open_file")
        peer = self.peer()
        peer.send(get())
        self.assertEqual(peer.received(), b"")
        gate.fail(BackendError("a secret path"))
        answer = self.answer(peer)
        self.assert_plain(answer, 500)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertFalse(peer.closed)

    def test_a_client_that_goes_while_it_is_opened(self) -> None:
        gate = self.backend.hold("open_file")
        for method in (b"GET", b"HEAD"):
            peer = self.peer()
            peer.send(get(method=method))
            peer.lose()
            gate.open()
            self.assertEqual(peer.received(), b"")
            gate.shut()

    def test_a_backend_without_files_is_refused_at_once(self) -> None:
        with self.assertRaisesRegex(InvalidSetting, "downloads"):
            BITSResource(NoFiles(), ALLOWED, reactor=self.clock)


@implementer(IBackend)
class NoFiles:
    """A backend whose files cannot be read."""


@implementer(IDownloadable)
class UnreadableBackend(MemoryBackend):
    """A memory backend whose files cannot be read to their ends."""

    opened = released = read = 0

    def open_file(self, destination: tuple[str, ...]) -> Deferred[IStoredFile]:
        self.opened += 1
        return succeed(StoredFile(100, 0.0, "x", by_pieces(self._read), self._released))

    def _read(self, offset: int, length: int) -> Deferred[bytes]:
        self.read += 1
        return fail(BackendError("a bad block")) if offset else succeed(b"some")

    def _released(self) -> None:
        self.released += 1


@implementer(IDownloadable)
class CodedBackend(MemoryBackend):
    """A memory backend whose files are stored in a coded form."""

    def open_file(self, destination: tuple[str, ...]) -> Deferred[IStoredFile]:
        def read(offset: int, length: int) -> Deferred[bytes]:
            return succeed(b"packed"[offset : offset + length])

        return succeed(
            StoredFile(6, 0.0, "x", by_pieces(read), content_encoding="gzip")
        )


@implementer(IRedirecting)
class RedirectingBackend(MemoryBackend):
    """A memory backend that clients are sent elsewhere from."""

    def location(
        self, destination: tuple[str, ...], method: str
    ) -> Deferred[str | None]:
        if destination == ("here",):
            return succeed(None)
        if destination == ("wrong",):
            return succeed("https://store.example/\xfc")
        return succeed(f"https://store.example/{'/'.join(destination)}?{method}")


class RedirectTests(DownloadCase):
    """Files that are to be had from the store."""

    def setUp(self) -> None:
        super().setUp()
        backend = RedirectingBackend(self.clock)
        backend.files["here",] = b"it is"
        self.site = self.bits_site(self.directory(backend))

    def test_clients_are_sent_there(self) -> None:
        answer = self.ask(get())
        self.assert_plain(answer, 307)
        self.assertEqual(answer["Location"], "https://store.example/a/b.txt?GET")
        self.assertEqual(answer["Cache-Control"], "no-store")
        answer = self.head(get(method=b"HEAD"))
        self.assertEqual(answer["Location"], "https://store.example/a/b.txt?HEAD")

    def test_a_url_that_is_none_is_a_fault(self) -> None:
        self.assert_plain(self.ask(get(b"/wrong")), 500)
        self.assertEqual(len(self.flushLoggedErrors(UnicodeEncodeError)), 1)

    def test_what_is_not_there_is_served(self) -> None:
        self.assertEqual(self.ask(get(b"/here")).body, b"it is")


class BrokenTests(DownloadCase):
    """What has begun, and cannot be ended."""

    def test_the_connection_is_dropped(self) -> None:
        backend = UnreadableBackend(self.clock)
        self.site = self.bits_site(self.directory(backend))
        peer = self.peer()
        peer.send(get() + packet(b"Ping"))
        head, _, body = peer.received().partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 100", head)
        self.assertEqual(body, b"some")
        self.assertTrue(peer.aborted)
        self.assertEqual(backend.released, 1)
        self.assertEqual(self.flushLoggedErrors(), [])


class SlowTests(DownloadCase):
    """Clients that take their time."""

    def setUp(self) -> None:
        super().setUp()
        self.long = bytes(range(251)) * 8000
        self.memory.files["long",] = self.long
        self.opened: list[Any] = []

    def stalled(self, **headers: Any) -> Peer:
        """A client that has taken nothing yet of what it has asked for."""
        peer = self.peer()
        self.channel(peer).pauseProducing()
        peer.send(get(b"/long", **headers))
        return peer

    def channel(self, peer: Peer) -> Any:
        """The site's end."""
        return peer._channel

    def test_nothing_is_sent_to_one_who_takes_nothing(self) -> None:
        peer = self.stalled()
        self.assertEqual(peer.received(), b"")
        self.channel(peer).resumeProducing()
        self.assertEqual(self.answer(peer).body, self.long)

    def test_it_is_sent_piece_by_piece(self) -> None:
        peer = self.stalled(range=b"bytes=0-999999,1000000-1999999")
        data = b""
        rounds = 0
        while not data.endswith(b"--\r\n"):
            pauses = _Pausing(self.channel(peer))
            self.channel(peer).transport.write = pauses
            self.channel(peer).resumeProducing()
            piece = peer.received()
            self.assertLess(len(piece), 300_000)
            data += piece
            rounds += 1
        self.assertGreater(rounds, 8)
        (answer,) = responses(data)
        self.assertEqual(answer.status, 206)

    def test_one_who_takes_nothing_for_too_long_is_dropped(self) -> None:
        peer = self.stalled()
        self.clock.pump([5.0] * 11)
        self.assertFalse(peer.closed)
        self.clock.pump([5.0] * 3)
        self.assertTrue(peer.aborted)

    def test_answers_that_are_not_taken_are_no_reason_to_give_more(self) -> None:
        peer = self.stalled()
        for _ in range(5):
            peer.send(get())
        self.assertEqual(peer.received(), b"")
        self.channel(peer).resumeProducing()
        self.assertEqual(len(responses(peer.received())), 6)

    def test_one_who_goes_away_ends_the_reading(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for before in (b"", b"bytes=0-1,5-6"):
            peer = self.stalled(**({"range": before} if before else {}))
            peer.lose()
            self.assertEqual(peer.received(), b"")
        gone = [one for one in events if "went away" in one.get("log_format", "")]
        self.assertEqual([one["file"] for one in gone], ["long", "long"])
        self.assertEqual(self.flushLoggedErrors(), [])


class _Pausing:
    """A transport's ``write`` that has enough after each piece."""

    def __init__(self, channel: Any) -> None:
        self.channel = channel
        self.wrapped = type(channel.transport).write

    def __call__(self, data: bytes) -> None:
        self.wrapped(self.channel.transport, data)
        self.channel.pauseProducing()
