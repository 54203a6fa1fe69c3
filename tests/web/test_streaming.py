"""
Bodies that stream: however they arrive they mean the same, and what arrived is kept.

How they are held back is in ``test_back_pressure``, which of two requests wins in
``test_newest_wins``, what becomes of bodies that nobody wants in ``test_refused_body``,
and what real sockets do in ``test_sockets``.
"""

from __future__ import annotations

from tests.web.support import (
    DESTINATION,
    UNKNOWN_ID,
    StreamingCase,
    chunked,
    chunked_fragment,
    fragment,
    packet,
)


class ArrivalTests(StreamingCase):
    """However the bytes arrive, they are understood the same."""

    def test_body_arrives_all_at_once(self) -> None:
        session_id = self.create()
        ack = self.ask(fragment(session_id, 0, b"hello", 5))
        self.assert_success(ack, session_id)
        self.assertEqual(self.held(), b"hello")

    def test_request_arrives_byte_by_byte(self) -> None:
        session_id = self.create()
        for data in (
            fragment(session_id, 0, b"hello", 10),
            chunked_fragment(session_id, b"bytes 5-9/10", chunked(b"w", b"orl", b"d")),
            packet(b"Close-Session", session_id),
        ):
            peer = self.peer()
            for index in range(len(data)):
                self.assert_silent(peer)
                peer.send(data[index : index + 1])
            self.assert_success(self.answer(peer), session_id)
            self.assertFalse(peer.closed)
        self.assertEqual(self.memory.files, {DESTINATION: b"helloworld"})

    def test_request_is_cut_at_every_place(self) -> None:
        session_id = self.create()
        data = fragment(session_id, 0, b"hello", 10)
        for cut in range(1, len(data)):
            peer = self.peer()
            peer.send(data[:cut])
            self.assert_silent(peer)
            peer.send(data[cut:])
            ack = self.answer(peer)
            self.assert_success(ack, session_id)
            self.assertEqual(ack["BITS-Received-Content-Range"], "5")

    def test_bytes_reach_the_writer_as_they_arrive(self) -> None:
        session_id = self.create()
        peer = self.peer()
        head, _, body = fragment(session_id, 0, b"hello", 5).partition(b"hello")
        peer.send(head)
        self.assertEqual(body, b"")
        for length in range(5):
            self.assertEqual(self.held(), b"hello"[:length])
            peer.send(b"hello"[length : length + 1])
        self.assertEqual(self.held(), b"hello")
        self.assert_success(self.answer(peer), session_id)

    def test_packets_are_pipelined(self) -> None:
        session_id = self.create()
        peer = self.peer()
        peer.send(
            packet(b"Ping")
            + fragment(session_id, 0, b"hello", 10)
            + packet(b"Ping")
            + fragment(session_id, 5, b"world", 10)
            + fragment(session_id, 9, b"!", 11)
            + packet(b"Close-Session", session_id)
            + packet(b"Cancel-Session", session_id)
        )
        self.assertEqual(self.statuses(peer), [200, 200, 200, 200, 400, 200, 500])
        self.assertEqual(self.memory.files, {DESTINATION: b"helloworld"})
        self.assertFalse(peer.closed)

    def test_pipelined_packets_are_cut_at_every_place(self) -> None:
        session_id = self.create()
        data = (
            fragment(session_id, 0, b"hello", 10)
            + chunked_fragment(session_id, b"bytes 5-9/10", chunked(b"wor", b"ld"))
            + fragment(UNKNOWN_ID, 0, b"refused", 7)
            + packet(b"Ping")
        )
        for cut in range(1, len(data)):
            peer = self.peer()
            peer.send(data[:cut])
            peer.send(data[cut:])
            self.assertEqual(self.statuses(peer), [200, 200, 500, 200])

    def test_body_that_looks_like_a_request_is_a_body(self) -> None:
        """Wherever it is cut, and whatever came before it."""
        inner = packet(b"Create-Session", target=b"/smuggled")
        data = fragment(UNKNOWN_ID, 0, inner, len(inner))
        head = len(data) - len(inner)
        for before in (b"", packet(b"Ping"), data):
            for cut in (head - 2, head, head + 1, len(data) - 1):
                peer = self.peer()
                peer.send(before + data[:cut])
                peer.send(data[cut:])
                expected = (
                    [500] if not before else [200 if before != data else 500, 500]
                )
                self.assertEqual(self.statuses(peer), expected)
                self.assertEqual(self.memory._sessions, {})

    def test_answers_come_in_the_order_of_the_packets(self) -> None:
        """However the packets lie in the reads that bring them."""
        session_id = self.create()
        for reads in (
            [[0], [1], [2]],
            [[0, 1], [2]],
            [[0], [1, 2]],
            [[0, 1, 2]],
        ):
            gate = self.backend.hold("close")
            packets = [
                packet(b"Ping"),
                fragment(session_id, 0, b"hello", 10),
                packet(b"Close-Session", UNKNOWN_ID),
            ]
            peer = self.peer()
            for read in reads:
                peer.send(b"".join(packets[one] for one in read))
            self.assertEqual(self.statuses(peer), [200], reads)
            gate.open()
            self.assertEqual(self.statuses(peer), [200, 500], reads)

    def test_pipelined_packet_waits_for_the_one_before_it(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("close")
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 10))
        peer.send(fragment(session_id, 5, b"world", 10))
        self.assert_silent(peer)
        self.assertEqual((gate.waiting, self.held()), (1, b"hello"))
        gate.open()
        self.assertEqual(self.statuses(peer), [200, 200])
        self.assertEqual(self.held(), b"helloworld")

    def test_empty_line_before_a_request_is_passed_over(self) -> None:
        peer = self.peer()
        peer.send(b"\r\n" + packet(b"Ping"))
        self.assertEqual(self.statuses(peer), [200])

    def test_header_may_be_folded(self) -> None:
        session_id = self.create()
        data = packet(b"Close-Session", session_id).replace(
            b"Bits-Session-Id: ", b"Bits-Session-Id:\r\n  "
        )
        self.assert_success(self.ask(data), session_id)

    def test_connection_is_kept_for_the_next_packet(self) -> None:
        peer = self.peer()
        for _ in range(50):
            self.assert_success(self.exchange(peer, packet(b"Ping")), None)
        self.assertFalse(peer.closed)

    def test_connection_is_closed_when_the_client_asks_for_it(self) -> None:
        session_id = self.create()
        for data in (
            packet(b"Ping", connection=b"close"),
            fragment(session_id, 0, b"hello", 5, connection=b"close"),
            fragment(UNKNOWN_ID, 0, b"hello", 5, connection=b"close"),
        ):
            peer = self.peer()
            self.assertEqual(self.exchange(peer, data)["Connection"], "close")
            self.assertTrue(peer.closed)
            self.assertFalse(peer.aborted)


class ChunkedTests(StreamingCase):
    """A Fragment without Content-Length, as python-onedrive sends it."""

    def test_chunked_body_of_the_right_length(self) -> None:
        session_id = self.create()
        for chunks in (
            (b"hello",),
            (b"h", b"e", b"llo"),
            tuple(b"%c" % c for c in b"x"),
        ):
            whole = b"".join(chunks)
            data = chunked_fragment(
                session_id, b"bytes 0-%d/5" % (len(whole) - 1), chunked(*chunks)
            )
            self.assert_success(self.ask(data), session_id)
        self.assertEqual(self.held(), b"hello")

    def test_chunks_reach_the_writer_as_they_arrive(self) -> None:
        session_id = self.create()
        peer = self.peer()
        peer.send(chunked_fragment(session_id, b"bytes 0-9/10", b"5\r\nhello\r\n"))
        self.assertEqual(self.held(), b"hello")
        peer.send(b"5;name=value\r\nwo")
        self.assertEqual(self.held(), b"hellowo")
        peer.send(b"rld\r\n0\r\nTrailer: ignored\r\n\r\n")
        self.assert_success(self.answer(peer), session_id)

    def test_short_chunked_body_is_refused_and_its_bytes_are_kept(self) -> None:
        session_id = self.create()
        peer = self.peer()
        data = chunked_fragment(session_id, b"bytes 0-9/10", chunked(b"hello"))
        self.assert_refused(self.exchange(peer, data), "bad-range", session_id)
        self.assertEqual(self.held(), b"hello")
        ack = self.exchange(peer, fragment(session_id, 5, b"world", 10))
        self.assert_success(ack, session_id)

    def test_long_chunked_body_is_refused_and_its_range_is_kept(self) -> None:
        for chunks in ((b"hello world",), (b"hello", b" ", b"world")):
            session_id = self.create()
            peer = self.peer()
            data = chunked_fragment(session_id, b"bytes 0-4/20", chunked(*chunks))
            self.assert_refused(self.exchange(peer, data), "bad-range", session_id)
            self.assertEqual(self.held(), b"hello")
            ack = self.exchange(peer, packet(b"Cancel-Session", session_id))
            self.assert_success(ack, session_id)

    def test_long_chunked_body_does_not_grow_the_file(self) -> None:
        session_id = self.create()
        data = chunked_fragment(session_id, b"bytes 0-4/5", chunked(b"hello", b"!"))
        self.assert_refused(self.ask(data), "bad-range", session_id)
        self.assertEqual(self.held(), b"hello")
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_overlap_of_a_chunked_body_is_skipped(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        data = chunked_fragment(
            session_id, b"bytes 2-9/10", chunked(b"?", b"?", b"?w", b"orl", b"d")
        )
        self.assert_success(self.ask(data), session_id)
        self.assertEqual(self.held(), b"helloworld")

    def test_malformed_chunk_ends_the_connection_and_keeps_the_prefix(self) -> None:
        for garbage in (b"nonsense\r\n", b"5\r\nworldXX", b"-1\r\n", b"x" * 5000):
            session_id = self.create()
            peer = self.peer()
            peer.send(
                chunked_fragment(
                    session_id, b"bytes 0-9/10", b"5\r\nhello\r\n" + garbage
                )
            )
            self.assertTrue(peer.closed)
            self.assertEqual(self.statuses(peer), [400])
            self.assertIn(self.held(), (b"hello", b"helloworld"))
            self.assert_success(
                self.ask(packet(b"Cancel-Session", session_id)), session_id
            )

    def test_chunked_body_beside_a_length_is_malformed(self) -> None:
        session_id = self.create()
        peer = self.peer()
        peer.send(
            packet(
                b"Fragment",
                session_id,
                body=b"0\r\n\r\n",
                content_range=b"bytes 0-4/5",
                transfer_encoding=b"chunked",
            )
        )
        self.assertEqual(self.statuses(peer), [400])
        self.assertTrue(peer.closed)

    def test_unknown_transfer_coding_is_malformed(self) -> None:
        peer = self.peer()
        peer.send(packet(b"Ping", content_length=None, transfer_encoding=b"gzip"))
        self.assertEqual(self.statuses(peer), [400])
        self.assertTrue(peer.closed)


class LossTests(StreamingCase):
    """What arrived in order before a connection is lost is kept."""

    def test_prefix_is_kept(self) -> None:
        session_id = self.create()
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello world", 11)[:-6])
        peer.lose()
        self.assertEqual(peer.received(), b"")
        self.assertEqual(self.held(), b"hello")
        ack = self.ask(fragment(session_id, 5, b" world", 11))
        self.assert_success(ack, session_id)
        self.ask(packet(b"Close-Session", session_id))
        self.assertEqual(self.memory.files, {DESTINATION: b"hello world"})

    def test_prefix_is_kept_when_a_write_is_held(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello world", 11)[:-6])
        peer.lose()
        gate.open()
        self.assertEqual(self.held(), b"hello")
        ack = self.ask(fragment(session_id, 5, b" world", 11))
        self.assert_success(ack, session_id)

    def test_prefix_is_kept_with_what_waited_behind_a_held_write(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        peer = self.peer()
        peer.send(
            chunked_fragment(
                session_id, b"bytes 0-9/10", b"5\r\nhello\r\n1\r\nw\r\n1\r\no\r\n"
            )
        )
        peer.lose()
        gate.open()
        self.assertEqual(self.held(), b"hellowo")

    def test_whole_body_is_kept_though_nobody_is_there_for_the_ack(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("close")
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 5))
        peer.lose()
        gate.open()
        self.assertEqual(peer.received(), b"")
        self.assertEqual(self.held(), b"hello")
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)

    def test_loss_before_the_checks_are_done(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("open_writer")
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello world", 11)[:-6])
        peer.lose()
        gate.open()
        self.assertEqual(self.held(), b"hello")
        self.assertEqual(peer.received(), b"")

    def test_loss_while_a_refused_body_is_drained(self) -> None:
        peer = self.peer()
        peer.send(fragment(UNKNOWN_ID, 0, b"hello world", 11)[:-6])
        peer.lose()
        self.assertEqual(peer.received(), b"")

    def test_loss_with_a_pipelined_packet_behind(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("close")
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 10))
        peer.send(fragment(session_id, 5, b"world", 10))
        peer.lose()
        gate.open()
        self.assertEqual(self.held(), b"hello")

    def test_loss_at_every_place_of_a_request(self) -> None:
        session_id = self.create()
        before = set(self.site.channels)
        data = fragment(session_id, 0, b"hello", 10)
        for cut in range(len(data)):
            peer = self.peer()
            peer.send(data[:cut])
            peer.lose()
            self.assertEqual(peer.received(), b"")
        self.assertEqual(self.held(), b"hell")
        self.assertEqual(set(self.site.channels), before)
