"""
Conditional requests, as RFC 9110 13 has them.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.conditions import (
    Validators,
    Verdict,
    examine,
    format_date,
    honours_range,
    parse_date,
)

#: Sunday.
MODIFIED = 784_111_777
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
EARLIER = b"Sun, 06 Nov 1994 08:49:36 GMT"
LATER = b"Sun, 06 Nov 1994 08:49:38 GMT"
NOW = MODIFIED + 3600
CURRENT = Validators(b"abc", MODIFIED)


class DateTests(SynchronousTestCase):
    """HTTP-dates in three forms, and what is none."""

    def test_written_in_the_one_form(self) -> None:
        self.assertEqual(format_date(MODIFIED), DATE)

    def test_read_in_all_three(self) -> None:
        for value in (
            DATE,
            b"Sunday, 06-Nov-94 08:49:37 GMT",
            b"Sun Nov  6 08:49:37 1994",
        ):
            self.assertEqual(parse_date(value, NOW), MODIFIED, value)

    def test_years_of_two_digits_are_near(self) -> None:
        for now, expected in (
            (MODIFIED, b"Tue, 06 Nov 2040 08:49:37 GMT"),
            (2**32, b"Tue, 06 Nov 2140 08:49:37 GMT"),
        ):
            found = parse_date(b"Tuesday, 06-Nov-40 08:49:37 GMT", now)
            assert found is not None
            self.assertEqual(format_date(found)[5:], expected[5:])
        found = parse_date(b"Tuesday, 06-Nov-60 08:49:37 GMT", 1_700_000_000)
        assert found is not None
        self.assertEqual(format_date(found)[12:16], b"2060")
        found = parse_date(b"Tuesday, 06-Nov-80 08:49:37 GMT", 1_700_000_000)
        assert found is not None
        self.assertEqual(format_date(found)[12:16], b"1980")

    def test_a_leap_second_is_none_too_many(self) -> None:
        self.assertEqual(
            parse_date(b"Sat, 31 Dec 2016 23:59:60 GMT", NOW),
            parse_date(b"Sat, 31 Dec 2016 23:59:59 GMT", NOW),
        )

    def test_nothing_else_is_read(self) -> None:
        for value in (
            b"",
            b"now",
            DATE + b"x",
            DATE.replace(b"GMT", b"CET"),
            DATE.replace(b"Nov", b"Nox"),
            DATE.replace(b"06", b"31"),
            DATE.replace(b"08:49", b"24:49"),
            DATE.replace(b"1994", b"0000"),
            b" " * 100_000,
        ):
            self.assertIsNone(parse_date(value, NOW), value[:40])

    @given(st.integers(0, 253_402_300_799))
    def test_what_is_written_is_read(self, seconds: int) -> None:
        self.assertEqual(parse_date(format_date(seconds), NOW), seconds)

    @given(st.binary(max_size=60))
    def test_reading_never_fails(self, value: bytes) -> None:
        parse_date(value, NOW)


class ExamineTests(SynchronousTestCase):
    """Which condition decides, and how."""

    def assert_verdict(self, verdict: Verdict, **headers: bytes | list[bytes]) -> None:
        given_headers = {
            name.replace("_", "-").encode(): value
            if isinstance(value, list)
            else [value]
            for name, value in headers.items()
        }
        self.assertIs(examine(given_headers, CURRENT, NOW), verdict, headers)

    def test_without_conditions_it_proceeds(self) -> None:
        self.assert_verdict(Verdict.PROCEED)

    def test_if_match_needs_a_strong_match(self) -> None:
        for value in (b"*", b'"abc"', b'"x", "abc"', [b'"x"', b'"abc"']):
            self.assert_verdict(Verdict.PROCEED, if_match=value)
        for wrong in (b'"x"', b'W/"abc"', b"abc", b""):
            self.assert_verdict(Verdict.FAILED, if_match=wrong)

    def test_if_none_match_is_content_with_a_weak_one(self) -> None:
        for value in (b"*", b'"abc"', b'W/"abc"', b'"x",W/"abc"'):
            self.assert_verdict(Verdict.NOT_MODIFIED, if_none_match=value)
        for other in (b'"x"', b"abc", b""):
            self.assert_verdict(Verdict.PROCEED, if_none_match=other)

    def test_if_modified_since(self) -> None:
        for value in (DATE, LATER):
            self.assert_verdict(Verdict.NOT_MODIFIED, if_modified_since=value)
        for other in (EARLIER, b"whenever", [LATER, LATER]):
            self.assert_verdict(Verdict.PROCEED, if_modified_since=other)

    def test_if_unmodified_since(self) -> None:
        self.assert_verdict(Verdict.FAILED, if_unmodified_since=EARLIER)
        for other in (DATE, LATER, b"whenever", [EARLIER, EARLIER]):
            self.assert_verdict(Verdict.PROCEED, if_unmodified_since=other)

    def test_a_weak_tag_matches_weakly_only(self) -> None:
        weak = Validators(b"abc", MODIFIED, is_weak=True)
        self.assertEqual(weak.quoted, b'W/"abc"')
        for value in (b'"abc"', b'W/"abc"'):
            self.assertIs(examine({b"if-match": [value]}, weak, NOW), Verdict.FAILED)
            self.assertIs(
                examine({b"if-none-match": [value]}, weak, NOW), Verdict.NOT_MODIFIED
            )
            self.assertFalse(honours_range({b"if-range": [value]}, weak, NOW))
        self.assertIs(examine({b"if-match": [b"*"]}, weak, NOW), Verdict.PROCEED)
        self.assertTrue(honours_range({b"if-range": [DATE]}, weak, NOW))

    def test_what_has_no_tag_matches_none(self) -> None:
        bare = Validators(None, MODIFIED)
        self.assertIsNone(bare.quoted)
        for value in (b'""', b'"None"', b'W/"abc"'):
            self.assertIs(examine({b"if-match": [value]}, bare, NOW), Verdict.FAILED)
            self.assertIs(
                examine({b"if-none-match": [value]}, bare, NOW), Verdict.PROCEED
            )
            self.assertFalse(honours_range({b"if-range": [value]}, bare, NOW))
        self.assertIs(examine({b"if-match": [b"*"]}, bare, NOW), Verdict.PROCEED)

    def test_other_blanks_than_space_and_tab_are_part_of_a_value(self) -> None:
        for blank in (b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0"):
            self.assert_verdict(Verdict.FAILED, if_match=b"*" + blank)
            self.assert_verdict(Verdict.PROCEED, if_none_match=blank + b"*")
            self.assert_verdict(Verdict.PROCEED, if_unmodified_since=EARLIER + blank)
            self.assert_verdict(Verdict.PROCEED, if_modified_since=LATER + blank)
        self.assert_verdict(Verdict.NOT_MODIFIED, if_modified_since=b"\t" + DATE + b" ")

    def test_tags_stand_above_dates(self) -> None:
        self.assert_verdict(
            Verdict.PROCEED, if_match=b'"abc"', if_unmodified_since=EARLIER
        )
        self.assert_verdict(Verdict.FAILED, if_match=b'"x"', if_unmodified_since=LATER)
        self.assert_verdict(
            Verdict.PROCEED, if_none_match=b'"x"', if_modified_since=LATER
        )
        self.assert_verdict(
            Verdict.NOT_MODIFIED, if_none_match=b'"abc"', if_modified_since=EARLIER
        )

    def test_what_must_be_stands_above_what_must_not(self) -> None:
        self.assert_verdict(Verdict.FAILED, if_match=b'"x"', if_none_match=b'"abc"')
        self.assert_verdict(
            Verdict.NOT_MODIFIED, if_unmodified_since=DATE, if_none_match=b'"abc"'
        )


class IfRangeTests(SynchronousTestCase):
    """Whether a range belongs to the content that the client has."""

    def honours(self, *values: bytes, now: int = NOW) -> bool:
        headers = {b"if-range": list(values)} if values else {}
        return honours_range(headers, CURRENT, now)

    def test_without_it_ranges_are_answered(self) -> None:
        self.assertTrue(self.honours())

    def test_tags_are_compared_strongly(self) -> None:
        self.assertTrue(self.honours(b'"abc"'))
        for value in (b'W/"abc"', b'"x"', b"abc", b"*", b'"abc", "x"'):
            self.assertFalse(self.honours(value), value)

    def test_a_date_has_to_be_the_very_one(self) -> None:
        self.assertTrue(self.honours(DATE))
        for value in (EARLIER, LATER, b"whenever", DATE + b"\x0b", b'"abc"\x0c'):
            self.assertFalse(self.honours(value), value)

    def test_a_date_does_not_tell_contents_of_the_last_minute_apart(self) -> None:
        self.assertFalse(self.honours(DATE, now=MODIFIED + 59))
        self.assertTrue(self.honours(DATE, now=MODIFIED + 60))

    def test_two_values_are_none(self) -> None:
        self.assertFalse(self.honours(b'"abc"', b'"abc"'))
