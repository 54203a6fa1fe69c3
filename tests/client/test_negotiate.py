"""
The challenges of Negotiate, as the client reads them. Its logins are in
:mod:`tests.kerberos.client`.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.client._negotiate import offered


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
