"""
A writer: bytes flow into parts while they arrive.

At most two parts of a session are in memory: the one that is being filled and one that
is being sent, or two that are being sent. Bytes that do not fill a part are stored as a
tail when the writer is closed, or when memory is short.
"""

from __future__ import annotations

from attrs import define, field
from zope.interface import implementer

from txbits._deferreds import Waiters, begun, deferred
from txbits.backends.s3._bodies import Body, Digest
from txbits.backends.s3._budget import Share
from txbits.backends.s3._grid import Grid, Span, begin_of_merge, cover
from txbits.backends.s3._holding import HoldingWriter
from txbits.backends.s3._measuring import measure, read_tails
from txbits.backends.s3._records import MOST_INLINE
from txbits.backends.s3._storing import (
    look,
    prove,
    store_part,
    store_small,
    store_tail,
)
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import IWriter


@define(eq=False)
class _Sending:
    """A part that is being sent. Parts count as sent in the order of the file."""

    end: int
    is_over: bool = False
    sent: Waiters[None] = field(factory=Waiters)


@implementer(IWriter)
@define(eq=False)
class S3Writer(HoldingWriter):
    """
    Appends to a session; see :class:`~txbits.interfaces.IWriter`.

    The chunks in memory begin at ``_start`` and end at ``_position``. Bytes before
    ``_stored`` are in the bucket as well.
    """

    _total: int
    _part_size: int = field(default=0, init=False)
    _start: int = field(default=0, init=False)
    _stored: int = field(default=0, init=False)
    _position: int = field(default=0, init=False)
    _digest: Digest | None = field(default=None, init=False)
    _sending: list[_Sending] = field(factory=list, init=False)
    _tails: list[Span] = field(factory=list, init=False)
    _is_unproven: bool = field(default=False, init=False)

    @property
    def is_small(self) -> bool:
        """Whether the file is in the record."""
        return self._total <= MOST_INLINE

    @property
    def _memory(self) -> Share:
        return self._staged.staging.memory

    @property
    def _in_memory(self) -> int:
        return self._position - self._start

    def begin(self, part_size: int) -> None:
        """Begin at the session's offset."""
        staged = self._staged
        self._part_size = staged.record.part_size or part_size
        self._position = self._stored = staged.offset
        if staged.copy_end != staged.offset:
            staged.drop_copy()
        if staged.copy:
            self._chunks, staged.copy = staged.copy, []
            self._digest = staged.digest
        self._start = self._position - sum(map(len, self._chunks))
        if not self.is_small and self._is_at_cell(self._position):
            self._digest = staged.staging.bucket.client.new_digest()
        self._memory.holders.add(self)

    @property
    def _grid(self) -> Grid:
        return Grid(self._total, self._part_size)

    def _is_at_cell(self, offset: int) -> bool:
        return offset % self._part_size == 0

    # Writing

    @deferred
    async def write(self, data: bytes) -> None:
        """Append; see :class:`~txbits.interfaces.IWriter`."""
        self._require_open()
        if self._position + len(data) > self._total:
            raise BackendError("more bytes than the file has")
        async with self._lock:
            while data:
                self._require_open()
                cell = self._grid.cell(self._grid.number_at(self._position))
                piece = data[: cell.end - self._position]
                data = data[len(piece) :]
                await self._make_room(len(piece))
                self._append(piece)
                if self._digest is not None:
                    self._staged.staging.bucket.client.digest(self._digest, piece)
                self._position += len(piece)
                if self._position == cell.end and not self.is_small:
                    await self._send_part()

    async def _put_away(self) -> None:
        await self._store()
        self._drop()

    def _drop(self) -> None:
        held = self._in_memory
        self._chunks = []
        if not self._is_at_cell(self._position):
            self._digest = None
        self._start = self._position
        if held:
            self._memory.give(held)

    # Bytes in memory become a tail

    async def _store(self) -> None:
        """Store the bytes in memory that are not in the bucket yet."""
        if self.is_small:
            if self._stored < self._position or self._staged.record.total is None:
                data = b"".join(self._chunks)[self._stored - self._start :]
                await store_small(
                    self._staged, self._total, self._part_size, self._stored, data
                )
                self._stored = self._position
            return
        if self._stored == self._position:
            await self._settle()
            self._require_no_fault()
            return
        begin = begin_of_merge(
            self._tails_before(), self._stored, self._position, self._start
        )
        span = Span(begin, self._position)
        self._is_unproven = True
        self._tails.append(span)
        # At the same time as the part before it. Bytes count once both are stored.
        try:
            digest = self._digest if begin == self._start else None
            await store_tail(self._staged, span, Body(self._from(begin), digest))
        finally:
            await self._settle()
        self._require_no_fault()
        self._staged.reached(span.end)
        self._stored = self._position

    def _tails_before(self) -> list[Span]:
        cell = self._grid.cell(self._grid.number_at(self._start))
        return cover(self._staged.tails, cell.start, self._stored)

    def _from(self, begin: int) -> list[bytes]:
        """Return the bytes in memory from an offset on."""
        chunks = []
        skip = begin - self._start
        for chunk in self._chunks:
            if skip < len(chunk):
                chunks.append(chunk[skip:] if skip > 0 else chunk)
            skip -= len(chunk)
        return chunks

    # A full cell becomes a part

    async def _send_part(self) -> None:
        """
        Begin to send the cell that is full.

        Wait until the part before it is sent.
        """
        self._require_no_fault()
        if self._grid.cells == 1:
            # The file is put at Close, without a multipart upload.
            return
        chunks, start, digest = self._chunks, self._start, self._digest
        self._chunks, self._start = [], self._position
        self._digest = self._staged.staging.bucket.client.new_digest()
        self._stored = self._position
        self._is_unproven = True
        sending = _Sending(self._position)
        self._sending.append(sending)
        begun(self._send_off(sending, start, chunks, digest))
        if len(self._sending) > 1:
            await self._sending[0].sent.wait()
            self._require_no_fault()

    async def _send_off(
        self, sending: _Sending, start: int, chunks: list[bytes], digest: Digest | None
    ) -> None:
        try:
            await self._send(start, sending.end, chunks, digest)
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - the next call raises it
            self._fail(error)
        sending.is_over = True
        while self._sending and self._sending[0].is_over:
            first = self._sending.pop(0)
            if self._fault is None:
                self._staged.reached(first.end)
            first.sent.fire(None)

    async def _send(
        self, start: int, end: int, chunks: list[bytes], digest: Digest | None
    ) -> None:
        staged = self._staged
        memory = self._memory
        number = self._grid.number_at(end - 1)
        cell = self._grid.cell(number)
        held = end - start
        try:
            if start > cell.start:
                if not memory.fits(start - cell.start):
                    # This one must not hold bytes while it waits, as others do.
                    span = Span(start, end)
                    if held:
                        self._tails.append(span)
                        await store_tail(staged, span, Body(chunks))
                    chunks = []
                    memory.give(held)
                    held, start = 0, end
                await memory.take(start - cell.start)
                held += start - cell.start
                chunks = await self._read_back(number, start) + chunks
            if number not in staged.parts:
                memory.leaving += held
                try:
                    await store_part(staged, number, Body(chunks, digest))
                finally:
                    memory.leaving -= held
            await self._remove_useless()
        finally:
            memory.give(held)

    async def _read_back(self, number: int, end: int) -> list[bytes]:
        staged = self._staged
        start = self._grid.cell(number).start
        try:
            return await read_tails(staged, start, end)
        except StagedDataLost:
            # Another node may have made a part of the tails, and removed them.
            await staged.reread()
            await measure(staged)
            if number in staged.parts:
                return []
            return await read_tails(staged, start, end)

    async def _remove_useless(self) -> None:
        """Remove tails of cells that are parts, when there are many."""
        staged = self._staged
        number_at = self._grid.number_at
        useless = [
            span for span in staged.tails if number_at(span.start) in staged.parts
        ]
        staging = staged.staging
        if len(useless) >= staging.most_useless:
            await staging.bucket.delete_all(
                [staging.tail_key(staged.session_id, span) for span in useless]
            )
            staged.tails.difference_update(useless)

    async def _settle(self) -> None:
        """Wait until no part is being sent."""
        while self._sending:
            await self._sending[-1].sent.wait()

    # The end

    async def _close(self) -> None:
        staged = self._staged
        try:
            if self._is_abandoned:
                return
            self._require_no_fault()
            await self._store()
            if self._is_unproven:
                await prove(staged, self._tails)
            self._keep_copy()
        except BackendError:
            await self._settle()
            if self._tails:
                # The failure may be due to the end of the session.
                await look(staged, self._tails)
            raise
        finally:
            await self._give_up()

    def _keep_copy(self) -> None:
        """Keep the beginning of a cell in memory for the next writer."""
        staged = self._staged
        if (
            not self.is_small
            and self._start < self._position
            and self._is_at_cell(self._start)
            # Another node may have stored more meanwhile.
            and staged.offset == self._position
            # Copies are dropped first when memory is short.
            and self._memory.fits(0)
        ):
            staged.copy, self._chunks = self._chunks, []
            staged.copy_end = self._position
            staged.digest = self._digest
            self._start = self._position
            # The cache may have dropped the session, and could not free the copy then.
            staged.staging.known.keep(staged)

    async def _give_up(self) -> None:
        await self._settle()
        self._leave()
