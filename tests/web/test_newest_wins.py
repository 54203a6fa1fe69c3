"""
Newest wins: what happens when two requests want the same session.
"""

from __future__ import annotations

from tests.web.support import (
    StreamingCase,
    fragment,
    packet,
)
from txbits.testing.memory import Peer


class NewestWinsTests(StreamingCase):
    """A packet ends an older one whose body still arrives, on another connection."""

    def stall(self, session_id: bytes, sent: int = 5) -> Peer:
        """Send the beginning of a fragment of 10 bytes."""
        peer = self.peer()
        data = fragment(session_id, 0, b"helloworld", 10)
        peer.send(data[: len(data) - 10 + sent])
        self.assert_silent(peer)
        return peer

    def test_newer_fragment_is_served_and_the_older_connection_dropped(self) -> None:
        session_id = self.create()
        older, newer = self.stall(session_id), self.peer()
        ack = self.exchange(newer, fragment(session_id, 5, b"world", 10))
        self.assert_success(ack, session_id)
        self.assertEqual(ack["BITS-Received-Content-Range"], "10")
        self.assertTrue(older.aborted)
        self.assertEqual(older.received(), b"")
        self.assertEqual(self.held(), b"helloworld")
        self.assertEqual(self.statuses(newer), [])

    def test_newer_fragment_may_begin_anywhere_in_what_the_older_one_brought(
        self,
    ) -> None:
        for first in range(6):
            session_id = self.create()
            older = self.stall(session_id)
            data = fragment(session_id, first, b"helloworld"[first:], 10)
            self.assert_success(self.ask(data), session_id)
            self.assertTrue(older.aborted)
            self.assertEqual(self.held(), b"helloworld")
            self.ask(packet(b"Cancel-Session", session_id))

    def test_newer_fragment_waits_for_the_older_ones_writer(self) -> None:
        session_id = self.create()
        write, close = self.backend.hold("write"), self.backend.hold("close")
        older, newer = self.stall(session_id), self.peer()
        newer.send(fragment(session_id, 0, b"helloworld", 10))
        self.assertTrue(older.aborted)
        self.assert_silent(newer)
        self.assertEqual((write.waiting, close.waiting), (1, 0))
        write.open()
        self.assertEqual((self.held(), close.waiting), (b"hello", 1))
        self.assert_silent(newer)
        close.open()
        self.assert_success(self.answer(newer), session_id)
        self.assertEqual(self.held(), b"helloworld")

    def test_one_that_waits_is_dropped_though_its_body_is_whole(self) -> None:
        """Whether that came with its head or behind it."""
        for cut in (0, 5):
            session_id = self.create()
            gate = self.backend.hold("close")
            oldest, middle, newest = self.stall(session_id), self.peer(), self.peer()
            data = fragment(session_id, 0, b"helloworld", 10)
            middle.send(data[: len(data) - cut])
            middle.send(data[len(data) - cut :])
            newest.send(fragment(session_id, 5, b"world", 10))
            self.assertTrue(oldest.aborted and middle.aborted)
            gate.open()
            self.assert_success(self.answer(newest), session_id)
            self.assertEqual(self.held(), b"helloworld")
            self.ask(packet(b"Cancel-Session", session_id))

    def test_the_newest_of_three_wins(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        first, second, third = self.stall(session_id), self.peer(), self.peer()
        data = fragment(session_id, 0, b"helloworld", 10)
        second.send(data[:-1])
        third.send(data)
        self.assertTrue(first.aborted)
        self.assertTrue(second.aborted)
        self.assert_silent(third)
        gate.open()
        self.assert_success(self.answer(third), session_id)
        self.assertEqual((first.received(), second.received()), (b"", b""))
        self.assertEqual(self.held(), b"helloworld")

    def test_close_ends_a_stalled_fragment(self) -> None:
        session_id = self.create()
        older = self.stall(session_id)
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)
        self.assertTrue(older.aborted)
        self.assertEqual(self.memory._sessions, {})
        self.assertEqual(self.memory.files, {})

    def test_a_packet_that_fails_a_check_does_not_disturb_the_older_one(self) -> None:
        session_id = self.create()
        older = self.stall(session_id)
        for data, name in (
            (fragment(session_id, 6, b"orld", 10), "out-of-step"),
            (fragment(session_id, 0, b"helloworld", 11), "out-of-step"),
            (fragment(session_id, 5, b"wor", 10, target=b"/x"), "session-not-found"),
            (packet(b"Cancel-Session", session_id, target=b"/x"), "session-not-found"),
            (packet(b"Close-Session", session_id, body=b"x"), "unexpected-body"),
            (
                fragment(session_id, 5, b"world", 10, content_range=b"bytes 5-9/9"),
                "bad-range",
            ),
        ):
            ack = self.ask(data)
            if b"/11" in data:
                name = "total-changed"
            self.assert_refused(ack, name, session_id)
            self.assert_silent(older)
        older.send(b"world")
        self.assert_success(self.answer(older), session_id)

    def test_other_sessions_are_not_disturbed(self) -> None:
        one, other = self.create(), self.create(b"/other")
        peer = self.peer()
        peer.send(fragment(one, 0, b"hello", 5)[:-1])
        ack = self.ask(fragment(other, 0, b"hello", 5, target=b"/other"))
        self.assert_success(ack, other)
        peer.send(b"o")
        self.assert_success(self.answer(peer), one)

    def test_a_fragment_that_is_whole_is_not_lost(self) -> None:
        """Its Ack may be, but the newer packet finds its bytes."""
        session_id = self.create()
        gate = self.backend.hold("close")
        older, newer = self.peer(), self.peer()
        older.send(fragment(session_id, 0, b"hello", 10))
        newer.send(fragment(session_id, 5, b"world", 10))
        self.assert_silent(newer)
        gate.open()
        self.assert_success(self.answer(newer), session_id)
        self.assertEqual(self.held(), b"helloworld")
