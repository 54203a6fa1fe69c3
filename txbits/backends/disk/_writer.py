"""
The writer of a session on disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define
from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.backends._threads import Joint
from txbits.backends.disk._files import at_once, translated
from txbits.backends.disk._syncs import all_done
from txbits.errors import BackendError
from txbits.interfaces import IWriter

if TYPE_CHECKING:
    from txbits.backends.disk._session import DiskSession


@implementer(IWriter)
@define(eq=False, weakref_slot=False)
class DiskWriter:
    """The open staged file of a session; see :class:`~txbits.interfaces.IWriter`."""

    _session: DiskSession
    _fd: int
    _begun_at: int
    closing: Joint | None = None

    def write(self, data: bytes) -> Deferred[None]:
        """Append to the file; see :class:`~txbits.interfaces.IWriter`."""
        return at_once(self._append, data)

    def _append(self, data: bytes) -> None:
        session = self._session
        if self._fd < 0 or self.closing is not None:
            raise BackendError("this writer is closed")
        if session.offset + len(data) > (session.total or 0):
            raise BackendError("more bytes than the file has")
        staging = session.staging
        rest: bytes | memoryview = data
        while rest:
            # A disk that fills up stores a part first, and fails the next time.
            stored = staging.files.pwrite(self._fd, rest, session.offset)
            if not stored:
                raise BackendError("the file system stores nothing, and says no reason")
            session.offset += stored
            session.last_progress = staging.seconds()
            rest = memoryview(rest)[stored:]

    def close(self) -> Deferred[None]:
        """Close the file; see :class:`~txbits.interfaces.IWriter`."""
        if self.closing is not None:
            return self.closing.join()
        if self._fd < 0:
            return succeed(None)
        session = self._session
        if session.is_worth_securing():
            session.secure(self._given_up())
            return succeed(None)
        if session.staging.fsync != "fragment":
            return at_once(self.shut)
        closing = self.closing = Joint()
        answer = closing.join()
        self._sync_and_shut().addBoth(self._closed).addBoth(closing.end)
        return answer

    def _closed(self, outcome: None) -> None:
        self.closing = None
        return outcome

    @deferred
    async def _sync_and_shut(self) -> None:
        session = self._session
        staging = session.staging
        syncs = [staging.sync(self._fd)]
        if not session.is_recorded:
            syncs.append(staging.sync_directory())
        try:
            try:
                await all_done(*syncs)
            except BackendError:
                # Nobody knows what was stored, and a second fsync would not tell: what
                # came since the last one has to come again.
                session.offset = self._begun_at
                await staging.in_thread(
                    translated, staging.files.ftruncate, self._fd, self._begun_at
                )
                translated(session.record_again)
                raise
            session.is_recorded = True
            # Only now, and before the Ack: what is acknowledged is what the record
            # says is safe. If this fails the bytes are safe all the same.
            translated(session.record_safe)
            await staging.sync_table()
        finally:
            translated(self.shut)
        session.is_safe = session.offset == session.total

    def _given_up(self) -> int:
        """Have somebody else close the file."""
        fd, self._fd = self._fd, -1
        self._session.writer = None
        return fd

    def shut(self) -> None:
        """
        Close the file at once. It may be called again.

        :raises OSError: If bytes were lost in that; the file is closed all the same.
        """
        if self._fd < 0:
            return
        session = self._session
        files = session.staging.files
        fd = self._given_up()
        try:
            files.close(fd)
        except OSError:
            # Some network file systems store, and fail, only now. Which bytes of this
            # writer are there nobody knows, and no fsync to come would tell.
            there = files.lstat(session.part(), dir_fd=session.staging.directory)
            session.offset = min(self._begun_at, there.st_size)
            raise
