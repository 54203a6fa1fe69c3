"""
A request that is passed on to another worker, and its answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IPushProducer
from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES
from zope.interface import implementer

from txbits.web._streaming import StreamingRequest, Taken

#: Headers of answers that each connection has of its own.
_OWN = frozenset({b"connection", b"keep-alive", b"transfer-encoding"})

#: Headers that the site adds to answers without a body.
_ADDED = frozenset({b"date", b"server"})

#: Headers of requests that tell how a body is sent.
_FRAMING = frozenset({b"content-length", b"expect", b"transfer-encoding"})


class Line(Protocol):
    """What a request needs of the relay connection that carries it."""

    def send(self, data: bytes | memoryview) -> Deferred[None] | None: ...
    def take(self, source: int, most: int) -> Taken | None: ...
    def end_body_early(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


@implementer(IPushProducer)
@define(eq=False)
class Exchange:
    """
    Passes a request on, as it came, and the answer back.

    :param request: The request. Nothing of its body has been read.
    :ivar has_begun: Whether the client has got the beginning of the answer.
    :ivar is_sending: Whether the body of the request is under way.
    """

    _request: StreamingRequest
    has_begun: bool = field(default=False, init=False)
    is_sending: bool = field(default=False, init=False)
    _line: Line | None = field(default=None, init=False)
    _has_asked: bool = field(default=False, init=False)
    _is_chunked: bool = field(default=False, init=False)
    _whole: bytes = field(default=b"", init=False)
    _answer: tuple[int, list[tuple[bytes, bytes]]] | None = field(
        default=None, init=False
    )

    def __attrs_post_init__(self) -> None:
        request = self._request
        if request.whole_body is not None:
            request.whole_body.receive(self._keep)

    def _keep(self, data: bytes) -> Deferred[None]:
        self._whole = data
        return succeed(None)

    @property
    def is_head(self) -> bool:
        """Whether the answer has no body, whatever its head says."""
        return self._request.method == b"HEAD"

    @property
    def can_be_repeated(self) -> bool:
        """Whether all of the request could be sent once more."""
        return not self._has_asked and not self.has_begun

    # The request

    def head(self) -> bytes:
        """The head of the request, with its body if that is short."""
        request = self._request
        headers = request.lower_headers()
        # The header alone does not tell: there is "identity" as well.
        self._is_chunked = self._body is not None and self._body.is_chunked
        left_out = frozenset[bytes]()
        if request.method in (b"GET", b"HEAD"):
            left_out = _FRAMING
        lines = [b"%b %b %b" % (request.method, request.uri, request.clientproto)]
        lines += [
            b"%b: %b" % (name, value)
            for name, values in headers.items()
            if name not in left_out
            for value in values
        ]
        return b"\r\n".join([*lines, b"", self._whole])

    def carried_by(self, line: Line) -> None:
        """The head is sent on a relay connection, which is to get the body as well."""
        self._line = line
        body = self._body
        if body is not None and not body.is_held_back:
            self.invite()

    def invite(self) -> None:
        """Send the body, if there is one."""
        body = self._body
        if body is None or self._has_asked:
            return
        self._has_asked = self.is_sending = True
        assert self._line is not None  # noqa: S101
        store = None
        if not self._is_chunked:
            body.take, store = self._line.take, self._line.send
        body.receive(self._send, store).addCallbacks(self._is_sent, self._is_stopped)

    @property
    def _body(self) -> Any:
        request = self._request
        return None if request.method in (b"GET", b"HEAD") else request.streaming_body

    def _send(self, data: bytes) -> Deferred[None]:
        assert self._line is not None  # noqa: S101
        if self._is_chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        return self._line.send(data) or succeed(None)

    def _is_sent(self, is_whole: bool) -> None:
        """
        No more of the body will come.

        :param is_whole: Whether all of it has; otherwise the client has gone.
        """
        self.is_sending = False
        assert self._line is not None  # noqa: S101
        if not is_whole:
            self._line.end_body_early()
        elif self._is_chunked:
            sent = self._line.send(b"0\r\n\r\n")
            if sent is not None:
                sent.addErrback(self._is_stopped)

    def _is_stopped(self, _: Failure) -> None:
        """The relay connection is lost, which it tells by itself."""
        self.is_sending = False

    # The answer

    def begin(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Begin to answer."""
        request = self._request
        self.has_begun = True
        if request.clientproto == b"HTTP/1.0" and not request.keeps_alive:
            request.setHeader(b"Connection", b"close")
        kept = [one for one in headers if one[0].lower() not in _OWN]
        if (
            self.is_head
            or status in NO_BODY_CODES
            or any(
                name.lower() == b"content-length" and value == b"0"
                for name, value in kept
            )
        ):
            kept = [one for one in kept if one[0].lower() not in _ADDED]
            self._answer = status, kept
            return
        if request._disconnected:
            return
        request.setResponseCode(status)
        request.defaultContentType = None
        for name, value in kept:
            if name.lower() in _ADDED:
                request.responseHeaders.removeHeader(name)
            request.responseHeaders.addRawHeader(name, value)
        request.registerProducer(self, True)

    def write(self, data: bytes) -> None:
        """Go on with the body of the answer."""
        if not self._request._disconnected:
            self._request.write(data)

    def end(self) -> None:
        """The answer is complete."""
        request = self._request
        if request._disconnected:
            return
        if self._answer is not None:
            request.answer(*self._answer)
        else:
            request.unregisterProducer()
            self.resumeProducing()
            request.finish()

    def drop(self) -> None:
        """Drop the connection of the client, as the other worker has done with it."""
        if not self._request._disconnected:
            self._request.channel.abort()

    # For the connection of the client

    def pauseProducing(self) -> None:
        """The client takes no more for now."""
        if self._line is not None:
            self._line.pause()

    def resumeProducing(self) -> None:
        """The client takes more."""
        if self._line is not None:
            self._line.resume()

    def stopProducing(self) -> None:
        """The client has gone, which closes the relay connection as well."""
