"""
The proxies that the environment names.

Which hosts are direct was compared with curl 7.88, which ignores two of the entries
that its documentation promises: addresses of IPv6 in brackets, and networks of IPv6.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txbits.client._proxies import is_direct, proxy_from
from txbits.client._url import InvalidURL

HTTP, HTTPS = "http://files.example/x", "https://files.example/x"


class ChoiceTests(SynchronousTestCase):
    """Which variable counts."""

    def chosen(self, url: str, **environ: str) -> str | None:
        found = proxy_from(environ, url)
        return None if found is None else found.url.removeprefix("http://")

    def test_none_is_named(self) -> None:
        self.assertIsNone(self.chosen(HTTP))

    def test_each_scheme_has_one(self) -> None:
        both = {"http_proxy": "a:1", "https_proxy": "b:2", "all_proxy": "c:3"}
        self.assertEqual(self.chosen(HTTP, **both), "a:1")
        self.assertEqual(self.chosen(HTTPS, **both), "b:2")

    def test_one_may_be_for_all(self) -> None:
        for name in ("all_proxy", "ALL_PROXY"):
            self.assertEqual(self.chosen(HTTP, **{name: "c:3"}), "c:3")
            self.assertEqual(self.chosen(HTTPS, **{name: "c:3"}), "c:3")

    def test_capital_letters_work_but_for_what_cgi_sets(self) -> None:
        self.assertEqual(self.chosen(HTTPS, HTTPS_PROXY="b:2"), "b:2")
        self.assertEqual(
            self.chosen(HTTPS, HTTPS_PROXY="b:2", https_proxy="a:1"), "a:1"
        )
        self.assertIsNone(self.chosen(HTTP, HTTP_PROXY="a:1"))

    def test_an_empty_one_is_none(self) -> None:
        self.assertIsNone(self.chosen(HTTP, http_proxy=""))
        self.assertEqual(self.chosen(HTTP, http_proxy="", all_proxy="c:3"), "c:3")

    def test_scheme_and_port_may_be_missing(self) -> None:
        for text, place in (
            ("http://p:8/", "p:8"),
            ("p", "p:1080"),
            ("HTTP://p", "p:1080"),
            ("[::1]", "[::1]:1080"),
            ("[::1]:8", "[::1]:8"),
        ):
            self.assertEqual(self.chosen(HTTP, http_proxy=text), place)

    def test_a_password_is_taken_out(self) -> None:
        found = proxy_from({"http_proxy": "http://al%3ai:p@ss@p:8"}, HTTPS)
        self.assertIsNone(found)
        found = proxy_from({"all_proxy": "alice:p%20:x@p:8"}, HTTPS)
        assert found is not None
        assert found.credentials is not None
        self.assertEqual(found.credentials.password, "p :x")
        self.assertNotIn("p%20", repr(found))

    def test_nonsense_is_refused_without_its_password(self) -> None:
        for text in ("p:99999", "a b", "http://u:secret@:1", "socks4://u:secret@p"):
            error = self.assertRaises(InvalidURL, self.chosen, HTTP, http_proxy=text)
            self.assertIn("http_proxy: ", str(error))
            self.assertNotIn("secret", str(error))

    def test_hosts_may_be_direct(self) -> None:
        for name in ("no_proxy", "NO_PROXY"):
            direct = {"http_proxy": "a:1", name: "files.example"}
            self.assertIsNone(self.chosen(HTTP, **direct))
        first = {"http_proxy": "a:1", "no_proxy": "x", "NO_PROXY": "files.example"}
        self.assertEqual(self.chosen(HTTP, **first), "a:1")


class DirectTests(SynchronousTestCase):
    """``no_proxy``."""

    def test_names_stand_for_their_domains(self) -> None:
        for no_proxy, host, expected in (
            ("*", "a.example", True),
            ("a.example", "a.example", True),
            ("A.Example", "a.exAMPLE", True),
            ("a.example", "a.example.", True),
            ("a.example.", "a.example", True),
            (".example", "a.example", True),
            (".example", "example", True),
            ("example", "a.example", True),
            ("ample", "a.example", False),
            ("b, a.example", "a.example", True),
            ("b a.example", "a.example", True),
            ("", "a.example", False),
            (",", "a.example", False),
            ("*,b", "a.example", False),
            ("a.example:80", "a.example", False),
        ):
            self.assertIs(is_direct(no_proxy, host), expected, (no_proxy, host))

    def test_addresses_and_networks(self) -> None:
        for no_proxy, host, expected in (
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.1", "127.0.0.11", False),
            ("10.0.0.0/8", "10.1.2.3", True),
            ("10.1.2.3/8", "10.9.9.9", True),
            ("10.0.0.0/8", "11.1.2.3", False),
            ("::1", "::1", True),
            ("[::1]", "::1", True),
            ("fd00::/8", "fd12::1", True),
            ("fd00::/8", "10.0.0.1", False),
            ("0.0.1", "127.0.0.1", False),
            ("10.0.0.0/99", "10.0.0.1", False),
        ):
            self.assertIs(is_direct(no_proxy, host), expected, (no_proxy, host))
