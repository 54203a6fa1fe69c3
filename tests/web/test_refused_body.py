"""
Bodies that nobody wants: ``Expect: 100-continue``, and how much of a refused body is
read.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides

from tests.web.support import (
    UNKNOWN_ID,
    Policy,
    Response,
    StreamingCase,
    chunked,
    chunked_fragment,
    fragment,
    packet,
    responses,
)
from txbits.testing.memory import Peer
from txbits.web._streaming import DRAIN_LIMIT

_MEBIBYTE = 1024 * 1024


class ExpectTests(StreamingCase):
    """``Expect: 100-continue`` is answered after the checks, by 100 or for good."""

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def head(self, session_id: bytes | None = None, **headers: bytes) -> bytes:
        """The head of a fragment of five bytes."""
        return fragment(
            self.session_id if session_id is None else session_id,
            0,
            b"hello",
            5,
            expect=b"100-continue",
            **headers,
        )[:-5]

    def test_continue_is_sent_once_when_the_checks_have_passed(self) -> None:
        peer = self.peer()
        peer.send(self.head())
        self.assertEqual(peer.received(), b"HTTP/1.1 100 Continue\r\n\r\n")
        peer.send(b"hel")
        self.assert_silent(peer)
        peer.send(b"lo")
        self.assert_success(self.answer(peer), self.session_id)
        self.assertFalse(peer.closed)

    def test_continue_waits_for_the_checks(self) -> None:
        policy = Policy()
        policy.answer = Deferred()
        self.serve(policy=policy)
        gate = self.backend.hold("open_writer")
        peer = self.peer()
        peer.send(self.head())
        self.assert_silent(peer)
        policy.answer.callback(None)
        self.assert_silent(peer)
        gate.open()
        self.assertEqual(self.statuses(peer), [100])
        peer.send(b"hello")
        self.assert_success(self.answer(peer), self.session_id)

    def test_refusal_is_final_and_no_continue_is_sent(self) -> None:
        for head, name, session_id in (
            (self.head(UNKNOWN_ID), "session-not-found", UNKNOWN_ID),
            (self.head(content_range=b"x"), "bad-range", self.session_id),
            (self.head(bits_packet_type=b"x"), "unknown-packet-type", self.session_id),
        ):
            peer = self.peer()
            ack = self.exchange(peer, head)
            self.assert_refused(ack, name, session_id)
            self.assertEqual(ack["Connection"], "close")
            self.assertTrue(peer.half_closed)
            # A client that sends its body all the same is not understood as another
            # request.
            peer.send(packet(b"Ping"))
            self.assertEqual(peer.received(), b"")

    def test_body_that_did_not_wait_is_taken(self) -> None:
        peer = self.peer()
        peer.send(self.head() + b"hello" + packet(b"Ping"))
        found = responses(peer.received())
        self.assertEqual([one.status for one in found if one.status >= 200], [200] * 2)
        self.assertLessEqual(len(found), 3)
        self.assertEqual(self.held(), b"hello")

    def test_refused_body_that_did_not_wait(self) -> None:
        peer = self.peer()
        ack = self.exchange(peer, self.head(UNKNOWN_ID) + b"hello" + packet(b"Ping"))
        self.assert_refused(ack, "session-not-found", UNKNOWN_ID)

    def test_value_is_compared_without_regard_to_case(self) -> None:
        peer = self.peer()
        peer.send(self.head().replace(b"100-continue", b"100-Continue"))
        self.assertEqual(self.statuses(peer), [100])

    def test_http_1_0_is_sent_no_continue(self) -> None:
        peer = self.peer()
        peer.send(self.head().replace(b"HTTP/1.1", b"HTTP/1.0"))
        self.assert_silent(peer)
        peer.send(b"hello")
        self.assert_success(self.answer(peer), self.session_id)
        self.assertTrue(peer.closed)

    def test_packet_without_body_is_refused_without_continue(self) -> None:
        ack = self.ask(packet(b"Nonsense", expect=b"100-continue"))
        self.assert_refused(ack, "unknown-packet-type")

    def test_chunked_body_is_waited_for(self) -> None:
        peer = self.peer()
        data = chunked_fragment(
            self.session_id, b"bytes 0-4/5", b"", expect=b"100-continue"
        )
        peer.send(data)
        self.assertEqual(self.statuses(peer), [100])
        peer.send(chunked(b"hello"))
        self.assert_success(self.answer(peer), self.session_id)

    def test_loss_while_the_checks_take_their_time(self) -> None:
        gate = self.backend.hold("open_writer")
        peer = self.peer()
        peer.send(self.head())
        peer.lose()
        gate.open()
        self.assertEqual(peer.received(), b"")
        self.assertEqual(self.held(), b"")


class RefusedBodyTests(StreamingCase):
    """A refused body is read up to a bound, so that the answer is read as well."""

    def test_refused_body_is_drained_and_the_connection_goes_on(self) -> None:
        peer = self.peer()
        data = fragment(UNKNOWN_ID, 0, b"x" * 100_000, 100_000)
        peer.send(data[:-1])
        self.assert_silent(peer)
        self.assertFalse(peer.paused)
        ack = self.exchange(peer, data[-1:])
        self.assert_refused(ack, "session-not-found", UNKNOWN_ID)
        self.assertIsNone(ack["Connection"])
        self.assert_success(self.exchange(peer, packet(b"Ping")), None)

    def test_refused_body_is_drained_up_to_the_bound(self) -> None:
        peer = self.peer()
        length = DRAIN_LIMIT
        data = fragment(UNKNOWN_ID, 0, b"", 5, content_length=b"%d" % length)
        data = data.replace(b"bytes 0--1/5", b"bytes 0-%d/%d" % (length - 1, length))
        peer.send(data)
        for _ in range(length // _MEBIBYTE):
            self.assert_silent(peer)
            peer.send(b"x" * _MEBIBYTE)
        ack = self.answer(peer)
        self.assert_refused(ack, "session-not-found", UNKNOWN_ID)
        self.assert_success(self.exchange(peer, packet(b"Ping")), None)

    def beyond(self, body: bytes = b"") -> tuple[Peer, Response]:
        """Have a fragment refused that is too long to drain."""
        peer = self.peer()
        length = DRAIN_LIMIT + 1
        data = packet(
            b"Fragment",
            UNKNOWN_ID,
            content_length=b"%d" % length,
            content_range=b"bytes 0-%d/%d" % (length - 1, length),
            body=body,
        )
        return peer, self.exchange(peer, data)

    def test_beyond_the_bound_the_answer_comes_first_and_closes(self) -> None:
        for body in (b"", b"x", b"x" * 100_000, packet(b"Ping")):
            peer, ack = self.beyond(body)
            self.assert_refused(ack, "session-not-found", UNKNOWN_ID)
            self.assertEqual(ack["Connection"], "close")
            self.assertTrue(peer.half_closed)
            self.assertFalse(peer.closed)
            self.assertFalse(peer.paused)

    def test_beyond_the_bound_the_rest_is_discarded(self) -> None:
        peer, _ = self.beyond()
        for _ in range(15):
            peer.send(b"x" * _MEBIBYTE)
            self.assert_silent(peer)
        peer.lost(ConnectionError())
        self.assertEqual(self.site.channels, {})

    def test_beyond_the_bound_not_everything_is_discarded(self) -> None:
        peer, _ = self.beyond()
        for _ in range(20):
            peer.send(b"x" * _MEBIBYTE)
        self.assertTrue(peer.aborted)

    def test_beyond_the_bound_the_connection_is_closed_after_a_while(self) -> None:
        peer, _ = self.beyond()
        self.clock.advance(20)
        self.assertFalse(peer.closed)
        peer.send(b"x")
        self.clock.pump([5] * 3)
        self.assertTrue(peer.closed)

    def test_beyond_the_bound_over_tls_no_half_of_the_socket_is_closed(self) -> None:
        """TLS does not know of it, and fails when the peer says its goodbye."""
        peer = self.peer()
        alsoProvides(peer._transport, ISSLTransport)
        peer.send(packet(b"Ping", UNKNOWN_ID, content_length=b"%d" % 10**9))
        self.assertEqual(self.answer(peer)["Connection"], "close")
        self.assertFalse(peer.half_closed)
        self.clock.pump([5] * 8)
        self.assertTrue(peer.closed)

    def test_refusal_that_comes_late_beyond_the_bound(self) -> None:
        """Some of the body has been read by then."""
        policy = Policy()
        policy.answer = Deferred()
        self.serve(policy=policy)
        peer = self.peer()
        length = 2 * DRAIN_LIMIT
        data = packet(
            b"Fragment",
            UNKNOWN_ID,
            content_length=b"%d" % length,
            content_range=b"bytes 0-%d/%d" % (length - 1, length),
            body=b"x" * 10_000,
        )
        peer.send(data)
        self.assertTrue(peer.paused)
        policy.answer.callback(None)
        ack = self.answer(peer)
        self.assert_refused(ack, "session-not-found", UNKNOWN_ID)
        self.assertEqual(ack["Connection"], "close")
        self.assertFalse(peer.paused)
        peer.send(b"x" * 10_000)
        self.assert_silent(peer)

    def test_refused_chunked_body_is_drained(self) -> None:
        for body in (chunked(), chunked(b"hello"), chunked(*[b"x" * 100] * 100)):
            peer = self.peer()
            data = chunked_fragment(UNKNOWN_ID, b"bytes 0-4/5", body)
            peer.send(data[:-1])
            self.assert_silent(peer)
            ack = self.exchange(peer, data[-1:])
            self.assert_refused(ack, "session-not-found", UNKNOWN_ID)
            self.assert_success(self.exchange(peer, packet(b"Ping")), None)

    def test_refused_chunked_body_beyond_the_bound_is_answered_at_the_bound(
        self,
    ) -> None:
        """However the chunks lie in what one read brings."""
        for chunk in (_MEBIBYTE, 1000, 300_000):
            peer = self.peer()
            peer.send(chunked_fragment(UNKNOWN_ID, b"bytes 0-4/5", b""))
            piece = b"%x\r\n%b\r\n" % (chunk, b"x" * chunk)
            stream = piece * (DRAIN_LIMIT // chunk + 3)
            sent = 0
            while sent < len(stream) and not peer.half_closed:
                self.assert_silent(peer)
                peer.send(stream[sent : sent + 256 * 1024])
                sent += 256 * 1024
            ack = self.answer(peer)
            self.assert_refused(ack, "session-not-found", UNKNOWN_ID)
            self.assertEqual(ack["Connection"], "close")
            self.assertFalse(peer.paused)
            peer.send(piece)
            self.clock.pump([5] * 8)
            self.assertTrue(peer.closed)

    def test_refused_chunked_body_ends_in_the_read_that_crosses_the_bound(
        self,
    ) -> None:
        peer = self.peer()
        peer.send(chunked_fragment(UNKNOWN_ID, b"bytes 0-4/5", b""))
        piece = b"%x\r\n%b\r\n" % (_MEBIBYTE, b"x" * _MEBIBYTE)
        for _ in range(DRAIN_LIMIT // _MEBIBYTE):
            peer.send(piece)
        self.assert_silent(peer)
        peer.send(b"1\r\nx\r\n1\r\nx\r\n0\r\n\r\n" + packet(b"Ping"))
        ack = responses(peer.received())[0]
        self.assert_refused(ack, "session-not-found", UNKNOWN_ID)

    def test_refused_chunked_body_that_turns_out_malformed(self) -> None:
        peer = self.peer()
        peer.send(
            chunked_fragment(UNKNOWN_ID, b"bytes 0-4/5", b"5\r\nhello\r\nxyz\r\n")
        )
        self.assertTrue(peer.closed)
        self.assertEqual(len(self.statuses(peer)), 1)
