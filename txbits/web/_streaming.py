"""
A site whose upload requests stream, and the only place that leans on twisted.web.

``twisted.web`` collects a whole body in a temporary file before any resource sees its
request. Here the request of a BITS packet is handed to its resource as soon as the
head is complete, and the body flows to whoever asks for it, chunk by chunk, with
back-pressure. All other requests of the site are treated as ever.

What is leaned on, and pinned by tests on the lowest and the latest Twisted supported:

- ``HTTPChannel.lineReceived``, ``allHeadersReceived``, ``allContentReceived`` and
  ``requestDone`` as the stations of a request, with the request's line in
  ``_command``, ``_path`` and ``_version`` between the first and the third;
- ``HTTPChannel._send100Continue`` and ``_networkProducer``;
- ``Request.requestReceived`` setting the request up and calling ``process``.

Time-outs are deadlines, one number a connection, looked at every few seconds by the
site: a delayed call for each of thousands of idle connections would cost more memory
than the rest of the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from io import BytesIO
from math import inf
from typing import Any
from urllib.parse import unquote_to_bytes as unquote

from attrs import define, field, frozen, validators
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import RESPONSES, HTTPChannel, datetimeToString, parse_qs
from twisted.web.http import Request as HTTPRequest
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource
from twisted.web.server import Request, Site
from zope.interface import implementer

from txbits.protocol.codec import METHOD, is_upload_request
from txbits.sessions import IRequestBody
from txbits.web._head import read_head

_log = Logger()

#: How much is read from a socket at a time while a long body arrives, in bytes.
#: Measured: three times as fast as the 64 KiB that Twisted reads otherwise, and a sixth
#: less work than 256 KiB; 1 MiB gains no more, and lets one client keep the others
#: waiting.
READ_SIZE = 512 * 1024

#: Bodies shorter than this do not need that.
_SHORT_BODY = 64 * 1024

#: How much of a refused body is read and thrown away, in bytes, so that the answer
#: reaches a client that reads it only when it has sent everything. Windows' fragments
#: are up to 13 MB long.
DRAIN_LIMIT = 16 * 1024 * 1024

#: What must arrive of a body within ``body_timeout``, in bytes.
MINIMUM_PROGRESS = 1024

#: The longest head of a request, in bytes: Kerberos tickets are long.
MAX_HEAD = 64 * 1024

#: The digits of the longest Content-Length that is read as a number.
_LONGEST_LENGTH = 1000

#: Seconds that a peer is given to take its answer and close.
_LINGER = 30.0

#: Seconds from one look at all deadlines to the next.
_REAP_INTERVAL = 5.0


@frozen(kw_only=True)
class Limits:
    """
    What one peer, and all peers together, may take of a site.

    :ivar header_timeout: Seconds for a request's head to arrive.
    :ivar body_timeout: Seconds within which at least 1 KiB of a body must arrive.
    :ivar idle_timeout: Seconds that a connection may rest between two requests. Windows
        keeps one a job, and proxies pool them: at least 120.
    :ivar max_connections: How many connections there may be at a time.
    :ivar max_connections_per_peer: How many of them from one address; a proxy in front,
        or a company behind one address, needs many.
    """

    header_timeout: float = field(default=60.0, validator=validators.gt(0))
    body_timeout: float = field(default=60.0, validator=validators.gt(0))
    idle_timeout: float = field(default=180.0, validator=validators.ge(120))
    max_connections: int = field(default=10_000, validator=validators.gt(0))
    max_connections_per_peer: int = field(default=5_000, validator=validators.gt(0))


@implementer(IRequestBody)
@define(eq=False)
class StreamingBody:
    """
    The body of a request, while it arrives.

    Until :meth:`receive` is called nothing more is read than has been. A consumer that
    takes its time stops the reading as well, so that there is never more of a body in
    memory than one read of the socket.

    :ivar position: Where in the file its first byte belongs. Reads of a long body end
        at multiples of their size: the page cache takes such writes with less work.
    """

    _channel: StreamingChannel
    _length: int | None
    _expects_continue: bool
    position: int = 0
    received: int = 0
    ended: bool = False
    _lost: bool = False
    _consume: Callable[[bytes], Deferred[None]] | None = None
    _outcome: Deferred[bool] | None = None
    _consuming: bool = False
    _waiting: bytearray = field(factory=bytearray)
    _refused: bool = False
    _when_drained: Callable[[], None] | None = None
    _drained: int = 0

    # For whoever wants the body

    def receive(self, consume: Callable[[bytes], Deferred[None]]) -> Deferred[bool]:
        self._outcome = outcome = Deferred[bool]()
        self._consume = consume
        if not self._lost and not self.ended:
            if self._expects_continue:
                self._expects_continue = False
                self._channel.send_continue()
            if not self._waiting:
                self._channel.await_body()
        self._flow()
        return outcome

    def stop(self) -> None:
        if not self._lost and not self.ended:
            self.lost()
            self._channel.abort()

    # For the channel

    @property
    def _is_long(self) -> bool:
        return self._length is None or self._length >= _SHORT_BODY

    def deliver(self, data: bytes) -> None:
        """Take the next bytes that arrived."""
        self.received += len(data)
        if self._is_long:
            self._channel.read_up_to(self.position + self.received)
        if self._refused:
            self._drained += len(data)
            if self._drained > DRAIN_LIMIT:
                self._drain_no_longer()
        elif self._consume is None or self._consuming:
            self._waiting += data
            self._channel.pause_body()
        elif self._length is None:
            # Chunks may be tiny; what one read brought of them is one write.
            self._waiting += data
        elif not self._lost:
            self._feed(data)

    def read_over(self) -> None:
        """Everything that one read brought has been delivered."""
        if self._waiting:
            self._flow()

    def end(self) -> None:
        """The last byte has arrived."""
        self.ended = True
        if self._when_drained is not None:
            self._drain_no_longer()
        else:
            self._flow()

    def lost(self) -> None:
        """No more will arrive; what has, is still for the consumer."""
        self._lost = True
        self._flow()

    @property
    def can_be_drained(self) -> bool:
        """
        Whether what is left is short enough to read and throw away.

        A client that waits for a 100 Continue may leave its body away, or may not.
        """
        rest = 0 if self._length is None else self._length - self.received
        return rest <= DRAIN_LIMIT and not self._expects_continue

    def drain(self, done: Callable[[], None]) -> None:
        """
        Throw the rest away.

        :param done: Called when the body has ended, or turned out to be too long.
        """
        self.refuse()
        self._when_drained = done
        self._channel.await_body()

    def refuse(self) -> None:
        """Nobody wants this body, nor what has arrived of it."""
        self._refused = True
        self._waiting.clear()

    def _drain_no_longer(self) -> None:
        done, self._when_drained = self._when_drained, None
        if done is not None:
            done()

    def _flow(self) -> None:
        """Hand over what waits, then go on reading, or come to an end."""
        if self._consume is not None and self._waiting and not self._consuming:
            data = bytes(self._waiting)
            self._waiting.clear()
            self._feed(data)
        if self._consume is None or self._consuming:
            return
        if self.ended or self._lost:
            self._finish(self.ended)
        else:
            self._channel.resume_body()

    def _feed(self, data: bytes) -> None:
        assert self._consume is not None  # noqa: S101
        consumed = self._consume(data)
        if consumed.called and getattr(consumed, "result", consumed) is None:
            return
        self._consuming = True
        if not self.ended:
            self._channel.pause_body()
        consumed.addCallbacks(self._consumed, self._failed)

    def _consumed(self, _: None) -> None:
        self._consuming = False
        self._flow()

    def _failed(self, failure: Failure) -> None:
        self._consuming = False
        self._waiting.clear()
        self._finish(failure)

    def _finish(self, outcome: bool | Failure) -> None:
        waiting, self._outcome, self._consume = self._outcome, None, None
        if waiting is not None:
            waiting.callback(outcome)


@implementer(IRequestBody)
@define(eq=False)
class BufferedBody:
    """A body that some other site has collected before anyone could ask for it."""

    _content: Any

    def receive(self, consume: Callable[[bytes], Deferred[None]]) -> Deferred[bool]:
        async def feed() -> bool:
            # The site closes it when the connection is lost.
            while not self._content.closed:
                data = self._content.read(READ_SIZE)
                if not data:
                    return True
                await consume(data)
            return False

        return Deferred.fromCoroutine(feed())

    def stop(self) -> None:
        """All of it is here already: there is nothing to end."""


def headers_of(request: Request) -> Mapping[bytes, Sequence[bytes]]:
    """The headers of *request* by lower-case name, whatever kind of site it came to."""
    if isinstance(request, StreamingRequest):
        return request.lower_headers()
    return _lowered(request.requestHeaders)


def _lowered(headers: Headers) -> Mapping[bytes, Sequence[bytes]]:
    return {name.lower(): values for name, values in headers.getAllRawHeaders()}


def body_of(request: Request, position: int) -> IRequestBody:
    """
    The body of *request*, whatever kind of site it came to.

    :param position: Where in the file its first byte belongs.
    """
    body: StreamingBody | None = getattr(request, "streaming_body", None)
    if body is None:
        return BufferedBody(request.content)
    body.position = position
    return body


def path_of(target: bytes) -> bytes:
    """
    The path that a request-target names, without its query.

    RFC 9112 3.2.2: "a server MUST accept the absolute-form in requests". What is
    neither that nor a path names nothing below the root.
    """
    if target.startswith(b"/"):
        return target
    _, separator, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if separator else b"/"


class _PacketHeaders(Headers):
    """
    The headers of a packet, in twisted.web's form as soon as anyone asks for them.

    :param lower: Values by lower-case name.
    """

    __slots__ = ("_lower", "_raw")

    def __init__(self, lower: dict[bytes, list[bytes]]) -> None:
        self._lower = lower
        self._raw: dict[bytes, list[bytes]] | None = None

    @property
    def _rawHeaders(  # type: ignore[override]
        self,
    ) -> dict[bytes, list[bytes]]:
        if self._raw is None:
            self._raw = {}
            for name, values in self._lower.items():
                self.setRawHeaders(name, values)
        return self._raw


class StreamingRequest(Request):
    """
    A request that is processed when its head is there, if it carries a packet.

    :ivar streaming_body: Its body, if it has one that streams.
    """

    channel: StreamingChannel
    streaming_body: StreamingBody | None = None
    _carries_packet: bool | None = None
    _answer: bytes | None = None
    _lower: Mapping[bytes, Sequence[bytes]] | None = None

    def take_head(self, headers: dict[bytes, list[bytes]]) -> None:
        """
        Take the headers of a packet.

        :param headers: Values by lower-case name.
        """
        self._lower = headers
        self._carries_packet = True
        self.requestHeaders = _PacketHeaders(headers)

    def lower_headers(self) -> Mapping[bytes, Sequence[bytes]]:
        """The headers by lower-case name, as the protocol core takes them."""
        if self._lower is None:
            self._lower = _lowered(self.requestHeaders)
        return self._lower

    def carries_packet(self, method: bytes) -> bool:
        """Whether this is for an upload server."""
        if self._carries_packet is None:
            self._carries_packet = is_upload_request(method, self.lower_headers())
        return self._carries_packet

    def parseCookies(self) -> None:
        if self._lower is None or b"cookie" in self._lower:
            super().parseCookies()

    def gotLength(self, length: int | None) -> None:
        if length == 0:
            self.content = BytesIO()
        else:
            super().gotLength(length)

    def dispatch(self, method: bytes, target: bytes, version: bytes) -> None:
        """
        Begin to process a request that carries a packet, before its body.

        This is what ``requestReceived`` does when the body is there; a packet's is
        never a form.
        """
        self.method, self.uri, self.clientproto = method, target, version
        self.path, _, query = target.partition(b"?")
        self.args = parse_qs(query, True) if query else {}
        self.content = BytesIO()
        self.process()

    def handleContentChunk(self, data: bytes) -> None:
        if self.streaming_body is None:
            super().handleContentChunk(data)
        else:
            self.streaming_body.deliver(data)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        if self.streaming_body is not None:
            self.streaming_body.end()
        elif self.carries_packet(command):
            self.dispatch(command, path, version)
        else:
            super().requestReceived(command, path, version)

    def process(self) -> None:
        if self.path != b"*":
            self.path = path_of(self.path)
        if not self._carries_packet:
            super().process()
            return
        self.site = self.channel.site
        self.prepath = []
        self.postpath = [unquote(segment) for segment in self.path[1:].split(b"/")]
        try:
            self.render(self.site.getResourceFor(self))
        except Exception:  # noqa: BLE001 - as Request.process does
            self.processingFailed(Failure())

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """
        Respond without a body, and finish.

        The names of headers go out as they are given: ``Headers`` would write
        ``Bits-Packet-Type``.

        :param status: The status.
        :param headers: Among them Content-Length.
        """
        self.code = status
        lines = [
            b"HTTP/1.1 %d %b" % (status, RESPONSES.get(status, b"")),
            b"Server: txbits",
            b"Date: " + self.channel.site.date(),
        ]
        lines.extend(b"%b: %b" % header for header in headers)
        self._answer = b"\r\n".join(lines)
        self.finish()

    def write(self, data: bytes) -> None:
        body = self.streaming_body
        if (
            not self.startedWriting
            and body is not None
            and not body.ended
            and not body.can_be_drained
        ):
            self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        if self._answer is None:
            if self._carries_packet and not self.startedWriting:
                self.setHeader(b"Server", b"txbits")
                self.setHeader(b"Date", self.channel.site.date())
            super().write(data)
        elif not self.startedWriting:
            self.startedWriting = 1
            for name, values in self.responseHeaders.getAllRawHeaders():
                for value in values:
                    self._answer += b"\r\n%b: %b" % (name, value)
            self.channel.send_now(self._answer + b"\r\n\r\n")

    def finish(self) -> None:
        body = self.streaming_body
        if body is None or body.ended or self._disconnected:
            super().finish()
        elif body.can_be_drained:
            body.drain(self._finish_drained)
        else:
            self._finish_and_close(body)

    def _finish_drained(self) -> None:
        body = self.streaming_body
        if self._disconnected:
            return
        if body is None or body.ended:
            super().finish()
        else:
            self._finish_and_close(body)

    def _finish_and_close(self, body: StreamingBody) -> None:
        body.refuse()
        self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self.channel.linger_after_response()
        super().finish()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        if self.streaming_body is not None:
            self.streaming_body.lost()


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
    _idle = True
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
        if self._in_body and self._body is not None and not self._lingering:
            progress = self._body.received - self._progress
            if progress >= MINIMUM_PROGRESS:
                self._progress = self._body.received
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

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self.site.reactor.seconds() + seconds

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
            self._set_deadline(self.site.limits.header_timeout)
            data = self._take_head(data)
        elif self._in_other_body:
            self._set_deadline(self.site.limits.body_timeout)
        # Not HTTPChannel's, which would let any byte put off any time-out.
        LineReceiver.dataReceived(self, data)
        if self._body is not None:
            self._body.read_over()
        if self._idle and self._buffer:
            # The beginning of another head came behind a request.
            self._idle = False
            self._set_deadline(self.site.limits.header_timeout)

    def _take_head(self, data: bytes) -> bytes:
        """
        Begin a request whose head has arrived in one piece, if it is of a packet.

        :returns: What is left of *data*, all of it if this is not such a head.
        """
        if self._buffer or self._busyReceiving or not self.persistent:
            return data
        head = read_head(data, MAX_HEAD, self.maxHeaders)
        if head is None:
            return data
        request = self.site.requestFactory(self)
        self.requests.append(request)
        self._command, self._path, self._version = METHOD, head.target, head.version
        for name in (b"content-length", b"transfer-encoding"):
            for value in head.headers.get(name, ()):
                if not self._maybeChooseTransferDecoder(name.title(), value):
                    return b""
        request.take_head(head.headers)
        # Whoever answers this may have the channel go on with what was sent behind it.
        self._busyReceiving = True
        try:
            self.allHeadersReceived()
            if self.length == 0:
                self.allContentReceived()
            else:
                self.setRawMode()
                self._dispatch(request)
        finally:
            self._busyReceiving = False
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
            self._set_deadline(self.site.limits.body_timeout)
            super().allHeadersReceived()
            return
        request.parseCookies()
        self.persistent = self.checkPersistence(request, self._version)
        if self.length == 0:
            return
        # Until somebody wants the body it is for us to hurry.
        self.deadline = inf
        expect = request.lower_headers().get(b"expect", [b""])[0]
        self._body = request.streaming_body = StreamingBody(
            self,
            self.length,
            expect.lower() == b"100-continue" and self._version == b"HTTP/1.1",
        )
        self._progress = 0

    def checkPersistence(self, request: StreamingRequest, version: bytes) -> bool:
        if request.carries_packet(self._command) and version == b"HTTP/1.1":
            connection = request.lower_headers().get(b"connection", [b""])[0].lower()
            if connection in (b"", b"keep-alive"):
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
        # From here on it is for us to hurry.
        self.deadline = inf
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        if self._lingering:
            self.requests.remove(request)
            self._linger()
            return
        self._idle = True
        self._set_deadline(
            self.site.limits.idle_timeout if self.persistent else _LINGER
        )
        super().requestDone(request)

    def read_up_to(self, position: int) -> None:
        """Let the next read end at a multiple of the most that is read at a time."""
        if isinstance(self.transport, Connection):
            self.transport.bufferSize = READ_SIZE - position % READ_SIZE

    # Back-pressure

    def pause_body(self) -> None:
        """Read no more of the body for now."""
        if not self._body_paused:
            self._body_paused = True
            self.deadline = inf
            self._networkProducer.pauseProducing()

    def await_body(self) -> None:
        """From now on it is for the peer to hurry."""
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

    def resumeProducing(self) -> None:
        # The peer has taken what we sent, which is no reason to read its body.
        super().resumeProducing()
        if self._body_paused:
            self._networkProducer.pauseProducing()

    # Writing

    def send_continue(self) -> None:
        """Tell the peer that its body is wanted."""
        self._send100Continue()

    def linger_after_response(self) -> None:
        """Close when the response under way is written, though the peer still sends."""
        self.persistent = False
        self._lingering = True

    def _linger(self) -> None:
        # To close a socket with unread data resets the connection, and the peer may
        # never see the answer. So end our side only, and throw away what comes.
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


class BITSSite(Site):
    """
    A site for resources among which are :class:`~txbits.web.BITSResource`.

    :param resource: The root.
    :param reactor: Tells the time.
    :param limits: What peers may take.

    Unlike ``Site`` it writes no access log unless given a ``logPath``: the life of
    sessions is logged where it happens.
    """

    requestFactory: type[StreamingRequest] = StreamingRequest
    # No HTTP/2, and so no proxy that negotiates it.
    protocol = StreamingChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: IResource,
        *args: Any,
        reactor: IReactorTime | None = None,
        limits: Limits | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(resource, *args, reactor=reactor, **kwargs)
        self.limits = Limits() if limits is None else limits
        # Deadlines take the place of the channel's own time-out.
        self.timeOut = None
        self.channels: set[StreamingChannel] = set()
        self._by_peer: dict[str, int] = {}
        self._hosts: dict[IAddress, IAddress] = {}
        self._turned_away = 0
        self._dated = -1
        self._date = b""
        self._reaper = LoopingCall(self._reap)
        self._reaper.clock = self.reactor

    def startFactory(self) -> None:
        super().startFactory()
        self._reaper.start(_REAP_INTERVAL, now=False)

    def stopFactory(self) -> None:
        if self._reaper.running:
            self._reaper.stop()
        super().stopFactory()

    def acceptableProtocols(self) -> list[bytes]:
        """BITS is HTTP/1.1 (MC-BUP 2.2.1), also over TLS."""
        return [b"http/1.1"]

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> StreamingChannel | None:
        peer = getattr(addr, "host", "")
        if (
            len(self.channels) >= self.limits.max_connections
            or self._by_peer.get(peer, 0) >= self.limits.max_connections_per_peer
        ):
            self._turned_away += 1
            return None
        channel: StreamingChannel = super().buildProtocol(addr)
        channel._peer = peer
        return channel

    def connected(self, channel: StreamingChannel) -> None:
        """A connection was made."""
        self.channels.add(channel)
        peer = channel._peer
        self._by_peer[peer] = self._by_peer.get(peer, 0) + 1

    def disconnected(self, channel: StreamingChannel) -> None:
        """A connection was lost."""
        self.channels.discard(channel)
        peer = channel._peer
        left = self._by_peer.get(peer, 0) - 1
        if left > 0:
            self._by_peer[peer] = left
        else:
            self._by_peer.pop(peer, None)

    def date(self) -> bytes:
        """The value of a Date header, made once a second."""
        now = int(self.reactor.seconds())
        if now != self._dated:
            self._dated, self._date = now, datetimeToString(now)
        return self._date

    def intern(self, host: IAddress) -> IAddress:
        """One object for each local address, however many connections it has."""
        return self._hosts.setdefault(host, host)

    def log(self, request: HTTPRequest) -> None:
        if self.logPath is not None:
            super().log(request)

    def _reap(self) -> None:
        now = self.reactor.seconds()
        for channel in [one for one in self.channels if one.deadline < now]:
            channel.deadline_passed()
        if self._turned_away:
            _log.warn(
                "turned {count} connections away: max-connections is {most}, "
                "max-connections-per-peer is {most_per_peer}",
                count=self._turned_away,
                most=self.limits.max_connections,
                most_per_peer=self.limits.max_connections_per_peer,
            )
            self._turned_away = 0
