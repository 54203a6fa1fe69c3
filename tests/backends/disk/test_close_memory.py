"""
How the disk backend comes to remember closes for good, and forgets nothing on the way.
"""

from __future__ import annotations

import errno
import os
from uuid import uuid4

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from tests.backends.disk.limited import LimitedFiles
from tests.backends.disk.mortal import DiskCase, MortalFiles
from txbits.backends.disk._close_memory import MOST_KEPT
from txbits.errors import BackendError, NoSuchSession


class MemoryCase(DiskCase):
    """Uploads that are closed."""

    def close(self, backend, session):
        self.successResultOf(self.publish(session))
        self.successResultOf(session.release(remember=True))

    def remember(self, backend, session):
        """What a release begins with."""
        backend._staging.close_memory.remember(
            session.session_id,
            session.destination,
            None,
            backend._staging.seconds(),
            in_line=session._stays_published,
        )

    def recalls(self, backend, session):
        return self.successResultOf(
            backend.recalls_close(session.session_id, session.destination, None)
        )

    def lines(self, backend):
        """The table, without blanks at the end of lines."""
        path = os.path.join(backend.root, ".bits-sessions", "sessions-1")
        with open(path, "rb") as file:
            return [line.rstrip() for line in file]

    def inside(self, backend, name):
        return os.path.join(backend.root, ".bits-sessions", name)


class LineTests(MemoryCase):
    """The line of a session that was closed."""

    def setUp(self):
        self.synced = []
        self.holding = False
        self.held: list[Deferred[None]] = []

    def sync(self, fd):
        self.synced.append(fd)
        if not self.holding:
            return maybeDeferred(os.fsync, fd)
        self.held.append(Deferred())
        return self.held[-1]

    def let_go(self, outcome=None):
        held, self.held = self.held, []
        for one in held:
            one.callback(outcome)

    def test_it_keeps_the_record_until_that_is_safe(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        self.synced.clear()
        (line,) = self.lines(backend)
        self.assertRegex(line, rb"\Afree closed [0-9a-f]{80}\Z")
        other = self.complete(backend, ("other",))
        self.assertEqual(len(self.lines(backend)), 2)
        self.successResultOf(other.release())
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.lines(backend), [b"free", b"free"])
        self.complete(backend, ("third",))
        self.assertEqual(len(self.lines(backend)), 2)
        self.assertTrue(self.recalls(backend, session))

    def test_many_share_what_makes_them_safe(self):
        backend = self.start()
        for number in range(MOST_KEPT + 1):
            session = self.complete(backend, (f"{number}",))
            self.synced.clear()
            self.close(backend, session)
        # The directory and the file, beside the name and the record of the last one.
        self.assertEqual(len(self.synced), 4)
        self.assertEqual(len(self.lines(backend)), MOST_KEPT + 1)
        kept = [line for line in self.lines(backend) if line != b"free"]
        self.assertEqual(len(kept), 1)

    def test_lines_that_came_meanwhile_wait_for_the_next_time(self):
        backend = self.start()
        first, second = (self.complete(backend, (name,)) for name in "ab")
        self.close(backend, first)
        self.successResultOf(self.publish(second))
        self.holding = True
        cleaning = backend.clean_up(0.0)
        self.successResultOf(second.release(remember=True))
        self.let_go()
        self.holding = False
        self.successResultOf(cleaning)
        before, after = self.lines(backend)
        self.assertEqual(before, b"free")
        self.assertTrue(after.startswith(b"free closed "))
        again = self.reopened(backend)
        self.assertTrue(self.recalls(again, second))

    def test_what_could_not_be_made_safe_is_written_again(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        self.holding = True
        cleaning = backend.clean_up(0.0)
        self.let_go(Failure(BackendError("broken")))
        self.holding = False
        self.successResultOf(cleaning)
        (line,) = self.lines(backend)
        self.assertTrue(line.startswith(b"free closed "))
        # The kernel may have dropped it.
        os.unlink(self.inside(backend, "closed/0000000001"))
        self.assertTrue(self.recalls(backend, session))
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.lines(backend), [b"free"])

    def test_so_is_what_only_then_comes_to_be_kept_by_a_line(self):
        backend = self.start()
        first, second = (self.complete(backend, (name,)) for name in "ab")
        self.close(backend, first)
        self.successResultOf(self.publish(second))
        self.remember(backend, second)
        self.holding = True
        cleaning = backend.clean_up(0.0)
        self.let_go(Failure(BackendError("broken")))
        self.holding = False
        self.successResultOf(cleaning)
        self.successResultOf(second.release())
        # The kernel may have dropped it.
        os.unlink(self.inside(backend, "closed/0000000001"))
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.lines(backend), [b"free", b"free"])
        self.assertTrue(self.recalls(backend, second))

    def test_it_is_written_again_when_there_is_room(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        self.holding = True
        cleaning = backend.clean_up(0.0)
        backend._files.room = 0
        self.let_go(Failure(BackendError("broken")))
        backend._files.room = None
        self.holding = False
        self.successResultOf(cleaning)
        os.unlink(self.inside(backend, "closed/0000000001"))
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.lines(backend), [b"free"])
        self.assertTrue(self.recalls(backend, session))

    def test_a_line_that_a_process_left_is_remembered_by_the_next(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        # It is nowhere else yet.
        self.assertEqual(os.listdir(self.inside(backend, "closed")), [])
        self.assertTrue(self.recalls(backend, session))
        again = self.after_boot(backend)
        self.assertEqual(self.lines(again), [b"free"])
        self.assertTrue(self.recalls(again, session))
        self.assertFalse(
            self.successResultOf(
                again.recalls_close(session.session_id, ("other.txt",), None)
            )
        )

    def test_what_does_not_fit_elsewhere_stays_until_there_is_room(self):
        backend = self.start()
        first, second = (self.complete(backend, (name,)) for name in "ab")
        self.close(backend, first)
        for name in ("open", "pwrite"):
            backend._files.fail(name, errno.ENOSPC)
            self.successResultOf(backend.clean_up(0.0))
            before, _ = self.lines(backend)
            self.assertTrue(before.startswith(b"free closed "))
            self.assertTrue(self.recalls(backend, first))
        self.close(backend, second)
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.lines(backend), [b"free", b"free"])
        again = self.reopened(backend)
        for session in (first, second):
            self.assertTrue(self.recalls(again, session))

    def test_a_start_on_a_full_disk_leaves_it_in_its_line(self):
        for fsync in ("close", "never"):
            self.fsync = "close"
            backend = self.start()
            session = self.complete(backend)
            self.close(backend, session)
            self.fsync = fsync
            backend._files.die()
            self.make_files = lambda: LimitedFiles(is_full=True)
            full = self.start(backend.root)
            self.make_files = MortalFiles
            self.assertTrue(self.lines(full)[0].startswith(b"free closed "))
            self.assertTrue(self.recalls(full, session))
            full._files.is_full = False
            self.successResultOf(full.clean_up(0.0))
            self.assertEqual(self.lines(full), [b"free"])
            self.assertTrue(self.recalls(full, session))
            self.assertTrue(self.recalls(self.reopened(full), session))

    def test_a_session_that_takes_long_to_release_is_not_forgotten_meanwhile(self):
        """Though what was written of its close is old enough for the clean-up."""
        backend = self.start()
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        backend._files.fail("unlink", errno.EIO)
        self.failureResultOf(session.release(remember=True), BackendError)
        self.successResultOf(backend.clean_up(backend._staging.seconds() + 1.0))
        self.assertEqual(os.listdir(self.inside(backend, "closed")), [])
        self.successResultOf(session.release(remember=True))
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.lines(backend), [b"free"])
        self.assertTrue(self.recalls(self.reopened(backend), session))

    def test_a_stop_frees_the_lines(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        self.successResultOf(backend.stop())
        self.assertEqual(self.lines(backend), [b"free"])

    def test_never_is_never(self):
        self.fsync = "never"
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        self.assertEqual(self.lines(backend), [b"free"])
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.synced, [])
        self.assertTrue(self.recalls(backend, session))

    def test_a_start_that_fails_on_them_leaves_nothing_open(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        backend._files.die()
        again = self.disk(backend.root)
        again._files.fail("fsync", errno.EIO)
        self.failureResultOf(again.start(), BackendError)
        self.assertEqual(again._files._open, set())
        self.assertTrue(self.recalls(self.start(backend.root), session))


class RestTests(MemoryCase):
    """An Ack from memory leaves after nothing of the session is left."""

    def test_what_is_left_of_a_session_goes_before_its_close_is_recalled(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        name = str(session.session_id).upper()
        for ending in ("part", "part-new", "json", "answer", "answer-new", "reply"):
            with open(self.inside(backend, f"{name}.{ending}"), "wb"):
                pass
        self.assertTrue(self.recalls(backend, session))
        self.assertEqual(self.leftovers(backend), [])

    def test_what_cannot_be_removed_is_a_fault(self):
        backend = self.start()
        session = self.complete(backend)
        self.close(backend, session)
        recalling = backend.recalls_close
        backend._files.fail("unlink", errno.EIO)
        self.failureResultOf(
            recalling(session.session_id, session.destination, None), BackendError
        )
        self.assertTrue(self.recalls(backend, session))

    def test_a_session_that_stands_is_left_alone(self):
        backend = self.start()
        session = self.complete(backend)
        self.remember(backend, session)
        self.assertTrue(self.recalls(backend, session))
        self.assertEqual(len(self.leftovers(backend)), 2)

    def test_a_killed_release_is_found_by_its_line(self):
        """So that Close-Session goes on with it, instead of being told from memory."""
        for survived in range(1, 20):
            backend = self.start()
            session = self.complete(backend)
            self.successResultOf(self.publish(session))
            backend._files.die_after(survived)
            outcome: list = []
            session.release(remember=True).addBoth(outcome.append)
            if not backend._files._dead:
                break
            again = self.reopened(backend)
            name = str(session.session_id).upper()
            finding = again.find(session.session_id)
            finding.addErrback(lambda failure: failure.trap(NoSuchSession) and None)
            found = self.successResultOf(finding)
            left = [one for one in os.listdir(self.inside(again, "")) if name in one]
            self.assertTrue(found is not None or not left, left)
        else:
            self.fail("it never ends")


class EvidenceTests(MemoryCase):
    """A file that was published though a crash of the machine has taken its record."""

    def lost(self, destination=("name.txt",)):
        """A backend after that, and the session."""
        backend = self.start()
        session = self.complete(backend, destination)
        os.link(session.address(), os.path.join(backend.root, "name.txt"))
        with open(self.inside(backend, "sessions-1"), "wb"):
            pass
        return self.after_boot(backend), session

    def test_its_close_is_recalled(self):
        backend, session = self.lost()
        self.successResultOf(backend.clean_up(1.0))
        self.assertTrue(self.recalls(backend, session))
        self.assertEqual(self.leftovers(backend), [])
        self.assertTrue(self.recalls(self.after_boot(backend), session))

    def test_it_is_safe_before_that_is_told(self):
        for number in range(2):
            backend, session = self.lost()
            fsync, failed = backend._files.fsync, []

            def fails(fd, number=number, fsync=fsync, failed=failed):
                failed.append(fd)
                if len(failed) == number + 1:
                    raise OSError(errno.EIO, "broken")
                fsync(fd)

            backend._files.fsync = fails
            self.failureResultOf(
                backend.recalls_close(session.session_id, ("name.txt",), None),
                BackendError,
            )
            self.assertEqual(len(self.leftovers(backend)), 1)
            # Nor is that told the next time, only because it is written down by now.
            failed.clear()
            self.failureResultOf(
                backend.recalls_close(session.session_id, ("name.txt",), None),
                BackendError,
            )
            self.assertTrue(self.recalls(backend, session))
            self.assertEqual(self.leftovers(backend), [])
            failed.clear()
            self.assertTrue(self.recalls(backend, session))
            self.assertEqual(failed, [])

    def test_several_are_recalled_at_a_time(self):
        backend = self.start()
        sessions = [self.complete(backend, (name,)) for name in "abc"]
        for session in sessions[:2]:
            place = os.path.join(backend.root, *session.destination)
            os.link(session.address(), place)
        with open(self.inside(backend, "sessions-1"), "wb"):
            pass
        again = self.after_boot(backend)
        # There is a file that is not written to any more, and may not be safe.
        self.remember(again, sessions[2])
        again._staging.closes.conclude()
        held = []

        def sync(fd):
            held.append(Deferred())
            return held[-1].addCallback(lambda _: os.fsync(fd))

        again._staging.close_memory._sync = sync
        recalling = [
            again.recalls_close(one.session_id, one.destination, None)
            for one in sessions[:2]
        ]
        while held:
            held.pop(0).callback(None)
        for one in recalling:
            self.assertTrue(self.successResultOf(one))

    def test_another_file_is_no_evidence(self):
        backend, session = self.lost(("other.txt",))
        self.assertFalse(self.recalls(backend, session))
        self.place(backend, ("other.txt",), b"whole")
        self.assertFalse(self.recalls(backend, session))
        self.assertFalse(
            self.successResultOf(backend.recalls_close(uuid4(), ("name.txt",), None))
        )

    def test_it_is_kept_as_long_as_closes_are(self):
        backend, session = self.lost()
        self.successResultOf(backend.clean_up(2.0**40))
        self.assertEqual(self.leftovers(backend), [])
        self.assertFalse(self.recalls(backend, session))

    def test_it_goes_with_the_published_file(self):
        backend, _ = self.lost()
        os.unlink(os.path.join(backend.root, "name.txt"))
        self.successResultOf(backend.clean_up(1.0))
        self.assertEqual(self.leftovers(backend), [])
