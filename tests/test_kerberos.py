"""
The tests of Kerberos, with a real KDC: the modules of :mod:`tests.kerberos`.

They need packages of the system that ``pip install`` cannot provide. Where one is
missing, they are no tests of this machine, and one line says so. With ``CI`` in the
environment that is a failure instead.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from importlib import import_module
from unittest import TestSuite

from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase

from tests import kerberos


class CompletenessTests(SynchronousTestCase):
    """This machine has what the tests need."""

    def test_nothing_is_missing(self) -> None:
        self.assertEqual(kerberos.missing(), "")


def testSuite() -> TestSuite:
    """The tests that this machine can run."""
    loader = TestLoader()
    missing = kerberos.missing()
    if missing and os.environ.get("CI"):
        return loader.loadClass(CompletenessTests)
    if missing:
        sys.stderr.write(f"The tests of Kerberos do not run without {missing}.\n")
        return TestSuite()
    suite = loader.suiteFactory()
    for module in pkgutil.iter_modules(kerberos.__path__, "tests.kerberos."):
        suite.addTest(loader.loadModule(import_module(module.name)))
    return suite
