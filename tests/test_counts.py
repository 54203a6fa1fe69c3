"""
Figures that objects keep of what they do.
"""

from twisted.trial.unittest import SynchronousTestCase

from txbits._counts import BOUNDS, Histogram


class HistogramTests(SynchronousTestCase):
    """Durations, in classes."""

    def test_a_duration_belongs_to_the_first_bound_that_it_does_not_exceed(self):
        histogram = Histogram()
        for seconds in (0.0, BOUNDS[0], 0.002, BOUNDS[-1], BOUNDS[-1] + 1):
            histogram.observe(seconds)
        self.assertEqual(histogram.counts[:2], [2, 1])
        self.assertEqual(histogram.counts[-2:], [1, 1])
        self.assertEqual(histogram.total, 5)
        self.assertAlmostEqual(histogram.seconds, 0.003 + 2 * BOUNDS[-1] + 1)

    def test_bounds_ascend(self):
        self.assertEqual(list(BOUNDS), sorted(set(BOUNDS)))
