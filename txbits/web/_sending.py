"""
The body of a response, sent at the pace of the client.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txbits.interfaces import IEagerConsumer, IStoredFile
from txbits.web._streaming import send_some


class ClientGone(Exception):
    """The client has gone before the end of a response."""


@implementer(IConsumer, IEagerConsumer, IPushProducer)
@define(eq=False)
class Sending:
    """
    Connects the files that are read with the request that is answered.

    For the request it is the one producer of the whole body; for each read it is a
    consumer. So it also knows between two reads whether the client accepts more.

    :param request: The request. Its head may have been written.
    :ivar sent: How many bytes of files have been handed to the connection.
    """

    _request: Request
    sent: int = field(default=0, init=False)
    _reading: IPushProducer | None = field(default=None, init=False)
    _resumed: Deferred[None] | None = field(default=None, init=False)
    _is_gone: bool = field(default=False, init=False)

    def begin(self) -> None:
        """
        Begin to send.

        :raises ClientGone: If the client has already gone.
        """
        if self._request._disconnected:
            self._is_gone = True
            raise ClientGone
        self._request.notifyFinish().addErrback(self._lost)
        self._request.registerProducer(self, True)

    def end(self) -> None:
        """Send no more."""
        if not self._is_gone:
            self._request.unregisterProducer()

    async def send(self, data: bytes) -> None:
        """
        Send bytes.

        :raises ClientGone: If the client has gone.
        """
        await self._ready()
        self._request.write(data)

    async def send_file(self, file: IStoredFile, start: int, end: int) -> None:
        """
        Send bytes of a file.

        :raises ClientGone: If the client has gone.
        :raises BackendError: If the file cannot be read or is closed.
        """
        await self._ready()
        try:
            await file.read_into(self, start, end)
        except Exception:
            if self._is_gone:
                raise ClientGone from None
            raise

    async def _ready(self) -> None:
        while self._resumed is not None and not self._is_gone:
            await self._resumed
        if self._is_gone:
            raise ClientGone

    def _lost(self, _: Failure) -> None:
        self.stopProducing()

    # For a read

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """A read begins."""
        if not IPushProducer.providedBy(producer):
            raise TypeError("files are read by push producers")
        self._reading = producer
        if self._is_gone:
            producer.stopProducing()
        elif self._resumed is not None:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """The read has ended."""
        self._reading = None

    def write(self, data: bytes) -> None:
        """The read has produced bytes."""
        if not self._is_gone:
            self.sent += len(data)
            self._request.write(data)

    def write_some(self, data: memoryview) -> int:
        """Send what the connection takes at once, if the head has been written."""
        request: Any = self._request
        if (
            self._is_gone
            or self._resumed is not None
            or not request.startedWriting
            or request.chunked
        ):
            return 0
        count = send_some(request.channel.transport, data)
        self.sent += count
        request.sentLength += count
        return count

    # For the request

    def pauseProducing(self) -> None:
        """The client accepts no more for now."""
        if self._resumed is None and not self._is_gone:
            self._resumed = Deferred()
            if self._reading is not None:
                self._reading.pauseProducing()

    def resumeProducing(self) -> None:
        """The client accepts more."""
        resumed, self._resumed = self._resumed, None
        if self._reading is not None:
            self._reading.resumeProducing()
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The client has gone."""
        self._is_gone = True
        if self._reading is not None:
            self._reading.stopProducing()
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)
