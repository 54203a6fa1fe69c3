"""
Reading the head of a packet in one go: what is plain is read as twisted.web would, and
what is not is left to it.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, from_regex, lists, tuples
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.protocol import vectors
from txbits.web._streaming.head import read_head

_LINE = b"BITS_POST /a HTTP/1.1\r\n"
_NAMES = from_regex(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)
_VALUES = from_regex(rb"[\x20-\x7e\x80-\xff]{0,40}", fullmatch=True)


def read(data: bytes):
    """With limits that do not matter."""
    return read_head(data, 65536, 100)


class HeadTests(SynchronousTestCase):
    """What :func:`read_head` takes, and what it leaves."""

    def test_the_packets_of_windows_are_read(self):
        taken = 0
        for name in vectors.names("requests"):
            request = vectors.request(name)
            head = read(request.raw)
            if head is None:
                self.assertNotEqual(request.method, b"BITS_POST", name)
                continue
            taken += 1
            self.assertEqual(
                (head.target, head.headers), (request.target, request.headers), name
            )
            self.assertEqual(request.raw[: head.length][-4:], b"\r\n\r\n")
        self.assertGreater(taken, 10)

    def test_other_methods_and_what_is_incomplete_are_left(self):
        self.assertIsNone(read(b"GET / HTTP/1.1\r\n\r\n"))
        self.assertIsNone(read(b"POST / HTTP/1.1\r\n\r\n"))
        whole = _LINE + b"Host: x\r\n\r\n"
        for cut in range(len(whole)):
            self.assertIsNone(read(whole[:cut]))
        self.assertIsNotNone(read(whole))

    def test_what_is_not_plain_is_left(self):
        for headers in (
            b"no colon\r\n",
            b" Folded: x\r\n",
            b"A: b\r\n folded\r\n",
            b"A: b\r\n\tfolded\r\n",
            b"Na me: x\r\n",
            b": x\r\n",
            b"A: \x00\r\n",
            b"A: b\nB: c\r\n",
            b"A: b\rB: c\r\n",
            b"A : b\r\n",
        ):
            self.assertIsNone(read(_LINE + headers + b"\r\n"), headers)
        for line in (
            b"BITS_POST  /a HTTP/1.1\r\n",
            b"BITS_POST /a b HTTP/1.1\r\n",
            b"BITS_POST /a HTTP/2.0\r\n",
            b"BITS_POST /\xe4 HTTP/1.1\r\n",
            b"bits_post /a HTTP/1.1\r\n",
            b"\r\nBITS_POST /a HTTP/1.1\r\n",
        ):
            self.assertIsNone(read(line + b"\r\n"), line)

    def test_limits_are_kept(self):
        data = _LINE + b"A: b\r\n" * 10 + b"\r\n"
        self.assertIsNone(read_head(data, 65536, 9))
        self.assertIsNone(read_head(data, len(data) - 1, 10))
        self.assertIsNotNone(read_head(data, len(data), 10))

    def test_length_of_the_body_is_told_if_it_is_plain(self):
        for headers, length in (
            (b"", 0),
            (b"Content-Length: 5\r\n", 5),
            (b"content-length: 05 \r\n", 5),
            (b"Content-Length: 0\r\n", 0),
            (b"Content-Length: %d\r\n" % (2**63 - 1), 2**63 - 1),
            (b"Content-Length: 1%b\r\n" % (b"0" * 19), None),
            (b"Content-Length: \r\n", None),
            (b"Content-Length: -5\r\n", None),
            (b"Content-Length: \xb2\r\n", None),
            (b"Content-Length: 5\r\nContent-Length: 5\r\n", None),
            (b"Transfer-Encoding: chunked\r\n", None),
            (b"Transfer-Encoding: identity\r\nContent-Length: 5\r\n", None),
        ):
            head = read(_LINE + headers + b"\r\n")
            if length is None:
                # Left to HTTPChannel.
                self.assertIsNone(head, headers)
            else:
                self.assertEqual(head.body_length, length, headers)
                self.assertFalse(head.expects)

    def test_whether_the_connection_is_kept_is_told(self):
        kept = b"Connection: Keep-Alive\r\n\r\n"
        self.assertTrue(read(_LINE + b"\r\n").is_kept)
        self.assertTrue(read(_LINE + kept).is_kept)
        self.assertFalse(read(_LINE + b"Connection: close\r\n\r\n").is_kept)
        self.assertFalse(read(_LINE.replace(b"1.1", b"1.0") + kept).is_kept)

    def test_an_expectation_is_told(self):
        self.assertTrue(read(_LINE + b"expect: x\r\n\r\n").expects)

    @given(lists(tuples(_NAMES, _VALUES), max_size=10), binary(max_size=20))
    def test_headers_are_those_that_were_sent(self, sent, behind):
        lines = b"".join(b"%b: %b\r\n" % field for field in sent)
        data = _LINE + lines + b"\r\n"
        head = read(data + behind)
        self.assertEqual(head.length, len(data))
        expected = Headers()
        for name, value in sent:
            expected.addRawHeader(name, value.strip(b" \t"))
        found = Headers()
        for name, values in head.headers.items():
            for value in values:
                found.addRawHeader(name, value)
        self.assertEqual(found, expected)

    @given(binary(max_size=200))
    def test_arbitrary_bytes_do_no_harm(self, data):
        read(data)
        head = read(_LINE + data + b"\r\n\r\n")
        if head is not None:
            self.assertEqual(head.target, b"/a")
