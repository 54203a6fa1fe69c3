"""
Connections in raw bytes.

A check says things that no client would say, cuts packets short, and looks at answers
that an HTTP client would not show. All that a server sends is bounded here, and so
is how long it is waited for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.clocks import steady
from txbits.protocol._fields import (
    LocalProtocolError,
    check_session_id,
    parse_hresult,
    parse_offset,
)

#: The longest head and the longest body of an answer, in bytes.
MAX_HEAD = 64 * 1024
MAX_BODY = 64 * 1024

_STATUS_LINE = re.compile(rb"HTTP/([0-9]\.[0-9]) ([1-5][0-9][0-9])(?: [^\r\n]*)?")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[^\r\n]*\r\n")


class NoAnswer(Exception):
    """There is no answer, or none that is HTTP; the text says why."""


class Silence(NoAnswer):
    """Nothing has come for as long as is waited."""


@frozen
class Answer:
    """
    An answer as it came.

    :ivar version: The version of HTTP, such as ``1.1``.
    :ivar status: The status.
    :ivar headers: Values by lower-case name.
    :ivar body: The body; empty if its length is not told.
    """

    version: str
    status: int
    headers: Mapping[bytes, Sequence[bytes]]
    body: bytes = b""

    def first(self, name: bytes) -> bytes | None:
        """The first value of a header; its name in lower case."""
        values = self.headers.get(name)
        return values[0].strip(b" \t") if values else None

    @property
    def is_success(self) -> bool:
        """Whether the packet was taken."""
        return 200 <= self.status < 300

    @property
    def session_id(self) -> bytes | None:
        """BITS-Session-Id as it came: a GUID, or whatever the server made up."""
        value = self.first(b"bits-session-id")
        try:
            check_session_id((value or b"").decode("latin-1"))
        except LocalProtocolError:
            return None
        return value

    @property
    def offset(self) -> int | None:
        """What BITS-Received-Content-Range says, if it can be read."""
        try:
            return parse_offset(self.first(b"bits-received-content-range") or b"")
        except LocalProtocolError:
            return None

    @property
    def hresult(self) -> int | None:
        """The HRESULT, under whichever name."""
        code = self.first(b"bits-error-code") or self.first(b"bits-error")
        try:
            return parse_hresult(code or b"")
        except LocalProtocolError:
            return None

    @property
    def is_last(self) -> bool:
        """Whether no other answer can follow on its connection."""
        connection = (self.first(b"connection") or b"").lower()
        has_end = b"content-length" in self.headers or _is_chunked(self.headers)
        return self.version != "1.1" or b"close" in connection or not has_end

    def __str__(self) -> str:
        """Say it in a few words."""
        hresult = self.hresult
        offset = self.offset
        parts = [str(self.status)]
        parts += [] if hresult is None else [f"0x{hresult:08X}"]
        parts += [] if offset is None else [f"BITS-Received-Content-Range: {offset}"]
        return ", ".join(parts)


@implementer(IHandshakeListener)
class Wire(Protocol):
    """
    A connection.

    :param clock: For how long answers are waited for.
    :param patience: That is how many seconds, for all of one.
    """

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self._clock = steady(clock)
        self._patience = patience
        self._data = b""
        self._waiting: Deferred[None] | None = None
        self._deadline = 0.0
        self._is_used_up = False
        self._shaking: Deferred[Wire] = Deferred(lambda _: self.drop())
        self.is_closed = False

    @property
    def is_usable(self) -> bool:
        """Whether another packet can be sent."""
        return not (self.is_closed or self._is_used_up)

    def send(self, data: bytes) -> None:
        """Send bytes; into the void if the connection is gone."""
        if not self.is_closed:
            self._transport.write(data)

    def end(self) -> None:
        """
        Send the end: nothing more comes from this side.

        Over TLS that is its own end, which knows what was sent before, and is answered.
        """
        if ISSLTransport.providedBy(self.transport):
            self._transport.loseConnection()
        elif not self.is_closed:
            self._transport.loseWriteConnection()

    def drop(self) -> None:
        """Drop the connection. Again is fine."""
        if not self.is_closed:
            self._transport.abortConnection()

    def encrypted(self) -> Deferred[Wire]:
        """
        Wait until it is certain who the server is.

        :returns: A Deferred that fires with the connection, or fails with why it was
            lost before.
        """
        return self._shaking

    def handshakeCompleted(self) -> None:
        """See :class:`twisted.internet.interfaces.IHandshakeListener`."""
        self._shaking.callback(self)

    @property
    def _transport(self) -> Any:
        return self.transport

    async def answer(self) -> Answer:
        """
        Wait for the answer to what was sent, and take it.

        :raises NoAnswer: If there is none.
        """
        self._begin_to_wait()
        while True:
            found = await self._next()
            if found.status >= 200:
                return found

    async def continues(self) -> bool:
        """
        Wait for ``100 Continue``, and take it.

        :returns: Whether that came. If not, something else did, or nothing.
        """
        self._begin_to_wait()
        try:
            head = await self._head()
        except Silence:
            return False
        found = _parse_head(head)
        if found.status != 100:
            return False
        self._data = self._data[len(head) + 4 :]
        return True

    async def until_closed(self) -> bool:
        """
        Wait until the server ends the connection.

        :returns: Whether it did.
        """
        self._begin_to_wait()
        try:
            while not self.is_closed:
                self._data = b""
                await self._more()
        except Silence:
            return False
        return True

    async def _next(self) -> Answer:
        head = await self._head()
        found = _parse_head(head)
        start = len(head) + 4
        if found.status < 200:
            self._data = self._data[start:]
            return found
        if found.is_last:
            self._is_used_up = True
        if _is_chunked(found.headers):
            while (body := _unchunked(self._data[start:])) is None:
                await self._more()
            # Nothing but an error page comes in chunks, and no packet is sent after it.
            self._is_used_up = True
            return Answer(found.version, found.status, found.headers, body)
        length = _length(found)
        while len(self._data) < start + length:
            await self._more()
        body = self._data[start : start + length]
        self._data = self._data[start + length :]
        return Answer(found.version, found.status, found.headers, body)

    async def _head(self) -> bytes:
        while b"\r\n\r\n" not in self._data[:MAX_HEAD]:
            if len(self._data) > MAX_HEAD:
                raise NoAnswer(f"the head of the answer is over {MAX_HEAD} bytes long")
            await self._more()
        return self._data.partition(b"\r\n\r\n")[0]

    def _begin_to_wait(self) -> None:
        # Not with each byte: a server that says something now and then, such as that it
        # will say more, would never end.
        self._deadline = self._clock.seconds() + self._patience

    async def _more(self) -> None:
        if self.is_closed:
            raise NoAnswer("the connection was closed without a whole answer")
        self._waiting = Deferred()
        left = max(0.0, self._deadline - self._clock.seconds())
        self._waiting.addTimeout(left, self._clock)
        try:
            await self._waiting
        except TimeoutError:
            raise Silence(f"no answer within {self._patience:g} seconds") from None
        finally:
            self._waiting = None

    def _wake(self) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.called:
            waiting.callback(None)

    def dataReceived(self, data: bytes) -> None:
        """See :class:`twisted.internet.interfaces.IProtocol`."""
        self._data += data
        if len(self._data) > MAX_HEAD + MAX_BODY:
            self.drop()
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See :class:`twisted.internet.interfaces.IProtocol`."""
        self.is_closed = True
        is_encrypted = ISSLTransport.providedBy(self.transport)
        if is_encrypted and not self._shaking.called:
            self._shaking.errback(reason)
        self._wake()


def _parse_head(head: bytes) -> Answer:
    status_line, *lines = head.split(b"\r\n")
    match = _STATUS_LINE.fullmatch(status_line)
    if match is None:
        raise NoAnswer(f"the answer begins with {status_line[:60]!r}, which is no HTTP")
    headers: dict[bytes, list[bytes]] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or name != name.strip():
            raise NoAnswer(f"the answer has the line {line[:60]!r}, which is no header")
        headers.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return Answer(match[1].decode("ascii"), int(match[2]), headers)


def _length(found: Answer) -> int:
    value = found.first(b"content-length")
    if value is None:
        return 0
    try:
        length = parse_offset(value)
    except LocalProtocolError:
        raise NoAnswer(f"the answer has the Content-Length {value[:30]!r}") from None
    if length > MAX_BODY:
        raise NoAnswer(f"the body of the answer is over {MAX_BODY} bytes long")
    return length


def _is_chunked(headers: Mapping[bytes, Sequence[bytes]]) -> bool:
    return any(b"chunked" in value.lower() for value in headers.get(_CODING, ()))


_CODING = b"transfer-encoding"


def _unchunked(data: bytes) -> bytes | None:
    """The body that came in chunks; ``None`` if its end has not come yet."""
    body, position = b"", 0
    while (match := _CHUNK.match(data, position)) is not None:
        size = int(match[1], 16)
        if size == 0:
            return body
        if size > MAX_BODY:
            raise NoAnswer(f"the body of the answer is over {MAX_BODY} bytes long")
        start, position = match.end(), match.end() + size + 2
        if len(data) < position:
            return None
        body += data[start : start + size]
    return None
