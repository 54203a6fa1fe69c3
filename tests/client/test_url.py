"""
URLs as users write them, and as they go onto the wire.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.client._url import InvalidURL, to_wire


class URLTests(SynchronousTestCase):
    """What is sent, and what is refused."""

    def test_what_is_encoded_stays_as_it_is(self) -> None:
        for url in (
            "http://h/a%2Fb%20c?sig=a%2Bb/c==&x",
            "https://h:8443/%e4/%zz//../a;p=1",
            "http://h",
            "http://[::1]:8080/a%2fb?q",
            "http://127.0.0.1:1/",
        ):
            self.assertEqual(to_wire(url), url)

    def test_what_cannot_be_sent_is_encoded(self) -> None:
        self.assertEqual(to_wire("http://h/a b?ü=ü"), "http://h/a%20b?%C3%BC=%C3%BC")
        self.assertEqual(to_wire("http://[::1]/ü"), "http://[::1]/%C3%BC")
        self.assertEqual(to_wire("http://bücher.de/"), "http://xn--bcher-kva.de/")

    def test_the_scheme_is_read_in_any_case(self) -> None:
        self.assertEqual(to_wire("HTTP://h/A"), "http://h/A")

    def test_a_default_port_is_left_away(self) -> None:
        self.assertEqual(to_wire("http://h:80/"), "http://h/")

    def assert_refused(self, url: str, words: str) -> None:
        error = self.assertRaises(InvalidURL, to_wire, url)
        self.assertIn(words, str(error))
        self.assertEqual(len(str(error).splitlines()), 1)

    def test_what_is_no_http_url_is_refused(self) -> None:
        for url in ("", "h/x", "ftp://h/x", "file:///x", "/srv/x", "http:/h/x"):
            self.assert_refused(url, "does not begin with http:// or https://")

    def test_a_url_without_a_host_is_refused(self) -> None:
        self.assert_refused("http:///x", "names no host")

    def test_bad_hosts_and_ports_are_refused(self) -> None:
        for url in ("http://a b/", "http://[::1/", "http://h:x/", "http://.../"):
            self.assert_refused(url, "is not a URL")
        for url in ("http://h:0/", "http://h:65536/"):
            self.assert_refused(url, "a port that does not exist")

    def test_what_is_no_text_is_refused(self) -> None:
        self.assert_refused("http://h/\udcff", "is not a URL")

    def test_control_characters_are_refused(self) -> None:
        for url in ("http://h/a\r\nX: y", "http://h/\x00", "http://h/\x7f"):
            self.assert_refused(url, "control characters")

    def test_a_fragment_identifier_is_refused_and_not_dropped(self) -> None:
        self.assert_refused("http://h/a#1.txt", "write %23")

    def test_a_user_name_is_refused_without_showing_its_password(self) -> None:
        error = self.assertRaises(InvalidURL, to_wire, "http://me:secret@h/")
        self.assertNotIn("secret", str(error))
