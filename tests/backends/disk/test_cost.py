"""
What an upload to the disk backend costs, in what can be counted: system calls, work
handed to threads, and memory. And that work in threads is waited for.
"""

from __future__ import annotations

import os
import sys

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from tests.backends.disk.mortal import DiskCase
from txbits.backends.disk._staged import SHORT
from txbits.errors import BackendError


class CostTests(DiskCase):
    """What an upload may cost: calls and memory, since these can be counted."""

    syncs = 0

    def hops(self, fsync, replaced=None):
        """
        The life of a session of 1 KiB; how often work went to a thread.

        :param replaced: The content of a file that it replaces.
        """
        hops = []

        def in_thread(function, *args):
            hops.append(function)
            return maybeDeferred(function, *args)

        self.fsync, self.in_thread = fsync, in_thread
        backend = self.start()
        # The first close that is remembered makes a file.
        self.successResultOf(self.create(backend).release(remember=True))
        hops.clear()
        backend._files.calls.clear()
        if replaced is not None:
            self.place(backend, ("name.txt",), replaced)
        overwrite = replaced is not None
        session = self.complete(backend, data=bytes(1024), overwrite=overwrite)
        self.successResultOf(self.publish(session, overwrite))
        self.successResultOf(session.release(remember=True))
        self.calls = backend._files.calls
        return len(hops)

    def sync(self, fd):
        self.syncs += 1
        return maybeDeferred(os.fsync, fd)

    def test_a_small_upload_goes_to_no_thread(self):
        for fsync in ("close", "fragment", "never"):
            self.assertEqual(self.hops(fsync), 0)
            self.assertEqual(self.hops(fsync, replaced=b"short"), 0)

    def test_the_blocks_of_a_long_file_are_freed_in_a_thread(self):
        self.assertEqual(self.hops("never", replaced=bytes(SHORT + 1)), 1)

    def test_a_small_upload_is_synced_with_its_name_and_its_record(self):
        self.syncs = 0
        self.hops("close")
        self.assertEqual(self.syncs, 3)
        self.hops("never")
        self.assertEqual(self.syncs, 3)

    def test_a_small_upload_makes_few_system_calls(self):
        self.hops("close")
        self.assertLessEqual(len(self.calls), 17, self.calls)

    def test_a_small_upload_writes_its_bytes_and_changes_its_line(self):
        """Four times, and once more if its bytes are safe before it is closed."""
        self.hops("close")
        self.assertEqual(self.calls.count("pwrite"), 1 + 4 + 1)

    def test_an_idle_session_is_small(self):
        backend = self.start()
        session = self.complete(backend)
        own = [
            getattr(session, name)
            for name in type(session).__slots__
            if name not in ("staging", "destination", "owner", "content_name")
        ]
        # Of these there is one each, however many sessions there are.
        own = [one for one in own if one is not None and not isinstance(one, bool)]
        parts = [session, session.session_id.int, *own]
        self.assertLess(sum(sys.getsizeof(one) for one in parts), 600)


class WaitingTests(DiskCase):
    """Fsyncs under way, held at will."""

    def sync(self, fd):
        waiting: Deferred[None] = Deferred()
        if self.holding:
            self.held.append((fd, waiting))
        else:
            waiting.callback(None)
        return waiting

    def setUp(self):
        self.holding = False
        self.held: list[tuple[int, Deferred[None]]] = []

    def let_go(self, outcome=None):
        """End all fsyncs that are held; each must have had an open file."""
        held, self.held = self.held, []
        for fd, waiting in held:
            os.fstat(fd)
            waiting.callback(outcome)

    def written(self, total=9, data=b"abc"):
        """A session with bytes, and its writer, still open."""
        self.backend = self.start()
        session = self.create(self.backend)
        writer = self.successResultOf(session.open_writer(total))
        self.successResultOf(writer.write(data))
        self.holding = True
        return session, writer

    def test_releases_share_one_run_and_wait_for_a_writer_that_closes(self):
        self.fsync = "fragment"
        session, writer = self.written()
        closing = writer.close()
        first, second = session.release(), session.release()
        for one in (closing, first, second):
            self.assertNoResult(one)
        self.assertNotEqual(self.leftovers(self.backend), [])
        for _ in range(2):
            self.assertNoResult(first)
            self.let_go()
        for one in (closing, first, second):
            self.successResultOf(one)
        self.assertEqual(self.leftovers(self.backend), [])
        self.assertEqual(self.held, [])

    def test_a_fragment_is_not_acknowledged_before_it_is_safe(self):
        self.fsync = "fragment"
        session, writer = self.written()
        closing = writer.close()
        # Its bytes and its name, and only then the record that tells of them.
        (first, second), self.held = self.held, []
        first[1].callback(None)
        self.assertNoResult(closing)
        self.assertEqual(self.held, [])
        second[1].callback(None)
        self.assertNoResult(closing)
        (last,) = self.held
        self.assertEqual(last[0], self.backend._staging.table.fd)
        last[1].callback(None)
        self.successResultOf(closing)
        self.successResultOf(session.release())

    def test_a_short_file_begins_to_be_made_safe_when_it_is_complete(self):
        session, writer = self.written(total=3)
        self.successResultOf(writer.close())
        self.assertEqual(len(self.held), 1)
        publishing = self.publish(session)
        self.assertEqual(len(self.held), 1)
        self.assertIsNone(self.published(self.backend, ("name.txt",)))
        self.let_go()
        # Its name, and its record.
        self.assertEqual(len(self.held), 2)
        self.assertNoResult(publishing)
        self.let_go()
        self.successResultOf(publishing)
        self.assertEqual(self.published(self.backend, ("name.txt",)), b"abc")
        self.successResultOf(session.release())

    def test_a_release_waits_for_what_is_being_made_safe(self):
        session, writer = self.written(total=3)
        self.successResultOf(writer.close())
        releasing = session.release()
        self.assertNoResult(releasing)
        self.let_go()
        self.successResultOf(releasing)
        self.assertEqual(self.leftovers(self.backend), [])
        self.assertIsNone(self.published(self.backend, ("name.txt",)))

    def test_a_writer_waits_for_what_is_being_made_safe(self):
        session, writer = self.written(total=3)
        self.successResultOf(writer.close())
        opening = session.open_writer(3)
        self.assertNoResult(opening)
        self.let_go()
        self.successResultOf(self.successResultOf(opening).close())
        self.let_go()
        self.holding = False
        self.successResultOf(self.publish(session))

    def test_bytes_that_could_not_be_made_safe_are_never_published(self):
        session, writer = self.written(total=3)
        self.successResultOf(writer.close())
        self.let_go(Failure(BackendError("broken")))
        self.assertFalse(os.path.exists(session.address()))
        found = self.successResultOf(self.backend.find(session.session_id))
        self.assertTrue(found.in_doubt)
        self.failureResultOf(self.publish(session), BackendError)
        self.assertEqual(session.offset, 0)
        self.failureResultOf(self.publish(session), BackendError)
        self.assertIsNone(self.published(self.backend, ("name.txt",)))
        self.holding = False
        self.append(session, 3, b"new")
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(self.backend, ("name.txt",)), b"new")

    def test_a_long_file_is_made_safe_when_it_is_published(self):
        session, writer = self.written(total=2 << 20, data=bytes(2 << 20))
        self.successResultOf(writer.close())
        self.assertEqual(self.held, [])
        publishing = self.publish(session)
        for syncs in (1, 2):
            self.assertEqual(len(self.held), syncs)
            self.let_go()
        self.successResultOf(publishing)
        self.successResultOf(session.release())

    def test_files_published_together_share_what_makes_their_names_safe(self):
        self.backend = self.start()
        sessions = [self.complete(self.backend, (name,)) for name in "abcd"]
        self.holding = True
        publishing = [self.publish(session) for session in sessions]
        # The first did not wait; the others came too late for its fsyncs.
        self.assertEqual(len(self.held), 2)
        self.let_go()
        self.successResultOf(publishing[0])
        self.assertEqual(len(self.held), 2)
        self.assertNoResult(publishing[1])
        self.let_go()
        for one in publishing[1:]:
            self.successResultOf(one)

    def test_a_name_that_could_not_be_made_safe_is_taken_back(self):
        session, writer = self.written(total=3)
        self.successResultOf(writer.close())
        self.let_go()
        publishing = self.publish(session)
        self.assertEqual(self.published(self.backend, ("name.txt",)), b"abc")
        self.let_go(Failure(BackendError("broken")))
        self.failureResultOf(publishing, BackendError)
        self.assertIsNone(self.published(self.backend, ("name.txt",)))
        self.assertFalse(session.published)
        self.holding = False
        found = self.successResultOf(self.backend.find(session.session_id))
        self.assertFalse(found.published)
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(self.backend, ("name.txt",)), b"abc")

    def test_a_name_is_not_taken_back_from_another_file(self):
        session, writer = self.written(total=3)
        self.successResultOf(writer.close())
        self.let_go()
        publishing = self.publish(session)
        path = os.path.join(self.backend.root, "name.txt")
        os.unlink(path)
        self.place(self.backend, ("name.txt",), b"theirs")
        self.let_go(Failure(BackendError("broken")))
        self.failureResultOf(publishing, BackendError)
        self.assertEqual(self.published(self.backend, ("name.txt",)), b"theirs")

    def test_files_that_appear_in_a_folder_together_share_its_fsync(self):
        """But none shares one that had begun before its file appeared."""
        self.backend = self.start()
        self.place(self.backend, ("a", "other"), b"")
        sessions = [self.complete(self.backend, ("a", str(n))) for n in range(3)]
        self.holding = True
        first, *others = [self.publish(one) for one in sessions]
        folder = [fd for fd, _ in self.held if self.is_folder(fd)]
        self.assertEqual(len(folder), 1)
        self.let_go()
        self.successResultOf(first)
        for one in others:
            self.assertNoResult(one)
        self.assertEqual(sum(self.is_folder(fd) for fd, _ in self.held), 1)
        self.let_go()
        for one in others:
            self.successResultOf(one)
        self.assertEqual(self.held, [])
        with self.assertRaises(OSError):
            os.fstat(*folder)

    def is_folder(self, fd):
        path = os.path.join(self.backend.root, "a")
        return os.path.samestat(os.fstat(fd), os.stat(path))

    def test_files_that_replace_others_together_share_fsyncs(self):
        """That of their records before, and that of their names afterwards."""
        self.backend = self.start()
        names = [("a", str(number)) for number in range(3)]
        for name in names:
            self.place(self.backend, name, b"old")
        sessions = [self.complete(self.backend, one, overwrite=True) for one in names]
        self.holding = True
        publishing = [self.publish(one, True) for one in sessions]
        # The others have come too late for the first fsync of each.
        for records, folders in ((1, 0), (1, 1), (0, 1)):
            of_a_folder = [self.is_folder(fd) for fd, _ in self.held]
            self.assertEqual(of_a_folder.count(False), records)
            self.assertEqual(of_a_folder.count(True), folders)
            self.let_go()
        for one in publishing:
            self.successResultOf(one)
        for name in names:
            self.assertEqual(self.published(self.backend, name), b"whole")
        self.assertEqual(self.held, [])
