"""
HTTP over Unix sockets with Twisted before 25: its ``setTcpNoDelay``, which HTTP calls,
fails there.
"""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IUNIXTransport,
)
from twisted.internet.protocol import Factory
from zope.interface import implementer


def let_http_use(transport: Any) -> None:
    """Let a transport that may be a Unix socket ignore ``setTcpNoDelay``."""
    is_unix: bool = IUNIXTransport.providedBy(transport)
    if is_unix:
        transport.setTcpNoDelay = _ignore


def _ignore(enabled: bool) -> None:
    """Unix sockets never delay."""


@implementer(IStreamClientEndpoint)
@frozen
class UnixEndpoint:
    """
    Connects a protocol of HTTP to a Unix socket.

    :param reactor: The reactor.
    :param path: The path of the socket.
    :param timeout: Seconds that connecting may take.
    """

    reactor: Any
    path: str
    timeout: float

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """See :class:`twisted.internet.interfaces.IStreamClientEndpoint`."""
        make: Any = UNIXClientEndpoint
        endpoint = make(self.reactor, self.path, timeout=self.timeout)
        connected: Deferred[IProtocol] = endpoint.connect(_Prepared(protocolFactory))
        return connected


class _Prepared(Factory):
    """Builds protocols whose transports are made ready for HTTP first."""

    def __init__(self, factory: IProtocolFactory) -> None:
        self._factory = factory

    def buildProtocol(self, addr: IAddress | None) -> Any:
        factory: Any = self._factory
        protocol = factory.buildProtocol(addr)
        if protocol is not None:
            make_connection = protocol.makeConnection

            def prepared(transport: Any) -> None:
                let_http_use(transport)
                make_connection(transport)

            protocol.makeConnection = prepared
        return protocol
