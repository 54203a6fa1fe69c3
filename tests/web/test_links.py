"""
Upload links on the wire: every packet brings the link, and it is seen nowhere else.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.web.resource import Resource

from tests.web.support import Response, WebCase, fragment, packet, request
from txbits.access.links import Link, LinkAuthenticator, LinkKeys
from txbits.interfaces import Answer
from txbits.sessions import Settings
from txbits.testing.notifiers import HoldableNotifier
from txbits.web import BITSSite
from txbits.web.mounts import Mounts

KEYS = LinkKeys([b"k" * 32])
OTHER_KEYS = LinkKeys([b"K" * 32])
LINK = Link("12ab", "/", ("17",), True, 1_000_100, None, "anna", False)
FILE = b"/17/a.zip"
OTHER_FILE = b"/17/b.zip"
DATA = b"0123456789"


def target(link: Link = LINK, path: bytes = FILE, keys: LinkKeys = KEYS) -> bytes:
    """A request target with a link."""
    return path + b"?a=1&txbits-link=" + keys.sign(link).encode() + b"&b=2"


class LinkCase(WebCase):
    """A directory that accepts links only."""

    revoked: tuple[str, ...] = ()

    def setUp(self) -> None:
        super().setUp()
        self.serve_links()

    def serve_links(self, settings: Settings | None = None, **more: Any) -> None:
        authenticator = LinkAuthenticator(
            more.pop("keys", KEYS),
            revoked=more.pop("revoked", ()),
            grace=1000.0,
            wall=self.clock.seconds,
        )
        self.serve(settings, authenticators=[authenticator], **more)

    def send(self, session_id: bytes, at: bytes, first: int = 0) -> Response:
        return self.ask(fragment(session_id, first, DATA[first:], 10, target=at))

    def close(self, session_id: bytes, at: bytes) -> Response:
        return self.ask(packet(b"Close-Session", session_id, target=at))

    def upload(self, at: bytes) -> bytes:
        session_id = self.create(at)
        self.assert_success(self.send(session_id, at), session_id)
        self.assert_success(self.close(session_id, at), session_id)
        return session_id


class UploadTests(LinkCase):
    """What a link is good for."""

    def test_an_upload_with_a_link_in_every_packet(self) -> None:
        self.upload(target())
        self.assertEqual(self.memory.files["17", "a.zip"], DATA)

    def test_every_packet_needs_it(self) -> None:
        session_id = self.create(target())
        plain = FILE + b"?a=1&b=2"
        for ack in (
            self.ask(packet(b"Create-Session", target=plain)),
            self.send(session_id, plain),
            self.close(session_id, plain),
            self.ask(packet(b"Ping", target=plain)),
        ):
            self.assertEqual(ack.status, 401, ack)
            self.assertIsNone(ack["WWW-Authenticate"])

    def test_one_that_is_not_ours_is_refused(self) -> None:
        for at in (
            target(keys=OTHER_KEYS),
            target(evolve(LINK, mount="/other")),
            FILE + b"?txbits-link=garbage",
        ):
            ack = self.ask(packet(b"Create-Session", target=at))
            self.assert_refused(ack, "credentials-rejected")

    def test_a_file_outside_is_refused(self) -> None:
        for path in (b"/18/a", b"/17", b"/17/../18/a", b"/17/%2e%2e/a", b"/17%2Fa"):
            ack = self.ask(packet(b"Create-Session", target=target(path=path)))
            self.assert_refused(ack, "access-denied")

    def test_it_neither_overwrites_nor_downloads(self) -> None:
        self.serve_links(Settings(allow_overwrites=True, allow_downloads=True))
        self.upload(target())
        ack = self.ask(packet(b"Create-Session", target=target()))
        self.assert_refused(ack, "destination-exists")
        answer = self.ask(request(b"GET", target()))
        self.assertEqual(answer.status, 403)

    def test_a_file_that_is_too_long_is_refused(self) -> None:
        for most, status in ((9, 500), (10, 200)):
            at = target(evolve(LINK, max_size=most))
            self.assertEqual(self.send(self.create(at), at).status, status)

    def test_it_is_good_for_another_file_unless_it_is_good_once(self) -> None:
        self.upload(target())
        self.upload(target(path=OTHER_FILE))
        once = evolve(LINK, id="34cd", is_once=True)
        self.upload(target(once, b"/17/c.zip"))
        ack = self.ask(packet(b"Create-Session", target=target(once, b"/17/d.zip")))
        self.assert_refused(ack, "access-denied")

    def test_a_close_with_one_that_is_good_once_can_be_repeated(self) -> None:
        at = target(evolve(LINK, is_once=True))
        session_id = self.upload(at)
        self.assert_success(self.close(session_id, at), session_id)

    def test_links_of_different_names_have_different_sessions(self) -> None:
        session_id = self.create(target())
        other = target(evolve(LINK, id="34cd", name="bob"))
        self.assert_refused(
            self.send(session_id, other), "session-not-found", session_id
        )
        self.assert_success(self.send(session_id, target()), session_id)


class ExpiryTests(LinkCase):
    """The end of a link."""

    def test_an_upload_under_way_goes_on_when_it_expires(self) -> None:
        session_id = self.create(target())
        self.clock.advance(101)
        ack = self.ask(packet(b"Create-Session", target=target(path=OTHER_FILE)))
        self.assert_refused(ack, "credentials-rejected")
        self.assert_success(self.send(session_id, target()), session_id)
        self.assert_success(self.close(session_id, target()), session_id)

    def test_but_not_for_ever(self) -> None:
        session_id = self.create(target())
        self.clock.advance(1100)
        self.assert_refused(
            self.send(session_id, target()), "credentials-rejected", session_id
        )

    def test_the_next_packet_is_refused_when_it_is_revoked(self) -> None:
        session_id = self.create(target())
        self.serve_links(revoked=("anna",))
        self.assert_refused(
            self.send(session_id, target()), "credentials-rejected", session_id
        )

    def test_keys_are_replaced_one_after_the_other(self) -> None:
        session_id = self.create(target())
        new = b"n" * 32
        self.serve_links(keys=LinkKeys([new, b"k" * 32]))
        self.assert_success(self.send(session_id, target()), session_id)
        self.serve_links(keys=LinkKeys([new]))
        self.assert_refused(
            self.close(session_id, target()), "credentials-rejected", session_id
        )


class SecrecyTests(LinkCase):
    """Where the link is not seen."""

    def assert_silent_log(self, events: list[Any], *, at_least: int = 1) -> None:
        signed = KEYS.sign(LINK)
        self.assertGreaterEqual(len(events), at_least)
        for event in events:
            shown = formatEvent(event) + repr(
                {key: value for key, value in event.items() if key != "log_source"}
            )
            self.assertNotIn(signed.rpartition(".")[2], shown)

    def test_no_line_of_the_log_has_it(self) -> None:
        with capturedLogs() as events:
            self.upload(target())
            self.ask(packet(b"Create-Session", target=target(path=b"/18")))
            self.ask(packet(b"Nonsense", target=target()))
            self.ask(packet(b"Fragment", b"{}", target=target()))
            self.ask(request(b"GET", target()))
            self.clock.advance(2000)
            self.ask(packet(b"Create-Session", target=target()))
        self.assert_silent_log(events, at_least=6)

    def test_nor_one_about_a_url_that_is_not_mounted(self) -> None:
        self.site = self.bits_site(Mounts({(b"other",): Resource()}))
        with capturedLogs() as events:
            self.ask(packet(b"Create-Session", target=target()))
        self.assert_silent_log(events)
        self.assertIn("/17/a.zip?a=1&b=2", formatEvent(events[-1]))

    def test_nor_one_about_a_link_that_was_put_into_the_path(self) -> None:
        at = FILE + b"%3Ftxbits-link=" + KEYS.sign(LINK).encode()
        with capturedLogs() as events:
            ack = self.ask(packet(b"Create-Session", target=at))
        self.assert_refused(ack, "credentials-rejected")
        self.assert_silent_log(events)

    def test_nor_a_traceback(self) -> None:
        gate = self.backend.hold("create")
        with capturedLogs() as events:
            peer = self.peer()
            peer.send(packet(b"Create-Session", target=target()))
            gate.fail(ZeroDivisionError("a bug"))
            self.assertEqual(self.answer(peer).status, 500)
        self.assert_silent_log(events)
        self.assertTrue(any(one["log_level"] is LogLevel.critical for one in events))
        self.flushLoggedErrors(ZeroDivisionError)

    def test_nor_an_access_log(self) -> None:
        path = self.mktemp()
        site = BITSSite(self.resource, logPath=path, reactor=self.clock)
        site.startFactory()
        self.site = site
        self.create(target(), referer=b"https://a/" + target())
        site.stopFactory()
        with open(path) as file:
            line = file.read()
        self.assertIn("BITS_POST /17/a.zip?a=1&b=2 HTTP/1.1", line)
        self.assertNotIn("txbits-link", line)

    def test_nor_the_request_as_it_is_shown(self) -> None:
        seen: list[str] = []

        class Seen(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                seen.append(repr(request))
                return b""

        self.site = self.bits_site(Seen())
        self.ask(request(b"GET", target()))
        self.assertIn("/17/a.zip?a=1&b=2", seen[0])
        self.assertNotIn("txbits-link", seen[0])

    def test_a_server_application_gets_all_but_the_link(self) -> None:
        application = self.notifier = HoldableNotifier()
        self.serve_links()
        session_id = self.create(target())
        peer = self.peer()
        peer.send(fragment(session_id, 0, DATA, 10, target=target()))
        (asked,) = application.asked
        url = "http://upload.example/17/a.zip?a=1&b=2"
        self.assertEqual(asked.upload.request_url, url)
        writer = self.successResultOf(asked.reply.open())
        self.successResultOf(writer.write(b"reply"))
        self.successResultOf(writer.close())
        asked.answer(Answer(publishes=True))
        ack = self.answer(peer)
        self.assert_success(ack, session_id)
        where = ack["BITS-Reply-URL"]
        assert where is not None
        self.assertNotIn("?", where)
        path = where.removeprefix("http://upload.example").encode()
        self.assertEqual(self.ask(request(b"GET", path)).status, 401)
        found = self.ask(request(b"GET", target(path=path)))
        self.assertEqual((found.status, found.body), (200, b"reply"))
