"""
What is running.
"""

from twisted.trial.unittest import SynchronousTestCase

from txbits._version import versions


class VersionTests(SynchronousTestCase):
    """The words of ``--version``."""

    def test_names_txbits_and_twisted(self):
        self.assertRegex(
            versions(), r"\Atxbits \d+\.\d+\.\d+ \(Twisted \d+\.\d+\.\d+\)\Z"
        )
