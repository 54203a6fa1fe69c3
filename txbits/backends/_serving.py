"""
Stored bytes fed to a consumer at its own pace: those of a session, and open files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from txbits._deferreds import Event, deferred
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import ICodedFile

#: How many bytes are read at a time.
PIECE = 1 << 18


@implementer(IPushProducer)
@define(eq=False)
class Reading:
    """
    A producer that reads ahead by at most one piece.

    :ivar consumer: Gets this producer, and may pause and stop it.
    :ivar read: Called with an offset and a length; its Deferred fires with that many
        bytes, or fewer at the end.
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
                    raise BackendError("the reader of the upload has gone away")
                start += len(piece)
                self.consumer.write(piece)
        finally:
            self.consumer.unregisterProducer()

    def pauseProducing(self) -> None:
        """Called by the consumer: it needs no more for now."""
        if self._resumed is None and not self._stopped:
            self._resumed = Deferred()

    def resumeProducing(self) -> None:
        """Called by the consumer: it needs more."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.callback(None)

    def stopProducing(self) -> None:
        """Called by the consumer: it needs no more at all."""
        self._stopped = True
        self.resumeProducing()


class IFeeder(Protocol):
    """Feeds a consumer, once."""

    async def run(self, start: int, end: int) -> None:
        """Feed the bytes from *start* up to, not including, *end*."""

    def stopProducing(self) -> None:
        """Let :meth:`run` fail as soon as possible."""


def _nothing_to_close() -> None:
    """Close nothing."""


@implementer(ICodedFile)
@define(eq=False)
class StoredFile:
    """
    An open file; see :class:`~txbits.interfaces.ICodedFile`.

    It is closed when no reading uses it any more: a thread may be reading.

    :param feeder: Makes the object that feeds a consumer.
    :param close: Called once, at the end.
    """

    length: int
    modified: float
    etag: str | None
    _feeder: Callable[[IConsumer], IFeeder]
    _close: Callable[[], None] = _nothing_to_close
    content_encoding: str | None = field(default=None, kw_only=True)
    is_weak: bool = field(default=False, init=False)
    _reading: IFeeder | None = field(default=None, init=False)
    _closed: Event = field(factory=Event, init=False)
    _is_released: bool = field(default=False, init=False)

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed bytes; see :class:`~txbits.interfaces.IStoredFile`."""
        if self._is_released:
            raise BackendError("the file is closed")
        if self._reading is not None:
            raise BackendError("the file is being read already")
        self._reading = self._feeder(consumer)
        try:
            await self._reading.run(start, end)
        except BackendError as error:
            if self._is_released:
                raise StagedDataLost("the file was closed") from error
            raise
        finally:
            self._reading = None
            if self._is_released:
                self._close_now()

    def release(self) -> Deferred[None]:
        """Close it; see :class:`~txbits.interfaces.IReleasable`."""
        if not self._is_released:
            self._is_released = True
            if self._reading is None:
                self._close_now()
            else:
                self._reading.stopProducing()
        return self._closed.wait()

    def _close_now(self) -> None:
        self._close()
        self._closed.set()


def by_pieces(
    read: Callable[[int, int], Deferred[bytes]],
) -> Callable[[IConsumer], IFeeder]:
    """
    Make the feeders of a file.

    :param read: See :class:`Reading`.
    """
    return lambda consumer: Reading(consumer, read)
