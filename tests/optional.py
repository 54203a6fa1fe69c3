"""
Tests that need packages of the system, which ``pip install`` cannot provide.

They are the modules of a package whose ``missing()`` tells what this machine does not
have. Where something is missing, they are no tests of this machine, and one line says
so. With ``CI`` in the environment that is a failure instead.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from importlib import import_module
from types import ModuleType
from unittest import TestSuite

from twisted.trial.runner import TestLoader
from twisted.trial.unittest import SynchronousTestCase


def suite_of(package: ModuleType, what: str) -> TestSuite:
    """
    The tests of a package that this machine can run.

    :param what: What the tests are called, for the line.
    """

    class CompletenessTests(SynchronousTestCase):
        """This machine has what the tests need."""

        def test_nothing_is_missing(self) -> None:
            self.assertEqual(package.missing(), "")

    loader = TestLoader()
    missing = package.missing()
    if missing and os.environ.get("CI"):
        return loader.loadClass(CompletenessTests)
    suite = loader.suiteFactory()
    if missing:
        sys.stderr.write(f"{what} do not run without {missing}.\n")
        return suite
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        suite.addTest(loader.loadModule(import_module(module.name)))
    return suite
