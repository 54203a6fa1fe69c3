"""
Files that are to be uploaded, and what can happen to them meanwhile.
"""

from __future__ import annotations

import io
import os
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tests.client.fakes import MemorySource
from txbits.client.source import (
    FileSource,
    ISource,
    ObjectSource,
    SourceChanged,
    SourceError,
    open_ordinary,
    printable,
)


class FileSourceTests(SynchronousTestCase):
    """A file of ten bytes."""

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.write(b"0123456789")
        self.source = FileSource.open(self.path)
        self.addCleanup(self.source.close)

    def write(self, data: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(data)

    def test_it_is_a_source(self) -> None:
        verifyObject(ISource, self.source)
        verifyObject(ISource, MemorySource(b""))

    def test_length_and_name_are_the_file_s(self) -> None:
        self.assertEqual(self.source.length, 10)
        self.assertEqual(self.source.content_name, os.path.basename(self.path))

    def test_ranges_are_read_exactly(self) -> None:
        self.assertEqual(self.successResultOf(self.source.read(0, 10)), b"0123456789")
        self.assertEqual(self.successResultOf(self.source.read(3, 4)), b"3456")
        self.assertEqual(self.successResultOf(self.source.read(10, 0)), b"")

    def test_an_unchanged_file_passes_the_check(self) -> None:
        self.assertIsNone(self.successResultOf(self.source.check()))

    def assert_changed(self) -> None:
        for result in (self.source.check(), self.source.read(0, 1)):
            failure = self.failureResultOf(result, SourceChanged)
            self.assertIn("was changed during the upload", str(failure.value))

    def test_a_file_that_grew_has_changed(self) -> None:
        self.write(b"0123456789+")
        self.assert_changed()

    def test_a_file_that_was_cut_has_changed(self) -> None:
        self.write(b"012345678")
        self.assert_changed()

    def test_a_file_of_another_time_has_changed(self) -> None:
        os.utime(self.path, (1, 1))
        self.assert_changed()

    def test_its_time_may_be_left_out_of_account(self) -> None:
        for source in (
            FileSource.open(self.path, check_time=False),
            FileSource.from_descriptor(self.source._descriptor, 0, check_time=False),
        ):
            self.addCleanup(source.close)
            os.utime(self.path, (1, 1))
            self.successResultOf(source.check())
            self.assertEqual(self.successResultOf(source.read(0, 3)), b"012")
            self.write(b"012345678")
            self.failureResultOf(source.check(), SourceChanged)
            self.failureResultOf(source.read(0, 1), SourceChanged)
            self.write(b"0123456789")

    def test_and_then_another_file_of_the_name_is_a_change_all_the_same(self) -> None:
        source = FileSource.open(self.path, check_time=False)
        self.addCleanup(source.close)
        os.rename(self.path, self.path + ".old")
        self.write(b"0123456789")
        self.failureResultOf(source.check(), SourceChanged)

    def test_reading_beyond_the_end_is_a_change(self) -> None:
        # It was cut between the check and the read.
        self.failureResultOf(self.source.read(5, 6), SourceChanged)

    def test_another_file_of_the_same_name_is_a_change(self) -> None:
        os.rename(self.path, self.path + ".old")
        self.write(b"0123456789")
        failure = self.failureResultOf(self.source.check(), SourceChanged)
        self.assertIn("was replaced by another file", str(failure.value))

    def test_a_file_without_a_name_is_still_the_same(self) -> None:
        os.remove(self.path)
        self.assertIsNone(self.successResultOf(self.source.check()))
        self.assertEqual(self.successResultOf(self.source.read(0, 10)), b"0123456789")

    def test_its_identity_tells_it_from_what_it_was(self) -> None:
        identity = self.source.identity
        assert identity is not None
        self.assertEqual(
            (identity.path, identity.length), (os.path.realpath(self.path), 10)
        )
        os.utime(self.path, (1, 1))
        later = FileSource.open(self.path)
        self.addCleanup(later.close)
        assert later.identity is not None
        self.assertFalse(later.identity.is_same(identity))
        self.assertTrue(identity.is_same(identity))
        timeless = FileSource.open(self.path, check_time=False)
        self.addCleanup(timeless.close)
        assert timeless.identity is not None
        for other in (identity, later.identity):
            self.assertTrue(timeless.identity.is_same(other))
            self.assertTrue(other.is_same(timeless.identity))
        longer = evolve(timeless.identity, length=11)
        self.assertFalse(timeless.identity.is_same(longer))

    def test_closing_twice_is_safe(self) -> None:
        self.source.close()
        self.source.close()

    def test_a_closed_file_cannot_be_read(self) -> None:
        self.source.close()
        self.failureResultOf(self.source.read(0, 1), SourceError)

    def test_a_read_that_fails_says_why(self) -> None:
        # A negative offset is what a file system can be relied upon to refuse.
        failure = self.failureResultOf(self.source.read(-1, 1), SourceError)
        self.assertIn("cannot be read: Invalid argument", str(failure.value))

    def test_a_missing_file_cannot_be_opened(self) -> None:
        self.assertRaises(OSError, FileSource.open, self.path + ".gone")

    def test_a_pipe_that_takes_the_place_of_a_file_is_not_waited_for(self) -> None:
        pipe = self.mktemp()
        os.mkfifo(pipe)
        self.assertRaises(SourceError, open_ordinary, pipe)

    def test_what_is_no_ordinary_file_cannot_be_opened(self) -> None:
        pipe = self.mktemp()
        os.mkfifo(pipe)
        for path in (os.path.dirname(self.path) or ".", pipe):
            self.assertRaises(SourceError, FileSource.open, path)

    def test_any_kind_of_path_can_be_opened(self) -> None:
        for path in (self.path, os.fsencode(self.path)):
            source = FileSource.open(path)
            self.assertEqual(source.length, 10)
            source.close()

    def test_hostile_names_are_made_fit_for_a_header(self) -> None:
        path = os.path.join(self.mktemp(), "")
        os.mkdir(path)
        name = os.fsencode(path) + b"a\r\nX: y\xff"
        with open(name, "wb"):
            pass
        source = FileSource.open(name)
        self.addCleanup(source.close)
        self.assertEqual(source.content_name, "a\ufffd\ufffdX: y\ufffd")


class ObjectSourceTests(SynchronousTestCase):
    """What behaves like a file."""

    def test_it_is_a_source(self) -> None:
        verifyObject(ISource, ObjectSource(io.BytesIO()))

    def test_it_begins_where_the_object_stands(self) -> None:
        file = io.BytesIO(b"0123456789")
        file.seek(4)
        source = ObjectSource(file)
        self.assertEqual(source.length, 6)
        self.assertEqual(self.successResultOf(source.read(1, 3)), b"567")
        self.assertIsNone(self.successResultOf(source.check()))

    def test_a_length_that_changes_is_a_change(self) -> None:
        file = io.BytesIO(b"0123456789")
        source = ObjectSource(file)
        file.truncate(3)
        self.failureResultOf(source.check(), SourceChanged)
        self.failureResultOf(source.read(0, 10), SourceChanged)

    def test_one_that_is_closed_cannot_be_read(self) -> None:
        file = io.BytesIO(b"0123456789")
        source = ObjectSource(file)
        file.close()
        self.failureResultOf(source.check(), SourceError)
        self.failureResultOf(source.read(0, 10), SourceError)

    def test_text_is_not_uploaded(self) -> None:
        text: Any = io.StringIO("0123456789")
        failure = self.failureResultOf(ObjectSource(text).read(0, 10), SourceError)
        self.assertIn("binary mode", str(failure.value))


class NameTests(SynchronousTestCase):
    """Names, where they are shown."""

    def test_printable_leaves_ordinary_names_alone(self) -> None:
        self.assertEqual(printable("Größe 1.txt"), "Größe 1.txt")


class LengthTests(SynchronousTestCase):
    """Files that say that they are empty."""

    def test_a_file_of_the_kernel_is_not_taken_for_an_empty_one(self) -> None:
        self.assertRaises(SourceError, FileSource.open, "/proc/self/status")
