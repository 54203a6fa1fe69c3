"""
The claims of the disk backend: killed before each system call, and their files.
"""

from __future__ import annotations

import os
from uuid import UUID

from tests.backends.disk.mortal import Killed
from tests.backends.disk.test_crashes import CrashCase
from txbits._deferreds import deferred
from txbits.errors import BackendError, OutOfSpace

UNTIL = 1e10
ONE, OTHER = UUID(int=1), UUID(int=2)


class ClaimCrashTests(CrashCase):
    """Death while a claim is taken, or its session published."""

    def close(self, backend, session):
        """What a Close does, with a claim."""

        @deferred
        async def close():
            claim = await backend.claim("x", session.session_id, UNTIL)
            if claim is None:
                return False
            await session.publish(overwrite=False, create_directories=False)
            return True

        return close()

    def test_one_file_appears_after_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            names = [("a",), ("b",)]
            ids = [self.complete(backend, one).session_id for one in names]
            found = self.successResultOf(backend.find(ids[0]))
            self.run_until_dead(backend, calls, self.close, backend, found)
            backend = self.reopened(backend)
            # The other client is faster than the one whose server was killed.
            closed = {}
            for session_id in reversed(ids):
                found = self.successResultOf(backend.find(session_id))
                closed[session_id] = self.successResultOf(self.close(backend, found))
            there = [one for one in names if self.published(backend, one)]
            self.assertEqual(len(there), 1, calls)
            self.assertEqual(sorted(closed.values()), [False, True])
            if self.acknowledged:
                self.assertTrue(closed[ids[0]])

    def test_withdrawing_is_done_or_not_after_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            claim = self.successResultOf(backend.claim("x", ONE, UNTIL))
            self.run_until_dead(backend, calls, claim.withdraw)
            backend = self.reopened(backend)
            is_free = not self.successResultOf(backend.is_claimed("x"))
            if self.acknowledged:
                self.assertTrue(is_free)
            other = self.successResultOf(backend.claim("x", OTHER, UNTIL))
            self.assertEqual(other is not None, is_free)


class FileTests(CrashCase):
    """What is stored."""

    def directory(self, backend):
        return os.path.join(backend.root, ".bits-sessions", "claims")

    def test_there_is_nothing_before_the_first(self):
        backend = self.start()
        self.assertFalse(self.successResultOf(backend.is_claimed("x")))
        self.successResultOf(backend.clean_up(0))
        self.assertFalse(os.path.exists(self.directory(backend)))

    def test_it_is_synced_whatever_the_policy(self):
        self.fsync = "never"
        backend = self.start()
        backend._files.calls.clear()
        self.successResultOf(backend.claim("x", ONE, UNTIL))
        # The staging area, the file, and its name.
        self.assertEqual(backend._files.calls.count("fsync"), 3)

    def test_only_the_user_of_the_server_can_read_it(self):
        backend = self.start()
        self.successResultOf(backend.claim("x", ONE, UNTIL))
        directory = self.directory(backend)
        (name,) = os.listdir(directory)
        self.assertEqual(os.stat(directory).st_mode & 0o777, 0o700)
        self.assertEqual(os.stat(os.path.join(directory, name)).st_mode & 0o777, 0o600)
        self.assertNotIn("x", name)

    def test_one_that_does_not_fit_is_not_taken(self):
        backend = self.start()
        backend._files.room = 10
        self.failureResultOf(backend.claim("x", ONE, UNTIL), OutOfSpace)
        backend._files.room = None
        self.assertFalse(self.successResultOf(backend.is_claimed("x")))
        self.assertIsNotNone(self.successResultOf(backend.claim("x", OTHER, UNTIL)))

    def test_a_damaged_one_is_nobodys(self):
        backend = self.start()
        self.successResultOf(backend.claim("x", ONE, UNTIL))
        directory = self.directory(backend)
        (name,) = os.listdir(directory)
        with open(os.path.join(directory, name), "wb") as file:
            file.write(b"short")
        self.failureResultOf(backend.claim("x", ONE, UNTIL), BackendError)
        self.failureResultOf(backend.is_claimed("x"), BackendError)
        self.successResultOf(backend.clean_up(0))
        self.assertEqual(os.listdir(directory), [name])

    def test_what_a_killed_process_has_left_is_removed_later(self):
        backend = self.start()
        self.successResultOf(backend.claim("x", ONE, UNTIL))
        path = os.path.join(self.directory(backend), "0" * 64 + ".new")
        for age, is_there in ((60, True), (2 * 86_400, False)):
            with open(path, "wb"):
                pass
            then = os.stat(path).st_mtime - age
            os.utime(path, (then, then))
            self.successResultOf(backend.clean_up(0))
            self.assertEqual(os.path.exists(path), is_there)
        self.assertTrue(self.successResultOf(backend.is_claimed("x")))
        self.flushLoggedErrors(Killed)
