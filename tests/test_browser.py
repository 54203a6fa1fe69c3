"""
The tests in a real Chromium: the modules of :mod:`tests.browser`, where there is one.
"""

from __future__ import annotations

from unittest import TestSuite

from tests import browser
from tests.optional import suite_of


def testSuite() -> TestSuite:
    """The tests that this machine can run."""
    return suite_of(browser, "The tests in a browser")
