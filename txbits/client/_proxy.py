"""
Connections through an HTTP proxy: a tunnel to the server (RFC 9110, 9.3.6).
"""

from __future__ import annotations

import re
from typing import Any

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits._heads import MOST_BYTES, MOST_LINES
from txbits.client._auth import Authorizer

_STATUS = re.compile(rb"HTTP/1\.[0-9] +([1-9][0-9][0-9])(?![0-9])")


class ProxyRefused(Exception):
    """
    The proxy refuses the connection; the text is one line.

    :ivar status: The HTTP status.
    :ivar challenges: Its challenges, if it requires credentials.
    """

    def __init__(self, status: int, challenges: list[bytes]) -> None:
        super().__init__(f"the proxy answered {status}")
        self.status = status
        self.challenges = challenges


class _Asking(Protocol):
    """Asks the proxy for a connection, and then passes the data on."""

    transport: Any

    def __init__(self, request: bytes, factory: Any) -> None:
        self._request = request
        self._factory = factory
        self._answer = b""
        self._inner: Any = None
        self.opened: Deferred[Any] = Deferred(self._abort)

    def connectionMade(self) -> None:
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.dataReceived(data)
            return
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if len(head) > MOST_BYTES:
            self._fail(ConnectionLost("the proxy's answer has no end"))
            return
        if not end:
            return
        status, challenges = _parse(head)
        if status is None:
            self._fail(ConnectionLost("the proxy does not speak HTTP"))
        elif not 200 <= status < 300:
            self._fail(ProxyRefused(status, challenges))
        elif not self.opened.called:
            self._open(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self._inner is not None:
            self._inner.connectionLost(reason)
        elif not self.opened.called:
            self.opened.errback(reason)

    def _open(self, rest: bytes) -> None:
        self._inner = self._factory.buildProtocol(self.transport.getPeer())
        self._inner.makeConnection(self.transport)
        if rest:
            self._inner.dataReceived(rest)
        self.opened.callback(self._inner)

    def _fail(self, error: Exception) -> None:
        if not self.opened.called:
            self.opened.errback(error)
        self._abort()

    def _abort(self, _: object = None) -> None:
        self.transport.abortConnection()


def _parse(head: bytes) -> tuple[int | None, list[bytes]]:
    first, *lines = head.split(b"\r\n")
    status = _STATUS.match(first)
    if status is None or len(lines) > MOST_LINES:
        return None, []
    fields = [line.partition(b":") for line in lines]
    wanted = b"proxy-authenticate"
    return int(status[1]), [v.strip() for n, _, v in fields if n.lower() == wanted]


@implementer(IStreamClientEndpoint)
@define(eq=False)
class Tunnel:
    """
    A server behind a proxy.

    :ivar proxy: The endpoint of the proxy.
    :ivar netloc: The server, as ``host:port``.
    :ivar authorizer: Authenticates to the proxy.
    """

    proxy: IStreamClientEndpoint
    netloc: bytes
    authorizer: Authorizer

    @deferred
    async def connect(self, factory: Any) -> IProtocol:
        """
        Connect to the server.

        :returns: A Deferred that fires with a protocol of *factory*. It fails with
            :class:`ProxyRefused`, or as connecting to the proxy does.
        """
        try:
            return await self._connect(factory)
        except ProxyRefused as error:
            if error.status != 407 or not self.authorizer.challenged(error.challenges):
                raise
        return await self._connect(factory)

    async def _connect(self, factory: Any) -> IProtocol:
        lines = [b"CONNECT %b HTTP/1.1" % self.netloc, b"Host: " + self.netloc]
        answer = self.authorizer.answer(b"CONNECT", self.netloc)
        if answer is not None:
            lines.append(b"Proxy-Authorization: " + answer)
        asking = _Asking(b"\r\n".join([*lines, b"", b""]), factory)
        await self.proxy.connect(Factory.forProtocol(lambda: asking))
        opened: IProtocol = await asking.opened
        return opened
