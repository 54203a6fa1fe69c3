"""
Completion: what bash and zsh offer, asked as the shells ask.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from tests.client.fakes import Pipe, ShutdownClock
from tests.client.parsers import arguments, commands
from tests.test_docs import ROOT
from txbits.check import CHECKS
from txbits.client.cli import build_parser, main, parse
from txbits.client.commands import NAMES, load
from txbits.client.commands._command import Context, run

#: As bash splits a URL, and its first part.
URL = ("http", ":", "//h/x")

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
        self.assertEqual(self.offers(""), list(NAMES))
        self.assertEqual(self.offers("-"), ["-h", "--help", "--version"])
        self.assertEqual(self.offers("do"), ["download"])
        self.assertEqual(self.offers("c"), ["cancel", "check", "completion"])

    def test_options_are_offered(self) -> None:
        for name, parser in commands(build_parser()).items():
            known = [one for each in arguments(parser) for one in each.option_strings]
            self.assertEqual(self.offers(*name.split(), "-"), known)
        self.assertEqual(self.offers("check", *URL, "--str"), ["--strict"])

    def test_files_are_offered_where_they_belong(self) -> None:
        for name in ("one two", "one", "three"):
            (self.folder / name).touch()
        self.assertEqual(sorted(self.offers("upload", "on")), ["one", "one two"])
        self.assertEqual(self.offers("upload", "one", "t"), ["three"])
        self.assertEqual(self.offers("upload", "one t"), ["one two"])
        self.assertEqual(self.offers("upload", "--cacert", "one", "t"), ["three"])
        self.assertEqual(self.offers("status", "--state", "t"), ["three"])
        self.assertEqual(self.offers("check", "on"), [])
        self.assertEqual(self.offers("upload", "--retry-for", "on"), [])

    def test_files_are_offered_behind_a_url(self) -> None:
        (self.folder / "three").touch()
        self.assertEqual(self.offers("download", *URL, "t"), ["three"])
        self.assertEqual(
            self.offers("download", *URL[:2], "//h/x?a", "=", "b", "t"), ["three"]
        )
        self.assertEqual(self.offers("download", *URL), [])

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
        self.assertEqual(
            self.offers("check", "--only", "=", "ping", "--str"), ["--strict"]
        )

    def test_unknown_commands_have_no_options(self) -> None:
        self.assertEqual(self.offers("frobnicate", "-"), self.offers("-"))

    def test_it_is_loaded_for_the_command(self) -> None:
        loaded = subprocess.run(
            ["bash", "-c", 'eval "$(cat)"; complete -p txbits'],
            input=self.script.encode(),
            capture_output=True,
            check=True,
        )
        self.assertIn(b"-F _txbits txbits", loaded.stdout)


class ZshTests(SynchronousTestCase):
    """zsh, which is asked whether it can read it, where it is installed."""

    def setUp(self) -> None:
        self.script = printed("zsh")

    def test_every_option_has_its_help(self) -> None:
        self.assertTrue(self.script.startswith("#compdef txbits\n"))
        for name, parser in commands(build_parser()).items():
            for argument in arguments(parser):
                spelled = ",".join(argument.option_strings)
                if len(argument.option_strings) > 1:
                    self.assertIn(f'{{{spelled}}}"[', self.script, name)
                elif spelled:
                    self.assertIn(f"{spelled}[", self.script, name)

    def test_every_command_has_its_help(self) -> None:
        for command in map(load, NAMES):
            # Versions of shtab quote it in different places.
            line = rf"""["']?{command.name}:["']?{re.escape(command.help)}["']\n"""
            self.assertRegex(self.script, line)

    def test_files_are_offered_as_often_as_they_may_be_given(self) -> None:
        self.assertRegex(self.script, r'"\*:[^"]*:_files"')
        self.assertNotIn('"(*):', self.script)

    def test_zsh_reads_it(self) -> None:
        # It has no words that bash cannot read, too; CI need not have zsh.
        shell = shutil.which("zsh") or shutil.which("bash") or "sh"
        asked = subprocess.run(
            [shell, "-n"], input=self.script.encode(), capture_output=True
        )
        self.assertEqual((asked.returncode, asked.stderr), (0, b""))


class ArgumentTests(SynchronousTestCase):
    """The command line."""

    def test_without_shtab_one_line_says_what_to_install(self) -> None:
        # Python imports no module whose place in sys.modules is None.
        code = (
            "import sys; sys.modules['shtab'] = None\n"
            "from txbits.client.cli import main; main(['completion', 'bash'])"
        )
        asked = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True
        )
        words = b"txbits: completion requires: pip install 'txbits[cli]'\n"
        self.assertEqual((asked.returncode, asked.stderr), (1, words))

    def test_other_shells_are_refused(self) -> None:
        err = io.StringIO()
        with redirect_stderr(err):
            error = self.assertRaises(SystemExit, main, ["completion", "fish"])
        self.assertEqual(error.code, 1)
        self.assertIn(
            "'bash', 'zsh'", err.getvalue().replace("bash, zsh", "'bash', 'zsh'")
        )
