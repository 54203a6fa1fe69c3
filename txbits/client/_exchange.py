"""
One packet out, one Ack in, over HTTP.

What can go wrong between the two is sorted here into what may pass
(:class:`NoAnswer`) and what will not (:class:`NoTrust`, and what the codec and the
source raise). An exchange knows nothing of what came before it or what follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectingCancelledError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent
from zope.interface import Interface, implementer

from txbits._agents import FAILURES, ExactURL, Watch, in_words, reasons_of
from txbits._deferreds import deferred
from txbits.client._bodies import NoBody, RangeBody
from txbits.client.source import ISource, SourceError
from txbits.protocol.codec import METHOD, encode_request, parse_ack
from txbits.protocol.packets import Ack, Fragment, Packet

#: How long, in seconds, a connection may take nothing of a request, and how long the
#: Ack may take after that. They are Windows' own.
REQUEST_TIMEOUT = 120.0
RESPONSE_TIMEOUT = 300.0

#: How long connections that are not used any more may take to close, in seconds.
_CLOSE_TIMEOUT = 2.0


class ExchangeError(Exception):
    """There is no Ack to a packet; the text is one line that says why."""


class NoAnswer(ExchangeError):
    """The connection failed, or an answer did not come in time. That may pass."""


class NoTrust(ExchangeError):
    """The server's certificate is not one that is trusted. That will not pass."""


class IExchange(Interface):
    """Carries packets to a server, one at a time."""

    def send(
        packet: Packet,  # noqa: N805
        source: ISource,
        content_name: str | None,
        moved: Callable[[int], None],
    ) -> Deferred[Ack]:
        """
        Send a packet.

        :param source: Where a Fragment's bytes come from.
        :param content_name: The file's name, which goes with a Fragment.
        :param moved: Called with the number of bytes of a Fragment that have been
            handed to the network so far.
        :returns: A Deferred that fires with the Ack, which may be a refusal. It fails
            with :class:`NoAnswer`, with :class:`NoTrust`, with
            :class:`~txbits.protocol.codec.RemoteProtocolError` if what answers is no
            BITS server, or with :class:`~txbits.client.source.SourceError`. When it
            is cancelled, the connection is dropped.
        """

    def close() -> Deferred[None]:
        """
        Let go of the connections.

        :returns: A Deferred that fires with ``None`` when they are closed.
        """


class Connections(HTTPConnectionPool):
    """A pool that can drop the connection of the latest request."""

    maxPersistentPerHost = 1
    # A packet that got no answer may have been received. What to send after that is
    # for the upload to say.
    retryAutomatically = False
    _latest: Any = None

    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Any:
        """See :class:`twisted.web.client.HTTPConnectionPool`."""

        def remember(connection: Any) -> Any:
            self._latest = connection
            return connection

        return super().getConnection(key, endpoint).addCallback(remember)

    def drop(self) -> None:
        """Drop that connection, whatever still is to be sent or received on it."""
        latest, self._latest = self._latest, None
        if latest is not None and latest.transport is not None:
            latest.transport.abortConnection()


@implementer(IExchange)
class HTTPExchange:
    """
    An exchange over treq, on one connection that is kept between packets.

    :param clock: For the time-outs.
    :param url: The destination, in ASCII.
    :param connections: The pool of *agent*.
    :param agent: What makes the requests.
    :param request_timeout: For how many seconds the connection may take nothing of a
        request before it is given up.
    :param response_timeout: How many seconds the Ack may take when the request is out.
    """

    def __init__(
        self,
        clock: Any,
        url: str,
        connections: Connections,
        agent: IAgent,
        *,
        request_timeout: float = REQUEST_TIMEOUT,
        response_timeout: float = RESPONSE_TIMEOUT,
    ) -> None:
        self._clock = clock
        # treq sees the name only, which it wants for cookies.
        self._url = url if "[" not in url else "http://address.invalid/"
        self._connections = connections
        self._http = HTTPClient(ExactURL(agent, url.encode("ascii")))
        self._request_timeout = request_timeout
        self._response_timeout = response_timeout

    @deferred
    async def send(
        self,
        packet: Packet,
        source: ISource,
        content_name: str | None,
        moved: Callable[[int], None],
    ) -> Ack:
        """See :meth:`IExchange.send`."""
        watch = Watch(self._clock)

        def taken(count: int) -> None:
            is_out = body.finished
            watch.restart(self._response_timeout if is_out else self._request_timeout)
            moved(count)

        body: NoBody | RangeBody
        if isinstance(packet, Fragment):
            content_range = packet.content_range
            body = RangeBody(source, content_range.first, content_range.length, taken)
        else:
            body = NoBody()
        watch.restart(
            self._response_timeout if body.finished else self._request_timeout
        )
        request = self._http.request(
            METHOD.decode("ascii"),
            self._url,
            headers=_headers(packet, content_name),
            data=body,
            allow_redirects=False,
            unbuffered=True,
            reactor=self._clock,
        )
        watch.guard(request)
        try:
            response = await request
        except FAILURES as error:
            raise _sorted(error, watch.expired) from error
        finally:
            watch.end()
        # An Ack has no body; what has one comes from something else, and is not worth
        # reading. And an Ack that comes before the fragment is out says that the rest
        # is not wanted.
        if response.length != 0 or not body.finished:
            self._connections.drop()
        if response.length != 0:
            # What came with the head is still being parsed, and may yet put the
            # connection into the pool, from where close() has to take it.
            await deferLater(self._clock, 0)
        headers = {
            name.lower(): values for name, values in response.headers.getAllRawHeaders()
        }
        return parse_ack(response.code, headers)

    @deferred
    async def close(self) -> None:
        """See :meth:`IExchange.close`."""
        closed: Deferred[None] = Deferred()

        def fire(_: object) -> None:
            if not closed.called:
                closed.callback(None)

        self._connections.closeCachedConnections().addBoth(fire)
        # A TLS connection waits for the other end, which may be gone.
        patience = self._clock.callLater(_CLOSE_TIMEOUT, fire, None)
        await closed
        if patience.active():
            patience.cancel()
        self._connections.drop()


def exchange_over_network(
    reactor: Any, url: str, *, request_timeout: float, response_timeout: float
) -> HTTPExchange:
    """Make an exchange with the server that *url* names."""
    connections = Connections(reactor)
    return HTTPExchange(
        reactor,
        url,
        connections,
        Agent(reactor, pool=connections),
        request_timeout=request_timeout,
        response_timeout=response_timeout,
    )


def _headers(packet: Packet, content_name: str | None) -> Headers:
    headers = Headers({b"User-Agent": [b"txbits"], b"Accept": [b"*/*"]})
    name = content_name if isinstance(packet, Fragment) else None
    for header, value in encode_request(packet, name):
        headers.addRawHeader(header, value)
    return headers


def _sorted(error: BaseException, expired: float | None) -> BaseException:
    reasons = list(reasons_of(error))
    for reason in reasons:
        if isinstance(reason, SourceError):
            return reason
    if expired is not None:
        return NoAnswer(f"nothing was heard of the server for {expired:g} seconds")
    for reason in reasons:
        if isinstance(reason, (CancelledError, ConnectingCancelledError)):
            return CancelledError()
        if isinstance(reason, VerificationError) or (
            isinstance(reason, TLSError) and "certificate" in str(reason)
        ):
            return NoTrust("the server's certificate is not trusted")
    return NoAnswer(in_words(error))
