"""
The staging area of the disk backend: what others do in it, and what a start needs.
"""

from __future__ import annotations

import errno
import os
import time
from typing import Any
from uuid import uuid4

from twisted.internet import reactor

from tests.backends.mortal import DiskCase
from txbits.backends.disk import DiskBackend
from txbits.errors import BackendError, NoSuchSession, StagedDataLost


class TamperingTests(DiskCase):
    """What others do in the staging area."""

    def inside(self, backend, *names):
        return os.path.join(backend.root, ".bits-sessions", *names)

    def of(self, backend, session, *names):
        return self.inside(backend, str(session.session_id).upper(), *names)

    def test_staged_bytes_that_vanished_are_lost(self):
        backend = self.start()
        for overwrite in (False, True):
            session = self.complete(backend, overwrite=overwrite)
            os.unlink(session.address())
            self.failureResultOf(session.open_writer(5), StagedDataLost)
            self.failureResultOf(self.publish(session, overwrite), StagedDataLost)
            self.successResultOf(session.release())
        self.assertEqual(self.leftovers(backend), [])

    def test_bytes_lost_after_publishing_failed_are_not_taken_for_published(self):
        backend = self.start()
        session = self.complete(backend, overwrite=True)
        backend._files.fail("rename", errno.EIO, only="dst_dir_fd")
        self.failureResultOf(self.publish(session, overwrite=True), BackendError)
        os.unlink(session.address())
        self.failureResultOf(self.publish(session, overwrite=True), StagedDataLost)
        again = self.reopened(backend)
        found = self.successResultOf(again.find(session.session_id))
        self.assertFalse(found.published)

    def test_staged_bytes_that_were_cut_are_lost(self):
        backend = self.start()
        session = self.complete(backend)
        os.truncate(session.address(), 4)
        self.failureResultOf(self.publish(session), StagedDataLost)
        self.failureResultOf(session.open_writer(5), StagedDataLost)

    def test_more_bytes_than_the_total_are_a_fault(self):
        backend = self.start()
        session = self.complete(backend)
        with open(session.address(), "ab") as file:
            file.write(b"more")
        for call in (
            lambda: session.open_writer(5),
            lambda: self.publish(session),
            lambda: backend.find(session.session_id),
        ):
            failure = self.failureResultOf(call(), BackendError)
            self.assertIs(type(failure.value), BackendError)
        self.assertIsNone(self.published(backend, ("name.txt",)))
        self.successResultOf(session.release())

    def test_a_record_that_cannot_be_read_is_a_fault_and_is_kept(self):
        backend = self.start()
        for record in (
            b"{",
            b"[]",
            b"\xff",
            b'{"version": 2}',
            b'{"version": 1, "destination": [1], "owner": null, "content_name": null}',
            b'{"version": 1, "destination": ["a"], "owner": 7, "content_name": null}',
            b'{"version": 1, "destination": ["a"], "owner": null}',
        ):
            session = self.create(backend)
            with open(self.of(backend, session, "open.json"), "wb") as file:
                file.write(record)
            failure = self.failureResultOf(backend.find(session.session_id))
            self.assertIs(failure.type, BackendError, record)
            self.assertEqual(self.successResultOf(backend.sessions()), [])
            self.successResultOf(backend.clean_up(0.0))
            self.assertEqual(len(self.leftovers(backend)), 1)
            self.successResultOf(session.release())

    def test_two_records_in_one_are_a_fault(self):
        backend = self.start()
        session = self.create(backend)
        with open(self.of(backend, session, "releasing.json"), "wb"):
            pass
        failure = self.failureResultOf(backend.find(session.session_id))
        self.assertIs(failure.type, BackendError)

    def test_a_hostile_destination_in_a_record_is_not_followed(self):
        backend = self.start()
        session = self.complete(backend)
        path = self.of(backend, session, "open.json")
        with open(path, "rb") as file:
            record = file.read()
        with open(path, "wb") as file:
            file.write(record.replace(b'"name.txt"', b'"..", "x"'))
        found = self.successResultOf(backend.find(session.session_id))
        self.failureResultOf(self.publish(found), BackendError)

    def test_directories_without_a_record_are_no_sessions_and_go(self):
        backend = self.start()
        bare, empty, staged = uuid4(), uuid4(), uuid4()
        for one in (bare, empty, staged):
            os.mkdir(self.inside(backend, str(one).upper()))
        for names in (
            (str(empty).upper(), "open.json"),
            (str(staged).upper(), "5.part"),
        ):
            with open(self.inside(backend, *names), "wb"):
                pass
        for one in (bare, empty, staged):
            self.failureResultOf(backend.find(one), NoSuchSession)
        self.assertEqual(self.successResultOf(backend.sessions()), [])
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.leftovers(backend), [])

    def test_what_is_not_ours_is_left_alone(self):
        backend = self.start()
        with open(self.inside(backend, "README"), "wb"):
            pass
        os.mkdir(self.inside(backend, "lost+found"))
        self.successResultOf(backend.clean_up(2.0**40))
        self.assertEqual(self.leftovers(backend), ["README", "lost+found"])

    def test_a_session_being_made_is_not_cleaned_up(self):
        self.fsync = "close"
        backend = self.start()
        pwrite = backend._files.pwrite

        def clean_first(*args):
            self.successResultOf(backend.clean_up(2.0**40))
            return pwrite(*args)

        backend._files.pwrite = clean_first
        session = self.create(backend)
        self.successResultOf(backend.find(session.session_id))

    def test_a_stranger_s_file_does_not_keep_a_session_from_going(self):
        backend = self.start()
        session = self.complete(backend)
        with open(self.of(backend, session, ".nfs0001"), "wb"):
            pass
        self.successResultOf(session.release())
        self.assertEqual(self.leftovers(backend), [])

    def test_a_store_that_is_gone_does_not_make_sessions_unknown(self):
        backend = self.start()
        session = self.complete(backend)
        away = backend.root + "-away"
        os.rename(backend.root, away)
        failure = self.failureResultOf(backend.find(session.session_id))
        self.assertIs(failure.type, BackendError)
        os.rename(away, backend.root)
        self.successResultOf(backend.find(session.session_id))


class CloseRecordTests(DiskCase):
    """What stays of an upload."""

    def closed(self, backend):
        """The paths of all records."""
        directory = os.path.join(backend.root, ".bits-sessions", "closed")
        return [os.path.join(directory, name) for name in os.listdir(directory)]

    def finish(self, backend, destination, **rules):
        """A whole upload, to its end."""
        session = self.complete(backend, destination, **rules)
        self.successResultOf(self.publish(session, create_directories=True))
        self.successResultOf(
            backend.remember_close(session.session_id, destination, session.owner)
        )
        self.successResultOf(session.release())
        return session

    def test_a_record_is_under_a_kibibyte_whatever_the_names(self):
        backend = self.start()
        for destination in (
            ("a",),
            ("🛰" * 60,),
            ("d" * 200, "e" * 200, "f" * 200, "g" * 200, "h" * 200),
        ):
            session = self.finish(
                backend, destination, owner="me", create_directories=True
            )
            self.assertTrue(
                self.successResultOf(
                    backend.recalls_close(session.session_id, destination, "me")
                )
            )
        self.assertEqual(self.leftovers(backend), [])
        self.assertEqual(len(self.closed(backend)), 3)
        for record in self.closed(backend):
            self.assertLess(os.path.getsize(record), 1024)

    def test_a_record_is_a_second_link_of_the_state_file(self):
        backend = self.start()
        session = self.finish(backend, ("a",))
        self.assertNotIn("mknod", backend._files.calls)
        self.assertEqual(backend._staging.published, {})
        (record,) = self.closed(backend)
        self.assertEqual(os.stat(record).st_nlink, 1)
        again = self.reopened(backend)
        recalled = again.recalls_close(session.session_id, ("a",), None)
        self.assertTrue(self.successResultOf(recalled))

    def test_a_record_is_made_without_links_as_well(self):
        backend = self.start()
        session = self.complete(backend)
        self.successResultOf(self.publish(session))
        for number in (errno.EPERM, errno.ENOENT, errno.EMLINK):
            backend._files.fail("link", number)
            one = uuid4()
            backend._staging.published[one] = session.address()
            self.successResultOf(backend.remember_close(one, ("a",), None))
            self.assertTrue(
                self.successResultOf(backend.recalls_close(one, ("a",), None))
            )

    def test_a_long_upload_is_remembered_from_its_end(self):
        backend = self.start()
        session = self.complete(backend)
        state = os.path.join(os.path.dirname(session.address()), "open.json")
        os.utime(state, (1, 1))
        self.successResultOf(self.publish(session))
        self.successResultOf(
            backend.remember_close(session.session_id, ("name.txt",), None)
        )
        self.successResultOf(session.release())
        self.successResultOf(backend.clean_up(time.time() - 3600))
        self.assertEqual(len(self.closed(backend)), 1)
        self.successResultOf(backend.clean_up(time.time() + 3600))
        self.assertEqual(self.closed(backend), [])


class StartTests(DiskCase):
    """What a start needs, and says."""

    def refusal(self, backend):
        text = str(self.failureResultOf(backend.start(), BackendError).value)
        self.assertNotIn("\n", text)
        return text

    def test_the_root_is_made(self):
        root = os.path.join(self.mktemp(), "new", "root")
        self.start(root)
        self.assertEqual(
            self.everything(root),
            [".bits-sessions", ".bits-sessions/closed", ".bits-sessions/lock"],
        )

    def test_a_root_in_use_is_refused(self):
        backend = self.start()
        self.assertIn("in use by another txbits", self.refusal(self.disk(backend.root)))

    def test_a_stopped_backend_frees_the_root(self):
        backend = self.disk(self.mktemp())
        for _ in range(2):
            self.successResultOf(backend.start())
            self.successResultOf(backend.stop())
        self.assertEqual(backend._files._open, set())

    def test_a_file_is_no_root(self):
        path = self.mktemp()
        with open(path, "wb"):
            pass
        for root in (path, os.path.join(path, "below")):
            self.assertIn("cannot be used", self.refusal(self.disk(root)))

    def test_a_root_that_may_not_be_written_is_refused(self):
        for name in ("mkdir", "open", "flock"):
            backend = self.disk(self.mktemp())
            backend._files.fail(name, errno.EACCES)
            self.assertIn("the user txbits runs as", self.refusal(backend))
            self.assertEqual(backend._files._open, set())
        backend = self.disk(self.mktemp())
        backend._files.access = lambda path, mode: False
        self.assertIn("not writable", self.refusal(backend))
        self.assertEqual(backend._files._open, set())

    def test_staging_on_another_file_system_is_refused(self):
        backend = self.disk(self.mktemp())
        stat = backend._files.stat

        def other(path):
            found = list(stat(path))
            found[2] += 1
            return os.stat_result(found)

        backend._files.stat = other
        self.assertIn("another file system", self.refusal(backend))

    def test_a_backend_that_is_not_started_fails(self):
        backend = self.disk(self.mktemp())
        self.failureResultOf(backend.find(uuid4()), BackendError)
        self.failureResultOf(self.creation(backend), BackendError)
        self.successResultOf(backend.stop())

    def test_a_wrong_policy_is_refused(self):
        policy: Any = "sometimes"
        with self.assertRaises(ValueError):
            DiskBackend("x", reactor, fsync=policy)
