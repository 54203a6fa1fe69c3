"""
The writer of a server application's reply.

A short reply is put whole at its end. A longer one becomes a multipart upload, whose
parts are as short as S3 allows. Applications may be slow. So if memory is short, or if
a part is not full after a while, its bytes so far are stored as a *piece*, and read
back when the part is complete.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from zope.interface import implementer

from txbits._deferreds import begun, shielded
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import NoUpload, fitting
from txbits.backends.s3._budget import Share
from txbits.backends.s3._grid import Grid
from txbits.backends.s3._settings import LEAST_PART
from txbits.backends.s3._staged import Staged
from txbits.backends.s3._storing import look
from txbits.errors import BackendError, NoSuchSession, OutOfSpace, StagedDataLost
from txbits.interfaces import IWriter

#: Chunks are joined up to this length, in bytes.
_SHORT_CHUNK = 1 << 14

#: How many parts a multipart upload has at most.
_MOST_PARTS = 10_000

#: For how many seconds an incomplete part may be kept in memory.
PATIENCE = 60.0

#: The least length of pieces that are stored for that reason, in bytes.
LEAST_PIECE = 1 << 16

#: How many pieces a part may have before they are joined.
MOST_PIECES = 100


@implementer(IWriter)
@define(eq=False)
class ReplyWriter:
    """
    Writes a reply; see :class:`~txbits.interfaces.IWriter`.

    Memory is requested as bytes arrive. The present part begins at ``_sent``. Its first
    ``_stored`` bytes are in pieces, and the next ``_held`` bytes in memory.
    """

    _staged: Staged
    key: str
    _lock: DeferredLock = field(factory=DeferredLock, init=False)
    _chunks: list[bytes] = field(factory=list, init=False)
    _held: int = field(default=0, init=False)
    _pieces: list[tuple[str, int]] = field(factory=list, init=False)
    _stored: int = field(default=0, init=False)
    _sent: int = field(default=0, init=False)
    _upload: str | None = field(default=None, init=False)
    _fault: BaseException | None = field(default=None, init=False)
    _is_open: bool = field(default=True, init=False)
    _is_abandoned: bool = field(default=False, init=False)
    _is_going: bool = field(default=False, init=False)
    _room: Deferred[None] | None = field(default=None, init=False)
    _late: Any = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._memory.holders.add(self)

    @property
    def _memory(self) -> Share:
        return self._staged.staging.reply_memory

    @property
    def held(self) -> int:
        """How many bytes could be put away."""
        # A writer that waits for memory cannot put bytes away.
        return 0 if self._is_going or self._room is not None else self._held

    # Writing

    def write(self, data: bytes) -> Deferred[None]:
        """Append; see :class:`~txbits.interfaces.IWriter`."""
        return shielded(begun(self._write_in_turn(data)))

    async def _write_in_turn(self, data: bytes) -> None:
        await self._lock.acquire()
        try:
            self._usable()
            try:
                await self._write(data)
            except BaseException as error:
                self._fail(error)
                raise
        finally:
            self._lock.release()

    async def _write(self, data: bytes) -> None:
        while data:
            piece = data[: LEAST_PART - self._stored - self._held]
            data = data[len(piece) :]
            await self._make_room(len(piece))
            self._append(piece)
            if self._stored + self._held == LEAST_PART:
                await self._send()
            elif self._late is None:
                clock = self._staged.staging.clock
                self._late = clock.callLater(PATIENCE, self._is_slow)

    def _append(self, piece: bytes) -> None:
        # Many objects of a few bytes would use much more memory than is counted.
        if self._chunks and len(self._chunks[-1]) + len(piece) <= _SHORT_CHUNK:
            self._chunks[-1] += piece
        else:
            self._chunks.append(piece)

    def _usable(self) -> None:
        if self._fault is not None:
            raise self._fault
        if not self._is_open or self._is_abandoned:
            raise BackendError("this writer is closed")

    # Memory

    async def _make_room(self, length: int) -> None:
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
        self._held += length

    def _is_slow(self) -> None:
        self._late = None
        if self._held >= LEAST_PIECE:
            self.put_away()

    def put_away(self) -> None:
        """Store what is held as a piece, because others need the memory."""
        if not self._is_going:
            self._is_going = True
            # The next write, or close, raises the error.
            begun(self._put_away_in_turn()).addErrback(lambda _: None)

    async def _put_away_in_turn(self) -> None:
        try:
            await self._lock.acquire()
            try:
                if self._is_open and not self._is_abandoned and self._fault is None:
                    await self._put_away()
            except BaseException as error:
                self._fail(error)
                raise
            finally:
                self._lock.release()
        finally:
            self._is_going = False

    async def _put_away(self) -> None:
        if not self._held:
            return
        key = f"{self.key}.{self._sent + self._stored}"
        await self._staged.staging.bucket.put(key, Body(self._chunks))
        self._pieces.append((key, self._held))
        self._stored += self._held
        self._drop()
        if len(self._pieces) >= MOST_PIECES:
            await self._make_one()

    async def _make_one(self) -> None:
        """Join all pieces of the present part into one."""
        await self._gathered()
        pieces, self._pieces = self._pieces, []
        # It replaces the first of them, whose key it has.
        await self._put_away()
        await self._remove(pieces[1:])

    def _fail(self, error: BaseException) -> None:
        self._fault = error
        # These bytes are lost, and others may be waiting for memory.
        self._drop()

    def _drop(self) -> None:
        held, self._held = self._held, 0
        self._chunks = []
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
        if held:
            self._memory.give(held)

    # Parts

    async def _gathered(self) -> list[bytes]:
        """Read the pieces of the present part back, and return all of its bytes."""
        if not self._stored:
            return self._chunks
        if not self._memory.fits(self._stored):
            # This one must not hold bytes while it waits, as others do.
            await self._put_away()
        await self._take(self._stored)
        self._stored = 0
        chunks = []
        for key, length in self._pieces:
            found = await self._staged.staging.bucket.get(key, length)
            if found is None or found.size != length:
                raise StagedDataLost(f"{key} is not what it was")
            chunks.append(found.body)
        self._chunks = chunks + self._chunks
        return self._chunks

    async def _send(self) -> None:
        """Upload the present part."""
        bucket = self._staged.staging.bucket
        number = self._sent // LEAST_PART
        if number == _MOST_PARTS:
            raise OutOfSpace(f"a reply of over {self._sent} bytes")
        if self._upload is None:
            # Others, whose responses were lost, are found at the release by their key.
            self._upload = (await bucket.begin_upload(self.key, {})).upload
        body = Body(await self._gathered())
        self._memory.leaving += body.length
        try:
            await bucket.put_part(self.key, self._upload, number, body)
        finally:
            self._memory.leaving -= body.length
        self._sent += self._held
        self._drop()
        await self._remove_pieces()

    async def _remove_pieces(self) -> None:
        pieces, self._pieces = self._pieces, []
        await self._remove(pieces)

    async def _remove(self, pieces: list[tuple[str, int]]) -> None:
        await self._staged.staging.bucket.delete_all([key for key, _ in pieces])

    # The end

    def close(self) -> Deferred[None]:
        """Put the rest; see :class:`~txbits.interfaces.IWriter`."""
        return shielded(begun(self._close()))

    async def _close(self) -> None:
        await self._lock.acquire()
        try:
            if not self._is_open:
                return
            self._is_open = False
            try:
                self._usable_to_end()
                await self._end()
            except BaseException:
                self._staged.reply_is_torn = True
                await self._abort()
                raise
            finally:
                self._leave()
        finally:
            self._lock.release()

    def _usable_to_end(self) -> None:
        if self._fault is not None:
            raise self._fault

    async def _end(self) -> None:
        bucket = self._staged.staging.bucket
        if self._upload is None:
            await bucket.put(self.key, Body(await self._gathered()))
            await self._remove_pieces()
        else:
            if self._held or self._stored:
                await self._send()
            grid = Grid(self._sent, LEAST_PART)
            parts = fitting(grid, await bucket.parts(self.key, self._upload))
            if len(parts) < grid.cells:
                raise BackendError(f"parts of {self.key!a} are missing")
            try:
                await bucket.complete(
                    self.key,
                    self._upload,
                    [parts[number] for number in range(grid.cells)],
                    only_new=False,
                )
            except NoUpload:
                # An earlier attempt completed it, and the response was lost.
                found = await bucket.head(self.key)
                if found is None or found.size != self._sent:
                    raise
            self._upload = None
        try:
            # Another node may have ended the session meanwhile.
            await look(self._staged)
        except NoSuchSession:
            await bucket.delete(self.key)
            raise

    async def _abort(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            await self._staged.staging.bucket.abort(self.key, upload)
        await self._remove_pieces()

    def _leave(self) -> None:
        self._drop()
        self._memory.holders.discard(self)
        if self._staged.reply_writer is self:
            self._staged.reply_writer = None

    async def abandon(self) -> None:
        """
        Stop writing.

        Requests under way are waited for, so that nothing arrives after the release.
        """
        self._is_abandoned = True
        if self._room is not None:
            self._room.cancel()
        await self._lock.acquire()
        try:
            self._is_open = False
            self._leave()
            await self._abort()
        finally:
            self._lock.release()
