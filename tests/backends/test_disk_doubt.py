"""
Sessions on disk that a crash of the machine may have taken bytes from.
"""

from __future__ import annotations

import os
import time
from uuid import uuid4

from tests.backends.mortal import DiskCase
from txbits.backends.disk import DiskBackend

_DAY = 24 * 3600.0


class DoubtTests(DiskCase):
    """The page cache survives the process, but not the machine."""

    def found_after(self, booted: float, fsync: str = "close") -> bool:
        """
        Whether a session is in doubt that was written to just now.

        :param booted: When the machine was started, in seconds from now.
        """
        self.fsync = fsync
        backend = self.start()
        session_id = uuid4()
        session = self.successResultOf(
            backend.create(
                session_id,
                ("a.txt",),
                owner=None,
                content_name=None,
                overwrite=False,
                create_directories=False,
            )
        )
        self.assertFalse(session.in_doubt)
        writer = self.successResultOf(session.open_writer(10))
        self.successResultOf(writer.write(b"hello"))
        self.successResultOf(writer.close())
        again = self.after_boot(backend, booted)
        return self.successResultOf(again.find(session_id)).in_doubt

    def after_boot(self, backend: DiskBackend, booted: float) -> DiskBackend:
        """The same store, after the machine was started so many seconds from now."""
        again = DiskBackend(
            backend.root,
            backend._reactor,
            fsync=self.fsync,
            in_thread=self.in_thread,
            booted=lambda: time.time() + booted,
        )
        backend._files.die()
        self.successResultOf(again.start())
        self.addCleanup(lambda: self.successResultOf(again.stop()))
        return again

    def test_a_crash_of_the_process_alone_raises_no_doubt(self):
        self.assertFalse(self.found_after(-_DAY))

    def test_one_that_was_written_to_before_the_machine_was_started_is_in_doubt(self):
        self.assertTrue(self.found_after(_DAY))

    def test_a_length_that_is_ahead_of_the_bytes_is_cut_off(self):
        """What a crash of the machine may leave reads as zeros, and is a hole."""
        backend = self.start()
        session = self.create(backend)
        self.append(session, 3 << 20, bytes(1 << 20))
        os.truncate(session.address(), 3 << 20)
        again = self.after_boot(backend, _DAY)
        found = self.successResultOf(again.find(session.session_id))
        self.assertTrue(found.in_doubt)
        self.assertEqual((found.total, found.offset), (3 << 20, 1 << 20))
        self.assertEqual(os.path.getsize(found.address()), 1 << 20)

    def test_a_link_that_a_crash_has_lost_is_made_again(self):
        backend = self.start()
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        os.unlink(os.path.join(backend.root, "name.txt"))
        again = self.after_boot(backend, _DAY)
        found = self.successResultOf(again.find(session.session_id))
        self.assertFalse(found.published)
        self.successResultOf(self.publish(found))
        self.assertEqual(self.published(again, ("name.txt",)), b"whole")

    def test_clocks_may_be_wrong_by_some_seconds(self):
        self.assertTrue(self.found_after(-5.0))

    def test_what_was_fsynced_before_each_ack_is_never_in_doubt(self):
        self.assertFalse(self.found_after(_DAY, "fragment"))

    def test_the_machine_tells_when_it_was_started(self):
        booted = self.disk(self.mktemp())._booted()
        self.assertTrue(0 < booted < time.time())
