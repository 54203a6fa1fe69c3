"""
One connection to a server application, for one request.

It is not reused. The application may close an idle connection at any moment, and it
would be unknown whether it has received a request that was sent at that time.

``twisted.web.client`` expects the response after the whole request, and fails in odd
ways if a response that comes earlier is invalid. An application that refuses an upload
early mostly answers and closes the connection; then sending the rest fails, and the
answer is lost. So the head of the response is read here when it arrives, and held back
until the request is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from txbits._deferreds import Event

#: The longest head of a response, those of interim responses included.
LONGEST_HEAD = 1 << 16

_STATUS = re.compile(rb"HTTP/([0-9]\.[0-9]) ([1-9][0-9][0-9])(?![0-9])")
_END = re.compile(rb"\n\r?\n")


@define
class ResponseHead:
    """
    The head of a response, of which only the status line is read.

    :ivar status: The status of the final response, when it has arrived.
    :ivar version: Its version of HTTP, when it has arrived.
    :ivar is_http: Whether it is valid HTTP so far.
    :ivar is_over: Whether all of the head has arrived.
    :ivar length: Its length so far in bytes, interim responses included.
    """

    status: int | None = field(default=None, init=False)
    version: bytes | None = field(default=None, init=False)
    is_http: bool = field(default=True, init=False)
    is_over: bool = field(default=False, init=False)
    length: int = field(default=0, init=False)
    _rest: bytes = field(default=b"", init=False)
    _in_fields: bool = field(default=False, init=False)

    def feed(self, data: bytes) -> None:
        """Go on with the next bytes."""
        self.length += len(data)
        self._rest += data
        while not self.is_over:
            if not self._in_fields:
                line, end_of_line, _ = self._rest.partition(b"\n")
                if not end_of_line:
                    return
                match = _STATUS.match(line)
                self.is_http = match is not None
                self.version = match[1] if match else None
                self.status = int(match[2]) if match else None
                self._in_fields = True
                self._rest = self._rest[len(line) :]
            end = _END.search(self._rest)
            if end is None:
                # An end that has begun goes on with the next bytes.
                self._rest = self._rest[-2:]
                return
            self._rest = self._rest[end.end() :]
            self._in_fields = False
            self.is_over = not self._is_interim

    @property
    def _is_interim(self) -> bool:
        return self.status is not None and self.status < 200


@define(eq=False, repr=False)
class Connection:
    """
    A connection, which may not be made yet.

    :ivar on_head: Called when more of the response's head has arrived.
    :ivar holds: Whether the response is held back, until the request is sent.
    :ivar head: The head so far.
    :ivar was_made: Whether the connection was made.
    :ivar gone: Happens when it is lost.
    """

    on_head: Callable[[ResponseHead], None]
    holds: bool
    head: ResponseHead = field(factory=ResponseHead, init=False)
    was_made: bool = field(default=False, init=False)
    gone: Event = field(factory=Event, init=False)
    _held: bytes = field(default=b"", init=False)
    _transport: Any = field(default=None, init=False)
    _inner: Any = field(default=None, init=False)

    def made(self, transport: Any, inner: IProtocol) -> None:
        """Called when the connection is made."""
        self.was_made = True
        self._transport = transport
        self._inner = inner

    def lost(self) -> None:
        """Called when the connection is lost."""
        self._transport = None
        self.gone.set()

    def received(self, data: bytes) -> None:
        """Called with bytes of the response."""
        if not self.head.is_over:
            self.head.feed(data)
            self.on_head(self.head)
        if self._transport is None:
            return
        if self.holds:
            self._held += data
            if self.head.is_over:
                self._transport.pauseProducing()
        else:
            self._inner.dataReceived(data)

    def let_go(self) -> None:
        """Stop to hold the response back."""
        self.holds = False
        held, self._held = self._held, b""
        if held and self._transport is not None:
            self._transport.resumeProducing()
            self._inner.dataReceived(held)

    def abort(self) -> None:
        """Drop the connection at once."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abortConnection()


class _Tap(Protocol):
    """Sits between a transport and a protocol."""

    def __init__(self, connection: Connection, inner: IProtocol) -> None:
        self._connection = connection
        self.inner = inner

    def makeConnection(self, transport: Any) -> None:
        self._connection.made(transport, self.inner)
        self.inner.makeConnection(transport)

    def dataReceived(self, data: bytes) -> None:
        self._connection.received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connection.lost()
        self.inner.connectionLost(reason)


@implementer(IProtocolFactory)
@define(eq=False, repr=False)
class _TapFactory:
    _connection: Connection
    _inner: IProtocolFactory

    def doStart(self) -> None:
        # The inner one would only log its representation, which contains the endpoint.
        pass

    def doStop(self) -> None:
        pass

    def buildProtocol(self, addr: IAddress) -> _Tap | None:
        inner = self._inner.buildProtocol(addr)
        return None if inner is None else _Tap(self._connection, inner)


@implementer(IStreamClientEndpoint)
@define(eq=False, repr=False)
class _TappedEndpoint:
    _connection: Connection
    _endpoint: IStreamClientEndpoint

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        def uncovered(tap: Any) -> IProtocol:
            inner: IProtocol = tap.inner
            return inner

        connecting = self._endpoint.connect(_TapFactory(self._connection, factory))
        return connecting.addCallback(uncovered)


@implementer(IAgentEndpointFactory)
@define(eq=False)
class TappedEndpoints:
    """
    Makes endpoints for an agent that makes one connection, which is watched.

    :ivar connection: The connection.
    :ivar endpoints: Makes the endpoints.
    """

    connection: Connection
    endpoints: IAgentEndpointFactory

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :class:`twisted.web.iweb.IAgentEndpointFactory`."""
        endpoint = self.endpoints.endpointForURI(uri)
        return _TappedEndpoint(self.connection, endpoint)


@implementer(IAgentEndpointFactory)
@define(eq=False)
class Endpoints:
    """
    Connects to the host of a URL, with TLS for https.

    :ivar reactor: Makes connections.
    :ivar policy: Which certificates to trust.
    """

    reactor: Any
    policy: IPolicyForHTTPS

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """See :class:`twisted.web.iweb.IAgentEndpointFactory`."""
        endpoint: IStreamClientEndpoint
        endpoint = HostnameEndpoint(self.reactor, uri.host, uri.port)
        if uri.scheme == b"https":
            trust = self.policy.creatorForNetloc(uri.host, uri.port)
            endpoint = wrapClientTLS(trust, endpoint)
        return endpoint
