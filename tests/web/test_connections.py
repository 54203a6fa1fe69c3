"""
What requests say of their connections, and how connections end: Connection, HTTP/1.0,
Host, what is no HTTP, peers that end their side, and targets in UTF-8.
"""

from __future__ import annotations

import gc

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET
from zope.interface.verify import verifyObject

from tests.web.support import (
    DESTINATION,
    PATH,
    UNKNOWN_ID,
    StreamingCase,
    Values,
    WebCase,
    chunked_fragment,
    fragment,
    packet,
    request,
    responses,
)
from txbits.sessions import Settings
from txbits.testing.memory import Peer
from txbits.web._streaming.channel import StreamingChannel

_OLD = b"HTTP/1.0"


class _Texts(Resource):
    """Another resource of the site, whose answers have a length or have none."""

    isLeaf = True

    def render_GET(self, request):
        if request.path.endswith(b"/streamed"):
            request.write(b"hel")
            request.write(b"lo")
            request.finish()
            return NOT_DONE_YET
        return b"hello"


class ConnectionCase(WebCase):
    """A directory with downloads at ``/``, and other resources at ``/other``."""

    settings = Settings(allow_downloads=True)

    def setUp(self) -> None:
        super().setUp()
        self.memory.files["file",] = b"hello"

    def both_kinds(self) -> None:
        """Serve other resources as well."""
        root = Resource()
        root.putChild(b"a", self.resource)
        root.putChild(b"other", _Texts())
        self.site = self.bits_site(root)

    def sent(self, data: bytes, size: int = 0) -> Peer:
        """A peer that has sent *data*, in pieces of *size* bytes or whole."""
        peer = self.peer()
        size = size or len(data)
        for start in range(0, len(data), size):
            peer.send(data[start : start + size])
        return peer


class PersistenceTests(ConnectionCase):
    """Whether a connection is kept, and what is said of that."""

    def requests(self, **headers: Values) -> list[bytes]:
        return [
            packet(b"Ping", **headers),
            fragment(UNKNOWN_ID, 0, b"hello", 5, **headers),
            request(b"GET", b"/file", **headers),
        ]

    def assert_closes(self, data: bytes) -> None:
        for size in (0, 1):
            peer = self.sent(data, size)
            self.assertEqual(self.answer(peer)["Connection"], "close", data)
            self.assertTrue(peer.closed, data)
            self.assertFalse(peer.aborted, data)

    def assert_keeps(self, data: bytes, said: str | None) -> None:
        for size in (0, 1):
            peer = self.sent(data, size)
            self.assertEqual(self.answer(peer)["Connection"], said, data)
            self.assertFalse(peer.closed, data)
            self.assertEqual(self.exchange(peer, packet(b"Ping")).status, 200)

    def test_close_is_one_of_a_list_of_tokens_in_any_case(self) -> None:
        for value in (
            b"close",
            b"Close",
            b"Close, TE",
            b"TE,CLOSE",
            b"keep-alive, close",
            b",, \tclose\t ,",
            [b"keep-alive", b"close"],
            [b"close", b"keep-alive"],
            [b"TE", b"Upgrade, close"],
        ):
            for data in self.requests(connection=value):
                self.assert_closes(data)

    def test_other_tokens_leave_it_open(self) -> None:
        for value in (
            b"",
            b"keep-alive",
            b"Keep-Alive",
            b"TE",
            b"closed, un-close",
            b"close\x0b",
            b"clo se",
            [b"keep-alive", b"TE"],
            None,
        ):
            for data in self.requests(connection=value):
                self.assert_keeps(data, None)

    def test_http_1_0_without_keep_alive_is_told_that_it_ends(self) -> None:
        """Or a proxy that pools connections takes the head's HTTP/1.1 at its word."""
        for value in (None, b"", b"close", b"TE", b"keep-alive, close"):
            for data in self.requests(connection=value):
                self.assert_closes(data.replace(b"HTTP/1.1", _OLD))

    def test_http_1_0_with_keep_alive_is_kept_and_told_so(self) -> None:
        for value in (b"keep-alive", b"TE, Keep-Alive", [b"TE", b"keep-alive"]):
            for data in self.requests(connection=value):
                self.assert_keeps(data.replace(b"HTTP/1.1", _OLD), "Keep-Alive")

    def test_http_1_0_is_kept_for_whatever_ends_by_its_length(self) -> None:
        etag = self.ask(request(b"GET", b"/file"))["ETag"] or ""
        for data, status in (
            (request(b"GET", b"/none"), 404),
            (request(b"GET", b"/file", range=b"bytes=1-2"), 206),
            (request(b"GET", b"/file", if_none_match=etag.encode()), 304),
            (request(b"PUT", b"/file", content_length=b"2", body=b"hi"), 405),
        ):
            head, _, rest = data.partition(b"\r\n")
            peer = self.sent(
                head.replace(b"HTTP/1.1", _OLD)
                + b"\r\nConnection: keep-alive\r\n"
                + rest
            )
            answer = self.answer(peer)
            self.assertEqual(
                (answer.status, answer["Connection"]), (status, "Keep-Alive")
            )
            self.assertFalse(peer.closed)

    def test_http_1_0_is_not_kept_for_what_ends_with_its_connection(self) -> None:
        self.both_kinds()
        for path, is_kept in ((b"/other/whole", True), (b"/other/streamed", False)):
            peer = self.sent(
                request(b"GET", path, version=_OLD, connection=b"keep-alive")
            )
            answer = self.answer(peer)
            self.assertEqual(answer.body, b"hello")
            self.assertEqual(answer["Connection"], "Keep-Alive" if is_kept else "close")
            self.assertEqual(peer.closed, not is_kept)

    def test_http_1_0_with_a_coded_body_is_not_kept(self) -> None:
        """RFC 9112 6.1: its framing is not to be believed."""
        session_id = self.create()
        data = chunked_fragment(
            session_id,
            b"bytes 0-4/5",
            b"5\r\nhello\r\n0\r\n\r\n",
            connection=b"keep-alive",
        )
        peer = self.sent(data.replace(b"HTTP/1.1", _OLD))
        self.assertEqual(self.answer(peer)["Connection"], "close")
        self.assertTrue(peer.closed)


class HostTests(ConnectionCase):
    """RFC 9112 3.2: which host a request is for is said once."""

    def assert_is_refused(self, data: bytes, session_id: bytes | None = None) -> None:
        for size in (0, 1):
            peer = self.sent(data, size)
            self.assert_refused(self.answer(peer), "malformed-header", session_id)
            self.assertFalse(peer.closed)
            self.assertEqual(self.exchange(peer, packet(b"Ping")).status, 200)

    def test_none_or_two_are_refused(self) -> None:
        session_id = self.create()
        for host in (None, [b"a", b"a"], [b"a", b"b"], [b"", b""]):
            self.assert_is_refused(packet(b"Ping", host=host))
            self.assert_is_refused(
                packet(b"Close-Session", session_id, host=host), session_id
            )
            self.assert_is_refused(
                fragment(session_id, 0, b"hello", 5, host=host), session_id
            )
        self.assertEqual(self.held(), b"")

    def held(self) -> bytes:
        (session,) = self.memory._sessions.values()
        return b"".join(session._pieces)

    def test_so_are_those_of_other_requests(self) -> None:
        for data in (
            request(b"GET", b"/file", host=None),
            request(b"GET", b"/file", host=[b"a", b"b"]),
            request(b"PUT", b"/file", host=None, content_length=b"2", body=b"hi"),
        ):
            peer = self.sent(data)
            self.assertEqual(self.answer(peer).status, 400)
            self.assertEqual(self.exchange(peer, packet(b"Ping")).status, 200)

    def test_what_is_no_host_is_refused(self) -> None:
        # Those that are taken are remembered, so they must not be long.
        long = b"a" * 1025
        short = (b"a b", b"a/b", b"user@a", b"a,b:80:80", b"[::1", b"a?", b"a\x0b")
        for host in (*short, long):
            self.assert_is_refused(packet(b"Ping", host=host))

    def test_whatever_may_be_one_is_taken(self) -> None:
        for host in (
            b"",
            b"a",
            b"SERVER_1:8080",
            b"a.example.",
            b"192.0.2.1:80",
            b"[2001:db8::1]",
            b"[fe80::1%25eth0]:8080",
            b"xn--bcher-kva.example:",
            b"a" * 1024,
        ):
            self.assert_success(self.ask(packet(b"Ping", host=host)), None)

    def test_an_absolute_url_does_not_make_up_for_it(self) -> None:
        self.assert_is_refused(packet(b"Ping", target=b"http://a/b", host=None))

    def test_http_1_0_needs_none_and_has_not_two(self) -> None:
        data = packet(b"Ping", host=None).replace(b"HTTP/1.1", _OLD)
        self.assert_success(self.ask(data), None)
        data = packet(b"Ping", host=[b"a", b"b"]).replace(b"HTTP/1.1", _OLD)
        self.assert_refused(self.ask(data), "malformed-header")

    def test_it_is_in_the_log(self) -> None:
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.ask(packet(b"Ping", host=None))
        (event,) = [one for one in events if "Host" in (one["log_format"] or "")]
        self.assertEqual((event["client"], event["count"]), ("192.0.2.1", 0))


class NoHTTPTests(ConnectionCase):
    """What is no request is not waited for."""

    def setUp(self) -> None:
        super().setUp()
        self.events: list[str] = []
        observe = lambda event: self.events.append(event.get("what"))  # noqa: E731
        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def assert_is_ended(self, data: bytes) -> None:
        for size in (0, 1):
            peer = self.sent(data, size)
            (answer,) = responses(peer.received())
            self.assertEqual(answer.status, 400)
            self.assertTrue(peer.closed)

    def test_a_tls_handshake_is_ended_at_once(self) -> None:
        self.assert_is_ended(
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 90
        )
        self.assertEqual(self.events, ["TLS on a plain HTTP port"] * 2)

    def test_so_are_other_protocols(self) -> None:
        for data in (
            b"\x00\x00\x00\x85\xffSMB",
            b"\x05\x01\x00",
            b"\x03\x00\x00\x13\x0e\xe0",
            b"\x80\x46\x01\x03\x01",
            b" GET / HTTP/1.1",
        ):
            self.assert_is_ended(data)
        self.assertEqual(self.events, ["a request that is not HTTP"] * 10)

    def test_so_are_those_that_come_after_a_packet(self) -> None:
        peer = self.sent(packet(b"Ping"))
        self.assertEqual(self.answer(peer).status, 200)
        peer.send(b"\x16\x03\x01")
        self.assertEqual(self.answer(peer).status, 400)
        self.assertTrue(peer.closed)

    def test_whatever_may_begin_a_method_is_waited_for(self) -> None:
        for data in (b"B", b"\r", b"\n", b"!", b"~", b"9"):
            self.assert_silent(self.sent(data))


class HalfClosedTests(StreamingCase):
    """Peers that end their side, and read on."""

    settings = Settings(allow_downloads=True)

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_a_channel_is_told_of_it(self) -> None:
        verifyObject(IHalfCloseableProtocol, self.peer()._channel)

    def test_a_packet_under_way_is_answered_and_the_connection_closed(self) -> None:
        for operation, data in (
            ("close", fragment(self.session_id, 0, b"hello", 5)),
            ("publish", packet(b"Close-Session", self.session_id)),
            ("create", packet(b"Create-Session", target=b"/other")),
        ):
            gate = self.backend.hold(operation)
            peer = self.peer()
            peer.send(data)
            for _ in range(2):
                peer.end_sending()
                self.assert_silent(peer)
            gate.open()
            self.assertEqual(self.answer(peer).status, 200, operation)
            self.assertTrue(peer.closed)
            self.assertFalse(peer.aborted)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_a_download_is_sent_whole(self) -> None:
        self.memory.files["file",] = b"x" * 1_000_000
        peer = self.peer()
        channel = peer._channel
        channel.pauseProducing()
        peer.send(request(b"GET", b"/file"))
        peer.end_sending()
        self.assertFalse(peer.closed)
        while channel._waitingForTransport:
            channel.resumeProducing()
        self.assertEqual(len(self.answer(peer).body), 1_000_000)
        self.assertTrue(peer.closed)

    def test_what_was_sent_ahead_is_answered(self) -> None:
        gate = self.backend.hold("publish")
        peer = self.peer()
        peer.send(
            fragment(self.session_id, 0, b"hello", 5)
            + packet(b"Close-Session", self.session_id)
            + packet(b"Ping") * 3
            + packet(b"Ping")[:-5]
        )
        peer.end_sending()
        self.assertEqual(self.statuses(peer), [200])
        gate.open()
        self.assertEqual(self.statuses(peer), [200] * 4)
        self.assertTrue(peer.closed)

    def test_a_connection_at_rest_is_closed(self) -> None:
        for data in (b"", packet(b"Ping"), packet(b"Ping")[:-5], b"\r\n"):
            peer = self.peer()
            peer.send(data)
            peer.end_sending()
            self.assertTrue(peer.closed, data)
            self.assertFalse(peer.aborted)

    def test_a_body_that_ends_early_is_kept_as_far_as_it_came(self) -> None:
        peer = self.peer()
        peer.send(fragment(self.session_id, 0, b"hello", 5)[:-2])
        peer.end_sending()
        self.assertEqual(peer.received(), b"")
        self.assertTrue(peer.closed)
        self.assertEqual(self.held(), b"hel")

    def test_a_body_for_another_resource_that_ends_early_ends_it(self) -> None:
        peer = self.peer()
        peer.send(request(b"PUT", PATH, content_length=b"5", body=b"hel"))
        peer.end_sending()
        self.assertEqual(peer.received(), b"")
        self.assertTrue(peer.closed)

    def test_a_refusal_that_waited_for_the_body_is_sent(self) -> None:
        peer = self.peer()
        peer.send(fragment(UNKNOWN_ID, 0, b"hello", 5)[:-2])
        self.assert_silent(peer)
        peer.end_sending()
        self.assert_refused(self.answer(peer), "session-not-found", UNKNOWN_ID)
        self.assertTrue(peer.closed)

    def test_a_refusal_of_a_long_body_ends_both_sides(self) -> None:
        peer = self.peer()
        peer.send(fragment(UNKNOWN_ID, 0, b"", 1, content_length=b"99999999999"))
        self.answer(peer)
        self.assertTrue(peer.half_closed)
        self.assertFalse(peer.closed)
        peer.end_sending()
        self.assertTrue(peer.closed)

    def test_one_that_takes_nothing_is_dropped_in_the_end(self) -> None:
        peer = self.peer()
        transport = peer._transport

        def lose_connection():
            # As a socket does: it stays until its peer has taken all.
            transport.disconnecting = True

        transport.loseConnection = lose_connection
        peer.send(packet(b"Ping"))
        peer.end_sending()
        self.clock.pump([1] * 60)
        self.assertTrue(peer.aborted)

    def test_a_peer_that_goes_altogether_is_noticed_when_it_is_answered(self) -> None:
        gate = self.backend.hold("publish")
        self.ask(fragment(self.session_id, 0, b"hello", 5))
        peer = self.peer()
        peer.send(packet(b"Close-Session", self.session_id))
        peer.end_sending()
        peer.lose()
        self.assertNotIn(peer._channel, self.site.channels)
        gate.open()
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})


class MemoryTests(WebCase):
    """What a connection leaves in memory between two packets."""

    def test_none_of_a_burst_has_a_dictionary_of_its_own(self) -> None:
        class Channel(StreamingChannel):
            """A class of which no object has been made yet."""

        self.site.protocol = Channel
        session_id = self.create()
        peers = [self.peer() for _ in range(40)]
        for number, peer in enumerate(peers):
            data = fragment(session_id, number, b"x", 100)
            # Some packets arrive in one piece, and some in two.
            half = len(data) - number % 2
            peer.send(data[:half])
            peer.send(data[half:])
            self.assert_success(self.answer(peer), session_id)
        for peer in peers:
            kinds = {type(one) for one in gc.get_referents(peer._channel)}
            self.assertNotIn(dict, kinds)

    def test_all_have_the_same_timer(self) -> None:
        one, other = self.peer()._channel, self.peer()._channel
        self.assertIs(one.callLater, other.callLater)
        self.assertEqual(one.callLater, self.clock.callLater)


class TargetTests(ConnectionCase):
    """Targets that are not percent-encoded."""

    def test_utf_8_means_what_it_would_percent_encoded(self) -> None:
        raw, encoded = "/ä b/✓".replace(" ", "%20").encode(), b"/%C3%A4%20b/%E2%9C%93"
        session_id = self.create(raw)
        (session,) = self.memory._sessions.values()
        self.assertEqual(session.destination, ("ä b", "✓"))
        data = fragment(session_id, 0, b"hello", 5, target=encoded)
        self.assert_success(self.ask(data), session_id)
        for method in (b"POST", b"BITS_POST"):
            data = fragment(session_id, 0, b"hello", 5, target=raw, method=method)
            for size in (0, 1):
                self.assert_success(self.answer(self.sent(data, size)), session_id)
        ack = self.ask(packet(b"Close-Session", session_id, target=raw))
        self.assert_success(ack, session_id)
        for target in (raw, encoded, b"http://x" + raw):
            self.assertEqual(self.ask(request(b"GET", target)).body, b"hello")

    def test_a_query_may_be_in_any_code(self) -> None:
        for query in ("ä".encode(), b"\xe4", b"\xff\x80"):
            for method in (b"BITS_POST", b"POST"):
                data = packet(b"Ping", target=PATH + b"?q=" + query, method=method)
                self.assert_success(self.ask(data), None)

    def test_a_path_that_is_no_utf_8_is_refused_and_the_log_says_so(self) -> None:
        events = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for path in (b"/\xe4", b"/a\x80", b"/\xc3\xa4\xff", b"/\xed\xa0\x80"):
            for method in (b"BITS_POST", b"POST", b"GET"):
                peer = self.sent(request(method, path))
                self.assert_refused(self.answer(peer), "malformed-header")
                self.assertTrue(peer.closed)
        said = {one["what"] for one in events if "what" in one}
        self.assertEqual(said, {"a URL whose path is not UTF-8"})

    def test_methods_and_versions_are_ascii(self) -> None:
        for line in ("ÄET / HTTP/1.1", "GET / HTTP/1.1ä", "GET / ÄTTP/1.1"):
            peer = self.sent(line.encode() + b"\r\nHost: x\r\n\r\n")
            self.assertEqual(self.answer(peer).status, 400)
            self.assertTrue(peer.closed)
