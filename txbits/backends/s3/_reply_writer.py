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
from twisted.internet.defer import Deferred
from zope.interface import implementer

from txbits._deferreds import begun, shielded
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import NoUpload, fitting
from txbits.backends.s3._budget import Share
from txbits.backends.s3._grid import Grid
from txbits.backends.s3._holding import HoldingWriter
from txbits.backends.s3._settings import LEAST_PART
from txbits.backends.s3._storing import look
from txbits.errors import BackendError, NoSuchSession, OutOfSpace, StagedDataLost
from txbits.interfaces import IWriter

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
class ReplyWriter(HoldingWriter):
    """
    Writes a reply; see :class:`~txbits.interfaces.IWriter`.

    Memory is requested as bytes arrive. The present part begins at ``_sent``. Its first
    ``_stored`` bytes are in pieces, and the next ``_held`` bytes in memory.
    """

    key: str
    _held: int = field(default=0, init=False)
    _pieces: list[tuple[str, int]] = field(factory=list, init=False)
    _stored: int = field(default=0, init=False)
    _sent: int = field(default=0, init=False)
    _upload: str | None = field(default=None, init=False)
    _late: Any = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._memory.holders.add(self)

    @property
    def _memory(self) -> Share:
        return self._staged.staging.reply_memory

    @property
    def _in_memory(self) -> int:
        return self._held

    # Writing

    def write(self, data: bytes) -> Deferred[None]:
        """Append; see :class:`~txbits.interfaces.IWriter`."""
        return shielded(begun(self._write_in_turn(data)))

    async def _write_in_turn(self, data: bytes) -> None:
        async with self._lock:
            self._require_open()
            await self._guarded(self._write(data))

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

    # Memory

    async def _take(self, length: int) -> None:
        await super()._take(length)
        self._held += length

    def _is_slow(self) -> None:
        self._late = None
        if self._held >= LEAST_PIECE:
            self.put_away()

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
        await self._gather()
        pieces, self._pieces = self._pieces, []
        # It replaces the first of them, whose key it has.
        await self._put_away()
        await self._remove(pieces[1:])

    def _drop(self) -> None:
        held, self._held = self._held, 0
        self._chunks = []
        late, self._late = self._late, None
        if late is not None and late.active():
            late.cancel()
        if held:
            self._memory.give(held)

    # Parts

    async def _gather(self) -> list[bytes]:
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
            raise OutOfSpace(
                f"a reply of over {self._sent} bytes does not fit into {_MOST_PARTS} "
                "parts; let the application send a shorter one"
            )
        if self._upload is None:
            # Others, whose responses were lost, are found at the release by their key.
            self._upload = (await bucket.begin_upload(self.key, {})).upload
        body = Body(await self._gather())
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

    async def _close(self) -> None:
        self._is_open = False
        try:
            self._require_no_fault()
            await self._end()
        except BaseException:
            self._staged.reply_is_torn = True
            await self._abort()
            raise
        finally:
            self._leave()

    async def _end(self) -> None:
        bucket = self._staged.staging.bucket
        if self._upload is None:
            await bucket.put(self.key, Body(await self._gather()))
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

    async def _give_up(self) -> None:
        self._leave()
        await self._abort()
