"""
A connection that dispatches packets on their heads, and keeps deadlines.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.server import Request

from txbits.protocol.codec import METHOD, encode_ack
from txbits.protocol.packets import Ack
from txbits.protocol.refusals import MALFORMED_HEADER
from txbits.web._streaming.bodies import (
    DRAIN_LIMIT,
    READ_SIZE,
    StreamingBody,
    WholeBody,
)
from txbits.web._streaming.head import Head, read_head
from txbits.web._streaming.request import StreamingRequest
from txbits.web._streaming.taking import untaken

if TYPE_CHECKING:
    from txbits.web._streaming.site import BITSSite

#: What answers something that is no HTTP: an Ack, in case it was meant as a packet.
_BAD_REQUEST = (
    b"HTTP/1.1 400 Bad Request\r\n"
    + b"".join(
        b"%b: %b\r\n" % header
        for header in encode_ack(
            Ack(
                MALFORMED_HEADER.status,
                hresult=MALFORMED_HEADER.hresult,
                context=MALFORMED_HEADER.context,
            )
        )
    )
    + b"Connection: close\r\n\r\n"
)

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


class StreamingChannel(HTTPChannel):
    """
    An HTTP/1.1 connection that dispatches packets on their heads.

    It pauses reading while a body's consumer is busy, keeps the deadlines, and closes
    in a way that lets an answer reach a peer that is still sending.
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

    # Life of the connection

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.connected(self)
        self._set_deadline(self.site.limits.header_timeout)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.site.disconnected(self)
        self.deadline = inf
        super().connectionLost(reason)

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
        if self._idle:
            self._idle = False
            head = None
            if self.persistent and not self._buffer and not self._busyReceiving:
                head = read_head(data, MAX_HEAD, self.maxHeaders)
            if head is None:
                self._set_deadline(self.site.limits.header_timeout)
            else:
                data = self._take(head, data)
        # Not HTTPChannel's, which would let any byte put off any time-out.
        if data or self._buffer:
            LineReceiver.dataReceived(self, data)
        if self._body is not None:
            self._body.read_over()
        if self._idle and self._buffer:
            # The beginning of another head came behind a request.
            self._idle = False
            self._set_deadline(self.site.limits.header_timeout)

    def _take(self, head: Head, data: bytes) -> bytes:
        """
        Begin the request of a packet whose head has arrived in one piece.

        :param data: What begins with this head.
        :returns: What came behind the request, or behind its head if its body is not
            here yet.
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
                return self._take_head(request, head, data)
            self._take_whole(request, head, data, length)
            return data[head.length + length :]
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

    def _take_head(self, request: StreamingRequest, head: Head, data: bytes) -> bytes:
        """Begin a request whose body is still to come, or has to be decoded."""
        self._command, self._path, self._version = METHOD, head.target, head.version
        for name in (b"content-length", b"transfer-encoding"):
            for value in head.headers.get(name, ()):
                if not self._maybeChooseTransferDecoder(name.title(), value):
                    return b""
        self.allHeadersReceived()
        if self.length == 0:
            self.allContentReceived()
        else:
            self.setRawMode()
            self._dispatch(request)
        return data[head.length :]

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
        if self._idle:
            self._idle = False
            self._set_deadline(self.site.limits.header_timeout)
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
        if request.is_packet and version == b"HTTP/1.1":
            connection = request.lower_headers().get(b"connection")
            if connection is None or connection[0].lower() in (b"", b"keep-alive"):
                return True
        return bool(super().checkPersistence(request, version))

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
        self._hurry()
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        if self._lingering:
            self.requests.remove(request)
            self._linger()
            return
        self._idle = True
        self._set_final_deadline()
        if self.persistent and not self._dataBuffer:
            # Nothing came behind it that HTTPChannel would have to go on with, or have
            # stopped reading for.
            self.requests.remove(request)
            self._handlingRequest = False
            self.line_mode = 1
        else:
            super().requestDone(request)
        if self._sending and not self._handlingRequest:
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
        if self._body_paused:
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
        _log.info(
            "refused what is not HTTP from {client}",
            client=self._peer or "-",
            status=400,
        )
        self.transport.write(_BAD_REQUEST)
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
        self._networkProducer.resumeProducing()
        if not self.isSecure():
            # Under TLS there are no halves; the peer, or the deadline, closes it.
            self.transport.loseWriteConnection()

    def send_now(self, data: bytes) -> None:
        """Write *data*, if possible at once."""
        # A transport that has nothing else to send would ask epoll to tell it that the
        # socket takes data, and then not to any more: two system calls for an Ack.
        transport = self.transport
        if (
            isinstance(transport, Connection)
            and transport.connected
            and not transport.disconnecting
            and not getattr(transport, "TLS", False)
            and not transport.dataBuffer
            and not transport._tempDataBuffer
        ):
            sent = transport.writeSomeData(data)
            if isinstance(sent, int):
                data = data[sent:]
        if data:
            transport.write(data)
