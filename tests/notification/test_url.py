"""
Where a server application is asked, whatever clients write.
"""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits.errors import InvalidSetting
from txbits.notification._url import (
    check_url,
    resolve,
    visible,
    visible_path,
)

PUBLIC = "https://uploads.example"

#: What a client may write as its destination: mostly like a URL, but not to rely on.
DESTINATIONS = st.one_of(
    st.builds(
        "{}{}{}".format,
        st.sampled_from(["", "http://evil.example", "https://[::1]:8", "x://a@b"]),
        st.text("/ab.:@?#&=%\\;[]é \n", max_size=30).map("/{}".format),
        st.sampled_from(["", "?a=b", "?", "?x=//evil.example/"]),
    ),
    st.text(max_size=50),
)


class QueryTests(SynchronousTestCase):
    """The destination's query goes to the application."""

    def asked(self, url: str, destination: str) -> str:
        return resolve(url, None, destination).url

    def test_it_is_appended(self) -> None:
        for url, query, expected in (
            ("http://a/x", "?q=1", "http://a/x?q=1"),
            ("http://a/x?y", "?q=1", "http://a/x?y&q=1"),
            ("http://a/x?", "?q=1", "http://a/x?q=1"),
            ("http://a/x?y&", "?q=1", "http://a/x?y&q=1"),
            ("http://a/x?y=2", "", "http://a/x?y=2"),
            ("http://a/x", "?", "http://a/x"),
            ("http://a", "?q", "http://a/?q"),
        ):
            self.assertEqual(self.asked(url, f"http://h/dest{query}"), expected)

    def test_it_is_found_in_a_path_too(self) -> None:
        self.assertEqual(self.asked("http://a/x", "/dest?q=1"), "http://a/x?q=1")

    def test_what_no_url_may_show_is_encoded(self) -> None:
        self.assertEqual(
            self.asked("http://a/x", "/dest?ü= #f"), "http://a/x?%C3%BC=%20%23f"
        )


class RelativeTests(SynchronousTestCase):
    """A relative URL is resolved against the destination, on the public URL."""

    def asked(self, url: str, destination: str, public_url: str = PUBLIC) -> str:
        check_url(url, public_url)
        return resolve(url, public_url, destination).url

    def test_it_is_relative_to_the_destination_s_path(self) -> None:
        for url, expected in (
            ("notify", "/logs/today/notify"),
            ("../notify.aspx", "/logs/notify.aspx"),
            ("/notify", "/notify"),
            ("/notify?x=1", "/notify?x=1"),
            ("?x=1", "/logs/today/a.log?x=1"),
        ):
            self.assertEqual(
                self.asked(url, "http://h/logs/today/a.log"), PUBLIC + expected
            )

    def test_the_destination_s_query_follows(self) -> None:
        self.assertEqual(
            self.asked("notify?x=1", "http://h/logs/a?y=2"),
            PUBLIC + "/logs/notify?x=1&y=2",
        )

    def test_the_host_is_never_the_client_s(self) -> None:
        for destination in (
            "http://evil.example/logs/a",
            "//evil.example/logs/a",
            "http://h//evil.example/logs/a",
        ):
            asked = self.asked("notify", destination)
            self.assertEqual(urlsplit(asked).netloc, "uploads.example")

    def test_the_public_url_may_have_a_port_and_a_path(self) -> None:
        self.assertEqual(
            self.asked("notify", "http://h/logs/a", "http://[::1]:81/bits/"),
            "http://[::1]:81/bits/logs/notify",
        )

    @given(st.sampled_from(["notify", "../../n", "/n", "?q", "./"]), DESTINATIONS)
    def test_no_destination_changes_whom_a_relative_url_means(
        self, url: str, destination: str
    ) -> None:
        target = resolve(url, PUBLIC, destination)
        self.assertEqual(
            (target.scheme, target.host, target.port), ("https", "uploads.example", 443)
        )

    @given(DESTINATIONS)
    def test_no_destination_changes_an_absolute_url_but_its_query(
        self, destination: str
    ) -> None:
        target = resolve("http://app.example:81/x?y=1", PUBLIC, destination)
        self.assertEqual(
            (target.scheme, target.host, target.port), ("http", "app.example", 81)
        )
        self.assertTrue(target.request_target.startswith("/x?y=1"))

    @given(st.sampled_from(["notify", "http://a/x", "?q"]), DESTINATIONS)
    def test_whatever_is_asked_is_a_request_line(
        self, url: str, destination: str
    ) -> None:
        asked = resolve(url, PUBLIC, destination).request_target
        self.assertRegex(asked, r"\A/[!-~]*\Z")
        self.assertNotIn("#", asked)


class SettingTests(SynchronousTestCase):
    """URLs that cannot be used are refused when they are set."""

    def test_these_are_taken(self) -> None:
        for url in (
            "http://app.example/notify",
            "HTTPS://app.example",
            "http://127.0.0.1:5000/x?y=%20",
            "http://[::1]/",
            "http://a/" + "x" * (2200 - len("http://a/")),
        ):
            check_url(url, None)
        check_url("notify", PUBLIC)

    def test_these_are_refused(self) -> None:
        for url, public_url, why in (
            ("", PUBLIC, "ASCII"),
            ("notify", None, "requires a public URL"),
            ("http://a/" + "x" * 2200, None, "2,200"),
            ("http://a/ü", None, "ASCII"),
            ("http://a/a b", None, "ASCII"),
            ("http://a/#x", None, "fragment"),
            ("http://me:secret@a/", None, "user"),
            ("http://", None, "cannot be used"),
            ("http://a:0/", None, "port"),
            ("http://a:99999/", None, "port"),
            ("http://[::g]/", None, "cannot be used"),
            ("http://[1:2]/", None, "[1:2]"),
            ("ftp://a/", PUBLIC, "cannot be used"),
            ("mailto:x", PUBLIC, "cannot be used"),
            ("//other.example/x", PUBLIC, "cannot be used"),
            ("notify", "uploads.example", "public URL"),
        ):
            with self.assertRaises(InvalidSetting) as raised:
                check_url(url, public_url)
            text = str(raised.exception)
            self.assertIn(why, text)
            self.assertEqual(len(text.splitlines()), 1)


class WrittenTests(SynchronousTestCase):
    """URLs and paths in headers."""

    def test_a_path_is_as_it_is(self) -> None:
        path = "/srv/up loads/{C85B4E0A}/data"
        self.assertEqual(visible_path(path), path)

    def test_other_paths_can_be_read_back(self) -> None:
        self.assertEqual(visible_path("/srv/50%/ü\n"), "/srv/50%25/%C3%BC%0A")
        self.assertEqual(visible_path("/srv/a  "), "/srv/a %20")

    @given(st.text(st.characters(exclude_categories=["Cs"])).map("/{}".format))
    def test_who_decodes_a_path_always_gets_it(self, path: str) -> None:
        written = visible_path(path)
        self.assertRegex(written, r"\A[ -~]*[!-~]\Z")
        self.assertEqual(unquote(written), path)

    def test_bytes_that_are_no_text_are_kept(self) -> None:
        self.assertEqual(visible_path("/srv/\udcff"), "/srv/%FF")

    def test_a_url_keeps_its_percent_signs(self) -> None:
        self.assertEqual(visible_path("s3://bucket/a%20b"), "s3://bucket/a%20b")
        self.assertEqual(visible("http://h/ü%20"), "http://h/%C3%BC%20")
