"""
Bytes of a session fed to a consumer, at the consumer's pace.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from txbits.errors import BackendError, StagedDataLost

#: How many bytes are read, and held, at a time.
PIECE = 1 << 18


@implementer(IPushProducer)
@define(eq=False)
class Reading:
    """
    A producer that reads ahead by no more than one piece.

    :ivar consumer: It is given this producer, and may pause and stop it.
    :ivar read: Called with an offset and a length; its Deferred fires with that
        many bytes, or fewer where the bytes end.
    """

    consumer: IConsumer
    read: Callable[[int, int], Deferred[bytes]]
    _resumed: Deferred[None] | None = None
    _stopped: bool = False

    async def run(self, start: int, end: int) -> None:
        """
        Feed the bytes from *start* up to, not including, *end*.

        :raises StagedDataLost: If there are not that many.
        :raises BackendError: If reading failed, or the consumer stopped it.
        """
        self.consumer.registerProducer(self, True)
        try:
            while start < end:
                piece = await self.read(start, min(PIECE, end - start))
                if not piece:
                    raise StagedDataLost(f"staged bytes end at {start}, not at {end}")
                while self._resumed is not None:
                    await self._resumed
                if self._stopped:
                    raise BackendError("who was reading the upload has gone away")
                start += len(piece)
                self.consumer.write(piece)
        finally:
            self.consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """Called by the consumer: it has enough for now."""
        if self._resumed is None and not self._stopped:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        """Called by the consumer: it can take more."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Called by the consumer: it wants no more, ever."""
        self._stopped = True
        self.resumeProducing()
