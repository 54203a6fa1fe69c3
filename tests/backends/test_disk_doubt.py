"""
Sessions on disk that a crash of the machine may have taken bytes from.
"""

from __future__ import annotations

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
        again = DiskBackend(
            backend.root,
            backend._reactor,
            fsync=fsync,
            in_thread=self.in_thread,
            booted=lambda: time.time() + booted,
        )
        backend._files.die()
        self.successResultOf(again.start())
        self.addCleanup(lambda: self.successResultOf(again.stop()))
        return self.successResultOf(again.find(session_id)).in_doubt

    def test_a_crash_of_the_process_alone_raises_no_doubt(self):
        self.assertFalse(self.found_after(-_DAY))

    def test_one_that_was_written_to_before_the_machine_was_started_is_in_doubt(self):
        self.assertTrue(self.found_after(_DAY))

    def test_clocks_may_be_wrong_by_some_seconds(self):
        self.assertTrue(self.found_after(-5.0))

    def test_what_was_fsynced_before_each_ack_is_never_in_doubt(self):
        self.assertFalse(self.found_after(_DAY, "fragment"))

    def test_the_machine_tells_when_it_was_started(self):
        booted = self.disk(self.mktemp())._booted()
        self.assertTrue(0 < booted < time.time())
