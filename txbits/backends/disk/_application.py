"""
What a server application answered, on disk: two files beside the staged one.

``{GUID}.answer`` says how often the application was asked and what it answered. It is
written under another name and renamed, so it is never incomplete. ``{GUID}.reply`` is
the reply, written by txbits or by the application itself. A reply counts only together
with an answer: each attempt removes what a failed one has left.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

from attrs import define, evolve
from twisted.internet.defer import Deferred
from zope.interface import implementer

from txbits._deferreds import Waiters, begun, deferred, together
from txbits.backends.disk._answer_file import answer_name, encoded, reply_name
from txbits.backends.disk._downloads import stored_file
from txbits.backends.disk._files import READ, WRITE, at_once, remove, translated
from txbits.backends.disk._staged import SHORT
from txbits.backends.disk._staging import Staging
from txbits.errors import BackendError, NoSuchFile, OutOfSpace
from txbits.interfaces import Answer, IStoredFile, IWriter

# Opening a pipe would wait for a writer.
_READ = READ | os.O_NONBLOCK
_NEW = WRITE | os.O_CREAT


@implementer(IWriter)
@define(eq=False, weakref_slot=False)
class _ReplyWriter:
    """Writes a reply; see :class:`~txbits.interfaces.IWriter`."""

    _answers: DiskAnswers
    _fd: int
    _length: int = 0

    def write(self, data: bytes) -> Deferred[None]:
        return at_once(self._append, data)

    def _append(self, data: bytes) -> None:
        if self._fd < 0:
            raise BackendError("this writer is closed")
        rest: bytes | memoryview = data
        while rest:
            stored = self._answers.staging.files.pwrite(self._fd, rest, self._length)
            if not stored:
                raise BackendError("the file system stored nothing and gave no reason")
            self._length += stored
            rest = memoryview(rest)[stored:]

    def close(self) -> Deferred[None]:
        return at_once(self.shut)

    def shut(self) -> None:
        """
        Close the file at once. It may be called again.

        :raises OSError: If bytes were lost in that; the file is closed nevertheless.
        """
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        self._answers.writer = None
        try:
            self._answers.staging.files.close(fd)
        except OSError:
            self._answers.is_torn = True
            raise


@define(eq=False, weakref_slot=False)
class DiskAnswers:
    """
    The answer to one session, and its reply.

    :ivar attempts: See :class:`~txbits.interfaces.IAnswerable`.
    :ivar answer: See :class:`~txbits.interfaces.IAnswerable`.
    :ivar writer: The open writer of the reply, if any.
    :ivar is_torn: Whether bytes of the reply were lost.
    :ivar working: The end of work that uses descriptors, if any is in progress.
    """

    staging: Staging
    session_id: UUID
    attempts: int = 0
    answer: Answer | None = None
    writer: _ReplyWriter | None = None
    is_torn: bool = False
    working: Waiters[None] | None = None

    # -- asking

    def begin_attempt(self) -> Deferred[int]:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return self._run_to_its_end(self._begin_attempt())

    async def _begin_attempt(self) -> int:
        if self.answer is not None:
            raise BackendError("the application has answered for good")
        if self.writer is not None:
            with suppress(OSError):  # its bytes are discarded
                self.writer.shut()
        # First: an earlier answer that could not be synced must not be found without
        # its reply.
        await self._store(self.attempts + 1, None, is_to_be_safe=False)
        self.attempts += 1
        self.is_torn = False
        there = translated(self._look)
        if there is not None:
            if there.st_size > SHORT:
                await self.staging.in_thread(translated, self._remove, self._reply)
            else:
                translated(self._remove, self._reply)
        return self.attempts

    async def _store(
        self, attempts: int, answer: Answer | None, *, is_to_be_safe: bool
    ) -> None:
        staging = self.staging
        files = staging.files
        name = answer_name(self.session_id)
        text = encoded(attempts, answer)
        # First: a release looks for these files only if the session is here.
        staging.answered.add(self.session_id)
        fd = translated(self._open_new, f"{name}-new", os.O_TRUNC, 0o600)
        try:
            if translated(files.pwrite, fd, text, 0) != len(text):
                raise OutOfSpace("the answer does not fit; free some space")
            if is_to_be_safe:
                await staging.sync(fd)
        finally:
            translated(files.close, fd)
        translated(self._rename, f"{name}-new", name)
        if is_to_be_safe:
            await staging.sync_directory()

    def _open_new(self, name: str, how: int, mode: int) -> int:
        staging = self.staging
        return staging.files.open(name, _NEW | how, mode, dir_fd=staging.directory)

    def _rename(self, old: str, new: str) -> None:
        directory = self.staging.directory
        self.staging.files.rename(old, new, src_dir_fd=directory, dst_dir_fd=directory)

    def open_reply(self) -> IWriter:
        """
        Create the file of the reply.

        :raises BackendError: If it may not be written now, like OSError.
        """
        if not self.attempts or self.answer is not None:
            raise BackendError("no application is being asked")
        if self.writer is not None:
            raise BackendError("the reply is being written already")
        self.writer = _ReplyWriter(self, self._open_new(self._reply, os.O_EXCL, 0o666))
        return self.writer

    # -- the answer

    def keep_answer(self, answer: Answer) -> Deferred[None]:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return self._run_to_its_end(self._keep_answer(answer))

    async def _keep_answer(self, answer: Answer) -> None:
        if self.writer is not None or self.is_torn:
            raise BackendError("the reply is not whole")
        staging = self.staging
        is_to_be_safe = staging.is_to_be_safe
        # It is opened in any case: an unreadable reply must not be promised.
        fd = translated(self._open)
        if fd is not None:
            try:
                if is_to_be_safe:
                    # And its name: an answer must not be found without its reply.
                    await together(staging.sync(fd), staging.sync_directory())
            finally:
                translated(staging.files.close, fd)
        answer = evolve(answer, has_reply=fd is not None)
        await self._store(self.attempts, answer, is_to_be_safe=is_to_be_safe)
        self.answer = answer

    def reply(self) -> IStoredFile:
        """
        Open the reply.

        :raises NoSuchFile: If there is none.
        :raises BackendError: If it cannot be opened, like OSError.
        """
        fd = None
        if self.answer is not None and self.answer.has_reply:
            fd = self._open()
        if fd is None:
            raise NoSuchFile(f"session {self.session_id} has no reply")
        staging = self.staging
        files = staging.files
        try:
            there = files.fstat(fd)
        except BaseException:
            files.close(fd)
            raise
        # The tag is valid even if the file is new, since nothing writes to it any more.
        # A program that touches it, such as a backup, does not change the reply.
        etag = f"{self.session_id}-{there.st_size:x}-{there.st_mtime_ns:x}"
        return stored_file(
            fd, there, files, staging.in_thread, _nothing_more, etag, there.st_mtime
        )

    def has_reply(self) -> bool:
        """
        Tell whether the reply is a plain file.

        :raises OSError: If that is not certain.
        """
        there = self._look()
        return there is not None and stat.S_ISREG(there.st_mode)

    @property
    def _reply(self) -> str:
        return reply_name(self.session_id)

    def _look(self) -> os.stat_result | None:
        staging = self.staging
        try:
            return staging.files.lstat(self._reply, dir_fd=staging.directory)
        except FileNotFoundError:
            return None

    def _open(self) -> int | None:
        staging = self.staging
        files = staging.files
        try:
            fd = files.open(self._reply, _READ, dir_fd=staging.directory)
        except FileNotFoundError:
            return None
        if not stat.S_ISREG(files.fstat(fd).st_mode):
            files.close(fd)
            raise BackendError(f"{self._reply} is not a plain file")
        return fd

    # -- the end

    def _run_to_its_end(
        self, work: Coroutine[Deferred[Any], Any, Any]
    ) -> Deferred[Any]:
        """
        Do something to its end, even if the returned Deferred is cancelled.

        A descriptor must stay open while it is being synced.
        """
        if self.working is not None:
            work.close()
            return at_once(self._refuse)
        working = self.working = Waiters()
        outcome: Deferred[Any] = Deferred()

        def done(result: Any) -> None:
            self.working = None
            working.fire(None)
            outcome.callback(result)

        begun(work).addBoth(done)
        return outcome

    def _refuse(self) -> None:
        raise BackendError("the answer is being stored")

    @deferred
    async def rest(self) -> None:
        """Wait until no work is in progress, whether it succeeds or fails."""
        if self.working is not None:
            await self.working.wait()

    def is_long(self) -> bool:
        """
        Tell whether removing them takes a while.

        :raises OSError: If that is not certain.
        """
        there = self._look()
        return there is not None and there.st_size > SHORT

    def remove(self) -> None:
        """
        Remove both files, if they exist. It may take a while.

        :raises OSError: If something is left; call it again then.
        """
        if self.writer is not None:
            with suppress(OSError):  # closed nevertheless
                self.writer.shut()
        name = answer_name(self.session_id)
        for one in (self._reply, f"{name}-new", name):
            self._remove(one)
        self.staging.answered.discard(self.session_id)

    def _remove(self, name: str) -> None:
        remove(self.staging.files, name, self.staging.directory)


def _nothing_more() -> None:
    """Do nothing else when a reply is closed."""
