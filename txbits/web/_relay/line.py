"""
A relay connection, at the worker where the client is.
"""

from __future__ import annotations

import socket
from typing import Any

import h11
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.web._relay.exchange import Exchange
from txbits.web._relay.opening import DROPPED_STATUS, WELCOME
from txbits.web._relay.pipe import Pipe
from txbits.web._streaming import (
    MAX_HEAD,
    READ_SIZE,
    Taken,
    has_nothing_to_send,
    send_now,
    send_some,
)

# What h11 believes to have sent: it only reads the answers.
_REQUESTS = {
    is_head: h11.Request(
        method="HEAD" if is_head else "POST", target="/", headers=[("Host", "h")]
    )
    for is_head in (False, True)
}


class Gone(Exception):
    """The other worker has gone before it has begun to answer. The text says how."""


@implementer(IPullProducer)
class Line(Protocol):
    """
    A relay connection to a worker that has sessions. It carries one request at a time.

    :param pipe: Moves the bytes of long bodies.
    :ivar is_closed: Whether it cannot be used any more.
    """

    transport: Any

    def __init__(self, pipe: Pipe) -> None:
        self.is_closed = False
        self._pipe = pipe
        self._welcome: Deferred[None] | None = None
        self._http: h11.Connection | None = None
        self._exchange: Exchange | None = None
        self._over: Deferred[None] | None = None
        # What the socket has yet to take, and who waits for that.
        self._rest: memoryview | None = None
        self._taken: Deferred[None] | None = None

    def open(self, opening: bytes) -> Deferred[None]:
        """
        Tell the other worker about the client.

        :param opening: What a relay connection begins with.
        :returns: A Deferred that fires with ``None`` when the other worker takes it, or
            fails with :class:`Gone`. To cancel it closes the connection.
        """
        self._welcome = welcome = Deferred[None](lambda _: self.close())
        transport = self.transport
        # Measured: what one read of a long body brings is sent in one go, which takes a
        # third less CPU time here and there; with room for two of them, neither side
        # has to wait for the other one as often. The system may allow less.
        transport.SEND_LIMIT = READ_SIZE
        transport.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * READ_SIZE)
        transport.write(opening)
        return welcome

    def carry(self, exchange: Exchange) -> Deferred[None]:
        """
        Pass a request on.

        :returns: A Deferred that fires with ``None`` when it is answered, or the client
            has gone. It fails with :class:`Gone` if the other worker has.
        """
        self._exchange = exchange
        self._over = over = Deferred[None]()
        self._http = http = h11.Connection(
            h11.CLIENT, max_incomplete_event_size=2 * MAX_HEAD
        )
        http.send(_REQUESTS[exchange.is_head])
        http.send(h11.EndOfMessage())
        send_now(self.transport, exchange.head())
        exchange.carried_by(self)
        return over

    def send(self, data: bytes | memoryview) -> Deferred[None] | None:
        """
        Send bytes of a body.

        :param data: A view of memory may change after the call.
        :returns: ``None`` if the socket has taken them; otherwise, a Deferred that
            fires with ``None`` when it has, or fails with :class:`Gone`.
        """
        # Not the transport's buffer, which would copy them twice.
        view = memoryview(data)
        sent = send_some(self.transport, view)
        if sent == len(data):
            return None
        rest = view[sent:]
        is_lent = isinstance(data, memoryview)
        self._rest = memoryview(bytes(rest)) if is_lent else rest
        self._taken = taken = Deferred[None]()
        if self.transport.connected:
            self.transport.registerProducer(self, False)
        return taken

    def take(self, source: int, most: int) -> Taken | None:
        """
        Move bytes of a body here from the socket of the client.

        :param source: The descriptor of that socket.
        :param most: The most bytes to move.
        :returns: See :data:`~txbits.web._streaming.bodies.Taken`; ``None`` if they have
            to be sent by :meth:`send` for now.
        :raises BlockingIOError: If nothing has arrived.
        :raises OSError: If that socket is lost.
        """
        if self.is_closed or not has_nothing_to_send(self.transport):
            return None
        moved = self._pipe.move(source, self.transport.fileno(), most)
        if moved is None:
            return None
        count, rest = moved
        return count, self.send(rest) if rest else None

    def resumeProducing(self) -> None:
        """The socket takes more; see ``IPullProducer``."""
        rest = self._rest
        if rest is None:
            return
        sent = send_some(self.transport, rest)
        if sent < len(rest):
            self._rest = rest[sent:]
            self.transport.startWriting()
            return
        self.transport.unregisterProducer()
        self._rest = None
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.callback(None)

    def stopProducing(self) -> None:
        """The connection is lost; :meth:`connectionLost` follows."""

    def close(self) -> None:
        """Close it, but not before the other worker gets what has come of a body."""
        self.is_closed = True
        self._welcome = None
        exchange, self._exchange = self._exchange, None
        if exchange is None or not exchange.is_sending:
            self.transport.abortConnection()
        self._settle()

    def end_body_early(self) -> None:
        """Close it: the rest of a body never comes."""
        self.transport.loseConnection()

    def pause(self) -> None:
        """Read no more of an answer for now."""
        self.transport.pauseProducing()

    def resume(self) -> None:
        """Go on to read an answer."""
        self.transport.resumeProducing()

    def _settle(self) -> None:
        over, self._over = self._over, None
        if over is not None:
            over.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """See :class:`twisted.internet.interfaces.IProtocol`."""
        if self._welcome is not None and data.startswith(WELCOME):
            welcome, self._welcome = self._welcome, None
            data = data[len(WELCOME) :]
            welcome.callback(None)
        if data:
            self._read(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :class:`twisted.internet.interfaces.IProtocol`."""
        self.is_closed = True
        welcome, self._welcome = self._welcome, None
        if welcome is not None:
            welcome.errback(Gone("it has closed the connection"))
        if self._exchange is not None:
            # Some answers end with the connection.
            self._read(b"")
        self._lose()
        self._rest = None
        taken, self._taken = self._taken, None
        if taken is not None:
            taken.errback(Gone("it has closed the connection"))

    def _lose(self) -> None:
        """There will be no more of an answer."""
        exchange, self._exchange = self._exchange, None
        over, self._over = self._over, None
        if exchange is None or over is None:
            return
        if exchange.has_begun:
            exchange.drop()
            over.callback(None)
        else:
            over.errback(Gone("it has ended before it answered"))

    def _read(self, data: bytes) -> None:
        """
        Read an answer.

        :param data: Empty if nothing more of it will come.
        """
        http = self._http
        if self._exchange is None or http is None:
            self.is_closed = True
            self.transport.abortConnection()
            return
        try:
            http.receive_data(data)
            while self._exchange is not None:
                event = http.next_event()
                if not isinstance(event, h11.Event):
                    return
                self._take(event, self._exchange)
        except h11.RemoteProtocolError:
            self.is_closed = True
            self._lose()
            self.transport.abortConnection()

    def _take(self, event: h11.Event, exchange: Exchange) -> None:
        if isinstance(event, h11.Data):
            exchange.write(bytes(event.data))
        elif isinstance(event, h11.Response):
            exchange.begin(event.status_code, event.headers.raw_items())
        elif isinstance(event, h11.EndOfMessage):
            self._end(exchange)
        elif isinstance(event, h11.InformationalResponse):
            if event.status_code == DROPPED_STATUS:
                self._exchange = None
                exchange.drop()
                self._settle()
            else:
                exchange.invite()

    def _end(self, exchange: Exchange) -> None:
        """An answer is complete."""
        self._exchange = None
        http, self._http = self._http, None
        assert http is not None  # noqa: S101
        if http.their_state is not h11.DONE or exchange.is_sending:
            self.is_closed = True
            self.transport.abortConnection()
        exchange.end()
        self._settle()
