"""
The tests of Kerberos, with a real KDC: the modules of :mod:`tests.kerberos`, where
there is what they need.
"""

from __future__ import annotations

from unittest import TestSuite

from tests import kerberos
from tests.optional import suite_of


def testSuite() -> TestSuite:
    """The tests that this machine can run."""
    return suite_of(kerberos, "The tests of Kerberos")
