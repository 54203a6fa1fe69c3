"""
A session on disk: from its first byte to its publication or its release.

Objects of sessions are many and idle, so they hold no paths and no descriptors: those
follow from the id. A method whose name ends in ``_in_thread`` blocks, and runs in a
thread when it may block for long.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from functools import partial
from uuid import UUID

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.backends._destinations import checked_segments
from txbits.backends._serving import Reading
from txbits.backends._threads import Joint
from txbits.backends.disk._answer_file import reply_name
from txbits.backends.disk._application import DiskAnswers
from txbits.backends.disk._files import at_once, storage_error, translated
from txbits.backends.disk._ownership import Wanted
from txbits.backends.disk._probe import Way, sync_names
from txbits.backends.disk._records import Phase, part_name
from txbits.backends.disk._staging import Staging
from txbits.backends.disk._syncs import all_done
from txbits.backends.disk._tree import Mounted
from txbits.backends.disk._writer import DiskWriter
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    ParentMissing,
    StagedDataLost,
)
from txbits.interfaces import (
    Answer,
    IAddressable,
    IAnswerable,
    IReadable,
    IReplyAddressable,
    IStoredFile,
    IUploadSession,
    IWriter,
)

# Freeing the blocks of a longer file, or storing it safely, takes a while.
_SHORT = 1 << 20

_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = _WRITE | os.O_CREAT | os.O_TRUNC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@implementer(IUploadSession, IReadable, IAddressable, IAnswerable, IReplyAddressable)
@define(eq=False, weakref_slot=False)
class DiskSession:
    """
    One upload; see :class:`~txbits.interfaces.IUploadSession`.

    :ivar staging: Where it lies.
    :ivar writer: The writer that is open, ``None`` if none is.
    :ivar in_doubt: Whether bytes that were acknowledged may be missing.
    :ivar is_safe: Whether all bytes of the file are known to survive a crash of the
        machine.
    :ivar is_recorded: Whether the staged file's name is.
    :ivar safe: The highest safe offset that the record on the disk may have.
    :ivar is_kept: Whether no more bytes than the safe ones were ever acknowledged.
    :ivar answers: What an application answered, ``None`` if none was asked.
    """

    session_id: UUID
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    last_progress: float
    staging: Staging
    total: int | None = None
    offset: int = 0
    published: bool = False
    releasing: bool = False
    in_doubt: bool = False
    answers: DiskAnswers | None = None
    writer: DiskWriter | None = None
    is_safe: bool = False
    is_recorded: bool = False
    safe: int = 0
    is_kept: bool = False
    _is_moved: bool = False
    _gone: bool = False
    _part: str | None = None
    _securing: Joint | None = None
    _unsafe: BackendError | None = None
    _ending: Joint | None = None

    def part(self) -> str:
        """The name of the staged file."""
        if self._part is None:
            self._part = part_name(self.session_id)
        return self._part

    def _mark(self, phase: Phase) -> None:
        self.staging.table.mark(
            self.session_id,
            phase,
            self.total,
            self.safe,
            is_kept=self.is_kept,
            in_doubt=self.in_doubt,
        )

    # -- writing

    def open_writer(self, total: int) -> Deferred[IWriter]:
        """Begin to append; see :class:`~txbits.interfaces.IUploadSession`."""
        if self._securing is not None:
            return self._securing.join().addCallback(lambda _: self.open_writer(total))
        if self.safe > self.offset:
            return self._lowered().addCallback(lambda _: self.open_writer(total))
        return at_once(self._open_writer, total)

    @deferred
    async def _lowered(self) -> None:
        """
        Have the record say that fewer bytes are safe than it did.

        On the disk, too, before other bytes come in place of those that are gone: after
        a crash of the machine they would count as safe.
        """
        staging = self.staging
        before, self.safe = self.safe, self.offset
        try:
            translated(self._mark, Phase.OPEN)
        finally:
            self.safe = before
        await staging.sync_table()
        self.safe = self.offset

    def _open_writer(self, total: int) -> IWriter:
        if self.writer is not None:
            raise BackendError("a writer is open already")
        if self.published or self.releasing:
            raise BackendError("the session takes no more bytes")
        if self.total is None:
            self.staging.need_space(total)
            fd = self._open_new(total)
        elif total != self.total:
            raise BackendError(f"the file has {self.total} bytes, not {total}")
        else:
            self.staging.need_space(total - self.offset)
            fd = self._reopen()
        self.is_safe = False
        staging = self.staging
        if staging.is_to_be_safe:
            staging.unsafe.add(self.session_id)
        self.writer = DiskWriter(self, fd, self.offset)
        return self.writer

    def record_again(self) -> None:
        """Have the next fsync of the records store this one, whatever the last did."""
        self._mark(Phase.OPEN)

    def record_safe(self) -> None:
        """
        Write down that all bytes there are survive a crash of the machine.

        :raises OSError: If that cannot be done.
        :raises BackendError: If there is no record.
        """
        self.safe = self.offset
        self._mark(Phase.OPEN)
        self.staging.unsafe.discard(self.session_id)

    def _open_new(self, total: int) -> int:
        staging = self.staging
        files = staging.files
        # It may be there, if an earlier attempt came no further than that, or a crash
        # of the machine has lost the total.
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
        """Write down that bytes come, and that the client is told which are missing."""
        was_in_doubt, self.in_doubt = self.in_doubt, False
        try:
            self._mark(Phase.OPEN)
        except BaseException:
            self.in_doubt = was_in_doubt
            raise

    def _reopen(self) -> int:
        files = self.staging.files
        # One that could not be stored safely was removed, or should have been.
        fd = self._open_part(_WRITE if self.offset else _NEW)
        try:
            held = self._measured(files.fstat(fd).st_size)
            if held > self.offset:
                # They could not be stored safely, and then could not be cut off.
                files.ftruncate(fd, self.offset)
            if self.in_doubt:
                self._go_on()
        except BaseException:
            files.close(fd)
            raise
        return fd

    def _open_part(self, flags: int) -> int:
        staging = self.staging
        try:
            return staging.files.open(
                self.part(), flags, 0o666, dir_fd=staging.directory
            )
        except FileNotFoundError as error:
            raise StagedDataLost(str(error)) from error

    def _measured(self, length: int) -> int:
        """
        Take the length of the staged file for the offset.

        :raises StagedDataLost: If there were more bytes before.
        :raises BackendError: If there are more than there can be.
        """
        if length < self.offset:
            raise StagedDataLost(f"{self.part()}: {length} bytes of {self.offset}")
        if self.total is None or length > self.total:
            raise BackendError(f"{self.part()} has {length} bytes")
        return length

    # -- surviving a crash of the machine

    def is_worth_securing(self) -> bool:
        """
        Whether the file is complete, and stored safely so soon that Close-Session,
        which is next, and needs it so, should not have to ask for it.
        """
        return (
            self.offset == self.total
            and self.total <= _SHORT
            and self.staging.fsync == "close"
        )

    def secure(self, fd: int) -> None:
        """
        Begin to store the complete file safely.

        :param fd: The staged file, opened; it is closed at the end.
        """
        securing = self._securing = Joint()

        def secured(outcome: Failure | None) -> None:
            if outcome is None:
                self.is_safe = True
                if not (securing.is_awaited or self.releasing):
                    # Otherwise Close-Session writes it down, with all the rest.
                    with suppress(OSError, BackendError):  # it may say less
                        self.record_safe()
            elif isinstance(outcome.value, BackendError):
                # Told when it is asked for.
                self._unsafe = outcome.value
                self._discard()
            with suppress(OSError):  # all bytes are stored, or given up
                self.staging.files.close(fd)
            self._securing = None
            securing.end(None)

        self.staging.sync(fd).addBoth(secured)

    def _discard(self) -> None:
        # Nobody knows what an fsync that failed has stored, and a second one would
        # succeed: without this, the file would be published though it is not whole. A
        # session whose staged file is gone is in doubt, also after a restart.
        with suppress(OSError):
            self._unlink_part()

    async def _secured(self) -> None:
        """
        Wait until all bytes are stored safely.

        :raises BackendError: If that failed; they are all lost then.
        """
        if self._securing is not None:
            await self._securing.join()
        if self._unsafe is not None:
            self.offset = 0
            fault, self._unsafe = self._unsafe, None
            raise fault
        if self.is_safe:
            return
        staging = self.staging
        fd = translated(self._open_part, _WRITE)
        try:
            self._measured(translated(staging.files.fstat, fd).st_size)
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

    # -- publishing

    @deferred
    async def publish(self, *, overwrite: bool, create_directories: bool) -> None:
        """Link or move the file; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.published:
            return
        if self.total is None or self.offset < self.total:
            raise BackendError("the upload is not complete")
        staging = self.staging
        root = staging.root.check()
        if staging.is_to_be_safe:
            await self._secured()
            self.safe = self.offset
        # Again: a session that was found has its destination from a file.
        segments = checked_segments(self.destination)
        parent = await self._open_parent(segments, create_directories)
        try:
            there = root
            if parent != staging.tree.fd:
                there = translated(staging.files.fstat, parent)
            wanted = translated(staging.ownership.wanted, parent, there)
            if wanted is not None:
                await self._adapt(wanted)
            if staging.is_to_be_safe and len(segments) > 1:
                await staging.sync_way(segments)
            way = staging.file_system.way
            if overwrite or self._is_moved or way is Way.RENAME:
                # The blocks of the other file are freed; or the record is synced.
                await staging.in_thread(
                    translated, self._move_in_thread, segments, parent, overwrite
                )
            elif way is Way.LINK:
                linked = translated(self._link, segments, parent, way)
                if staging.is_to_be_safe:
                    await self._make_link_safe(segments, parent, linked)
            else:
                await self._publish_otherwise(segments, parent, way)
        finally:
            translated(staging.tree.let_go, parent)
        self.published = True

    async def _adapt(self, wanted: Wanted) -> None:
        """Give the file what one that is made in its folder would have."""
        staging = self.staging
        try:
            fd = translated(self._open_part, _WRITE)
        except StagedDataLost:
            if self._is_moved:
                return  # it has got it already
            raise
        try:
            has_changed = translated(staging.ownership.give, fd, wanted)
        finally:
            translated(staging.files.close, fd)
        if has_changed and staging.is_to_be_safe:
            self.is_safe = False
            await self._secured()

    async def _open_parent(
        self, segments: tuple[str, ...], create_directories: bool
    ) -> int:
        open_parent = self.staging.tree.open_parent
        try:
            return translated(open_parent, segments)
        except Mounted as error:
            # It was not when the session was made. It may go again.
            raise BackendError(str(error)) from error
        except ParentMissing:
            if not create_directories:
                raise
        made: int = await self.staging.in_thread(
            translated, partial(open_parent, create_directories=True), segments
        )
        return made

    async def _publish_otherwise(
        self, segments: tuple[str, ...], parent: int, way: Way
    ) -> None:
        """Publish where links do not show, or only what is empty."""
        staging = self.staging
        if way is Way.NONE:
            there = translated(self._make_empty, segments, parent)
        else:
            try:
                there = translated(self._link, segments, parent, way)
            except DestinationExists:
                if way is not Way.COMPARED or not await staging.in_thread(
                    translated, staging.is_same, self.session_id, segments, parent
                ):
                    raise
                # Nothing to take back: it may have been there before this upload.
                there = None
                translated(self._mark, Phase.PUBLISHED)
        if staging.is_to_be_safe:
            await self._make_link_safe(segments, parent, there)

    def _staged(self) -> os.stat_result:
        """
        Look at the complete staged file.

        :raises StagedDataLost: If it is gone, or cut.
        """
        staging = self.staging
        part = self.part()
        try:
            staged = staging.files.lstat(part, dir_fd=staging.directory)
        except FileNotFoundError as error:
            raise StagedDataLost(str(error)) from error
        self._measured(staged.st_size)
        return staged

    def _link(self, segments: tuple[str, ...], parent: int, way: Way) -> os.stat_result:
        """
        Link the file to its destination.

        :returns: What :meth:`_take_link_back` needs.
        """
        staging = self.staging
        staged = self._staged()
        staging.file_clock.linked[self.session_id] = staged.st_ino
        try:
            staging.files.link(
                self.part(),
                segments[-1].encode(),
                src_dir_fd=staging.directory,
                dst_dir_fd=parent,
                follow_symlinks=False,
            )
        except FileExistsError:
            there = staging.tree.check_name(parent, segments, overwrite=True)
            # Linked already, before a crash: that is the file itself.
            if there is None or not os.path.samestat(there, staged):
                raise DestinationExists(f"{segments!a} exists") from None
        except OSError as error:
            raise self._refusal(error, segments) from error
        if way is Way.COMPARED:
            staged = staging.files.lstat(segments[-1].encode(), dir_fd=parent)
            staging.file_clock.linked[self.session_id] = staged.st_ino
        try:
            self._mark(Phase.PUBLISHED)
        except (OSError, BackendError):
            self._take_link_back(segments, parent, staged)
            raise
        return staged

    def _make_empty(self, segments: tuple[str, ...], parent: int) -> os.stat_result:
        """
        Make an empty file at the destination: all that can be done without overwriting
        where there is neither link nor rename for that.
        """
        staging = self.staging
        files = staging.files
        if self.total:
            raise BackendError(
                f"{segments!a}: this file system cannot publish without overwriting"
            )
        self._staged()
        try:
            fd = files.open(
                segments[-1].encode(), _NEW | os.O_EXCL, 0o666, dir_fd=parent
            )
        except FileExistsError:
            staging.tree.check_name(parent, segments, overwrite=False)
            raise
        except OSError as error:
            raise self._refusal(error, segments) from error
        try:
            there = files.fstat(fd)
        finally:
            files.close(fd)
        try:
            self._mark(Phase.PUBLISHED)
        except (OSError, BackendError):
            self._take_link_back(segments, parent, there)
            raise
        return there

    async def _make_link_safe(
        self, segments: tuple[str, ...], parent: int, there: os.stat_result | None
    ) -> None:
        # The record as well: when the staged file is gone, it alone tells that the file
        # was published.
        staging = self.staging
        try:
            await all_done(
                staging.sync_parent(parent), *staging.sync_record(self.session_id)
            )
        except BackendError:
            self._take_link_back(segments, parent, there)
            raise

    def _take_link_back(
        self, segments: tuple[str, ...], parent: int, there: os.stat_result | None
    ) -> None:
        """
        Make it so that publishing has not happened, as well as that can be done.

        A client who is told of a failure may cancel, and find the file nowhere.

        :param there: What was made to stand there; ``None`` if nothing was.
        """
        files = self.staging.files
        name = segments[-1].encode()
        with suppress(OSError, BackendError):
            # In this order: as long as there are two links, it counts as published.
            self._mark(Phase.OPEN)
            if there is not None and os.path.samestat(
                files.lstat(name, dir_fd=parent), there
            ):
                files.unlink(name, dir_fd=parent)

    def _move_in_thread(
        self, segments: tuple[str, ...], parent: int, overwrite: bool
    ) -> None:
        staging = self.staging
        files = staging.files
        is_to_be_safe = staging.is_to_be_safe
        if not self._is_moved:
            staged = self._staged()
            # A link to a directory would be replaced.
            there = staging.tree.check_name(parent, segments, overwrite=overwrite)
            rename = files.rename if overwrite else files.rename_no_replace
            try:
                if is_to_be_safe:
                    self._make_name_safe(staged, there, overwrite)
                self._mark(Phase.PUBLISHING)
                if is_to_be_safe:
                    staging.sync_record_in_thread(self.session_id)
                rename(
                    self.part(),
                    segments[-1].encode(),
                    src_dir_fd=staging.directory,
                    dst_dir_fd=parent,
                )
            except OSError as error:
                if not self._has_moved(segments, parent, staged):
                    self._mark(Phase.OPEN)
                    if isinstance(error, FileExistsError):
                        staging.tree.check_name(parent, segments, overwrite=False)
                    raise self._refusal(error, segments) from error
            # From here on the file stands there. Trying again makes it safe.
            self._is_moved = True
        self._mark(Phase.PUBLISHED)
        if is_to_be_safe:
            sync_names(files, parent)

    def _has_moved(
        self, segments: tuple[str, ...], parent: int, staged: os.stat_result
    ) -> bool:
        """
        Whether a rename that failed has happened: a network file system that has lost
        the answer asks again, and is told that there is nothing to be renamed.
        """
        files = self.staging.files
        try:
            files.lstat(self.part(), dir_fd=self.staging.directory)
        except FileNotFoundError:
            with suppress(OSError):  # then it is not there
                there = files.lstat(segments[-1].encode(), dir_fd=parent)
                return os.path.samestat(there, staged)
        except OSError:
            pass  # it is, or nobody can say
        return False

    def _refusal(self, error: OSError, segments: tuple[str, ...]) -> BackendError:
        """Say what a failed link or rename means."""
        if error.errno == errno.EISDIR:
            return DestinationIsDirectory(f"{segments!a} is a directory")
        if self.staging.tree.is_of_name(error, segments):
            return DestinationForbidden(f"{segments!a}: {error.strerror}")
        if error.errno in (errno.EXDEV, errno.EBUSY):
            return BackendError(
                f"{segments!a} is not on the file system of its root ({error}); serve "
                "that file system as a separate virtual directory"
            )
        return storage_error(error)

    def _make_name_safe(
        self, staged: os.stat_result, there: os.stat_result | None, overwrite: bool
    ) -> None:
        """
        Have the staged file's name survive a crash of the machine, if it matters.

        When it is gone, and a file of its length stands at the destination, it counts
        as moved there. Where nothing is overwritten, another one may come to stand
        there at the last moment.

        :param there: What stands at the destination.
        """
        if self.is_recorded:
            return
        is_alike = there is not None and there.st_size == staged.st_size
        if is_alike or not overwrite:
            sync_names(self.staging.files, self.staging.directory)

    # -- releasing

    def release(self) -> Deferred[None]:
        """Remove everything; see :class:`~txbits.interfaces.IReleasable`."""
        if self._ending is not None:
            return self._ending.join()
        self.releasing = True
        is_busy = self._securing is not None or (
            self.writer is not None and self.writer.closing is not None
        )
        is_quick = self.answers is None and not self.staging.table.is_aside(
            self.session_id
        )
        if self.offset <= _SHORT and not is_busy and is_quick:
            return at_once(self._release_in_thread)
        ending = self._ending = Joint()
        answer = ending.join()
        self._release_slowly().addBoth(self._ended).addBoth(ending.end)
        return answer

    def _ended(self, outcome: None) -> None:
        self._ending = None
        return outcome

    @deferred
    async def _release_slowly(self) -> None:
        # An fsync uses the descriptor. How it ends does not matter.
        if self.writer is not None and self.writer.closing is not None:
            await self.writer.closing.join().addErrback(lambda _: None)
        if self._securing is not None:
            await self._securing.join()
        is_long = self.offset > _SHORT or self.staging.table.is_aside(self.session_id)
        if self.answers is not None:
            await self.answers.rest()
            is_long = is_long or translated(self.answers.is_long)
        if not is_long:
            translated(self._release_in_thread)
        else:
            await self.staging.in_thread(translated, self._release_in_thread)

    def _release_in_thread(self) -> None:
        if self._gone:
            return
        staging = self.staging
        if self.writer is not None:
            # If that fails it is closed all the same, and what it held is not wanted.
            with suppress(OSError):
                self.writer.shut()
        # The record goes last: as long as anything is left, the session is found.
        if self.answers is not None or not self.published:
            self._mark(Phase.RELEASING)
        if self.answers is not None:
            self.answers.remove()
        self._unlink_part()
        staging.close_memory.drop(self.session_id)
        staging.unsafe.discard(self.session_id)
        self._gone = True

    def _unlink_part(self) -> None:
        staging = self.staging
        with suppress(FileNotFoundError):  # what is to go is gone
            staging.files.unlink(self.part(), dir_fd=staging.directory)
        staging.file_clock.linked.pop(self.session_id, None)

    # -- optional abilities

    def address(self) -> str:
        """The staged file's path; see :class:`~txbits.interfaces.IAddressable`."""
        return f"{self.staging.path}/{self.part()}"

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed staged bytes; see :class:`~txbits.interfaces.IReadable`."""
        staging = self.staging
        files = staging.files
        fd = translated(self._open_part, _READ)

        def read(offset: int, length: int) -> Deferred[bytes]:
            return staging.in_thread(translated, files.pread, fd, length, offset)

        try:
            await Reading(consumer, read).run(start, end)
        finally:
            files.close(fd)

    @property
    def attempts(self) -> int:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return 0 if self.answers is None else self.answers.attempts

    @property
    def answer(self) -> Answer | None:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return None if self.answers is None else self.answers.answer

    def _asked(self) -> DiskAnswers:
        if self.releasing:
            raise BackendError("the session is being released")
        if self.answers is None:
            self.answers = DiskAnswers(self.staging, self.session_id)
        return self.answers

    @deferred
    async def begin_attempt(self) -> int:
        """Count it; see :class:`~txbits.interfaces.IAnswerable`."""
        return await self._asked().begin_attempt()

    @deferred
    async def open_reply(self) -> IWriter:
        """Begin its file; see :class:`~txbits.interfaces.IAnswerable`."""
        return await self._asked().open_reply()

    @deferred
    async def keep_answer(self, answer: Answer) -> None:
        """Write it down; see :class:`~txbits.interfaces.IAnswerable`."""
        await self._asked().keep_answer(answer)

    @deferred
    async def reply(self) -> IStoredFile:
        """Open its file; see :class:`~txbits.interfaces.IAnswerable`."""
        return await self._asked().reply()

    def reply_address(self) -> str:
        """The reply's path; see :class:`~txbits.interfaces.IReplyAddressable`."""
        return f"{self.staging.path}/{reply_name(self.session_id)}"

    def has_reply(self) -> Deferred[bool]:
        """Look for its file; see :class:`~txbits.interfaces.IReplyAddressable`."""
        return at_once(lambda: self._asked().has_reply())
