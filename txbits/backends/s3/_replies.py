"""
The writer of a server application's reply.

A short reply is put whole when it ends. A longer one becomes a multipart upload, whose
parts are as short as S3 allows: an application may take its time, and nothing of what
is held for it can be put away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from txbits._deferreds import begun, shielded
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import NoUpload
from txbits.backends.s3._ending import fitting
from txbits.backends.s3._grid import Grid
from txbits.backends.s3._settings import LEAST_PART
from txbits.errors import BackendError, NoSuchSession, OutOfSpace
from txbits.interfaces import IWriter

if TYPE_CHECKING:
    from txbits.backends.s3._answering import AnsweringSession

#: So many bytes are held without more being asked for.
_FIRST = 1 << 16

#: How many parts a multipart upload has at most.
_MOST_PARTS = 10_000


@implementer(IWriter)
@define(eq=False)
class ReplyWriter:
    """
    Writes a reply; see :class:`~txbits.interfaces.IWriter`.

    What may be held is asked for at once, and while nothing else is but the first few
    bytes: nobody who waits for memory keeps it from others.
    """

    _session: AnsweringSession
    key: str
    _lock: DeferredLock = field(factory=DeferredLock, init=False)
    _chunks: list[bytes] = field(factory=list, init=False)
    _held: int = field(default=0, init=False)
    _taken: int = field(default=0, init=False)
    _sent: int = field(default=0, init=False)
    _upload: str | None = field(default=None, init=False)
    _fault: BaseException | None = field(default=None, init=False)
    _is_open: bool = field(default=True, init=False)
    _is_abandoned: bool = field(default=False, init=False)

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
                self._fault = error
                # Nothing will come of what is held, and others may wait for the room.
                self._drop()
                raise
        finally:
            self._lock.release()

    async def _write(self, data: bytes) -> None:
        while data:
            piece = data[: LEAST_PART - self._held]
            data = data[len(piece) :]
            await self._make_room(self._held + len(piece))
            self._chunks.append(piece)
            self._held += len(piece)
            if self._held == LEAST_PART:
                await self._send()

    def _usable(self) -> None:
        if self._fault is not None:
            raise self._fault
        if not self._is_open or self._is_abandoned:
            raise BackendError("this writer is closed")

    async def _make_room(self, length: int) -> None:
        if length <= self._taken:
            return
        memory = self._session.staging.memory
        self._give()
        wanted = _FIRST if length <= _FIRST else LEAST_PART
        await memory.take(wanted)
        self._taken = wanted
        self._usable()

    def _give(self) -> None:
        taken, self._taken = self._taken, 0
        if taken:
            self._session.staging.memory.give(taken)

    async def _send(self) -> None:
        """Put what is held as a part."""
        bucket = self._session.staging.bucket
        number = self._sent // LEAST_PART
        if number == _MOST_PARTS:
            raise OutOfSpace(f"a reply of over {self._sent} bytes")
        if self._upload is None:
            # Others, of lost answers, are found at the release by their key.
            self._upload = (await bucket.begin_upload(self.key, {})).upload
        await bucket.put_part(self.key, self._upload, number, Body(self._chunks))
        self._sent += self._held
        self._drop()

    def _drop(self) -> None:
        self._chunks, self._held = [], 0
        self._give()

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
                self._session.reply_is_torn = True
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
        bucket = self._session.staging.bucket
        if self._upload is None:
            await bucket.put(self.key, Body(self._chunks))
        else:
            if self._held:
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
                # It was completed when the answer got lost; some stores say so then.
                found = await bucket.head(self.key)
                if found is None or found.size != self._sent:
                    raise
            self._upload = None
        try:
            # Another node may have ended the session meanwhile.
            await self._session.look()
        except NoSuchSession:
            await bucket.delete(self.key)
            raise

    async def _abort(self) -> None:
        upload, self._upload = self._upload, None
        if upload is not None:
            await self._session.staging.bucket.abort(self.key, upload)

    def _leave(self) -> None:
        self._drop()
        if self._session.reply_writer is self:
            self._session.reply_writer = None

    async def abandon(self) -> None:
        """
        End without putting anything more.

        What is being put is waited for, so that nothing arrives after the release.
        """
        self._is_abandoned = True
        await self._lock.acquire()
        try:
            self._is_open = False
            self._leave()
            await self._abort()
        finally:
            self._lock.release()
