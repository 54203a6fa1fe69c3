"""
``docs/reference/conformance.md``: the tests that it names exist, every row has one or a
reason, and its counts are right.

Whether a test shows what its row says is for people to judge.
"""

from __future__ import annotations

import re
from collections import Counter
from unittest import TestCase

from twisted.python.reflect import namedAny
from twisted.trial.unittest import SynchronousTestCase

from tests.test_docs import ROOT, tables

PAGE = ROOT / "docs" / "reference" / "conformance.md"

VERDICTS = ("yes", "differs", "not tested")

_TEST = re.compile(r"`((?:tests|txbits\.testing)\.[\w.]+)`(?:<br>)?")


class ConformanceTests(SynchronousTestCase):
    """The page, as a table of demands and what shows them."""

    def setUp(self):
        self.counts, *self.groups = tables(PAGE)

    def rows(self):
        """All demands: section, word, demand, verdict, tests, and what else is said."""
        for head, *rows in self.groups:
            self.assertEqual(
                head, ["section", "word", "requirement", "txbits", "tests"]
            )
            for section, word, demand, here, shown_by in rows:
                tests = _TEST.findall(shown_by)
                yield section, word, demand, here, tests, _TEST.sub("", shown_by)

    def test_every_row_is_one_of_the_specification(self):
        for section, word, demand, _, _, _ in self.rows():
            self.assertRegex(section, r"\A(2\.[23]|3\.[235])(\.[0-9]+)*\Z")
            self.assertIn(word, ("MUST", "MUST NOT", "SHOULD", "SHOULD NOT"))
            self.assertTrue(demand.endswith("."), demand)

    def test_no_row_is_without_a_test_or_a_reason(self):
        for section, _, demand, here, tests, reason in self.rows():
            self.assertIn(here, VERDICTS, (section, demand))
            self.assertEqual(bool(tests), here != "not tested", (section, demand))
            if here != "yes":
                self.assertTrue(reason, (section, demand))

    def test_the_tests_exist(self):
        for *_, tests, _ in self.rows():
            for name in tests:
                test = namedAny(name)
                self.assertTrue(callable(test), name)
                self.assertTrue(name.split(".")[-1].startswith("test_"), name)
                if name.startswith("tests."):
                    case = namedAny(name.rpartition(".")[0])
                    self.assertTrue(issubclass(case, TestCase), name)

    def test_what_else_is_said_names_no_test(self):
        for *_, reason in self.rows():
            self.assertNotIn("test_", reason)

    def test_the_counts_are_those_of_the_rows(self):
        head, *lines, together = self.counts
        self.assertEqual(head, ["", "sections", "rows", *VERDICTS])
        found = []
        for _, *rows in self.groups:
            verdicts = Counter(row[3] for row in rows)
            found.append([len(rows), *(verdicts[one] for one in VERDICTS)])
        self.assertEqual([[int(cell) for cell in line[2:]] for line in lines], found)
        self.assertEqual(
            [int(cell) for cell in together[2:]],
            [sum(column) for column in zip(*found, strict=True)],
        )
