"""
The body of a response, sent at the pace of the client.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txbits.interfaces import IStoredFile


class ClientGone(Exception):
    """Nobody is there to take the rest of a response."""


@implementer(IConsumer, IPushProducer)
@define(eq=False)
class Sending:
    """
    Stands between the files that are read and the request that is answered.

    To the request it is one producer for the whole body; to each reading it is a
    consumer. So it knows between two of them that the client has enough for now, and
    tells the next one at once.

    :param request: The request; its head may be written by now or not.
    """

    _request: Request
    _reading: IPushProducer | None = field(default=None, init=False)
    _resumed: Deferred[None] | None = field(default=None, init=False)
    _is_gone: bool = field(default=False, init=False)

    def begin(self) -> None:
        """
        Begin to send.

        :raises ClientGone: If the client has gone already.
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
        Send bytes of our own.

        :raises ClientGone: If the client has gone.
        """
        await self._ready()
        self._request.write(data)

    async def send_file(self, file: IStoredFile, start: int, end: int) -> None:
        """
        Send bytes of a file.

        :raises ClientGone: If the client has gone.
        :raises BackendError: If the file cannot be read, or was closed.
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

    # For a reading

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """A reading begins."""
        if not IPushProducer.providedBy(producer):
            raise TypeError("files are read by push producers")
        self._reading = producer
        if self._is_gone:
            producer.stopProducing()
        elif self._resumed is not None:
            producer.pauseProducing()

    def unregisterProducer(self) -> None:
        """It has ended."""
        self._reading = None

    def write(self, data: bytes) -> None:
        """It has brought bytes."""
        if not self._is_gone:
            self._request.write(data)

    # For the request

    def pauseProducing(self) -> None:
        """The client has enough for now."""
        if self._resumed is None and not self._is_gone:
            self._resumed = Deferred()
            if self._reading is not None:
                self._reading.pauseProducing()

    def resumeProducing(self) -> None:
        """The client can take more."""
        resumed, self._resumed = self._resumed, None
        if self._reading is not None:
            self._reading.resumeProducing()
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """The client is gone."""
        self._is_gone = True
        if self._reading is not None:
            self._reading.stopProducing()
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)
