"""
URLs of server applications, those that they hand to clients, and upload links in URLs.
"""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.urls import (
    LONGEST_URL,
    fault_of_reply_url,
    is_absolute,
    links_of,
    without_link,
)


class UrlTests(SynchronousTestCase):
    """Which can be used."""

    def test_absolute_urls_are_told_from_others(self) -> None:
        for url in ("http://a/x", "https://a:8/x?y#z", "HTTP://a"):
            self.assertTrue(is_absolute(url), url)
        for url in ("/x", "x", "ftp://a/x", "http:///x", "//a/x", "http:x", ""):
            self.assertFalse(is_absolute(url), url)

    def test_a_reply_url_is_absolute_visible_and_not_too_long(self) -> None:
        longest = "https://a/".ljust(LONGEST_URL, "x")
        for url in ("http://a/x", "https://[::1]:8/x?y#z", longest):
            self.assertIsNone(fault_of_reply_url(url), url)
        for url in (
            "/x",
            "ftp://a/x",
            "javascript://a/x",
            "http://a/x y",
            "http://a/\r\nX: y",
            "http://a/\xe9",
            "http://a/#\x7f",
            longest + "x",
        ):
            self.assertIsNotNone(fault_of_reply_url(url), url)

    def test_the_fault_of_one_that_is_too_long_does_not_show_it(self) -> None:
        fault = fault_of_reply_url("https://a/" + 9000 * "x")
        self.assertEqual(fault, "has 9,010 characters; the maximum is 2,200")


_PARTS = st.lists(
    st.sampled_from(
        [
            "a=1",
            "b=%2",
            "",
            "x=txbits-link",
            "txbits-linked=1",
            "txbits-link",
            "txbits-link=SECRET.x",
            "TXBITS-LINK=SECRET",
            "%74xbits%2dlink=SECRET",
        ]
    ),
    max_size=6,
)


class LinkTests(SynchronousTestCase):
    """Finding links, and removing them."""

    def test_links_are_found(self) -> None:
        for query, found in (
            (b"", []),
            (b"a=1", []),
            (b"txbits-link=x", [b"x"]),
            (b"a&txbits-link=x.y&b=2", [b"x.y"]),
            (b"txbits-link", [b""]),
            (b"txbits-link=%78&%74xbits-link=y", [b"x", b"y"]),
            (b"txbits-links=x", []),
        ):
            self.assertEqual(links_of(query), found, query)

    def test_only_links_are_removed(self) -> None:
        for text, left in (
            ("https://a/b?txbits-link=SECRET", "https://a/b"),
            ("https://a/b?txbits-link=SECRET&c=1", "https://a/b?c=1"),
            ("https://a/b?c=1&txbits-link=SECRET", "https://a/b?c=1"),
            ("/b?c=1&txbits-link=SECRET&d=2#e", "/b?c=1&d=2#e"),
            ("?txbits-link=SECRET#e", "#e"),
            ("GET /b?txbits-link=SECRET HTTP/1.1", "GET /b HTTP/1.1"),
            ("/txbits-link=a?b", "/txbits-link=a?b"),
            ("/a?txbits-linked=1&x=txbits-link", "/a?txbits-linked=1&x=txbits-link"),
            ("/a", "/a"),
            ("/a?x=1?txbits-link=SECRET", "/a?x=1"),
            ("/a?" + "txbits-link=SECRET&" * 9 + "b", "/a?b"),
        ):
            self.assertEqual(without_link(text), left, text)

    @given(_PARTS, st.sampled_from(["&", ";", "?"]))
    @example(["txbits-link=SECRET.x"] * 2, "&")
    def test_no_link_is_left(self, parts: list[str], separator: str) -> None:
        text = "/a?" + separator.join(parts)
        left = without_link(text)
        self.assertNotIn("SECRET", left)
        self.assertEqual(without_link(left), left)
        self.assertEqual(links_of(left.partition("?")[2].encode()), [])
        for part in ("a=1", "txbits-linked=1", "x=txbits-link"):
            if separator == "?":
                break  # the value of a link may have one
            self.assertEqual(left.count(part), text.count(part))
