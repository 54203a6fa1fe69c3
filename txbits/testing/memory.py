"""
Sites without sockets: a client and a site joined in memory, and a peer of raw bytes.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
)
from twisted.internet.error import (
    ConnectionRefusedError as RefusedError,
)
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.web.client import URI, Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IResponse,
)
from twisted.web.server import Site
from zope.interface import implementer


class _Transport(StringTransport):
    """A transport that either side can drop, like a socket."""

    def __init__(self, peer: Peer, address: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", address, 54321))
        self.peer = peer

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed here."""

    def loseWriteConnection(self) -> None:
        self.peer.half_closed = True

    def loseConnection(self) -> None:
        super().loseConnection()
        self.peer.lost(ConnectionDone())

    def abortConnection(self) -> None:
        super().abortConnection()
        self.peer.aborted = True
        self.peer.lost(ConnectionLost())


@define(eq=False)
class Peer:
    """
    The other end of a connection to a site, in raw bytes.

    Pipelined requests are answered in later iterations of the site's reactor. If that
    is a ``Clock``, using this object runs what is due on it, so that tests need not
    advance it for that.

    :param site: The site to connect to.
    :param address: The address that the connection seems to come from.
    :ivar closed: Whether the connection is closed.
    :ivar aborted: Whether the site has aborted it.
    :ivar half_closed: Whether the site has ended its side of it.
    """

    site: Site
    address: str = "192.0.2.1"
    closed: bool = field(default=False, init=False)
    aborted: bool = field(default=False, init=False)
    half_closed: bool = field(default=False, init=False)
    refused: bool = field(default=False, init=False)
    _channel: Any = field(default=None, init=False)
    _transport: _Transport = field(init=False)

    def __attrs_post_init__(self) -> None:
        address = IPv4Address("TCP", self.address, 54321)
        self._channel = self.site.buildProtocol(address)
        self._transport = _Transport(self, self.address)
        if self._channel is None:
            self.refused = self.closed = True
        else:
            self._channel.makeConnection(self._transport)

    @property
    def paused(self) -> bool:
        """Whether the site has stopped reading."""
        return bool(self._transport.producerState == "paused")

    def send(self, data: bytes) -> None:
        """Send *data* to the site, in one piece."""
        if not self.closed:
            self._channel.dataReceived(data)
        self._take_turns()

    def _take_turns(self) -> None:
        clock: object = self.site.reactor
        if isinstance(clock, Clock):
            clock.advance(0)

    def received(self) -> bytes:
        """Take everything that the site has written since the last time."""
        self._take_turns()
        data: bytes = self._transport.value()
        self._transport.clear()
        return data

    def end_sending(self) -> None:
        """
        Stop sending, but continue to receive, like ``shutdown(SHUT_WR)`` of a socket.
        """
        if self.closed:
            return
        channel = IHalfCloseableProtocol(self._channel, None)
        if channel is None:
            self.lost(ConnectionDone())
        else:
            channel.readConnectionLost()
        self._take_turns()

    def lose(self) -> None:
        """Lose the connection, as when a network cable is unplugged."""
        self.lost(ConnectionLost())

    def lost(self, reason: Exception) -> None:
        """The connection is gone."""
        if not self.closed:
            self.closed = True
            self._channel.connectionLost(Failure(reason))


@implementer(IStreamClientEndpoint)
@define(eq=False)
class _MemoryEndpoint:
    """An endpoint of a site, whose connections are pumped by hand."""

    _site: Site
    _pumps: list[IOPump]

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        address = IPv4Address("TCP", "192.0.2.1", 54321)
        server = self._site.buildProtocol(address)
        client = factory.buildProtocol(address)
        if server is None or client is None:
            return fail(RefusedError())
        pump = connect(
            server,
            FakeTransport(server, isServer=True, peerAddress=address),
            client,
            FakeTransport(client, isServer=False),
        )
        self._pumps.append(pump)
        return succeed(client)


@implementer(IAgent, IAgentEndpointFactory)
class SiteAgent:
    """
    An agent whose every connection leads to one site, in memory.

    Unlike ``treq.testing.RequestTraversalAgent`` it uses a site, not a resource, and
    so covers what a :class:`~txbits.web.BITSSite` does with bodies. Pass it to
    ``treq.client.HTTPClient``, and call :meth:`flush` after changes outside of the
    connection.

    :param site: The site.
    :param reactor: Tells the client's time.
    """

    def __init__(self, site: Site, reactor: IReactorTime) -> None:
        self._pumps: list[IOPump] = []
        self._endpoint = _MemoryEndpoint(site, self._pumps)
        self._agent = Agent.usingEndpointFactory(reactor, self)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        """The same endpoint for all URIs."""
        return self._endpoint

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803 - IAgent's
    ) -> Deferred[IResponse]:
        response: Deferred[IResponse] = self._agent.request(
            method, uri, headers, bodyProducer
        )
        self.flush()
        return response

    def flush(self) -> None:
        """Deliver bytes in both directions until none are left."""
        for pump in list(self._pumps):
            pump.flush()
            if pump.clientIO.disconnected and pump.serverIO.disconnected:
                self._pumps.remove(pump)
