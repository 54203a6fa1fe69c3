"""
The requests on a connection: a packet is dispatched when its head is complete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Connection as TCPConnection
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import _IdentityTransferDecoder
from twisted.web.server import Request

from txbits.protocol.codec import METHOD
from txbits.web._streaming.bodies import (
    PIECE_SIZE,
    PIECES,
    READ_SIZE,
    SHORT_BODY,
    StreamingBody,
    WholeBody,
)
from txbits.web._streaming.connection import Connection
from txbits.web._streaming.head import Head, encoded_target, is_kept, read_head
from txbits.web._streaming.request import StreamingRequest
from txbits.web._streaming.rules import BAD_REQUEST, BEGINNINGS, named
from txbits.web._streaming.states import (
    BODY,
    HELD,
    IDLE,
    IN_LINE,
    LINGERING,
    NEW,
    OFFERED,
    SERVING,
)
from txbits.web._streaming.taking import socket_below, takes_long_reads

_log = Logger()

#: The maximum length of a request's head, in bytes. Kerberos tickets are long.
MAX_HEAD = 64 * 1024

#: The maximum number of digits of a Content-Length that is parsed as a number.
_LONGEST_LENGTH = 1000


class StreamingChannel(Connection):
    """
    An HTTP/1.1 connection that dispatches a packet when its head is complete.

    In each turn, it serves one of the requests that were sent ahead. While a request is
    being served, HTTPChannel collects what follows it in ``_dataBuffer``. Between two
    turns, that is in ``_buffer``, and ``LineReceiver.paused`` is true.
    """

    MAX_LENGTH = MAX_HEAD
    totalHeadersSize = MAX_HEAD
    maxHeaders = 100

    # Reading

    def dataReceived(self, data: bytes) -> None:
        state = self.state
        if state is IDLE or state is NEW:
            self._begin(data)
        elif state.discards:
            self._discard(data)
        elif self.paused:
            # TLS still delivers what it had read before it was paused.
            self._buffer += data
        else:
            self._receive(data)

    def _begin(self, data: bytes) -> None:
        """Read the first bytes of a request."""
        head = None
        if not self._buffer and not self._busyReceiving:
            head = read_head(data, MAX_HEAD, self.maxHeaders)
            if head is None and data and data[0] not in BEGINNINGS:
                # The end of the line may never arrive.
                self._refuse_what_is_no_request(named(data[0]))
                return
        if head is None:
            self._move("received")
            self._receive(data)
            return
        self._take(head, data)
        if self._buffer or self._body is not None:
            self._receive(b"")

    def _receive(self, data: bytes) -> None:
        """Continue reading a request, or keep what was sent after it."""
        # Not HTTPChannel.dataReceived, in which any byte would postpone any time-out.
        LineReceiver.dataReceived(self, data)
        body = self._body
        if body is not None:
            self._choose_reads(body)
            if body.waiting:
                body.read_over()

    def view_received(self, data: memoryview) -> None:
        """
        Some bytes came.

        :param data: May change after the call.
        """
        body = self._body
        while data and (size := self._piece_size):
            decoder: Any = self._transferDecoder
            decoder.dataReceived(data[:size])
            data = data[size:]
        if data:
            self.dataReceived(bytes(data))
        elif body is not None and body is self._body:
            self._choose_reads(body)

    @property
    def _piece_size(self) -> int:
        """
        How many of the next bytes to store at a time.

        The page cache needs less work if a write ends at a multiple of its size.

        :returns: 0 if they are not to be stored at once.
        """
        body = self._body
        if self.state is not BODY or body is None or not body.is_stored:
            return 0
        return PIECE_SIZE - (body.position + body.received) % PIECE_SIZE

    def _read_long_body(self) -> ConnectionLost | ConnectionDone | None:
        """
        Read some of a long body into memory that is used again, and store it; or let
        its consumer take it from the socket.

        Meanwhile, this takes the place of ``doRead`` of the transport.

        :returns: Why the connection is lost, if it is.
        """
        transport: Any = self._long_reads
        memory, body = self.site.memory, self._body
        may_take = body is not None and body.take is not None
        for number in range(PIECES):
            size = self._piece_size
            if not size:
                return None if number else type(transport).doRead(transport)
            try:
                taken = self._let_take(transport.fileno()) if may_take else None
                if taken is None:
                    count = transport.socket.recv_into(memory, size)
                else:
                    count = taken
            except BlockingIOError:
                if number or not may_take:
                    return None
                # The reactor says that there is something. It may be urgent data, where
                # only reading goes on: otherwise, the reactor would call again at once.
                may_take = False
                continue
            except OSError:
                return CONNECTION_LOST
            if not count:
                return CONNECTION_DONE
            if taken is None:
                decoder: Any = self._transferDecoder
                decoder.dataReceived(memory[:count])
                if count < size:
                    # That was all. To ask again takes a system call.
                    return None
        return None

    def _let_take(self, source: int) -> int | None:
        """
        Let the consumer of a body take some of it from the socket.

        :param source: The descriptor of that.
        :returns: How many bytes it took, 0 at the end; ``None`` if it takes none.
        """
        body, decoder = self._body, self._transferDecoder
        if body is None or body.take is None or decoder is None:
            return None
        taken = body.take(source, min(PIECE_SIZE, decoder.contentLength))
        if taken is None:
            return None
        count, stored = taken
        if count:
            body.taken(count, stored)
            decoder.contentLength -= count
            if not decoder.contentLength:
                # For what follows a body.
                decoder.dataReceived(b"")
        return count

    def _choose_reads(self, body: StreamingBody) -> None:
        """Read long pieces if a body is long, and choose the size of the next read."""
        if self.length is None or self.length < SHORT_BODY:
            # Of a chunked one, as many chunks as fit into a read are decoded at once.
            return
        transport = self.transport
        if isinstance(transport, TCPConnection):
            # The read ends at a multiple of READ_SIZE in the file: the page cache needs
            # less work for such writes.
            position = body.position + body.received
            transport.bufferSize = READ_SIZE - position % READ_SIZE
            # Not by a subclass: the endpoint makes the transport.
            transport.doRead = self._read_long_body  # type: ignore[method-assign]
            self._long_reads = transport
        elif (below := socket_below(transport)) is not None:
            is_of_use = takes_long_reads(transport)
            below.bufferSize = READ_SIZE if is_of_use else TCPConnection.bufferSize
            self._long_reads = below

    def _read_as_usual(self) -> None:
        """Read no more long pieces."""
        transport, self._long_reads = self._long_reads, None
        if transport is not None:
            transport.bufferSize = TCPConnection.bufferSize
            if transport is self.transport:
                del transport.doRead

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._read_as_usual()

    # Requests that were sent ahead

    def _wait_for_turn(self) -> None:
        """Leave the next request in ``_buffer`` until other connections are served."""
        self.paused = True
        self._networkProducer.pauseProducing()
        self.site.turns.wait(self)

    def take_turn(self) -> None:
        if self.state is not IN_LINE or self.transport.disconnecting:
            return
        if self._waitingForTransport:
            # A peer that does not take answers gets no more of them.
            self._move("full")
            return
        self.paused = False
        data, self._buffer = self._buffer, b""
        self._begin(data)
        if self.paused or self.transport.disconnecting:
            return
        if not self._half_closed:
            self._read_on()
        elif self.state is not SERVING:
            self._end()

    def _read_on(self) -> None:
        """Resume reading after a turn, unless there is another reason not to."""
        ahead = sum(map(len, self._dataBuffer))
        if (
            self.state is not HELD
            and not self._waitingForTransport
            and ahead <= self._optimisticEagerReadSize
        ):
            self._networkProducer.resumeProducing()

    # The heads of packets

    def _take(self, head: Head, data: bytes) -> None:
        """
        Start the request of a packet whose head has arrived in one piece.

        Afterwards, ``_buffer`` contains what follows the request, or, if its body has
        yet to be read, what follows the head.

        :param data: The bytes that have arrived, starting with this head.
        """
        # Bytes that are delivered from within this call wait in _buffer.
        self._busyReceiving = True
        try:
            length = head.body_length
            end = head.length + length
            is_whole = not length or (end <= len(data) and not head.expects)
            # What follows a head is not read as lines: see rawDataReceived.
            self.line_mode = 0
            streaming = None
            if is_whole:
                self._buffer = data[end:]
                self._handlingRequest = True
                self._move("completed")
            else:
                self._buffer = data[head.length :]
                self.length = length
                streaming = self._offer(length, head.headers, head.version)
                self._transferDecoder = _IdentityTransferDecoder(
                    length, streaming.deliver, self._body_arrived
                )
            request = self.site.requestFactory(self)
            self.requests.append(request)
            request.take_head(head)
            request.streaming_body = streaming
            if is_whole and length:
                request.whole_body = WholeBody(self, data[head.length : end])
            if not head.is_kept:
                # Until then, it is kept: this would not be read otherwise.
                self.persistent = self.checkPersistence(request, head.version)
            request.dispatch(METHOD, head.target, head.version)
        finally:
            self._busyReceiving = False

    def rawDataReceived(self, data: bytes) -> None:
        """Take what follows a head: bytes of the body, or of the next request."""
        if self.state.discards:
            # It arrived together with the head of a request that was refused.
            self._discard(data)
        else:
            super().rawDataReceived(data)

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
        if self.state is OFFERED:
            # Not earlier: only now is the channel ready for an immediate answer.
            self.requests[-1].dispatch(self._command, self._path, self._version)

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        if header == b"Content-Length" and len(data) > _LONGEST_LENGTH:
            # HTTPChannel would parse it as a number, whatever its length.
            return bool(self._failChooseTransferDecoder())
        return bool(super()._maybeChooseTransferDecoder(header, data))

    def lineLengthExceeded(self, line: bytes) -> None:
        self._respondToBadRequestAndDisconnect()

    def allHeadersReceived(self) -> None:
        request = self.requests[-1]
        if not request.carries_packet(self._command):
            self._other_received = self._progress = 0
            self._move("collected")
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
        if self.length != 0:
            request.streaming_body = self._offer(
                self.length, request.lower_headers(), self._version
            )

    def _offer(
        self,
        length: int | None,
        headers: Mapping[bytes, Sequence[bytes]],
        version: bytes,
    ) -> StreamingBody:
        """Offer the body that follows a head, to the request that is to read it."""
        expect = headers.get(b"expect", [b""])[0]
        self._body = body = StreamingBody(
            self,
            length,
            expect.lower() == b"100-continue" and version == b"HTTP/1.1",
        )
        self._progress = 0
        self._move("offered")
        return body

    def checkPersistence(self, request: StreamingRequest, version: bytes) -> bool:
        # Not HTTPChannel.checkPersistence, which reads only the first Connection header
        # and splits it at spaces.
        kept = is_kept(request.lower_headers(), version)
        if version != b"HTTP/1.1" and kept:
            # Proxies believe the head, which otherwise says HTTP/1.1.
            request.keeps_alive = True
            request.responseHeaders.setRawHeaders(b"Connection", [b"Keep-Alive"])
        elif not kept and (request.is_packet or version == b"HTTP/1.1"):
            # The head of any other answer to HTTP/1.0 is HTTP/1.0 itself.
            request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        return kept

    def _finishRequestBody(self, data: bytes | memoryview) -> None:
        super()._finishRequestBody(bytes(data))

    def _body_arrived(self, following: bytes | memoryview) -> None:
        """
        The body of a request whose head arrived in one piece is complete.

        This is HTTPChannel.allContentReceived without what only the lines of a head
        have changed.

        :param following: What arrived after it.
        """
        body = self._body
        if self.state.discards or body is None:
            return
        self._dataBuffer.append(bytes(following))
        self._complete()
        self._transferDecoder, self.length = None, 0
        self._handlingRequest = True
        body.end()

    def allContentReceived(self) -> None:
        if not self.state.discards:
            self._complete()
            super().allContentReceived()

    def _complete(self) -> None:
        """A request is complete. Read its body no more."""
        was_held = self.state is HELD
        self._move("completed")
        if self._body is not None:
            self._body = None
            if self._long_reads is not None:
                self._read_as_usual()
            if was_held and not self._waitingForTransport:
                # HTTPChannel reads a little ahead, to notice a lost connection.
                self._networkProducer.resumeProducing()

    def requestDone(self, request: Request) -> None:
        if self.state is LINGERING:
            self.requests.remove(request)
            self._linger()
            return
        if not self.persistent:
            super().requestDone(request)
            return
        # Not HTTPChannel.requestDone, which would start the next request at once.
        self.requests.remove(request)
        self._handlingRequest = False
        self.line_mode = 1
        if self._dataBuffer:
            self._buffer = b"".join(self._dataBuffer) + self._buffer
            self._dataBuffer = []
        if self._buffer:
            self._move("ahead")
            self._wait_for_turn()
        elif self._half_closed:
            self._end()
        else:
            self._move("answered")
            if self._waitingForTransport:
                # The peer has to take its answers before it sends more requests.
                self._networkProducer.pauseProducing()

    def take_other(self, data: bytes) -> bool:
        """
        Count the next bytes of a body for another resource.

        :returns: Whether to keep them.
        """
        self._other_received += len(data)
        if self._other_received <= self.site.limits.max_other_body:
            return True
        if self.state is not LINGERING:
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
        self._refuse_what_is_no_request("a request that is not HTTP")

    def _refuse_what_is_no_request(self, what: str) -> None:
        _log.info(
            "refused {what} from {client}",
            what=what,
            client=self._peer or "-",
            status=400,
        )
        self.transport.write(BAD_REQUEST)
        self.loseConnection()
