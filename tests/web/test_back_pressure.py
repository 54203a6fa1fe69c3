"""
Back-pressure: a backend that takes its time holds the client back.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from tests.web.support import (
    Policy,
    StreamingCase,
    chunked,
    chunked_fragment,
    fragment,
)
from txbits.errors import BackendError


class BackPressureTests(StreamingCase):
    """A backend that takes its time holds the client back."""

    def test_held_write_pauses_the_transport(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        rest = self.send_until_paused(
            peer, fragment(session_id, 0, b"x" * 10_000, 10_000), 1000
        )
        self.assertTrue(peer.paused)
        self.assertGreater(len(rest), 8000)
        self.assertEqual((gate.waiting, self.held()), (1, b""))
        gate.open()
        self.assertFalse(peer.paused)
        self.assertEqual(self.send_until_paused(peer, rest, 1000), b"")
        self.assert_success(self.answer(peer), session_id)
        self.assertEqual(self.held(), b"x" * 10_000)

    def test_one_write_is_under_way_at_a_time(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        data = fragment(session_id, 0, bytes(range(256)) * 40, 10_240)
        while data:
            data = self.send_until_paused(peer, data, 700)
            self.assertLessEqual(gate.waiting, 1)
            gate.open()
            gate = self.backend.hold("write")
        self.assert_success(self.answer(peer), session_id)
        self.assertEqual(self.held(), bytes(range(256)) * 40)

    def test_what_one_read_delivered_waits_in_order(self) -> None:
        """A read of many chunks, each of which is a write."""
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        chunks = [b"%03d" % number for number in range(100)]
        peer.send(chunked_fragment(session_id, b"bytes 0-299/300", chunked(*chunks)))
        self.assertEqual(gate.waiting, 1)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assertEqual(self.held(), b"".join(chunks))

    def test_nothing_is_read_while_the_checks_take_their_time(self) -> None:
        session_id = self.create()
        for operation in ("open_writer", "policy"):
            policy = Policy()
            if operation == "policy":
                policy.answer = Deferred()
            self.serve(policy=policy)
            gate = self.backend.hold("open_writer")
            peer = self.peer()
            rest = self.send_until_paused(
                peer, fragment(session_id, 0, b"x" * 10_000, 10_000), 1000
            )
            self.assertGreater(len(rest), 7000)
            if isinstance(policy.answer, Deferred):
                policy.answer.callback(None)
            gate.open()
            self.send_until_paused(peer, rest, 1000)
            self.assert_success(self.answer(peer), session_id)

    def test_back_pressure_works_for_every_fragment_of_a_connection(self) -> None:
        """
        The last write of a fragment ends when its body has ended already; the next
        fragment must be held back all the same.
        """
        session_id = self.create()
        peer = self.peer()
        for number in range(4):
            opening = self.backend.hold("open_writer")
            writing = self.backend.hold("write")
            data = fragment(session_id, number * 4000, b"x" * 4000, 16_000)
            rest = self.send_until_paused(peer, data, 1000)
            self.assertGreater(len(rest), 2000, f"fragment {number}")
            opening.open()
            rest = self.send_until_paused(peer, rest, 1000)
            self.assertGreater(len(rest), 1000, f"fragment {number}")
            while rest:
                writing.open()
                writing = self.backend.hold("write")
                rest = self.send_until_paused(peer, rest, 1000)
            self.assert_silent(peer)
            writing.open()
            self.assert_success(self.answer(peer), session_id)
            self.assertFalse(peer.paused)

    def test_back_pressure_works_behind_a_fragment_that_waited_whole(self) -> None:
        """One whose body had ended before its checks, and then its write, did."""
        session_id = self.create()
        peer = self.peer()
        for body in (b"hello", chunked(b"he", b"llo")):
            opening, writing = (self.backend.hold(x) for x in ("open_writer", "write"))
            if body == b"hello":
                peer.send(fragment(session_id, 0, body, 10_010))
            else:
                peer.send(chunked_fragment(session_id, b"bytes 5-9/10010", body))
            opening.open()
            writing.open()
            self.assert_success(self.answer(peer), session_id)
        self.backend.hold("open_writer")
        rest = self.send_until_paused(
            peer, fragment(session_id, 10, b"x" * 10_000, 10_010), 1000
        )
        self.assertGreater(len(rest), 7000)

    def test_tiny_chunks_of_one_read_are_one_write(self) -> None:
        session_id = self.create()
        peer = self.peer()
        writing = self.backend.hold("write")
        body = chunked(*[b"x"] * 1000)
        peer.send(chunked_fragment(session_id, b"bytes 0-999/1000", body))
        self.assertEqual(writing.waiting, 1)
        writing._let_go(lambda call: call.callback(None))
        self.assert_success(self.answer(peer), session_id)
        self.assertEqual(self.held(), b"x" * 1000)

    def test_back_pressure_works_behind_a_fragment_of_many_held_writes(self) -> None:
        session_id = self.create()
        peer = self.peer()
        writing = self.backend.hold("write")
        body = chunked(b"hello", b"world", b"!")
        data = chunked_fragment(session_id, b"bytes 0-10/10011", body)
        # The first chunk in one read, the others in the next.
        peer.send(data[:-21])
        peer.send(data[-21:])
        for _ in range(2):
            self.assert_silent(peer)
            shut, waiting = writing, writing._calls
            self.assertEqual(len(waiting), 1)
            shut._let_go(lambda call: call.callback(None))
        self.assert_success(self.answer(peer), session_id)
        opening = self.backend.hold("open_writer")
        rest = self.send_until_paused(
            peer, fragment(session_id, 11, b"x" * 10_000, 10_011), 1000
        )
        self.assertGreater(len(rest), 7000)
        opening.open()
        writing.open()
        self.send_until_paused(peer, rest, 1000)
        self.assert_success(self.answer(peer), session_id)

    def test_a_peer_that_takes_its_answers_does_not_end_back_pressure(self) -> None:
        """The transport calls ``resumeProducing`` when its own buffer is empty."""
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        data = fragment(session_id, 0, b"x" * 10_000, 10_000)
        rest = self.send_until_paused(peer, data, 1000)
        producer = peer._transport.producer
        producer.pauseProducing()
        producer.resumeProducing()
        self.assertTrue(peer.paused)
        producer.pauseProducing()
        gate.open()
        self.assertTrue(peer.paused)
        producer.resumeProducing()
        self.assertFalse(peer.paused)
        self.send_until_paused(peer, rest, 1000)
        self.assert_success(self.answer(peer), session_id)

    def test_a_peer_that_takes_its_answers_late_is_read_again(self) -> None:
        """After a held last write as after any other."""
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 10))
        gate.open()
        producer = peer._transport.producer
        producer.pauseProducing()
        self.assert_success(self.answer(peer), session_id)
        producer.resumeProducing()
        self.assertFalse(peer.paused)
        ack = self.exchange(peer, fragment(session_id, 5, b"world", 10))
        self.assert_success(ack, session_id)

    def test_a_write_that_fails_is_answered_after_the_rest_was_drained(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        data = fragment(session_id, 0, b"x" * 10_000, 10_000)
        rest = self.send_until_paused(peer, data, 1000)
        gate.fail(BackendError("the store is away"))
        self.assertEqual(len(self.send_until_paused(peer, rest, 1000)), 0)
        self.assert_refused(self.answer(peer), "storage-fault", session_id)
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertFalse(peer.closed)
        gate.open()
        ack = self.exchange(peer, fragment(session_id, 0, b"x" * 10_000, 10_000))
        self.assert_success(ack, session_id)

    def test_a_write_fails_while_chunks_wait(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        held_close = self.backend.hold("close")
        peer = self.peer()
        peer.send(
            chunked_fragment(
                session_id, b"bytes 0-9/10", b"5\r\nhello\r\n1\r\nw\r\n1\r\no\r\n"
            )
        )
        gate.fail(BackendError("the store is away"))
        peer.send(b"3\r\nrld\r\n")
        self.assert_silent(peer)
        held_close.open()
        peer.send(b"0\r\n\r\n")
        self.assert_refused(self.answer(peer), "storage-fault", session_id)
        self.assertEqual(self.flushLoggedErrors(), [])
