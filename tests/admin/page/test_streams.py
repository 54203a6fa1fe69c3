"""
Server-sent events: what has changed, to as many browsers as there is room for.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, succeed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.web.support import WebCase, request
from txbits.admin.page.streams import INTERVAL, LONGEST, MOST_STREAMS, Streams
from txbits.testing.memory import Peer


class _Events(Resource):
    isLeaf = True

    def __init__(self, streams):
        super().__init__()
        self._streams = streams
        self.are_full = False

    def render(self, request):
        if not self._streams.add(request, request.args[b"q"][0]):
            self.are_full = True
            return b"full"
        return NOT_DONE_YET


class StreamCase(WebCase):
    """
    A site with events.

    :ivar parts: What the page of every query is.
    :ivar made: The queries that parts were made for.
    :ivar admission: What decides who may look.
    """

    def setUp(self):
        super().setUp()
        self.parts = {"a": b"<p id=a>1</p>", "b": b"<p id=b>\n1</p>"}
        self.made = []
        self.admission = []
        self.streams = Streams(self.clock, self.make, lambda: self.admission)
        self.events = _Events(self.streams)
        self.site = self.bits_site(self.events)
        self.streams.start()
        self.addCleanup(self.streams.stop)

    def make(self, query):
        self.made.append(query)
        return succeed(dict(self.parts))

    def stream(self, query=b"1"):
        peer = Peer(self.site)
        peer.send(request(b"GET", b"/?q=" + query))
        return peer

    def events_of(self, peer):
        """The events that have arrived since the last time, without their framing."""
        body = peer.received()
        if body.startswith(b"HTTP/1.1"):
            body = body.partition(b"\r\n\r\n")[2]
        text = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            length = int(size, 16)
            text += body[:length]
            body = body[length + 2 :]
        return text

    def round(self):
        self.clock.advance(INTERVAL)


class StreamTests(StreamCase):
    """What a browser gets."""

    def test_the_head_is_that_of_events_and_nothing_keeps_them(self):
        peer = self.stream()
        head = peer.received()
        self.assertIn(b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n", head)
        self.assertIn(b"\r\nCache-Control: no-store\r\n", head)

    def test_all_parts_come_first_and_later_those_that_have_changed(self):
        peer = self.stream()
        self.events_of(peer)
        self.round()
        self.assertEqual(
            self.events_of(peer),
            b"event: parts\ndata: <p id=a>1</p>\ndata: <p id=b>\ndata: 1</p>\n\n",
        )
        self.round()
        self.assertEqual(self.events_of(peer), b"")
        self.parts["a"] = b"<p id=a>2</p>"
        self.round()
        self.assertEqual(self.events_of(peer), b"event: parts\ndata: <p id=a>2</p>\n\n")

    def test_parts_are_made_once_for_all_who_look_at_the_same(self):
        for query in (b"1", b"1", b"2"):
            self.stream(query)
        self.round()
        self.assertEqual(sorted(self.made), [b"1", b"2"])

    def test_nothing_is_made_when_nobody_looks(self):
        peer = self.stream()
        peer.lose()
        self.round()
        self.assertEqual(self.made, [])
        self.assertEqual(self.streams._call, None)

    def test_the_next_round_waits_for_the_one_before(self):
        made = Deferred()
        self.make = lambda query: made
        self.streams._make = lambda query: self.make(query)
        peer = self.stream()
        self.round()
        self.make = lambda query: self.fail("another round has begun")
        self.clock.advance(5 * INTERVAL)
        self.events_of(peer)
        made.callback({"a": b"x"})
        self.assertEqual(self.events_of(peer), b"event: parts\ndata: x\n\n")
        self.make = lambda query: succeed({"a": b"y"})
        # It took ten seconds: four times as long, others have their turns.
        self.clock.advance(39)
        self.assertEqual(self.events_of(peer), b"")
        self.clock.advance(1)
        self.assertEqual(self.events_of(peer), b"event: parts\ndata: y\n\n")

    def test_who_leaves_and_comes_during_a_round_is_in_the_next(self):
        made = Deferred()
        self.streams._make = lambda query: made
        first = self.stream()
        self.round()
        first.lose()
        second = self.stream()
        self.events_of(second)
        made.callback({"a": b"x"})
        self.assertEqual(len(self.streams), 1)
        self.streams._make = lambda query: succeed({"a": b"y"})
        self.round()
        self.assertIn(b"data: y", self.events_of(second))
        self.assertNotIn(b"data: ", first.received())

    def test_a_failure_is_logged_and_others_go_on(self):
        peer, other = self.stream(b"bad"), self.stream(b"good")
        self.events_of(peer), self.events_of(other)
        self.streams._make = lambda query: (
            1 / 0 if query == b"bad" else succeed(self.parts)
        )
        self.round()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.events_of(peer), b"")
        self.assertIn(b"data: ", self.events_of(other))


class BoundTests(StreamCase):
    """What streams may take."""

    def test_their_number_is_limited(self):
        peers = [self.stream() for _ in range(MOST_STREAMS)]
        self.assertFalse(self.events.are_full)
        self.stream()
        self.assertTrue(self.events.are_full)
        peers[0].lose()
        self.events.are_full = False
        self.stream()
        self.assertFalse(self.events.are_full)

    def test_who_does_not_read_gets_nothing_more_until_it_does(self):
        peer = self.stream()
        self.events_of(peer)
        producer = peer._transport.producer
        producer.pauseProducing()
        for number in range(10):
            self.parts["a"] = b"%d" % number
            self.round()
        self.assertEqual(self.events_of(peer), b"")
        producer.resumeProducing()
        self.round()
        self.assertEqual(self.events_of(peer).count(b"event: "), 1)

    def test_the_site_drops_who_reads_nothing_for_a_minute(self):
        peer = self.stream()
        peer._transport.producer.pauseProducing()
        self.clock.pump([5.0] * 26)
        self.assertTrue(peer.aborted)
        self.assertEqual(len(self.streams), 0)

    def test_nothing_is_made_for_who_does_not_read(self):
        self.stream()._transport.producer.pauseProducing()
        self.round()
        self.assertEqual(self.made, [])

    def test_a_stream_ends_after_some_minutes_and_may_begin_again(self):
        peer = self.stream()
        self.clock.pump([INTERVAL] * int(LONGEST / INTERVAL + 1))
        self.assertTrue(peer.received().endswith(b"0\r\n\r\n"))
        self.assertEqual(len(self.streams), 0)
        self.stream()
        self.assertEqual(len(self.streams), 1)

    def test_all_end_when_others_may_look(self):
        peers = [self.stream(), self.stream()]
        self.round()
        self.admission = [object()]
        self.round()
        for peer in peers:
            self.assertTrue(peer.received().endswith(b"0\r\n\r\n"))
        again = self.stream()
        self.round()
        self.assertIn(b"event: ", self.events_of(again))

    def test_a_stop_ends_all_and_no_more_begin(self):
        peer = self.stream()
        self.streams.stop()
        self.assertTrue(peer.received().endswith(b"0\r\n\r\n"))
        self.stream()
        self.assertTrue(self.events.are_full)
        self.streams.stop()

    def test_a_connection_can_close_after_its_stream_was_ended(self):
        peer = self.stream()
        self.streams.stop()
        (channel,) = self.site.channels
        channel.loseConnection()
        self.assertTrue(peer.closed)
