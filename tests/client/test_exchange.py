"""
One packet and its Ack, over a real Agent whose connections end in the test.

The test sees the bytes of each request, and answers with bytes; the clock is its own.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, ResponseNeverReceived
from zope.interface.verify import verifyObject

from tests.client.fakes import (
    Connector,
    HTTPTransport,
    MemorySource,
    ResolvingReactor,
    ScriptedExchange,
)
from txbits.client._auth import Authorizer
from txbits.client._bodies import CHUNK, Throttle
from txbits.client._exchange import (
    Found,
    HTTPExchange,
    IExchange,
    exchange_over_network,
)
from txbits.client._requests import Connections, NoAnswer, NoTrust, Requests
from txbits.client.settings import ConnectionSettings, Credentials
from txbits.client.source import SourceChanged
from txbits.protocol.codec import ContentRange, NotAnAck
from txbits.protocol.packets import (
    Ack,
    CloseSession,
    CreateSession,
    Fragment,
    Packet,
)

SESSION = "{7DF0354D-249B-430F-820D-3D2A9BEF4931}"
OK = (b"HTTP/1.1 200 OK", b"BITS-Packet-Type: Ack", b"Content-Length: 0")


def fragment(first: int, last: int, total: int) -> Fragment:
    """A fragment of that range."""
    return Fragment(SESSION, ContentRange(first, last, total), last - first + 1)


class ExchangeTestCase(SynchronousTestCase):
    """An exchange with time-outs of 10 and 20 seconds."""

    url = "http://h/a%2fb?sig=x"

    def setUp(self) -> None:
        self.clock = Clock()
        self.connector = Connector()
        self.connections = Connections(self.clock)
        self.exchange = self.exchange_with(ConnectionSettings())
        self.source = MemorySource(bytes(range(256)) * 8192)
        self.moves: list[int] = []

    def exchange_with(self, settings: ConnectionSettings) -> HTTPExchange:
        settings = evolve(settings, request_timeout=10, response_timeout=20)
        agent = Agent.usingEndpointFactory(self.clock, self.connector, self.connections)
        requests, strangers = (
            Requests(self.clock, self.connections, agent, each, Authorizer(None))
            for each in (settings, settings.for_strangers)
        )
        throttle = Throttle(self.clock, settings.limit_rate)
        return HTTPExchange(self.url, requests, strangers, throttle)

    def send(self, packet: Packet, host: str | None = None) -> Deferred[Ack]:
        return self.exchange.send(
            packet, self.source, "größe.bin", self.moves.append, host
        )

    def transport(self) -> Any:
        return self.connector.connections[-1][1]

    def lose(self, error: Exception) -> None:
        self.connector.connections[-1][0].connectionLost(Failure(error))


class RequestTests(ExchangeTestCase):
    """What goes out."""

    def test_exchanges_provide_the_interface(self) -> None:
        verifyObject(IExchange, self.exchange)
        verifyObject(IExchange, ScriptedExchange())

    def test_a_packet_without_a_body_has_a_length_of_zero(self) -> None:
        self.send(CreateSession(content_name="a.txt"))
        head, _, body = self.connector.request().partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"BITS_POST /a%2fb?sig=x HTTP/1.1")
        for line in (
            b"Content-Length: 0",
            b"BITS-Packet-Type: Create-Session",
            b"BITS-Supported-Protocols: {7df0354d-249b-430f-820d-3d2a9bef4931}",
            b"Content-Name: a.txt",
            b"Host: h",
            b"Accept-Encoding: identity",
        ):
            self.assertIn(line.lower(), [each.lower() for each in lines])
        self.assertEqual(body, b"")

    def test_a_fragment_carries_its_bytes_and_their_length(self) -> None:
        self.send(fragment(3, 9, 100))
        head, _, body = self.connector.request().partition(b"\r\n\r\n")
        lines = [line.lower() for line in head.split(b"\r\n")]
        for line in (
            b"content-length: 7",
            b"content-range: bytes 3-9/100",
            "content-name: größe.bin".encode(),
            b"bits-session-id: {7df0354d-249b-430f-820d-3d2a9bef4931}",
        ):
            self.assertIn(line, lines)
        self.assertEqual(body, bytes(range(3, 10)))
        self.assertEqual(self.moves, [7])

    def test_one_connection_serves_one_packet_after_the_other(self) -> None:
        for _ in range(3):
            result = self.send(CloseSession(SESSION))
            self.connector.answer(*OK)
            self.successResultOf(result)
        self.assertEqual(len(self.connector.connections), 1)

    def test_a_connection_that_was_closed_meanwhile_is_replaced(self) -> None:
        result = self.send(CloseSession(SESSION))
        self.connector.answer(*OK)
        self.successResultOf(result)
        self.lose(ConnectionError("closed while idle"))
        self.send(CloseSession(SESSION))
        self.assertEqual(len(self.connector.connections), 2)


class AddressTests(ExchangeTestCase):
    """A URL with an IPv6 address, which treq cannot take."""

    url = "http://[::1]:8080/a%2fb"

    def test_addresses_in_brackets_are_reached(self) -> None:
        self.send(CloseSession(SESSION))
        self.assertIn(b"BITS_POST /a%2fb HTTP/1.1\r\n", self.connector.request())
        self.assertEqual(self.connector.uris, [b"http://[::1]:8080/a%2fb"])


class AnswerTests(ExchangeTestCase):
    """What comes back."""

    def test_an_ack_is_read(self) -> None:
        result = self.send(fragment(0, 9, 100))
        self.connector.answer(
            *OK, b"bits-received-content-range: 10", b"Retry-After: 3"
        )
        ack = self.successResultOf(result)
        self.assertEqual((ack.status, ack.received, ack.retry_after), (200, 10, 3))
        self.assertEqual(self.clock.getDelayedCalls()[0].getTime(), 240)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1, "the pool's, not ours")

    def test_a_refusal_is_an_answer(self) -> None:
        result = self.send(CloseSession(SESSION))
        self.connector.answer(
            b"HTTP/1.1 403 Forbidden",
            b"Content-Length: 0",
            b"BITS-Error-Code: 0x80070005",
        )
        ack = self.successResultOf(result)
        self.assertEqual((ack.status, ack.hresult), (403, 0x80070005))

    def test_what_is_no_bits_server_is_told_apart(self) -> None:
        result = self.send(CloseSession(SESSION))
        self.connector.answer(b"HTTP/1.1 200 OK", b"Content-Length: 0")
        self.failureResultOf(result, NotAnAck)

    def test_redirects_are_not_followed(self) -> None:
        result = self.send(CloseSession(SESSION))
        self.connector.answer(
            b"HTTP/1.1 307 Moved", b"Location: /b", b"Content-Length: 0"
        )
        error = self.failureResultOf(result, NotAnAck).value
        self.assertEqual((error.status, error.location), (307, "'/b'"))
        self.assertEqual(len(self.connector.uris), 1)

    def test_a_page_for_humans_is_not_read(self) -> None:
        result = self.send(CloseSession(SESSION))
        self.connector.answer(
            b"HTTP/1.1 502 Bad Gateway", b"Content-Length: 1000000", body=b"<html>"
        )
        self.assertTrue(self.transport().aborted)
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(result).status, 502)

    def test_a_short_page_for_humans_leaves_no_connection_behind(self) -> None:
        result = self.send(CloseSession(SESSION))
        self.connector.answer(
            b"HTTP/1.1 404 Not Found", b"Content-Length: 6", body=b"<html>"
        )
        self.lose(ConnectionError("aborted"))
        self.clock.advance(0)
        self.assertEqual(self.successResultOf(result).status, 404)
        self.successResultOf(self.exchange.close())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_rest_of_a_fragment_that_was_answered_is_not_sent(self) -> None:
        self.connector.slow = True
        result = self.send(fragment(0, 2 * CHUNK - 1, 2 * CHUNK))
        self.connector.answer(b"HTTP/1.1 413 Too Large", b"Content-Length: 0")
        self.assertEqual(self.successResultOf(result).status, 413)
        self.assertEqual(self.moves, [CHUNK])
        self.assertTrue(self.transport().aborted)

    def test_the_packet_after_that_gets_a_connection_of_its_own(self) -> None:
        self.connector.slow = True
        self.send(fragment(0, 2 * CHUNK - 1, 2 * CHUNK))
        self.connector.answer(b"HTTP/1.1 413 Too Large", b"Content-Length: 0")
        self.lose(ConnectionError("aborted"))
        result = self.send(CreateSession())
        self.connector.answer(*OK)
        self.successResultOf(result)
        self.assertEqual(len(self.connector.connections), 2)

    def test_a_date_to_come_back_at_is_told_by_the_server_s_own_clock(self) -> None:
        for date, seconds in (
            (b"Tue, 24 Nov 2026 12:00:30 GMT", 30),
            (b"Tue, 24 Nov 2026 11:00:00 GMT", 0),
            (b"tomorrow", None),
        ):
            result = self.send(CreateSession())
            self.connector.answer(
                b"HTTP/1.1 503 Busy",
                b"Content-Length: 0",
                b"Date: Tue, 24 Nov 2026 12:00:00 GMT",
                b"Retry-After: " + date,
            )
            self.assertEqual(self.successResultOf(result).retry_after, seconds)


class LookTests(ExchangeTestCase):
    """Looking for the file at its destination."""

    def look(self, *lines: bytes) -> Found | None:
        result = self.exchange.look(None)
        request = self.connector.request()
        self.assertTrue(request.startswith(b"HEAD /a%2fb?sig=x HTTP/1.1"), request)
        self.connector.answer(*lines)
        return self.successResultOf(result)

    def test_a_file_has_a_length_and_an_age(self) -> None:
        found = self.look(
            b"HTTP/1.1 200 OK",
            b"Content-Length: 1000",
            b"Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT",
            b"Date: Thu, 01 Jan 2026 00:01:00 GMT",
        )
        self.assertEqual(found, Found(1000, 60.0))

    def test_its_age_may_not_be_told(self) -> None:
        for more in ([], [b"Last-Modified: yesterday", b"Date: today"]):
            found = self.look(b"HTTP/1.1 200 OK", b"Content-Length: 1000", *more)
            self.assertEqual(found, Found(1000, None))

    def test_what_is_not_shown_is_nothing(self) -> None:
        length = b"Content-Length: 1000"
        for lines in (
            [b"HTTP/1.1 404 Not Found", length],
            [b"HTTP/1.1 302 Found", b"Location: /", length],
            [b"HTTP/1.1 200 OK", length, b"Content-Encoding: br"],
            [b"HTTP/1.1 200 OK"],
            [b"HTTP/1.1 200 OK", b"Content-Length: \xb2"],
        ):
            self.assertIsNone(self.look(*lines), lines)

    def test_another_host_is_asked_if_that_has_the_upload(self) -> None:
        self.exchange.look("node2:81")
        self.assertIn(b"Host: node2:81", self.connector.request())


class HostTests(ExchangeTestCase):
    """Packets that go to another host than the URL's."""

    def test_a_host_takes_the_place_of_that_of_the_url(self) -> None:
        result = self.send(CreateSession(), "node2.example")
        self.assertEqual(self.connector.uris, [b"http://node2.example/a%2fb?sig=x"])
        self.assertIn(b"Host: node2.example", self.connector.request())
        self.connector.answer(*OK)
        self.successResultOf(result)
        self.send(CreateSession())
        self.assertEqual(self.connector.uris[-1], b"http://h/a%2fb?sig=x")

    def test_what_is_meant_for_a_server_goes_to_no_other(self) -> None:
        settings = ConnectionSettings(
            headers=[("X-Token", "secret")], credentials=Credentials("me", "pass")
        )
        for host, is_told in (
            ("h", True),
            ("H", True),
            ("h:80", True),
            ("h:8080", False),
            ("h2", False),
            ("www.h", False),
        ):
            self.connections = Connections(self.clock)
            self.exchange = self.exchange_with(settings)
            result = self.send(CreateSession(), host)
            self.assertEqual(b"X-Token" in self.connector.request(), is_told, host)
            self.connector.answer(
                b"HTTP/1.1 401 Who", b"WWW-Authenticate: Basic", b"Content-Length: 0"
            )
            if is_told:
                self.assertIn(b"Authorization: Basic", self.connector.request())
                self.connector.answer(*OK)
            self.assertEqual(self.successResultOf(result).success, is_told, host)

    def test_all_connections_are_let_go_of(self) -> None:
        settings = ConnectionSettings(headers=[("X-Token", "secret")])
        for trusts in (False, True):
            reactor = ResolvingReactor()
            exchange = exchange_over_network(
                reactor,
                "http://127.0.0.1:81/x",
                evolve(settings, trust_host_id=trusts),
            )
            self.successResultOf(exchange.close())


class ProxyTests(ExchangeTestCase):
    """What asks for the password of a proxy."""

    def asked(self, url: str) -> bool:
        """Whether it is told to whoever answers at the other end."""
        self.connections = Connections(self.clock)
        agent = Agent.usingEndpointFactory(self.clock, self.connector, self.connections)
        authorizer = Authorizer(Credentials("me", "pass"))
        requests = Requests(
            self.clock, self.connections, agent, ConnectionSettings(), authorizer
        )
        self.exchange = HTTPExchange(url, requests, requests, Throttle(self.clock))
        self.send(CreateSession())
        self.connector.request()
        self.connector.answer(
            b"HTTP/1.1 407 Who", b"Proxy-Authenticate: Basic", b"Content-Length: 0"
        )
        return authorizer.answer(b"GET", b"/") is not None

    def test_a_proxy_does(self) -> None:
        self.assertTrue(self.asked("http://h/x"))

    def test_a_server_behind_a_tunnel_does_not(self) -> None:
        self.assertFalse(self.asked("https://h/x"))


class TrustTests(SynchronousTestCase):
    """A host that the server names, over what the network would be."""

    def asked(self, **settings: Any) -> bytes:
        """What the host is sent."""
        reactor = ResolvingReactor()
        if "token" not in settings:
            settings["headers"] = [("X-Token", "secret")]
        made = ConnectionSettings(**settings)
        exchange = exchange_over_network(reactor, "http://127.0.0.1:81/x", made)
        exchange.send(CreateSession(), MemorySource(b""), None, len, "127.0.0.2")
        reactor.advance(0)
        transport = HTTPTransport()
        reactor.tcpClients[0][2].buildProtocol(None).makeConnection(transport)
        sent: bytes = transport.value()
        self.assertIn(b"Host: 127.0.0.2:81", sent)
        return sent

    def test_it_is_told_nothing_unless_it_is_trusted(self) -> None:
        self.assertNotIn(b"X-Token", self.asked())
        self.assertIn(b"X-Token: secret", self.asked(trust_host_id=True))

    def test_so_it_is_with_a_token(self) -> None:
        self.assertNotIn(b"secret", self.asked(token="secret").lower())
        sent = self.asked(token="secret", trust_host_id=True)
        self.assertIn(b"Authorization: Bearer secret", sent)


class SettingsTests(ExchangeTestCase):
    """What goes with each request, because someone wants it to."""

    def lines(self) -> list[bytes]:
        return self.connector.request().partition(b"\r\n\r\n")[0].split(b"\r\n")

    def challenge(self, *challenges: bytes, status: bytes = b"401 Who") -> None:
        self.connector.answer(
            b"HTTP/1.1 " + status,
            b"Content-Length: 0",
            *(b"WWW-Authenticate: " + challenge for challenge in challenges),
        )

    def with_password(self) -> None:
        credentials = Credentials("me", "secret")
        self.exchange = self.exchange_with(ConnectionSettings(credentials=credentials))

    def test_headers_are_added_and_may_replace_ours(self) -> None:
        self.exchange = self.exchange_with(
            ConnectionSettings(
                headers=[("X-Token", "t"), ("user-agent", "mine"), ("X-Token", "ü")]
            )
        )
        self.send(CreateSession())
        lines = self.lines()
        for line in (b"X-Token: t", "X-Token: ü".encode(), b"User-Agent: mine"):
            self.assertIn(line, lines)
        self.assertNotIn(b"User-Agent: txbits", lines)

    def test_a_password_is_not_said_before_it_is_asked_for(self) -> None:
        self.with_password()
        self.send(CreateSession())
        self.assertNotIn(b"Authorization", b"".join(self.lines()))

    def test_a_packet_is_sent_again_with_the_password(self) -> None:
        self.with_password()
        result = self.send(CreateSession())
        self.lines()
        self.challenge(b'Basic realm="r"')
        self.assertIn(b"Authorization: Basic bWU6c2VjcmV0", self.lines())
        self.connector.answer(*OK)
        self.assertEqual(self.successResultOf(result).status, 200)

    def test_and_so_are_those_that_follow(self) -> None:
        self.test_a_packet_is_sent_again_with_the_password()
        self.send(fragment(0, 9, 100))
        self.assertIn(b"Authorization: Basic bWU6c2VjcmV0", self.lines())

    def test_a_password_that_is_wrong_is_not_said_twice(self) -> None:
        self.with_password()
        result = self.send(CreateSession())
        for _ in range(2):
            self.challenge(b'Basic realm="r"')
        self.assertEqual(self.successResultOf(result).status, 401)

    def test_a_fragment_is_sent_again_when_a_digest_is_too_old(self) -> None:
        self.with_password()
        result = self.send(fragment(0, 9, 100))
        self.challenge(b'Digest realm="r", nonce="1", qop="auth"')
        self.assertIn(b'nonce="1"', self.connector.request())
        self.challenge(b'Digest realm="r", nonce="2", qop="auth", stale=true')
        self.assertIn(b'nonce="2"', self.connector.request())
        self.connector.answer(*OK)
        self.assertEqual(self.successResultOf(result).status, 200)
        self.assertEqual(self.moves, [10, 10, 10])

    def test_without_a_password_the_question_is_the_answer(self) -> None:
        result = self.send(CreateSession())
        self.challenge(b'Basic realm="r"')
        self.assertEqual(self.successResultOf(result).status, 401)

    def test_what_is_said_to_a_human_is_not_read(self) -> None:
        self.with_password()
        result = self.send(CreateSession())
        self.connector.answer(
            b"HTTP/1.1 401 Who",
            b"Content-Length: 100000",
            b"WWW-Authenticate: Basic",
            body=b"<html>",
        )
        self.assertTrue(self.connector.connections[0][1].aborted)
        self.clock.advance(0)
        self.connector.answer(*OK)
        self.assertEqual(self.successResultOf(result).status, 200)

    def test_a_rate_is_not_exceeded(self) -> None:
        self.exchange = self.exchange_with(ConnectionSettings(limit_rate=1000))
        self.send(fragment(0, 1999, 10_000))
        moved = []
        for _ in range(8):
            moved.append(self.moves[-1])
            self.clock.advance(0.25)
        self.assertEqual(moved, [250, 500, 750, 1000, 1250, 1500, 1750, 2000])


class FailureTests(ExchangeTestCase):
    """What goes wrong, sorted."""

    def assert_no_answer(self, result: Deferred[Ack], words: str) -> None:
        error = self.failureResultOf(result, NoAnswer).value
        self.assertIn(words, str(error))
        self.assertEqual(len(str(error).splitlines()), 1)

    def test_refused_connections_may_pass(self) -> None:
        self.connector.refusal = ConnectionRefusedError("no one there")
        self.assert_no_answer(self.send(CreateSession()), "no one there")

    def test_a_connection_that_fails_names_host_and_port_and_says_why(self) -> None:
        self.connector.refusal = ConnectionRefusedError(111, "Connection refused")
        self.assert_no_answer(
            self.send(CreateSession()), "cannot connect to h:80: Connection refused"
        )
        self.assert_no_answer(
            self.send(CreateSession(), "[::1]:99"), "cannot connect to [::1]:99: "
        )

    def test_names_that_are_not_found_may_pass(self) -> None:
        self.connector.refusal = DNSLookupError("no such host")
        self.assert_no_answer(
            self.send(CreateSession()), "cannot connect to h:80: host name not found"
        )

    def test_a_connection_lost_while_waiting_may_pass(self) -> None:
        result = self.send(CreateSession())
        self.lose(ConnectionError("cable\ncut."))
        self.assert_no_answer(result, "cable cut")

    def test_a_connection_lost_within_a_fragment_may_pass(self) -> None:
        self.source.held = Deferred()
        result = self.send(fragment(0, 9, 100))
        self.lose(ConnectionError("cable cut"))
        self.assert_no_answer(result, "cable cut")

    def test_an_error_without_words_is_named(self) -> None:
        result = self.send(CreateSession())
        self.lose(ConnectionError())
        self.assert_no_answer(result, "ConnectionError")

    def test_garbage_may_pass(self) -> None:
        result = self.send(CreateSession())
        self.connector.answer(b"220 smtp.example.org ESMTP")
        self.assert_no_answer(result, "")

    def test_a_source_that_changed_is_not_blamed_on_the_network(self) -> None:
        self.source.changed = True
        result = self.send(fragment(0, 9, 100))
        self.failureResultOf(result, SourceChanged)
        self.assertTrue(self.transport().aborted)

    def fail_with(self, error: Exception) -> Deferred[Ack]:
        self.connector.refusal = ResponseNeverReceived([Failure(error)])
        return self.send(CreateSession())

    def test_a_certificate_that_is_not_trusted_will_not_pass(self) -> None:
        untrusted = TLSError([("SSL routines", "", "certificate verify failed")])
        self.failureResultOf(self.fail_with(untrusted), NoTrust)

    def test_a_certificate_of_another_host_will_not_pass(self) -> None:
        self.failureResultOf(self.fail_with(VerificationError(errors=[])), NoTrust)

    def test_other_failures_of_tls_may_pass(self) -> None:
        broken = TLSError([("SSL routines", "", "unexpected eof while reading")])
        self.assert_no_answer(self.fail_with(broken), "unexpected eof")

    def test_connecting_for_too_long_is_no_answer(self) -> None:
        self.connector.stuck = True
        result = self.send(CreateSession())
        self.clock.advance(19.9)
        self.assertNoResult(result)
        self.clock.advance(0.2)
        self.assert_no_answer(result, "h:80 sent nothing for 20 seconds")

    def test_an_ack_that_takes_too_long_is_no_answer(self) -> None:
        result = self.send(fragment(0, 9, 100))
        self.clock.advance(19.9)
        self.assertNoResult(result)
        self.clock.advance(0.2)
        self.assert_no_answer(result, "20 seconds")
        self.assertTrue(self.transport().aborted)

    def test_a_body_that_is_not_taken_is_no_answer(self) -> None:
        self.source.held = Deferred()
        result = self.send(fragment(0, 9, 100))
        self.clock.advance(9.9)
        self.assertNoResult(result)
        self.clock.advance(0.2)
        self.assert_no_answer(result, "10 seconds")
        self.assertTrue(self.transport().aborted)

    def test_a_head_that_comes_byte_by_byte_has_its_time_once(self) -> None:
        result = self.send(CloseSession(SESSION))
        for _ in range(19):
            self.connector.connections[-1][0].dataReceived(b"x")
            self.clock.advance(1)
        self.assertNoResult(result)
        self.clock.advance(1)
        self.assert_no_answer(result, "for 20 seconds")

    def test_a_body_that_is_taken_slowly_is_no_failure(self) -> None:
        self.connector.slow = True
        result = self.send(fragment(0, 4 * CHUNK - 1, 4 * CHUNK))
        for _ in range(3):
            self.clock.advance(9)
            self.transport().producer.resumeProducing()
        self.assertEqual(self.moves[-1], 4 * CHUNK)
        self.clock.advance(19)
        self.connector.answer(*OK)
        self.successResultOf(result)

    def test_cancelling_drops_the_connection(self) -> None:
        stuck: Deferred[None] = Deferred()
        for held in (None, stuck):
            self.source.held = held
            result = self.send(fragment(0, 9, 100))
            result.cancel()
            self.failureResultOf(result, CancelledError)
            self.assertTrue(self.transport().aborted)

    def test_cancelling_while_connecting_is_no_failure_of_the_network(self) -> None:
        self.connector.stuck = True
        result = self.send(CreateSession())
        result.cancel()
        self.failureResultOf(result, CancelledError)


class CloseTests(ExchangeTestCase):
    """Letting go of connections."""

    def test_close_waits_for_the_connection_to_end(self) -> None:
        result = self.send(CreateSession())
        self.connector.answer(*OK)
        self.successResultOf(result)
        closed = self.exchange.close()
        self.assertTrue(self.transport().disconnecting)
        self.assertNoResult(closed)
        self.lose(ConnectionError("closed"))
        self.successResultOf(closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_does_not_wait_for_a_peer_that_is_gone(self) -> None:
        result = self.send(CreateSession())
        self.connector.answer(*OK)
        self.successResultOf(result)
        closed = self.exchange.close()
        self.clock.advance(2)
        self.successResultOf(closed)
        self.assertTrue(self.transport().aborted)

    def test_close_without_a_connection_is_safe(self) -> None:
        self.successResultOf(self.exchange.close())

    def test_an_exchange_over_the_network_connects_to_its_host(self) -> None:
        reactor = ResolvingReactor()
        exchange = exchange_over_network(
            reactor, "http://127.0.0.1:81/x", ConnectionSettings()
        )
        exchange.send(CreateSession(), self.source, None, self.moves.append, None)
        # Twisted 24.10 connects in the next turn.
        reactor.advance(0)
        self.assertEqual(reactor.tcpClients[0][:2], ("127.0.0.1", 81))
