"""
The staged file of one session: how many bytes it has, and how many of them are safe.

Bytes are *safe* if they survive a system crash. The record may say that fewer bytes are
safe, but never more: it is updated only after the fsync.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Protocol
from uuid import UUID

from attrs import define
from twisted.python.failure import Failure

from txbits._deferreds import Shared, Waiters, deferred
from txbits.backends.disk._files import READ, WRITE, remove, translated
from txbits.backends.disk._lines import Phase
from txbits.backends.disk._staging import Staging
from txbits.errors import BackendError, StagedDataLost

#: The maximum length of a file that is quick to remove or to sync, in bytes.
SHORT = 1 << 20

_NEW = WRITE | os.O_CREAT | os.O_TRUNC


def part_name(session_id: UUID) -> str:
    """The name of a session's staged file."""
    return f"{str(session_id).upper()}.part"


class OpenWriter(Protocol):
    """
    The writer of a staged file, while that is open; see
    :class:`txbits.backends.disk._writer.DiskWriter`.
    """

    closing: Shared[None] | None

    def shut(self) -> None: ...


@define(eq=False, weakref_slot=False)
class Staged:
    """
    A staged file, and what its record says: the part of a session that manages bytes.

    To save memory, the object of an idle session stores neither a path nor a
    descriptor. The id is enough to find the file.

    :ivar total: The length of the complete file in bytes; ``None`` before the first
        writer is opened.
    :ivar offset: The number of valid bytes. After a failure, the file may have more.
    :ivar last_progress: The time at which bytes were last stored, in seconds since the
        epoch.
    :ivar in_doubt: Whether acknowledged bytes may be missing.
    :ivar safe: The highest safe offset that the record on the disk may contain. After
        bytes were lost, it can be greater than the offset.
    :ivar is_kept: Whether only safe bytes were ever acknowledged.
    :ivar is_safe: Whether all bytes of the file are safe.
    :ivar is_name_safe: Whether the name of the file is safe.
    :ivar is_moved: Whether the file was renamed to its destination.
    :ivar releasing: Whether the session is being released.
    :ivar securing: Waits for the fsync of the complete file, while it is in progress.
    :ivar writer: The writer of the file, while that is open.
    :ivar known_part: The name of the file, while it is needed often.
    """

    session_id: UUID
    staging: Staging
    last_progress: float
    total: int | None = None
    offset: int = 0
    releasing: bool = False
    in_doubt: bool = False
    safe: int = 0
    is_kept: bool = False
    is_safe: bool = False
    is_name_safe: bool = False
    is_moved: bool = False
    securing: Waiters[None] | None = None
    writer: OpenWriter | None = None
    known_part: str | None = None
    _unsafe: BackendError | None = None

    def part(self) -> str:
        """The name of the file."""
        if self.known_part is None:
            self.known_part = part_name(self.session_id)
        return self.known_part

    def mark(self, phase: Phase) -> None:
        """
        Record the phase of the session, and what is known of its bytes.

        :raises OSError: If that fails.
        :raises BackendError: If there is no record.
        """
        self.staging.table.mark(
            self.session_id,
            phase,
            self.total,
            self.safe,
            is_kept=self.is_kept,
            in_doubt=self.in_doubt,
        )

    def record_safe(self) -> None:
        """
        Record that all bytes of the file are safe.

        :raises OSError: If that fails.
        :raises BackendError: If there is no record.
        """
        self.safe = self.offset
        self.mark(Phase.OPEN)
        self.staging.table.note_safe(self.session_id)

    # -- opening

    @deferred
    async def lower_safe(self) -> None:
        """
        Record that fewer bytes are safe than before.

        The record has to reach the disk before other bytes replace those that are lost.
        Otherwise, the new bytes would count as safe after a system crash.
        """
        before, self.safe = self.safe, self.offset
        try:
            translated(self.mark, Phase.OPEN)
        finally:
            self.safe = before
        await self.staging.sync_table()
        self.safe = self.offset

    def open_to_append(self, total: int) -> int:
        """
        Open the file, and truncate it to the offset.

        :param total: The length of the complete file.
        :returns: A descriptor.
        :raises OSError: If a system call fails.
        :raises BackendError: If the file cannot be continued in this way.
        """
        staging = self.staging
        if self.total is None:
            fd = self._open_new(total)
        elif total != self.total:
            raise BackendError(f"the file has {self.total} bytes, not {total}")
        else:
            fd = self._reopen()
        self.is_safe = False
        if staging.is_to_be_safe:
            staging.table.note_unsafe(self.session_id)
        return fd

    def _open_new(self, total: int) -> int:
        staging = self.staging
        files = staging.files
        # The file exists if an earlier attempt failed here, or if a system crash lost
        # the total.
        fd = files.open(self.part(), _NEW, 0o666, dir_fd=staging.directory)
        self.total = total
        try:
            self._go_on()
        except BaseException:
            self.total = None
            files.close(fd)
            raise
        return fd

    def _go_on(self) -> None:
        """Record that the upload continues, and is not in doubt any more."""
        was_in_doubt, self.in_doubt = self.in_doubt, False
        try:
            self.mark(Phase.OPEN)
        except BaseException:
            self.in_doubt = was_in_doubt
            raise

    def _reopen(self) -> int:
        files = self.staging.files
        # If syncing the file failed, it was removed, or should have been.
        fd = self.open(WRITE if self.offset else _NEW)
        try:
            held = self.check_length(files.fstat(fd).st_size)
            if held > self.offset:
                # Syncing these bytes failed, and so did removing them.
                files.ftruncate(fd, self.offset)
            if self.in_doubt:
                self._go_on()
        except BaseException:
            files.close(fd)
            raise
        return fd

    def open(self, flags: int = READ) -> int:
        """
        Open the file.

        :raises StagedDataLost: If it is gone.
        :raises OSError: If opening fails in another way.
        """
        staging = self.staging
        try:
            return staging.files.open(
                self.part(), flags, 0o666, dir_fd=staging.directory
            )
        except FileNotFoundError as error:
            raise StagedDataLost(str(error)) from error

    def look(self) -> os.stat_result:
        """
        Return the status of the complete file.

        :raises StagedDataLost: If it is gone, or was truncated.
        """
        staging = self.staging
        try:
            there = staging.files.lstat(self.part(), dir_fd=staging.directory)
        except FileNotFoundError as error:
            raise StagedDataLost(str(error)) from error
        self.check_length(there.st_size)
        return there

    def check_length(self, length: int) -> int:
        """
        Check the length of the file.

        :returns: The length.
        :raises StagedDataLost: If it is less than the offset.
        :raises BackendError: If it is more than the total.
        """
        if length < self.offset:
            raise StagedDataLost(
                f"{self.part()} has {length} bytes, but {self.offset} were stored"
            )
        if self.total is None or length > self.total:
            raise BackendError(f"{self.part()} is too long: {length} bytes")
        return length

    # -- surviving a system crash

    def secure(self, fd: int) -> None:
        """
        Start to sync the complete file.

        :param fd: The descriptor of the file. It is closed when the sync has ended.
        """
        securing = self.securing = Waiters()

        def secured(outcome: Failure | None) -> None:
            if outcome is None:
                self.is_safe = True
                if not (securing.is_awaited or self.releasing):
                    # If Close-Session waits, it records that with everything else.
                    with suppress(OSError, BackendError):  # the record may say less
                        self.record_safe()
            elif isinstance(outcome.value, BackendError):
                # The bytes were acknowledged. make_safe() tells Close-Session.
                self._unsafe = outcome.value
                self._discard()
            with suppress(OSError):  # all bytes are synced, or given up
                self.staging.files.close(fd)
            self.securing = None
            securing.fire(None)

        self.staging.sync(fd).addBoth(secured)

    async def make_safe(self) -> None:
        """
        Make all bytes safe, or wait until they are.

        :raises BackendError: If syncing failed; all bytes are lost then.
        """
        if self.securing is not None:
            await self.securing.wait()
        if self._unsafe is not None:
            self.offset = 0
            fault, self._unsafe = self._unsafe, None
            raise fault
        if self.is_safe:
            return
        staging = self.staging
        fd = translated(self.open, WRITE)
        try:
            self.check_length(translated(staging.files.fstat, fd).st_size)
            try:
                await staging.sync(fd)
            except BackendError:
                self.offset = 0
                await staging.in_thread(self._discard)
                raise
        finally:
            translated(staging.files.close, fd)
        self.is_safe = True
        translated(self.record_safe)

    def _discard(self) -> None:
        # It is unknown what a failed fsync has stored, and a second one would succeed:
        # an incomplete file would be published. Without its staged file, the session is
        # in doubt, even after a restart.
        with suppress(OSError):
            self.remove()

    # -- the end

    def remove(self) -> None:
        """
        Remove the file, if it exists.

        :raises OSError: If that fails.
        """
        staging = self.staging
        remove(staging.files, self.part(), staging.directory)
        staging.file_clock.linked.pop(self.session_id, None)
