"""
Listening sockets that another process has made.

Twisted adopts them as if they were its own: it gives the file of a Unix socket the mode
0666, and removes it when it stops listening. Here nothing is changed about the file,
which belongs to systemd, or to a supervisor and its other workers.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from attrs import frozen
from twisted.internet import tcp, unix
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.python.failure import Failure


def address_of(bound: socket.socket) -> IAddress:
    """The address of a socket."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return UNIXAddress(name)
    kind = IPv6Address if bound.family == socket.AF_INET6 else IPv4Address
    return kind("TCP", *name)


@frozen(eq=False)
class AdoptingReactor:
    """
    Stands in for a reactor where an endpoint asks it to adopt a socket.

    :param reactor: The reactor, for everything else.
    """

    _reactor: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def adoptStreamPort(
        self, descriptor: int, family: int, factory: IProtocolFactory
    ) -> IListeningPort:
        # The endpoint closes its own.
        return adopt(self._reactor, os.dup(descriptor), family, factory)


def adopt(
    reactor: Any,
    descriptor: int,
    family: int,
    factory: IProtocolFactory,
    is_shared: bool = False,
) -> IListeningPort:
    """
    Accept connections from a socket that listens already.

    :param descriptor: It belongs to the port from now on.
    :param family: The address family of the socket.
    :param is_shared: Whether other processes accept from the same queue.
    """
    if family == socket.AF_UNIX:
        port: Any = _AdoptedUnix(b"", factory, reactor=reactor)
    else:
        interface = "::" if family == socket.AF_INET6 else ""
        port = _Adopted(0, factory, interface=interface, reactor=reactor)
    port.listen_on(descriptor, is_shared)
    return port  # type: ignore[no-any-return]


class _Adopted(tcp.Port):
    """
    A port whose socket listens already, and belongs to others as well.

    Unlike Twisted's own, one of a Unix socket changes nothing about its file, neither
    its mode at the start nor its existence at the end.
    """

    _is_shared = False

    @property
    def numberAccepts(self) -> int:
        """How many connections are accepted in a turn."""
        # Whoever finds the queue full would leave nothing to others.
        return 1 if self._is_shared else self._number_accepts

    @numberAccepts.setter
    def numberAccepts(self, number: int) -> None:
        self._number_accepts = number

    def listen_on(self, descriptor: int, is_shared: bool) -> None:
        """Begin to accept."""
        # As Twisted's own does: it is given up for a moment when no other descriptor is
        # left, to close the connections that wait.
        tcp._reservedFD.reserve()
        self._is_shared = is_shared
        self._shouldShutdown = False
        self.socket = socket.socket(fileno=descriptor)
        self.socket.setblocking(False)
        self.fileno = self.socket.fileno  # type: ignore[method-assign]
        self.numberAccepts = 100
        if self.factory is not None:
            self.factory.doStart()
        self.connected = True
        self.startReading()

    def _logConnectionLostMsg(self) -> None:
        """Who has made the socket logs that."""

    def getHost(self) -> IAddress:
        return address_of(self.socket)


class _AdoptedUnix(_Adopted, unix.Port):
    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)
