"""
The disk backend killed before each of its system calls, one after the other.

Each round does the same on a fresh root, dies one call later than the round before,
and looks at what a new process finds. The rounds end when one survives.
"""

from __future__ import annotations

import gc
import os
from typing import Any

from tests.backends.disk.mortal import (
    DiskCase,
    Killed,
    collect_no_more_than_it_makes,
)
from txbits.errors import DestinationExists, NoSuchSession


class CrashCase(DiskCase):
    """Deaths, in order."""

    def setUp(self):
        collect_no_more_than_it_makes(self)

    def rounds(self):
        """Numbers of calls to survive."""
        for calls in range(200):
            yield calls
            if self.survived:
                self.assertGreater(calls, 0)
                return
        self.fail("it never ends")

    def run_until_dead(self, backend, calls, act, *args, **kwargs):
        """Act, and die after so many calls; whether that was late enough."""
        backend._files.die_after(calls)
        outcome: list[Any] = []
        act(*args, **kwargs).addBoth(outcome.append)
        fault = getattr(outcome[0], "value", None)
        self.survived = not backend._files._dead
        self.acknowledged = fault is None
        if self.survived:
            backend._files._calls_left = None
            self.assertTrue(self.acknowledged, fault)
        else:
            if not self.acknowledged:
                self.assertIsInstance(fault, Killed)
            # It may have died in what nobody waits for, such as what goes on behind the
            # Ack.
            gc.collect()
            self.flushLoggedErrors(Killed)

    def assert_finishes(self, backend, session_id, overwrite, old, **rules):
        """What a client's next Close does: publish, remember, release."""
        found = self.successResultOf(backend.find(session_id))
        self.assertFalse(found.releasing)
        self.assertEqual((found.total, found.offset), (5, 5))
        there = self.published(backend, found.destination)
        self.assertIn(there, (old, b"whole"))
        if found.published:
            self.assertEqual(there, b"whole")
        self.successResultOf(self.publish(found, overwrite, **rules))
        self.assertTrue(found.published)
        backend = self.reopened(backend)
        found = self.successResultOf(backend.find(session_id))
        self.assertTrue(found.published)
        self.assertEqual(self.published(backend, found.destination), b"whole")
        self.successResultOf(found.release())
        self.assertEqual(self.leftovers(backend), [])
        self.assertEqual(self.published(backend, found.destination), b"whole")


class PublishCrashTests(CrashCase):
    """Death while the file is published."""

    def test_publishing_goes_on_after_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            session = self.complete(backend)
            self.run_until_dead(backend, calls, self.publish, session)
            self.assert_finishes(
                self.reopened(backend), session.session_id, False, None
            )

    def test_replacing_goes_on_after_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            self.place(backend, ("name.txt",), b"old")
            session = self.complete(backend, overwrite=True)
            self.run_until_dead(backend, calls, self.publish, session, True)
            self.assert_finishes(
                self.reopened(backend), session.session_id, True, b"old"
            )

    def test_it_goes_on_with_the_other_rule_as_well(self):
        for first in (False, True):
            self.survived = False
            for calls in self.rounds():
                backend = self.start()
                session = self.complete(backend)
                self.run_until_dead(backend, calls, self.publish, session, first)
                self.assert_finishes(
                    self.reopened(backend), session.session_id, not first, None
                )

    def test_making_directories_goes_on_after_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            session = self.complete(backend, ("a", "b", "c"), create_directories=True)
            self.run_until_dead(
                backend, calls, self.publish, session, create_directories=True
            )
            self.assert_finishes(
                self.reopened(backend),
                session.session_id,
                False,
                None,
                create_directories=True,
            )

    def test_a_foreign_file_is_kept_whenever_it_appears(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            session = self.complete(backend)
            self.place(backend, ("name.txt",), b"theirs")
            backend._files.die_after(calls)
            failure = self.failureResultOf(self.publish(session))
            self.survived = not backend._files._dead
            if self.survived:
                failure.trap(DestinationExists)
            again = self.reopened(backend)
            found = self.successResultOf(again.find(session.session_id))
            self.assertFalse(found.published)
            self.failureResultOf(self.publish(found), DestinationExists)
            self.assertEqual(self.published(again, ("name.txt",)), b"theirs")
            self.successResultOf(found.release())
            self.assertEqual(self.leftovers(again), [])

    def test_each_call_that_fails_leaves_publishing_to_be_tried_again(self):
        for overwrite in (False, True):
            probe = self.start()
            session = self.complete(probe, overwrite=overwrite)
            probe._files.calls.clear()
            self.successResultOf(self.publish(session, overwrite))
            for name in sorted(set(probe._files.calls) - {"fsync", "unlink"}):
                backend = self.start()
                session = self.complete(backend, overwrite=overwrite)
                backend._files.fail(name, 5)  # EIO
                self.failureResultOf(self.publish(session, overwrite))
                self.successResultOf(self.publish(session, overwrite))
                self.assertEqual(self.published(backend, ("name.txt",)), b"whole")
                self.successResultOf(session.release())
                self.assertEqual(self.leftovers(backend), [], name)

    def test_a_staged_link_that_stays_does_not_take_the_file_back(self):
        backend = self.start()
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        backend._files.fail("unlink", 5)  # EIO
        self.failureResultOf(session.release())
        self.assertTrue(session.published)
        self.assertEqual(self.published(backend, ("name.txt",)), b"whole")
        self.successResultOf(session.release())
        self.assertEqual(self.leftovers(backend), [])
        self.assertEqual(self.published(backend, ("name.txt",)), b"whole")


class ReleaseCrashTests(CrashCase):
    """Death while a session is released."""

    def sessions(self, backend):
        """Sessions in all phases."""
        yield self.create(backend, ("created",))
        begun = self.create(backend, ("begun",))
        self.append(begun, 9, b"part")
        yield begun
        long = self.create(backend, ("long",))
        self.append(long, 9 << 20, bytes(2 << 20))
        yield long
        done = self.complete(backend, ("done",))
        self.successResultOf(self.publish(done))
        yield done

    def test_a_kill_at_any_call_leaves_what_can_be_finished(self):
        for phase in range(4):
            self.survived = False
            for calls in self.rounds():
                backend = self.start()
                session = list(self.sessions(backend))[phase]
                self.run_until_dead(backend, calls, session.release)
                again = self.reopened(backend)
                finding = again.find(session.session_id)
                finding.addErrback(lambda failure: failure.trap(NoSuchSession) and None)
                found = self.successResultOf(finding)
                if found is not None:
                    is_ending = found.releasing or found.published
                    self.assertTrue(calls == 0 or is_ending, (phase, calls))
                    self.assertEqual(found.published, session.published)
                    self.successResultOf(found.release())
                self.successResultOf(again.clean_up(0.0))
                self.assert_others_left(again, session)

    def test_a_release_that_fails_at_any_call_goes_on(self):
        for phase in range(4):
            probe = self.start()
            session = list(self.sessions(probe))[phase]
            probe._files.calls.clear()
            self.successResultOf(session.release())
            for name in list(probe._files.calls):
                backend = self.start()
                session = list(self.sessions(backend))[phase]
                backend._files.fail(name, 5)  # EIO
                self.failureResultOf(session.release())
                self.assertTrue(session.releasing)
                self.successResultOf(session.release())
                self.assert_others_left(backend, session)

    def assert_others_left(self, backend, session):
        """The three others stand, and nothing of this one does."""
        listed = self.successResultOf(backend.sessions())
        self.assertEqual(len(listed), 3)
        self.assertNotIn(session.session_id, {one.session_id for one in listed})
        self.assertEqual(len(self.records(backend)), 3)
        name = str(session.session_id)
        for path in self.everything(os.path.join(backend.root, ".bits-sessions")):
            self.assertNotIn(name.upper(), path)
        self.assertFalse([one for one in self.records(backend) if name.encode() in one])


class CloseCrashTests(CrashCase):
    """Death while a client closes its session, and once more when it asks again."""

    def close(self, backend, session_id):
        """What a Close-Session does, of a session in memory or not."""

        def publish(session):
            publishing = self.publish(session)
            return publishing.addCallback(lambda _: session.release(remember=True))

        def recall(failure):
            failure.trap(NoSuchSession)
            recalling = backend.recalls_close(session_id, ("name.txt",), None)
            return recalling.addCallback(self.assertTrue)

        return backend.find(session_id).addCallbacks(publish, recall)

    def test_it_goes_on_after_a_kill_at_any_call_and_another_one(self):
        # No record of a close waits for an fsync.
        self.fsync = "never"
        for first in range(200):
            self.survived = False
            for second in self.rounds():
                backend = self.start()
                session_id = self.complete(backend).session_id
                self.run_until_dead(backend, first, self.close, backend, session_id)
                is_last = self.survived
                backend = self.reopened(backend)
                self.run_until_dead(backend, second, self.close, backend, session_id)
                self.assert_closes(self.reopened(backend), session_id)
            if is_last:
                return
        self.fail("it never ends")

    def assert_closes(self, backend, session_id):
        self.successResultOf(self.close(backend, session_id))
        self.assertEqual(self.published(backend, ("name.txt",)), b"whole")
        self.assertEqual(self.leftovers(backend), [])


class CreationCrashTests(CrashCase):
    """Death while a session is made, and while bytes come."""

    def test_a_session_is_found_whole_or_not_at_all(self):
        for fsync in ("close", "fragment"):
            self.fsync = fsync
            self.survived = False
            for calls in self.rounds():
                backend = self.start()
                kept = self.create(backend, ("kept",))
                self.run_until_dead(backend, calls, self.creation, backend, ("new",))
                again = self.reopened(backend)
                listed = self.successResultOf(again.sessions())
                ids = {one.session_id for one in listed}
                self.assertIn(kept.session_id, ids)
                self.successResultOf(again.clean_up(0.0))
                self.assertEqual(len(self.leftovers(again)), len(ids))
                for one in ids:
                    found = self.successResultOf(again.find(one))
                    self.assertEqual((found.total, found.offset), (None, 0))

    def test_acknowledged_bytes_outlive_a_kill_at_any_call(self):
        self.survived = False
        for calls in self.rounds():
            backend = self.start()
            session = self.create(backend)
            self.append(session, 9, b"sure")

            def append(session=session):
                opening = session.open_writer(9)
                return opening.addCallback(
                    lambda writer: writer.write(b"maybe").addCallback(
                        lambda _: writer.close()
                    )
                )

            self.run_until_dead(backend, calls, append)
            found = self.successResultOf(
                self.reopened(backend).find(session.session_id)
            )
            self.assertIn(found.offset, (9,) if self.acknowledged else (4, 9))
            self.append(found, 9, b"suremaybe"[found.offset :])
            self.successResultOf(self.publish(found))
            self.assertEqual(self.published(backend, ("name.txt",)), b"suremaybe")

    def test_the_lock_of_a_killed_process_is_free(self):
        backend = self.start()
        self.failureResultOf(self.disk(backend.root).start())
        self.reopened(backend)
        self.assertIn("lock", os.listdir(os.path.join(backend.root, ".bits-sessions")))
