"""
Which destinations are refused everywhere.
"""

from __future__ import annotations

import os.path

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

import txbits.backends
from txbits.backends import checked_segments
from txbits.errors import DestinationForbidden, DestinationIsDirectory

_DEVICES = ["CON", "prn", "Aux", "NUL", "COM0", "com9", "LPT1", "lpt0"]
_DEVICES += ["COM¹", "LPT³", "CONIN$", "conout$"]


class CheckedSegmentsTests(SynchronousTestCase):
    """What :func:`checked_segments` lets pass."""

    def assert_forbidden(self, *destination):
        with self.assertRaises(DestinationForbidden, msg=ascii(destination)):
            checked_segments(destination)

    def test_it_is_exported(self):
        self.assertIn("checked_segments", txbits.backends.__all__)

    def test_ordinary_names_pass(self):
        for destination in (
            ("name.txt",),
            ("a", "b", "c"),
            (".hidden", "..."),
            ("CONSOLE", "NULL", "com10", "aux-1", "COM", "lpt1x.txt"),
            ("bits-sessions-of-mine", ".bits-sessions.txt"),
            ("näme ☃", "名前"),
            (" leading and trailing ", "~", "%2e%2e", "a=b&c?d#e"),
            ("x" * 255, "ü" * 127),
        ):
            self.assertEqual(checked_segments(destination), destination)

    def test_no_last_name_is_a_directory(self):
        for destination in ((), ("",), ("a", ""), ("a", "b", "")):
            with self.assertRaises(DestinationIsDirectory):
                checked_segments(destination)

    def test_empty_segments_are_forbidden(self):
        self.assert_forbidden("", "a")
        self.assert_forbidden("a", "", "b")
        self.assert_forbidden("", "")

    def test_dots_are_forbidden(self):
        for dots in (".", ".."):
            self.assert_forbidden(dots)
            self.assert_forbidden("a", dots, "b")
            self.assert_forbidden(dots, "")

    def test_separators_are_forbidden(self):
        for segment in ("/", "a/b", "/etc", "\\", "..\\a", "\\\\server\\share"):
            self.assert_forbidden(segment)

    def test_drives_and_streams_are_forbidden(self):
        for segment in ("C:", "c:a", "a:b", "a.txt::$DATA", ":"):
            self.assert_forbidden(segment)

    def test_control_characters_are_forbidden(self):
        for code in (*range(32), *range(127, 160)):
            self.assert_forbidden(f"a{chr(code)}b")

    def test_device_names_are_forbidden(self):
        for device in _DEVICES:
            for suffix in ("", ".txt", ".tar.gz", " ", "  .txt", ".", ". . "):
                self.assert_forbidden(device + suffix)
                self.assert_forbidden("a", device + suffix, "b")

    def test_what_is_no_utf_8_is_forbidden(self):
        for segment in ("\ud800", "a\udc80", "\udfff"):
            self.assert_forbidden(segment)

    def test_long_names_are_forbidden(self):
        self.assert_forbidden("x" * 256)
        self.assert_forbidden("ü" * 128)
        self.assert_forbidden("🛰" * 64)

    def test_staging_names_are_forbidden_at_any_depth(self):
        for name in (".bits-sessions", "BITS-Sessions", "bits-sessions"):
            for spelling in (name, name.upper(), name.swapcase(), name + ". "):
                self.assert_forbidden(spelling)
                self.assert_forbidden("a", spelling)
                self.assert_forbidden(spelling, "a")

    def test_letters_that_fold_to_staging_names_are_forbidden(self):
        self.assert_forbidden(".bit\u017f-sessions")

    @given(st.lists(st.text(), max_size=5).map(tuple))
    @example(("\ud800",))
    @example(("a", "\x85"))
    def test_whatever_passes_lies_below_the_root_and_can_be_written(self, destination):
        try:
            checked = checked_segments(destination)
        except (DestinationForbidden, DestinationIsDirectory):
            return
        self.assertEqual(checked, destination)
        path = os.path.join("/root", *checked)
        self.assertEqual(os.path.normpath(path), path)
        self.assertTrue(path.startswith("/root/"))
        self.assertEqual(path.count("/"), len(checked) + 1)
        for segment in checked:
            self.assertLessEqual(len(segment.encode()), 255)
            self.assertNotIn("\0", segment)

    @given(st.lists(st.text("abcXYZ019 -_äß☃", min_size=1, max_size=40), min_size=1))
    def test_plain_names_always_pass(self, names):
        destination = tuple(names)
        self.assertEqual(checked_segments(destination), destination)

    @given(
        st.sampled_from(_DEVICES),
        st.text(" ", max_size=2),
        st.just("") | st.text("ab. ", max_size=5).map(".".__add__),
    )
    def test_devices_are_found_whatever_follows(self, device, spaces, extension):
        self.assert_forbidden(device + spaces + extension)

    def test_paths_that_linux_does_not_take_are_refused(self):
        for destination in (("a",) * 256, ("a" * 250,) * 17, ("ä" * 120,) * 17):
            with self.assertRaises(DestinationForbidden):
                checked_segments(destination)
        checked_segments(("a",) * 255)
        checked_segments(("a" * 250,) * 16)
