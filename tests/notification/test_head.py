"""
The heads of responses, however they are cut.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.notification._connection import ResponseHead

LINE_ENDS = st.sampled_from([b"\r\n", b"\n"])
FIELDS = st.lists(st.from_regex(rb"\A[A-Za-z-]{1,9}: [ -~]{0,9}\Z"), max_size=3)


@st.composite
def heads(draw: st.DrawFn, statuses: st.SearchStrategy[int]) -> bytes:
    """A head with one of these statuses."""
    line = b"HTTP/1.1 %d%b" % (
        draw(statuses),
        draw(st.sampled_from([b"", b" ", b" OK"])),
    )
    end = draw(LINE_ENDS)
    return end.join([line, *draw(FIELDS), b"", b""])


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> list[bytes]:
    """The pieces of *data*, cut anywhere."""
    places = sorted(draw(st.sets(st.integers(0, len(data)), max_size=8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


class HeadTests(SynchronousTestCase):
    """``ResponseHead``."""

    @given(
        st.data(),
        st.lists(heads(st.integers(100, 199)), max_size=3),
        st.integers(200, 999),
        st.binary(max_size=20),
    )
    def test_the_status_is_that_of_the_final_one(
        self, data: st.DataObject, interim: list[bytes], status: int, body: bytes
    ) -> None:
        final = data.draw(heads(st.just(status)))
        before = b"".join([*interim, final[:-1]])
        head = ResponseHead()
        for piece in data.draw(cut(before)):
            self.assertFalse(head.is_over)
            head.feed(piece)
        self.assertFalse(head.is_over)
        self.assertEqual(head.status, status)
        self.assertEqual(head.version, b"1.1")
        head.feed(final[-1:] + body)
        self.assertTrue(head.is_over)
        self.assertTrue(head.is_http)
        self.assertEqual(head.status, status)

    @given(st.data(), st.binary(max_size=200))
    def test_it_does_not_matter_how_bytes_are_cut(
        self, data: st.DataObject, whole: bytes
    ) -> None:
        one, other = ResponseHead(), ResponseHead()
        one.feed(whole)
        for piece in data.draw(cut(whole)):
            other.feed(piece)
        self.assertEqual(
            (one.status, one.version, one.is_http, one.is_over, one.length),
            (other.status, other.version, other.is_http, other.is_over, other.length),
        )

    def test_what_is_no_status_line_is_no_http(self) -> None:
        for line in (b"220 ESMTP", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000", b"", b"GET /"):
            head = ResponseHead()
            head.feed(line + b"\r\n")
            self.assertFalse(head.is_http, line)
            self.assertIsNone(head.status)
