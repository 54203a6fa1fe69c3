"""
Parts of files: what is gone on with, and what is thrown away.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from txbits.client._partial import Busy, Origin, Partial, boot_id

URL = "http://h/x"
ORIGIN = Origin(URL, '"1"', 10, boot_id())


class PartialTests(SynchronousTestCase):
    """A part of ten bytes."""

    def setUp(self):
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "file"

    def open(self):
        partial = Partial.open(str(self.path))
        self.addCleanup(partial.close)
        return partial

    def begun(self, data=b"12345", origin=ORIGIN):
        partial = self.open()
        partial.begin(origin)
        partial.write(data)
        return partial

    def names(self):
        return sorted(path.name for path in self.folder.iterdir())

    def test_what_was_written_is_gone_on_with(self):
        self.begun().close()
        partial = self.open()
        self.assertTrue(partial.goes_on(URL))
        self.assertEqual((partial.held, partial.origin), (5, ORIGIN))
        partial.write(b"67890")
        partial.finish(overwrite=False)
        self.assertEqual(self.path.read_bytes(), b"1234567890")
        self.assertEqual(self.names(), ["file"])

    def test_what_cannot_be_gone_on_with_is_not(self):
        for origin, data in (
            (evolve(ORIGIN, validator=None), b"12345"),
            (evolve(ORIGIN, boot="another"), b"12345"),
            (ORIGIN, b"12345678901"),
            (ORIGIN, b""),
        ):
            partial = self.begun(data, origin)
            self.assertFalse(partial.goes_on(URL))
            partial.close()
            self.assertEqual(self.names(), [], origin)

    def test_another_url_begins_anew(self):
        self.assertFalse(self.begun().goes_on("http://h/y"))

    def test_a_part_without_a_record_is_worth_nothing(self):
        self.begun().close()
        (self.folder / ".file.txbits-part.json").unlink()
        partial = self.open()
        self.assertFalse(partial.goes_on(URL))
        partial.close()
        self.assertEqual(self.names(), [])

    def test_records_that_are_none_are_worth_nothing(self):
        record = self.folder / ".file.txbits-part.json"
        for text in (
            "",
            "{",
            "[]",
            "{}",
            json.dumps({"url": URL, "validator": 1, "length": 10, "boot": ""}),
            json.dumps({"url": 1, "validator": None, "length": 10, "boot": ""}),
            json.dumps({"url": URL, "validator": None, "length": "10", "boot": ""}),
        ):
            self.begun().close()
            record.write_text(text)
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
