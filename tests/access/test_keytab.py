"""
What a keytab must have, and how it is refused: in the bytes of the format.
"""

from __future__ import annotations

import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.access.negotiate import check_keytab
from txbits.errors import InvalidSetting

KEY = b"\xc5" * 32


def text(value):
    """A text with its length."""
    return struct.pack(">H", len(value)) + value.encode()


def key_of(*components, realm="EXAMPLE.TEST", version=3, long_version=None):
    """A record of a keytab."""
    record = struct.pack(">H", len(components)) + text(realm)
    record += b"".join(map(text, components))
    record += struct.pack(">IIBHH", 1, 1_700_000_000, version, 18, len(KEY)) + KEY
    if long_version is not None:
        record += struct.pack(">I", long_version)
    return struct.pack(">i", len(record)) + record


def keytab(*records):
    """A keytab."""
    return b"\x05\x02" + b"".join(records)


class KeytabTests(SynchronousTestCase):
    """Keytabs that can be used, and others."""

    def check(self, content, mode=0o600):
        path = Path(self.mktemp())
        path.write_bytes(content)
        path.chmod(mode)
        return check_keytab(str(path))

    def assert_refused(self, content, words, mode=0o600):
        with self.assertRaisesRegex(InvalidSetting, words) as caught:
            self.check(content, mode)
        self.assertNotIn("\n", str(caught.exception))

    def test_keys_of_the_service_are_found(self):
        found = self.check(
            keytab(
                key_of("host", "up.example.test"),
                key_of("HTTP", "up.example.test", version=2),
                key_of("HTTP", "up.example.test", long_version=3),
            )
        )
        self.assertEqual(
            [(str(one), one.version) for one in found],
            [
                ("HTTP/up.example.test@EXAMPLE.TEST", 2),
                ("HTTP/up.example.test@EXAMPLE.TEST", 3),
            ],
        )

    def test_version_over_255(self):
        (found,) = self.check(keytab(key_of("HTTP", "a", version=44, long_version=300)))
        self.assertEqual(found.version, 300)

    def test_deleted_keys_are_skipped(self):
        hole = struct.pack(">i", -20) + b"x" * 20
        (found,) = self.check(keytab(hole, key_of("HTTP", "a")))
        self.assertEqual(found.components, ("HTTP", "a"))

    def test_unused_rest_is_skipped(self):
        (found,) = self.check(keytab(key_of("HTTP", "a"), b"\0" * 64))
        self.assertEqual(found.components, ("HTTP", "a"))

    def test_keytab_of_another_service_says_which(self):
        self.assert_refused(
            keytab(key_of("host", "a"), key_of("cifs", "a")),
            "no key of HTTP/HOST, only of host/a@EXAMPLE.TEST, cifs/a@EXAMPLE.TEST;",
        )

    def test_keytab_without_keys(self):
        self.assert_refused(keytab(), "no key of HTTP/HOST, nor any other;")

    def test_other_files(self):
        for content in (b"alice:secret\n", b"\x05\x01abc", keytab(b"\0\0\1"), b"\x05"):
            self.assert_refused(content, "is not a keytab; it must contain the keys of")

    def test_truncated_keytab(self):
        self.assert_refused(keytab(key_of("HTTP", "a"))[:-1], "is not a keytab")

    def test_missing_keytab(self):
        with self.assertRaisesRegex(InvalidSetting, "cannot be read: No such file"):
            check_keytab(self.mktemp())

    def test_keytab_that_everyone_can_read(self):
        self.assert_refused(keytab(key_of("HTTP", "a")), "chmod o-rw", mode=0o644)

    def test_key_is_not_told(self):
        (found,) = self.check(keytab(key_of("HTTP", "a")))
        self.assertNotIn("c5", repr(found))
        self.assertNotIn("\xc5", repr(found))

    @given(st.binary(max_size=200))
    def test_any_bytes_are_read_or_refused(self, content):
        path = Path(self.mktemp())
        path.write_bytes(keytab(content))
        path.chmod(0o600)
        try:
            check_keytab(str(path))
        except InvalidSetting:
            return
