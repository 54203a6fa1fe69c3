"""
Connections that limit the heads of responses, for all users of ``twisted.web.client``:
the client, the S3 backend, and notifications.

Twisted limits the length of a line, and the trailers and extensions of chunked bodies,
but not the number of lines in a head, nor of interim responses: a malicious server
could fill the memory. Only this module depends on the internals of
``twisted.web.client``.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HEADER, STATUS, HTTP11ClientProtocol
from twisted.web.client import HTTPConnectionPool
from twisted.web.client import _HTTP11ClientFactory as _Factory
from twisted.web.iweb import IResponse

#: Maximum length of the head of a response in bytes, including all interim responses
#: before it; and of one line, as in Twisted.
MOST_BYTES = 64 * 1024
MOST_LINE_BYTES = 16 * 1024

#: Maximum number of lines, including those of all interim responses.
MOST_LINES = 200

#: Maximum number of interim responses. WebDAV's 102 is sent every 20 seconds.
MOST_INTERIM = 16

#: Shorter heads, in bytes, need not be split into lines. It is less than the maximum of
#: a line.
_SHORT = 8 * 1024


class EndlessHead(Exception):
    """
    The head of a response exceeds a limit; the text is one line.

    :param what: What the response has too much of.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"the response has {what}")


class BoundedConnection(HTTP11ClientProtocol):
    """
    A connection to a server, which is dropped if the head of a response is too long.

    The request then fails as if the connection were lost, with an :class:`EndlessHead`
    among the reasons.
    """

    transport: Any
    _parser: Any = None
    _bytes = 0
    _lines = 0
    _interim = 0
    _line = 0
    _excess: EndlessHead | None = None

    def request(self, request: Any) -> Deferred[IResponse]:
        """See the base class."""
        self._bytes = self._lines = self._interim = self._line = 0
        return super().request(request)

    def dataReceived(self, bytes: Any) -> None:
        """See the base class."""
        if self._excess is not None:
            return
        data, start, parser = bytes, 0, self._parser
        if self._bytes == 0 and _has_short_head(data):
            super().dataReceived(data)
            return
        # Line by line, because only the parser knows where the head ends.
        while start < len(data) and self._parser is parser and _is_in_head(parser):
            end = data.find(b"\n", start) + 1 or len(data)
            self._excess = self._excess_with(data[start:end])
            if self._excess is not None:
                self.transport.abortConnection()
                return
            was_in_fields = parser.state == HEADER
            super().dataReceived(data[start:end])
            start = end
            # An interim response is not the end of the head.
            self._interim += was_in_fields and parser.state == STATUS
        # What follows a response without a body is ignored. It is not the answer to a
        # request that has been made in the meantime.
        if start < len(data) and self._parser is parser:
            super().dataReceived(data[start:])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See the base class."""
        excess = self._excess
        super().connectionLost(reason if excess is None else Failure(excess))

    def _excess_with(self, line: bytes) -> EndlessHead | None:
        """Count a line, or a part of one, and return the limit that it exceeds."""
        self._bytes += len(line)
        self._line += len(line)
        if self._line > MOST_LINE_BYTES:
            return EndlessHead(f"a header of more than {MOST_LINE_BYTES} bytes")
        if line.endswith(b"\n"):
            self._line = 0
            self._lines += 1
        if self._bytes > MOST_BYTES:
            return EndlessHead(f"more than {MOST_BYTES} bytes of headers")
        if self._interim > MOST_INTERIM:
            return EndlessHead(f"more than {MOST_INTERIM} interim responses")
        if self._lines > MOST_LINES:
            return EndlessHead(f"more than {MOST_LINES} lines of headers")
        return None


def _has_short_head(data: bytes) -> bool:
    """
    Tell whether the data contain a complete head of a final response within all limits.

    Nearly all do, and need not be checked line by line.
    """
    if data[:9] != b"HTTP/1.1 " or data[9:10] not in (b"2", b"3", b"4", b"5"):
        return False
    end = data.find(b"\r\n\r\n", 0, _SHORT)
    return end > 0 and data.count(b"\n", 0, end) < MOST_LINES - 1


def _is_in_head(parser: Any) -> bool:
    return parser is not None and parser.state in (STATUS, HEADER)


class _BoundedFactory(_Factory):
    """Makes such connections."""

    noisy = False

    def buildProtocol(self, addr: Any) -> BoundedConnection:
        return BoundedConnection(self._quiescentCallback)


class BoundedPool(HTTPConnectionPool):
    """A pool of such connections."""

    _factory = _BoundedFactory
