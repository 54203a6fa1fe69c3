"""
Reports, as they are printed.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from tests.check.faults import FAULTS
from tests.check.joined import drive
from tests.check.scripted import Server
from txbits.check import CHECKS, GROUPS, Report, Result
from txbits.check._report import render_plain, render_rich, renderer_for

_ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


class ReportTests(SynchronousTestCase):
    """A run with one failure."""

    def setUp(self):
        server = Server(**FAULTS["gap-is-out-of-step"])
        self.report = drive(server, CHECKS, may_publish=False)

    def assert_complete(self, text):
        for check in CHECKS:
            self.assertIn(check.name, text)
        for group in GROUPS:
            self.assertIn(group.title, text)
        self.assertIn("answered with 400, 0x80070057", text)
        self.assertIn("88 passed, 1 failed, 12 not applicable", text)

    def test_plain(self):
        text = render_plain(self.report, GROUPS)
        self.assert_complete(text)
        self.assertIn(
            "  failed         MUST    3.2.5.2.6  gap-is-out-of-step\n"
            "                 expected: A Fragment beyond the next byte is answered "
            "with 416.\n"
            "                 answered with 400, 0x80070057; should be answered with "
            "416\n",
            text,
        )
        self.assertTrue(text.startswith("Acks\n  passed "))
        self.assertNotIn("left behind", text)

    def test_rich(self):
        text = render_rich(self.report, GROUPS, 200)
        self.assertIn("\x1b[1;31mfailed", text)
        text = _ESCAPE.sub("", text)
        self.assert_complete(text)
        self.assertIn("Expected: A Fragment beyond the next byte", text)
        # No line is longer than the terminal.
        self.assertLessEqual(max(map(len, text.splitlines())), 200)

    def test_what_a_server_says_is_no_markup(self):
        result = self.report.results[0]
        said = "[bold]not[/] :boom:"
        report = Report("http://h/", [Result(result.check, result.outcome, said)])
        self.assertIn(said, _ESCAPE.sub("", render_rich(report, GROUPS, 200)))

    def test_groups_without_results_are_left_out(self):
        report = Report("http://h/", self.report.results[:1])
        for render in (render_plain, render_rich):
            text = render(report, GROUPS)
            self.assertIn("Acks", text)
            self.assertNotIn("Fragments", text)

    def test_what_is_left_behind_stands_at_the_end(self):
        report = Report("http://h/", self.report.results, ["file http://h/x"])
        for render in (render_plain, render_rich):
            self.assertTrue(
                render(report, GROUPS).endswith("left behind:\n  file http://h/x\n")
            )

    def test_colours_are_for_wide_terminals_with_rich(self):
        for is_terminal, columns, has_rich, renderer in (
            (True, 120, True, render_rich),
            (True, 120, False, render_plain),
            (True, 80, True, render_plain),
            (False, 120, True, render_plain),
        ):
            self.assertIs(renderer_for(is_terminal, columns, has_rich), renderer)
