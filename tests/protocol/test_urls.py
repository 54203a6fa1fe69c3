"""
URLs of server applications, and those that they hand to clients.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.protocol.urls import LONGEST_URL, fault_of_reply_url, is_absolute


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
