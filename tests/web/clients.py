"""
A client on a real connection, which writes bytes and reads answers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tests.web.support import Response, responses


class Client(Protocol):
    """
    A client, which writes requests and reads answers.

    :ivar data: What has come, and was not taken.
    :ivar closed: Fires when the connection is closed.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = bytearray()
        self.closed: Deferred[None] = Deferred()
        self._waiting: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        self._wake()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    async def _more(self) -> None:
        assert not self.closed.called, f"closed after {self.data[:1000]!r}"
        self._waiting = Deferred()
        await self._waiting

    async def answer(self, *, is_head: bool = False) -> Response:
        """
        Wait for the next answer, and take it.

        :param is_head: Whether it has no body.
        """
        while b"\r\n\r\n" not in self.data:
            await self._more()
        head = bytes(self.data[: self.data.index(b"\r\n\r\n")])
        end = len(head) + 4
        lines = head.split(b"\r\n")
        lengths = [one for one in lines if one.startswith(b"Content-Length: ")]
        if is_head:
            del self.data[:end]
            head = head.replace(lengths[0], b"content-length: 0")
            (found,) = responses(head + b"\r\n\r\n")
            found.headers["content-length"] = [lengths[0].decode()]
            return found
        if lengths:
            end += int(lengths[0].partition(b": ")[2])
        while len(self.data) < end:
            await self._more()
        whole = bytes(self.data[:end])
        del self.data[:end]
        (found,) = responses(whole)
        return found

    async def ask(self, data: bytes, *, is_head: bool = False) -> Response:
        """Send a request, and take the answer."""
        self.transport.write(data)
        return await self.answer(is_head=is_head)
