"""
The writer of a session on disk.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred, execute, fail, succeed
from zope.interface import implementer

from txbits._deferreds import Shared, together
from txbits.backends.disk._files import storage_error, translated
from txbits.backends.disk._lines import Phase
from txbits.backends.disk._staged import SHORT, Staged
from txbits.backends.disk._write_behind import PIECE
from txbits.errors import BackendError
from txbits.interfaces import IEagerWriter


@implementer(IEagerWriter)
@define(eq=False, weakref_slot=False)
class DiskWriter:
    """
    The open staged file of a session; see :class:`~txbits.interfaces.IWriter`.

    :param begun_at: The offset at which this writer began.
    :param behind: The offset up to which bytes are being written to the disk, a
        multiple of PIECE: the end of a short Fragment is written with the next one.
    :ivar closing: Syncs and closes the file, if :meth:`close` has to wait for that.
    """

    _staged: Staged
    _fd: int
    _begun_at: int
    _behind: int
    closing: Shared[None] | None = None

    def write(self, data: bytes) -> Deferred[None]:
        """Append to the file; see :class:`~txbits.interfaces.IWriter`."""
        # Without execute(): a Fragment arrives in many pieces.
        try:
            self.store(data)
        except BaseException:  # noqa: BLE001 - the Deferred carries it
            return fail()
        return succeed(None)

    def store(self, data: bytes | memoryview) -> None:
        """Append to the file; see :class:`~txbits.interfaces.IEagerWriter`."""
        staged = self._staged
        if self._fd < 0 or self.closing is not None:
            raise BackendError("this writer is closed")
        if staged.offset + len(data) > (staged.total or 0):
            raise BackendError("more bytes than the file has")
        staging = staged.staging
        rest: bytes | memoryview = data
        while rest:
            # A disk that fills up stores a part first, and fails the next time.
            try:
                stored = staging.files.pwrite(self._fd, rest, staged.offset)
            except OSError as error:
                raise storage_error(error, staging.root.path) from error
            if not stored:
                raise BackendError("the file system stored nothing and gave no reason")
            staged.offset += stored
            staged.last_progress = staging.seconds()
            rest = memoryview(rest)[stored:]
        end = staged.offset - staged.offset % PIECE
        behind = self._behind
        if (
            end > behind
            and staging.is_to_be_safe
            and staging.write_behind.begin(self, self._fd, behind, end - behind)
        ):
            self._behind = end

    def close(self) -> Deferred[None]:
        """Close the file; see :class:`~txbits.interfaces.IWriter`."""
        if self.closing is not None and self.closing.is_running:
            return self.closing.run(self._sync_and_shut)
        if self._fd < 0:
            return succeed(None)
        staged = self._staged
        if self._is_worth_securing():
            staged.secure(self._given_up())
            return succeed(None)
        if staged.staging.fsync != "fragment":
            return execute(self.shut)
        self.closing = Shared()
        return self.closing.run(self._sync_and_shut)

    def _is_worth_securing(self) -> bool:
        """
        Whether to sync the file now: it is complete, Close-Session comes next and needs
        it synced, and syncing is quick.
        """
        staged = self._staged
        return (
            staged.offset == staged.total
            and staged.total <= SHORT
            and staged.staging.fsync == "close"
        )

    async def _sync_and_shut(self) -> None:
        staged = self._staged
        staging = staged.staging
        syncs = [staging.sync(self._fd)]
        if not staged.is_name_safe:
            syncs.append(staging.sync_directory())
        try:
            try:
                await together(*syncs)
            except BackendError:
                # What a failed fsync has stored is unknown, and a second one would not
                # tell. The client has to resend what came since the last one.
                staged.offset = self._begun_at
                await staging.in_thread(
                    translated, staging.files.ftruncate, self._fd, self._begun_at
                )
                # The next fsync of the records stores this one again.
                translated(staged.mark, Phase.OPEN)
                raise
            staged.is_name_safe = True
            # After the fsync and before the Ack: acknowledged bytes are safe, and the
            # record says so. If recording fails, the bytes are safe nevertheless.
            translated(staged.record_safe)
            await staging.sync_table()
        finally:
            self.shut()
        staged.is_safe = staged.offset == staged.total

    def _given_up(self) -> int:
        """Hand the descriptor over; the caller closes it."""
        fd, self._fd = self._fd, -1
        staged = self._staged
        # Of an idle session, no more is kept in memory than it needs. A complete file
        # is about to be published.
        staged.writer = None
        if staged.offset != staged.total:
            staged.known_part = None
        return fd

    def shut(self) -> None:
        """
        Close the file at once. It may be called again.

        :raises BackendError: If bytes were lost in that; the file is closed
            nevertheless.
        """
        if self._fd < 0:
            return
        staged = self._staged
        files = staged.staging.files
        fd = self._given_up()
        try:
            try:
                files.close(fd)
            except OSError:
                # Some network file systems store data, and fail, only here. Which bytes
                # of this writer were stored is unknown, and a later fsync would not
                # tell.
                there = files.lstat(staged.part(), dir_fd=staged.staging.directory)
                staged.offset = min(self._begun_at, there.st_size)
                raise
        except OSError as error:
            raise storage_error(error) from error
