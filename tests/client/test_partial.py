"""
Parts of files: what is gone on with, and what is thrown away.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from tests.client.crashes import FATES, FragileDisk
from txbits.client._files import Files, NotOurs, is_owner
from txbits.client._partial import Busy, Origin, Partial

URL = "http://h/x"
ORIGIN = Origin.of(URL, '"1"', 10)


class PartialCase(SynchronousTestCase):
    """A part of ten bytes."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"
        self.part = self.folder / ".file.txbits-part"
        self.record = self.folder / ".file.txbits-part.json"
        self.files = Files()
        self.boot = "this one"
        self.opened = []

    def open(self):
        partial = Partial.open(str(self.path), self.files, self.boot)
        self.opened.append(partial)
        return partial

    def kill(self, partial):
        """End the process that has it."""
        descriptor, partial._descriptor = partial._descriptor, None
        os.close(descriptor)

    def tearDown(self):
        for partial in self.opened:
            partial._close()

    def begun(self, data=b"12345", origin=ORIGIN):
        partial = self.open()
        partial.begin(origin)
        partial.write(data)
        return partial

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())


class PartialTests(PartialCase):
    """What is gone on with, and what is not."""

    def test_what_was_written_is_gone_on_with(self):
        self.begun().close()
        partial = self.open()
        self.assertTrue(partial.goes_on(URL))
        self.assertEqual((partial.held, partial.origin.safe), (5, 5))
        partial.write(b"67890")
        partial.finish(overwrite=False)
        self.assertEqual(self.path.read_bytes(), b"1234567890")
        self.assertEqual(self.names(), ["file"])

    def test_what_cannot_be_gone_on_with_is_not(self):
        for origin, data in (
            (evolve(ORIGIN, validator=None), b"12345"),
            (ORIGIN, b"12345678901"),
            (ORIGIN, b""),
        ):
            partial = self.begun(data, origin)
            self.assertFalse(partial.goes_on(URL))
            partial.close()
            self.assertEqual(self.names(), [], origin)

    def test_another_url_begins_anew(self):
        partial = self.begun()
        for url in ("http://h/y", "http://h/x?a=b", "https://h/x"):
            self.assertFalse(partial.goes_on(url))

    def test_the_query_counts_and_is_not_written_down(self):
        url = f"{URL}?sig=secret"
        partial = self.begun(origin=Origin.of(url, '"1"', 10))
        self.assertNotIn("secret", self.record.read_text())
        partial.close()
        partial = self.open()
        self.assertTrue(partial.goes_on(url))
        self.assertFalse(partial.goes_on(f"{URL}?sig=another"))

    def test_nobody_else_can_read_the_record(self):
        umask = os.umask(0)
        self.addCleanup(os.umask, umask)
        self.begun()
        self.assertEqual(stat.S_IMODE(self.record.stat().st_mode), 0o600)

    def test_a_part_without_a_record_is_worth_nothing(self):
        self.begun().close()
        (self.folder / ".file.txbits-part.json").unlink()
        partial = self.open()
        self.assertFalse(partial.goes_on(URL))
        partial.close()
        self.assertEqual(self.names(), [])

    def test_records_that_are_none_are_worth_nothing(self):
        self.begun().close()
        good = json.loads(self.record.read_text())
        for text in (
            "",
            "\0" * 200,
            "{",
            "[]",
            "{}",
            "[" * 10_000,
            "x" * 100_000,
            json.dumps({**good, "boot": 1}),
            json.dumps({**good, "device": "x"}),
            json.dumps({**good, "more": 1}),
            json.dumps({**good, "validator": 1}),
            json.dumps({**good, "url": 1}),
            json.dumps({**good, "length": "10"}),
            json.dumps({**good, "safe": -1}),
            json.dumps({**good, "safe": 11}),
            json.dumps({**good, "safe": 6}),
        ):
            self.begun().close()
            self.record.write_text(text)
            partial = self.open()
            self.assertIsNone(partial.origin, text)
            partial.close()

    def test_to_begin_is_to_begin_with_nothing(self):
        partial = self.begun()
        partial.begin(evolve(ORIGIN, validator='"2"'))
        self.assertEqual(partial.held, 0)
        partial.write(b"abc")
        partial.close()
        self.assertEqual((self.folder / ".file.txbits-part").read_bytes(), b"abc")
        self.assertEqual(self.open().origin.validator, '"2"')

    def test_one_at_a_time(self):
        partial = self.begun()
        self.assertRaises(Busy, Partial.open, str(self.path))
        partial.close()
        self.open()

    def test_a_file_that_is_there_stays_unless_it_may_be_replaced(self):
        self.path.write_bytes(b"old")
        partial = self.begun(b"1234567890")
        self.assertRaises(FileExistsError, partial.finish, overwrite=False)
        self.assertEqual(self.path.read_bytes(), b"old")
        partial.finish(overwrite=True)
        self.assertEqual(self.path.read_bytes(), b"1234567890")
        self.assertEqual(self.names(), ["file"])

    def test_what_is_closed_is_closed(self):
        partial = self.begun()
        partial.close()
        partial.close()
        self.assertRaises(ValueError, partial.write, b"x")

    def test_long_names_have_parts(self):
        self.path = self.folder / ("x" * 255)
        self.begun(b"1234567890").finish(overwrite=False)
        self.assertEqual(self.names(), ["x" * 255])

    def test_a_directory_cannot_be_downloaded_to(self):
        self.path.mkdir()
        self.assertRaises(IsADirectoryError, Partial.open, str(self.path))
        self.assertEqual(self.names(), ["file"])

    def test_a_link_in_place_of_the_part_is_not_followed(self):
        victim = self.folder / "victim"
        victim.write_bytes(b"precious")
        (self.folder / ".file.txbits-part").symlink_to("victim")
        self.assertRaises(OSError, Partial.open, str(self.path))
        self.assertEqual(victim.read_bytes(), b"precious")

    def test_new_files_have_the_usual_mode(self):
        umask = os.umask(0o022)
        self.addCleanup(os.umask, umask)
        self.begun(b"1234567890").finish(overwrite=False)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o644)

    def test_a_part_that_was_made_the_file_before_a_kill_is_left_alone(self):
        partial = self.begun(b"1234567890")
        partial.save()
        os.link(self.part, self.path)
        self.kill(partial)
        self.open().begin(ORIGIN)
        self.assertEqual(self.path.read_bytes(), b"1234567890")


class CrashTests(PartialCase):
    """Machines that crash, on a disk that keeps what was synced and no more."""

    data = b"the bytes that were downloaded, all of them"

    def setUp(self):
        super().setUp()
        self.disk = FragileDisk(self.folder)
        self.files = self.disk.files
        self.origin = Origin.of(URL, '"1"', len(self.data))

    def crash(self, partial, fate):
        self.kill(partial)
        self.disk.crash(fate)
        self.boot += ", and the next"

    def test_no_byte_is_believed_that_is_not_known_to_be_on_the_disk(self):
        for fate in FATES:
            for saved in (0, 5, 16):
                partial = self.begun(self.data[:saved], self.origin)
                partial.save()
                partial.write(self.data[saved:30])
                self.crash(partial, fate)
                partial = self.open()
                case = (fate.__name__, saved)
                self.assertEqual(partial.held, saved, case)
                self.assertEqual(partial.goes_on(URL), saved > 0, case)
                partial.write(self.data[saved:])
                partial.finish(overwrite=True)
                self.disk.crash(fate)
                self.assertEqual(self.path.read_bytes(), self.data, case)

    def test_another_state_of_the_file_is_not_gone_on_with_in_place_of_the_new(self):
        for fate in FATES:
            partial = self.begun(b"old" * 6, evolve(self.origin, validator='"0"'))
            partial.save()
            partial.begin(self.origin)
            partial.write(self.data[:30])
            self.crash(partial, fate)
            partial = self.open()
            self.assertEqual(partial.held, 0, fate.__name__)
            partial.close()

    def test_after_a_kill_all_that_was_written_counts(self):
        partial = self.begun(self.data[:30], self.origin)
        self.kill(partial)
        self.assertEqual(self.open().held, 30)

    def test_not_where_nothing_tells_one_start_of_the_machine_from_another(self):
        self.boot = ""
        self.kill(self.begun(self.data[:30], self.origin))
        self.assertEqual(self.open().held, 0)

    def test_not_on_a_device_that_was_taken_away(self):
        partial = self.begun(self.data[:5], self.origin)
        partial.save()
        partial.write(self.data[5:])
        self.kill(partial)
        record = json.loads(self.record.read_text())
        self.record.write_text(json.dumps({**record, "device": record["device"] + 1}))
        self.assertEqual(self.open().held, 5)

    def test_a_kill_while_it_begins_anew_mixes_no_two_states(self):
        partial = self.begun(b"old" * 6, evolve(self.origin, validator='"0"'))

        def fsync(descriptor):
            # Nothing comes after the first step.
            raise KeyboardInterrupt

        partial._files = Files(fsync=fsync, open=os.open)
        self.assertRaises(KeyboardInterrupt, partial.begin, self.origin)
        self.kill(partial)
        self.assertEqual(self.open().origin.validator, '"0"')

    def test_nor_one_between_the_record_and_the_bytes(self):
        partial = self.begun(b"old" * 6, evolve(self.origin, validator='"0"'))

        def open_(path, flags, mode=0o777):
            if flags & os.O_DIRECTORY:
                raise KeyboardInterrupt
            return os.open(path, flags, mode)

        partial._files = Files(open=open_)
        self.assertRaises(KeyboardInterrupt, partial.begin, self.origin)
        self.kill(partial)
        partial = self.open()
        self.assertEqual((partial.held, partial.origin.validator), (0, '"1"'))

    def test_a_sync_that_failed_is_not_followed_by_one_that_succeeds(self):
        failure = OSError(errno.EIO, "Input/output error")
        for end in ("save", "finish", "close"):
            partial = self.begun(self.data[:5], self.origin)
            partial.save()
            partial.write(self.data[5:])
            self.disk.failures = [failure]
            self.assertRaises(OSError, partial.save)
            if end == "save":
                self.assertRaises(OSError, partial.save)
            elif end == "finish":
                self.assertRaises(OSError, partial.finish, overwrite=True)
            partial.close()
            self.assertFalse(self.path.exists())
            partial = self.open()
            self.assertEqual(partial.held, 5, end)
            partial.close()

    def test_what_cannot_be_saved_at_the_end_is_not_kept(self):
        partial = self.begun(self.data[:5], self.origin)
        partial.save()
        partial.write(self.data[5:])
        self.disk.failures = [OSError(errno.EIO, "Input/output error")]
        partial.close()
        self.assertEqual(self.open().held, 5)


class PlantedTests(PartialCase):
    """Folders in which somebody else has been."""

    def setUp(self):
        super().setUp()
        self.victim = self.folder / "victim"
        self.victim.write_bytes(b"precious")

    def tearDown(self):
        super().tearDown()
        self.assertEqual(self.victim.read_bytes(), b"precious")

    def test_another_name_of_a_file_of_ours_is_not_written_to(self):
        self.part.hardlink_to(self.victim)
        self.assertRaises(NotOurs, Partial.open, str(self.path))

    def test_a_pipe_is_not_waited_for(self):
        os.mkfifo(self.part)
        self.assertRaises(NotOurs, Partial.open, str(self.path))

    def test_links_in_place_of_the_record_are_not_followed(self):
        temporary = self.folder / ".file.txbits-part.json.new"
        temporary.symlink_to("victim")
        self.record.symlink_to("victim")
        self.begun().close()
        self.assertTrue(self.open().goes_on(URL))
        self.assertFalse(self.record.is_symlink())

    def test_a_record_that_is_not_ours_is_not_read(self):
        self.begun().close()
        text = self.record.read_bytes()
        self.record.unlink()
        for make in (self.record.hardlink_to, self.record.symlink_to):
            another = self.folder / "another"
            another.write_bytes(text)
            make(another.absolute())
            partial = self.open()
            self.assertIsNone(partial.origin)
            self.kill(partial)
            self.record.unlink()

    def test_files_of_others_are_not_ours(self):
        other = os.geteuid() + 1
        self.assertTrue(is_owner(os.geteuid(), str(self.part)))
        self.assertFalse(is_owner(other, str(self.part)))
        self.assertFalse(is_owner(other, "/proc/none/x"))
        # On CIFS, and on NFS for root, what we make has an owner of its own.
        self.assertTrue(is_owner(os.geteuid(), str(self.part), user=other))
        self.assertEqual(self.names(), ["victim"])


class FileSystemTests(PartialCase):
    """File systems that cannot do everything."""

    def fails_with(self, number):
        def fail(*args):
            raise OSError(number, os.strerror(number))

        return fail

    def test_without_hard_links_the_file_appears(self):
        for number in (errno.EPERM, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            self.files = Files(link=self.fails_with(number))
            self.begun(b"1234567890").finish(overwrite=False)
            self.assertEqual(self.path.read_bytes(), b"1234567890")
            self.assertEqual(self.names(), ["file"])
            partial = self.begun(b"abcdefghij")
            self.assertRaises(FileExistsError, partial.finish, overwrite=False)
            self.assertEqual(self.path.read_bytes(), b"1234567890")
            partial.close()
            self.path.unlink()
            self.part.unlink()
            self.record.unlink()

    def test_nor_with_a_renaming_that_replaces_nothing(self):
        fail = self.fails_with(errno.EINVAL)
        self.files = Files(link=fail, rename=fail)
        self.begun(b"1234567890").finish(overwrite=False)
        self.assertEqual(self.path.read_bytes(), b"1234567890")
        self.assertEqual(self.names(), ["file"])
        partial = self.begun(b"abcdefghij")
        self.assertRaises(FileExistsError, partial.finish, overwrite=False)
        self.assertEqual(self.path.read_bytes(), b"1234567890")

    def test_what_cannot_be_renamed_leaves_nothing_in_its_place(self):
        fail = self.fails_with(errno.EINVAL)
        self.files = Files(link=fail, rename=fail)
        partial = self.begun(b"1234567890")
        self.part.unlink()
        self.assertRaises(FileNotFoundError, partial.finish, overwrite=False)
        self.assertFalse(self.path.exists())

    def test_a_reason_that_is_not_about_links_is_told(self):
        fail = self.fails_with(errno.EROFS)
        self.files = Files(link=fail, rename=fail)
        partial = self.begun(b"1234567890")
        with self.assertRaises(OSError) as caught:
            partial.finish(overwrite=False)
        self.assertEqual(caught.exception.errno, errno.EROFS)
        self.assertFalse(self.path.exists())

    def test_a_link_whose_answer_was_lost_was_made(self):
        def link(path, target):
            os.link(path, target)
            raise FileExistsError(errno.EEXIST, "File exists")

        self.files = Files(link=link)
        self.begun(b"1234567890").finish(overwrite=False)
        self.assertEqual(self.names(), ["file"])

    def test_without_locks_it_goes_on_and_is_said(self):
        for number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            self.files = Files(flock=self.fails_with(number))
            partial = self.begun(b"1234567890")
            self.assertFalse(partial.is_alone)
            partial.finish(overwrite=True)
        self.files = Files()
        self.assertTrue(self.open().is_alone)

    def test_other_failures_of_locks_are_told(self):
        self.files = Files(flock=self.fails_with(errno.EINTR))
        self.assertRaises(InterruptedError, self.open)

    def test_a_folder_that_may_be_written_and_not_read_is_no_failure(self):
        def open_(path, flags, mode=0o777):
            if flags & os.O_DIRECTORY:
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return os.open(path, flags, mode)

        synced = []
        self.files = Files(open=open_, fsync=lambda fd: synced.append(os.fstat(fd)))
        self.begun(b"1234567890").finish(overwrite=False)
        self.assertEqual(self.names(), ["file"])
        # With the file, its name: most file systems do that.
        self.assertTrue(os.path.samestat(synced[-1], self.path.stat()))

    def test_a_folder_that_cannot_be_synced_is_no_failure(self):
        def fsync(descriptor):
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "Invalid argument")

        self.files = Files(fsync=fsync)
        self.begun(b"1234567890").finish(overwrite=False)
        self.assertEqual(self.names(), ["file"])

    def test_a_lock_of_another_process_is_no_lack_of_locks(self):
        self.begun()
        descriptor = os.open(self.part, os.O_RDWR)
        self.addCleanup(os.close, descriptor)
        with self.assertRaises(BlockingIOError):
            Files().lock(descriptor, fcntl.LOCK_SH)
