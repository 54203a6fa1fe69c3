"""
How many files a reader opens who follows a Fragment through the code.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.hops import hops

#: If this can be lowered, lower it.
MOST = 120


class HopTests(SynchronousTestCase):
    """``benchmarks.hops``."""

    def test_a_fragment_does_not_wander(self) -> None:
        calls = hops()
        self.assertLessEqual(len(calls), MOST)
        files = {called for _, called in calls}
        for name in ("sessions/manager.py", "backends/disk/_writer.py", "web/_ack.py"):
            self.assertIn(name, files)
