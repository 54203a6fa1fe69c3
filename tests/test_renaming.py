"""
Renaming that replaces nothing, as Linux does it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txbits._renaming import rename_without_replacing


class RenamingTests(SynchronousTestCase):
    """Files in a folder."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.source = self.folder / "source"
        self.target = self.folder / "target"
        self.source.write_bytes(b"new")

    def test_a_file_gets_a_name_that_is_free(self) -> None:
        rename_without_replacing(self.source, self.target)
        self.assertEqual(os.listdir(self.folder), ["target"])
        self.assertEqual(self.target.read_bytes(), b"new")

    def test_a_name_that_is_taken_stays(self) -> None:
        for take in (self.target.touch, self.target.mkdir):
            take()
            with self.assertRaises(FileExistsError) as caught:
                rename_without_replacing(self.source, self.target)
            self.assertEqual(caught.exception.filename, str(self.source))
            self.assertEqual(caught.exception.filename2, str(self.target))
            self.assertEqual(self.source.read_bytes(), b"new")
            if self.target.is_dir():
                self.target.rmdir()
            else:
                self.target.unlink()
        self.target.symlink_to("nowhere")
        with self.assertRaises(FileExistsError):
            rename_without_replacing(self.source, self.target)

    def test_names_may_be_relative_to_folders(self) -> None:
        other = self.folder / "other"
        other.mkdir()
        one, two = (os.open(each, os.O_RDONLY) for each in (self.folder, other))
        self.addCleanup(os.close, one)
        self.addCleanup(os.close, two)
        rename_without_replacing("source", b"target", src_dir_fd=one, dst_dir_fd=two)
        self.assertEqual((other / "target").read_bytes(), b"new")

    def test_what_is_not_there_is_not_found(self) -> None:
        self.source.unlink()
        with self.assertRaises(OSError) as caught:
            rename_without_replacing(self.source, self.target)
        self.assertEqual(caught.exception.errno, errno.ENOENT)
