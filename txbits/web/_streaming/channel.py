"""
A connection that dispatches packets on their heads, and keeps deadlines.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request
from zope.interface import implementer

from txbits.protocol.codec import METHOD
from txbits.web._streaming.bodies import (
    DRAIN_LIMIT,
    READ_SIZE,
    StreamingBody,
    WholeBody,
)
from txbits.web._streaming.head import Head, encoded_target, read_head
from txbits.web._streaming.request import StreamingRequest
from txbits.web._streaming.rules import BAD_REQUEST, BEGINNINGS, is_kept, named
from txbits.web._streaming.taking import untaken

if TYPE_CHECKING:
    from txbits.web._streaming.site import BITSSite

_log = Logger()

#: What must arrive of a body within ``body_timeout``, or be taken of one that we send,
#: in bytes.
MINIMUM_PROGRESS = 1024

#: The longest head of a request, in bytes: Kerberos tickets are long.
MAX_HEAD = 64 * 1024

#: The digits of the longest Content-Length that is read as a number.
_LONGEST_LENGTH = 1000

#: Seconds that a peer is given to take its answer and close.
_LINGER = 30.0


@implementer(IHalfCloseableProtocol)
class StreamingChannel(HTTPChannel):
    """
    An HTTP/1.1 connection that dispatches packets on their heads.

    It pauses reading while a body's consumer is busy, keeps the deadlines, and closes
    in a way that lets an answer reach a peer that is still sending. Of requests that
    were sent ahead it serves one in a turn; the rest stays in ``_buffer``, and
    ``LineReceiver.paused`` says so. A peer that ends its side is still answered.
    """

    MAX_LENGTH = MAX_HEAD
    totalHeadersSize = MAX_HEAD
    maxHeaders = 100

    site: BITSSite
    # Twisted's transports have more than ITransport promises.
    transport: Any
    deadline = inf
    _peer = ""
    _host: IAddress | None = None
    _body: StreamingBody | None = None
    _progress = 0
    _in_body = False
    _in_other_body = False
    _other_received = 0
    _idle = True
    _sending = False
    _untaken: int | None = None
    _body_paused = False
    _lingering = False
    _discarded = 0
    _in_line = False
    _half_closed = False

    # Life of the connection

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.connected(self)
        self._set_deadline(self.site.limits.header_timeout)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.disconnected(self)
        self.deadline = inf
        self.paused = False
        self._buffer = b""
        super().connectionLost(reason)

    def readConnectionLost(self) -> None:
        """
        The peer sends no more, but may still take what it is sent.

        What it has asked for is answered. A peer that is gone altogether looks the same
        until something is sent to it, which is soon: whatever a request waits for has a
        time-out.
        """
        if not self._half_closed:
            self._half_closed = True
            if self._handlingRequest or self.paused:
                return
            if self._body is None and self._has_nothing_to_send():
                # What the transport would have done, had nobody asked it to tell: most
                # connections end so, and anything else takes more system calls.
                self.transport.connectionLost(Failure(ConnectionDone()))
            else:
                self._end()

    def writeConnectionLost(self) -> None:
        """Our side has ended, which only happens because we have ended it."""

    def _end(self) -> None:
        """Close, since nothing that was asked for whole is still to be answered."""
        if self._body is not None and self._body.drained_no_longer():
            # It was refused, and only the answer to that is missing.
            return
        self.persistent = False
        # As it is for a request that is the last one: nothing more is read.
        self._handlingRequest = True
        self._set_final_deadline()
        self.loseConnection()

    def abort(self) -> None:
        """Drop the connection at once."""
        self.deadline = inf
        self.transport.abortConnection()

    def deadline_passed(self) -> None:
        """The peer was too slow, or idle for too long."""
        if (self._body is not None or self._in_other_body) and not self._lingering:
            received = self._body.received if self._body else self._other_received
            if received - self._progress >= MINIMUM_PROGRESS:
                self._progress = received
                self._set_deadline(self.site.limits.body_timeout)
                return
        if (self._sending or self._idle) and self._is_taking():
            self._set_deadline(self.site.limits.body_timeout)
            return
        if self._idle and not self.transport.disconnecting:
            # Politely; if the peer does not take it, the next deadline is final.
            self._set_deadline(_LINGER)
            self.loseConnection()
            return
        _log.info(
            "dropped a connection from {client}: too slow", client=self._peer or "-"
        )
        self.abort()

    def _is_taking(self) -> bool:
        """Whether the peer has taken some of what it is sent since the last look."""
        before, now = self._untaken, untaken(self.transport)
        self._untaken = now
        return now > 0 and (before is None or before - now >= MINIMUM_PROGRESS)

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self.site.seconds() + seconds

    def _hurry(self) -> None:
        """From here on it is for us to hurry, unless the peer has to take something."""
        if self._sending:
            self._set_deadline(self.site.limits.body_timeout)
        else:
            self.deadline = inf

    # Addresses: the local one costs a system call each time

    def getHost(self) -> IAddress:
        if self._host is None:
            self._host = self.site.intern(self.transport.getHost())
        return self._host

    # Reading

    def dataReceived(self, data: bytes) -> None:
        if self._lingering:
            self._discard(data)
            return
        if self.paused:
            # TLS hands on what it had read before it was told to pause.
            self._buffer += data
            return
        if self._idle:
            self._idle = False
            head = None
            if self.persistent and not self._buffer and not self._busyReceiving:
                head = read_head(data, MAX_HEAD, self.maxHeaders)
                if head is None and data and data[0] not in BEGINNINGS:
                    # No line end is to be waited for.
                    self._refuse_what_is_no_request(named(data[0]))
                    return
            if head is None:
                self._set_deadline(self.site.limits.header_timeout)
            else:
                self._take(head, data)
                data = b""
        # Not HTTPChannel's, which would let any byte put off any time-out.
        if data or self._buffer:
            LineReceiver.dataReceived(self, data)
        if self._body is not None:
            self._body.read_over()

    # Requests that were sent ahead

    def _wait_for_turn(self) -> None:
        """Leave what is in ``_buffer`` there for now: others may be waiting, too."""
        self.paused = True
        self._idle = False
        self._hurry()
        self._networkProducer.pauseProducing()
        self._stand_in_line()

    def _stand_in_line(self) -> None:
        # One who does not take answers gets no more of them.
        if not self._in_line and not self._waitingForTransport:
            self._in_line = True
            self.site.turns.wait(self)

    def take_turn(self) -> None:
        """Go on with the next request that was sent ahead."""
        self._in_line = False
        if not self.paused or self._waitingForTransport or self.transport.disconnecting:
            return
        self.paused = False
        self._idle = True
        data, self._buffer = self._buffer, b""
        self.dataReceived(data)
        if self.paused or self.transport.disconnecting:
            return
        if not self._half_closed:
            self._read_on()
        elif not self._handlingRequest:
            self._end()

    def _read_on(self) -> None:
        """Read on after a turn, unless there is another reason not to."""
        ahead = sum(map(len, self._dataBuffer))
        if (
            not self._body_paused
            and not self._waitingForTransport
            and ahead <= self._optimisticEagerReadSize
        ):
            self._networkProducer.resumeProducing()

    def _take(self, head: Head, data: bytes) -> None:
        """
        Begin the request of a packet whose head has arrived in one piece.

        What came behind the request, or behind its head if its body is not here yet,
        is in ``_buffer`` then.

        :param data: What begins with this head.
        """
        request = self.site.requestFactory(self)
        self.requests.append(request)
        request.take_head(head)
        # Whoever answers this may have the channel go on with what was sent behind it.
        self._busyReceiving = True
        try:
            length = head.body_length()
            if length is None or (
                length and (head.length + length > len(data) or head.expects)
            ):
                self._buffer = data[head.length :]
                self._take_head(request, head)
                return
            self._buffer = data[head.length + length :]
            self._take_whole(request, head, data, length)
        finally:
            self._busyReceiving = False

    def _take_whole(
        self, request: StreamingRequest, head: Head, data: bytes, length: int
    ) -> None:
        """Begin a request that has all arrived: nothing has to be decoded for it."""
        self._hurry()
        self.persistent = self.checkPersistence(request, head.version)
        if length:
            request.whole_body = WholeBody(
                self, data[head.length : head.length + length]
            )
        # What HTTPChannel.allContentReceived does beside undoing what the lines of a
        # head, of which there were none, have done.
        self._handlingRequest = True
        self.line_mode = 0
        request.dispatch(METHOD, head.target, head.version)

    def _take_head(self, request: StreamingRequest, head: Head) -> None:
        """Begin a request whose body is still to come, or has to be decoded."""
        self._command, self._path, self._version = METHOD, head.target, head.version
        for name in (b"content-length", b"transfer-encoding"):
            for value in head.headers.get(name, ()):
                if not self._maybeChooseTransferDecoder(name.title(), value):
                    self._buffer = b""
                    return
        self.allHeadersReceived()
        if self.length == 0:
            self.allContentReceived()
        else:
            self.setRawMode()
            self._dispatch(request)

    def rawDataReceived(self, data: bytes) -> None:
        if self._lingering:
            # What came along with the head of a request that was refused.
            self._discard(data)
        else:
            super().rawDataReceived(data)

    def _discard(self, data: bytes) -> None:
        self._discarded += len(data)
        if self._discarded > DRAIN_LIMIT:
            self.abort()

    def lineReceived(self, line: bytes) -> None:
        if not self.requests and not line.isascii():
            # The first line of a request.
            method, space, rest = line.partition(b" ")
            rest_encoded = encoded_target(rest)
            if rest_encoded is None:
                self._refuse_what_is_no_request("a URL whose path is not UTF-8")
                return
            line = method + space + rest_encoded
        super().lineReceived(line)
        if self._body is not None and not self._in_body:
            # Only now is the channel ready for a request that is answered at once.
            self._dispatch(self.requests[-1])

    def _dispatch(self, request: StreamingRequest) -> None:
        self._in_body = True
        request.dispatch(self._command, self._path, self._version)

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        if header == b"Content-Length" and len(data) > _LONGEST_LENGTH:
            # HTTPChannel would try to make a number of it, whatever its length.
            return bool(self._failChooseTransferDecoder())
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        if not request.carries_packet(self._command):
            self._in_other_body = True
            self._other_received = self._progress = 0
            self._set_deadline(self.site.limits.body_timeout)
            if (
                self.length is not None
                and self.length > self.site.limits.max_other_body
            ):
                self._refuse_other_body()
            else:
                super().allHeadersReceived()
            return
        request.parseCookies()
        self.persistent = self.checkPersistence(request, self._version)
        if self.length == 0:
            return
        # Until somebody wants the body.
        self._hurry()
        expect = request.lower_headers().get(b"expect", [b""])[0]
        self._body = request.streaming_body = StreamingBody(
            self,
            self.length,
            expect.lower() == b"100-continue" and self._version == b"HTTP/1.1",
        )
        self._progress = 0

    def checkPersistence(self, request: StreamingRequest, version: bytes) -> bool:
        # Not HTTPChannel's, which looks at the first Connection header only, and takes
        # it for words between spaces.
        kept = is_kept(request.lower_headers(), version)
        if version != b"HTTP/1.1" and kept:
            # Proxies believe the head, which otherwise says HTTP/1.1.
            request.keeps_alive = True
            request.responseHeaders.setRawHeaders(b"Connection", [b"Keep-Alive"])
        elif not kept and (request.is_packet or version == b"HTTP/1.1"):
            # The head of any other answer to HTTP/1.0 is HTTP/1.0 itself.
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return kept

    def allContentReceived(self) -> None:
        if self._lingering:
            return
        if self._body is not None:
            self._body = None
            self._in_body = False
            if isinstance(self.transport, Connection):
                self.transport.bufferSize = Connection.bufferSize
            # To learn of a lost connection, HTTPChannel reads a little of what follows.
            self.resume_body()
        self._in_other_body = False
        # While the body was awaited, that was what the peer had to hurry with.
        self._sending = self._waitingForTransport
        self._hurry()
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        if self._lingering:
            self.requests.remove(request)
            self._linger()
            return
        self._idle = True
        self._set_final_deadline()
        if not self.persistent:
            super().requestDone(request)
            return
        # Not HTTPChannel's, which would go on at once with what came behind it.
        self.requests.remove(request)
        self._handlingRequest = False
        self.line_mode = 1
        if self._dataBuffer:
            self._buffer = b"".join(self._dataBuffer) + self._buffer
            self._dataBuffer = []
        if self._buffer:
            self._wait_for_turn()
        elif self._half_closed:
            self._end()
        elif self._sending:
            # Before it asks for more, the peer has to take what it has asked for.
            self._networkProducer.pauseProducing()

    def _set_final_deadline(self) -> None:
        """When the connection ends, if nothing comes after this answer."""
        limits = self.site.limits
        if self._sending:
            self._set_deadline(limits.body_timeout)
        else:
            self._set_deadline(limits.idle_timeout if self.persistent else _LINGER)

    def read_up_to(self, position: int) -> None:
        """Let the next read end at a multiple of the most that is read at a time."""
        if isinstance(self.transport, Connection):
            self.transport.bufferSize = READ_SIZE - position % READ_SIZE

    # Back-pressure

    def pause_body(self) -> None:
        """Read no more of the body for now."""
        if not self._body_paused:
            self._body_paused = True
            self._hurry()
            self._networkProducer.pauseProducing()

    def await_body(self) -> None:
        """From now on it is for the peer to hurry."""
        self._sending = False
        self.resume_body()
        if self._body is not None:
            self._progress = self._body.received
            self._set_deadline(self.site.limits.body_timeout)

    def resume_body(self) -> None:
        """Read on."""
        if self._body_paused:
            self._body_paused = False
            self._set_deadline(self.site.limits.body_timeout)
            if not self._waitingForTransport:
                self._networkProducer.resumeProducing()

    def pauseProducing(self) -> None:
        # There is as much to be sent as is kept for a peer: now it has to take some.
        super().pauseProducing()
        self._sending = True
        self._untaken = untaken(self.transport)
        self._set_deadline(self.site.limits.body_timeout)

    def resumeProducing(self) -> None:
        # The peer has taken what we sent, which is no reason to read its body.
        if self._sending:
            self._sending, self._untaken = False, None
            if self._idle:
                self._set_final_deadline()
            else:
                self._hurry()
        super().resumeProducing()
        if self.paused:
            self._networkProducer.pauseProducing()
            self._stand_in_line()
        elif self._body_paused:
            self._networkProducer.pauseProducing()

    # Writing

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        super().registerProducer(producer, streaming)
        if self._waitingForTransport and streaming:
            # HTTPChannel would let it begin.
            producer.pauseProducing()

    def send_continue(self) -> None:
        """Tell the peer that its body is wanted."""
        self._send100Continue()

    def take_other(self, data: bytes) -> bool:
        """Count the next bytes of a body for another resource; are they to be kept?"""
        self._other_received += len(data)
        if self._other_received <= self.site.limits.max_other_body:
            return True
        if not self._lingering:
            self._refuse_other_body()
        return False

    def _refuse_other_body(self) -> None:
        """Answer a request for another resource whose body is too long to collect."""
        self.transport.write(
            b"HTTP/1.1 413 Content Too Large\r\n"
            b"Connection: close\r\nContent-Length: 0\r\n\r\n"
        )
        self.linger_after_response()
        self._linger()

    def _respondToBadRequestAndDisconnect(self) -> None:
        self._refuse_what_is_no_request("what is not HTTP")

    def _refuse_what_is_no_request(self, what: str) -> None:
        _log.info(
            "refused {what} from {client}",
            what=what,
            client=self._peer or "-",
            status=400,
        )
        self.transport.write(BAD_REQUEST)
        self.loseConnection()

    def linger_after_response(self) -> None:
        """Close when the response under way is written, though the peer still sends."""
        self.persistent = False
        self._lingering = True

    def _linger(self) -> None:
        # To close a socket with unread data resets the connection, and the peer may
        # never see the answer. So end our side only, and throw away what comes.
        self._sending = False
        self._set_deadline(_LINGER)
        self._body_paused = False
        if self._half_closed:
            # Nothing is going to come.
            self.loseConnection()
            return
        self._networkProducer.resumeProducing()
        if not self.isSecure():
            # Under TLS there are no halves; the peer, or the deadline, closes it.
            self.transport.loseWriteConnection()

    def send_now(self, data: bytes) -> None:
        """Write *data*, if possible at once."""
        # A transport that has nothing else to send would ask epoll to tell it that the
        # socket takes data, and then not to any more: two system calls for an Ack.
        if self._has_nothing_to_send():
            sent = self.transport.writeSomeData(data)
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            self.transport.write(data)

    def _has_nothing_to_send(self) -> bool:
        """Whether there is a socket that stands, and has been given everything."""
        transport = self.transport
        return bool(
            isinstance(transport, Connection)
            and transport.connected
            and not transport.disconnecting
            and not getattr(transport, "TLS", False)
            and not transport.dataBuffer
            and not transport._tempDataBuffer
        )
