"""
Requests by way of treq: their URLs and bodies stay as they are.
"""

from __future__ import annotations

import gzip
from http.cookiejar import CookieJar
from typing import Any

from OpenSSL.SSL import Error as TLSError
from OpenSSL.SSL import SysCallError, ZeroReturnError
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    UNKNOWN_LENGTH,
    IAgent,
    IAgentEndpointFactory,
    IResponse,
)
from zope.interface import implementer

from txbits._agents import Watch, agent_with, coding_of, in_words, open_request

URL = b"http://[::1]/a%2fb?x=%7E"


@implementer(IResponse)
class Response:
    """A response."""

    version = (b"HTTP", 1, 1)
    code = 200
    phrase = b"OK"
    previousResponse = None

    def __init__(self, codings, body):
        self.headers = Headers({b"Content-Encoding": codings} if codings else {})
        self.length = len(body)
        self.body = body

    def deliverBody(self, protocol):
        protocol.makeConnection(None)
        protocol.dataReceived(self.body)

    def setPreviousResponse(self, response):
        self.previousResponse = response


@implementer(IAgent)
class Noting:
    """Notes what it is asked, and answers."""

    def __init__(self, response):
        self.response = response
        self.asked: list[Any] = []

    def request(self, method, uri, headers=None, bodyProducer=None):  # noqa: N803
        self.asked.append((method, uri, headers))
        return succeed(self.response)


class Taking:
    """Takes a body."""

    def __init__(self):
        self.taken = b""

    def makeConnection(self, transport):
        """Called at the beginning."""

    def dataReceived(self, data):
        self.taken += data


class VerbatimTests(SynchronousTestCase):
    """Requests and responses, between treq and the network."""

    def ask(self, codings, body, headers=None, url="http://[::1]/a%2fb?x=%7E"):
        self.below = Noting(Response(codings, body))
        asking = open_request(
            self.below, "GET", url, headers=headers or Headers(), reactor=Clock()
        )
        return self.successResultOf(asking)

    def taken(self, response):
        taking = Taking()
        response.deliverBody(taking)
        return taking.taken

    def test_the_url_is_the_one_that_was_given(self):
        self.ask(None, b"")
        ((_, url, _),) = self.below.asked
        self.assertEqual(url, URL)

    def test_no_coding_is_asked_for(self):
        for headers in (None, Headers({b"Accept-Encoding": [b"gzip", b"br"]})):
            self.ask(None, b"", headers)
            ((_, _, sent),) = self.below.asked
            self.assertEqual(sent.getRawHeaders(b"Accept-Encoding"), [b"identity"])

    def test_what_comes_packed_stays_packed(self):
        packed = gzip.compress(b"text")
        for codings in ([b"gzip"], [b"br", b"gzip"], [b"br, gzip"]):
            response = self.ask(codings, packed)
            self.assertEqual(self.taken(response), packed)
            self.assertEqual(response.length, len(packed))
            self.assertNotEqual(response.length, UNKNOWN_LENGTH)
            self.assertEqual(
                response.headers.getRawHeaders(b"Content-Encoding"), codings
            )

    def test_a_url_with_an_ipv6_address_or_a_signature_is_sent_as_it_is(self):
        for url in (
            "http://[::1]:8080/a%7Eb//c?x=1+2&y=%2f&",
            "https://h/%e4?X-Amz-Signature=%2B",
        ):
            self.ask(None, b"", url=url)
            ((_, sent, _),) = self.below.asked
            self.assertEqual(sent, url.encode("ascii"))

    def test_cookies_are_kept_where_they_are_wanted(self):
        jar = CookieJar()
        self.below = Noting(Response(None, b""))
        self.below.response.headers.setRawHeaders(b"Set-Cookie", [b"a=b"])
        for cookies in (jar, jar, None):
            self.successResultOf(
                open_request(
                    self.below,
                    "GET",
                    "http://example.com/",
                    headers=Headers(),
                    cookies=cookies,
                    reactor=Clock(),
                )
            )
        self.assertEqual(
            [headers.getRawHeaders(b"Cookie") for _, _, headers in self.below.asked],
            [None, [b"a=b"], None],
        )

    def test_codings_are_those_of_the_latest_response(self):
        self.ask([b"gzip"], b"x")
        response = self.ask(None, b"x")
        self.assertFalse(response.headers.hasHeader(b"Content-Encoding"))


class CodingTests(SynchronousTestCase):
    """What has been done to a body."""

    def test_it_is_told(self):
        for values, coding in (
            ([], None),
            ([b""], None),
            ([b"identity"], None),
            ([b"Identity", b" "], None),
            ([b"aws-chunked"], None),
            ([b"GZip"], "gzip"),
            ([b"gzip,aws-chunked"], "gzip"),
            ([b"br", b"gzip"], "br, gzip"),
            ([b"\xff"], "\xff"),
            ([b"identity\x0b"], "identity\x0b"),
        ):
            response: Any = Response(values, b"")
            self.assertEqual(coding_of(response), coding)


class WordsTests(SynchronousTestCase):
    """What is behind an error."""

    def test_openssl_is_put_into_words(self):
        for error, words in (
            (
                TLSError([("SSL routines", "", "wrong version number")]),
                "this port does not speak TLS (wrong version number)",
            ),
            (
                TLSError([("SSL routines", "", "tlsv1 alert protocol version")]),
                "TLS failed: tlsv1 alert protocol version",
            ),
            (TLSError([("a", "", "b"), ("c", "", "d")]), "TLS failed: b, d"),
            (TLSError([]), "TLS failed: no reason given"),
            (SysCallError(-1, "Unexpected EOF"), "TLS failed: Unexpected EOF"),
            (ZeroReturnError(), "TLS failed: no reason given"),
        ):
            self.assertEqual(in_words(error), words)


@implementer(IAgentEndpointFactory)
class Endpoints:
    """
    Makes endpoints, each of which connects to its own end of a connection.

    :ivar made: For which hosts.
    :ivar protocols: The connections.
    """

    def __init__(self):
        self.made = []
        self.protocols = []

    def endpointForURI(self, uri):
        self.made.append(uri.host)
        return Endpoint(self.protocols)


@implementer(IStreamClientEndpoint)
class Endpoint:
    """Connects in memory."""

    def __init__(self, protocols):
        self.protocols = protocols

    def connect(self, protocolFactory):  # noqa: N803
        protocol = protocolFactory.buildProtocol(None)
        protocol.makeConnection(StringTransport())
        self.protocols.append(protocol)
        return succeed(protocol)


class WatchTests(SynchronousTestCase):
    """A time-out of a request."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.watch = Watch(self.clock)
        self.request: Deferred[None] = Deferred()
        self.watch.guard(self.request)

    def test_it_cancels_the_request(self) -> None:
        self.watch.restart(10)
        self.clock.advance(10)
        self.failureResultOf(self.request, CancelledError)
        self.assertEqual(self.watch.expired, 10)

    def test_progress_starts_it_again(self) -> None:
        for _ in range(3):
            self.watch.restart(10)
            self.clock.advance(9)
        self.watch.end()
        self.clock.advance(10)
        self.assertNoResult(self.request)
        self.watch.restart(5)
        self.clock.advance(5)
        self.failureResultOf(self.request, CancelledError)

    def test_progress_after_the_end_does_not(self) -> None:
        self.watch.restart(10)
        self.watch.stop()
        self.watch.restart(10)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertNoResult(self.request)


class AgentTests(SynchronousTestCase):
    """An agent that keeps its connections."""

    def setUp(self):
        clock = Clock()
        self.endpoints = Endpoints()
        self.agent = agent_with(clock, self.endpoints, HTTPConnectionPool(clock))

    def ask(self, url, *headers):
        """Make a request that is answered with these headers."""
        asking = self.agent.request(b"GET", url)
        lines = [b"HTTP/1.1 200 OK", b"Content-Length: 0", *headers, b"", b""]
        self.endpoints.protocols[-1].dataReceived(b"\r\n".join(lines))
        self.assertEqual(self.successResultOf(asking).code, 200)

    def test_an_endpoint_is_made_for_each_connection_not_for_each_request(self):
        self.ask(b"http://one.example/a")
        self.ask(b"http://one.example/b")
        self.ask(b"http://one.example/c", b"Connection: close")
        self.assertEqual(self.endpoints.made, [b"one.example"])
        self.ask(b"http://one.example/d")
        self.ask(b"http://two.example/d")
        self.assertEqual(
            self.endpoints.made, [b"one.example", b"one.example", b"two.example"]
        )
