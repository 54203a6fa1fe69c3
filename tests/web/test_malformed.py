"""
What is no packet, or not even HTTP: old clients, broken ones, and arbitrary bytes.

Nothing is raised, nothing is logged as an error, nothing hangs, and every answer is
HTTP.
"""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.web.support import (
    DESTINATION,
    UNKNOWN_ID,
    WebCase,
    chunked,
    chunked_fragment,
    fragment,
    packet,
    responses,
)
from txbits.backends.memory import MemoryBackend
from txbits.testing.memory import Peer
from txbits.web import BITSResource, BITSSite


class OldAndBrokenClientTests(WebCase):
    """HTTP/1.0, and what is no HTTP at all."""

    def test_http_1_0_is_answered_and_closed(self) -> None:
        session_id = self.create()
        for data in (
            fragment(session_id, 0, b"hello", 5),
            fragment(UNKNOWN_ID, 0, b"hello", 5),
            packet(b"Close-Session", session_id),
        ):
            peer = self.peer()
            ack = self.exchange(peer, data.replace(b"HTTP/1.1", b"HTTP/1.0"))
            self.assert_ack(ack)
            self.assertTrue(peer.closed)
            self.assertFalse(peer.aborted)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_http_1_0_packet_that_is_pipelined_is_not_served(self) -> None:
        peer = self.peer()
        data = packet(b"Ping").replace(b"HTTP/1.1", b"HTTP/1.0")
        self.assert_success(self.exchange(peer, data * 3), None)
        self.assertTrue(peer.closed)

    def test_malformed_http_is_answered_with_400_and_closed(self) -> None:
        good = packet(b"Ping")
        for data in (
            b"nonsense\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
            b"BITS_POST /a\r\n\r\n",
            b"BITS_POST /a b HTTP/1.1\r\n\r\n",
            b"BITS_POST /a HTTP/2.0\r\n\r\n",
            b"BITS_POST  /a HTTP/1.1\r\n\r\n",
            b"BITS POST /a HTTP/1.1\r\n\r\n",
            b"BITS_POST /\xff\xfe HTTP/1.1\r\n\r\n",
            good.replace(b"Host:", b"Ho st:"),
            good.replace(b"Host: ", b"Host "),
            good.replace(b"Host:", b":"),
            good.replace(b"Host: ", b"Host: \x00"),
            good.replace(b"Length: 0", b"Length: -1"),
            good.replace(b"Length: 0", b"Length: 0x1"),
            good.replace(b"Length: 0", b"Length: 1_0"),
            good.replace(b"Length: 0", b"Length: "),
            good.replace(b"Length: 0", b"Length: 0\r\nContent-Length: 0"),
            good.replace(b"Length: 0", b"Length: " + b"9" * 5000),
        ):
            for size in (len(data), 1):
                peer = self.peer()
                for start in range(0, len(data), size):
                    peer.send(data[start : start + size])
                written = peer.received()
                self.assertTrue(
                    written.startswith(b"HTTP/1.1 400 "), (data[:100], written)
                )
                self.assertEqual(len(responses(written)), 1, data[:100])
                self.assertTrue(peer.closed, data[:100])

    def test_too_many_headers_are_refused(self) -> None:
        data = packet(b"Ping", **{f"x_{number}": b"x" for number in range(200)})
        peer = self.peer()
        peer.send(data)
        self.assertTrue(peer.received().startswith(b"HTTP/1.1 400 "))
        self.assertTrue(peer.closed)

    def test_head_that_does_not_end_is_refused(self) -> None:
        for piece in (b"x", b"X-Header: x\r\n", b"X-Header: " + b"x" * 900 + b"\r\n"):
            for size in (1000, 60_000, 200_000):
                peer = self.peer()
                peer.send(b"BITS_POST /a HTTP/1.1\r\n")
                data = piece * (200_000 // len(piece))
                for start in range(0, len(data), size):
                    peer.send(data[start : start + size])
                self.assertTrue(peer.closed, (piece[:20], size))
                self.assertTrue(peer.received().startswith(b"HTTP/1.1 400 "))

    def test_head_of_one_piece_and_in_pieces_has_the_same_limit(self) -> None:
        for length, is_served in ((60_000, True), (66_000, False)):
            data = packet(b"Ping", cookie=b"x" * length)
            for size in (len(data), 1000):
                peer = self.peer()
                for start in range(0, len(data), size):
                    peer.send(data[start : start + size])
                (answer,) = responses(peer.received())
                self.assertEqual(answer.status, 200 if is_served else 400)

    def test_requests_after_a_malformed_one_are_not_served(self) -> None:
        peer = self.peer()
        peer.send(b"nonsense\r\n\r\n" + packet(b"Create-Session"))
        self.assertEqual(self.memory._sessions, {})
        self.assertEqual(len(responses(peer.received())), 1)


#: Pieces from which something like a request can be put together.
_TOKENS = st.sampled_from(
    [
        b"BITS_POST ",
        b"POST ",
        b"GET ",
        b"/a/b.txt",
        b"http://x/a",
        b"*",
        b" HTTP/1.1\r\n",
        b" HTTP/1.0\r\n",
        b"\r\n",
        b"\r\n\r\n",
        b"\n",
        b"Host: x\r\n",
        b"BITS-Packet-Type: Fragment\r\n",
        b"BITS-Packet-Type: Create-Session\r\n",
        b"BITS-Packet-Type: Ping\r\n",
        b"BITS-Session-Id: " + UNKNOWN_ID + b"\r\n",
        b"Content-Range: bytes 0-4/5\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 99999999999999999999\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: identity\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"Content-Type: application/x-www-form-urlencoded\r\n",
        b"Content-Type: multipart/form-data; boundary=x\r\n",
        b" folded\r\n",
        b"hello",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        packet(b"Ping"),
        fragment(UNKNOWN_ID, 0, b"hello", 5),
        chunked_fragment(UNKNOWN_ID, b"bytes 0-4/5", chunked(b"hello")),
    ]
)


class ArbitraryBytesTests(SynchronousTestCase):
    """What need not be HTTP."""

    def setUp(self) -> None:
        self.clock = Clock()
        resource = BITSResource(MemoryBackend(self.clock), reactor=self.clock)
        self.successResultOf(resource.manager.start())
        self.site = BITSSite(resource, reactor=self.clock)

    def receive(self, pieces: list[bytes]) -> None:
        """
        Have a fresh connection receive them: nothing is raised, and nothing is logged
        as an error, or trial would say so.
        """
        peer = Peer(self.site)
        for piece in pieces:
            if not peer.paused:
                peer.send(piece)
        written = peer.received()
        peer.lose()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertNotIn(b"Traceback", written)
        for answer in responses(written):
            if answer.status >= 500:
                self.assertIsNotNone(answer["BITS-Error-Code"], answer)
        self.assertEqual(self.site.channels, {})

    @given(st.lists(st.binary(max_size=400), max_size=6))
    def test_arbitrary_bytes_do_no_harm(self, pieces: list[bytes]) -> None:
        self.receive(pieces)

    @given(st.lists(_TOKENS, max_size=25), st.lists(st.integers(0, 600), max_size=4))
    @settings(max_examples=300)
    def test_what_resembles_a_request_does_no_harm(
        self, tokens: list[bytes], cuts: list[int]
    ) -> None:
        data = b"".join(tokens)
        edges = sorted({cut for cut in cuts if cut < len(data)} | {0, len(data)})
        self.receive([data[start:end] for start, end in pairwise(edges)])

    @given(st.lists(_TOKENS, max_size=25), st.lists(st.integers(0, 600), max_size=4))
    @settings(max_examples=200)
    def test_bytes_mean_the_same_however_they_arrive(
        self, tokens: list[bytes], cuts: list[int]
    ) -> None:
        """Heads that arrive in one piece are read in another way than others."""
        data = b"".join(tokens)
        edges = sorted({cut for cut in cuts if cut < len(data)} | {0, len(data)})
        outcomes = []
        for pieces in (
            [data],
            [data[at : at + 1] for at in range(len(data))],
            [data[start:end] for start, end in pairwise(edges)],
        ):
            self.setUp()
            peer = Peer(self.site)
            for piece in pieces:
                peer.send(piece)
            outcomes.append(
                (
                    [
                        (one.status, one["BITS-Error-Code"], one["Connection"])
                        for one in responses(peer.received())
                    ],
                    peer.closed,
                    peer.half_closed,
                )
            )
            peer.lose()
        self.assertEqual(outcomes[0], outcomes[1])
        self.assertEqual(outcomes[0], outcomes[2])

    @given(
        st.sampled_from(
            [
                packet(b"Create-Session"),
                fragment(UNKNOWN_ID, 0, b"hello", 5),
                chunked_fragment(UNKNOWN_ID, b"bytes 0-4/5", chunked(b"hello")),
            ]
        ),
        st.data(),
    )
    @settings(max_examples=300)
    def test_a_request_with_some_bytes_changed_does_no_harm(
        self, data: bytes, choice: st.DataObject
    ) -> None:
        changed = bytearray(data)
        for _ in range(choice.draw(st.integers(1, 4))):
            where = choice.draw(st.integers(0, len(changed) - 1))
            changed[where : where + choice.draw(st.integers(0, 3))] = choice.draw(
                st.binary(max_size=3)
            )
        cut = choice.draw(st.integers(0, len(changed)))
        self.receive([bytes(changed[:cut]), bytes(changed[cut:])])
