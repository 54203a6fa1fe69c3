"""
The settings of a directory change while it serves: what clients notice of that.
"""

from __future__ import annotations

from zope.interface import classImplementsOnly

from tests.web.support import PATH, WebCase, fragment, packet, request
from txbits.backends.memory import MemoryBackend
from txbits.errors import InvalidSetting
from txbits.interfaces import IBackend, IDownloadable
from txbits.sessions import Settings
from txbits.testing import HoldableNotifier
from txbits.web import BITSResource


class NoDownloads(MemoryBackend):
    """A backend whose files cannot be read."""


classImplementsOnly(NoDownloads, IBackend)


class ReconfigureTests(WebCase):
    """``BITSResource.reconfigure``."""

    def change(self, settings: Settings | None = None, **more: object) -> None:
        changed = self.resource.reconfigure(settings or Settings(), **more)  # type: ignore[arg-type]
        self.successResultOf(changed)

    def test_host_ids_are_those_of_the_moment(self) -> None:
        for host_id in (None, "node-1", "node-2:8080", None):
            self.change(Settings(host_id=host_id))
            ack = self.ask(packet(b"Create-Session"))
            self.assertEqual(ack["BITS-Host-Id"], host_id)

    def test_an_upload_goes_on_under_its_own_rules(self) -> None:
        peer = self.peer()
        session_id = self.create()
        whole = fragment(session_id, 0, b"0123456789", 10)
        peer.send(whole[:-5])
        self.change(Settings(max_upload_size=5, max_fragment_size=5))
        peer.send(whole[-5:])
        self.assert_success(self.answer(peer), session_id)
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)
        session_id = self.create(b"/other")
        ack = self.ask(fragment(session_id, 0, b"012345", 6, target=b"/other"))
        self.assert_refused(ack, "upload-too-large", session_id)

    def test_downloads_come_and_go(self) -> None:
        self.memory.files["a", "b.txt"] = b"hello"
        for is_allowed in (False, True, False):
            self.change(Settings(allow_downloads=is_allowed))
            answer = self.ask(request(b"GET", PATH))
            self.assertEqual(answer.status, 200 if is_allowed else 405)

    def test_disabled_all_its_urls_answer_501(self) -> None:
        self.memory.files["a", "b.txt"] = b"hello"
        self.change(Settings(allow_downloads=True))
        session_id = self.create(b"/other")
        self.change(Settings(allow_downloads=True, enabled=False))
        for data in (
            packet(b"Ping"),
            packet(b"Create-Session"),
            fragment(session_id, 0, b"x", 1, target=b"/other"),
            packet(b"Close-Session", session_id, target=b"/other"),
            packet(b"Cancel-Session", session_id, target=b"/other"),
            request(b"GET", PATH),
            request(b"HEAD", PATH),
        ):
            self.assertEqual(self.ask(data).status, 501)
        self.assertEqual(self.memory._sessions, {})
        self.change(Settings(allow_downloads=True))
        self.assertEqual(self.ask(request(b"GET", PATH)).body, b"hello")

    def test_a_fragment_under_way_is_dropped_when_it_is_disabled(self) -> None:
        peer = self.peer()
        session_id = self.create()
        peer.send(fragment(session_id, 0, b"0123456789", 10)[:-5])
        self.change(Settings(enabled=False))
        self.assertTrue(peer.closed)
        self.assertEqual(peer.received(), b"")
        ack = self.ask(fragment(session_id, 0, b"0123456789", 10))
        self.assert_refused(ack, "uploads-disabled", session_id)

    def test_what_cannot_be_changes_nothing(self) -> None:
        settings = Settings(session_limit=1)
        before = self.resource.origins
        for wrong in (
            {"public_url": "nonsense"},
            {"trusted_proxies": ["nonsense"]},
        ):
            with self.assertRaises(InvalidSetting):
                self.resource.reconfigure(settings, **wrong)  # type: ignore[arg-type]
        self.assertEqual(self.resource.manager.settings, Settings())
        self.assertIs(self.resource.origins, before)

    def test_what_the_backend_is_not_fit_for_changes_nothing(self) -> None:
        resource = BITSResource(NoDownloads(self.clock), reactor=self.clock)
        self.assertFalse(IDownloadable.providedBy(resource.manager.backend))
        with self.assertRaises(InvalidSetting):
            resource.reconfigure(Settings(allow_downloads=True))
        with self.assertRaises(InvalidSetting):
            resource.reconfigure(Settings(), notifier=HoldableNotifier())
        self.assertEqual(resource.manager.settings, Settings())
        self.assertIsNone(resource.manager.notifier)
