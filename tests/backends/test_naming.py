"""
How sessions are shown to programmers.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from twisted.internet.defer import maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.disk import DiskBackend
from txbits.backends.memory import MemoryBackend
from txbits.interfaces import CompleteUpload, IBackend
from txbits.testing import HoldableBackend

_ID = UUID("0981f61b-4455-4591-bdc1-7b8e2e3a8417")


class ReprTests(SynchronousTestCase):
    """Sessions, and what holds one, are one line."""

    def session(self, backend: IBackend) -> Any:
        self.successResultOf(backend.start())
        self.addCleanup(lambda: self.successResultOf(backend.stop()))
        return self.successResultOf(
            backend.create(
                _ID,
                ("logs", "a.txt"),
                owner="alice",
                content_name=None,
                overwrite=False,
                create_directories=True,
            )
        )

    def assert_shown(self, session: Any, name: str) -> None:
        beginning = f"{name} 0981F61B-4455-4591-BDC1-7B8E2E3A8417 of 'logs/a.txt'"
        self.assertIn(f"<{beginning}: no bytes>", repr(session))
        writer = self.successResultOf(session.open_writer(10))
        self.successResultOf(writer.write(b"0123"))
        self.successResultOf(writer.close())
        self.assertIn(f"<{beginning}: 4 of 10 bytes>", repr(session))
        upload = CompleteUpload(session=session, request_url="", attempt=1, sha256=b"")
        self.assertLess(len(repr(upload)), 250)
        self.assertEqual(repr(upload).splitlines(), [repr(upload)])

    def test_in_memory(self) -> None:
        self.assert_shown(self.session(MemoryBackend(Clock())), "MemorySession")

    def test_on_disk(self) -> None:
        backend = DiskBackend(
            self.mktemp(),
            Clock(),
            in_thread=maybeDeferred,
            sync=lambda _: succeed(None),
        )
        self.assert_shown(self.session(backend), "DiskSession")

    def test_in_a_holdable_backend(self) -> None:
        backend = HoldableBackend(MemoryBackend(Clock()))
        self.assert_shown(self.session(backend), "MemorySession")
