"""
The disk backend on disks that are full or broken.
"""

from __future__ import annotations

import errno
import os
from itertools import count
from uuid import uuid4

from tests.backends.disk.mortal import DiskCase
from txbits._accounts import system_user
from txbits.backends.disk._staging import RESERVE
from txbits.errors import BackendError, OutOfSpace


class FullDiskTests(DiskCase):
    """No space, foreseen and not."""

    def setUp(self):
        self.now = 1e9
        self.wall = lambda: self.now

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
        self.now += 1
        backend._files.free = RESERVE + 4
        writer = self.successResultOf(session.open_writer(10))
        self.successResultOf(writer.close())
        backend._files.free = RESERVE + 3
        self.failureResultOf(session.open_writer(10), OutOfSpace)

    def test_plenty_of_space_is_looked_up_once_a_moment(self):
        backend = self.start()
        sessions = [self.create(backend, (name,)) for name in "abcd"]
        backend._files.free = RESERVE + 10
        self.successResultOf(sessions[0].open_writer(6))
        backend._files.free = RESERVE + 5
        self.successResultOf(sessions[1].open_writer(4))
        # No more is left of what there was.
        self.failureResultOf(sessions[2].open_writer(6), OutOfSpace)
        self.successResultOf(sessions[2].open_writer(4))
        backend._files.free = 0
        self.now += 1
        self.failureResultOf(sessions[3].open_writer(1), OutOfSpace)

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
        # The record of the second is too long for the table.
        for destination in (("name.txt",), tuple("abcdefgh" * 30)):
            for name in ("open", "pwrite"):
                if name == "open" and len(destination) == 1:
                    continue  # nothing is
                backend._files.fail(name, errno.ENOSPC)
                creation = self.creation(backend, destination, create_directories=True)
                self.failureResultOf(creation, OutOfSpace)
                self.assertEqual(self.leftovers(backend), [])
            backend._files.room = 7
            creation = self.creation(backend, destination, create_directories=True)
            self.failureResultOf(creation, OutOfSpace)
            backend._files.room = None
            again = self.reopened(backend)
            self.assertEqual(self.successResultOf(again.sessions()), [])
            self.successResultOf(again.clean_up(0.0))
            self.assertEqual(self.leftovers(again), [])
            backend = again

    def test_no_space_for_publishing_may_pass(self):
        backend = self.start()
        session = self.complete(backend)
        backend._files.fail("link", errno.ENOSPC)
        self.failureResultOf(self.publish(session), OutOfSpace)
        self.successResultOf(self.publish(session))


class TroubleTests(DiskCase):
    """What an operator reads of a trouble: where, who, and what to do, in one line."""

    def text(self, failing):
        text = str(self.failureResultOf(failing, BackendError).value)
        self.assertNotIn("\n", text)
        self.assertNotIn("Errno", text)
        return text

    def test_a_full_disk_names_the_root_and_a_remedy(self):
        backend = self.start()
        session = self.create(backend)
        backend._files.free = RESERVE
        self.assertEqual(
            self.text(session.open_writer(1)),
            f"{backend.root}: 1 bytes do not fit, 0 are free; free some space",
        )
        backend._files.free = None
        writer = self.successResultOf(session.open_writer(1))
        backend._files.room = 0
        full = f"{backend.root}: No space left on device; free some space"
        self.assertIn(full, self.text(writer.write(b"x")))
        self.assertIn(full, self.text(self.creation(backend, ("other",))))

    def test_a_directory_that_may_not_be_written_to_names_the_user(self):
        backend = self.start()
        os.mkdir(os.path.join(backend.root, "a"))
        session = self.complete(backend, ("a", "b"))
        for rename, overwrite in (("link", False), ("rename", True)):
            backend._files.fail(rename, errno.EACCES)
            self.assertEqual(
                self.text(self.publish(session, overwrite=overwrite)),
                f"{backend.root}/a: Permission denied; let user {system_user()} write "
                "there",
            )
        other = self.create(backend)
        backend._files.fail("open", errno.EACCES)
        text = self.text(other.open_writer(5))
        self.assertTrue(text.startswith(f"{backend.root}: Permission denied"), text)

    def test_a_read_only_file_system_names_the_remedy(self):
        backend = self.start()
        session = self.complete(backend)
        backend._files.fail("link", errno.EROFS)
        self.assertEqual(
            self.text(self.publish(session)),
            f"{backend.root}: Read-only file system; mount the file system for writing",
        )


class BrokenDiskTests(DiskCase):
    """Calls that fail."""

    def test_every_fault_is_a_backend_error_with_its_cause(self):
        # Nothing that was looked up before is good enough.
        self.wall = count(1e9).__next__
        backend = self.start()
        session = self.complete(backend)
        one = uuid4()
        for name, call in (
            ("open", lambda: session.open_writer(5)),
            ("statvfs", lambda: session.open_writer(5)),
            ("link", lambda: self.publish(session)),
            ("pread", lambda: backend.find(session.session_id)),
            ("listdir", lambda: backend.clean_up(0.0)),
            ("pwrite", lambda: session.release(remember=True)),
            ("listdir", lambda: backend.recalls_close(one, ("a",), None)),
            ("lstat", lambda: self.creation(backend, ("other",))),
            ("pwrite", lambda: self.creation(backend, ("other",))),
            ("unlink", session.release),
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
        """Neither one that is made safe before it is asked for, nor a long one."""
        for size in (5, 2 << 20):
            backend = self.start()
            session = self.create(backend)
            writer = self.successResultOf(session.open_writer(size))
            self.successResultOf(writer.write(bytes(size)))
            backend._files.fail("fsync", errno.EIO)
            self.successResultOf(writer.close())
            self.failureResultOf(self.publish(session), BackendError)
            self.assertEqual(session.offset, 0)
            self.failureResultOf(self.publish(session), BackendError)
            self.assertIsNone(self.published(backend, ("name.txt",)))
            self.append(session, size, b"again" + bytes(size - 5))
            self.successResultOf(self.publish(session))
            there = self.published(backend, ("name.txt",))
            self.assertEqual(there, b"again" + bytes(size - 5))

    def test_a_directory_that_fsync_could_not_store_is_tried_again(self):
        for overwrite in (False, True):
            backend = self.start()
            session = self.complete(backend, overwrite=overwrite)
            fsync = backend._files.fsync
            calls = []

            def first_fails(
                fd, calls=calls, root=backend._staging.tree.fd, fsync=fsync
            ):
                calls.append(fd)
                if calls.count(root) == 1:
                    raise OSError(errno.EIO, "the first one")
                fsync(fd)

            backend._files.fsync = first_fails
            self.failureResultOf(self.publish(session, overwrite), BackendError)
            self.assertFalse(session.published)
            self.successResultOf(self.publish(session, overwrite))
            self.assertEqual(calls.count(backend._staging.tree.fd), 2)
            self.assertEqual(self.published(backend, ("name.txt",)), b"whole")
            self.successResultOf(session.release())

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

    def test_a_session_that_could_not_be_made_safe_is_not_made(self):
        self.fsync = "fragment"
        backend = self.start()
        for destination in (("name.txt",), tuple("abcdefgh" * 30)):
            backend._files.fail("fsync", errno.EIO)
            creation = self.creation(backend, destination, create_directories=True)
            self.failureResultOf(creation, BackendError)
            self.assertEqual(self.leftovers(backend), [])

    def test_a_total_is_made_safe_until_that_has_succeeded(self):
        """Also by a process that found the session, and after an fsync that failed."""
        self.fsync = "fragment"
        backend = self.start()
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(b"abc"))
        again = self.reopened(backend)
        found = self.successResultOf(again.find(session.session_id))
        calls = again._files.calls
        for _ in range(2):
            again._files.fail("fsync", errno.EIO)
            calls.clear()
            self.failureResultOf(self.appending(found, b"def"), BackendError)
            self.assertEqual(found.offset, 3)
            # Written anew, since an fsync that failed may have dropped it.
            self.assertEqual(calls.count("pwrite"), 2)
        for data, syncs in ((b"def", 3), (b"ghi", 2)):
            calls.clear()
            self.successResultOf(self.appending(found, data))
            self.assertEqual(calls.count("fsync"), syncs)
        self.successResultOf(self.publish(found))
        self.assertEqual(self.published(again, ("name.txt",)), b"abcdefghi")

    def appending(self, session, data):
        """Write some bytes; the Deferred of the writer's closing."""
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(data))
        return writer.close()

    def test_a_close_that_fails_tells_what_is_there(self):
        backend = self.start()
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(b"lost"))
        os.truncate(session.address(), 2)
        backend._files.fail("close", errno.EIO)
        self.failureResultOf(writer.close(), BackendError)
        self.assertEqual(session.offset, 0)
        self.successResultOf(writer.close())
        self.append(session, 9, b"012")
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(b"lost"))
        os.truncate(session.address(), 2)
        backend._files.fail("close", errno.EIO)
        self.failureResultOf(writer.close(), BackendError)
        self.assertEqual(session.offset, 2)
        self.append(session, 9, b"2345678")
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(backend, ("name.txt",)), b"012345678")

    def test_a_close_that_fails_takes_back_what_it_was_to_store(self):
        """A later fsync would not tell that it is not there."""
        backend = self.start()
        session = self.create(backend)
        self.append(session, 9, b"012")
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(b"lost"))
        backend._files.fail("close", errno.EIO)
        self.failureResultOf(writer.close(), BackendError)
        self.assertEqual(session.offset, 3)
        self.append(session, 9, b"345")
        self.assertEqual(os.path.getsize(session.address()), 6)
        self.append(session, 9, b"678")
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(backend, ("name.txt",)), b"012345678")

    def test_what_could_not_be_cut_off_does_not_count(self):
        self.fsync = "fragment"
        backend = self.start()
        session = self.create(backend)
        self.append(session, 9, b"012")
        writer = self.successResultOf(session.open_writer(9))
        self.successResultOf(writer.write(b"lost"))
        backend._files.fail("fsync", errno.EIO)
        backend._files.fail("ftruncate", errno.EIO)
        self.failureResultOf(writer.close(), BackendError)
        writer = self.successResultOf(session.open_writer(9))
        self.assertEqual(session.offset, 3)
        self.successResultOf(writer.write(b"345678"))
        self.successResultOf(writer.close())
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(backend, ("name.txt",)), b"012345678")

    def test_a_file_system_that_stores_nothing_does_not_hang(self):
        backend = self.start()
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(9))
        backend._files.pwrite = lambda fd, data, offset: 0
        self.failureResultOf(writer.write(b"x"), BackendError)
