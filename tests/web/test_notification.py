"""
A server application behind the web: what its client sees while it is asked, and that no
byte of an Ack leaves before nothing of the asking is left.
"""

from __future__ import annotations

from twisted.web.server import Site

from tests.web.support import (
    DESTINATION,
    PATH,
    WebCase,
    fragment,
    packet,
    responses,
)
from txbits.errors import ApplicationRefused
from txbits.interfaces import Answer
from txbits.testing import HoldableNotifier
from txbits.testing.memory import Peer
from txbits.testing.notifiers import Asked

URL = "https://application.example/replies/1"


class NotifiedCase(WebCase):
    """A directory with an application that answers when a test says so."""

    def setUp(self) -> None:
        self.application = self.notifier = HoldableNotifier()
        super().setUp()

    @property
    def asked(self) -> Asked:
        """The last time that the application was asked."""
        return self.application.asked[-1]

    def last(self, session_id: bytes, peer: Peer | None = None) -> Peer:
        """The last fragment arrives; the connection that it came on."""
        peer = self.peer() if peer is None else peer
        peer.send(fragment(session_id, 0, b"hello", 5))
        return peer

    def asking(self) -> tuple[bytes, Peer]:
        """A session that the application is asked about, and who waits for it."""
        session_id = self.create()
        peer = self.last(session_id)
        self.assert_silent(peer)
        return session_id, peer


class AskingTests(NotifiedCase):
    """The Ack of the last fragment waits for the application."""

    def test_the_ack_waits_for_the_answer(self) -> None:
        session_id, peer = self.asking()
        self.clock.advance(600)
        self.assert_silent(peer)
        self.asked.answer(Answer(publishes=True))
        ack = self.answer(peer)
        self.assert_success(ack, session_id)
        self.assertEqual(ack["BITS-Received-Content-Range"], "5")
        self.assertIsNone(ack["BITS-Reply-URL"])

    def test_the_connection_goes_on_afterwards(self) -> None:
        session_id, peer = self.asking()
        self.asked.answer(Answer(publishes=True))
        self.answer(peer)
        ack = self.exchange(peer, packet(b"Close-Session", session_id))
        self.assert_success(ack, session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_only_the_last_ack_has_the_url_of_the_reply(self) -> None:
        session_id = self.create_holding(b"he", 5)
        peer = self.last(session_id)
        self.asked.answer(Answer(reply_url=URL))
        for ack in (
            self.answer(peer),
            self.ask(fragment(session_id, 2, b"llo", 5)),
        ):
            self.assertEqual(ack["BITS-Reply-URL"], URL)
        ack = self.ask(packet(b"Close-Session", session_id))
        self.assertIsNone(ack["BITS-Reply-URL"])

    def test_the_url_is_as_the_client_gave_it(self) -> None:
        for target, host, expected in (
            (b"/a/b.txt?x=1&y=%20", b"upload.example", None),
            (b"/a/%C3%A4.txt", b"upload.example:8080", None),
            (
                b"http://other.example/a/c.txt?z",
                b"other.example",
                "http://other.example/a/c.txt?z",
            ),
        ):
            session_id = self.create(target, host=host)
            peer = self.peer()
            peer.send(fragment(session_id, 0, b"hello", 5, target=target, host=host))
            plain = f"http://{host.decode()}{target.decode('latin-1')}"
            self.assertEqual(self.asked.upload.request_url, expected or plain)

    def test_close_of_an_empty_file_asks_with_its_url(self) -> None:
        session_id = self.create()
        peer = self.peer()
        peer.send(packet(b"Close-Session", session_id))
        self.assert_silent(peer)
        url = "http://upload.example" + PATH.decode()
        self.assertEqual(self.asked.upload.request_url, url)
        self.asked.answer(Answer(publishes=True))
        self.assert_success(self.answer(peer), session_id)

    def test_403_is_answered_again_without_asking(self) -> None:
        session_id, peer = self.asking()
        self.asked.fail(ApplicationRefused("the secret is 42", 403))
        for ack in (
            self.answer(peer),
            self.answer(self.last(session_id)),
            self.ask(packet(b"Close-Session", session_id)),
        ):
            self.assert_refused(ack, "application-refused", session_id, 403)
            self.assertEqual(ack["BITS-Error-Code"], "0x80190193")
        self.assertEqual(len(self.application.asked), 1)

    def test_a_client_that_goes_away_is_not_answered_and_ends_nothing(self) -> None:
        session_id, peer = self.asking()
        peer.lose()
        self.assertFalse(self.asked.is_aborted)
        self.asked.answer(Answer(publishes=True))
        self.assertEqual(peer.received(), b"")
        self.assert_success(self.answer(self.last(session_id)), session_id)
        self.assertEqual(len(self.application.asked), 1)


class JoiningTests(NotifiedCase):
    """Packets that come while the application is asked."""

    def test_the_older_request_is_dropped_and_the_newer_answered(self) -> None:
        session_id, first = self.asking()
        second = self.last(session_id)
        self.assertTrue(first.closed)
        self.assertEqual(first.received(), b"")
        self.assert_silent(second)
        self.asked.answer(Answer(publishes=True))
        self.assert_success(self.answer(second), session_id)
        self.assertEqual(len(self.application.asked), 1)

    def test_a_close_that_waits_is_dropped_as_well(self) -> None:
        session_id, first = self.asking()
        older, newer = self.peer(), self.peer()
        for peer in (older, newer):
            peer.send(packet(b"Close-Session", session_id))
        for peer in (first, older):
            self.assertTrue(peer.closed)
            self.assertEqual(peer.received(), b"")
        self.asked.answer(Answer(publishes=True))
        self.assert_success(self.answer(newer), session_id)

    def test_in_a_plain_site_as_well(self) -> None:
        site = Site(self.resource, reactor=self.clock)
        site.startFactory()
        self.addCleanup(site.stopFactory)
        session_id = self.create()
        first, second = (
            self.last(session_id, Peer(site, "192.0.2.1")) for _ in range(2)
        )
        self.assertTrue(first.closed)
        self.assertEqual(first.received(), b"")
        self.asked.answer(Answer(publishes=True))
        (ack,) = responses(second.received())
        self.assertEqual(ack.status, 200)


class ReleaseBeforeAckTests(NotifiedCase):
    """Cancel ends the asking, and waits for its end, before it is acknowledged."""

    def cancel(self, session_id: bytes) -> Peer:
        peer = self.peer()
        peer.send(packet(b"Cancel-Session", session_id))
        return peer

    def assert_nothing_left(self) -> None:
        self.assertEqual((self.memory._sessions, dict(self.memory.files)), ({}, {}))

    def test_no_byte_leaves_before_the_asking_is_over(self) -> None:
        session_id, waiting = self.asking()
        ends, release = self.application.hold_ends(), self.backend.hold("release")
        peer = self.cancel(session_id)
        self.assertTrue(self.asked.is_aborted)
        self.assertTrue(waiting.closed)
        self.assertEqual(waiting.received(), b"")
        self.assertEqual(release.waiting, 0)
        self.assert_silent(peer)
        ends.open()
        self.assertEqual(release.waiting, 1)
        self.assert_silent(peer)
        release.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()

    def test_no_byte_leaves_before_the_reply_is_gone(self) -> None:
        session_id, _ = self.asking()
        writer = self.successResultOf(self.asked.reply.open())
        writes, closes = self.backend.hold("write"), self.backend.hold("close")
        release = self.backend.hold("release")
        writer.write(b"well done")
        peer = self.cancel(session_id)
        for gate in (writes, closes, release):
            self.assertEqual(gate.waiting, 1)
            self.assert_silent(peer)
            gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()

    def test_nor_while_the_answer_is_being_stored(self) -> None:
        session_id, _ = self.asking()
        gate = self.backend.hold("keep_answer")
        self.asked.answer(Answer(publishes=True))
        peer = self.cancel(session_id)
        self.assertEqual(gate.waiting, 1)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()

    def test_two_cancels_share_it_all(self) -> None:
        session_id, _ = self.asking()
        ends = self.application.hold_ends()
        peers = [self.cancel(session_id), self.cancel(session_id)]
        for peer in peers:
            self.assert_silent(peer)
        ends.open()
        for peer in peers:
            self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()
