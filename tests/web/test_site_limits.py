"""
What one peer, and all peers together, may take of a site: time and connections.

A site looks at its deadlines every few seconds, so these tests turn the clock by
seconds and leave room on either side of a limit.
"""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET

from tests.web.support import (
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
from txbits._ledger import Ledger
from txbits._workers import Worker
from txbits.testing.memory import Peer
from txbits.web import BITSSite, Limits

_LIMITS = Limits(header_timeout=60, body_timeout=90, idle_timeout=180)

#: A site looks at its deadlines this often, or more.
_SLACK = 6


class TimeOutCase(WebCase):
    """What the tests of time-outs have in common."""

    limits = _LIMITS

    def wait(self, seconds: float) -> None:
        """Let time pass, second by second."""
        whole = int(seconds)
        self.clock.pump([1] * whole)
        self.clock.advance(seconds - whole)

    def assert_dropped_after(self, peer: Peer, seconds: float) -> None:
        """The connection is dropped when that time is out, and not much before."""
        self.wait(seconds - 1)
        self.assertFalse(peer.closed)
        self.wait(1 + _SLACK)
        self.assertTrue(peer.closed)


class HeaderTimeOutTests(TimeOutCase):
    """The head of a request must be there in time, whole."""

    def test_silence_from_the_beginning(self) -> None:
        peer = self.peer()
        self.assert_dropped_after(peer, 60)
        self.assertEqual(peer.received(), b"")

    def test_head_that_stops(self) -> None:
        peer = self.peer()
        self.wait(30)
        peer.send(b"BITS_POST / HTTP/1.1\r\nHost: ")
        self.assert_dropped_after(peer, 60)

    def test_dribbled_bytes_do_not_put_it_off(self) -> None:
        peer = self.peer()
        head = b"BITS_POST / HTTP/1.1\r\n" + b"X: y\r\n" * 1000
        for index in range(60 + _SLACK):
            peer.send(head[index : index + 1])
            self.wait(1)
        self.assertTrue(peer.closed)

    def test_second_head_has_the_same_time(self) -> None:
        peer = self.peer()
        self.exchange(peer, packet(b"Ping"))
        self.wait(100)
        peer.send(b"B")
        for _ in range(59):
            self.wait(1)
            peer.send(b"I")
        self.assertFalse(peer.closed)
        self.wait(1 + _SLACK)
        self.assertTrue(peer.closed)

    def test_head_that_follows_in_the_same_read_has_the_same_time(self) -> None:
        for begun in (b"BITS_POST / HT", b"BITS_POST / HTTP/1.1\r\nHost: x\r\nX"):
            peer = self.peer()
            peer.send(packet(b"Ping") + begun)
            self.assertEqual(self.answer(peer).status, 200)
            self.assert_dropped_after(peer, 60)

    def test_slow_head_is_served_if_it_comes_in_time(self) -> None:
        peer = self.peer()
        data = packet(b"Ping")
        peer.send(data[:10])
        self.wait(55)
        self.assert_success(self.exchange(peer, data[10:]), None)


class BodyTimeOutTests(TimeOutCase):
    """At least 1 KiB of a body in every window, unless we are the slow one."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def start(self, length: int = 100_000, sent: int = 0) -> Peer:
        """Begin to send a fragment of *length* bytes."""
        peer = self.peer()
        data = fragment(self.session_id, 0, b"x" * length, length)
        peer.send(data[: len(data) - length + sent])
        self.assert_silent(peer)
        return peer

    def held(self) -> int:
        """How many bytes the backend holds."""
        (session,) = self.memory._sessions.values()
        return session.offset

    def test_body_that_stops(self) -> None:
        self.assert_dropped_after(self.start(sent=500), 90)
        self.assertEqual(self.held(), 500)

    def test_body_that_never_begins(self) -> None:
        self.assert_dropped_after(self.start(), 90)

    def test_body_that_is_slow_but_steady(self) -> None:
        peer = self.start()
        for _ in range(10):
            self.wait(80)
            peer.send(b"x" * 1024)
            self.assert_silent(peer)

    def test_body_that_dribbles(self) -> None:
        peer = self.start()
        for _ in range(90 + _SLACK):
            peer.send(b"x")
            self.wait(1)
        self.assertTrue(peer.aborted)
        # "What arrived is kept."
        self.assertGreaterEqual(self.held(), 90)
        self.assertLessEqual(self.held(), 90 + _SLACK)

    def test_body_of_chunks_is_measured_as_well(self) -> None:
        peer = self.peer()
        peer.send(chunked_fragment(self.session_id, b"bytes 0-99/100", b""))
        self.wait(80)
        peer.send(b"1\r\nx\r\n")
        self.wait(10 + _SLACK)
        self.assertTrue(peer.aborted)
        self.assertEqual(self.held(), 1)

    def test_refused_body_that_stops(self) -> None:
        peer = self.peer()
        peer.send(fragment(UNKNOWN_ID, 0, b"hello", 5)[:-1])
        self.assert_dropped_after(peer, 90)

    def test_backend_that_is_slow_to_write_is_waited_for(self) -> None:
        gate = self.backend.hold("write")
        peer = self.start(length=5000, sent=100)
        self.wait(1000)
        self.assert_silent(peer)
        gate.open()
        # From here on the peer is the slow one again.
        self.wait(80)
        self.assert_silent(peer)
        peer.send(b"x" * 4900)
        self.assert_success(self.answer(peer), self.session_id)

    def test_backend_that_is_slow_to_close_is_waited_for(self) -> None:
        gate = self.backend.hold("close")
        peer = self.start(length=10, sent=9)
        peer.send(b"x")
        self.wait(1000)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), self.session_id)

    def test_checks_that_are_slow_are_waited_for(self) -> None:
        """What was read of the body waits for us, not we for it."""
        policy = Policy()
        policy.answer = Deferred()
        self.serve(policy=policy)
        peer = self.start(length=5000, sent=100)
        self.wait(1000)
        self.assert_silent(peer)
        policy.answer.callback(None)
        peer.send(b"x" * 4900)
        self.assert_success(self.answer(peer), self.session_id)

    def test_checks_that_are_slow_are_waited_for_by_who_expects_continue(self) -> None:
        """The peer waits for us, with its whole body."""
        policy = Policy()
        policy.answer = Deferred()
        self.serve(policy=policy)
        peer = self.peer()
        data = fragment(self.session_id, 0, b"hello", 5, expect=b"100-continue")
        peer.send(data[:-5])
        self.wait(1000)
        self.assert_silent(peer)
        policy.answer.callback(None)
        self.assertEqual(self.answer(peer).status, 100)
        self.wait(80)
        peer.send(b"hello")
        self.assert_success(self.answer(peer), self.session_id)

    def test_time_begins_anew_with_continue(self) -> None:
        gate = self.backend.hold("open_writer")
        peer = self.peer()
        data = fragment(self.session_id, 0, b"hello", 5, expect=b"100-continue")
        peer.send(data[:-5])
        self.wait(80)
        gate.open()
        self.assertEqual(self.answer(peer).status, 100)
        self.assert_dropped_after(peer, 90)

    def test_slow_backend_is_waited_for_with_packets_behind(self) -> None:
        """A peer that pipelines is no slower than one that does not."""
        gate = self.backend.hold("close")
        peer = self.peer()
        peer.send(packet(b"Ping") + fragment(self.session_id, 0, b"hello", 5))
        self.assertEqual(self.answer(peer).status, 200)
        peer.send(packet(b"Ping"))
        self.wait(1000)
        self.assert_silent(peer)
        gate.open()
        self.assertEqual([one.status for one in responses(peer.received())], [200] * 2)

    def test_fragment_in_the_same_read_as_the_packet_before(self) -> None:
        peer = self.peer()
        data = fragment(self.session_id, 0, b"x" * 5000, 5000)
        peer.send(packet(b"Ping") + data[:-4000])
        self.assertEqual(self.answer(peer).status, 200)
        self.wait(80)
        peer.send(b"x" * 2000)
        self.wait(80)
        self.assert_silent(peer)
        peer.send(b"x" * 2000)
        self.assert_success(self.answer(peer), self.session_id)

    def test_body_for_another_resource_may_take_long_as_well(self) -> None:
        received = []

        class Taker(Resource):
            def render_POST(self, request):
                received.append(request.content.read())
                return b"thanks"

        root = Resource()
        root.putChild(b"other", Taker())
        self.site = self.bits_site(root)
        peer = self.peer()
        peer.send(request(b"POST", b"/other", content_length=b"10240"))
        for _ in range(10):
            self.wait(60)
            self.assert_silent(peer)
            peer.send(b"x" * 1024)
        self.assertEqual(self.answer(peer).body, b"thanks")
        self.assertEqual(received, [b"x" * 10240])

    def test_body_for_another_resource_that_stops(self) -> None:
        self.site = self.bits_site(Resource())
        peer = self.peer()
        peer.send(request(b"POST", b"/other", content_length=b"10", body=b"hello"))
        self.assert_dropped_after(peer, 90)

    def test_resource_that_is_slow_to_answer_is_waited_for(self) -> None:
        waiting = []

        class Slow(Resource):
            def render_GET(self, request):
                waiting.append(request)
                return NOT_DONE_YET

        root = Resource()
        root.putChild(b"slow", Slow())
        self.site = self.bits_site(root)
        peer = self.peer()
        peer.send(request(b"GET", b"/slow"))
        self.wait(1000)
        self.assert_silent(peer)
        waiting[0].setHeader(b"Content-Length", b"0")
        waiting[0].finish()
        self.assertEqual(self.answer(peer).status, 200)

    def test_answer_that_nobody_takes_is_not_waited_for_with_requests_behind(
        self,
    ) -> None:
        """The rest of its request's body comes later, and then what was sent ahead."""

        class Long(Resource):
            def render(self, request: Any) -> int:
                request.setHeader(b"Content-Length", b"4")
                request.write(b"long")
                # As a transport does when it has as much as it keeps for a peer.
                request.channel.pauseProducing()
                request.finish()
                return NOT_DONE_YET

        root = Resource()
        root.putChild(b"long", Long())
        self.site = self.bits_site(root, _LIMITS)
        self.site.only_uploads = True
        peer = self.peer()
        peer.send(request(b"GET", b"/long", content_length=b"5", body=b"hel"))
        peer.send(b"lo" + packet(b"Ping") * 2)
        self.assert_dropped_after(peer, 90)


class LogTests(TimeOutCase):
    """What the log says of connections that are dropped."""

    def test_what_was_waited_for_is_named(self) -> None:
        events: list[dict] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.peer().send(packet(b"Ping")[:-2])
        self.peer().send(fragment(self.create(), 0, b"hello", 5)[:-2])
        self.wait(90 + _SLACK)
        self.assertEqual(
            [one["awaited"] for one in events if "awaited" in one],
            ["the rest of the head", "the rest of the body"],
        )


class IdleTimeOutTests(TimeOutCase):
    """A connection may rest between packets, for at least two minutes."""

    def test_connection_may_rest(self) -> None:
        peer = self.peer()
        for _ in range(3):
            self.assert_success(self.exchange(peer, packet(b"Ping")), None)
            self.wait(175)

    def test_connection_is_closed_politely_in_the_end(self) -> None:
        peer = self.peer()
        self.exchange(peer, packet(b"Ping"))
        self.assert_dropped_after(peer, 180)
        self.assertFalse(peer.aborted)
        self.assertEqual(peer.received(), b"")

    def test_connection_may_rest_after_a_fragment(self) -> None:
        session_id = self.create()
        for data in (
            fragment(session_id, 0, b"hello", 5),
            fragment(UNKNOWN_ID, 0, b"hello", 5),
            chunked_fragment(session_id, b"bytes 0-4/5", chunked(b"hello")),
        ):
            peer = self.peer()
            self.exchange(peer, data)
            self.assert_dropped_after(peer, 180)
            self.assertFalse(peer.aborted)

    def test_rest_begins_with_the_ack(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("release")
        peer = self.peer()
        peer.send(packet(b"Cancel-Session", session_id))
        self.wait(1000)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_dropped_after(peer, 180)

    def test_less_than_two_minutes_cannot_be_set(self) -> None:
        self.assertRaises(ValueError, Limits, idle_timeout=119)
        Limits(idle_timeout=120)

    def test_other_limits_are_positive(self) -> None:
        for name in (
            "header_timeout",
            "body_timeout",
            "max_connections",
            "max_connections_per_peer",
        ):
            self.assertRaises(ValueError, Limits, **{name: 0})

    def test_peer_that_does_not_take_the_close_is_dropped(self) -> None:
        """A close waits for what is still to be sent, and a peer may not take it."""
        peer = self.peer()
        self.exchange(peer, packet(b"Ping"))
        transport = peer._transport

        def lose_nothing() -> None:
            transport.disconnecting = True

        transport.loseConnection = lose_nothing  # type: ignore[method-assign]
        self.wait(180 + _SLACK)
        self.assertTrue(transport.disconnecting)
        self.assertFalse(peer.closed)
        self.wait(30 + _SLACK)
        self.assertTrue(peer.aborted)


class ConnectionLimitTests(WebCase):
    """How many connections there may be."""

    limits = Limits(max_connections=3, max_connections_per_peer=2)

    def test_connections_are_limited_overall(self) -> None:
        peers = [self.peer(f"192.0.2.{number}") for number in range(3)]
        self.assertTrue(self.peer("192.0.2.9").refused)
        peers[0].lose()
        self.assertFalse(self.peer("192.0.2.9").refused)
        self.assertTrue(self.peer("192.0.2.9").refused)

    def test_connections_are_limited_per_peer(self) -> None:
        peers = [self.peer(), self.peer()]
        self.assertTrue(self.peer().refused)
        self.assertFalse(self.peer("192.0.2.2").refused)
        peers[1].lose()
        self.assertFalse(self.peer().refused)
        self.assertTrue(self.peer().refused)

    def test_peers_without_an_address_are_one(self) -> None:
        site = BITSSite(self.resource, reactor=self.clock, limits=self.limits)
        channel = site.buildProtocol(UNIXAddress(None))
        assert channel is not None
        self.assertEqual(channel._peer, "")

    def test_closed_connections_do_not_count(self) -> None:
        for _ in range(20):
            peer = self.peer()
            self.assertFalse(peer.refused)
            self.exchange(peer, packet(b"Ping", connection=b"close"))
            self.assertTrue(peer.closed)
        self.assertEqual(self.site.channels, {})
        self.assertEqual(self.site._by_peer, {})

    def test_aborted_connections_do_not_count(self) -> None:
        for _ in range(20):
            peer = self.peer()
            peer.send(b"nonsense\r\n\r\n")
            self.assertTrue(peer.closed)
        self.assertEqual((self.site.channels, self.site._by_peer), ({}, {}))

    def test_connections_turned_away_are_logged_once_in_a_while(self) -> None:
        events: list[dict] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        self.peer(), self.peer()
        for _ in range(10):
            self.assertTrue(self.peer().refused)
        self.clock.advance(5)
        self.clock.advance(5)
        (event,) = [one for one in events if "most_per_peer" in one]
        self.assertEqual((event["count"], event["most"]), (10, 3))

    def test_site_stops_looking_when_it_stops(self) -> None:
        site = BITSSite(self.resource, reactor=self.clock)
        before = len(self.clock.getDelayedCalls())
        site.startFactory()
        self.assertGreater(len(self.clock.getDelayedCalls()), before)
        site.stopFactory()
        self.assertEqual(len(self.clock.getDelayedCalls()), before)
        site.stopFactory()


class LedgerLimitTests(ConnectionLimitTests):
    """A worker that has no other counts like a process that serves alone."""

    def setUp(self) -> None:
        self.ledger = Ledger.create(1)
        self.addCleanup(self.ledger.close)
        super().setUp()


class WorkersLimitTests(WebCase):
    """How many connections there may be in two workers."""

    limits = Limits(max_connections=3, max_connections_per_peer=2)

    def setUp(self) -> None:
        super().setUp()
        self.supervisor = Ledger.create(2)
        self.addCleanup(self.supervisor.close)
        self.sites = [self.start(number) for number in range(2)]

    def start(self, number: int) -> BITSSite:
        self.ledger = Ledger.open(os.dup(self.supervisor.fd), Worker(number, 2))
        self.addCleanup(self.ledger.close)
        return self.bits_site(self.resource)

    def connect(self, number: int, address: str = "192.0.2.1") -> Peer:
        return Peer(self.sites[number], address)

    def test_those_of_a_peer_count_in_both(self) -> None:
        first = self.connect(0)
        self.connect(1)
        for number in range(2):
            self.assertTrue(self.connect(number).refused)
        self.assertFalse(self.connect(1, "192.0.2.2").refused)
        first.lose()
        self.assertFalse(self.connect(1).refused)

    def test_those_of_all_peers_count_in_both(self) -> None:
        for number in range(3):
            self.assertFalse(self.connect(number % 2, f"192.0.2.{number}").refused)
        for number in range(2):
            self.assertTrue(self.connect(number, "192.0.2.9").refused)
            self.assertEqual(self.sites[number].turned_away, 1)

    def test_those_of_a_worker_that_was_killed_are_gone(self) -> None:
        self.connect(0), self.connect(0)
        self.supervisor.clear_connections(0)
        self.sites[0] = self.start(0)
        self.connect(1), self.connect(0)
        self.assertTrue(self.connect(1).refused)
