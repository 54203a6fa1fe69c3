"""
Connections in raw bytes: what is an answer, and what is none.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from txbits.check._wire import MAX_BODY, MAX_HEAD, Silence, Unanswered, Wire

ACK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nBITS-Packet-Type: Ack\r\n\r\n"


class WireTests(SynchronousTestCase):
    """A connection whose other end is the test."""

    def setUp(self):
        self.clock = Clock()
        self.wire = Wire(self.clock, 5)
        self.transport = StringTransport()
        self.wire.makeConnection(self.transport)

    def answer(self):
        return Deferred.fromCoroutine(self.wire.answer())

    def answer_to(self, data):
        self.wire.dataReceived(data)
        return self.successResultOf(self.answer())

    def refusal_of(self, data):
        self.wire.dataReceived(data)
        return str(self.failureResultOf(self.answer(), Unanswered).value)

    def test_an_answer_comes_byte_for_byte(self):
        waiting = self.answer()
        for byte in ACK:
            self.assertNoResult(waiting)
            self.wire.dataReceived(bytes([byte]))
        answer = self.successResultOf(waiting)
        self.assertEqual((answer.status, answer.version), (200, "1.1"))
        self.assertEqual(answer.first(b"bits-packet-type"), b"Ack")
        self.assertTrue(self.wire.is_usable)

    def test_two_answers_come_at_once(self):
        self.assertEqual(self.answer_to(ACK + ACK.replace(b"200", b"500")).status, 200)
        self.assertEqual(self.successResultOf(self.answer()).status, 500)

    def test_a_body_is_taken_by_its_length(self):
        answer = self.answer_to(
            b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\nbody" + ACK
        )
        self.assertEqual(answer.body, b"body")
        self.assertEqual(self.successResultOf(self.answer()).status, 200)

    def test_a_body_comes_in_chunks(self):
        head = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n"
        waiting = self.answer()
        for part in (head, b"3\r\nab", b"c\r\n2;x\r\nde\r\n0\r", b"\n\r\n"):
            self.assertNoResult(waiting)
            self.wire.dataReceived(part)
        self.assertEqual(self.successResultOf(waiting).body, b"abcde")
        self.assertFalse(self.wire.is_usable)

    def test_what_comes_before_an_answer_is_passed_over(self):
        answer = self.answer_to(b"HTTP/1.1 102 Processing\r\n\r\n" + ACK)
        self.assertEqual(answer.status, 200)

    def test_continue_is_waited_for(self):
        waiting = Deferred.fromCoroutine(self.wire.continues())
        self.assertNoResult(waiting)
        self.wire.dataReceived(b"HTTP/1.1 100 Continue\r\n\r\n" + ACK)
        self.assertTrue(self.successResultOf(waiting))
        self.assertEqual(self.successResultOf(self.answer()).status, 200)

    def test_another_answer_in_its_place_is_left(self):
        self.wire.dataReceived(ACK)
        waiting = Deferred.fromCoroutine(self.wire.continues())
        self.assertFalse(self.successResultOf(waiting))
        self.assertEqual(self.successResultOf(self.answer()).status, 200)

    def test_silence_in_its_place_is_no_continue(self):
        waiting = Deferred.fromCoroutine(self.wire.continues())
        self.clock.advance(5)
        self.assertFalse(self.successResultOf(waiting))

    def test_silence_has_an_end(self):
        waiting = self.answer()
        self.clock.advance(4.9)
        self.assertNoResult(waiting)
        self.clock.advance(0.1)
        self.failureResultOf(waiting, Silence)

    def test_a_server_that_says_something_now_and_then_has_an_end(self):
        for said in (
            b"HTTP/1.1 102 Processing\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA:",
            b"x",
        ):
            self.setUp()
            waiting = self.answer()
            for _ in range(4):
                self.wire.dataReceived(said)
                self.assertNoResult(waiting)
                self.clock.advance(1.25)
            self.failureResultOf(waiting, Silence)

    def test_so_has_one_that_does_not_close(self):
        waiting = Deferred.fromCoroutine(self.wire.until_closed())
        for _ in range(4):
            self.wire.dataReceived(b"x")
            self.assertNoResult(waiting)
            self.clock.advance(1.25)
        self.assertFalse(self.successResultOf(waiting))

    def test_connections_that_cannot_be_kept_are_used_up(self):
        for data in (
            ACK.replace(b"1.1", b"1.0"),
            ACK.replace(b"Content-Length: 0", b"Connection: Close"),
            ACK.replace(b"Content-Length: 0\r\n", b""),
        ):
            self.setUp()
            self.answer_to(data)
            self.assertFalse(self.wire.is_usable, data)

    def test_what_is_no_http_is_no_answer(self):
        words = self.refusal_of(b"SSH-2.0-server\r\n\r\n")
        self.assertEqual(words, "the answer is not HTTP: illegal status line")

    def test_what_is_no_header_is_no_answer(self):
        for line in (b"no colon", b": no name", b"Space : x"):
            self.setUp()
            words = self.refusal_of(b"HTTP/1.1 200 OK\r\n" + line + b"\r\n\r\n")
            self.assertEqual(words, "the answer is not HTTP: illegal header line")

    def test_what_is_no_length_is_no_answer(self):
        for value in (b"-1", b"x", b"9" * 30):
            self.setUp()
            words = self.refusal_of(ACK.replace(b"Length: 0", b"Length: " + value))
            self.assertIn("Content-Length", words)

    def test_long_bodies_are_no_answer(self):
        long = b"%d" % (MAX_BODY + 1)
        self.assertIn("over", self.refusal_of(ACK.replace(b": 0", b": " + long)))
        self.setUp()
        head = b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\n"
        chunk = b"%x\r\n" % (MAX_BODY + 1) + bytes(MAX_BODY + 1)
        self.assertIn("over", self.refusal_of(head + chunk))

    def test_heads_without_end_are_no_answer(self):
        self.assertIn("head", self.refusal_of(b"HTTP/1.1 200 OK\r\n" + b"x" * MAX_HEAD))

    def test_a_flood_ends_the_connection(self):
        for _ in range(3):
            self.wire.dataReceived(bytes(MAX_HEAD))
        self.assertTrue(self.transport.disconnecting or self.transport.disconnected)

    def test_the_end_of_the_connection_is_no_answer(self):
        self.wire.dataReceived(ACK[:-1])
        waiting = self.answer()
        self.wire.connectionLost()
        self.failureResultOf(waiting, Unanswered)
        self.assertFalse(self.wire.is_usable)

    def test_what_came_before_the_end_is_an_answer(self):
        self.wire.dataReceived(ACK)
        self.wire.connectionLost()
        self.assertEqual(self.successResultOf(self.answer()).status, 200)

    def test_after_the_end_nothing_is_sent(self):
        self.wire.connectionLost()
        self.wire.send(b"x")
        self.wire.end()
        self.wire.drop()
        self.assertEqual(self.transport.value(), b"")

    def test_the_end_is_waited_for(self):
        waiting = Deferred.fromCoroutine(self.wire.until_closed())
        self.wire.dataReceived(ACK)
        self.assertNoResult(waiting)
        self.wire.connectionLost()
        self.assertTrue(self.successResultOf(waiting))

    def test_but_not_for_ever(self):
        waiting = Deferred.fromCoroutine(self.wire.until_closed())
        self.clock.advance(5)
        self.assertFalse(self.successResultOf(waiting))
