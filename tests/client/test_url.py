"""
URLs as users write them, and as they go onto the wire.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.client._url import (
    InvalidURL,
    parse_proxy,
    resolve_reply,
    same_server,
    target_of,
    to_wire,
    with_host,
    without_query,
)


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


class HostTests(SynchronousTestCase):
    """Another host in the same URL."""

    def test_only_the_host_is_another(self) -> None:
        for host, url in (
            ("h2", "http://h2:8080/a%2fb?q"),
            ("h2:81", "http://h2:81/a%2fb?q"),
            ("::1", "http://[::1]:8080/a%2fb?q"),
            ("[::1]", "http://[::1]:8080/a%2fb?q"),
            ("[::1]:81", "http://[::1]:81/a%2fb?q"),
        ):
            self.assertEqual(with_host("http://h:8080/a%2fb?q", host), url)
        self.assertEqual(with_host("http://h/a", "h2"), "http://h2/a")

    def test_servers_are_told_apart_by_scheme_and_place(self) -> None:
        for same in ("http://h/b?c", "http://H/a", "http://h:80/"):
            self.assertTrue(same_server("http://h/a", same))
        for other in ("https://h/a", "http://h:81/a", "http://i/a", "http://a.h/"):
            self.assertFalse(same_server("http://h/a", other))


class ReplyTests(SynchronousTestCase):
    """Reply URLs, as servers give them."""

    def test_they_are_resolved_against_the_destination(self) -> None:
        for given, url in (
            ("http://i/r?x=%20y", "http://i/r?x=%20y"),
            ("/BITS-Sessions/{1}/r", "http://h/BITS-Sessions/%7B1%7D/r"),
            ("\\BITS-Sessions\\{1}\\r", "http://h/BITS-Sessions/%7B1%7D/r"),
            ("replies\\r 1.bin", "http://h/a/replies/r%201.bin"),
            ("//i/r", "http://i/r"),
            (" http://i/r#part ", "http://i/r"),
        ):
            self.assertEqual(resolve_reply("http://h/a/b?q", given), url)

    def test_what_cannot_be_downloaded_from_is_refused(self) -> None:
        for given in ("ftp://h/r", "file:///etc/passwd", "http://[/"):
            self.assertRaises(InvalidURL, resolve_reply, "http://h/a", given)


class PartTests(SynchronousTestCase):
    """Parts of URLs."""

    def test_the_first_line_of_a_request_has_path_and_query(self) -> None:
        for url, target in (
            ("http://h", b"/"),
            ("http://h?q", b"/?q"),
            ("http://h/a%2fb?q", b"/a%2fb?q"),
        ):
            self.assertEqual(target_of(url), target)

    def test_a_query_is_left_away(self) -> None:
        self.assertEqual(without_query("http://h/a?sig=x"), "http://h/a")
        self.assertEqual(without_query("http://h/a"), "http://h/a")

    def test_proxies_are_read(self) -> None:
        for text, place in (
            ("http://p:3128", ("p", 3128)),
            ("http://p/", ("p", 8080)),
            ("p:3128", ("p", 3128)),
            ("http://[::1]:3128", ("::1", 3128)),
        ):
            self.assertEqual(parse_proxy(text), place)

    def test_what_is_no_proxy_is_refused(self) -> None:
        for text in ("https://p", "http://p:0", "http://p:99999", "", "http://p/x"):
            self.assertRaises(InvalidURL, parse_proxy, text)

    def test_a_password_in_a_proxy_s_url_is_refused_and_not_repeated(self) -> None:
        error = self.assertRaises(InvalidURL, parse_proxy, "http://me:secret@p")
        self.assertNotIn("secret", str(error))
