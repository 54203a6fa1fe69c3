"""
Sessions on disk that a crash of the machine may have taken bytes from.

Here nothing is lost in truth: what is looked at is what is believed. That nothing wrong
is, whatever is lost, is for ``test_disk_power``.
"""

from __future__ import annotations

import errno
import os
import time
from uuid import uuid4

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.disk.mortal import DiskCase, MortalFiles
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._boot import this_boot
from txbits.backends.disk._lines import Phase
from txbits.backends.disk._recovery import secure_all
from txbits.errors import BackendError


class DoubtTests(DiskCase):
    """The page cache survives the process, but not the machine."""

    def begun(self, backend, held=b"hello", total=10):
        session = self.create(backend, (uuid4().hex,))
        self.append(session, total, held)
        return session

    def found(self, backend, session):
        return self.successResultOf(backend.find(session.session_id))

    def test_a_crash_of_the_process_alone_raises_no_doubt(self):
        backend = self.start()
        session = self.begun(backend)
        self.assertFalse(session.in_doubt)
        found = self.found(self.reopened(backend), session)
        self.assertEqual((found.offset, found.in_doubt), (5, False))

    def test_what_is_not_known_to_be_on_the_disk_does_not_count(self):
        for length in (5, 10):
            backend = self.start()
            session = self.begun(backend)
            os.truncate(session.address(), length)
            found = self.found(self.after_boot(backend), session)
            self.assertEqual((found.total, found.offset), (10, 0))
            self.assertTrue(found.in_doubt)
            self.assertEqual(os.path.getsize(found.address()), 0)

    def test_clocks_have_no_say_in_it(self):
        """They may have been hours ahead when the machine crashed, or are now."""
        for ahead in (-1e9, 7200.0):
            backend = self.start()
            session = self.begun(backend)
            when = time.time() + ahead
            os.utime(session.address(), (when, when))
            again = self.after_boot(backend)
            self.assertEqual(self.found(again, session).offset, 0)
            self.append(self.found(again, session), 10, b"hello")
            os.utime(session.address(), (when, when))
            found = self.found(self.after_boot(again, again._booted()), session)
            self.assertEqual((found.offset, found.in_doubt), (5, False))

    def test_a_complete_upload_that_is_not_known_to_be_there_is_sent_again(self):
        backend = self.start()
        length = (1 << 20) + 1
        session = self.begun(backend, bytes(length), length)
        found = self.found(self.after_boot(backend), session)
        self.assertEqual((found.offset, found.in_doubt), (0, True))
        self.append(found, length, b"1" * length)
        self.successResultOf(self.publish(found))
        there = self.published(backend, found.destination)
        self.assertEqual(there, b"1" * length)

    def test_a_short_upload_that_is_complete_is_soon_known_to_be_there(self):
        backend = self.start()
        session = self.complete(backend)
        found = self.found(self.after_boot(backend), session)
        self.assertEqual((found.offset, found.in_doubt), (5, False))

    def test_what_was_synced_before_each_ack_is_never_in_doubt(self):
        self.fsync = "fragment"
        backend = self.start()
        session = self.begun(backend)
        with open(session.address(), "ab") as file:
            file.write(bytes(3))
        found = self.found(self.after_boot(backend), session)
        self.assertEqual((found.offset, found.in_doubt), (5, False))
        self.append(found, 10, b"world")
        self.successResultOf(self.publish(found))
        there = self.published(backend, found.destination)
        self.assertEqual(there, b"helloworld")

    def test_one_that_was_once_acknowledged_without_an_fsync_is_in_doubt(self):
        """Also if an operator has changed that since, before the crash or after."""
        for before, after in (("close", "fragment"), ("fragment", "close")):
            self.fsync = before
            backend = self.start()
            session = self.begun(backend)
            self.fsync = after
            backend = self.reopened(backend)
            found = self.found(backend, session)
            self.append(found, 10, b"wor")
            self.fsync = "fragment"
            found = self.found(self.after_boot(backend), session)
            self.assertTrue(found.in_doubt)

    def test_doubt_lasts_until_the_client_goes_on(self):
        backend = self.start()
        session = self.begun(backend)
        backend = self.after_boot(backend)
        self.assertTrue(self.found(backend, session).in_doubt)
        backend = self.reopened(backend)
        backend = self.after_boot(backend, backend._booted())
        found = self.found(backend, session)
        self.assertTrue(found.in_doubt)
        self.append(found, 10, b"h")
        self.assertFalse(found.in_doubt)
        again = self.after_boot(backend, backend._booted())
        found = self.found(again, session)
        self.assertEqual((found.offset, found.in_doubt), (1, False))

    def test_a_session_is_settled_once_in_each_boot(self):
        backend = self.after_boot(self.start(), b"1" * 16)
        session = self.begun(backend)
        for boot, offset in ((b"2" * 16, 0), (b"2" * 16, 5), (b"1" * 16, 0)):
            backend = self.after_boot(backend, boot)
            found = self.found(backend, session)
            self.assertEqual(found.offset, offset)
            self.append(found, 10, b"hello"[offset:])

    def test_a_long_file_whose_release_had_begun_is_removed_in_a_thread(self):
        backend = self.start()
        session = self.begun(backend, bytes(1 << 21), 1 << 22)
        backend._files.fail("unlink", errno.EIO)
        self.failureResultOf(session.release(), BackendError)
        again = self.after_boot(backend)
        found = self.found(again, session)
        self.assertTrue(found.releasing)
        in_thread, asked = again._staging.in_thread, []

        def noted(function, *args):
            asked.append(args)
            return in_thread(function, *args)

        again._staging.in_thread = noted
        self.successResultOf(found.release())
        self.assertEqual(len(asked), 1)
        self.assertEqual(self.leftovers(again), [])

    def test_settling_may_be_cut_short_at_any_call(self):
        for links in (1, 2):
            for calls in range(60):
                self.fsync = "fragment"
                backend = self.start()
                session = self.begun(backend)
                if links > 1:
                    os.link(session.address(), os.path.join(backend.root, "backup"))
                with open(session.address(), "ab") as file:
                    file.write(bytes(3))
                again = self.after_boot(backend, b"2" * 16)
                again._files.die_after(calls)
                outcome: list = []
                again.find(session.session_id).addBoth(outcome.append)
                is_through = not again._files._dead
                again = self.after_boot(again, b"2" * 16)
                found = self.found(again, session)
                self.assertEqual((found.offset, found.in_doubt), (5, False))
                with open(found.address(), "rb") as file:
                    self.assertEqual(file.read(), b"hello")
                if links > 1:
                    # What somebody else has is left alone.
                    with open(os.path.join(again.root, "backup"), "rb") as file:
                        self.assertEqual(file.read(), b"hello\0\0\0")
                self.successResultOf(found.release())
                self.assertEqual(self.leftovers(again), [])
                if is_through:
                    break
            else:
                self.fail("it never ends")

    def test_a_link_that_a_crash_has_lost_is_made_again(self):
        backend = self.start()
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        os.unlink(os.path.join(backend.root, "name.txt"))
        again = self.after_boot(backend)
        found = self.found(again, session)
        self.assertFalse(found.published)
        self.successResultOf(self.publish(found))
        self.assertEqual(self.published(again, ("name.txt",)), b"whole")

    def test_a_staged_file_that_is_gone_does_not_say_that_it_was_published(self):
        """Its name need not have got to the disk for its record to."""
        for overwrite in (False, True):
            for there in (None, b"old file"):
                backend = self.start()
                session = self.complete(backend, overwrite=overwrite)
                self.successResultOf(self.publish(session, overwrite))
                if not overwrite:
                    os.unlink(session.address())
                os.unlink(os.path.join(backend.root, "name.txt"))
                if there is not None:
                    self.place(backend, ("name.txt",), there)
                backend = self.reopened(backend)
                # This only looks; find() would make it safe.
                details = self.successResultOf(backend.details_of(session.session_id))
                self.assertTrue(details.published)
                again = self.after_boot(backend)
                found = self.found(again, session)
                self.assertFalse(found.published)
                self.assertTrue(found.in_doubt)
                self.append(found, 5, b"other")
                again = self.after_boot(again)
                found = self.found(again, session)
                self.assertEqual((found.published, found.offset), (False, 5))

    def test_a_published_file_is_known_by_its_link_whatever_the_record_says(self):
        """The line was written, and not stored."""
        backend = self.start()
        session = self.complete(backend)
        os.link(session.address(), os.path.join(backend.root, "name.txt"))
        for total in (5, None):
            table = backend._staging.table
            table.mark(session.session_id, Phase.OPEN, total)
            backend = self.after_boot(backend)
            found = self.found(backend, session)
            self.assertEqual((found.published, found.total), (True, 5))
            backend = self.reopened(backend)
            self.assertTrue(self.found(backend, session).published)

    def replaced(self, backend, data=b"newer file"):
        """Another upload replaces a file."""
        other = self.complete(backend, data=data, overwrite=True)
        self.successResultOf(self.publish(other, overwrite=True))
        self.successResultOf(other.release(remember=True))

    def assert_close_is_recalled(self, backend, session):
        """Also if the client repeats it; and the newer file stands."""
        found = self.found(backend, session)
        self.assertTrue(found.published)
        self.successResultOf(found.release(remember=True))
        recalled = backend.recalls_close(session.session_id, ("name.txt",), None)
        self.assertTrue(self.successResultOf(recalled))
        self.assertEqual(self.leftovers(backend), [])
        self.assertEqual(self.published(backend, ("name.txt",)), b"newer file")

    def test_a_published_file_may_be_replaced_before_a_close_that_is_then_undone(self):
        """The first crash interrupts the Close, and the second one undoes the next."""
        backend = self.start()
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        backend = self.after_boot(backend, b"1" * 16)
        found = self.found(backend, session)
        self.assertTrue(found.published)
        part, kept = found.address(), os.path.join(backend.root, "kept")
        with open(os.path.join(found.staging.path, "sessions-1"), "rb") as file:
            line = file.read(512)
        self.replaced(backend)
        os.link(part, kept)
        self.successResultOf(found.release(remember=True))
        os.rename(kept, part)
        os.pwrite(found.staging.table.fd, line, 0)
        backend = self.after_boot(backend, b"2" * 16)
        self.assert_close_is_recalled(backend, session)

    def test_a_moved_file_may_be_replaced_between_two_crashes(self):
        backend = self.start()
        session = self.complete(backend, overwrite=True)
        self.successResultOf(self.publish(session, overwrite=True))
        backend = self.after_boot(backend, b"1" * 16)
        self.assertTrue(self.found(backend, session).published)
        self.replaced(backend)
        backend = self.after_boot(backend, b"2" * 16)
        self.assert_close_is_recalled(backend, session)

    def test_a_published_file_may_be_replaced_before_its_client_is_back(self):
        for overwrite in (False, True):
            for crashes in (1, 2):
                backend = self.start()
                session = self.complete(backend, overwrite=overwrite)
                self.successResultOf(self.publish(session, overwrite))
                backend = self.after_boot(backend)
                self.replaced(backend)
                if crashes > 1:
                    backend = self.after_boot(backend)
                self.assert_close_is_recalled(backend, session)

    def test_a_file_that_a_crash_has_lost_is_not_mistaken_for_a_later_one(self):
        """Even if that has the same length."""
        backend = self.start()
        session = self.complete(backend, overwrite=True)
        self.successResultOf(self.publish(session, overwrite=True))
        os.unlink(os.path.join(backend.root, "name.txt"))
        backend = self.after_boot(backend)
        self.replaced(backend, b"other")
        found = self.found(backend, session)
        self.assertEqual((found.published, found.in_doubt), (False, True))

    def calls_noted(self):
        """The names of the system calls from now on."""
        asked = []
        call = MortalFiles.call

        def noted(files, name):
            asked.append(name)
            return call(files, name)

        self.patch(MortalFiles, "call", noted)
        return asked

    def test_what_was_published_is_made_safe_with_few_fsyncs_at_the_start(self):
        backend = self.start()
        sessions = []
        for name in "abcd":
            for directory in "xy":
                session = self.complete(
                    backend, (directory, name), create_directories=True
                )
                self.successResultOf(self.publish(session, create_directories=True))
                sessions.append(session)
        counts = []
        for boot in (b"1" * 16, b"2" * 16):
            asked = self.calls_noted()
            backend = self.after_boot(backend, boot)
            counts.append(asked.count("fsync"))
            for session in sessions:
                self.assertTrue(self.found(backend, session).published)
            self.assertEqual(asked.count("fsync"), counts[-1])
        # The two directories and the table; and what is known is known for good.
        self.assertEqual(counts[0] - counts[1], 3)

    def test_a_session_that_cannot_be_settled_at_the_start_disturbs_no_other(self):
        backend = self.start()
        bad = self.complete(backend, ("d", "bad"), create_directories=True)
        good = self.complete(backend)
        for session in (bad, good):
            self.successResultOf(self.publish(session, create_directories=True))
        opened = MortalFiles.call

        def broken(files, name):
            call = opened(files, name)

            def lstat(path, **where):
                if os.fsencode(path) == b"bad":
                    raise OSError(errno.EIO, "broken")
                return call(path, **where)

            return lstat if name == "lstat" else call

        patch = self.patch(MortalFiles, "call", broken)
        with capturedLogs() as events:
            backend = self.after_boot(backend)
        patch.restore()
        told = [one["log_format"] for one in events if "fault" in one]
        self.assertEqual(told, ["could not settle what was published: {fault}"])
        self.replaced(backend)
        for session in (bad, good):
            self.assertTrue(self.found(backend, session).published)

    def test_a_published_file_that_was_moved_is_not_cut(self):
        for total in (5, None):
            backend = self.start()
            session = self.complete(backend)
            os.link(session.address(), os.path.join(backend.root, "moved"))
            table = backend._staging.table
            table.mark(session.session_id, Phase.OPEN, total)
            again = self.after_boot(backend)
            found = self.found(again, session)
            self.assertEqual(found.offset, 0)
            self.append(found, 5, b"other")
            self.assertEqual(self.published(again, ("moved",)), b"whole")

    def test_fewer_safe_bytes_are_on_record_before_others_take_their_place(self):
        self.fsync = "fragment"
        backend = self.start()
        session = self.begun(backend)
        os.truncate(session.address(), 2)
        again = self.after_boot(backend)
        found = self.found(again, session)
        self.assertEqual((found.offset, found.in_doubt), (2, True))
        waiting: list[Deferred[None]] = []

        def sync(fd):
            self.assertEqual(fd, again._staging.table.fd)
            line = os.pread(fd, 512, 0)
            self.assertEqual(line.split()[:3], [b"open", b"10", b"2"])
            waiting.append(Deferred())
            return waiting[-1]

        again._staging.sync_table._sync = sync
        opening = found.open_writer(10)
        self.assertNoResult(opening)
        waiting.pop().errback(Failure(BackendError("broken")))
        self.failureResultOf(opening, BackendError)
        opening = found.open_writer(10)
        self.assertNoResult(opening)
        waiting.pop().callback(None)
        self.successResultOf(opening)
        again._staging.sync_table._sync = again._staging.sync


class StopTests(DiskCase):
    """What a stop makes safe, for a machine that is started anew as planned."""

    def setUp(self):
        self.synced = 0
        self.fault = None

    def sync(self, fd):
        self.synced += 1
        return maybeDeferred(self._sync, fd)

    def _sync(self, fd):
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault

    def test_uploads_under_way_go_on_after_a_planned_start(self):
        backend = self.start()
        sessions = [self.create(backend, (name,)) for name in "abcdefghijkl"]
        for session in sessions:
            self.append(session, 10, b"hello")
        self.create(backend, ("untouched",))
        self.successResultOf(backend.stop())
        again = self.after_boot(backend)
        for session in sessions:
            found = self.successResultOf(again.find(session.session_id))
            self.assertEqual(found.offset, 5)
            # Whether more was acknowledged before another crash cannot be told.
            self.assertTrue(found.in_doubt)

    def test_also_those_that_only_an_earlier_process_has_known(self):
        backend = self.start()
        session = self.create(backend)
        self.append(session, 10, b"hello")
        backend = self.reopened(backend)
        self.successResultOf(backend.sessions())
        self.successResultOf(backend.stop())
        found = self.successResultOf(self.after_boot(backend).find(session.session_id))
        self.assertEqual(found.offset, 5)

    def test_never_is_never(self):
        self.fsync = "never"
        backend = self.start()
        session = self.create(backend)
        self.append(session, 10, b"hello")
        self.successResultOf(backend.stop())
        self.assertEqual(self.synced, 0)
        found = self.successResultOf(self.after_boot(backend).find(session.session_id))
        self.assertEqual((found.offset, found.in_doubt), (0, True))

    def test_what_has_ended_needs_nothing(self):
        backend = self.start()
        for name in "ab":
            session = self.complete(backend, (name,))
            self.successResultOf(self.publish(session))
            self.successResultOf(session.release())
        self.complete(backend, ("c",))
        self.synced = 0
        self.successResultOf(backend.stop())
        self.assertEqual(self.synced, 0)

    def test_what_could_not_be_made_safe_is_cut_off(self):
        backend = self.start()
        session = self.create(backend)
        self.append(session, 10, b"hello")
        self.fault = BackendError("broken")
        self.successResultOf(backend.stop())
        found = self.successResultOf(self.start(backend.root).find(session.session_id))
        self.assertEqual(found.offset, 0)

    def test_what_was_cut_off_is_missed(self):
        """Otherwise its Close-Session would discard it, and be a success."""
        backend = self.start()
        length = 1 << 21
        session = self.complete(backend, data=bytes(length))
        self.fault = BackendError("broken")
        self.successResultOf(backend.stop())
        again = self.start(backend.root)
        found = self.successResultOf(again.find(session.session_id))
        self.assertEqual((found.offset, found.in_doubt), (0, True))
        # The client that goes on is told where.
        self.append(found, length, bytes(length))
        found = self.successResultOf(self.reopened(again).find(session.session_id))
        self.assertEqual((found.offset, found.in_doubt), (length, False))

    def test_it_takes_no_longer_than_some_seconds(self):
        backend = self.start()
        sessions = [self.create(backend, (name,)) for name in "abcdefghijkl"]
        for session in sessions:
            self.append(session, 10, b"hello")
        clock = Clock()
        waiting: list[Deferred[None]] = []

        def sync(fd):
            waiting.append(Deferred())
            return waiting[-1]

        real, backend._staging.sync = backend._staging.sync, sync
        done = secure_all(backend._staging, clock.seconds)
        self.assertEqual(len(waiting), 8)
        clock.advance(60)
        for one in waiting:
            self.assertNoResult(done)
            one.callback(None)
        self.successResultOf(done)
        self.assertEqual(len(waiting), 8)
        self.assertEqual(len(backend._staging.table.unsafe()), 4)
        backend._staging.sync = real


class BootTests(SynchronousTestCase):
    """Whether it is another start of the machine."""

    def named(self, boot_id: bytes | None, shifts: bytes | None = b"") -> bytes:
        paths = []
        for content in (boot_id, shifts):
            path = self.mktemp()
            paths.append(path)
            if content is not None:
                with open(path, "wb") as file:
                    file.write(content)
        return this_boot(*paths)

    def test_the_kernel_tells(self):
        self.assertEqual(this_boot(), this_boot())
        self.assertRegex(this_boot(), rb"\A[0-9a-f]{16}\Z")

    def test_another_id_is_another_start(self):
        self.assertEqual(self.named(b"one\n"), self.named(b"one\n"))
        self.assertNotEqual(self.named(b"one\n"), self.named(b"two\n"))

    def test_another_time_since_the_start_is_one_as_well(self):
        """Which is how a crash is rehearsed under the same kernel."""
        one = self.named(b"one\n", b"boottime 0 0\n")
        other = self.named(b"one\n", b"boottime -100 0\n")
        self.assertNotEqual(one, other)

    def test_kernels_without_time_namespaces_tell_as_well(self):
        self.assertEqual(self.named(b"one\n", None), self.named(b"one\n", None))

    def test_where_nobody_tells_each_start_of_the_server_may_follow_a_crash(self):
        for content in (None, b"\n"):
            self.assertNotEqual(self.named(content), self.named(content))

    def test_the_backend_asks_the_kernel(self):
        backend = DiskBackend(self.mktemp(), Clock(), files=MortalFiles())
        self.assertEqual(backend._booted(), this_boot())
