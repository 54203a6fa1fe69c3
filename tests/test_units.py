"""
Sizes and durations as people write them.
"""

from twisted.trial.unittest import SynchronousTestCase

from txbits._units import parse_duration, parse_size


class UnitTests(SynchronousTestCase):
    """The forms that the server's settings and the client's options share."""

    def test_sizes_are_bytes_or_powers_of_1024(self):
        for text, size in (
            ("0", 0),
            ("65536", 65536),
            ("500K", 500 * 2**10),
            ("2M", 2**21),
            ("20G", 20 * 2**30),
            ("1T", 2**40),
        ):
            self.assertEqual(parse_size(text), size)

    def test_durations_are_seconds_or_have_a_unit(self):
        for text, seconds in (
            ("0", 0),
            ("1.5", 1.5),
            (".5", 0.5),
            ("90s", 90),
            ("15m", 900),
            ("12h", 43200),
            ("1.5d", 129600),
        ):
            self.assertEqual(parse_duration(text), seconds)

    def test_anything_else_is_refused_with_the_accepted_forms(self):
        for text in ("", "K", "1k", "1.5M", "-1", "1 K", "1K ", "9" * 400, "\u0661"):
            error = self.assertRaises(ValueError, parse_size, text)
            self.assertIn("is not a size, such as 65536, 500K or 20G", str(error))
        for text in ("", "m", "1w", "1e3", "-1", "nan", "1.", "9" * 400, "\u0661"):
            error = self.assertRaises(ValueError, parse_duration, text)
            self.assertIn("is not a duration, such as 90, 15m, 12h or 14d", str(error))
