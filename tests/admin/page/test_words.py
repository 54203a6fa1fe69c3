"""
Figures in words.
"""

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.admin.page.words import (
    ago,
    duration,
    machine_readable,
    moment,
    number,
    plural,
    rate,
    size,
    size_rate,
)


class WordTests(SynchronousTestCase):
    """Figures as people read them."""

    def test_sizes(self):
        for count, words in (
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_240, "10.0 KiB"),
            (102_400, "100 KiB"),
            (1024**2 - 1, "1.0 MiB"),
            (5 * 1024**4, "5.0 TiB"),
            (2 * 1024**6, "2048 PiB"),
        ):
            self.assertEqual(size(count), words)
        self.assertEqual(size_rate(2048.0), "2.0 KiB/s")

    @given(st.floats(0, 2.0**59))
    def test_a_size_is_short(self, count):
        self.assertLessEqual(len(size(count)), 8)

    def test_numbers(self):
        for count, words in (
            (0.0, "0"),
            (3.0, "3"),
            (12345.0, "12,345"),
            (2.55, "2.5"),
            (0.0333, "0.033"),
            (123.4, "123"),
        ):
            self.assertEqual(number(count), words)
        self.assertEqual(rate(2.5), "2.5/s")

    def test_durations(self):
        for seconds, words in (
            (-3, "0 s"),
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3599, "59 min"),
            (3600, "1 h"),
            (100_000, "27 h"),
            (172_800, "2 d"),
        ):
            self.assertEqual(duration(seconds), words)

    def test_what_was_just_now_does_not_change_each_second(self):
        self.assertEqual(ago(-1), "just now")
        self.assertEqual(ago(59.9), "just now")
        self.assertEqual(ago(120), "2 min ago")

    def test_times_are_of_no_time_zone_but_utc(self):
        self.assertEqual(moment(1_800_000_000), "2027-01-15 08:00:00 UTC")
        self.assertEqual(machine_readable(1_800_000_000), "2027-01-15T08:00:00Z")

    def test_one_thing_and_several(self):
        self.assertEqual(plural(1, "session"), "1 session")
        self.assertEqual(plural(1200, "session"), "1,200 sessions")
        self.assertEqual(plural(0, "day"), "0 days")
