"""
A connection: its state and deadline, back-pressure in both directions, and its end.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from zope.interface import implementer

from txbits._unix_sockets import let_http_use
from txbits.web._streaming.bodies import DRAIN_LIMIT, StreamingBody
from txbits.web._streaming.limits import Limits
from txbits.web._streaming.request import StreamingRequest
from txbits.web._streaming.states import (
    BLOCKED,
    BODY,
    HELD,
    IN_LINE,
    NEW,
    OFFERED,
    SERVING,
    TRANSITIONS,
    Event,
)
from txbits.web._streaming.taking import has_nothing_to_send, untaken
from txbits.web._streaming.turns import Turns

_log = Logger()

#: How many bytes of a request's body must arrive within ``body_timeout``, or how many
#: bytes of an answer the peer must take.
MINIMUM_PROGRESS = 1024


class Closable(Protocol):
    """What ends with a connection."""

    def close(self) -> None: ...


class Site(Protocol):
    """What a connection needs of its site."""

    limits: Limits
    turns: Turns
    memory: memoryview
    seconds: Callable[[], float]
    requestFactory: Callable[[Any], StreamingRequest]

    def connected(self, channel: Any) -> None: ...
    def disconnected(self, channel: Any) -> None: ...
    def intern(self, host: IAddress) -> IAddress: ...


@implementer(IHalfCloseableProtocol)
class Connection(HTTPChannel):
    """
    A connection with the states of :mod:`txbits.web._streaming.states`.

    It enforces their deadlines, stops reading while the consumer of a body is busy, and
    closes in a way that lets a peer that is still sending receive the answer. A peer
    that closes its side still gets its answers. :class:`StreamingChannel` adds the
    requests.

    :ivar state: The current state.
    :ivar host: The address that the peer has connected to.
    :ivar deadline: The time by which the peer must do what the state awaits, in seconds
        of the site's clock.
    :ivar attached: What is closed when the connection is lost, after its requests have
        been told; ``None`` for nothing.
    """

    site: Site
    # Twisted's transports provide more than ITransport declares.
    transport: Any
    host: IAddress
    state = NEW
    deadline = inf
    attached: Closable | None = None
    _peer = ""
    _half_closed = False
    _body: StreamingBody | None = None
    # The socket of which long pieces are read at a time for this body.
    _long_reads: TCPConnection | None = None
    # The bytes of a body that had arrived when the deadline was last checked, and the
    # bytes of a body for another resource that have arrived.
    _progress = 0
    _other_received = 0
    # The bytes that the peer had yet to take at that check, and the bytes discarded.
    _untaken: int | None = None
    _discarded = 0

    def __init__(self) -> None:
        """
        Set what packets would set later, each to its default.

        CPython stores the attributes of an object compactly, if the first objects of
        its class had the same ones, and no more than 30. Any other attribute gives the
        object a dictionary, here of 832 bytes. After a restart, many clients connect
        before the first packet comes: what that sets would be another attribute.
        """
        super().__init__()
        self._buffer = b""
        self._busyReceiving = self.paused = self._half_closed = False
        self.line_mode = 1
        self.length = self._progress = 0
        self._body = self._long_reads = None

    # State and deadline

    def _move(self, event: Event) -> None:
        """Enter the state that an event leads to, and set its deadline."""
        self.state = state = TRANSITIONS[self.state][event]
        if state.limit is None and not self._waitingForTransport:
            self.deadline = inf
        else:
            self._set_deadline()

    def _set_deadline(self) -> None:
        """If the peer has to act, give it the full time again."""
        limit = "body_timeout" if self._waitingForTransport else self.state.limit
        if limit is None:
            self.deadline = inf
        else:
            site = self.site
            self.deadline = site.seconds() + getattr(site.limits, limit)

    def deadline_passed(self) -> None:
        """Extend the deadline if the peer has made progress; else close or drop."""
        state = self.state
        if state.progress == "received":
            received = self._body.received if self._body else self._other_received
            if received - self._progress >= MINIMUM_PROGRESS:
                self._progress = received
                self._set_deadline()
                return
        is_full = self._waitingForTransport
        if (is_full or state.progress == "taken") and self._is_taking():
            self.deadline = self.site.seconds() + self.site.limits.body_timeout
            return
        if state.closes:
            self.loseConnection()
            return
        _log.info(
            "dropped a connection from {client}: timed out waiting for {awaited}",
            client=self._peer or "-",
            awaited=BLOCKED.awaits if is_full else state.awaits,
        )
        self.abort()

    def _is_taking(self) -> bool:
        """
        Whether the peer has taken enough of the answer since the last check.

        The first check, which has nothing to compare with, counts as progress.
        """
        before, now = self._untaken, untaken(self.transport)
        self._untaken = now
        return now > 0 and (before is None or before - now >= MINIMUM_PROGRESS)

    # Life of the connection

    def connectionMade(self) -> None:
        let_http_use(self.transport)
        super().connectionMade()
        # Each time, this costs a system call.
        self.host = self.site.intern(self.transport.getHost())
        self.site.connected(self)
        self._set_deadline()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.disconnected(self)
        self._move("lost")
        self.paused = False
        self._buffer = b""
        super().connectionLost(reason)
        # These refer to the connection. Without the cycle, all is freed at once, such
        # as the long head of a request whose body never came.
        self._body = self._transferDecoder = None
        self.requests = []
        attached, self.attached = self.attached, None
        if attached is not None:
            attached.close()

    def readConnectionLost(self) -> None:
        """
        The peer has closed its side, but can still receive.

        The server still answers complete requests. A peer that is gone looks the same
        until something is sent to it. That happens soon, because everything that a
        request waits for has a time-out.
        """
        if not self._half_closed:
            self._half_closed = True
            if self.state in (SERVING, IN_LINE, BLOCKED):
                return
            if self._body is None and has_nothing_to_send(self.transport):
                # This is what the transport does for other protocols. Most connections
                # end this way, and anything else takes more system calls.
                self.transport.connectionLost(Failure(ConnectionDone()))
            else:
                self._end()

    def writeConnectionLost(self) -> None:
        """The server has closed its side. Only :meth:`_linger` does that."""

    def _end(self) -> None:
        """Close: there is no complete request left to answer."""
        if self._body is not None and self._body.stop_draining():
            # A refused body was being discarded. Its answer closes the connection.
            return
        self.persistent = False
        # As after the last request of a connection: nothing more is read.
        self._handlingRequest = True
        self.loseConnection()

    def loseConnection(self) -> None:
        self._move("closed")
        super().loseConnection()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.deadline = inf
        self.transport.abortConnection()

    def getHost(self) -> IAddress:
        return self.host

    # Back-pressure

    def pause_body(self) -> None:
        """Stop reading the body for now."""
        if self.state is BODY or self.state is OFFERED:
            self._move("paused")
            self._networkProducer.pauseProducing()

    def await_body(self) -> None:
        """From now on, wait for the peer to send the body."""
        self.resume_body()
        if self._body is not None:
            self._progress = self._body.received
            self._move("wanted")

    def resume_body(self) -> None:
        """Resume reading the body."""
        if self.state is HELD:
            self._move("wanted")
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def pauseProducing(self) -> None:
        # The transport is full, so the peer has to take something now.
        super().pauseProducing()
        self._untaken = untaken(self.transport)
        self._set_deadline()

    def resumeProducing(self) -> None:
        # The peer has taken what was sent. That alone is no reason to read its body.
        self._untaken = None
        super().resumeProducing()
        self._set_deadline()
        if self.paused:
            self._networkProducer.pauseProducing()
            if self.state is BLOCKED:
                self._move("taken")
                self.site.turns.wait(self)
        elif self.state is HELD:
            self._networkProducer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if self._waitingForTransport and streaming:
            # HTTPChannel would let the producer start.
            producer.pauseProducing()

    def send_continue(self) -> None:
        """Tell the peer that its body is wanted."""
        self._send100Continue()

    def take_turn(self) -> None:
        """Continue with the next request that was sent ahead."""
        raise NotImplementedError("requests are read by StreamingChannel")

    # A refused body

    def linger_after_response(self) -> None:
        """Close after the current response, although the peer is still sending."""
        self.persistent = False
        self._move("refused")

    def _linger(self) -> None:
        # Closing a socket with unread data resets the connection, and the peer may
        # never see the answer. So close only our side, and discard what still arrives.
        self._set_deadline()
        if self._half_closed:
            # Nothing more will arrive.
            self.loseConnection()
            return
        self._networkProducer.resumeProducing()
        if not self.isSecure():
            # TLS cannot close one side only: the peer or the deadline ends it.
            self.transport.loseWriteConnection()

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > DRAIN_LIMIT:
            self.abort()
