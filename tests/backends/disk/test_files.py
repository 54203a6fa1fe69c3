"""
The outcomes of system calls, in the terms of the interfaces.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.disk._files import at_once, translated
from txbits.errors import BackendError, OutOfSpace


def broken():
    raise KeyError("x")


class TranslatedTests(SynchronousTestCase):
    """Failed system calls become what the interfaces fail with."""

    def fail_with(self, *args):
        raise OSError(*args)

    def test_errors_of_the_system_are_backend_errors(self):
        with self.assertRaises(BackendError) as caught:
            translated(self.fail_with, 5, "broken")
        self.assertIs(type(caught.exception), BackendError)
        self.assertIsInstance(caught.exception.__cause__, OSError)

    def test_a_full_disk_is_told_apart(self):
        self.failureResultOf(at_once(self.fail_with, 28, "full"), OutOfSpace)

    def test_other_errors_stay_what_they_are(self):
        self.failureResultOf(at_once(broken), KeyError)

    def test_outcomes_are_there_at_once(self):
        self.assertEqual(self.successResultOf(at_once(max, 1, 2)), 2)
