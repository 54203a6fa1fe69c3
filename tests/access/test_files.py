"""
Files with secrets: which are refused, and that nothing of their content is told.
"""

from __future__ import annotations

import os
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txbits._accounts import system_user
from txbits.access._files import read_secret_file, secret_lines
from txbits.errors import InvalidSetting


class ReadSecretFileTests(SynchronousTestCase):
    """``read_secret_file``."""

    def file(self, content, mode=0o600):
        path = self.mktemp()
        Path(path).write_bytes(content)
        os.chmod(path, mode)
        return path

    def complaint(self, path):
        error = self.assertRaises(
            InvalidSetting, read_secret_file, path, "secrets", 5000
        )
        self.assertNotIn("\n", str(error))
        return str(error)

    def test_the_content_is_returned_as_it_is(self):
        for content in (b"x", bytes(range(256)), b"x\r\n" * 1000):
            self.assertEqual(
                read_secret_file(self.file(content), "secrets", 5000), content
            )

    def test_a_file_may_be_open_to_a_group(self):
        self.assertEqual(read_secret_file(self.file(b"x", 0o640), "secrets", 1), b"x")

    def test_a_file_that_is_open_to_everyone_is_refused(self):
        for mode in (0o604, 0o602, 0o644):
            path = self.file(b"geheim", mode)
            self.assertEqual(
                self.complaint(path),
                f"{path} is accessible to every user of this machine; "
                "run chmod o-rw on it",
            )

    def test_an_empty_file_is_refused(self):
        path = self.file(b"")
        self.assertEqual(
            self.complaint(path), f"{path} is empty; it must contain secrets"
        )

    def test_a_file_that_is_too_long_is_refused(self):
        path = self.file(b"x" * 5001)
        self.assertEqual(
            self.complaint(path),
            f"{path} is longer than 5,000 bytes; it must contain secrets",
        )

    def test_a_file_that_is_not_there_is_refused(self):
        path = self.mktemp()
        self.assertEqual(
            self.complaint(path), f"{path} cannot be read: No such file or directory"
        )

    def test_a_file_that_the_user_cannot_read_is_refused_and_the_user_named(self):
        path = self.file(b"x", 0)
        if os.geteuid() == 0:
            # Root can read everything.
            self.addCleanup(os.seteuid, 0)
            os.seteuid(65534)
        self.assertEqual(
            self.complaint(path),
            f"{path} cannot be read: Permission denied; let user {system_user()} "
            "read it",
        )

    def test_what_cannot_be_the_name_of_a_file_is_refused(self):
        self.assertEqual(
            self.complaint("a\0b"), "'a\\x00b' cannot be the name of a file"
        )

    def test_what_is_no_plain_file_is_refused_without_waiting_for_it(self):
        pipe = self.mktemp()
        os.mkfifo(pipe, 0o600)
        self.assertEqual(self.complaint(pipe), f"{pipe} is not a regular file")


class SecretLinesTests(SynchronousTestCase):
    """``secret_lines``."""

    def test_blank_lines_and_comments_count_but_are_left_out(self):
        self.assertEqual(
            list(secret_lines("f", "# who\n\nzoë:1\r\n  \n #x\nb:2".encode())),
            [(3, "zoë:1"), (6, "b:2")],
        )

    def test_the_mark_that_windows_editors_write_is_no_part_of_a_line(self):
        self.assertEqual(list(secret_lines("f", b"\xef\xbb\xbfa:1")), [(1, "a:1")])

    def test_a_line_that_is_not_utf_8_is_named_but_not_told(self):
        with self.assertRaises(InvalidSetting) as caught:
            list(secret_lines("f", b"a:1\nz\xe4:geheim\n"))
        self.assertEqual(
            str(caught.exception),
            "f: line 2 is not UTF-8; convert the file with iconv",
        )
