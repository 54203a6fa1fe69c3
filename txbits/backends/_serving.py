"""
Stored bytes fed to a consumer at its own pace: those of a session, and open files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from zope.interface import implementer

from txbits._deferreds import Event, deferred
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import ICodedFile, IEagerConsumer

Piece = TypeVar("Piece", bytes, memoryview)

#: How many bytes are read at a time.
PIECE = 1 << 18

#: How many bytes a consumer is given at once before it gets some to keep. Then it
#: pauses the producer, and others have their turn: a fast peer would take everything.
#: Measured: a sixth less CPU time than with 1 MiB. The others wait for two
#: milliseconds, or four with TLS.
_AT_ONCE = 1 << 22


@implementer(IPushProducer)
@define(eq=False)
class Reading:
    """
    A producer that reads ahead by at most one piece.

    :ivar consumer: Gets this producer, and may pause and stop it.
    :ivar read: Called with an offset and a length; its Deferred fires with that many
        bytes, or fewer at the end.
    :ivar peek: Called in the same way; returns bytes that it has at once, and that
        change with its next call, or ``None``.
    """

    consumer: IConsumer
    read: Callable[[int, int], Deferred[bytes]]
    peek: Callable[[int, int], memoryview | None] = lambda offset, length: None
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
                eager = IEagerConsumer(self.consumer, None)
                if eager is not None:
                    start = await self._feed_at_once(eager, start, end)
                start = await self._feed_slowly(start, end)
        finally:
            self.consumer.unregisterProducer()

    async def _feed_slowly(self, start: int, end: int) -> int:
        """
        Feed bytes until some could be had at once, and read ahead meanwhile.

        :returns: The offset up to which they were fed.
        """
        is_slow = True
        while start < end and is_slow:
            reading = self.read(start, min(PIECE, end - start))
            is_slow = not reading.called
            piece = _some(await reading, start, end)
            await self._ready()
            start += len(piece)
            self.consumer.write(piece)
        return start

    async def _feed_at_once(
        self, consumer: IEagerConsumer, start: int, end: int
    ) -> int:
        """
        Feed bytes as long as they can be had at once.

        :returns: The offset up to which they were fed.
        """
        given = 0
        while start < end:
            await self._ready()
            seen = self.peek(start, min(PIECE, end - start))
            if seen is None:
                break
            start += len(_some(seen, start, end))
            taken = consumer.write_some(seen) if given < _AT_ONCE else 0
            given += taken
            if taken < len(seen):
                self.consumer.write(bytes(seen[taken:]))
                given = 0
        return start

    async def _ready(self) -> None:
        """Wait until the consumer needs more."""
        while self._resumed is not None:
            await self._resumed
        if self._stopped:
            raise BackendError("the reader of the upload has gone away")

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


def _some(piece: Piece, start: int, end: int) -> Piece:
    """
    Check that there is something in a piece.

    :raises StagedDataLost: If there is not.
    """
    if not piece:
        raise StagedDataLost(f"staged bytes end at {start}, not at {end}")
    return piece


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
    peek: Callable[[int, int], memoryview | None] = lambda offset, length: None,
) -> Callable[[IConsumer], IFeeder]:
    """
    Make the feeders of a file.

    :param read: See :class:`Reading`, also for *peek*.
    """
    return lambda consumer: Reading(consumer, read, peek)
