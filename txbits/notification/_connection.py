"""
One connection to a server application, for one request.

It is not kept for another one. An idle connection may be closed by the other end at any
moment, and a request that was just sent then cannot be told from one that the
application took and died of; an upload is worth a handshake.

``twisted.web.client`` looks at a response when the request is out, and loses its
bearings if something is wrong with one that comes before. But an application that
refuses an upload before it has read all of it mostly answers, and closes; the
connection then breaks under the bytes that are still on their way, and the answer is
lost. So the head of the response is read here when it comes, and held back until the
request is out.
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
class Head:
    """
    The head of a response, of which no more than the status is read.

    :ivar status: That of the final response, once it has come.
    :ivar version: Its version of HTTP, once it has come.
    :ivar is_http: Whether it is a head of HTTP so far.
    :ivar is_over: Whether all of the head has.
    :ivar length: How many bytes it has so far, interim responses included.
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
    A connection, from before it is made until it is gone.

    :ivar on_head: Called when more of the response's head has come.
    :ivar holds: Whether the response is held back: until the request is out.
    :ivar head: The head so far.
    :ivar was_made: Whether it ever was.
    :ivar gone: Happens when it is lost.
    """

    on_head: Callable[[Head], None]
    holds: bool
    head: Head = field(factory=Head, init=False)
    was_made: bool = field(default=False, init=False)
    gone: Event = field(factory=Event, init=False)
    _held: bytes = field(default=b"", init=False)
    _transport: Any = field(default=None, init=False)
    _inner: Any = field(default=None, init=False)

    def made(self, transport: Any, inner: IProtocol) -> None:
        """Called when it is made."""
        self.was_made = True
        self._transport = transport
        self._inner = inner

    def lost(self) -> None:
        """Called when it is gone."""
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
        """Hold nothing back any more."""
        self.holds = False
        held, self._held = self._held, b""
        if held and self._transport is not None:
            self._transport.resumeProducing()
            self._inner.dataReceived(held)

    def abort(self) -> None:
        """Drop it, whatever still is to be sent or received on it."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abortConnection()


class _Tap(Protocol):
    """Stands between a transport and a protocol that knows nothing of it."""

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
        # The inner one, which is used once, would do nothing but write itself to the
        # log: what it says of the endpoint, and by that of all that we know.
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
    Makes endpoints for an agent whose connection is watched.

    :ivar connection: The connection, the only one that is made.
    :ivar endpoints: What makes the endpoints themselves.
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
    Leads to where URLs say, by name or address; by TLS for https.

    :ivar reactor: Connects.
    :ivar policy: Says whom to trust.
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
