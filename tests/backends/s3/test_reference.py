"""
The reference page of S3 names the settings that there are, with their defaults.
"""

from __future__ import annotations

import re
from pathlib import Path

from attrs import fields
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.s3 import S3Settings
from txbits.backends.s3._budget import DEFAULT_MEMORY
from txbits.backends.s3._settings import size

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "s3.md"


class SettingsTableTests(SynchronousTestCase):
    """The table of settings."""

    def setUp(self):
        text = PAGE.read_text()
        table = text[: text.index("## What lies")]
        self.rows = dict(re.findall(r"^\| `([a-z-]+)` \| ([^|]+) \|", table, re.M))

    def test_it_has_all_of_them(self):
        names = {one.name.replace("_", "-") for one in fields(S3Settings)}
        self.assertEqual(set(self.rows), names - {"bucket", "staging"})

    def test_it_has_their_defaults(self):
        for one in fields(S3Settings):
            said = self.rows.get(one.name.replace("_", "-"), "")
            if isinstance(one.default, (int, float)):
                self.assertEqual(size(said.strip("`"), one.name), one.default)
            elif one.default:
                self.assertEqual(said, f"`{one.default}`")
        self.assertEqual(size(self.rows["memory"].strip("`"), "it"), DEFAULT_MEMORY)
