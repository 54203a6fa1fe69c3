"""
A session on disk: from its first byte to its publication or its release.

Objects of sessions are many and idle, so they hold no paths: those follow from the
id. A method whose name ends in ``_in_thread`` blocks, and runs in a thread when it
may block for long.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import suppress
from uuid import UUID

from attrs import define
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.backends._disk_writer import DiskWriter
from txbits.backends._paths import checked_segments
from txbits.backends._reading import Reading
from txbits.backends._staging import OPEN, RELEASING, Staging, publishing
from txbits.backends._work import Joint, at_once, storage_error, translated
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    StagedDataLost,
)
from txbits.interfaces import IAddressable, IReadable, IUploadSession, IWriter

# Freeing the blocks of a longer file takes a while.
_QUICKLY_UNLINKED = 1 << 20

_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = _WRITE | os.O_CREAT | os.O_EXCL
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@implementer(IUploadSession, IReadable, IAddressable)
@define(eq=False, weakref_slot=False)
class DiskSession:
    """
    One upload; see :class:`~txbits.interfaces.IUploadSession`.

    :ivar staging: Where it lies.
    :ivar writer: The writer that is open, ``None`` if none is.
    """

    session_id: UUID
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    last_progress: float
    staging: Staging
    _state: str = OPEN
    total: int | None = None
    offset: int = 0
    published: bool = False
    releasing: bool = False
    in_doubt: bool = False
    _gone: bool = False
    _has_left_part: bool = False
    writer: DiskWriter | None = None
    _ending: Joint | None = None

    def directory(self) -> str:
        """The path of everything of it."""
        return self.staging.directory(self.session_id)

    def part(self) -> str:
        """The path of the staged file."""
        return f"{self.directory()}/{self.total}.part"

    def _set_state(self, state: str) -> None:
        if state != self._state:
            directory = self.directory()
            self.staging.files.rename(
                f"{directory}/{self._state}", f"{directory}/{state}"
            )
            self._state = state

    def _is_small(self) -> bool:
        """Whether the state file is under 1 KiB for sure."""
        texts = (*self.destination, self.owner, self.content_name)
        return len(json.dumps(texts)) < 900

    # -- writing

    def open_writer(self, total: int) -> Deferred[IWriter]:
        """Begin to append; see :class:`~txbits.interfaces.IUploadSession`."""
        return at_once(self._open_writer, total)

    def _open_writer(self, total: int) -> IWriter:
        if self.writer is not None:
            raise BackendError("a writer is open already")
        if self.published or self.releasing:
            raise BackendError("the session takes no more bytes")
        if self.total is None:
            self.staging.need_space(total)
            part = f"{self.directory()}/{total}.part"
            try:
                fd = self.staging.files.open(part, _NEW, 0o666)
            except FileNotFoundError as error:
                raise StagedDataLost(str(error)) from error
            self.total = total
        elif total != self.total:
            raise BackendError(f"the file has {self.total} bytes, not {total}")
        else:
            self.staging.need_space(total - self.offset)
            fd = self._reopen()
        self.writer = DiskWriter(self, fd, self.offset)
        return self.writer

    def _reopen(self) -> int:
        files = self.staging.files
        try:
            fd = files.open(self.part(), _WRITE)
        except FileNotFoundError as error:
            raise StagedDataLost(str(error)) from error
        try:
            self.offset = self._measured(files.fstat(fd).st_size)
        except BaseException:
            files.close(fd)
            raise
        return fd

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

    # -- publishing

    def publish(self, *, overwrite: bool, create_directories: bool) -> Deferred[None]:
        """Link or move the file; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.published:
            return succeed(None)
        staging = self.staging
        if staging.fsync == "never" and not overwrite:
            # What is left is quick. (Overwriting frees the blocks of the other file.)
            return at_once(self._publish_in_thread, False, create_directories)
        return staging.in_thread(
            translated, self._publish_in_thread, overwrite, create_directories
        )

    def _publish_in_thread(self, overwrite: bool, create_directories: bool) -> None:
        staging = self.staging
        if self.total is None or self.offset < self.total:
            raise BackendError("the upload is not complete")
        staged = self._sync_part()
        if staged is None and self._state != publishing(self.total):
            raise StagedDataLost(f"{self.part()} is gone")
        # Again: a session that was found has its destination from a file.
        segments = checked_segments(self.destination)
        parent = staging.tree.open_parent(
            segments, create_directories=create_directories
        )
        try:
            if staged is not None:
                self._place(staged, segments, parent, overwrite)
            if staging.fsync != "never":
                staging.files.fsync(parent)
        finally:
            staging.tree.let_go(parent)
        if self._is_small():
            staging.published[self.session_id] = f"{self.directory()}/{self._state}"
        self.published = True

    def _sync_part(self) -> os.stat_result | None:
        """Look at the staged file, and store it safely; ``None`` if it is gone."""
        staging = self.staging
        files = staging.files
        part = self.part()
        try:
            if staging.fsync == "never":
                staged = files.lstat(part)
                self._measured(staged.st_size)
                return staged
            fd = files.open(part, _WRITE)
        except FileNotFoundError:
            return None
        try:
            staged = files.fstat(fd)
            self._measured(staged.st_size)
            try:
                files.fsync(fd)
            except OSError:
                # A second fsync would succeed, though bytes may be lost: without this,
                # trying again would publish a file that is not whole.
                files.ftruncate(fd, 0)
                self.offset = 0
                raise
            return staged
        finally:
            files.close(fd)

    def _place(
        self,
        staged: os.stat_result,
        segments: tuple[str, ...],
        parent: int,
        overwrite: bool,
    ) -> None:
        files = self.staging.files
        part = self.part()
        name = segments[-1].encode()
        before = self._state
        assert self.total is not None  # noqa: S101 - for mypy; the caller looked
        intent = publishing(self.total)
        try:
            self._set_state(intent)
            if overwrite:
                files.rename(part, name, dst_dir_fd=parent)
            else:
                self._link(part, staged, segments, parent)
        except (OSError, BackendError) as error:
            self._set_state(before)
            if isinstance(error, OSError):
                raise _refusal(error, segments) from error
            raise
        # From here on the file stands there, whatever becomes of this link to it: a
        # rename onto another link of the same file leaves it as well.
        if not overwrite or staged.st_nlink > 1:
            try:
                _unlink(part, self.staging)
            except OSError:
                self._has_left_part = True

    def _link(
        self,
        part: str,
        staged: os.stat_result,
        segments: tuple[str, ...],
        parent: int,
    ) -> None:
        staging = self.staging
        name = segments[-1].encode()
        try:
            staging.files.link(part, name, dst_dir_fd=parent, follow_symlinks=False)
        except FileExistsError:
            there = staging.tree.check_name(parent, segments, overwrite=True)
            # Linked already, before a crash: that is the file itself.
            if there is None or not os.path.samestat(there, staged):
                raise DestinationExists(f"{segments!a} exists") from None

    # -- releasing

    def release(self) -> Deferred[None]:
        """Remove everything; see :class:`~txbits.interfaces.IReleasable`."""
        if self._ending is not None:
            return self._ending.join()
        self.releasing = True
        if self.published:
            # The file is gone from here; but where publishing has gone through a
            # thread, this does as well, since rmdir takes long when many have come
            # before it.
            quick = self.staging.fsync == "never"
        else:
            quick = self.offset <= _QUICKLY_UNLINKED
        if quick and (self.writer is None or self.writer.closing is None):
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
        if self.writer is not None and self.writer.closing is not None:
            # Its thread uses the descriptor. How the closing ends does not matter.
            await self.writer.closing.join().addErrback(lambda _: None)
        await self.staging.in_thread(translated, self._release_in_thread)

    def _release_in_thread(self) -> None:
        if self._gone:
            return
        staging = self.staging
        directory = self.directory()
        if self.writer is not None:
            # If that fails it is closed all the same, and what it held is not wanted.
            with suppress(OSError):
                self.writer.shut()
        try:
            if self.total is not None and not self.published:
                self._set_state(RELEASING)
                _unlink(self.part(), staging)
            elif self._has_left_part:
                _unlink(self.part(), staging)
            staging.published.pop(self.session_id, None)
            staging.files.unlink(f"{directory}/{self._state}")
        except FileNotFoundError:
            pass  # gone already, by an earlier call
        try:
            staging.files.rmdir(directory)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            # Not ours, but there: what network file systems put in place of an
            # open file that is unlinked, or what another program left.
            staging.remove(directory)
        self._gone = True

    # -- optional abilities

    def address(self) -> str:
        """The staged file's path; see :class:`~txbits.interfaces.IAddressable`."""
        return self.part()

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed staged bytes; see :class:`~txbits.interfaces.IReadable`."""
        staging = self.staging
        files = staging.files
        try:
            fd = files.open(self.part(), _READ)
        except FileNotFoundError as error:
            raise StagedDataLost(str(error)) from error
        except OSError as error:
            raise storage_error(error) from error

        def read(offset: int, length: int) -> Deferred[bytes]:
            return staging.in_thread(translated, files.pread, fd, length, offset)

        try:
            await Reading(consumer, read).run(start, end)
        finally:
            files.close(fd)


def _unlink(path: str, staging: Staging) -> None:
    with suppress(FileNotFoundError):  # what is to go is gone
        staging.files.unlink(path)


def _refusal(error: OSError, segments: tuple[str, ...]) -> BackendError:
    """Say what a failed link or rename means."""
    if error.errno == errno.EISDIR:
        return DestinationIsDirectory(f"{segments!a} is a directory")
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
        return DestinationForbidden(f"{segments!a}: {error.strerror}")
    if error.errno == errno.EXDEV:
        return BackendError(
            f"{segments!a} is on another file system than its root; serve that one "
            "as a directory of its own"
        )
    if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
        return BackendError(
            f"{segments!a}: {error}; this file system may have no hard links, without "
            "which only --allow-overwrites works"
        )
    return storage_error(error)
