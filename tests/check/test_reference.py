"""
``docs/reference/check.md`` has the checks that there are.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.test_docs import ROOT, tables
from txbits.check import CHECKS, GROUPS

PAGE = ROOT / "docs" / "reference" / "check.md"


class ReferenceTests(SynchronousTestCase):
    """The tables, one for each group."""

    def test_tables_are_the_checks(self):
        found = [
            rows
            for rows in tables(PAGE)
            if rows[0] == ["check", "MC-BUP", "level", "expected"]
        ]
        for group, (_, *rows) in zip(GROUPS, found, strict=True):
            expected = [
                [
                    f"`{check.name}`",
                    check.section,
                    check.level.value,
                    check.expectation.replace("|", "\\|"),
                ]
                for check in group
            ]
            self.assertEqual(rows, expected, group.title)

    def test_their_number_is_told(self):
        self.assertIn(f"\nThere are {len(CHECKS)}.\n", PAGE.read_text())

    def test_every_group_has_a_heading(self):
        text = PAGE.read_text()
        for group in GROUPS:
            self.assertIn(f"\n### {group.title}\n", text)
