"""
What the writer of an upload and the writer of a reply have in common.

Both hold bytes in memory until they are a whole part. Clients and applications may be
slow, and memory may be short, so both can put these bytes away before that: store them
in the bucket as they are. They do one thing at a time, and end once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Coroutine
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredLock

from txbits._deferreds import Shared, begun
from txbits.backends.s3._budget import Share
from txbits.backends.s3._staged import Staged
from txbits.errors import BackendError

#: Chunks are joined up to this length, in bytes.
_SHORT_CHUNK = 1 << 14


@define(eq=False)
class HoldingWriter(ABC):
    """
    A writer that holds bytes in memory.

    :ivar _staged: The session.
    :ivar _lock: Held by what is under way.
    :ivar _chunks: The bytes in memory.
    :ivar _fault: The first error of what was done in the background.
    :ivar _is_open: Whether it has not ended.
    :ivar _is_abandoned: Whether it has to end without storing the rest.
    :ivar _is_going: Whether the bytes are being put away.
    :ivar _room: The memory that it waits for, if it does.
    """

    _staged: Staged
    _lock: DeferredLock = field(factory=DeferredLock, init=False)
    _chunks: list[bytes] = field(factory=list, init=False)
    _fault: BaseException | None = field(default=None, init=False)
    _is_open: bool = field(default=True, init=False)
    _is_abandoned: bool = field(default=False, init=False)
    _is_going: bool = field(default=False, init=False)
    _room: Deferred[None] | None = field(default=None, init=False)
    _closing: Shared[None] = field(factory=Shared, init=False)

    # What differs

    @property
    @abstractmethod
    def _memory(self) -> Share:
        """The memory that its bytes are counted in."""

    @property
    @abstractmethod
    def _in_memory(self) -> int:
        """How many bytes it holds."""

    @abstractmethod
    async def _put_away(self) -> None:
        """Store what is held, and free its memory."""

    @abstractmethod
    def _drop(self) -> None:
        """Free the memory of what is held."""

    @abstractmethod
    async def _close(self) -> None:
        """Store the rest, and leave."""

    @abstractmethod
    async def _give_up(self) -> None:
        """Wait for requests under way, and leave without storing the rest."""

    # Whether it may go on

    def _require_open(self) -> None:
        self._require_no_fault()
        if not self._is_open or self._is_abandoned:
            raise BackendError("this writer is closed")

    def _require_no_fault(self) -> None:
        """Raise the error of what was done in the background."""
        if self._fault is not None:
            raise self._fault

    def _fail(self, error: BaseException) -> None:
        if self._fault is None:
            self._fault = error
        # These bytes are lost, and others may be waiting for memory.
        self._drop()

    # Memory

    def _append(self, piece: bytes) -> None:
        # Many objects of a few bytes would use much more memory than is counted.
        if self._chunks and len(self._chunks[-1]) + len(piece) <= _SHORT_CHUNK:
            self._chunks[-1] += piece
        else:
            self._chunks.append(piece)

    @property
    def held(self) -> int:
        """How many bytes could be put away."""
        # A writer that waits for memory cannot put bytes away.
        return 0 if self._is_going or self._room is not None else self._in_memory

    async def _make_room(self, length: int) -> None:
        """Request memory for bytes that are to be held."""
        if not self._memory.fits(length) and not self._memory.fits_soon(length):
            # This one must not hold bytes while others put theirs away for it.
            await self._put_away()
        await self._take(length)

    async def _take(self, length: int) -> None:
        """Request memory, unless the writer is abandoned meanwhile."""
        if self._is_abandoned:
            raise BackendError("this writer is closed")
        room = self._room = self._memory.take(length)
        try:
            await room
        except CancelledError as error:
            if self._is_abandoned:
                raise BackendError("this writer is closed") from error
            raise
        finally:
            self._room = None

    def put_away(self) -> None:
        """Store what is held, because others need the memory."""
        if not self._is_going:
            self._is_going = True
            # The next write, or close, raises the error.
            begun(self._put_away_in_turn()).addErrback(lambda _: None)

    async def _put_away_in_turn(self) -> None:
        try:
            async with self._lock:
                if self._is_open and not self._is_abandoned and self._fault is None:
                    await self._guarded(self._put_away())
        finally:
            self._is_going = False

    async def _guarded(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        """Do something after whose failure the writer cannot go on."""
        try:
            await work
        except BaseException as error:
            self._fail(error)
            raise

    # The end

    def close(self) -> Deferred[None]:
        """Put the rest; see :class:`~txbits.interfaces.IWriter`."""
        return self._closing.run(self._close_in_turn)

    async def _close_in_turn(self) -> None:
        async with self._lock:
            if self._is_open:
                await self._close()

    async def abandon(self) -> None:
        """
        Stop writing, because the session is being released.

        Requests under way are waited for, so that nothing arrives after the release.
        """
        self._is_abandoned = True
        if self._room is not None:
            self._room.cancel()
        async with self._lock:
            await self._give_up()

    def _leave(self) -> None:
        self._is_open = False
        self._memory.holders.discard(self)
        self._drop()
        if self._staged.writer is self:
            self._staged.writer = None
        if self._staged.reply_writer is self:
            self._staged.reply_writer = None
