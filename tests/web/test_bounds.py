"""
Work and memory that a peer could ask for, and does not get.
"""

from __future__ import annotations

import gc

from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource

from tests.web.support import (
    UNKNOWN_ID,
    StreamingCase,
    chunked_fragment,
    fragment,
    packet,
    request,
)
from txbits.access.header import HeaderAuthenticator
from txbits.access.links import LinkAuthenticator, LinkKeys
from txbits.access.permissions import Permissions
from txbits.web import BITSSite, Limits
from txbits.web._streaming import StreamingRequest
from txbits.web._streaming.head import read_head


class Taker(Resource):
    """Takes any body."""

    isLeaf = True

    def render_POST(self, request):
        return b"%d" % len(request.content.read())


class HeadWorkTests(StreamingCase):
    """Reading a head takes a time that grows with its length, not with its square."""

    def test_blanks_are_matched_in_one_way_only(self) -> None:
        # Two ways to match each of 60,000 blanks took ten seconds: the test would hang.
        for end in (b"\x00", b"\r", b""):
            data = b"BITS_POST / HTTP/1.1\r\nA:" + b" " * 60_000 + end + b"\r\n\r\n"
            for _ in range(20):
                read_head(data, 65_536, 100)


class OtherBodyTests(StreamingCase):
    """Bodies for resources that are none of ours, which twisted.web collects."""

    def setUp(self) -> None:
        super().setUp()
        self.site = self.bits_site(Taker(), Limits(max_other_body=1000))

    def test_a_short_one_is_collected(self) -> None:
        peer = self.peer()
        peer.send(request(b"POST", b"/", content_length=b"1000", body=b"x" * 1000))
        self.assertEqual(self.answer(peer).body, b"1000")

    def test_one_that_is_too_long_is_refused_on_its_head(self) -> None:
        peer = self.peer()
        peer.send(request(b"POST", b"/", content_length=b"1001"))
        answer = self.answer(peer)
        self.assertEqual((answer.status, answer["Connection"]), (413, "close"))
        self.assertTrue(peer.half_closed)
        peer.send(b"x" * 1001)
        self.assertEqual(peer.received(), b"")

    def test_chunks_are_counted(self) -> None:
        peer = self.peer()
        peer.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"200\r\n" + b"x" * 512 + b"\r\n"
        )
        self.assertEqual(peer.received(), b"")
        peer.send(b"200\r\n" + b"x" * 512 + b"\r\n")
        self.assertEqual(self.answer(peer).status, 413)

    def test_some_bytes_now_and_then_are_no_progress(self) -> None:
        peer = self.peer()
        peer.send(request(b"POST", b"/", content_length=b"1000"))
        for _ in range(20):
            self.clock.pump([5.0])
            peer.send(b"x")
        self.assertTrue(peer.closed)


class OnlyUploadsTests(StreamingCase):
    """A site of nothing but uploads answers every request on its head."""

    def setUp(self) -> None:
        super().setUp()
        self.site = BITSSite(self.resource, reactor=self.clock, only_uploads=True)
        self.site.startFactory()
        self.addCleanup(self.site.stopFactory)

    def test_no_body_is_collected(self) -> None:
        for method in (b"PUT", b"POST", b"GET"):
            peer = self.peer()
            peer.send(request(method, b"/a", content_length=b"100000000000"))
            answer = self.answer(peer)
            self.assertEqual(answer["Connection"], "close")
            self.assertIn(answer.status, (400, 405))
            self.assertEqual(answer["BITS-Error-Code"], "0x80070057")

    def test_no_form_is_parsed(self) -> None:
        peer = self.peer()
        body = b"a=b&" * 1000
        peer.send(
            b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n"
            b"Content-Type: application/x-www-form-urlencoded\r\n\r\n"
            % len(body)
            + body
        )
        self.assertEqual(self.answer(peer).status, 405)
        self.assert_success(self.exchange(peer, packet(b"Ping")), None)


class RefusedRequestTests(StreamingCase):
    """What a request was refused for keeps nothing of it alive."""

    def requests(self) -> list[StreamingRequest]:
        """All requests that there are."""
        return [one for one in gc.get_objects() if isinstance(one, StreamingRequest)]

    def left(self, data: bytes, *, is_lost: bool = False) -> list[str]:
        """What is left of a few requests, without the collector of garbage."""
        peer = self.peer()
        gc.collect()
        gc.disable()
        # Other tests may have left some.
        before = {id(one) for one in self.requests()}
        try:
            for _ in range(3):
                if is_lost:
                    peer = self.peer()
                    peer.send(data)
                    peer.lose()
                else:
                    self.exchange(peer, data)
            return [repr(one) for one in self.requests() if id(one) not in before]
        finally:
            gc.enable()

    def test_connections_that_are_lost(self) -> None:
        links = LinkAuthenticator(LinkKeys([b"k" * 32]))
        for access in ({}, {"authenticators": [links]}):
            self.serve(**access)
            for data in (
                fragment(UNKNOWN_ID, 0, b"hello", 5)[:-2],
                request(b"PUT", content_length=b"5", body=b"hel"),
                packet(b"Ping")[:-2],
            ):
                self.assertEqual(self.left(data, is_lost=True), [], (access, data))

    def test_packets_and_reading(self) -> None:
        path = b"/BITS-Sessions/Replies/%b/responsefile.bin" % UNKNOWN_ID
        get = request(b"GET", path)
        link = packet(b"Ping", target=b"/a?txbits-link=a.b")
        stranger = HeaderAuthenticator("X-Remote-User")
        links = LinkAuthenticator(LinkKeys([b"k" * 32]))
        permissions = Permissions([])
        for access, data in (
            ({}, packet(b"Cancel-Session", UNKNOWN_ID)),
            ({}, fragment(UNKNOWN_ID, 0, b"hello", 5)),
            ({}, packet(b"Create-Session", target=b"/a/")),
            ({}, get),
            ({"policy": permissions}, packet(b"Ping")),
            ({"policy": permissions}, get),
            ({"authenticators": [stranger]}, packet(b"Ping")),
            ({"authenticators": [stranger]}, fragment(UNKNOWN_ID, 0, b"hello", 5)),
            ({"authenticators": [links]}, link),
            (
                {"authenticators": [stranger], "session_credentials": "create"},
                packet(b"Close-Session", UNKNOWN_ID),
            ),
        ):
            self.serve(**access)
            self.assertEqual(self.left(data), [], (access, data))


class LogTests(StreamingCase):
    """What a peer can have written to the log."""

    def test_a_long_name_is_cut(self) -> None:
        events: list[dict] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        target = b"/" + b"%01" * 10_000
        self.ask(packet(b"Close-Session", UNKNOWN_ID, target=target))
        (event,) = [one for one in events if "refusal" in one]
        self.assertLess(len(event["destination"]) + len(event["detail"]), 3000)


class EndlessChunksTests(StreamingCase):
    """A chunked body that never ends."""

    def test_it_is_refused_at_the_first_byte_too_many(self) -> None:
        session_id = self.create()
        peer = self.peer()
        data = chunked_fragment(session_id, b"bytes 0-4/10", b"6\r\nhello!\r\n")
        peer.send(data)
        self.assertEqual(self.held(), b"hello")
        # It is drained now, and answered when it ends.
        peer.send(b"0\r\n\r\n")
        self.assert_refused(self.answer(peer), "bad-range", session_id)
