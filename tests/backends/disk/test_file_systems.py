"""
Roots on file systems that lack what ext4 has: what a start finds out, what it chooses,
and that uploads come through, or are refused before a byte is taken.

:class:`~tests.backends.disk.limited.LimitedFiles` lacks at will. A real file system of
that kind is mounted by ``tests/integration/test_fuse.py``.
"""

from __future__ import annotations

import errno
import os

from twisted.internet import reactor
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.backends.disk import test_crashes as test_disk_crashes
from tests.backends.disk.limited import (
    NEITHER,
    LimitedFiles,
    with_links_that_do_not_show,
    without_either,
    without_links,
)
from tests.backends.disk.mortal import (
    DiskCase,
    InMemory,
    Killed,
    MortalFiles,
    OnDisk,
)
from txbits.backends.disk._probe import Way
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationForbidden,
    InvalidSetting,
    OutOfSpace,
)
from txbits.interfaces import IOverwriting
from txbits.sessions import Caller, SessionManager, Settings
from txbits.testing import BackendContract

_CONTENT = ["closed", "lock", "sessions-1"]


class LimitedCase(DiskCase):
    """A disk that lacks what is said."""

    def on(self, root=None, **lacking):
        """A started backend on such a disk, and what it has logged as it started."""
        self.make_files = lambda: LimitedFiles(**lacking)
        events = []
        globalLogPublisher.addObserver(events.append)
        try:
            backend = self.start(root)
        finally:
            globalLogPublisher.removeObserver(events.append)
        self.events = [one for one in events if "lacking" in one]
        return backend

    def staged(self, backend):
        return sorted(os.listdir(os.path.join(backend.root, ".bits-sessions")))


class ProbeTests(LimitedCase):
    """What is found out, said, and chosen."""

    def assert_found(self, way, lacking, level=LogLevel.info, **limits):
        backend = self.on(**limits)
        (event,) = self.events
        self.assertEqual(event["log_level"], level)
        self.assertEqual(
            event["log_format"].format(**event),
            f"{backend.root}: to publish without overwriting: {way.value}; the file "
            f"system lacks: {lacking}",
        )
        self.assertIs(backend._staging.file_system.way, way)
        self.assertEqual(self.staged(backend), _CONTENT)

    def test_a_disk_that_has_everything(self):
        self.assert_found(Way.LINK, "nothing")

    def test_no_links(self):
        for number in (
            errno.EPERM,
            errno.EOPNOTSUPP,
            errno.ENOSYS,
            errno.EINVAL,
            errno.EACCES,
            errno.EIO,
        ):
            self.assert_found(
                Way.RENAME, f"hard links ({os.strerror(number)})", link=number
            )

    def test_no_renames_that_replace_nothing(self):
        """Also where the C library, or the kernel, has no such call."""
        for number in (errno.EINVAL, errno.ENOSYS):
            self.assert_found(
                Way.LINK,
                f"rename without replacing ({os.strerror(number)})",
                rename_no_replace=number,
            )

    def test_neither(self):
        self.assert_found(
            Way.NONE,
            "hard links (Operation not permitted), rename without replacing (Invalid "
            "argument)",
            **NEITHER,
        )

    def test_names_that_do_not_show_that_they_are_of_one_file(self):
        lacking = "one inode number for all links to a file"
        self.assert_found(Way.RENAME, lacking, has_inodes=False)
        self.assert_found(
            Way.COMPARED,
            f"{lacking}, rename without replacing (Invalid argument)",
            has_inodes=False,
            rename_no_replace=errno.EINVAL,
        )

    def test_no_fsync_of_directories_is_a_warning(self):
        for number in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            self.assert_found(
                Way.LINK,
                f"fsync of directories ({os.strerror(number)})",
                LogLevel.warn,
                sync_names=number,
            )

    def test_nobody_asks_for_fsync_where_there_is_to_be_none(self):
        self.fsync = "never"
        self.assert_found(Way.LINK, "nothing", fsync=errno.EIO)

    def test_a_disk_that_cannot_sync_a_directory_it_could_sync_is_broken(self):
        self.make_files = lambda: LimitedFiles(sync_names=errno.EIO)
        failure = self.failureResultOf(self.disk(self.mktemp()).start(), BackendError)
        self.assertIn("cannot be used", str(failure.value))

    def test_a_staging_area_that_is_a_mount_of_its_own_is_refused(self):
        """Also of the same file system, so that the devices do not tell."""
        self.make_files = lambda: LimitedFiles(rename=errno.EXDEV)
        failure = self.failureResultOf(self.disk(self.mktemp()).start(), BackendError)
        self.assertIn("is on another file system than", str(failure.value))

    def test_the_rest(self):
        self.assert_found(
            Way.LINK,
            "flock (No locks available; fcntl is used), support for all characters in "
            "names, free space reporting, default ACLs",
            flock=errno.ENOLCK,
            refused="?",
            statvfs=errno.ENOSYS,
            getxattr=errno.EOPNOTSUPP,
        )

    def test_a_full_disk_starts_and_is_taken_for_one_that_lacks_nothing(self):
        """Clients that close their uploads need no space."""
        backend = self.start()
        session = self.complete(backend)
        backend._files.die()
        backend = self.on(backend.root, is_full=True)
        self.assertIs(backend._staging.file_system.way, Way.LINK)
        self.assertEqual(backend._staging.file_system.lacking, ())
        backend._files.is_full = False
        found = self.successResultOf(backend.find(session.session_id))
        self.successResultOf(self.publish(found))

    def test_a_full_disk_without_links(self):
        backend = self.on(link=errno.EPERM)
        session = self.complete(backend)
        backend._files.die()
        backend = self.on(backend.root, link=errno.EPERM, is_full=True)
        self.assertIs(backend._staging.file_system.way, Way.RENAME)
        backend._files.is_full = False
        found = self.successResultOf(backend.find(session.session_id))
        self.successResultOf(self.publish(found))

    def test_what_a_killed_probe_leaves_the_next_start_removes(self):
        for limits in ({}, {"link": errno.EPERM}):
            for calls in range(200):
                root = self.mktemp()
                files = LimitedFiles(**limits)
                self.make_files = lambda files=files: files
                files.die_after(calls)
                backend = self.disk(root)
                outcome = []
                backend.start().addErrback(outcome.append)
                if not files._dead:
                    files.die()
                again = self.on(root, **limits)
                self.assertEqual(self.staged(again), _CONTENT)
                if not outcome:
                    self.assertGreater(calls, 20)
                    break
                outcome[0].trap(Killed)
            else:
                self.fail("it never ends")


class LockTests(LimitedCase):
    """Two servers never have one root unnoticed."""

    def test_there_are_locks_of_another_kind(self):
        for number in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            root = self.mktemp()
            self.on(root, flock=number)
            failure = self.failureResultOf(self.disk(root).start(), BackendError)
            self.assertIn("in use by another txbits", str(failure.value))

    def test_a_lock_of_the_other_kind_ends_with_its_process(self):
        backend = self.on(flock=errno.ENOLCK)
        backend._files.die()
        self.on(backend.root, flock=errno.ENOLCK)

    def test_no_locks_at_all_are_refused_in_one_line(self):
        self.make_files = lambda: LimitedFiles(
            flock=errno.ENOLCK, lock_open_file=errno.ENOSYS
        )
        failure = self.failureResultOf(self.disk(self.mktemp()).start(), BackendError)
        (line,) = str(failure.value).splitlines()
        self.assertIn("without locks", line)

    def test_a_lock_that_fails_in_another_way_is_a_fault(self):
        for lacking in (
            {"flock": errno.EIO},
            {"flock": errno.ENOSYS, "lock_open_file": errno.EIO},
        ):
            self.make_files = lambda lacking=lacking: LimitedFiles(**lacking)
            failure = self.failureResultOf(
                self.disk(self.mktemp()).start(), BackendError
            )
            self.assertIn("cannot be used", str(failure.value))


class NameSyncTests(LimitedCase):
    """Directories that cannot be synced."""

    def test_uploads_come_through_whatever_is_to_be_safe(self):
        for self.fsync in ("close", "fragment", "never"):
            for overwrite in (False, True):
                backend = self.on(sync_names=errno.EINVAL)
                session = self.complete(
                    backend, ("a", "b"), create_directories=True, overwrite=overwrite
                )
                self.successResultOf(self.publish(session, overwrite, True))
                self.assertEqual(self.published(backend, ("a", "b")), b"whole")
                again = self.reopened(backend)
                found = self.successResultOf(again.find(session.session_id))
                self.assertTrue(found.published)
                self.successResultOf(found.release())

    def test_the_kernel_is_asked_once(self):
        backend = self.on(sync_names=errno.EINVAL)
        calls = backend._files.calls
        calls.clear()
        self.successResultOf(self.publish(self.complete(backend)))
        # The file, and its record.
        self.assertEqual(calls.count("fsync"), 2)

    def test_it_may_turn_out_later(self):
        """A file system of several, which are not all alike."""
        for overwrite in (False, True):
            backend = self.on()
            backend._files.lacking["sync_names"] = errno.EINVAL
            session = self.complete(
                backend, ("a", "b"), create_directories=True, overwrite=overwrite
            )
            self.successResultOf(self.publish(session, overwrite, True))
            self.assertEqual(self.published(backend, ("a", "b")), b"whole")

    def test_a_file_that_cannot_be_synced_is_not_published(self):
        for number in (errno.EINVAL, errno.EIO):
            backend = self.on()
            session = self.create(backend)
            self.append(session, 2 << 20, bytes(2 << 20))
            backend._files.fail("fsync", number)
            self.failureResultOf(self.publish(session), BackendError)
            self.assertIsNone(self.published(backend, ("name.txt",)))


class SpaceTests(LimitedCase):
    """File systems that say nothing of free space."""

    def test_zeros_are_no_full_disk(self):
        for is_told_at_start in (False, True):
            backend = self.on()
            backend._files.is_space_told = is_told_at_start
            backend = self.reopened(backend)
            backend._files.is_space_told = False
            self.complete(backend)

    def test_a_call_that_is_not_there_is_no_full_disk(self):
        self.complete(self.on(statvfs=errno.ENOSYS))

    def test_a_disk_that_is_full_all_the_same_says_so(self):
        backend = self.on(statvfs=errno.ENOSYS)
        session = self.create(backend)
        writer = self.successResultOf(session.open_writer(10))
        backend._files.room = 2
        self.failureResultOf(writer.write(b"12345"), OutOfSpace)
        self.assertEqual(session.offset, 2)


class NameTests(LimitedCase):
    """EINVAL is said of names, and of what there is not."""

    def test_a_call_that_fails_with_it_is_a_fault(self):
        for call, overwrite in (("link", False), ("rename", True)):
            backend = self.on()
            session = self.complete(backend, overwrite=overwrite)
            backend._files.fail(call, errno.EINVAL)
            failure = self.failureResultOf(self.publish(session, overwrite))
            self.assertIs(failure.type, BackendError)
            self.successResultOf(self.publish(session, overwrite))
            self.assertFalse(any("probe" in one for one in self.staged(backend)))

    def test_a_look_that_fails_with_it_is_a_fault(self):
        backend = self.on()
        backend._files.fail("lstat", errno.EINVAL)
        failure = self.failureResultOf(self.creation(backend))
        self.assertIs(failure.type, BackendError)

    def test_a_name_that_cannot_be_is_refused_before_a_byte_is_taken(self):
        backend = self.on(refused='"*<>?|')
        for destination in (("what?",), ("a*", "b"), ('"', "b", "c")):
            self.failureResultOf(
                self.creation(backend, destination, create_directories=True),
                DestinationForbidden,
            )
        session = self.complete(backend, ("fine ünd (good).txt",))
        self.successResultOf(self.publish(session))
        self.assertFalse(any("probe" in one for one in self.staged(backend)))

    def test_a_name_that_turns_out_later_not_to_be_possible_is_refused(self):
        backend = self.on()
        session = self.complete(backend, ("what?",))
        backend._files.refused = "?"
        backend._files.fail("link", errno.EINVAL)
        self.failureResultOf(self.publish(session), DestinationForbidden)

    def test_many_names_cost_no_more_than_a_few(self):
        backend = self.on(refused="?")
        backend._files.calls.clear()
        destination = tuple("äöü" * 80)
        self.creation(backend, destination, create_directories=True)
        self.assertEqual(backend._files.calls.count("mkdir"), 2)

    def test_names_that_are_common_everywhere_need_two_trials_at_most(self):
        backend = self.on(refused="?")
        backend._files.calls.clear()
        self.creation(backend, ("a",))
        self.assertEqual(backend._files.calls.count("mkdir"), 1)


class PublishingTests(LimitedCase):
    """No file is overwritten, and no upload is taken for another's."""

    def test_a_file_that_appears_is_kept_in_all_ways(self):
        for limits in (
            {},
            {"link": errno.EPERM},
            {"has_inodes": False, "rename_no_replace": errno.EINVAL},
        ):
            # Of the same length in the one case.
            for theirs in (b"theirs", b"other"):
                backend = self.on(**limits)
                session = self.complete(backend)
                self.place(backend, ("name.txt",), theirs)
                for _ in range(2):
                    self.failureResultOf(self.publish(session), DestinationExists)
                backend = self.reopened(backend)
                found = self.successResultOf(backend.find(session.session_id))
                self.assertEqual((found.published, found.offset), (False, 5))
                self.failureResultOf(self.publish(found), DestinationExists)
                self.assertEqual(self.published(backend, ("name.txt",)), theirs)
                os.unlink(os.path.join(backend.root, "name.txt"))
                self.successResultOf(self.publish(found))
                self.assertEqual(self.published(backend, ("name.txt",)), b"whole")
                self.successResultOf(found.release())
                self.assertEqual(self.leftovers(backend), [])

    def test_a_link_that_could_not_be_taken_back_is_known_again(self):
        """By its bytes, where each name has an inode number of its own."""
        self.make_files = with_links_that_do_not_show
        for data in (b"", b"whole", os.urandom(3 << 20)):
            backend = self.start()
            session = self.complete(backend, data=data)
            files = backend._files
            link = files.link

            def then_break(*args, files=files, link=link, **kwargs):
                link(*args, **kwargs)
                files.fail("pwrite", errno.EIO)  # the record
                files.fail("unlink", errno.EIO)

            files.link = then_break
            self.failureResultOf(self.publish(session), BackendError)
            files.link = link
            files._faults.clear()
            self.assertEqual(self.published(backend, ("name.txt",)), data)
            self.successResultOf(self.publish(session))
            self.successResultOf(session.release())
            self.assertEqual(self.published(backend, ("name.txt",)), data)

    def test_a_link_whose_name_could_not_be_made_safe_is_taken_back(self):
        self.make_files = with_links_that_do_not_show
        backend = self.start()
        session = self.complete(backend)
        fsync = backend._files.fsync

        def of_no_directory(fd):
            if fd == backend._staging.tree.fd:
                raise OSError(errno.EIO, "a fault")
            fsync(fd)

        backend._files.fsync = of_no_directory
        self.failureResultOf(self.publish(session), BackendError)
        self.assertIsNone(self.published(backend, ("name.txt",)))
        del backend._files.fsync
        self.successResultOf(self.publish(session))

    def test_a_file_that_was_there_before_is_never_taken_back(self):
        """Not even one of the same bytes."""
        self.make_files = with_links_that_do_not_show
        backend = self.start()
        session = self.complete(backend)
        self.place(backend, ("name.txt",), b"whole")

        def of_no_directory(fd):
            raise OSError(errno.EIO, "a fault")

        backend._files.fsync = of_no_directory
        self.failureResultOf(self.publish(session), BackendError)
        self.assertEqual(self.published(backend, ("name.txt",)), b"whole")

    def test_what_is_no_file_is_not_compared(self):
        self.make_files = with_links_that_do_not_show
        backend = self.start()
        session = self.complete(backend)
        os.mkfifo(os.path.join(backend.root, "name.txt"))
        self.failureResultOf(self.publish(session), DestinationExists)

    def test_a_rename_whose_answer_was_lost_has_happened(self):
        """NFS asks again, and is told that there is nothing to be renamed."""
        for overwrite in (False, True):
            backend = self.on(link=errno.EPERM)
            session = self.complete(backend, overwrite=overwrite)
            name = "rename" if overwrite else "rename_no_replace"
            rename = getattr(backend._files, name)

            def twice(*args, rename=rename, **kwargs):
                rename(*args, **kwargs)
                rename(*args, **kwargs)

            setattr(backend._files, name, twice)
            self.successResultOf(self.publish(session, overwrite))
            self.assertEqual(self.published(backend, ("name.txt",)), b"whole")

    def test_a_part_that_vanished_is_not_taken_for_published(self):
        for overwrite in (False, True):
            backend = self.on(link=errno.EPERM)
            session = self.complete(backend, overwrite=overwrite)
            name = "rename" if overwrite else "rename_no_replace"
            rename = getattr(backend._files, name)

            def too_late(*args, session=session, rename=rename, **kwargs):
                os.unlink(session.address())
                rename(*args, **kwargs)

            setattr(backend._files, name, too_late)
            self.failureResultOf(self.publish(session, overwrite), BackendError)
            self.assertFalse(session.published)

    def test_whether_it_has_happened_may_not_be_known(self):
        backend = self.on(link=errno.EPERM)
        session = self.complete(backend)
        files = backend._files

        def stuck(*args, **kwargs):
            files.fail("lstat", errno.EIO)
            raise OSError(errno.EIO, "a fault")

        files.rename_no_replace = stuck
        self.failureResultOf(self.publish(session), BackendError)
        del files.rename_no_replace
        self.successResultOf(self.publish(session))


class OnlyOverwritingTests(LimitedCase):
    """Nothing keeps a file that exists."""

    def manager(self, allow_overwrites):
        self.make_files = without_either
        return SessionManager(
            self.disk(self.mktemp()),
            Settings(allow_overwrites=allow_overwrites),
            reactor,
        )

    def test_a_directory_that_does_not_allow_it_does_not_start(self):
        manager = self.manager(False)
        failure = self.failureResultOf(manager.start(), BackendError)
        (line,) = str(failure.value).splitlines()
        self.assertIn("--allow-overwrites", line)
        # It has been given back.
        again = self.disk(manager.backend.root)
        self.successResultOf(again.start())
        self.successResultOf(again.stop())

    def test_one_that_allows_it_starts_and_goes_on_allowing_it(self):
        manager = self.manager(True)
        self.successResultOf(manager.start())
        self.addCleanup(lambda: self.successResultOf(manager.stop()))
        with self.assertRaisesRegex(InvalidSetting, "--allow-overwrites"):
            manager.reconfigure(Settings())
        self.assertTrue(manager.settings.allow_overwrites)
        self.successResultOf(manager.create(("a",), Caller(), None))

    def test_it_is_known_when_it_has_started(self):
        self.make_files = without_either
        backend = self.disk(self.mktemp())
        verifyObject(IOverwriting, backend)
        self.assertIsNone(backend.why_only_overwriting())
        self.successResultOf(backend.start())
        self.assertIn("--allow-overwrites", backend.why_only_overwriting())
        self.successResultOf(backend.stop())
        self.make_files = without_links
        self.assertIsNone(self.start().why_only_overwriting())

    def test_an_upload_that_is_to_overwrite_nothing_is_refused_at_creation(self):
        backend = self.on(**NEITHER)
        failure = self.failureResultOf(self.creation(backend), BackendError)
        self.assertIn("--allow-overwrites", str(failure.value))
        self.assertEqual(self.leftovers(backend), [])

    def test_others_are_published(self):
        backend = self.on(**NEITHER)
        self.place(backend, ("name.txt",), b"old")
        session = self.complete(backend, overwrite=True)
        self.successResultOf(self.publish(session, overwrite=True))
        self.assertEqual(self.published(backend, ("name.txt",)), b"whole")

    def test_an_empty_file_can_be_made_without_overwriting(self):
        """As the Close of a session that no Fragment is known of wants it."""
        backend = self.on(**NEITHER)
        for data in (b"", b"whole"):
            self.place(backend, ("taken",), data)
            session = self.complete(backend, ("taken",), b"", overwrite=True)
            self.failureResultOf(self.publish(session), DestinationExists)
            self.assertEqual(self.published(backend, ("taken",)), data)
            self.successResultOf(session.release())
        session = self.complete(backend, ("new",), b"", overwrite=True)
        for name in ("open", "pwrite", "fsync"):
            backend._files.fail(name, errno.EIO)
            self.failureResultOf(self.publish(session), BackendError)
            self.assertIsNone(self.published(backend, ("new",)), name)
        self.successResultOf(self.publish(session))
        self.assertEqual(self.published(backend, ("new",)), b"")
        self.successResultOf(session.release())
        self.assertEqual(self.leftovers(backend), [])
        session = self.complete(backend, ("full",), overwrite=True)
        self.failureResultOf(self.publish(session), BackendError)
        self.assertIsNone(self.published(backend, ("full",)))


class RenameTests(InMemory, OnDisk, BackendContract, SynchronousTestCase):
    """The contract without hard links."""

    make_files = staticmethod(without_links)


class ComparedTests(InMemory, OnDisk, BackendContract, SynchronousTestCase):
    """The contract where links do not show."""

    make_files = staticmethod(with_links_that_do_not_show)


class RenameCrashTests(test_disk_crashes.PublishCrashTests):
    """Death without hard links."""

    make_files = staticmethod(without_links)


class ComparedCrashTests(test_disk_crashes.PublishCrashTests):
    """Death where links do not show."""

    make_files = staticmethod(with_links_that_do_not_show)


class RealRenameTests(SynchronousTestCase):
    """The call itself, of this system."""

    def test_it_renames_and_replaces_nothing(self):
        path = self.mktemp()
        os.mkdir(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        self.addCleanup(os.close, fd)
        files = MortalFiles()
        for name in ("a", "b"):
            with open(os.path.join(path, name), "w") as file:
                file.write(name)
        with self.assertRaises(FileExistsError):
            files.rename_no_replace("a", "b", src_dir_fd=fd, dst_dir_fd=fd)
        files.rename_no_replace(b"a", "c", src_dir_fd=fd, dst_dir_fd=fd)
        self.assertEqual(sorted(os.listdir(path)), ["b", "c"])
        with self.assertRaises(FileNotFoundError):
            files.rename_no_replace("a", "d", src_dir_fd=fd, dst_dir_fd=fd)
