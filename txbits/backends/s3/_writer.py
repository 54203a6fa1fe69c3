"""
A writer: bytes flow into parts while they arrive.

At most two parts of a session are in memory: the one that is being filled and one that
is being sent, or two that are being sent. Bytes that do not fill a part are stored as a
tail when the writer is closed, or when memory is short.
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import Waiters, begun, deferred
from txbits.backends.s3._bodies import Body, Digest
from txbits.backends.s3._grid import Grid, Span, begin_of_merge, cover
from txbits.backends.s3._measuring import measure
from txbits.backends.s3._records import MOST_INLINE
from txbits.backends.s3._staged import Staged
from txbits.backends.s3._storing import (
    look,
    prove,
    store_part,
    store_small,
    store_tail,
)
from txbits.errors import BackendError, StagedDataLost
from txbits.interfaces import IWriter

#: Pieces are joined up to this length, in bytes.
_SHORT_CHUNK = 16 * 1024


@define(eq=False)
class _Sending:
    """A part that is being sent. Parts count as sent in the order of the file."""

    end: int
    is_over: bool = False
    sent: Waiters[None] = field(factory=Waiters)


@implementer(IWriter)
@define(eq=False)
class S3Writer:
    """
    Appends to a session; see :class:`~txbits.interfaces.IWriter`.

    The chunks in memory begin at ``_start`` and end at ``_position``. Bytes before
    ``_stored`` are in the bucket as well.
    """

    _staged: Staged
    _total: int
    _lock: DeferredLock = field(factory=DeferredLock, init=False)
    _part_size: int = field(default=0, init=False)
    _chunks: list[bytes] = field(factory=list, init=False)
    _start: int = field(default=0, init=False)
    _stored: int = field(default=0, init=False)
    _position: int = field(default=0, init=False)
    _digest: Digest | None = field(default=None, init=False)
    _sending: list[_Sending] = field(factory=list, init=False)
    _fault: BaseException | None = field(default=None, init=False)
    _tails: list[Span] = field(factory=list, init=False)
    _is_unproven: bool = field(default=False, init=False)
    _is_open: bool = field(default=True, init=False)
    _is_abandoned: bool = field(default=False, init=False)
    _is_going: bool = field(default=False, init=False)
    _is_waiting: bool = field(default=False, init=False)
    _closing: Waiters[None] | None = field(default=None, init=False)

    @property
    def is_small(self) -> bool:
        """Whether the file is in the record."""
        return self._total <= MOST_INLINE

    @property
    def held(self) -> int:
        """How many bytes could be put away."""
        if self._is_going or self._is_waiting:
            return 0
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
        staged.staging.memory.holders.add(self)

    @property
    def _grid(self) -> Grid:
        return Grid(self._total, self._part_size)

    def _is_at_cell(self, offset: int) -> bool:
        return offset % self._part_size == 0

    # Writing

    @deferred
    async def write(self, data: bytes) -> None:
        """Append; see :class:`~txbits.interfaces.IWriter`."""
        self._usable()
        if self._position + len(data) > self._total:
            raise BackendError("more bytes than the file has")
        await self._lock.acquire()
        try:
            while data:
                self._usable()
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
        finally:
            self._lock.release()

    def _append(self, piece: bytes) -> None:
        # Many objects of a few bytes would use much more memory than is counted.
        if self._chunks and len(self._chunks[-1]) + len(piece) <= _SHORT_CHUNK:
            self._chunks[-1] += piece
        else:
            self._chunks.append(piece)

    def _usable(self) -> None:
        self._insist()
        if not self._is_open or self._is_abandoned:
            raise BackendError("this writer is closed")

    def _insist(self) -> None:
        """Raise the error of a request that was sent in the background."""
        if self._fault is not None:
            raise self._fault

    async def _make_room(self, length: int) -> None:
        memory = self._staged.staging.memory
        if not memory.fits(length) and not memory.fits_soon(length):
            # This one must not hold bytes while others put theirs away for it.
            await self._put_away()
        # A writer that waits for memory cannot put bytes away.
        self._is_waiting = True
        try:
            await memory.take(length)
        finally:
            self._is_waiting = False
        if self._is_abandoned:
            memory.give(length)
            self._usable()

    def put_away(self) -> None:
        """Store what is held, because memory is short."""
        self._is_going = True
        begun(self._put_away_in_turn()).addErrback(self._failed)

    async def _put_away_in_turn(self) -> None:
        try:
            await self._lock.acquire()
            try:
                if self._is_open and not self._is_abandoned and self._fault is None:
                    await self._put_away()
            finally:
                self._lock.release()
        finally:
            self._is_going = False

    async def _put_away(self) -> None:
        await self._store()
        self._drop()

    def _drop(self) -> None:
        held = self._position - self._start
        self._chunks = []
        if not self._is_at_cell(self._position):
            self._digest = None
        self._start = self._position
        if held:
            self._staged.staging.memory.give(held)

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
            await self._sent()
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
            await self._rest()
        self._insist()
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
        self._insist()
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
        begun(self._send(start, self._position, chunks, digest)).addBoth(
            self._has_sent, sending
        )
        if len(self._sending) > 1:
            await self._sending[0].sent.wait()
            self._insist()

    async def _send(
        self, start: int, end: int, chunks: list[bytes], digest: Digest | None
    ) -> None:
        staged = self._staged
        memory = staged.staging.memory
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
            return await staged.read_tails(start, end)
        except StagedDataLost:
            # Another node may have made a part of the tails, and removed them.
            await staged.reread()
            await measure(staged)
            if number in staged.parts:
                return []
            return await staged.read_tails(start, end)

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

    def _has_sent(self, outcome: Failure | None, sending: _Sending) -> None:
        if isinstance(outcome, Failure):
            self._failed(outcome)
        sending.is_over = True
        while self._sending and self._sending[0].is_over:
            first = self._sending.pop(0)
            if self._fault is None:
                self._staged.reached(first.end)
            first.sent.fire(None)

    async def _sent(self) -> None:
        """Wait until all parts are sent, and raise the error if one failed."""
        await self._rest()
        self._insist()

    async def _rest(self) -> None:
        """Wait until no part is being sent."""
        while self._sending:
            await self._sending[-1].sent.wait()

    def _failed(self, failure: Failure) -> None:
        if self._fault is None:
            self._fault = failure.value
        # These bytes are lost, and others may be waiting for memory.
        self._drop()

    # The end

    def close(self) -> Deferred[None]:
        """Put the rest; see :class:`~txbits.interfaces.IWriter`."""
        if self._closing is not None:
            return self._closing.wait()
        if not self._is_open:
            return succeed(None)
        closing = self._closing = Waiters()
        mine = closing.wait()
        begun(self._close()).addBoth(self._has_closed)
        return mine

    async def _close(self) -> None:
        await self._lock.acquire()
        staged = self._staged
        try:
            if self._is_abandoned:
                return
            self._insist()
            await self._store()
            if self._is_unproven:
                await prove(staged, self._tails)
            self._keep_copy()
        except BackendError:
            await self._rest()
            if self._tails:
                # The failure may be due to the end of the session.
                await look(staged, self._tails)
            raise
        finally:
            await self._rest()
            self._leave()
            self._lock.release()

    def _keep_copy(self) -> None:
        """Keep the beginning of a cell in memory for the next writer."""
        staged = self._staged
        memory = staged.staging.memory
        if (
            not self.is_small
            and self._start < self._position
            and self._is_at_cell(self._start)
            # Another node may have stored more meanwhile.
            and staged.offset == self._position
            # Copies are dropped first when memory is short.
            and memory.fits(0)
        ):
            staged.copy, self._chunks = self._chunks, []
            staged.copy_end = self._position
            staged.digest = self._digest
            self._start = self._position
            # The cache may have dropped the session, and could not free the copy then.
            staged.staging.known.keep(staged)

    def _leave(self) -> None:
        self._is_open = False
        if self._staged.writer is self:
            self._staged.writer = None
        self._staged.staging.memory.holders.discard(self)
        self._drop()

    def _has_closed(self, outcome: Failure | None) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.fire(outcome)

    async def abandon(self) -> None:
        """
        Stop writing, because the session is being released.

        Requests under way are waited for, so that nothing arrives after the release.
        """
        self._is_abandoned = True
        await self._lock.acquire()
        try:
            await self._rest()
            self._leave()
        finally:
            self._lock.release()
