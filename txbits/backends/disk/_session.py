"""
A session on disk: from its first byte to its publication or its release.

A session is a staged file (:class:`~txbits.backends.disk._staged.Staged`), a line in a
table (its record), and what other modules do with them. What the packets do, in calls
of the backend and of this module:

Create-Session
    ``create`` of the backend writes the record. There is no staged file yet.
Fragment
    :meth:`DiskSession.open_writer` opens the staged file; the first time, it creates
    it, and records the length of the complete file. The writer appends. Its ``close``
    also syncs, if bytes have to be safe before their Ack. Otherwise, once a short file
    is complete, a sync begins that only Close-Session waits for
    (:meth:`~txbits.backends.disk._staged.Staged.secure`).
Close-Session
    :meth:`DiskSession.publish` makes the file safe, and lets it appear at its
    destination. An incomplete one is discarded. Then :meth:`DiskSession.release`
    remembers the close, and removes everything else.
Cancel-Session, and a time-out
    :meth:`DiskSession.release` removes everything, the record last.

Where a server application is asked, :mod:`~txbits.backends.disk._application` stores
its answer and its reply in files of their own.
"""

from __future__ import annotations

from contextlib import suppress

from attrs import define, field
from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import Shared, deferred
from txbits.backends._naming import shown_session
from txbits.backends._serving import Reading
from txbits.backends.disk._answer_file import reply_name
from txbits.backends.disk._application import DiskAnswers
from txbits.backends.disk._files import at_once, storage_error, translated
from txbits.backends.disk._lines import Phase
from txbits.backends.disk._publish import publish
from txbits.backends.disk._staged import SHORT, Staged
from txbits.backends.disk._write_behind import PIECE
from txbits.backends.disk._writer import DiskWriter
from txbits.errors import BackendError
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


@implementer(IUploadSession, IReadable, IAddressable, IAnswerable, IReplyAddressable)
@define(eq=False, weakref_slot=False)
class DiskSession(Staged):
    """
    One upload; see :class:`~txbits.interfaces.IUploadSession`.

    :ivar answers: What an application answered; ``None`` if none was asked.
    """

    destination: tuple[str, ...] = field(kw_only=True)
    owner: str | None = field(kw_only=True)
    content_name: str | None = field(kw_only=True)
    published: bool = False
    answers: DiskAnswers | None = None
    _ending: Shared[None] | None = None
    _is_gone: bool = False

    def __repr__(self) -> str:
        return shown_session(self)

    # -- writing and publishing

    def open_writer(self, total: int) -> Deferred[IWriter]:
        """Begin to append; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.securing is not None:
            return self.securing.wait().addCallback(lambda _: self.open_writer(total))
        if self.safe > self.offset:
            return self.lower_safe().addCallback(lambda _: self.open_writer(total))
        return execute(self._open_writer, total)

    def _open_writer(self, total: int) -> IWriter:
        if self.writer is not None:
            raise BackendError("a writer is open already")
        if self.published or self.releasing:
            raise BackendError("the session accepts no more bytes")
        try:
            self.staging.need_space(total - self.offset)
            fd = self.open_to_append(total)
        except OSError as error:
            raise storage_error(error, self.staging.root.path) from error
        offset = self.offset
        writer = self.writer = DiskWriter(self, fd, offset, offset - offset % PIECE)
        return writer

    @deferred
    async def publish(self, *, overwrite: bool, create_directories: bool) -> None:
        """Link or move the file; see :class:`~txbits.interfaces.IUploadSession`."""
        if not self.published:
            await publish(self, self.destination, overwrite, create_directories)
            self.published = True

    # -- releasing

    def release(self, *, remember: bool = False) -> Deferred[None]:
        """Remove everything; see :class:`~txbits.interfaces.IUploadSession`."""
        if remember:
            # First, since a session that is gone can only be told from an unknown one
            # by the record of its close.
            return at_once(self._remember_close).addCallback(lambda _: self._release())
        return self._release()

    def _remember_close(self) -> None:
        staging = self.staging
        # Here, since this is called just before the Ack of each Close.
        staging.root.check_news()
        staging.close_memory.remember(
            self.session_id,
            self.destination,
            self.owner,
            staging.seconds(),
            in_line=self._stays_published,
        )

    def _release(self) -> Deferred[None]:
        if self._ending is None or not self._ending.is_running:
            self.releasing = True
            closing = None if self.writer is None else self.writer.closing
            is_busy = self.securing is not None or (
                closing is not None and closing.is_running
            )
            if not is_busy and self.answers is None and self._is_short():
                return at_once(self._remove_everything)
        if self._ending is None:
            self._ending = Shared()
        return self._ending.run(self._release_slowly)

    def _is_short(self) -> bool:
        """Whether removing the staged file and the record is quick."""
        return self.offset <= SHORT and not self.staging.table.is_aside(self.session_id)

    async def _release_slowly(self) -> None:
        # A running fsync uses the descriptor. Whether it succeeds does not matter.
        if self.writer is not None and self.writer.closing is not None:
            await self.writer.closing.over()
        if self.securing is not None:
            await self.securing.wait()
        is_short = self._is_short()
        if self.answers is not None:
            await self.answers.rest()
            is_short = is_short and not translated(self.answers.is_long)
        if is_short:
            translated(self._remove_everything)
        else:
            await self.staging.in_thread(translated, self._remove_everything)

    @property
    def _stays_published(self) -> bool:
        """
        Whether "published" is what the record says until the end of the release: it
        allows nothing else either.
        """
        return self.published and self.answers is None

    def _remove_everything(self) -> None:
        if self._is_gone:
            return
        staging = self.staging
        if self.writer is not None:
            # Lost bytes do not matter; the file is closed in any case.
            with suppress(BackendError):
                self.writer.shut()
        # The record is removed last, by close_memory.drop: the session must be found as
        # long as anything is left.
        if not self._stays_published:
            self.mark(Phase.RELEASING)
        if self.answers is not None:
            self.answers.remove()
        self.remove()
        staging.close_memory.drop(self.session_id)
        self._is_gone = True

    # -- optional abilities

    def address(self) -> str:
        """The staged file's path; see :class:`~txbits.interfaces.IAddressable`."""
        return f"{self.staging.path}/{self.part()}"

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed staged bytes; see :class:`~txbits.interfaces.IReadable`."""
        staging = self.staging
        files = staging.files
        fd = translated(self.open)

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
        """Count the attempt; see :class:`~txbits.interfaces.IAnswerable`."""
        return await self._asked().begin_attempt()

    def open_reply(self) -> Deferred[IWriter]:
        """Create the file of the reply; see :class:`~txbits.interfaces.IAnswerable`."""
        return at_once(lambda: self._asked().open_reply())

    @deferred
    async def keep_answer(self, answer: Answer) -> None:
        """Store the answer; see :class:`~txbits.interfaces.IAnswerable`."""
        await self._asked().keep_answer(answer)

    def reply(self) -> Deferred[IStoredFile]:
        """Open the file of the reply; see :class:`~txbits.interfaces.IAnswerable`."""
        return at_once(lambda: self._asked().reply())

    def reply_address(self) -> str:
        """The reply's path; see :class:`~txbits.interfaces.IReplyAddressable`."""
        return f"{self.staging.path}/{reply_name(self.session_id)}"

    def has_reply(self) -> Deferred[bool]:
        """Check for the file; see :class:`~txbits.interfaces.IReplyAddressable`."""
        return at_once(lambda: self._asked().has_reply())
