"""
Requests that were sent ahead: each connection is served one of them in turn, and is not
read from while it waits.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from tests.web.support import (
    PATH,
    UNKNOWN_ID,
    StreamingCase,
    fragment,
    packet,
    request,
    responses,
)
from txbits.testing.memory import Peer
from txbits.web import BITSSite
from txbits.web._streaming.turns import PER_TURN, Turns


class _OneAtATime(Clock):
    """A clock whose calls are made one by one, as the turns of a reactor come."""

    def advance(self, amount: float) -> None:
        """Let time pass; what is due waits for :meth:`turn`."""
        self.rightNow += amount

    def turn(self) -> None:
        """Make the next call that is due."""
        self.calls.pop(0).func()


class _Waiting:
    """A connection that has sent some requests ahead."""

    def __init__(self, case: TurnsTests, name: str, ahead: int) -> None:
        self.case = case
        self.name = name
        self.ahead = ahead
        self.fault: Exception | None = None
        self.is_aborted = False

    def take_turn(self) -> None:
        self.case.served.append(self.name)
        if self.fault is not None:
            raise self.fault
        self.ahead -= 1
        if self.ahead:
            self.case.turns.wait(self)

    def abort(self) -> None:
        self.is_aborted = True


class TurnsTests(SynchronousTestCase):
    """The line in which connections stand."""

    def setUp(self) -> None:
        self.clock = _OneAtATime()
        self.turns = Turns(self.clock)
        self.served: list[str] = []

    def waiting(self, name: str, ahead: int) -> _Waiting:
        one = _Waiting(self, name, ahead)
        self.turns.wait(one)
        return one

    def test_nobody_is_served_at_once(self) -> None:
        self.waiting("a", 1)
        self.assertEqual(self.served, [])
        self.clock.turn()
        self.assertEqual(self.served, ["a"])
        self.assertEqual(self.clock.calls, [])

    def test_each_is_served_once_before_one_is_served_again(self) -> None:
        for name in "abc":
            self.waiting(name, 3)
        while self.clock.calls:
            self.clock.turn()
        self.assertEqual("".join(self.served), "abcabcabc")

    def test_in_a_turn_of_the_reactor_only_a_few_are_served(self) -> None:
        for number in range(PER_TURN * 3):
            self.waiting(str(number), 10)
        self.clock.turn()
        self.assertEqual(len(self.served), PER_TURN)
        self.assertEqual(len(self.clock.calls), 1)
        self.clock.turn()
        self.assertEqual(self.served, [str(one) for one in range(PER_TURN * 2)])

    def test_one_that_stands_in_line_again_is_not_served_in_the_same_turn(self) -> None:
        """Or the reactor would look at the sockets only after the last request."""
        self.waiting("a", 5)
        self.clock.turn()
        self.assertEqual(self.served, ["a"])

    def test_one_that_fails_is_dropped_and_the_others_are_served(self) -> None:
        failing = self.waiting("a", 2)
        failing.fault = ValueError("a request that cannot be served")
        self.waiting("b", 2)
        while self.clock.calls:
            self.clock.turn()
        self.assertTrue(failing.is_aborted)
        self.assertEqual(self.served, ["a", "b", "b"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)


class PipeliningTests(StreamingCase):
    """Connections that send requests ahead, in a site whose turns we take."""

    def setUp(self) -> None:
        super().setUp()
        self.turns = _OneAtATime()
        root = Resource()
        root.putChild(b"a", self.resource)
        self.slow = BITSSite(root, reactor=self.turns)
        self.site = self.slow
        self.session_id = self.create()

    def pipelining(self, data: bytes) -> Peer:
        peer = Peer(self.slow)
        peer.send(data)
        return peer

    def answered(self, peer: Peer) -> list[int]:
        """The statuses of all answers that are there, without a turn for more."""
        data: bytes = peer._transport.value()
        peer._transport.clear()
        return [one.status for one in responses(data)]

    def turn(self) -> None:
        self.turns.turn()

    def test_of_any_kind_one_is_served_in_a_turn(self) -> None:
        kinds = {
            packet(b"Ping"): 200,
            packet(b"Ping", method=b"POST"): 200,
            request(): 400,
            packet(b"Close-Session", UNKNOWN_ID): 500,
            packet(b"Create-Session"): 200,
            packet(b"Ping").replace(b"Host:", b"X:"): 400,
            fragment(UNKNOWN_ID, 0, b"hello", 5): 500,
            request(b"GET", PATH): 405,
            request(b"GET", b"/elsewhere"): 404,
            request(b"PUT", b"/elsewhere", body=b"hi", content_length=b"2"): 404,
        }
        for data, status in kinds.items():
            peer = self.pipelining(data * 5)
            for _ in range(5):
                self.assertEqual(self.answered(peer), [status], data)
                if self.turns.calls:
                    self.turn()
            self.assertEqual(self.answered(peer), [])
            self.assertFalse(peer.paused)

    def test_one_that_does_not_waits_for_a_few_requests_only(self) -> None:
        """Not for all that fifty others have sent ahead."""
        crowd = [self.pipelining(packet(b"Ping") * 500) for _ in range(50)]
        for peer in crowd:
            self.answered(peer)
        self.turn()
        lone = self.pipelining(packet(b"Ping"))
        self.assertEqual(self.answered(lone), [200])
        self.turn()
        served = sum(len(self.answered(peer)) for peer in crowd)
        self.assertEqual(served, 2 * PER_TURN)

    def test_they_are_served_alike(self) -> None:
        crowd = [
            self.pipelining(data * 30)
            for data in (packet(b"Ping"), request(), request(b"GET", PATH))
        ]
        for _ in range(10):
            self.turn()
        counts = {len(self.answered(peer)) for peer in crowd}
        self.assertEqual(counts, {11})

    def test_one_that_waits_is_not_read_from(self) -> None:
        peer = self.pipelining(packet(b"Ping") * 3)
        for _ in range(2):
            self.assertTrue(peer.paused)
            self.turn()
        self.assertFalse(peer.paused)
        self.assertEqual(self.answered(peer), [200] * 3)

    def test_what_is_read_all_the_same_is_kept_in_order(self) -> None:
        """TLS hands on what it has read already."""
        peer = self.pipelining(packet(b"Ping") * 2 + packet(b"Ping")[:20])
        peer.send(packet(b"Ping")[20:] + request())
        self.assertEqual(self.answered(peer), [200])
        while self.turns.calls:
            self.turn()
        self.assertEqual(self.answered(peer), [200, 200, 400])
        self.assertFalse(peer.paused)

    def test_one_whose_answers_are_not_taken_is_given_no_more(self) -> None:
        peer = self.pipelining(packet(b"Ping") * 5)
        channel: Any = peer._channel
        channel.pauseProducing()
        self.turn()
        self.assertEqual(self.answered(peer), [200])
        self.assertEqual(self.turns.calls, [])
        self.assertLess(channel.deadline, float("inf"))
        for _ in range(2):
            channel.resumeProducing()
            channel.pauseProducing()
        channel.resumeProducing()
        self.assertTrue(peer.paused)
        self.assertEqual(len(self.turns.calls), 1)
        while self.turns.calls:
            self.turn()
        self.assertEqual(self.answered(peer), [200] * 4)
        self.assertFalse(peer.paused)

    def test_time_spent_in_line_is_not_the_peers(self) -> None:
        peer = self.pipelining(packet(b"Ping") * 2)
        channel: Any = peer._channel
        self.assertEqual(channel.deadline, float("inf"))
        self.turn()
        self.assertLess(channel.deadline, float("inf"))

    def test_a_lost_connection_is_served_no_more(self) -> None:
        peer = self.pipelining(packet(b"Create-Session") * 5)
        before = len(self.memory._sessions)
        peer.lose()
        while self.turns.calls:
            self.turn()
        self.assertEqual(len(self.memory._sessions), before)

    def test_a_connection_that_ends_is_served_no_more(self) -> None:
        peer = self.pipelining(
            packet(b"Create-Session")
            + packet(b"Ping", connection=b"close")
            + packet(b"Create-Session")
        )
        before = len(self.memory._sessions)
        while self.turns.calls:
            self.turn()
        self.assertEqual(self.answered(peer), [200, 200])
        self.assertTrue(peer.closed)
        self.assertEqual(len(self.memory._sessions), before)

    def test_a_body_that_came_in_part_is_waited_for(self) -> None:
        data = fragment(self.session_id, 0, b"hello", 5)
        peer = self.pipelining(packet(b"Ping") + data[:-3])
        self.turn()
        self.assertFalse(peer.paused)
        self.assertEqual(self.held(), b"he")
        peer.send(data[-3:])
        self.assertEqual(self.answered(peer), [200, 200])

    def test_reading_goes_on_while_one_is_served_that_takes_long(self) -> None:
        """So that a client that goes away is noticed."""
        gate = self.backend.hold("close")
        data = fragment(self.session_id, 0, b"hello", 5)
        peer = self.pipelining(packet(b"Ping") + data)
        self.turn()
        self.assertFalse(peer.paused)
        peer.send(packet(b"Ping") * 500)
        self.assertTrue(peer.paused)
        gate.open()
        self.assertEqual(self.answered(peer), [200, 200])
        while self.turns.calls:
            self.assertTrue(peer.paused)
            self.turn()
        self.assertEqual(self.answered(peer), [200] * 500)
        self.assertFalse(peer.paused)

    def test_much_behind_one_that_takes_long_is_not_added_to(self) -> None:
        gate = self.backend.hold("close")
        data = fragment(self.session_id, 0, b"hello", 5)
        peer = self.pipelining(packet(b"Ping") + data + packet(b"Ping") * 500)
        self.turn()
        self.assertTrue(peer.paused)
        gate.open()
        while self.turns.calls:
            self.turn()
        self.assertEqual(self.answered(peer), [200] * 502)
