"""
A session that a server application is asked about before its file is published.

The parts of a multipart upload can be read by nobody before it is completed. So it is
not one to the destination, but to a key of the session's; when all bytes are there it
is completed, and the object can be read by us, and by an application that is told its
URL. It is copied to the destination at the end. What the application answers is in the
record, and its reply is an object, of another name in each attempt: a node that was
taken for dead cannot spoil the reply of another.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock, succeed
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import begun, deferred, shielded
from txbits.backends._serving import Reading
from txbits.backends.s3._application import ReplyWriter
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import (
    SESSION_HEADER,
    Found,
    NotMet,
    NoUpload,
    WrongPart,
)
from txbits.backends.s3._copies import publish_copy
from txbits.backends.s3._downloads import served
from txbits.backends.s3._grid import reach
from txbits.backends.s3._publish import has_published, whole
from txbits.backends.s3._records import Record
from txbits.backends.s3._session import S3Session
from txbits.backends.s3._staging import name_of
from txbits.backends.s3._streams import Stream
from txbits.errors import BackendError, NoSuchFile, NoSuchSession, StagedDataLost
from txbits.interfaces import (
    Answer,
    IAddressable,
    IAnswerable,
    IReadable,
    IReplyAddressable,
    IStoredFile,
    IWriter,
)

#: How often the parts are listed.
_MOST_ROUNDS = 10


@implementer(IReadable, IAddressable, IAnswerable, IReplyAddressable)
@define(eq=False)
class AnsweringSession(S3Session):
    """
    One upload; see :class:`~txbits.interfaces.IUploadSession`.

    :ivar reply_writer: The writer of the reply, ``None`` if none is open.
    :ivar reply_is_torn: Whether bytes of the reply were lost.
    """

    reply_writer: ReplyWriter | None = field(default=None, init=False)
    reply_is_torn: bool = field(default=False, init=False)
    _attempt: int = field(default=0, init=False)
    _filing: DeferredLock = field(factory=DeferredLock, init=False)

    # Where things lie

    @property
    def upload_key(self) -> str:
        """The key that its multipart upload is to."""
        if not self.record.is_staged:
            return self.staging.settings.key(self.destination)
        return self.staging.file_key(self.session_id)

    @property
    def upload_headers(self) -> dict[str, str]:
        """What that upload is begun with."""
        # Not of the storage class of published files, which may cost when it is read.
        return {SESSION_HEADER: name_of(self.session_id)}

    @property
    def is_only_record(self) -> bool:
        """Whether there is nothing of it in the bucket but its record."""
        # When all bytes are held, they may have been put together, and the node have
        # died before the record said so.
        return self.record.is_small and not self.is_complete

    @property
    def _reply_key(self) -> str:
        # This node's, unless the answer is another's.
        attempt = self._attempt or self.record.attempts or 1
        if self.record.reply is not None:
            attempt = self.record.reply[0]
        return self.staging.reply_key(self.session_id, attempt)

    def _url(self, key: str) -> str:
        return f"s3://{self.staging.settings.bucket}/{key}"

    # What the bucket says

    def _derive(self) -> None:
        S3Session._derive(self)
        if self.record.file is not None and self.record.total is not None:
            self.offset = self.record.total

    async def adopt(self) -> None:
        """Take over a session that was made before applications were asked."""
        if self.record.is_staged or self.record.upload is not None:
            return

        def change(record: Record) -> Record | None:
            if record.is_staged or record.upload is not None:
                return None
            return record.changed(is_staged=True)

        await self.update(change)

    async def measure(self) -> None:
        """Find out how many bytes are held, and whether the file is published."""
        record = self.record
        if not record.is_staged:
            await S3Session.measure(self)
            return
        self._total = None
        self.in_doubt = record.in_doubt
        if record.total is not None and not record.is_small and record.file is None:
            is_ended = await self._measure_grid()
            if record is not self.record:
                # Another node has changed it meanwhile.
                record = self.record
                self.in_doubt = record.in_doubt
                is_ended = is_ended and record.file is None
            if is_ended and await self._file() is None:
                # Somebody has aborted the upload, and acknowledged bytes with it.
                self.in_doubt = True
            elif is_ended:
                self.offset = record.total or 0
        # What the application has may stand there with our mark: a copy keeps it.
        if not record.is_taken and (
            record.state == "publishing"
            or (record.state == "open" and record.is_small and self.is_complete)
        ):
            self.published = await self._is_copied() or (
                await self.staging.is_published(self.destination, self.session_id)
                is not None
            )
        if self.published and record.total is not None:
            self.offset = record.total

    async def _is_copied(self) -> bool:
        """Tell whether the copy has ended, after all of its parts were there."""
        record = self.record
        if record.state != "publishing" or record.copy is None:
            return False
        key = self.staging.settings.key(self.destination)
        try:
            await self.staging.bucket.parts(key, record.copy)
        except NoUpload:
            return await has_published(self)
        return False

    async def is_whole(self) -> bool:
        """Tell whether the multipart upload has ended because it was completed."""
        if not self.record.is_staged:
            return await S3Session.is_whole(self)
        if self.record.file is None and await self._file() is None:
            return False
        self.offset = self.record.total or 0
        return True

    async def _file(self) -> Found | None:
        """Look at the object that is all bytes."""
        found = await self.staging.bucket.head(self.upload_key)
        return None if found is None or found.size != self.record.total else found

    # All bytes in one object

    async def file(self) -> Found:
        """
        Put all bytes together, unless they are.

        :raises StagedDataLost: If they are not there.
        """
        found = await self._made()
        if self.record.file != found.etag:
            await self._noted(found.etag, lambda record: record)
        return found

    async def _made(self) -> Found:
        if self.is_over or self.releasing:
            raise StagedDataLost("the session is being released")
        if not self.is_complete:
            raise BackendError("the upload is not complete")
        await self._filing.acquire()
        try:
            if self.record.file is None:
                return await self._make()
            return Found(self.upload_key, self.record.file, self.record.total or 0, 0.0)
        finally:
            self._filing.release()

    async def _make(self) -> Found:
        if self.record.is_small:
            return await self._put(Body([self.record.inline]))
        if self.grid.cells > 1:
            return await self._join()
        if self.copy:
            return await self._put(Body(self.copy))
        memory = self.staging.memory
        await memory.take(self.offset)
        try:
            return await self._put(Body(await self.read_tails(0, self.offset)))
        finally:
            memory.give(self.offset)

    async def _put(self, body: Body) -> Found:
        key = self.staging.file_key(self.session_id)
        try:
            # Once: stores that encrypt may give the same bytes another ETag each time.
            etag = await self.staging.bucket.put(
                key, body, only_new=True, headers=self.upload_headers
            )
        except NotMet:
            found = await self.staging.bucket.head(key)
            if found is None or found.size != body.length:
                raise StagedDataLost(f"{key} is not what it was") from None
            return found
        return Found(key, etag, body.length, 0.0)

    async def _join(self) -> Found:
        record = self.record
        if not record.is_staged:
            await self._begin_anew()
        bucket = self.staging.bucket
        upload = record.upload
        if upload is None:
            raise StagedDataLost("the record does not name its multipart upload")
        for _ in range(_MOST_ROUNDS):
            try:
                parts = whole(self, await bucket.parts(self.upload_key, upload))
                await bucket.complete(self.upload_key, upload, parts, only_new=False)
            except StagedDataLost as error:
                # Some stores list what is left of one that another node completes just
                # now.
                found = await self._file()
                if found is None:
                    await self.reread()
                    raise BackendError(
                        f"the listing of parts is incomplete: {error}"
                    ) from error
                return found
            except WrongPart:
                # A node that serves an old fragment has put the same part again.
                continue
            except NoUpload:
                # It was completed by another node, or when the answer got lost.
                pass
            found = await self._file()
            if found is None:
                # Another node may have ended the session, and removed it.
                await self.reread()
                self.parts = set()
                self.offset = reach(self.tails)
                raise StagedDataLost("somebody has ended the multipart upload")
            return found
        raise BackendError(f"the parts of {self.session_id} do not come to rest")

    async def _begin_anew(self) -> None:
        """
        Give the parts up of a session made before applications were asked.

        :raises StagedDataLost: In any case.
        """
        key, upload = self.upload_key, self.record.upload
        await self.update(
            lambda record: (
                None
                if record.is_staged
                # Should this node die before it is aborted, the release looks for it.
                else record.changed(is_staged=True, upload=None, has_strays=True)
            )
        )
        if upload is not None:
            await self.staging.bucket.abort(key, upload)
        await self.measure()
        raise StagedDataLost(
            "the upload was begun when no application was to be asked, and cannot be "
            "read; it is to be sent again"
        )

    async def _noted(self, etag: str, change: Callable[[Record], Record]) -> None:
        """Write down which object is all bytes, and what else is to be changed."""

        def with_file(record: Record) -> Record:
            self.standing()
            return change(record).changed(file=etag, is_staged=True)

        try:
            await self.update(with_file)
        except NoSuchSession:
            await self.staging.bucket.delete(self.staging.file_key(self.session_id))
            raise

    # Reading

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed staged bytes; see :class:`~txbits.interfaces.IReadable`."""
        if self.is_over or self.releasing:
            raise StagedDataLost("the session is being released")
        if self.record.is_small:
            inline = self.record.inline

            def read(offset: int, length: int) -> Deferred[bytes]:
                return succeed(inline[offset : offset + length])

            await Reading(consumer, read).run(start, end)
            return
        found = await shielded(begun(self.file()))
        staging = self.staging
        client = staging.bucket.client
        stream = Stream(consumer, client, staging.clock, found)
        await stream.run(start, end)

    def address(self) -> str:
        """
        The URL of the object that is all bytes, which is there when an attempt has
        begun; see :class:`~txbits.interfaces.IAddressable`.
        """
        return self._url(self.staging.file_key(self.session_id))

    # Answers

    @property
    def attempts(self) -> int:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return self.record.attempts

    @property
    def answer(self) -> Answer | None:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return self.record.answer

    def begin_attempt(self) -> Deferred[int]:
        """Count it; see :class:`~txbits.interfaces.IAnswerable`."""
        return shielded(begun(self._begin_attempt()))

    async def _begin_attempt(self) -> int:
        found = await self._made()

        def change(record: Record) -> Record:
            if record.answer is not None:
                raise BackendError("the application has answered for good")
            return evolve(record, attempts=record.attempts + 1)

        await self._noted(found.etag, change)
        self._attempt = self.record.attempts
        self.reply_is_torn = False
        if self.reply_writer is not None:
            await self.reply_writer.abandon()
        return self._attempt

    @deferred
    async def open_reply(self) -> IWriter:
        """Begin its object; see :class:`~txbits.interfaces.IAnswerable`."""
        self.standing()
        if not self._attempt or self.answer is not None:
            raise BackendError("no application is being asked")
        if self.reply_writer is not None:
            raise BackendError("the reply is being written already")
        self.reply_writer = ReplyWriter(self, self._reply_key)
        return self.reply_writer

    def keep_answer(self, answer: Answer) -> Deferred[None]:
        """Write it into the record; see :class:`~txbits.interfaces.IAnswerable`."""
        return shielded(begun(self._keep_answer(answer)))

    async def _keep_answer(self, answer: Answer) -> None:
        if self.reply_writer is not None or self.reply_is_torn:
            raise BackendError("the reply is not whole")
        if not self._attempt:
            raise BackendError("no application was asked")
        bucket = self.staging.bucket
        key = self._reply_key
        found = await bucket.head(key)
        reply = None if found is None else (self._attempt, found.etag)
        kept = evolve(answer, has_reply=found is not None)

        def change(record: Record) -> Record | None:
            self.standing()
            # Another node may have been first, and the answer been given to the client.
            if record.answer is not None:
                return None
            return record.changed(answer=kept, reply=reply)

        try:
            await self.update(change)
        except NoSuchSession:
            if found is not None:
                await bucket.delete(key)
            raise

    @deferred
    async def reply(self) -> IStoredFile:
        """Look at its object; see :class:`~txbits.interfaces.IAnswerable`."""
        reply = self.record.reply
        if reply is None or self.is_over or self.releasing:
            raise NoSuchFile(f"session {self.session_id} has no reply")
        found = await self.staging.bucket.head(self._reply_key)
        if found is None:
            raise NoSuchFile(f"the reply of session {self.session_id} is gone")
        if found.etag != reply[1]:
            raise StagedDataLost(f"the reply of session {self.session_id} is another")
        return served(self.staging, found)

    def reply_address(self) -> str:
        """The reply's URL; see :class:`~txbits.interfaces.IReplyAddressable`."""
        return self._url(self._reply_key)

    @deferred
    async def has_reply(self) -> bool:
        """Look for its object; see :class:`~txbits.interfaces.IReplyAddressable`."""
        return await self.staging.bucket.head(self._reply_key) is not None

    # The end

    @deferred
    async def publish(self, *, overwrite: bool, create_directories: bool) -> None:
        """Copy the file; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.published:
            return
        if not self.is_complete:
            raise BackendError("the upload is not complete")
        self.standing()
        record = self.record
        if not record.is_staged or record.is_small:
            await S3Session.publish(
                self, overwrite=overwrite, create_directories=create_directories
            )
            return
        self.seen = await self.staging.look(self.destination, overwrite=True)
        await publish_copy(self, await self.file(), overwrite)
        self.published = True

    async def uploads(self) -> list[tuple[str, str]]:
        """Tell the multipart uploads that are to be aborted, by their keys."""
        record = self.record
        if not record.is_staged:
            return await S3Session.uploads(self)
        staging = self.staging
        uploads = []
        if record.upload is not None and record.file is None:
            uploads.append((self.upload_key, record.upload))
        if record.copy is not None and not self.published:
            uploads.append((staging.settings.key(self.destination), record.copy))
        if not self.is_only_record:
            # The record does not name those of replies, nor one that a node had just
            # begun when it died.
            directory = staging.directory(self.session_id)
            found = await staging.bucket.uploads(directory)
            uploads += [(one.key, one.upload) for one in found]
        return uploads

    async def _end(
        self, end: Callable[[], Coroutine[Deferred[Any], Any, None]]
    ) -> None:
        if self.reply_writer is not None:
            await self.reply_writer.abandon()
        await S3Session._end(self, end)
