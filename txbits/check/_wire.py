"""
Connections that send raw bytes.

A check sends what no HTTP client would send, cuts packets short, and inspects answers
that an HTTP client would hide. h11 parses the answers. Their size is limited, and so is
the time to wait for them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, TypeVar

import h11
from attrs import evolve, frozen
from OpenSSL.SSL import Error as TLSError
from twisted.internet.defer import Deferred, TimeoutError
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._agents import in_words
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

T = TypeVar("T")

#: What h11 believes to have sent; checks send something else.
_REQUEST = h11.Request(method="GET", target="/", headers=[("Host", "h")])


class Unanswered(Exception):
    """There is no answer, or it is not HTTP; the text says why."""


class Silence(Unanswered):
    """The time to wait for an answer is over."""


def parsed(parse: Callable[[bytes], T], value: bytes | None) -> T | None:
    """Parse the value of a header; ``None`` if it is missing or invalid."""
    try:
        return parse(value or b"")
    except LocalProtocolError:
        return None


def shown(value: bytes | None) -> str:
    """Write the value of a header for people."""
    if value is None:
        return "missing"
    return value[:60].decode("ascii", "backslashreplace") or "empty"


def _is_session_id(value: bytes) -> bool:
    check_session_id(value.decode("latin-1"))
    return True


@frozen
class KitAnswer:
    """
    An answer.

    :ivar version: The version of HTTP, such as ``1.1``.
    :ivar status: The status.
    :ivar headers: Values by lower-case name.
    :ivar body: The body; empty if the answer does not tell its length.
    """

    version: str
    status: int
    headers: Mapping[bytes, Sequence[bytes]]
    body: bytes = b""

    def first(self, name: bytes) -> bytes | None:
        """The first value of a header; its name in lower case."""
        values = self.headers.get(name)
        return values[0] if values else None

    @property
    def is_success(self) -> bool:
        """Whether the server accepted the packet."""
        return 200 <= self.status < 300

    def says(self, name: str) -> str:
        """Write a header for people."""
        return f"{name} is {shown(self.first(name.lower().encode('ascii')))}"

    @property
    def session_id(self) -> bytes | None:
        """BITS-Session-Id as the server wrote it: a GUID, or an id of another form."""
        value = self.first(b"bits-session-id")
        is_valid = parsed(_is_session_id, value)
        return value if is_valid else None

    @property
    def offset(self) -> int | None:
        """The offset in BITS-Received-Content-Range, if it is valid."""
        return parsed(parse_offset, self.first(b"bits-received-content-range"))

    @property
    def hresult(self) -> int | None:
        """The HRESULT, in either header."""
        code = self.first(b"bits-error-code") or self.first(b"bits-error")
        return parsed(parse_hresult, code)

    @property
    def is_last(self) -> bool:
        """Whether no other answer can follow on its connection."""
        connection = (self.first(b"connection") or b"").lower()
        # Only error pages have chunks, and no check sends another packet after one.
        has_length = b"content-length" in self.headers
        return self.version != "1.1" or b"close" in connection or not has_length

    @property
    def has_end(self) -> bool:
        """Whether it tells where its body ends."""
        codings = self.headers.get(b"transfer-encoding", ())
        return b"content-length" in self.headers or any(
            b"chunked" in value.lower() for value in codings
        )

    def __str__(self) -> str:
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

    :param clock: Measures the time to wait for answers.
    :param patience: How many seconds to wait for an answer.
    :ivar refusal: Why TLS has ended the connection, if it has.
    """

    def __init__(self, clock: IReactorTime, patience: float) -> None:
        self._clock = steady(clock)
        self._patience = patience
        self._data = b""
        self._next: h11.Event | None = None
        self._waiting: Deferred[None] | None = None
        self._deadline = 0.0
        self._is_used_up = False
        self._shaking: Deferred[Wire] = Deferred(lambda _: self.drop())
        self.is_closed = False
        self.refusal: str | None = None
        self._expect_answer()

    @property
    def is_usable(self) -> bool:
        """Whether another packet can be sent."""
        return not (self.is_closed or self._is_used_up)

    def send(self, data: bytes) -> None:
        """Send bytes, if the connection is still open."""
        if not self.is_closed:
            self._transport.write(data)

    def end(self) -> None:
        """
        Send the end: nothing more comes from this side.

        Over TLS that is a close alert, after all that was sent before.
        """
        if ISSLTransport.providedBy(self.transport):
            self._transport.loseConnection()
        elif not self.is_closed:
            self._transport.loseWriteConnection()

    def drop(self) -> None:
        """Drop the connection. A second call does nothing."""
        if not self.is_closed:
            self._transport.abortConnection()

    def encrypted(self) -> Deferred[Wire]:
        """
        Wait until the server has proved its identity.

        :returns: A Deferred that fires with the connection, or fails with the reason
            why it was lost before.
        """
        return self._shaking

    def handshakeCompleted(self) -> None:
        """See :class:`twisted.internet.interfaces.IHandshakeListener`."""
        self._shaking.callback(self)

    @property
    def _transport(self) -> Any:
        return self.transport

    async def answer(self) -> KitAnswer:
        """
        Wait for the next answer.

        :raises Unanswered: If there is none.
        """
        self._begin_to_wait()
        while not isinstance(event := await self._event(), h11.Response):
            pass
        headers: dict[bytes, list[bytes]] = {}
        for name, value in event.headers:
            headers.setdefault(name, []).append(value)
        version = event.http_version.decode("ascii")
        found = KitAnswer(version, event.status_code, headers)
        self._is_used_up = found.is_last
        if not found.has_end:
            # It would be the end of the connection, which may not come.
            return found
        if int(found.first(b"content-length") or b"0") > MAX_BODY:
            raise Unanswered(f"the Content-Length of the answer is over {MAX_BODY}")
        body = b""
        while isinstance(part := await self._event(), h11.Data):
            body += part.data
            if len(body) > MAX_BODY:
                raise Unanswered(
                    f"the body of the answer is over {MAX_BODY} bytes long"
                )
        rest, _ = self._http.trailing_data
        self._expect_answer()
        self._data = rest + self._data
        return evolve(found, body=body)

    async def continues(self) -> bool:
        """
        Wait for ``100 Continue``.

        :returns: Whether it came, and not another answer or nothing.
        """
        self._begin_to_wait()
        try:
            event = await self._event()
        except Silence:
            return False
        is_continue = getattr(event, "status_code", None) == 100
        self._next = None if is_continue else event
        return is_continue

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

    def _expect_answer(self) -> None:
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._http.send(_REQUEST)
        self._http.send(h11.EndOfMessage())

    async def _event(self) -> h11.Event:
        """The next part of the answer."""
        event, self._next = self._next, None
        while event is None:
            if self._data:
                self._http.receive_data(self._data)
                self._data = b""
            try:
                found = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise Unanswered(_in_words(error)) from error
            if isinstance(found, h11.Event):
                event = found
            elif not self._data:
                await self._more()
        return event

    def _begin_to_wait(self) -> None:
        # Not with each byte: a server that sends one now and then would never end.
        self._deadline = self._clock.seconds() + self._patience

    async def _more(self) -> None:
        if self.is_closed:
            why = "" if self.refusal is None else f": {self.refusal}"
            raise Unanswered(f"the connection was closed without a whole answer{why}")
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
        if isinstance(reason.value, TLSError):
            self.refusal = in_words(reason.value)
        is_encrypted = ISSLTransport.providedBy(self.transport)
        if is_encrypted and not self._shaking.called:
            self._shaking.errback(reason)
        self._wake()


def _in_words(error: h11.RemoteProtocolError) -> str:
    if error.error_status_hint == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
        return f"the head of the answer is over {MAX_HEAD} bytes long"
    # What h11 found follows, as Python would write it.
    reason = str(error).partition(": ")[0]
    return f"the answer is not HTTP: {reason}"
