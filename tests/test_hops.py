"""
The way of a Fragment through the source does not grow longer unnoticed.

``python -m benchmarks hops`` prints it. When a change shortens it, lower the bound.
"""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from benchmarks.hops import Step, first_fragment, hops

#: How many changes of file the first Fragment of a session on disk may take.
MOST_HOPS = 72


class HopTests(TestCase):
    """``benchmarks/hops.py``. The reactor is real, and does not run meanwhile."""

    def test_the_first_fragment_takes_no_more_hops_than_it_did(self):
        self.assertLessEqual(hops(first_fragment()), MOST_HOPS)

    def test_the_way_leads_from_the_connection_to_the_file_and_back(self):
        files = [step.file for step in first_fragment()]
        self.assertEqual(files[0], "web/_streaming/channel.py")
        for file in ("sessions/_fragments.py", "backends/disk/_writer.py"):
            self.assertIn(file, files)
        self.assertLess(
            files.index("backends/disk/_writer.py"), files.index("web/_ack.py")
        )

    def test_it_is_the_same_in_every_run(self):
        self.assertEqual(first_fragment(), first_fragment())

    def test_calls_within_a_file_are_no_hops(self):
        steps = [Step(file, "f") for file in ("a.py", "a.py", "b.py", "a.py", "a.py")]
        self.assertEqual(hops(steps), 3)
