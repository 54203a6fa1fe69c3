"""
Byte ranges: which are taken, which are passed over, and how several are framed.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.ranges import (
    MAX_RANGES,
    ByteRange,
    Multipart,
    chosen_ranges,
    unsatisfied_range,
)


def chosen(value: bytes, total: int = 10) -> list[tuple[int, int]] | None:
    """What is answered with, as pairs of offsets."""
    found = chosen_ranges([value], total)
    return None if found is None else [(one.first, one.last) for one in found]


@st.composite
def some_ranges(draw: st.DrawFn, at_least: int = 0) -> tuple[list[ByteRange], int]:
    """Draw ranges that fit a file, together no longer than it, and its length."""
    total = draw(st.integers(1, 10_000))
    left, found = total, []
    while left and len(found) < 20 and (len(found) < at_least or draw(st.booleans())):
        length = draw(st.integers(1, left))
        first = draw(st.integers(0, total - length))
        found.append(ByteRange(first, first + length - 1))
        left -= length
    return found, total


class ChoosingTests(SynchronousTestCase):
    """RFC 9110 14.1.2 and 14.2."""

    def test_one_range(self) -> None:
        self.assertEqual(chosen(b"bytes=0-4"), [(0, 4)])
        self.assertEqual(chosen(b"bytes=9-9"), [(9, 9)])
        self.assertEqual(chosen(b"BYTES=0-4"), [(0, 4)])

    def test_one_that_goes_on_to_the_end(self) -> None:
        self.assertEqual(chosen(b"bytes=3-"), [(3, 9)])
        self.assertEqual(chosen(b"bytes=3-1000000000000000000000000000000"), [(3, 9)])

    def test_a_suffix(self) -> None:
        self.assertEqual(chosen(b"bytes=-3"), [(7, 9)])
        self.assertEqual(chosen(b"bytes=-30"), [(0, 9)])

    def test_several_stay_in_order_and_are_not_merged(self) -> None:
        self.assertEqual(
            chosen(b"bytes=7-8, 0-1 ,2-3\t,-1"), [(7, 8), (0, 1), (2, 3), (9, 9)]
        )
        self.assertEqual(chosen(b"bytes=2-3,2-3"), [(2, 3), (2, 3)])

    def test_empty_elements_of_the_list_are_nothing(self) -> None:
        self.assertEqual(chosen(b"bytes=, ,0-1,,3-4,"), [(0, 1), (3, 4)])

    def test_those_outside_are_left_out(self) -> None:
        self.assertEqual(chosen(b"bytes=10-,2-3,99-100"), [(2, 3)])

    def test_none_inside_is_not_satisfiable(self) -> None:
        for value in (b"bytes=10-", b"bytes=10-20,30-", b"bytes=-0"):
            self.assertEqual(chosen(value), [])
        self.assertEqual(chosen(b"bytes=0-", 0), [])
        self.assertEqual(unsatisfied_range(10), b"bytes */10")

    def test_the_last_bytes_of_an_empty_file_are_the_file(self) -> None:
        self.assertIsNone(chosen(b"bytes=-5", 0))
        self.assertEqual(chosen(b"bytes=-0", 0), [])

    def test_what_is_no_range_is_passed_over(self) -> None:
        for value in (
            b"",
            b"bytes",
            b"bytes=",
            b"bytes=,",
            b"bytes=-",
            b"bytes=a-b",
            b"bytes=4-2",
            b"bytes=0-1,4-2",
            b"bytes=0-1;2-3",
            b"bytes=0 -1",
            b"bytes=+1-2",
            b"bytes=1-2-3",
            b"bytes 0-1",
            b"lines=0-1",
            b"bytes=\xd9\xa1-2",
        ):
            self.assertIsNone(chosen(value), value)

    def test_two_headers_are_passed_over(self) -> None:
        self.assertIsNone(chosen_ranges([b"bytes=0-1", b"bytes=2-3"], 10))

    def test_too_many_are_passed_over(self) -> None:
        for count, is_taken in ((MAX_RANGES, True), (MAX_RANGES + 1, False)):
            value = b"bytes=" + b",".join([b"1-2"] * count)
            self.assertEqual(chosen(value, 10_000) is not None, is_taken)
        self.assertIsNone(chosen(b"bytes=0-1" + b" " * 5000))

    def test_no_more_is_sent_than_the_file_has(self) -> None:
        self.assertEqual(chosen(b"bytes=0-4,0-4"), [(0, 4), (0, 4)])
        self.assertIsNone(chosen(b"bytes=0-4,0-5"))
        self.assertIsNone(chosen(b"bytes=0-,0-,0-"))

    @given(some_ranges())
    def test_ranges_that_fit_are_chosen_as_they_are(
        self, drawn: tuple[list[ByteRange], int]
    ) -> None:
        ranges, total = drawn
        value = b",".join(b"%d-%d" % (one.first, one.last) for one in ranges)
        found = chosen_ranges([b"bytes=" + value], total)
        self.assertEqual(found, tuple(ranges) if ranges else None)

    @given(
        st.lists(
            st.one_of(
                st.text("bytes=0123456789-, \t", max_size=40).map(str.encode),
                st.text("0123456789-, ", max_size=40).map(
                    lambda text: b"bytes=" + text.encode()
                ),
                st.binary(max_size=40),
            ),
            max_size=2,
        ),
        st.integers(0, 100),
    )
    def test_whatever_comes_is_within_the_file(
        self, values: list[bytes], total: int
    ) -> None:
        found = chosen_ranges(values, total)
        if found is not None:
            self.assertLessEqual(len(found), MAX_RANGES)
            self.assertLessEqual(sum(one.length for one in found), total)
            for one in found:
                self.assertTrue(0 <= one.first <= one.last < one.end <= total)


class MultipartTests(SynchronousTestCase):
    """Several ranges in one answer, counted before the first byte is sent."""

    def written(self, multipart: Multipart, content: bytes) -> bytes:
        parts = [head + content[one.first : one.end] for head, one in multipart.parts()]
        return b"".join([*parts, multipart.end])

    def test_two_ranges(self) -> None:
        multipart = Multipart(
            (ByteRange(7, 8), ByteRange(0, 1)), 10, b"text/plain", b"BOUND"
        )
        self.assertEqual(multipart.outer_type, b"multipart/byteranges; boundary=BOUND")
        self.assertEqual(
            self.written(multipart, b"0123456789"),
            b"--BOUND\r\nContent-Type: text/plain\r\n"
            b"Content-Range: bytes 7-8/10\r\n\r\n78"
            b"\r\n--BOUND\r\nContent-Type: text/plain\r\n"
            b"Content-Range: bytes 0-1/10\r\n\r\n01"
            b"\r\n--BOUND--\r\n",
        )

    @given(some_ranges(at_least=1))
    def test_the_length_is_that_of_what_is_written(
        self, drawn: tuple[list[ByteRange], int]
    ) -> None:
        ranges, total = drawn
        multipart = Multipart(tuple(ranges), total, b"a/b", b"x" * 40)
        written = self.written(multipart, bytes(total))
        self.assertEqual(multipart.length, len(written))

    @given(some_ranges(at_least=1))
    def test_parts_are_found_again_in_order(
        self, drawn: tuple[list[ByteRange], int]
    ) -> None:
        ranges, total = drawn
        content = bytes(index % 251 for index in range(total))
        multipart = Multipart(tuple(ranges), total, b"a/b", b"x" * 40)
        written = b"\r\n" + self.written(multipart, content)
        first, *parts = written.split(b"\r\n--" + b"x" * 40)
        self.assertEqual((first, parts.pop()), (b"", b"--\r\n"))
        bodies = [part.partition(b"\r\n\r\n")[2] for part in parts]
        self.assertEqual(bodies, [content[one.first : one.end] for one in ranges])
        for part, one in zip(parts, ranges, strict=True):
            head = part.partition(b"\r\n\r\n")[0]
            self.assertIn(b"Content-Range: " + one.content_range(total), head)
            # At most 180 bytes besides these two.
            self.assertLess(len(head), 200)
