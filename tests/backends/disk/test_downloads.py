"""
Files of the disk backend that are served: which ones, how they are read, and what tells
one content from another.
"""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from tests.backends.disk.mortal import MortalFiles
from tests.backends.disk.test_names import _TRICKS, NamesCase
from tests.backends.test_serving import _Consumer
from txbits.backends._serving import PIECE
from txbits.backends.disk import DiskBackend
from txbits.backends.disk._downloads import entity_tag
from txbits.errors import (
    BackendError,
    DestinationForbidden,
    DestinationIsDirectory,
    NoSuchFile,
    StagedDataLost,
)
from txbits.testing._download_contract import _Stalled


class OpenCase(NamesCase):
    """A root with an outside, and files to open."""

    def write(self, *name, data=b"data"):
        path = os.path.join(self.outside, *name)
        with open(path, "wb") as file:
            file.write(data)
        return path

    def opened(self, *name):
        return self.successResultOf(self.backend.open_file(name))

    def is_refused(self, kind, *name):
        self.failureResultOf(self.backend.open_file(name), kind)
        self.assertEqual(self.backend._files._open, self.held)

    def setUp(self):
        super().setUp()
        self.held = set(self.backend._files._open)

    def content(self, file, start=0, end=None):
        consumer = _Consumer()
        end = file.length if end is None else end
        self.successResultOf(file.read_into(consumer, start, end))
        return b"".join(consumer.received)


class WhichFileTests(OpenCase):
    """Plain files below the root, and nothing else."""

    def test_a_plain_file(self):
        self.write("root", "file")
        self.assertEqual(self.content(self.opened("file")), b"data")

    def test_a_backend_that_is_started_again_serves_again(self):
        self.write("root", "file")
        self.successResultOf(self.backend.stop())
        self.successResultOf(self.backend.start())
        self.assertEqual(self.content(self.opened("file")), b"data")

    def test_a_symbolic_link_is_no_plain_file(self):
        self.write("elsewhere", "secret")
        self.write("root", "file")
        for target in ("../elsewhere/secret", "/etc/passwd", "file", "nothing"):
            self.link(target, "link")
            self.is_refused(NoSuchFile, "link")
            os.unlink(os.path.join(self.root, "link"))

    def test_links_to_directories_lead_nowhere_outside(self):
        self.write("elsewhere", "secret")
        self.link("../elsewhere", "out")
        self.is_refused(DestinationForbidden, "out", "secret")
        os.mkdir(os.path.join(self.root, "a"))
        self.write("root", "a", "file")
        self.link("a", "in")
        self.assertEqual(self.content(self.opened("in", "file")), b"data")

    def test_links_do_not_lead_to_staging(self):
        self.link(".bits-sessions", "s")
        self.is_refused(DestinationForbidden, "s", "lock")
        self.is_refused(DestinationForbidden, ".bits-sessions", "lock")

    def test_pipes_and_sockets_are_not_waited_for(self):
        os.mkfifo(os.path.join(self.root, "pipe"))
        self.is_refused(NoSuchFile, "pipe")

    def test_directories(self):
        os.mkdir(os.path.join(self.root, "a"))
        self.is_refused(DestinationIsDirectory, "a")
        self.is_refused(NoSuchFile, "b", "c")
        self.write("root", "file")
        self.is_refused(NoSuchFile, "file", "c")

    def test_one_that_may_not_be_read_is_a_fault(self):
        self.write("root", "file")
        files: Any = self.backend._files
        for number in (errno.EACCES, errno.EMFILE, errno.EIO):
            files.fail("open", number)
            self.is_refused(BackendError, "file")

    def test_a_look_that_fails_closes_it(self):
        self.write("root", "file")
        files: Any = self.backend._files
        files.fail("fstat", errno.EIO)
        self.is_refused(BackendError, "file")

    @settings(suppress_health_check=list(HealthCheck), max_examples=50)
    @given(st.lists(st.sampled_from(_TRICKS), max_size=4).map(tuple))
    def test_no_combination_opens_what_lies_outside(self, name):
        self.write("elsewhere", "a", data=b"outside")
        self.write("b", data=b"outside")
        opening = self.backend.open_file(name)
        results: list[Any] = []
        opening.addBoth(results.append)
        if hasattr(results[0], "length"):
            self.assertNotEqual(self.content(results[0]), b"outside")
            self.successResultOf(results[0].release())


class ReadingTests(OpenCase):
    """How it is read."""

    def test_the_length_and_the_time_are_the_files(self):
        path = self.write("root", "file")
        os.utime(path, (1, 1_000_000_000.5))
        file = self.opened("file")
        self.assertEqual((file.length, file.modified), (4, 1_000_000_000.5))

    def test_what_the_page_cache_has_is_read_at_once(self):
        self.write("root", "file", data=b"x" * (2 * PIECE + 1))
        files: Any = self.backend._files
        files.is_cached = True
        before = files.calls.count("pread")
        self.assertEqual(self.content(self.opened("file")), b"x" * (2 * PIECE + 1))
        self.assertEqual(files.calls.count("pread"), before)

    def test_what_it_has_not_is_read_where_it_may_take_time(self):
        self.write("root", "file", data=b"x" * (PIECE + 1))
        files: Any = self.backend._files
        files.is_cached = False
        before = files.calls.count("pread")
        self.assertEqual(self.content(self.opened("file")), b"x" * (PIECE + 1))
        self.assertEqual(files.calls.count("pread"), before + 2)

    def test_a_page_cache_that_cannot_be_asked(self):
        files = self.backend._files
        reading, writing = os.pipe()
        self.addCleanup(os.close, reading)
        self.addCleanup(os.close, writing)
        self.assertIsNone(files.pread_cached(reading, 5, 0))

    def test_a_disk_that_fails(self):
        self.write("root", "file")
        files: Any = self.backend._files
        files.is_cached = False
        file = self.opened("file")
        files.fail("pread", errno.EIO)
        self.failureResultOf(file.read_into(_Consumer(), 0, 4), BackendError)
        self.assertEqual(self.content(file), b"data")

    def test_a_file_that_is_replaced_goes_on_to_be_read(self):
        path = self.write("root", "file")
        file = self.opened("file")
        os.rename(self.write("root", "other", data=b"more"), path)
        self.assertEqual(self.content(file), b"data")
        self.assertEqual(self.content(self.opened("file")), b"more")

    def test_a_file_that_is_written_to_is_not_mixed(self):
        path = self.write("root", "file", data=b"1" * PIECE * 2)
        os.utime(path, (1, 1))
        file = self.opened("file")
        for change in (b"2" * PIECE * 2, b"3" * PIECE, b""):
            self.write("root", "file", data=change)
            consumer = _Consumer()
            self.failureResultOf(
                file.read_into(consumer, 0, file.length), StagedDataLost
            )
            self.assertEqual(consumer.received, [])

    def test_it_is_closed_once(self):
        self.write("root", "file")
        file = self.opened("file")
        self.successResultOf(file.release())
        self.assertEqual(self.backend._files._open, self.held)
        self.successResultOf(file.release())
        self.assertEqual(self.backend._served, {})

    def test_stopping_closes_what_is_open(self):
        self.write("root", "file", data=b"x" * PIECE * 2)
        file = self.opened("file")
        consumer = _Stalled()
        reading = file.read_into(consumer, 0, file.length)
        self.assertNoResult(reading)
        self.successResultOf(self.backend.stop())
        self.failureResultOf(reading, BackendError)
        self.assertEqual(self.backend._files._open, set())


class TagTests(OpenCase):
    """What tells one content from another, and stays the same."""

    def stat(self, **changes):
        there = {
            "st_ino": 5,
            "st_size": 6,
            "st_mtime_ns": 7_000_000_007,
            "st_ctime_ns": 8_000_000_008,
        }
        there.update({f"st_{name}": value for name, value in changes.items()})
        return SimpleNamespace(**there)

    def validators(self, *name):
        file = self.opened(*name)
        self.successResultOf(file.release())
        return file.etag, file.is_weak, file.modified

    def test_whatever_changes_makes_another_tag(self):
        tags = [entity_tag(self.stat())]
        for name in ("ino", "size", "mtime_ns", "ctime_ns"):
            tags.append(entity_tag(self.stat(**{name: 77})))
        self.assertEqual(len(set(tags)), 5)

    def test_an_old_time_of_modification_hides_nothing(self):
        tags = set()
        for data in (b"1234", b"5678"):
            path = self.write("root", "file", data=data)
            os.utime(path, (1, 1))
            tags.add(self.opened("file").etag)
        self.assertEqual(len(tags), 2)

    def test_one_that_is_new_has_a_strong_tag_that_stays(self):
        """Each is made and looked at within a tick of the kernel's clock."""
        for number in range(20):
            name = str(number)
            self.write("root", name)
            seen = {self.validators(name) for _ in range(5)}
            self.assertEqual(len(seen), 1)
            self.assertEqual([is_weak for _, is_weak, _ in seen], [False])

    def test_a_change_after_the_first_answer_shows_however_soon_it_comes(self):
        seen = set()
        path = self.write("root", "file", data=b"0000")
        for number in range(20):
            seen.add(self.validators("file")[0])
            with open(path, "r+b") as file:
                file.write(b"%04d" % number)
        self.assertEqual(len(seen), 20)

    def test_a_time_of_modification_in_the_future_is_none(self):
        """It was set by somebody; when, is told by the time of the change."""
        path = self.write("root", "file")
        os.utime(path, (4e9, 4e9))
        changed = os.stat(path).st_ctime
        seen = {self.validators("file") for _ in range(5)}
        self.assertEqual([modified for _, _, modified in seen], [changed])

    def test_one_whose_staged_name_is_about_to_go_has_none(self):
        """To take that away changes the file, though not what is in it."""
        session = self.successResultOf(self.creation(self.backend, ("file",)))
        self.append(session, 4, b"data")
        self.successResultOf(self.publish(session, False, False))
        before = self.validators("file")
        self.assertEqual(before[:2], (None, False))
        self.successResultOf(session.release())
        after = {self.validators("file") for _ in range(5)}
        ((etag, is_weak, modified),) = after
        self.assertIsNotNone(etag)
        self.assertEqual((is_weak, modified), (False, before[2]))
        self.assertEqual(self.backend._staging.file_clock.linked, {})

    def test_one_with_other_names_of_somebody_elses_has_one(self):
        path = self.write("root", "file")
        os.link(path, os.path.join(self.outside, "elsewhere", "other"))
        etag, is_weak, _ = self.validators("file")
        self.assertIsNotNone(etag)
        self.assertFalse(is_weak)


class ThreadTests(TestCase):
    """The backend's own threads, on the real reactor."""

    async def test_a_file_is_opened_and_read_in_them(self):
        files: Any = MortalFiles()
        files.is_cached = False
        backend = DiskBackend(self.mktemp(), reactor, files=files)
        await backend.start()
        content = os.urandom(3 * PIECE + 5)
        with open(os.path.join(backend.root, "file"), "wb") as file:
            file.write(content)
        opened = await backend.open_file(("file",))
        consumer = _Consumer()
        await opened.read_into(consumer, 0, opened.length)
        self.assertEqual(b"".join(consumer.received), content)
        opening = backend.open_file(("file",))
        await backend.stop()
        with self.assertRaisesRegex(BackendError, "stopping"):
            await opening
        self.assertEqual(files._open, set())
