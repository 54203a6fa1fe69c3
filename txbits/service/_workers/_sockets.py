"""
Listening sockets that the supervisor opens and workers inherit.

Endpoints listen by asking a reactor to. Here are two that stand in for it, so that this
works for every endpoint string: one opens sockets and accepts nothing, the other
accepts from sockets that are there.

For TCP each worker has a socket of its own, among which the kernel spreads connections.
The supervisor keeps all of them open: the connections in the queue of a worker that
has died wait for its successor. Any other socket is one for all workers, and each
accepts one connection a turn from it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet import unix
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from txbits._adopted import address_of, adopt
from txbits.service._workers._setup import Inherited


@implementer(IListeningPort)
@define(eq=False)
class Sockets:
    """
    The sockets of an endpoint.

    :param sockets: One for each worker, or one for all.
    :param backlog: The length of the queue of each; ``None`` if they listen already.
    :param number: The number that a process must have this socket under; ``None`` if
        any will do.
    :param close: Closes something else, as ``stopListening`` does.
    """

    _sockets: list[socket.socket]
    _backlog: int | None = None
    number: int | None = None
    _close: Callable[[], Deferred[None] | None] | None = None

    def startListening(self) -> None:
        """Let connections queue."""
        for number in range(len(self._sockets)):
            self.listen(number)

    def listen(self, worker: int) -> None:
        """Let connections queue for one worker, if they do not yet."""
        if self._backlog is not None:
            self.of(worker).listen(self._backlog)

    def reopen(self, worker: int) -> None:
        """
        Let no more connections queue for a worker until :meth:`listen`, if other
        workers have sockets of their own.

        Those that are in its queue are dropped, so that clients connect to others.

        :raises OSError: If that fails; then nothing has changed.
        """
        if self.is_shared:
            return
        before = self._sockets[worker]
        self._sockets[worker] = _bound(
            before.family, before.getsockname(), is_one_of_many=True
        )
        before.close()

    def stopListening(self) -> Deferred[None] | None:
        """Close the sockets; a queue that no worker has open any more is dropped."""
        for one in self._sockets:
            one.close()
        self._sockets = []
        return None if self._close is None else self._close()

    def getHost(self) -> IAddress:
        return address_of(self._sockets[0])

    @property
    def is_shared(self) -> bool:
        """Whether workers accept from one queue."""
        return len(self._sockets) == 1

    def of(self, worker: int) -> socket.socket:
        """The socket of a worker."""
        return self._sockets[0 if self.is_shared else worker]


@define(eq=False)
class OpeningReactor:
    """
    Stands in for a reactor in the supervisor: opens sockets, and accepts nothing.

    What listens must be started, see :meth:`Sockets.startListening`.

    :param reactor: The reactor, for everything else.
    :param count: How many sockets there shall be, where there can be several.
    :ivar opened: What was opened.
    """

    _reactor: Any
    _count: int
    opened: list[Sockets] = field(factory=list, init=False)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: object, backlog: int = 50, interface: str = ""
    ) -> Sockets:
        try:
            sockets = _tcp_sockets(port, interface, self._count)
        except OSError as error:
            raise CannotListenError(interface, port, error) from error
        return self._add(Sockets(sockets, backlog))

    def listenSSL(
        self,
        port: int,
        factory: object,
        context: object,
        backlog: int = 50,
        interface: str = "",
    ) -> Sockets:
        return self.listenTCP(port, factory, backlog, interface)

    def listenUNIX(
        self,
        address: Any,
        factory: object,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: int = 0,  # noqa: N803 - as Twisted calls it
    ) -> Sockets:
        # Twisted's port looks after the file and its lock. It is only never read.
        factory = Factory()
        factory.noisy = False
        port = unix.Port(address, factory, backlog, mode, self._reactor, wantPID)
        port.startListening()
        port.stopReading()
        return self._add(Sockets([port.socket.dup()], close=port.stopListening))

    def adoptStreamPort(self, descriptor: int, family: int, factory: object) -> Sockets:
        # The endpoint closes its own.
        adopted = socket.fromfd(descriptor, family, socket.SOCK_STREAM)
        return self._add(Sockets([adopted], number=descriptor))

    def _add(self, sockets: Sockets) -> Sockets:
        self.opened.append(sockets)
        return sockets


def _tcp_sockets(port: int, interface: str, count: int) -> list[socket.socket]:
    """
    Bind sockets to one address, all to the port that the first one gets.

    :raises OSError: If the address is not available.
    """
    family, address = socket.AF_INET, (interface, port)  # type: Any, Any
    if isIPv6Address(interface):
        family = socket.AF_INET6
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        address = socket.getaddrinfo(interface, port, flags=flags)[0][4]
    if port and count > 1:
        # With SO_REUSEPORT, another program of this user would share the port with us
        # rather than be in the way.
        _bound(family, address, is_one_of_many=False).close()
    sockets: list[socket.socket] = []
    try:
        for _ in range(count):
            sockets.append(_bound(family, address, is_one_of_many=count > 1))
            address = sockets[0].getsockname()
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _bound(family: int, address: Any, is_one_of_many: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setblocking(False)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_one_of_many:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(address)
    except BaseException:
        one.close()
        raise
    return one


@define(eq=False)
class InheritingReactor:
    """
    Stands in for a reactor in a worker: what it listens on is an inherited socket.

    :param reactor: The reactor, for everything else.
    :param inherited: The socket.
    """

    _reactor: Any
    _inherited: Inherited

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(
        self, port: int, factory: IProtocolFactory, *_: object, **__: object
    ) -> IListeningPort:
        return self._adopt(factory)

    def listenUNIX(
        self, address: object, factory: IProtocolFactory, *_: object, **__: object
    ) -> IListeningPort:
        return self._adopt(factory)

    def listenSSL(
        self,
        port: int,
        factory: IProtocolFactory,
        context: Any,
        *_: object,
        **__: object,
    ) -> IListeningPort:
        # As Twisted does.
        return self._adopt(TLSMemoryBIOFactory(context, False, factory))

    def adoptStreamPort(
        self, descriptor: int, family: int, factory: IProtocolFactory
    ) -> IListeningPort:
        # The endpoint closes its own.
        return self._adopt(factory, os.dup(descriptor))

    def _adopt(
        self, factory: IProtocolFactory, descriptor: int | None = None
    ) -> IListeningPort:
        inherited = self._inherited
        if descriptor is None:
            descriptor = inherited.descriptor
        return adopt(
            self._reactor, descriptor, inherited.family, factory, inherited.is_shared
        )
