"""
The staging area of the disk backend: what others do in it, and what a start needs.
"""

from __future__ import annotations

import errno
import os
import shutil
import zlib
from typing import Any
from uuid import uuid4

from twisted.internet import reactor
from zope.interface.verify import verifyObject

from tests.backends.disk.mortal import DiskCase, MortalFiles
from txbits._accounts import system_user
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._records import aside_name
from txbits.backends.disk._staged import part_name
from txbits.errors import (
    BackendError,
    DestinationForbidden,
    NoSuchSession,
    StagedDataLost,
)
from txbits.interfaces import ICleaning


class TamperingTests(DiskCase):
    """What others do in the staging area."""

    def inside(self, backend, *names):
        return os.path.join(backend.root, ".bits-sessions", *names)

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

    def tamper(self, backend, session, old, new):
        """Change the record of a session; *new* may be longer or shorter."""
        path = self.inside(backend, "sessions-1")
        name = str(session.session_id).encode()
        with open(path, "rb") as file:
            lines = file.readlines()
        for number, line in enumerate(lines):
            if name in line:
                self.assertIn(old, line)
                changed = line.replace(old, new).rstrip()
                lines[number] = changed.ljust(511) + b"\n"
        with open(path, "r+b") as file:
            file.writelines(lines)

    def tamper_rightly(self, backend, session, old, new):
        """The same, with a checksum to match."""
        body = backend._files.pread(
            backend._staging.table.fd,
            512,
            512 * backend._staging.table._lines[session.session_id],
        ).partition(b" [")[2]
        body = b"[" + body.rstrip()
        self.tamper(backend, session, old, new)
        self.tamper(
            backend,
            session,
            b"%08x" % zlib.crc32(body),
            b"%08x" % zlib.crc32(body.replace(old, new)),
        )

    def test_a_record_that_cannot_be_read_is_a_fault_and_is_kept(self):
        backend = self.start()
        for change in (
            lambda one: self.tamper(backend, one, b"name.txt", b"name.doc"),
            lambda one: self.tamper(backend, one, b"open ", b"shut "),
            lambda one: self.tamper(backend, one, b" - ", b" x "),
            lambda one: self.tamper(backend, one, b"]", b""),
            lambda one: self.tamper_rightly(backend, one, b'"name.txt"', b"7"),
            lambda one: self.tamper_rightly(backend, one, b"null", b"8"),
            lambda one: self.tamper_rightly(backend, one, b", null]", b"]"),
        ):
            session = self.create(backend)
            change(session)
            failure = self.failureResultOf(backend.find(session.session_id))
            self.assertIs(failure.type, BackendError)
            self.assertEqual(self.successResultOf(backend.sessions()), [])
            self.successResultOf(backend.clean_up(0.0))
            self.assertEqual(len(self.leftovers(backend)), 1)
            self.successResultOf(session.release())
        self.assertEqual(self.leftovers(backend), [])

    def test_the_line_of_another_session_is_a_fault(self):
        backend = self.start()
        first, second = self.create(backend), self.create(backend)
        lines = backend._staging.table._lines
        lines[first.session_id] = lines[second.session_id]
        failure = self.failureResultOf(backend.find(first.session_id))
        self.assertIs(failure.type, BackendError)

    def test_nothing_is_removed_that_may_belong_to_a_damaged_record(self):
        backend = self.start()
        session, other = self.complete(backend), self.complete(backend)
        self.tamper(backend, session, b"name.txt", b"name.doc")
        again = self.reopened(backend)
        failure = self.failureResultOf(again.find(session.session_id))
        self.assertIs(failure.type, BackendError)
        self.failureResultOf(again.find(uuid4()), NoSuchSession)
        listed = self.successResultOf(again.sessions())
        self.assertEqual([one.session_id for one in listed], [other.session_id])
        self.successResultOf(again.clean_up(0.0))
        self.assertEqual(len(self.leftovers(again)), 4)
        self.tamper(again, session, b"name.doc", b"name.txt")
        again = self.reopened(again)
        found = self.successResultOf(again.find(session.session_id))
        self.assertEqual(found.offset, 5)

    def test_a_hostile_destination_in_a_record_is_not_followed(self):
        backend = self.start()
        session = self.complete(backend)
        self.tamper_rightly(backend, session, b'"name.txt"', b'"..", "x"')
        found = self.successResultOf(self.reopened(backend).find(session.session_id))
        self.assertEqual(found.destination, ("..", "x"))
        self.failureResultOf(self.publish(found), DestinationForbidden)

    def test_files_without_a_record_are_no_sessions_and_go(self):
        backend = self.start()
        staged, aside = uuid4(), uuid4()
        for name in (part_name(staged), aside_name(aside)):
            with open(self.inside(backend, name), "wb"):
                pass
        for one in (staged, aside):
            self.failureResultOf(backend.find(one), NoSuchSession)
        self.assertEqual(self.successResultOf(backend.sessions()), [])
        self.successResultOf(backend.clean_up(0.0))
        self.assertEqual(self.leftovers(backend), [])
        verifyObject(ICleaning, backend)
        self.assertEqual(backend.removed_counts(), {"close": 0, "claim": 0, "stray": 2})

    def test_what_is_not_ours_is_left_alone(self):
        backend = self.start()
        with open(self.inside(backend, "README"), "wb"):
            pass
        os.mkdir(self.inside(backend, "lost+found"))
        self.successResultOf(backend.clean_up(2.0**40))
        self.assertEqual(self.leftovers(backend), ["README", "lost+found"])

    def test_a_session_being_made_is_not_cleaned_up(self):
        """Also one whose record lies aside, and is there before its line."""
        backend = self.start()
        pwrite = backend._files.pwrite

        def clean_first(*args):
            self.successResultOf(backend.clean_up(2.0**40))
            self.successResultOf(backend.sessions())
            return pwrite(*args)

        backend._files.pwrite = clean_first
        for destination in (("short",), tuple("abcdefgh" * 30)):
            session = self.create(backend, destination, create_directories=True)
            found = self.successResultOf(backend.find(session.session_id))
            self.assertEqual(found.destination, destination)

    def test_bytes_whose_total_a_crash_has_lost_come_again(self):
        backend = self.start()
        session = self.create(backend)
        with open(session.address(), "wb") as file:
            file.write(b"lost")
        again = self.reopened(backend)
        found = self.successResultOf(again.find(session.session_id))
        self.assertEqual((found.total, found.offset), (None, 0))
        self.append(found, 3, b"new")
        self.successResultOf(self.publish(found))
        self.assertEqual(self.published(again, ("name.txt",)), b"new")

    def test_a_staged_file_that_somebody_else_links_to_is_not_published(self):
        for size in (5, 9):
            backend = self.start()
            session = self.create(backend)
            self.append(session, size, b"whole")
            os.link(session.address(), self.inside(backend, "backup"))
            again = self.reopened(backend)
            found = self.successResultOf(again.find(session.session_id))
            self.assertFalse(found.published)
            self.append(found, size, b"more"[: size - 5])
            self.successResultOf(self.publish(found))
            there = self.published(again, ("name.txt",))
            self.assertEqual(there, b"wholemore"[:size])

    def test_a_session_whose_total_could_not_be_written_down_leaves_nothing(self):
        backend = self.start()
        session = self.create(backend)
        backend._files.fail("pwrite", errno.EIO)
        self.failureResultOf(session.open_writer(5), BackendError)
        self.successResultOf(session.release())
        self.assertEqual(self.leftovers(backend), [])

    def test_a_store_that_is_moved_is_still_known(self):
        backend = self.start()
        session = self.complete(backend)
        os.rename(backend.root, backend.root + "-away")
        self.successResultOf(backend.find(session.session_id))
        self.append(session, 5, b"")
        os.rename(backend.root + "-away", backend.root)
        self.successResultOf(self.publish(session))

    def test_a_staging_area_that_is_removed_does_not_make_sessions_unknown(self):
        backend = self.start()
        session = self.complete(backend)
        shutil.rmtree(os.path.join(backend.root, ".bits-sessions"))
        for one in (session.session_id, uuid4()):
            failure = self.failureResultOf(backend.find(one))
            self.assertIs(failure.type, BackendError)
        self.assertIn("was removed", str(failure.value))


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
            [
                ".bits-sessions",
                ".bits-sessions/closed",
                ".bits-sessions/lock",
                ".bits-sessions/sessions-1",
            ],
        )

    def test_names_that_all_lies_behind_are_made_safe(self):
        """Those of the directories that are made, and that of the staging area."""
        top = self.mktemp()
        os.mkdir(top)
        names = (".bits-sessions", ".bits-sessions/sessions-1")
        for fsync in ("close", "never"):
            self.fsync = fsync
            backend = self.disk(os.path.join(top, fsync, "root"))
            real, synced = backend._files.fsync, []

            def fsync_noted(fd, real=real, synced=synced):
                synced.append(os.readlink(f"/proc/self/fd/{fd}"))
                real(fd)

            backend._files.fsync = fsync_noted
            self.successResultOf(backend.start())
            self.addCleanup(lambda backend=backend: backend._files.die())
            root = os.path.realpath(backend.root)
            wanted = {
                os.path.normpath(os.path.join(root, name))
                for name in (".", "..", "../..", *names)
            }
            self.assertEqual(set(synced), wanted if fsync == "close" else set())

    def test_a_missing_root_is_refused_and_left_missing(self):
        root = os.path.join(self.mktemp(), "volume")
        backend = DiskBackend(
            root, reactor, in_thread=self.in_thread, files=MortalFiles(), create=False
        )
        self.assertEqual(
            self.refusal(backend),
            f"{backend.root} does not exist; mount its volume or create the directory, "
            "or append :create=yes to have txbits create it",
        )
        self.assertFalse(os.path.lexists(os.path.dirname(root)))
        os.makedirs(root)
        self.successResultOf(backend.start())
        self.successResultOf(backend.stop())

    def test_a_file_in_place_of_a_root_is_refused(self):
        root = self.mktemp()
        with open(root, "wb"):
            pass
        backend = DiskBackend(
            root, reactor, in_thread=self.in_thread, files=MortalFiles(), create=False
        )
        self.assertIn("is not a directory", self.refusal(backend))

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
            self.assertRegex(
                self.refusal(backend),
                rf"^{backend.root} cannot be used: Permission denied.*; let user "
                rf"{system_user()} write there$",
            )
            self.assertEqual(backend._files._open, set())
        backend = self.disk(self.mktemp())
        backend._files.access = lambda path, mode: False
        self.assertEqual(
            self.refusal(backend),
            f"{backend.root} is not writable; let user {system_user()} write there",
        )
        self.assertEqual(backend._files._open, set())

    def test_staging_on_another_file_system_is_refused(self):
        backend = self.disk(self.mktemp())
        fstat = backend._files.fstat
        devices = []

        def other(fd):
            found = list(fstat(fd))
            found[2] += len(devices)
            devices.append(fd)
            return os.stat_result(found)

        backend._files.fstat = other
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
