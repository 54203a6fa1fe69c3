"""
A disk whose clock is not this machine's, such as one of a file server.
"""

from __future__ import annotations

import errno
import os
import time

from twisted.internet import reactor

from tests.backends.disk.mortal import DiskCase, MortalFiles
from txbits.backends.disk import DiskBackend

DAYS = 20 * 86_400.0


class DiskClockTests(DiskCase):
    """The machine's clock is another than the one by which files are dated."""

    def elsewhere(self, root, ahead):
        """A started backend on a machine whose clock is ahead of the disk's."""
        backend = DiskBackend(
            root,
            reactor,
            in_thread=self.in_thread,
            files=MortalFiles(),  # type: ignore[arg-type]
            wall=lambda: time.time() + ahead,
        )
        self.successResultOf(backend.start())
        self.addCleanup(lambda: self.successResultOf(backend.stop()))
        return backend

    def test_progress_from_before_a_restart_is_as_old_as_it_is(self):
        for ahead in (DAYS, -DAYS):
            backend = self.elsewhere(self.mktemp(), ahead)
            session = self.create(backend)
            self.append(session, 10, b"hello")
            backend._files.die()
            again = self.elsewhere(backend.root, ahead)
            found = self.successResultOf(again.find(session.session_id))
            (summary,) = self.successResultOf(again.sessions())
            for one in (session, found, summary):
                self.assertTrue(abs(one.last_progress - time.time() - ahead) < 60)

    def test_the_tick_of_a_clock_is_no_difference(self):
        backend = self.start()
        session = self.create(backend)
        self.append(session, 10, b"hello")
        again = self.reopened(backend)
        found = self.successResultOf(again.find(session.session_id))
        part = f"{str(session.session_id).upper()}.part"
        path = os.path.join(again.root, ".bits-sessions", part)
        self.assertEqual(found.last_progress, os.stat(path).st_mtime)

    def test_a_disk_that_cannot_be_asked_is_taken_for_right(self):
        backend = self.disk(self.mktemp())
        backend._files.fail("utime", errno.EPERM)
        self.successResultOf(backend.start())
        self.addCleanup(lambda: self.successResultOf(backend.stop()))
        self.complete(backend)
        (summary,) = self.successResultOf(backend.sessions())
        self.assertTrue(abs(summary.last_progress - time.time()) < 60)
