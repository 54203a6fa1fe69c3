"""
Completion: what bash offers, asked as bash asks, and what is written for zsh.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
from contextlib import redirect_stderr
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Pipe, ShutdownClock
from txbits.check import CHECKS
from txbits.client._completion import Argument, arguments, bash, commands, helps, zsh
from txbits.client.cli import build_parser, main, parse
from txbits.client.commands import COMMANDS
from txbits.client.commands._command import Context, run

_ASK = """\
eval "$(cat)"
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_txbits
printf '%s\\n' "${COMPREPLY[@]}"
"""


def printed(shell: str) -> str:
    """What the command prints."""
    out, err = Pipe(), Pipe()
    run(Context(ShutdownClock(), out, err, maybeDeferred), parse(["completion", shell]))
    return out.getvalue()


class ParserTests(SynchronousTestCase):
    """What is read from a parser."""

    def test_arguments_are_read(self) -> None:
        parser = argparse.ArgumentParser("p", add_help=False)
        parser.add_argument("one", metavar="FILE", nargs="+", help="100 %% of it")
        parser.add_argument("-t", "--two", type=int, default=7, help="is %(default)s")
        parser.add_argument("--three", choices=["a", "b"], action="append")
        parser.add_argument("--four", action="store_true")
        parser.add_argument("--five", help=argparse.SUPPRESS)
        self.assertEqual(
            list(arguments(parser)),
            [
                Argument((), "100 % of it", "FILE", [], True),
                Argument(("-t", "--two"), "is 7", "TWO", [], False),
                Argument(("--three",), "", "THREE", ["a", "b"], True),
                Argument(("--four",), "", None, [], False),
            ],
        )

    def test_commands_are_read(self) -> None:
        names = [command.name for command in COMMANDS]
        self.assertEqual(list(commands(build_parser())), names)
        self.assertEqual(list(helps(build_parser())), names)

    def test_a_parser_without_commands_has_none(self) -> None:
        parser = argparse.ArgumentParser("p")
        self.assertEqual((commands(parser), helps(parser)), ({}, {}))


class BashTests(SynchronousTestCase):
    """bash."""

    def setUp(self) -> None:
        self.script = printed("bash")
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def offers(self, *words: str) -> list[str]:
        """What is offered for the last of these words."""
        asked = subprocess.run(
            ["bash", "-c", _ASK, "bash", "txbits", *words],
            input=self.script.encode(),
            cwd=self.folder,
            capture_output=True,
            check=True,
        )
        self.assertEqual(asked.stderr, b"")
        return [line for line in asked.stdout.decode().splitlines() if line]

    def test_commands_are_offered(self) -> None:
        names = [command.name for command in COMMANDS]
        self.assertEqual(self.offers(""), [*names, "-h", "--help", "--version"])
        self.assertEqual(self.offers("do"), ["download"])
        self.assertEqual(self.offers("c"), ["cancel", "check", "completion"])

    def test_options_are_offered(self) -> None:
        for name, parser in commands(build_parser()).items():
            known = [one for each in arguments(parser) for one in each.names]
            self.assertEqual(self.offers(name, "-"), known)
        self.assertEqual(self.offers("check", "http://h/", "--str"), ["--strict"])

    def test_files_are_offered_where_they_belong(self) -> None:
        for name in ("one two", "one", "three"):
            (self.folder / name).touch()
        self.assertEqual(sorted(self.offers("upload", "on")), ["one", "one two"])
        self.assertEqual(self.offers("download", "http://h/x", "t"), ["three"])
        self.assertEqual(self.offers("check", "on"), [])
        self.assertEqual(self.offers("upload", "--retry-for", "on"), [])

    def test_values_are_offered(self) -> None:
        self.assertEqual(self.offers("completion", ""), ["bash", "zsh"])
        names = [check.name for check in CHECKS]
        self.assertEqual(self.offers("check", "--only", ""), names)
        self.assertEqual(
            self.offers("check", "--only", "ping"), ["ping-is-acknowledged"]
        )

    def test_so_they_are_behind_a_sign(self) -> None:
        self.assertEqual(
            self.offers("check", "--only", "=", "ping"), ["ping-is-acknowledged"]
        )
        self.assertEqual(len(self.offers("check", "--only", "=")), len(CHECKS))

    def test_unknown_commands_have_nothing_to_offer(self) -> None:
        self.assertEqual(self.offers("frobnicate", ""), [])
        self.assertEqual(self.offers("frobnicate", "-"), [])

    def test_programs_of_other_names_have_functions_of_theirs(self) -> None:
        self.assertIn("complete -F _a_b a-b", bash(argparse.ArgumentParser("a-b")))


class ZshTests(SynchronousTestCase):
    """zsh, which is asked whether it can read it, where it is installed."""

    def test_every_option_has_its_help(self) -> None:
        script = printed("zsh")
        self.assertTrue(script.startswith("#compdef txbits\n"))
        for name, parser in commands(build_parser()).items():
            self.assertIn(f"'{name}:", script)
            for argument in arguments(parser):
                for option in argument.names:
                    self.assertIn(f"{option}[", script)

    def test_what_zsh_takes_for_something_else_is_quoted(self) -> None:
        parser = argparse.ArgumentParser("p")
        one = parser.add_subparsers().add_parser("c", help="it's: a command")
        one.add_argument("--x", metavar="A:B", help="don't: [or] do")
        script = zsh(parser)
        self.assertIn("'c:it'\\''s: a command'", script)
        self.assertIn("'(--x)--x[don'\\''t\\: \\[or\\] do]:A\\:B: '", script)

    def test_zsh_reads_it(self) -> None:
        # It has no words that bash cannot read, too; CI need not have zsh.
        shell = shutil.which("zsh") or shutil.which("bash") or "sh"
        asked = subprocess.run(
            [shell, "-n"], input=printed("zsh").encode(), capture_output=True
        )
        self.assertEqual((asked.returncode, asked.stderr), (0, b""))


class ArgumentTests(SynchronousTestCase):
    """The command line."""

    def test_other_shells_are_refused(self) -> None:
        err = io.StringIO()
        with redirect_stderr(err):
            error = self.assertRaises(SystemExit, main, ["completion", "fish"])
        self.assertEqual(error.code, 1)
        self.assertIn(
            "'bash', 'zsh'", err.getvalue().replace("bash, zsh", "'bash', 'zsh'")
        )
