"""
The man page: what ``docs/manpage.py`` writes, complete, and read without a complaint.
"""

from __future__ import annotations

import argparse
import re
import runpy
import shutil
import subprocess

from twisted.trial.unittest import SynchronousTestCase

from tests.client.parsers import arguments, commands
from tests.test_docs import ROOT
from txbits.client.cli import build_parser
from txbits.client.commands._command import Status

PAGE = ROOT / "docs" / "man" / "txbits.1"

_MACROS = {"TH", "SH", "SS", "TP", "PP", "RS", "RE", "B", "BR", "I", "br", "nf", "fi"}
_ESCAPES = re.compile(r"\\(?:[-e&\",/]|f[BIR]|\(dq)")


class ManPageTests(SynchronousTestCase):
    """``docs/man/txbits.1``."""

    def setUp(self):
        self.text = PAGE.read_text(encoding="ascii")

    def plain(self, text):
        """Text without fonts and escapes."""
        for escape, sign in (("\\-", "-"), ("\\(dq", '"'), ("\\e", "\\")):
            text = text.replace(escape, sign)
        return re.sub(r"\\(?:f[BIR]|[&,/])", "", text)

    def section(self, name):
        """A section, or that of a command, as lines without fonts and escapes."""
        found = re.split(r"^\.S[HS] (.*)$", self.text, flags=re.MULTILINE)
        sections = dict(zip(map(self.plain, found[1::2]), found[2::2], strict=True))
        (text,) = (sections[key] for key in sections if key == name)
        return self.plain(text).splitlines()

    def test_it_is_what_is_written_anew(self):
        written = runpy.run_path(str(ROOT / "docs" / "manpage.py"))["page"]()
        self.assertEqual(
            self.text, written, "run python docs/manpage.py > docs/man/txbits.1"
        )

    def test_every_command_and_every_option_is_in_it(self):
        for name, parser in commands(build_parser()).items():
            lines = self.section(f"txbits {name}")
            for argument in arguments(parser):
                # Actions of a command have sections of their own.
                if "--help" in argument.option_strings or isinstance(
                    argument, argparse._SubParsersAction
                ):
                    continue
                value = "" if argument.nargs == 0 else f" {argument.metavar}"
                spelled = [f"{one}{value}" for one in argument.option_strings]
                line = ", ".join(spelled or [argument.metavar])
                self.assertIn(line, lines, f"{name}: {line}")

    def test_every_command_has_its_usage(self):
        for name, parser in commands(build_parser()).items():
            places = [one for one in arguments(parser) if not one.option_strings]
            (usage,) = (
                line
                for line in self.section(f"txbits {name}")
                if line.startswith(f"usage: txbits {name} [OPTIONS]")
            )
            for place in places:
                self.assertRegex(usage, rf" \[?{place.metavar}")

    def test_every_exit_status_is_in_it(self):
        lines = self.section("EXIT STATUS")
        for status in Status:
            self.assertIn(f".B {status:d}", lines)

    def test_only_known_macros_and_escapes_are_in_it(self):
        for line in self.text.splitlines():
            if line.startswith('.\\" '):
                continue
            if line.startswith((".", "'")):
                self.assertIn(line[1:].split(" ")[0], _MACROS, line)
            self.assertNotIn("\\", _ESCAPES.sub("", line), line)

    def test_what_begins_ends(self):
        macros = [line.split(" ")[0] for line in self.text.splitlines()]
        for begin, end in ((".nf", ".fi"), (".RS", ".RE")):
            self.assertEqual(macros.count(begin), macros.count(end))
            self.assertIn(begin, macros)

    def test_groff_has_nothing_to_say_where_it_is_installed(self):
        groff = shutil.which("groff")
        complaints = b""
        if groff is not None:
            read = subprocess.run(
                [groff, "-ww", "-man", "-Tutf8", "-z", str(PAGE)], capture_output=True
            )
            complaints = read.stdout + read.stderr
        self.assertEqual(complaints, b"")
