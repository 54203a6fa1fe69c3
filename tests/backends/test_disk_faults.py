"""
The disk backend on disks that are full or broken.
"""

from __future__ import annotations

import errno
import os
from uuid import uuid4

from tests.backends.mortal import DiskCase
from txbits.backends._staging import RESERVE
from txbits.errors import BackendError, OutOfSpace


class FullDiskTests(DiskCase):
    """No space, foreseen and not."""

    def test_a_file_that_cannot_fit_is_refused_before_its_first_byte(self):
        backend = self.start()
        session = self.create(backend)
        backend._files.free = RESERVE + 1000
        self.failureResultOf(session.open_writer(1001), OutOfSpace)
        self.assertIsNone(session.total)
        self.successResultOf(session.open_writer(1000))

    def test_only_what_is_still_to_come_has_to_fit(self):
        backend = self.start()
        session = self.create(backend)
        self.append(session, 10, b"123456")
        backend._files.free = RESERVE + 4
        writer = self.successResultOf(session.open_writer(10))
        self.successResultOf(writer.close())
        backend._files.free = RESERVE + 3
        self.failureResultOf(session.open_writer(10), OutOfSpace)

    def test_a_complete_upload_needs_no_space(self):
        backend = self.start()
        session = self.complete(backend)
        backend._files.free = 0
        self.append(session, 5, b"")
        empty = self.create(backend, ("empty",))
        self.append(empty, 0, b"")
        self.successResultOf(self.publish(session))

    def test_what_was_stored_before_the_disk_was_full_is_kept(self):
        backend = self.start()
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(10))
        self.successResultOf(writer.write(b"123"))
        backend._files.room = 2
        self.failureResultOf(writer.write(b"45678"), OutOfSpace)
        self.assertEqual(session.offset, 5)
        self.successResultOf(writer.close())
        backend._files.room = None
        again = self.reopened(backend)
        found = self.successResultOf(again.find(session.session_id))
        self.assertEqual(found.offset, 5)
        self.append(found, 10, b"67890")
        self.successResultOf(self.publish(found))
        self.assertEqual(self.published(again, ("name.txt",)), b"1234567890")

    def test_quotas_and_length_limits_are_no_space_either(self):
        backend = self.start()
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(10))
        for number in (errno.EDQUOT, errno.EFBIG, errno.ENOSPC):
            backend._files.fail("pwrite", number)
            self.failureResultOf(writer.write(b"1"), OutOfSpace)
        self.assertEqual(session.offset, 0)

    def test_no_space_for_a_session_leaves_nothing(self):
        backend = self.start()
        for name in ("mkdir", "open", "pwrite"):
            backend._files.fail(name, errno.ENOSPC)
            self.failureResultOf(self.creation(backend), OutOfSpace)
            self.assertEqual(self.leftovers(backend), [])
        backend._files.room = 7
        self.failureResultOf(self.creation(backend), OutOfSpace)
        self.assertEqual(self.leftovers(backend), [])

    def test_no_space_for_publishing_may_pass(self):
        backend = self.start()
        session = self.complete(backend)
        backend._files.fail("link", errno.ENOSPC)
        self.failureResultOf(self.publish(session), OutOfSpace)
        self.successResultOf(self.publish(session))


class BrokenDiskTests(DiskCase):
    """Calls that fail."""

    def test_every_fault_is_a_backend_error_with_its_cause(self):
        backend = self.start()
        session = self.complete(backend)
        one = uuid4()
        for name, call in (
            ("open", lambda: session.open_writer(5)),
            ("statvfs", lambda: session.open_writer(5)),
            ("link", lambda: self.publish(session)),
            ("listdir", lambda: backend.find(session.session_id)),
            ("listdir", backend.sessions),
            ("listdir", lambda: backend.clean_up(0.0)),
            ("mknod", lambda: backend.remember_close(one, ("a",), None)),
            ("lstat", lambda: backend.recalls_close(one, ("a",), None)),
            ("lstat", lambda: self.creation(backend, ("other",))),
            ("mkdir", lambda: self.creation(backend, ("other",))),
            ("rename", session.release),
        ):
            backend._files.fail(name, errno.EIO)
            failure = self.failureResultOf(call(), BackendError)
            self.assertIs(type(failure.value), BackendError)
            self.assertIsInstance(failure.value.__cause__, OSError)
        self.flushLoggedErrors()

    def test_bytes_that_fsync_could_not_store_have_to_come_again(self):
        self.fsync = "fragment"
        backend = self.start()
        session = self.create(backend)
        self.append(session, 9, b"sure")
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(b"maybe"))
        backend._files.fail("fsync", errno.EIO)
        self.failureResultOf(writer.close(), BackendError)
        self.assertEqual(session.offset, 4)
        self.append(session, 9, b"again")
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(backend, ("name.txt",)), b"sureagain")

    def test_a_file_that_fsync_could_not_store_is_never_published(self):
        backend = self.start()
        session = self.complete(backend)
        backend._files.fail("fsync", errno.EIO)
        self.failureResultOf(self.publish(session), BackendError)
        self.assertEqual(session.offset, 0)
        self.failureResultOf(self.publish(session), BackendError)
        self.assertIsNone(self.published(backend, ("name.txt",)))
        self.append(session, 5, b"again")
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(backend, ("name.txt",)), b"again")

    def test_a_directory_that_fsync_could_not_store_is_tried_again(self):
        backend = self.start()
        session = self.complete(backend)
        fsync = backend._files.fsync
        calls = []

        def second_fails(fd):
            calls.append(fd)
            if len(calls) == 2:
                raise OSError(errno.EIO, "the second one")
            fsync(fd)

        backend._files.fsync = second_fails
        self.failureResultOf(self.publish(session), BackendError)
        self.assertFalse(session.published)
        self.successResultOf(self.publish(session))
        self.assertEqual(len(calls), 3)
        self.assertEqual(self.published(backend, ("name.txt",)), b"whole")

    def test_a_file_found_published_is_made_safe_before_that_is_told(self):
        backend = self.start()
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        again = self.reopened(backend)
        again._files.calls.clear()
        again._files.fail("fsync", errno.EIO)
        self.failureResultOf(again.find(session.session_id), BackendError)
        found = self.successResultOf(again.find(session.session_id))
        self.assertTrue(found.published)

    def test_a_published_file_may_be_taken_away_with_its_directory(self):
        backend = self.start()
        session = self.complete(backend, ("a", "b"), create_directories=True)
        self.successResultOf(self.publish(session, create_directories=True))
        os.unlink(os.path.join(backend.root, "a", "b"))
        os.rmdir(os.path.join(backend.root, "a"))
        again = self.reopened(backend)
        self.assertTrue(self.successResultOf(again.find(session.session_id)).published)

    def test_a_close_that_fails_tells_what_is_there(self):
        backend = self.start()
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(b"lost"))
        os.truncate(session.address(), 2)
        backend._files.fail("close", errno.EIO)
        self.failureResultOf(writer.close(), BackendError)
        self.assertEqual(session.offset, 2)
        self.successResultOf(writer.close())
        self.append(session, 9, b"1234567")

    def test_a_file_system_that_stores_nothing_does_not_hang(self):
        backend = self.start()
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(9))
        backend._files.pwrite = lambda fd, data, offset: 0
        self.failureResultOf(writer.write(b"x"), BackendError)
