"""
The challenges of Negotiate, as the client reads them. Its logins are in
:mod:`tests.kerberos.client`.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txbits.client._negotiate import offered

ROOT = Path(__file__).parents[2]


class OfferedTests(SynchronousTestCase):
    """``WWW-Authenticate``, with and without Negotiate."""

    def test_challenge_without_a_token(self):
        for value in (b"Negotiate", b" negotiate ", b"Basic realm=x, NEGOTIATE"):
            self.assertEqual(offered([value]), b"", value)

    def test_challenge_with_a_token(self):
        for value in (b"Negotiate YWJj", b"Negotiate  YWJj, Basic realm=x"):
            self.assertEqual(offered([b"Basic realm=x", value]), b"abc", value)

    def test_others(self):
        for values in (
            [],
            [b"Basic realm=x"],
            [b"Negotiated"],
            [b"Negotiate ???"],
            [b"Negotiate YWJ"],
            [b"NTLM"],
        ):
            self.assertIsNone(offered(values), values)


class LibraryTests(SynchronousTestCase):
    """The package gssapi, where it is not installed."""

    def test_missing_library_is_one_line(self):
        code = (
            "import sys; sys.modules['gssapi'] = None\n"
            "from txbits.client._negotiate import KerberosMissing, Negotiator\n"
            "try: Negotiator('localhost')\n"
            "except KerberosMissing as error: print(error)\n"
        )
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
        self.assertIn("Kerberos needs the package gssapi; run pip", done.stdout)
        self.assertEqual((done.stdout.count("\n"), done.stderr), (1, ""))
