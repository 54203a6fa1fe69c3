"""
A session in the bucket: most methods call the module that does the work.

What the packets do, in calls of the backend and of this module:

Create-Session
    ``create`` of the backend writes the record.
Fragment
    ``find`` takes the session from the cache, or reads its record and measures what is
    stored. If other nodes may have gone on, :meth:`S3Session.refresh` does so again.
    :meth:`S3Session.open_writer` writes the length of the file into the record, with
    the first Fragment. The writer stores the bytes: those of a small file in the
    record, those of a longer one in parts and tails. Before its ``close`` fires, it
    makes sure that the record still allows to acknowledge them
    (:func:`~txbits.backends.s3._storing.prove`).
Close-Session
    :meth:`S3Session.publish` makes the file of a complete session appear. An incomplete
    one is discarded, once :meth:`S3Session.give_up` has settled that no other node has
    moved it on. Then :meth:`S3Session.release` removes everything else, and replaces
    the record by that of the close.
Cancel-Session, and a time-out
    :meth:`S3Session.release` removes everything, the record last. Before a time-out
    does that, it gives the session up.

Where a server application is asked, the bytes do not go to the destination. With the
first attempt to ask, they are put together as one object in the staging area, which the
application can read (:mod:`~txbits.backends.s3._whole`). Publishing copies that object.

The record, and what this node knows of the session, are in
:mod:`~txbits.backends.s3._staged`; this module adds the operations.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer

from txbits._deferreds import begun, deferred, shielded
from txbits.backends._naming import shown_session
from txbits.backends.s3 import _application, _publish, _release, _whole
from txbits.backends.s3._grid import part_size_for
from txbits.backends.s3._knowledge import Event
from txbits.backends.s3._measuring import look_anew, measure
from txbits.backends.s3._records import Record, State
from txbits.backends.s3._settings import MOST_PART
from txbits.backends.s3._staged import Staged
from txbits.backends.s3._writer import S3Writer
from txbits.errors import BackendError, NoSuchSession, OutOfSpace
from txbits.interfaces import (
    Answer,
    IAddressable,
    IAnswerable,
    IReadable,
    IRefreshable,
    IReplyAddressable,
    IStoredFile,
    IUploadSession,
    IWriter,
)


@implementer(IUploadSession, IRefreshable)
@define(eq=False, repr=False)
class S3Session(Staged):
    """
    One upload.

    Its layout is decided at creation: its bytes go directly to the destination, or are
    assembled first in the staging area, where an application can read them.
    """

    def __repr__(self) -> str:
        return shown_session(self)

    # What other nodes have done

    @deferred
    async def refresh(self) -> None:
        """Read its state again; see :class:`~txbits.interfaces.IRefreshable`."""
        if self.is_over:
            raise NoSuchSession(f"session {self.session_id} is over")
        if not self.ending.is_running:
            await look_anew(self)

    @deferred
    async def give_up(self, *, closed: bool) -> bool:
        """Start to end it; see :class:`~txbits.interfaces.IRefreshable`."""
        self.require_standing()
        # If this node knows of all bytes, the condition of the write below is enough.
        if not self.is_ours and not await self._resign():
            return False
        if closed:
            self._require_all_acknowledged()
        state: State = "closing" if closed else "releasing"
        if await self.write(self.record.changed(state=state)):
            return True
        await measure(self)
        return False

    async def _resign(self) -> bool:
        """
        Remove the name of any node from the record, and measure again.

        From then on, a node has to change the record before it acknowledges bytes, and
        measuring finds those that were acknowledged before.

        :returns: Whether no other node has moved the session on.
        """
        known = self.offset, self.published, self.in_doubt
        is_resigned = await self.write(self.record.changed(node=None))
        if is_resigned:
            self.learn(Event.RESIGNED)
        etag = self.etag
        await measure(self)
        return (
            is_resigned
            and known == (self.offset, self.published, self.in_doubt)
            and etag == self.etag
        )

    def _require_all_acknowledged(self) -> None:
        """
        Check that the bucket shows what was acknowledged, before that is discarded.

        :raises BackendError: If it shows less, or more behind a gap.
        """
        if self.offset < self.acknowledged:
            why = f"but {self.acknowledged} were stored"
        elif self.has_gap:
            why = "then a gap followed by more bytes"
        else:
            return
        raise BackendError(
            f"the bucket shows {self.offset} bytes of session {self.session_id}, "
            f"{why}; the session is kept"
        )

    # Bytes

    @deferred
    async def open_writer(self, total: int) -> IWriter:
        """Begin to append; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.writer is not None:
            raise BackendError("a writer is open already")
        if self.published or self.releasing or self.is_over:
            raise BackendError("the session accepts no more bytes")
        if self.total not in (None, total):
            raise BackendError(f"the file has {self.total} bytes, not {total}")
        settings = self.staging.settings
        part_size = part_size_for(total, settings.part_size, settings.max_parts)
        if part_size > MOST_PART:
            raise OutOfSpace(
                f"{total} bytes do not fit into {settings.max_parts} parts; this "
                "store cannot hold such a file"
            )
        writer = self.writer = S3Writer(self, total)
        try:
            if not writer.is_small:
                await self._write_total(total, part_size)
                if not self.knowledge.lets_begin:
                    await look_anew(self)
                self.learn(Event.BEGUN)
        except BaseException:
            self.writer = None
            raise
        self.opened_total = total
        writer.begin(part_size)
        return writer

    async def _write_total(self, total: int, part_size: int) -> None:
        def change(record: Record) -> Record | None:
            self.require_standing()
            if record.total is None:
                # Nothing has been acknowledged, so there is nothing to take over.
                return record.changed(
                    total=total, part_size=part_size, node=self.staging.node
                )
            if record.total != total:
                raise BackendError(f"the file has {record.total} bytes, not {total}")
            return None

        await self.update(change)

    # The end

    @deferred
    async def publish(self, *, overwrite: bool, create_directories: bool) -> None:
        """Make the file appear; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.published:
            return
        if not self.is_complete:
            raise BackendError("the upload is not complete")
        self.require_standing()
        if self.record.is_staged and not self.record.is_small:
            # Whether it may replace what is there is decided when it is copied.
            self.seen = await self.staging.look(self.destination, overwrite=True)
            await _publish.publish_copy(self, await _whole.file(self), overwrite)
        else:
            await _publish.publish(self, overwrite=overwrite)
        self.published = True

    def release(self, *, remember: bool = False) -> Deferred[None]:
        """Remove everything; see :class:`~txbits.interfaces.IUploadSession`."""
        if not remember:
            # A close that fails before its record is written has changed nothing.
            self.releasing = True
        how = _release.close if remember else _release.discard
        return self.ending.run(lambda: _release.end(self, how))


@implementer(IReadable, IAddressable, IAnswerable, IReplyAddressable)
@define(eq=False, repr=False)
class AnsweringSession(S3Session):
    """One upload that an application is asked about."""

    def read_into(self, consumer: IConsumer, start: int, end: int) -> Deferred[None]:
        """Feed staged bytes; see :class:`~txbits.interfaces.IReadable`."""
        return begun(_whole.read_into(self, consumer, start, end))

    def address(self) -> str:
        """
        The URL of the object with all bytes, which exists once an attempt has begun;
        see :class:`~txbits.interfaces.IAddressable`.
        """
        return self.staging.url(self.upload_key)

    @property
    def attempts(self) -> int:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return self.record.attempts

    @property
    def answer(self) -> Answer | None:
        """See :class:`~txbits.interfaces.IAnswerable`."""
        return self.record.answer

    def begin_attempt(self) -> Deferred[int]:
        """Count the attempt; see :class:`~txbits.interfaces.IAnswerable`."""
        return shielded(begun(_application.begin_attempt(self)))

    @deferred
    async def open_reply(self) -> IWriter:
        """Start the reply's object; see :class:`~txbits.interfaces.IAnswerable`."""
        return _application.open_reply(self)

    def keep_answer(self, answer: Answer) -> Deferred[None]:
        """Store the answer; see :class:`~txbits.interfaces.IAnswerable`."""
        return shielded(begun(_application.keep_answer(self, answer)))

    def reply(self) -> Deferred[IStoredFile]:
        """Find the reply's object; see :class:`~txbits.interfaces.IAnswerable`."""
        return begun(_application.find_reply(self))

    def reply_address(self) -> str:
        """The reply's URL; see :class:`~txbits.interfaces.IReplyAddressable`."""
        return self.staging.url(_application.reply_key(self))

    @deferred
    async def has_reply(self) -> bool:
        """Check for the object; see :class:`~txbits.interfaces.IReplyAddressable`."""
        found = await self.staging.bucket.head(_application.reply_key(self))
        return found is not None
