"""
``txbits token``: a token, and a line that the server reads.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.client.test_commands import CommandTestCase
from txbits.access.bearer import Tokens
from txbits.interfaces import Identity


class TokenTests(CommandTestCase):
    """``txbits token``."""

    def token(self, *arguments: str) -> tuple[bytes, str]:
        """What it prints."""
        result = self.run_command("token", *arguments)
        self.assert_status(result, 0)
        token, line = self.out.getvalue().splitlines()
        return token.encode(), line

    def read(self, line: str) -> Tokens:
        path = self.mktemp()
        Path(path).write_text(line)
        os.chmod(path, 0o600)
        return Tokens.read(path)

    def test_the_server_knows_the_token_by_the_line(self) -> None:
        token, line = self.token(
            "build server", "--groups", "ci, nightly", "--expires", "90d"
        )
        self.assertNotIn(token.decode(), line)
        self.assertEqual(
            self.read(line).find(token),
            (
                Identity("build server", "bearer", frozenset({"ci", "nightly"})),
                self.calendar + 90 * 86_400,
            ),
        )

    def test_a_name_is_enough(self) -> None:
        token, line = self.token("build")
        self.assertEqual(
            self.read(line).find(token), (Identity("build", "bearer"), float("inf"))
        )
        self.assertEqual(line.count(":"), 1)

    def test_each_token_is_another_one(self) -> None:
        self.token("build")
        first = self.out.getvalue()
        self.setUp()
        self.token("build")
        self.assertNotEqual(self.out.getvalue(), first)

    def test_what_would_be_no_line_is_refused(self) -> None:
        for arguments in (
            ("a:b",),
            ("",),
            ("#a",),
            ("a\nb",),
            (" a",),
            ("a", "--groups", "x:y"),
        ):
            self.assert_status(self.run_command("token", *arguments), 1)
        self.assertEqual(self.out.getvalue(), "")
