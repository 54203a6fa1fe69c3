"""
A request that is processed before its body has arrived, if it carries a packet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import unquote_to_bytes as unquote

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, parse_qs
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from txbits.protocol.codec import (
    MAX_VALUE_LENGTH,
    RemoteProtocolError,
    encode_ack,
    is_upload_request,
    session_id_of,
)
from txbits.protocol.packets import Ack
from txbits.protocol.refusals import MALFORMED_HEADER
from txbits.protocol.urls import without_link
from txbits.web._streaming.bodies import StreamingBody, WholeBody
from txbits.web._streaming.head import Head
from txbits.web._streaming.taking import send_now

T = TypeVar("T")

_log = Logger()

#: The maximum length of a Host header, in bytes. Names in the DNS have up to 253.
_LONGEST_HOST = 1024

# RFC 9110 7.2: uri-host [ ":" port ], as in RFC 3986 3.2.2. An address in brackets is
# not checked here.
_HOST = re.compile(
    rb"(?:\[[\x21-\x5c\x5e-\x7e]*\]|[-._~%!$&'()*+,;=0-9A-Za-z]*)(?::[0-9]*)?"
)


@lru_cache(1024)
def _is_host(value: bytes) -> bool:
    """Whether this is a valid value of a Host header."""
    return _HOST.fullmatch(value) is not None


def headers_of(request: Request) -> Mapping[bytes, Sequence[bytes]]:
    """The headers of *request* by lower-case name, whatever kind of site it came to."""
    if isinstance(request, StreamingRequest):
        return request.lower_headers()
    return _lowered(request.requestHeaders)


def _names_its_host(headers: Mapping[bytes, Sequence[bytes]], version: bytes) -> bool:
    # RFC 9112 3.2: a request of HTTP/1.1 has exactly one, any other at most one.
    hosts = headers.get(b"host")
    if hosts is None:
        return version == b"HTTP/1.0"
    return len(hosts) == 1 and len(hosts[0]) <= _LONGEST_HOST and _is_host(hosts[0])


def head_of(request: Request) -> tuple[Mapping[bytes, Sequence[bytes]], bool]:
    """
    The head of *request*, whatever kind of site it came to.

    :returns: The headers by lower-case name, and whether it is known that none of their
        values is longer than MC-BUP's 4 KiB.
    :raises RemoteProtocolError: If it does not name its host. Streaming sites have
        refused such a request before.
    """
    if isinstance(request, StreamingRequest):
        return request.lower_headers(), request.has_short_head
    headers = _lowered(request.requestHeaders)
    if not _names_its_host(headers, request.clientproto):
        raise RemoteProtocolError(
            "it does not have exactly one valid Host header", MALFORMED_HEADER
        )
    return headers, False


def memory_of(request: Request) -> dict[Any, Any]:
    """What is remembered about the connection of a request, until it ends."""
    channel: Any = request.channel
    memory: dict[Any, Any] | None = getattr(channel, "memory", None)
    if memory is None:
        memory = channel.memory = {}
    return memory


#: Under this key, :func:`memory_of` has the logins that another worker has told of; see
#: :class:`txbits.interfaces.IRelayable`. The first that needs them takes them.
TOLD_LOGINS = object()


def invite_body(request: Request) -> None:
    """
    Send a 100 Continue that the client waits for, before the request is refused.

    The body is then discarded as any other, and the connection can be kept.
    """
    body = getattr(request, "streaming_body", None)
    if body is not None:
        body.invite()


def keeps_alive(request: Request) -> bool:
    """Whether the connection of a request of HTTP/1.0 is kept."""
    return isinstance(request, StreamingRequest) and request.keeps_alive


def _lowered(headers: Headers) -> Mapping[bytes, Sequence[bytes]]:
    return {name.lower(): values for name, values in headers.getAllRawHeaders()}


def path_of(target: bytes) -> bytes:
    """
    The path that a request-target names, without its query.

    RFC 9112 3.2.2: "a server MUST accept the absolute-form in requests". Any other form
    names the root.
    """
    if target.startswith(b"/"):
        return target
    _, separator, rest = target.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if separator else b"/"


def destination_of(request: Request) -> tuple[str, ...]:
    """
    The segments of the path of *request*, below the resource that it has reached.

    A segment that is not UTF-8 becomes one that every backend refuses.
    """
    segments: list[bytes] = request.postpath or []
    if not request.path.startswith(b"/"):
        # A plain site has taken an absolute URL for a path.
        segments = [unquote(part) for part in path_of(request.path)[1:].split(b"/")]
    return tuple([one.decode("utf-8", "surrogateescape") for one in segments])


def directory_of(request: Request) -> str:
    """
    The path of the virtual directory that *request* has reached, for the log.

    :returns: A path such as ``/uploads``, not quoted; empty for the root.
    """
    above = [one for one in request.prepath or () if one]
    return "".join("/" + one.decode("utf-8", "replace") for one in above)


class _made_when_asked_for(Generic[T]):  # noqa: N801 - it is used as a decorator
    """
    Makes an attribute when it is first used.

    Before Python 3.12, ``functools.cached_property`` takes a lock.
    """

    def __init__(self, make: Callable[[Any], T]) -> None:
        self._make = make
        self._name = make.__name__

    def __get__(self, request: Any, kind: type | None = None) -> T:
        made: T = self._make(request)
        request.__dict__[self._name] = made
        return made


class _PacketHeaders(Headers):
    """
    The headers of a packet, converted to twisted.web's form when they are first used.

    :param lower: Values by lower-case name.
    """

    __slots__ = ("_lower", "_raw")

    def __init__(self, lower: Mapping[bytes, Sequence[bytes]]) -> None:
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


class Connection(Protocol):
    """What a request needs of its connection, beyond twisted.web's."""

    site: Any
    transport: Any
    persistent: Any
    host: Any
    attached: Any

    def abort(self) -> None: ...
    def getPeer(self) -> Any: ...
    def take_other(self, data: bytes) -> bool: ...
    def linger_after_response(self) -> None: ...


class StreamingRequest(Request):
    """
    A request that is processed when its head has arrived, if it carries a packet.

    :ivar is_packet: Whether it carries one; ``None`` before its head is complete.
    :ivar has_short_head: Whether none of its values can be longer than 4 KiB.
    :ivar streaming_body: Its body, if it has one that streams.
    :ivar whole_body: Its body, if it arrived with the head.
    :ivar keeps_alive: Whether its connection, although it is HTTP/1.0, is kept if the
        answer has a length.
    """

    channel: Connection  # type: ignore[assignment]
    streaming_body: StreamingBody | None = None
    whole_body: WholeBody | None = None
    is_packet: bool | None = None
    has_short_head = False
    keeps_alive = False
    _answer: bytes | None = None
    _lower: Mapping[bytes, Sequence[bytes]] | None = None

    def __repr__(self) -> str:
        return without_link(super().__repr__())

    def __init__(self, channel: Connection, queued: object = False) -> None:
        """
        Set what every request has.

        ``Request.__init__`` would also make objects that few packets need. Here they
        are the attributes below, and made when they are first used.
        """
        Componentized.__init__(self)
        self.notifications: list[Deferred[None]] = []
        self.channel = channel
        self.client = channel.getPeer()
        self.host = channel.host
        self.transport = channel.transport
        self.queued = queued
        # Before Twisted 25 a site has no such setting.
        self._parsePOSTFormSubmission = getattr(
            channel.site, "_parsePOSTFormSubmission", True
        )

    @_made_when_asked_for
    def requestHeaders(self) -> Headers:
        return Headers() if self._lower is None else _PacketHeaders(self._lower)

    @_made_when_asked_for
    def responseHeaders(self) -> Headers:
        return Headers()

    @_made_when_asked_for
    def received_cookies(self) -> dict[bytes, bytes]:
        return {}

    @_made_when_asked_for
    def cookies(self) -> list[bytes]:
        return []

    def take_head(self, head: Head) -> None:
        """Take the head of a packet."""
        headers = self._lower = head.headers
        self.is_packet = True
        self.has_short_head = head.length <= MAX_VALUE_LENGTH
        if b"cookie" in headers:
            self.parseCookies()

    def lower_headers(self) -> Mapping[bytes, Sequence[bytes]]:
        """The headers by lower-case name, as the protocol core expects them."""
        if self._lower is None:
            self._lower = _lowered(self.requestHeaders)
        return self._lower

    def carries_packet(self, method: bytes) -> bool:
        """Whether this request is to be dispatched on its head."""
        if self.is_packet is None:
            self.is_packet = self.channel.site.only_uploads or is_upload_request(
                method, self.lower_headers()
            )
        return self.is_packet

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

        This is what ``requestReceived`` does with a complete request, without parsing
        forms.
        """
        self.method, self.uri, self.clientproto = method, target, version
        self.path, _, query = target.partition(b"?")
        self.args = parse_qs(query, True) if query else {}
        self.content = BytesIO()
        self.process()

    def handleContentChunk(self, data: bytes) -> None:
        if self.streaming_body is not None:
            self.streaming_body.deliver(data)
        elif self.channel.take_other(data):
            super().handleContentChunk(data)

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
        if not _names_its_host(self.lower_headers(), self.clientproto):
            self._refuse_host()
            return
        if not self.is_packet:
            super().process()
            return
        self.site = self.channel.site
        self.prepath = []
        self.postpath = self.path[1:].split(b"/")
        if b"%" in self.path:
            self.postpath = [unquote(segment) for segment in self.postpath]
        try:
            self.render(self.site.getResourceFor(self))
        except Exception:  # noqa: BLE001 - as Request.process does
            self.processingFailed(Failure())

    def _refuse_host(self) -> None:
        """Refuse a request that does not name its host."""
        _log.info(
            "refused a request from {client}: {count} Host headers, or an invalid one",
            client=getattr(self.getClientAddress(), "host", "-"),
            count=len(self.lower_headers().get(b"host", ())),
            status=MALFORMED_HEADER.status,
        )
        ack = Ack(
            MALFORMED_HEADER.status,
            session_id_of(self.lower_headers()),
            hresult=MALFORMED_HEADER.hresult,
            context=MALFORMED_HEADER.context,
        )
        self.answer(ack.status, encode_ack(ack))

    def _ends_by_length(self) -> bool:
        """Whether the answer ends before the connection does."""
        return (
            self.method == b"HEAD"
            or self.code in NO_BODY_CODES
            or self.responseHeaders.hasHeader(b"Content-Length")
        )

    def answer(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """
        Respond without a body, and finish.

        The names of headers are sent as they are given: ``Headers`` would write
        ``Bits-Packet-Type``.

        :param status: The status.
        :param headers: Among them Content-Length.
        """
        self.code = status
        lines = [name + b": " + value for name, value in headers]
        self._answer = b"\r\n".join([b"", *lines])
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
            if (
                self.keeps_alive
                and not self.startedWriting
                and not self._ends_by_length()
            ):
                self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
                self.channel.persistent = False
            if self.is_packet and not self.startedWriting:
                self.setHeader(b"Server", b"txbits")
                self.setHeader(b"Date", self.channel.site.date())
            super().write(data)
        elif not self.startedWriting:
            self.startedWriting = 1
            # If they were never used, there are none.
            if "responseHeaders" in self.__dict__:
                # twisted.web sets these for other requests; they are there already.
                self.responseHeaders.removeHeader(b"Server")
                self.responseHeaders.removeHeader(b"Date")
                for name, values in self.responseHeaders.getAllRawHeaders():
                    for value in values:
                        self._answer += b"\r\n%b: %b" % (name, value)
            begins = self.channel.site.answer_begins(self.code)
            send_now(self.channel.transport, begins + self._answer + b"\r\n\r\n")

    def finish(self) -> None:
        body = self.streaming_body
        if body is None or body.ended or self._disconnected:
            self._finish()
        elif body.can_be_drained:
            body.drain(self._finish_drained)
        else:
            self._finish_and_close(body)

    def _finish(self) -> None:
        if self._answer is None or self._disconnected or self.finished:
            super().finish()
            return
        # This is what Request.finish does for an answer without a body.
        self.write(b"")
        self.channel.site.log(self)
        self.finished = 1
        self._cleanup()

    def _finish_drained(self) -> None:
        body = self.streaming_body
        if self._disconnected:
            return
        if body is None or body.ended:
            self._finish()
        else:
            self._finish_and_close(body)

    def _finish_and_close(self, body: StreamingBody) -> None:
        body.refuse()
        self.responseHeaders.setRawHeaders(b"Connection", [b"close"])
        self.channel.linger_after_response()
        self._finish()

    def connectionLost(self, reason: Failure) -> None:
        super().connectionLost(reason)
        body = self.streaming_body or self.whole_body
        if body is not None:
            body.lost()
