"""
Where clients see the server, and where it sees them: by themselves, and through proxies
that are trusted, or not.
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers

from tests.web.support import WebCase, packet, request
from txbits.errors import InvalidSetting
from txbits.sessions import Settings
from txbits.web import BITSResource
from txbits.web._forwarded import (
    MAX_HOPS,
    MAX_LENGTH,
    Hop,
    checked_host,
    checked_prefix,
    parse_address,
    read_hops,
)
from txbits.web._origin import Origins, TrustedProxies

PROXY = "10.0.0.1"
OTHER = "10.0.0.2"
CLIENT = "203.0.113.7"


class _Request:
    """What is looked at of a request."""

    def __init__(self) -> None:
        self.uri = b"/a/b.txt?c=d"
        self.peer: Any = IPv4Address("TCP", PROXY, 1)
        self.host: Any = IPv4Address("TCP", "192.0.2.9", 8080)
        self.secure = False
        self.prepath: list[bytes] = []
        self.requestHeaders = Headers()

    def getClientAddress(self) -> Any:
        return self.peer

    def getHost(self) -> Any:
        return self.host

    def isSecure(self) -> bool:
        return self.secure


def asked(peer: Any = None, **headers: bytes | list[bytes]) -> Any:
    """A request; it comes from a proxy unless told otherwise."""
    made: Any = _Request()
    for name, values in {"host": b"inside:8080", **headers}.items():
        made.requestHeaders.setRawHeaders(
            name.replace("_", "-").encode(),
            values if isinstance(values, list) else [values],
        )
    if peer is not None:
        made.peer = peer if not isinstance(peer, str) else IPv4Address("TCP", peer, 1)
    return made


TRUSTING = Origins.of(None, [PROXY, OTHER])


class OwnTests(SynchronousTestCase):
    """Without proxies: what the request says itself."""

    def setUp(self) -> None:
        self.origins = Origins()

    def test_the_host_header(self) -> None:
        self.assertEqual(self.origins.base(asked()), "http://inside:8080")
        made = asked(host=b"[2001:db8::1]:81")
        made.secure = True
        self.assertEqual(self.origins.base(made), "https://[2001:db8::1]:81")

    def test_an_absolute_url_stands_above_it(self) -> None:
        made = asked()
        made.uri = b"HTTPS://other.example/x?y"
        self.assertEqual(self.origins.base(made), "https://other.example")
        self.assertEqual(self.origins.destination(made), "https://other.example/x?y")
        made.uri = b"ftp://other.example?x"
        self.assertEqual(self.origins.base(made), "http://other.example")
        made.uri = b"http://user@other.example/x"
        self.assertEqual(self.origins.base(made), "http://inside:8080")

    def test_what_is_no_host_gives_way_to_our_address(self) -> None:
        for host in (
            b"",
            b"a b",
            b"a/b",
            b"x:99999",
            [b"a", b"b"],
            b"a@b",
            b"[1.2.3.4]",
        ):
            self.assertEqual(
                self.origins.base(asked(host=host)), "http://192.0.2.9:8080"
            )
        made = asked(host=b"")
        made.host = IPv6Address("TCP", "2001:db8::9", 80)
        self.assertEqual(self.origins.base(made), "http://[2001:db8::9]:80")
        made.host = UNIXAddress(b"/run/socket")
        self.assertEqual(self.origins.base(made), "http://localhost")

    def test_the_url_of_a_directory_and_of_a_destination(self) -> None:
        made = asked()
        made.prepath = [b"up", b"a b", b"\xff", b""]
        self.assertEqual(
            self.origins.directory(made), "http://inside:8080/up/a%20b/%FF"
        )
        self.assertEqual(
            self.origins.destination(made), "http://inside:8080/a/b.txt?c=d"
        )
        made.uri = b'/%41/\xff?"{ '
        self.assertEqual(
            self.origins.destination(made), 'http://inside:8080/%41/%FF?"{%20'
        )

    def test_headers_of_proxies_are_not_looked_at(self) -> None:
        made = asked(
            forwarded=b"for=1.2.3.4;host=evil;proto=https",
            x_forwarded_host=b"evil",
            x_forwarded_for=b"1.2.3.4",
        )
        self.assertEqual(self.origins.base(made), "http://inside:8080")
        self.assertEqual(self.origins.client(made), PROXY)


class PublicURLTests(SynchronousTestCase):
    """An operator who knows."""

    def test_it_stands_above_everything(self) -> None:
        origins = Origins.of("https://uploads.example.org/files/", [PROXY])
        made = asked(forwarded=b"host=other", x_forwarded_prefix=b"/x")
        made.prepath = [b"logs"]
        self.assertEqual(
            origins.directory(made), "https://uploads.example.org/files/logs"
        )

    def test_what_is_none_is_refused(self) -> None:
        for url in (
            "",
            "uploads.example.org",
            "//uploads.example.org",
            "ftp://uploads.example.org",
            "https://",
            "https://user@uploads.example.org",
            "https://uploads.example.org:0",
            "https://uploads.example.org/?a",
            "https://uploads.example.org/#a",
            "https://uploads.example.org/a b",
            "https://uploads.example.org/ü",
            "https://uploads.example.org/\n",
            "https://[::1",
        ):
            with self.assertRaises(InvalidSetting, msg=url):
                Origins(url)


class TrustTests(SynchronousTestCase):
    """Who is believed."""

    def test_addresses_networks_and_sockets(self) -> None:
        trusted = TrustedProxies(
            ["10.0.0.1", "192.168.0.0/16", "2001:db8::/32", "unix"]
        )
        for address, is_one in (
            ("10.0.0.1", True),
            ("::ffff:10.0.0.1", True),
            ("10.0.0.2", False),
            ("192.168.7.7", True),
            ("2001:db8::5", True),
            ("2001:db9::5", False),
        ):
            self.assertEqual(parse_address(address) in trusted, is_one, address)
        self.assertIn(None, trusted)
        self.assertNotIn(None, TrustedProxies(["10.0.0.1"]))

    def test_what_is_none_is_refused(self) -> None:
        for name in ("", "proxy", "10.0.0.0/33", "10.0.0.1/8", "10.0.0", "*"):
            with self.assertRaisesRegex(InvalidSetting, "unix"):
                Origins.of(None, [name])

    def test_a_client_that_is_no_proxy_is_not(self) -> None:
        made = asked(
            CLIENT, forwarded=b"for=1.2.3.4;host=evil", x_forwarded_host=b"evil"
        )
        self.assertEqual(TRUSTING.base(made), "http://inside:8080")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_a_proxy_on_a_socket(self) -> None:
        made = asked(UNIXAddress(b""), x_forwarded_for=CLIENT.encode())
        self.assertEqual(TRUSTING.client(made), "-")
        self.assertEqual(Origins.of(None, ["unix"]).client(made), CLIENT)

    def test_a_peer_without_an_address_is_not(self) -> None:
        made = asked(object(), x_forwarded_for=CLIENT.encode())
        self.assertEqual(Origins.of(None, ["unix"]).client(made), "-")


class ForwardedTests(SynchronousTestCase):
    """RFC 7239."""

    def test_one_proxy(self) -> None:
        made = asked(
            forwarded=b'for=203.0.113.7;proto=HTTPS;host="Uploads.example:444";by=x'
        )
        self.assertEqual(TRUSTING.base(made), "https://Uploads.example:444")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_only_what_proxies_have_said_counts(self) -> None:
        """The client has begun the header, the proxy has added to it."""
        made = asked(
            forwarded=[
                b"for=1.1.1.1;host=evil;proto=http, for=2.2.2.2;host=evil",
                b"for=203.0.113.7;host=good",
            ]
        )
        self.assertEqual(TRUSTING.base(made), "http://good")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_two_proxies(self) -> None:
        made = asked(
            forwarded=b"for=203.0.113.7;host=outer, for=10.0.0.2;host=inner;proto=https"
        )
        self.assertEqual(TRUSTING.base(made), "https://outer")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_a_client_that_is_not_told(self) -> None:
        for node in (b"unknown", b"_hidden", b'"[::1"', b"1.2.3"):
            made = asked(forwarded=b"for=1.1.1.1;host=evil, for=%b;host=good" % node)
            self.assertEqual(TRUSTING.base(made), "http://good")
            self.assertEqual(TRUSTING.client(made), PROXY)

    def test_addresses_in_all_their_forms(self) -> None:
        for node, expected in (
            (b"203.0.113.7:80", CLIENT),
            (b'"203.0.113.7:80"', CLIENT),
            (b'"[2001:db8::7]"', "2001:db8::7"),
            (b'"[2001:DB8::7]:99"', "2001:db8::7"),
            (b"[2001:db8::7]", "2001:db8::7"),
            (b'"[::ffff:203.0.113.7]"', CLIENT),
            (rb'"203.0.113\.7"', CLIENT),
        ):
            self.assertEqual(TRUSTING.client(asked(forwarded=b"For=" + node)), expected)

    def test_what_is_malformed_is_nothing(self) -> None:
        for value in (
            b"",
            b"for",
            b"for=",
            b"for=a b",
            b'for="a',
            b"for=1.2.3.4;for=5.6.7.8",
            b"for=1.2.3.4 host=x",
            b"for=1.2.3.4;host=x" + b" " * MAX_LENGTH,
        ):
            made = asked(forwarded=value, x_forwarded_host=b"evil")
            self.assertEqual(TRUSTING.base(made), "http://inside:8080", value)
            self.assertEqual(TRUSTING.client(made), PROXY, value)

    def test_parts_that_are_not_usable_are_left_out(self) -> None:
        made = asked(forwarded=b'for=203.0.113.7;proto=gopher;host="a b", ;,')
        self.assertEqual(TRUSTING.base(made), "http://inside:8080")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_only_so_many_hops_are_looked_at(self) -> None:
        value = b", ".join([b"for=10.0.0.1"] * (MAX_HOPS + 20))
        self.assertEqual(len(read_hops({b"forwarded": [value]})), MAX_HOPS)


class XForwardedTests(SynchronousTestCase):
    """The headers that came before it."""

    def test_one_proxy(self) -> None:
        made = asked(
            x_forwarded_for=b"203.0.113.7",
            x_forwarded_proto=b"https",
            x_forwarded_host=b"uploads.example",
            x_forwarded_prefix=b"/files/",
        )
        self.assertEqual(TRUSTING.base(made), "https://uploads.example/files")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_each_counts_without_the_others(self) -> None:
        self.assertEqual(
            TRUSTING.base(asked(x_forwarded_proto=b"https")), "https://inside:8080"
        )
        self.assertEqual(
            TRUSTING.base(asked(x_forwarded_host=b"other")), "http://other"
        )
        self.assertEqual(
            TRUSTING.client(asked(x_forwarded_for=b"2001:db8::7")), "2001:db8::7"
        )

    def test_only_what_proxies_have_said_counts(self) -> None:
        made = asked(
            x_forwarded_for=[b"1.1.1.1, 203.0.113.7", b"10.0.0.2"],
            x_forwarded_host=b"evil, good",
            x_forwarded_proto=b"http, https",
        )
        self.assertEqual(TRUSTING.base(made), "https://good")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_what_is_not_usable_is_nothing(self) -> None:
        made = asked(
            x_forwarded_for=b"nobody",
            x_forwarded_proto=b"gopher",
            x_forwarded_host=b"a/b",
            x_forwarded_prefix=b"//other.example",
        )
        self.assertEqual(TRUSTING.base(made), "http://inside:8080")
        self.assertEqual(TRUSTING.client(made), PROXY)

    def test_only_space_and_tab_are_white_space(self) -> None:
        for blank in (b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0"):
            made = asked(
                x_forwarded_for=b"203.0.113.7" + blank,
                x_forwarded_proto=b"https" + blank,
                x_forwarded_host=blank + b"uploads.example",
            )
            self.assertEqual(TRUSTING.base(made), "http://inside:8080")
            self.assertEqual(TRUSTING.client(made), PROXY)
        made = asked(x_forwarded_for=b"1.1.1.1,\t203.0.113.7 \t")
        self.assertEqual(TRUSTING.client(made), CLIENT)

    def test_forwarded_stands_above_them(self) -> None:
        made = asked(forwarded=b"for=203.0.113.7;host=good", x_forwarded_host=b"evil")
        self.assertEqual(TRUSTING.base(made), "http://good")


class PartTests(SynchronousTestCase):
    """Hosts and prefixes, one at a time."""

    def test_hosts(self) -> None:
        for host in ("a", "a.b-c_d.example:1", "1.2.3.4:65535", "[::1]", "[::1]:80"):
            self.assertEqual(checked_host(host), host)
        for host in ("", ":80", "a:", "a:0", "a:65536", "[]", "[a]", "::1", "ü", "a\n"):
            self.assertIsNone(checked_host(host), host)
        self.assertIsNone(checked_host("a" * 256))

    def test_prefixes(self) -> None:
        for prefix in ("/a", "/a/b.c", "/..a", "/a:b"):
            self.assertEqual(checked_prefix(prefix), prefix)
        for prefix in ("", "/", "a", "//a", "/a//b", "/..", "/a/./b", "/a?", "/a b"):
            self.assertEqual(checked_prefix(prefix), "", prefix)
        self.assertEqual(checked_prefix("/a" * 600), "")

    def test_addresses(self) -> None:
        for text in ("", "a", "1.2.3", "[1.2.3.4", "[::1]x", "::1%eth0", "1.2.3.4:x"):
            self.assertIsNone(parse_address(text), text)

    @given(
        st.lists(
            st.one_of(
                st.binary(max_size=60),
                st.text('for=host;proto",\\[]:.1 \t', max_size=60).map(str.encode),
            ),
            max_size=3,
        )
    )
    @example([b" " * 4000])
    @example([b"a" * 4000])
    @example([b'a="' + b"\\\\" * 2000])
    @example([b"a=b;" * 1000])
    def test_whatever_comes_makes_a_url_and_an_address(
        self, values: list[bytes]
    ) -> None:
        for name in (
            "forwarded",
            "x_forwarded_for",
            "x_forwarded_host",
            "x_forwarded_proto",
            "x_forwarded_prefix",
        ):
            made = _Request()
            made.requestHeaders._rawHeaders = {
                b"Host": [b"inside"],
                name.replace("_", "-").title().encode(): values,
            }
            checked: Any = made
            base = TRUSTING.base(checked)
            self.assertRegex(base, r"\Ahttps?://[-\w.\[\]:]+(/[!-~]*)?\Z")
            client = TRUSTING.client(checked)
            self.assertEqual(str(parse_address(client)), client)

    def test_a_hop_says_nothing_by_itself(self) -> None:
        self.assertEqual(read_hops({}), [Hop()])


class LogTests(WebCase):
    """Whom the log names."""

    def test_the_client_behind_a_trusted_proxy(self) -> None:
        resource = BITSResource(
            self.backend,
            Settings(),
            reactor=self.clock,
            trusted_proxies=["192.0.2.1"],
        )
        self.successResultOf(resource.manager.start())
        for user in (resource, resource.for_user("alice")):
            self.site = self.bits_site(user)
            found: list[Any] = []
            globalLogPublisher.addObserver(found.append)
            for target, kind in (
                (b"/a", b"Create-Session"),
                (b"/..", b"Create-Session"),
                (b"/a", b"Nothing"),
            ):
                self.ask(packet(kind, target=target, x_forwarded_for=CLIENT.encode()))
            self.ask(request(b"GET", x_forwarded_for=CLIENT.encode()))
            globalLogPublisher.removeObserver(found.append)
            clients = [one["client"] for one in found if "client" in one]
            self.assertEqual(clients, [CLIENT] * 4)
