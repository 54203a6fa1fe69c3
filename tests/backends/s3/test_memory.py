"""
The bound on what a process holds, without a store.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from txbits.backends.s3._memory import Memory


class MemoryTests(SynchronousTestCase):
    """Those who wait."""

    def setUp(self):
        self.memory = Memory(10)
        self.successResultOf(self.memory.take(8))

    def test_they_are_served_in_order(self):
        first, second = self.memory.take(5), self.memory.take(1)
        self.assertNoResult(second)
        self.memory.give(8)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.memory.used, 6)

    def test_who_waits_no_more_is_given_nothing(self):
        waiting = self.memory.take(5)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.memory.give(8)
        self.assertEqual(self.memory.used, 0)
        self.assertTrue(self.memory.fits(10))

    def test_nor_does_it_stand_in_anybody_s_way(self):
        first, second = self.memory.take(5), self.memory.take(1)
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.successResultOf(second)
        self.assertEqual(self.memory.used, 9)
