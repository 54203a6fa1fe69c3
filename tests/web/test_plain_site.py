"""
The two ways of mixing: our resource in a site of Twisted's own kind, where bodies are
buffered before it sees them; and other people's resources in our site, where they are
treated as in any other.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site
from twisted.web.static import Data

from tests.web.support import (
    DESTINATION,
    UNKNOWN_ID,
    Policy,
    WebCase,
    chunked,
    chunked_fragment,
    fragment,
    packet,
    request,
    responses,
)
from txbits.errors import BackendError
from txbits.web import BITSSite
from txbits.web._streaming import READ_SIZE


class PlainSiteTests(WebCase):
    """``BITSResource`` in a ``twisted.web.server.Site``."""

    def setUp(self) -> None:
        super().setUp()
        self.plain()

    def plain(self, policy: Policy | None = None) -> None:
        """Serve from a plain site."""
        self.serve(policy=policy)
        self.site = Site(self.resource, reactor=self.clock)
        self.site.startFactory()
        self.addCleanup(self.site.stopFactory)

    def test_whole_upload(self) -> None:
        peer = self.peer()
        ack = self.exchange(peer, packet(b"Create-Session"))
        session_id = (ack["BITS-Session-Id"] or "").encode()
        self.assert_success(ack, session_id)
        for data, wanted in (
            (fragment(session_id, 0, b"hello", 11), "5"),
            (
                chunked_fragment(session_id, b"bytes 3-8/11", chunked(b"lo w", b"or")),
                "9",
            ),
            (fragment(session_id, 9, b"ld", 11, method=b"POST"), "11"),
        ):
            ack = self.exchange(peer, data)
            self.assert_success(ack, session_id)
            self.assertEqual(ack["BITS-Received-Content-Range"], wanted)
        ack = self.exchange(peer, packet(b"Close-Session", session_id))
        self.assert_success(ack, session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello world"})

    def test_a_host_is_needed_there_too(self) -> None:
        """Twisted's own site does not ask for one."""
        session_id = self.create()
        for host in (None, [b"a", b"a"], b"a b"):
            data = packet(b"Close-Session", session_id, host=host)
            self.assert_refused(self.ask(data), "malformed-header", session_id)
            self.assertEqual(self.ask(request(b"GET", b"/a", host=host)).status, 400)
        data = packet(b"Ping", host=None).replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assertEqual(self.ask(data).status, 200)

    def test_long_body_is_handed_over_piece_by_piece(self) -> None:
        session_id = self.create()
        length = 3 * READ_SIZE + 17
        data = bytes(range(251)) * (length // 251 + 1)
        ack = self.ask(fragment(session_id, 0, data[:length], length))
        self.assert_success(ack, session_id)
        (session,) = self.memory._sessions.values()
        self.assertEqual(max(map(len, session._pieces)), READ_SIZE)
        self.assertEqual(b"".join(session._pieces), data[:length])

    def test_write_that_takes_its_time(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        length = 2 * READ_SIZE
        peer.send(fragment(session_id, 0, b"x" * length, length))
        self.assertEqual(gate.waiting, 1)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)

    def test_write_that_fails(self) -> None:
        session_id = self.create()
        self.backend.hold("write").fail(BackendError("the store is away"))
        ack = self.ask(fragment(session_id, 0, b"hello", 5))
        self.assert_refused(ack, "storage-fault", session_id)
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_connection_lost_while_a_write_takes_its_time(self) -> None:
        """All of the body is here, and its owner is gone: keep what can be kept."""
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        length = 2 * READ_SIZE
        peer.send(fragment(session_id, 0, b"x" * length, length))
        peer.lose()
        gate.open()
        self.assertEqual(peer.received(), b"")
        (session,) = self.memory._sessions.values()
        self.assertGreaterEqual(session.offset, READ_SIZE)
        ack = self.ask(
            fragment(session_id, 0, b"x" * length, length),
        )
        self.assert_success(ack, session_id)

    def test_newest_wins_here_too(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        older, newer = self.peer(), self.peer()
        older.send(fragment(session_id, 0, b"hello", 10))
        newer.send(fragment(session_id, 5, b"world", 10))
        # The older one is whole, and only waited for.
        gate.open()
        newer_ack = responses(newer.received())
        self.assertEqual([one.status for one in newer_ack], [416])
        self.assertFalse(older.aborted)

    def test_connection_lost_while_the_policy_takes_its_time(self) -> None:
        session_id = self.create()
        policy = Policy()
        policy.answer = Deferred()
        self.plain(policy)
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 5))
        peer.lose()
        policy.answer.callback(None)
        self.assertEqual(peer.received(), b"")

    def test_refusals_are_the_same(self) -> None:
        peer = self.peer()
        for data, name in (
            (fragment(UNKNOWN_ID, 0, b"hello", 5), "session-not-found"),
            (packet(b"Nonsense", UNKNOWN_ID, body=b"hello"), "unknown-packet-type"),
            (packet(b"Ping", UNKNOWN_ID, body=b"hello"), "unexpected-body"),
            (
                packet(b"Fragment", UNKNOWN_ID, content_length=None),
                "length-required",
            ),
        ):
            self.assert_refused(self.exchange(peer, data), name, UNKNOWN_ID)

    def test_cancel_waits_for_release(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("release")
        peer = self.peer()
        peer.send(packet(b"Cancel-Session", session_id))
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)


class _Echo(Resource):
    """Answers with what it was given."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"%r" % sorted(request.args.items())

    def render_POST(self, request: Any) -> bytes:
        return b"%r %r" % (sorted(request.args.items()), request.content.read())

    def render_PUT(self, request: Any) -> int:
        content = request.content.read()
        request.setHeader(b"Content-Length", b"%d" % len(content))
        request.setHeader(b"X-Length", b"%d" % len(content))
        request.write(content)
        request.finish()
        return NOT_DONE_YET


class OtherResourcesTests(WebCase):
    """What stands beside ours in a ``BITSSite`` is treated as in a plain ``Site``."""

    def setUp(self) -> None:
        super().setUp()
        root = Resource()
        root.putChild(b"echo", _Echo())
        root.putChild(b"data", Data(b"hello world", "text/plain"))
        root.putChild(b"upload", self.resource)
        self.site = self.bits_site(root)
        self.plain = Site(root, reactor=self.clock)
        self.plain.startFactory()
        self.addCleanup(self.plain.stopFactory)

    def both(self, data: bytes, size: int | None = None) -> bytes:
        """Send to both sites, in pieces; return the answer, which is the same."""
        answers = []
        for site in (self.plain, self.site):
            self.site, kept = site, self.site
            peer = self.peer()
            self.site = kept
            for start in range(0, len(data), size or len(data)):
                peer.send(data[start : start + (size or len(data))])
            lines = peer.received().split(b"\r\n")
            answers.append(
                (
                    [
                        line
                        for line in lines
                        if not line.startswith((b"Date:", b"Server:"))
                    ],
                    peer.closed,
                )
            )
        self.assertEqual(answers[0], answers[1])
        return b"\r\n".join(answers[0][0])

    def test_get_and_head(self) -> None:
        for size in (None, 1, 7):
            self.assertIn(b"hello world", self.both(request(b"GET", b"/data"), size))
            self.assertIn(b" 200 OK", self.both(request(b"HEAD", b"/data"), size))
            self.assertIn(
                b"(b'a', [b'1', b'2'])",
                self.both(request(b"GET", b"/echo?a=1&a=2"), size),
            )

    def test_range_of_a_file(self) -> None:
        data = request(b"GET", b"/data", range=b"bytes=0-4")
        self.assertIn(b"hello", self.both(data))

    def test_forms(self) -> None:
        multipart = (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n'
        )
        for kind, body in (
            (b"application/x-www-form-urlencoded", b"a=1&b=2"),
            (b"multipart/form-data; boundary=x", multipart),
            (b"text/plain", b"a=1"),
        ):
            for size in (None, 1):
                data = request(
                    b"POST",
                    b"/echo",
                    content_type=kind,
                    content_length=b"%d" % len(body),
                    body=body,
                )
                self.assertIn(b" 200 OK", self.both(data, size))
                if kind != b"text/plain":
                    self.assertIn(b"(b'a', [b'1'])", self.both(data, size))

    def test_content_is_buffered(self) -> None:
        for body in (b"x" * 10, b"x" * 200_000):
            data = request(
                b"PUT", b"/echo", content_length=b"%d" % len(body), body=body
            )
            for size in (None, 70_000):
                self.assertIn(b"X-Length: %d" % len(body), self.both(data, size))

    def test_chunked_content(self) -> None:
        data = request(
            b"PUT", b"/echo", transfer_encoding=b"chunked", body=chunked(b"a", b"bc")
        )
        for size in (None, 1):
            self.assertIn(b"X-Length: 3", self.both(data, size))

    def test_expect_is_answered_at_once(self) -> None:
        data = request(
            b"PUT",
            b"/echo",
            content_length=b"2",
            expect=b"100-continue",
            body=b"hi",
        )
        self.assertTrue(self.both(data).startswith(b"HTTP/1.1 100 Continue"))

    def test_pipelined_requests_to_both_kinds(self) -> None:
        peer = self.peer()
        peer.send(
            request(b"GET", b"/data")
            + packet(b"Ping", target=b"/upload/a")
            + request(b"PUT", b"/echo", content_length=b"2", body=b"hi")
            + fragment(UNKNOWN_ID, 0, b"hello", 5, target=b"/upload/a")
            + request(b"GET", b"/data")
        )
        found = responses(peer.received())
        self.assertEqual([one.status for one in found], [200, 200, 200, 500, 200])
        self.assertEqual(found[2].body, b"hi")
        self.assertEqual(found[4].body, b"hello world")

    def test_http_1_0(self) -> None:
        data = request(b"GET", b"/data", version=b"HTTP/1.0")
        self.assertIn(b"hello world", self.both(data))

    def test_options_of_the_server(self) -> None:
        self.both(request(b"OPTIONS", b"*"))

    def test_missing_resource(self) -> None:
        self.assertIn(b" 404 ", self.both(request(b"GET", b"/none")))

    def test_upload_to_another_resource_is_refused_by_it(self) -> None:
        peer = self.peer()
        for target, status in ((b"/echo", 501), (b"/none", 404)):
            data = fragment(UNKNOWN_ID, 0, b"hello", 5, target=target)
            self.assertEqual(self.exchange(peer, data).status, status)


class SiteTests(WebCase):
    """``BITSSite`` as a site."""

    def test_it_writes_no_access_log_unless_asked_to(self) -> None:
        path = self.mktemp()
        site = BITSSite(self.resource, logPath=path, reactor=self.clock)
        site.startFactory()
        self.addCleanup(site.stopFactory)
        for one in (self.site, site):
            self.site = one
            self.ask(packet(b"Ping"))
            self.ask(fragment(UNKNOWN_ID, 0, b"hello", 5))
        with open(path, "rb") as log:
            lines = log.read().splitlines()
        self.assertEqual(len(lines), 2)
        self.assertIn(b'"BITS_POST /a/b.txt HTTP/1.1" 200 ', lines[0])
        self.assertIn(b'"BITS_POST /a/b.txt HTTP/1.1" 500 ', lines[1])

    def test_it_negotiates_no_http_2(self) -> None:
        site = BITSSite(self.resource, reactor=self.clock)
        self.assertEqual(site.acceptableProtocols(), [b"http/1.1"])

    def test_local_address_is_remembered(self) -> None:
        first, second = self.peer(), self.peer()
        self.assertIs(first._channel.getHost(), second._channel.getHost())
        self.assertIs(first._channel.getHost(), first._channel.getHost())
