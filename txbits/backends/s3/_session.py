"""
A session in the bucket.

What this object knows is a copy. Other nodes may have moved the session on, so whatever
is written is either conditional on the record that this copy was made from, or is
checked against the record afterwards; and whoever is about to say something final asks
for :meth:`S3Session.refresh` before, and gives the session up by
:meth:`S3Session.give_up`, which is conditional as well.

The bytes of a long file are no part of the record. So the record names the node that
serves them: another one that acknowledges any, or gives them up, has it name itself
first. Who finds itself there has missed nothing; see :meth:`S3Session.prove`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from typing import Any
from uuid import UUID

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._deferreds import Waiters, begun, deferred, together
from txbits.backends._naming import shown_session
from txbits.backends.s3._bodies import Body, Digest
from txbits.backends.s3._bucket import NoUpload, Part, UnknownUploads
from txbits.backends.s3._grid import Grid, Span, cover, part_size_for, reach, tail_span
from txbits.backends.s3._publish import (
    clear,
    has_published,
    publish_parts,
    publish_whole,
    taken_back,
)
from txbits.backends.s3._records import Closed, Record, State, closed
from txbits.backends.s3._settings import MOST_PART
from txbits.backends.s3._staging import Changed, Seen, Staging, Stored
from txbits.backends.s3._writer import S3Writer
from txbits.errors import BackendError, NoSuchSession, OutOfSpace, StagedDataLost
from txbits.interfaces import IRefreshable, IUploadSession, IWriter

#: How often a record is written anew when others write it at the same time.
_MOST_CHANGES = 20

#: For how many seconds a look at the destination is good, if a condition backs it.
_LOOK_LASTS = 60.0


class _Otherwise(BackendError):
    """A session is to be staged in another way than is known here."""


@implementer(IUploadSession, IRefreshable)
@define(eq=False)
class S3Session:
    """
    One upload; see :class:`~txbits.interfaces.IUploadSession`.

    :ivar etag: Of the record that all this was read from, or written with.
    :ivar progressed: When bytes were last stored, by our steady clock.
    :ivar confirmed: When the bucket said so last, by the same.
    :ivar written: When the record was written, by the same.
    :ivar has_strays: Whether this node may have begun multipart uploads whose ids it
        does not know.
    :ivar parts: The cells that are parts of the multipart upload.
    :ivar tails: What lies in tails.
    :ivar copy: Bytes of the cell that is not full yet, from its beginning up to
        :attr:`offset`, which lie in tails too; they spare reading those. Empty if not
        held.
    :ivar digest: Of that copy.
    :ivar acknowledged: How many bytes were held at some time, as far as is known, until
        a Fragment is answered that there are fewer.
    :ivar has_gap: Whether there are bytes behind others that are not there.
    """

    staging: Staging
    record: Record
    etag: str
    progressed: float
    confirmed: float
    seen: Seen | None = None
    offset: int = 0
    published: bool = False
    releasing: bool = False
    in_doubt: bool = False
    has_strays: bool = False
    is_over: bool = False
    parts: set[int] = field(factory=set)
    tails: set[Span] = field(factory=set)
    copy: list[bytes] = field(factory=list)
    copy_end: int = 0
    digest: Digest | None = None
    writer: S3Writer | None = None
    acknowledged: int = field(default=0, init=False)
    has_gap: bool = field(default=False, init=False)
    written: float = field(default=0.0, init=False)
    _total: int | None = field(default=None, init=False)
    _release: Waiters[None] | None = field(default=None, init=False)
    _is_taken_back: bool = field(default=False, init=False)
    _beginning: DeferredLock = field(factory=DeferredLock, init=False)
    _is_fresh: bool = field(default=False, init=False)
    _has_missed: bool = field(default=False, init=False)
    _is_settled: bool = field(default=True, init=False)

    def __repr__(self) -> str:
        return shown_session(self)

    def __attrs_post_init__(self) -> None:
        self.written = self.progressed
        self._derive()

    @property
    def last_progress(self) -> float:
        """When bytes were last stored, by the wall clock as it is set now."""
        return self.staging.epoch(self.progressed)

    @property
    def session_id(self) -> UUID:
        """Its id."""
        return self.record.session_id

    @property
    def destination(self) -> tuple[str, ...]:
        """Where the file will go."""
        return self.record.destination

    @property
    def owner(self) -> str | None:
        """Who created it."""
        return self.record.owner

    @property
    def content_name(self) -> str | None:
        """The client's name for the file."""
        return self.record.content_name

    @property
    def total(self) -> int | None:
        """The file's length, as soon as a writer has been opened."""
        return self._total if self.record.total is None else self.record.total

    @property
    def grid(self) -> Grid:
        """How the file is cut."""
        record = self.record
        if record.total is None or record.part_size is None:
            raise BackendError("the file's length is not known")
        return Grid(record.total, record.part_size)

    @property
    def upload_key(self) -> str:
        """The key that its multipart upload is to."""
        return self.staging.settings.key(self.destination)

    @property
    def upload_headers(self) -> dict[str, str]:
        """What that upload is begun with."""
        return self.staging.published_headers(self.session_id)

    @property
    def is_only_record(self) -> bool:
        """Whether there is nothing of it in the bucket but its record."""
        return self.record.is_small

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are held."""
        return self.total is not None and self.offset == self.total

    @property
    def is_ours(self) -> bool:
        """
        Whether nobody can have acknowledged bytes that are not known here, unless the
        record has changed.
        """
        record = self.record
        return (
            record.total is None or record.is_small or self._has_all or self.is_complete
        )

    @property
    def announced(self) -> float:
        """When the record began to say that the file may stand, by our steady clock."""
        since = self.record.publishing_since
        return self.written if since is None else self.staging.ours(since)

    @property
    def _is_named(self) -> bool:
        return self.record.node == self.staging.node

    @property
    def _has_all(self) -> bool:
        """Whether all is known here that was acknowledged before the record."""
        return self._is_named and self._is_settled and not self._has_missed

    # What the bucket says

    def _derive(self) -> None:
        record = self.record
        self.releasing = self.releasing or record.state in ("releasing", "closing")
        self.acknowledged = max(self.acknowledged, record.acknowledged)
        if record.is_small:
            self.offset = len(record.inline)
            self.acknowledged = max(self.acknowledged, self.offset)

    def take(self, stored: Stored | None) -> None:
        """
        Go on from another record.

        :raises NoSuchSession: If that says that the session is over.
        """
        if stored is None or isinstance(stored.record, Closed):
            self._is_over_now()
            raise NoSuchSession(
                f"session {self.session_id} was "
                + ("cancelled" if stored is None else "closed")
            )
        if self.record.upload not in (None, stored.record.upload):
            self.parts.clear()
            self.offset = reach(self.tails)
        if self.etag != stored.etag:
            # What another node has acknowledged since may not be known here.
            self._has_missed = True
            if stored.record.node not in (None, self.staging.node):
                # It has told the client how much is held, which may be less.
                self.acknowledged = 0
        self.record, self.etag = stored.record, stored.etag
        # What was begun here, and came to nothing, is another node's to say.
        self.releasing = self._release is not None
        self.written = stored.modified
        self.progressed = max(self.progressed, stored.modified)
        self.confirmed = self.staging.clock.seconds()
        self._derive()

    def standing(self) -> None:
        """
        Insist that the session stands, as far as is known.

        :raises NoSuchSession: If its release has begun.
        """
        if self.is_over or self.record.state in ("releasing", "closing"):
            raise NoSuchSession(f"session {self.session_id} is being released")

    @deferred
    async def refresh(self) -> None:
        """Read it all anew; see :class:`~txbits.interfaces.IRefreshable`."""
        if self.is_over:
            raise NoSuchSession(f"session {self.session_id} is over")
        if self._release is not None:
            return
        await self._look()

    async def _look(self) -> None:
        self.take(await self.staging.read(self.session_id))
        await self.measure()

    async def reread(self) -> None:
        """
        Read the record anew, and nothing else.

        :raises NoSuchSession: If the session is over, or its release has begun.
        """
        self.take(await self.staging.read(self.session_id))
        self.standing()

    async def measure(self) -> None:
        """Find out how many bytes are held, and whether the file is published."""
        is_ended = is_cut = False
        if not self.record.is_small and self.record.total is not None:
            is_ended = await self._measure_grid()
        record = self.record
        self._total = None
        if record.state == "publishing" and not record.is_small:
            # Tails go when the file stands.
            is_cut = not self.is_complete and self.grid.cells == 1
        if is_ended and record.state == "publishing":
            self.published = await has_published(self)
        elif is_cut:
            self.published = await has_published(self, is_cut=True)
        elif record.state == "publishing" or (
            # A longer one would say "publishing".
            record.state == "open" and record.is_small and self.is_complete
        ):
            self.published = (
                await self.staging.is_published(self.destination, self.session_id)
                is not None
            )
        # Somebody has aborted the upload, and acknowledged bytes with it.
        self.in_doubt = record.in_doubt or (
            (is_ended or is_cut)
            and not self.published
            and record.state in ("open", "publishing")
        )
        if self.published and record.total is not None:
            self.offset = record.total

    async def _measure_grid(self) -> bool:
        """
        List parts and tails.

        :returns: Whether the multipart upload has ended.
        """
        for _ in range(_MOST_CHANGES):
            is_ended = await self._list_grid()
            if not is_ended:
                return False
            # Whoever completes it, or begins another, says so in the record before; and
            # what was listed may be what its end has left.
            etag = self.etag
            self.take(await self.staging.read(self.session_id))
            if self.etag == etag:
                return True
        raise BackendError(f"the record of {self.session_id} does not come to rest")

    async def _list_grid(self) -> bool:
        staging = self.staging
        directory = staging.directory(self.session_id)
        looks: list[Deferred[Any]] = [
            begun(staging.bucket.every(directory)),
            begun(self._parts_of_upload()),
        ]
        listed, found_parts = await together(*looks)
        parts = {
            one.number: one.modified
            for one in found_parts or ()
            if self.grid.is_part(one.number, one.size)
        }
        tails = {}
        for found in listed:
            span = tail_span(found.key.removeprefix(directory))
            if span is not None and span.length == found.size:
                tails[span] = found.modified
        self.parts, self.tails = set(parts), set(tails)
        self.drop_copy()
        spans = [*map(self.grid.cell, parts), *tails]
        self.offset = reach(spans)
        self.has_gap = any(span.end > self.offset for span in spans)
        self.acknowledged = max(self.acknowledged, self.offset)
        self._is_fresh, self._has_missed = True, False
        self._is_settled = self._is_named
        latest = max([*parts.values(), *tails.values()], default=0.0)
        self.progressed = max(self.progressed, staging.ours(latest))
        return found_parts is None

    async def _parts_of_upload(self) -> list[Part] | None:
        """List the parts; ``None`` if the multipart upload has ended."""
        if self.record.upload is None:
            return []
        try:
            return await self.staging.bucket.parts(self.upload_key, self.record.upload)
        except NoUpload:
            return None

    async def update(self, change: Callable[[Record], Record | None]) -> None:
        """
        Write the record, on the condition that it is what it is thought to be.

        :param change: Makes the new record from the present one; ``None`` if there is
            nothing to change. It is asked again when another node was faster.
        :raises NoSuchSession: If the session is over.
        """
        for _ in range(_MOST_CHANGES):
            record = change(self.record)
            if record is None:
                return
            if await self._write(record):
                return
        raise BackendError(f"the record of {self.session_id} does not come to rest")

    async def _write(self, record: Record) -> bool:
        """
        Write the record, if it is what it is thought to be.

        :returns: Whether it was; if not, what it is now is known.
        :raises NoSuchSession: If the session is over.
        """
        since = None
        if record.state == self.record.state == "publishing":
            # Who writes it for another reason does not begin to publish.
            since = self.record.publishing_since or self.staging.theirs(self.written)
        if record.publishing_since != since:
            record = evolve(record, publishing_since=since)
        try:
            etag = await self.staging.write(record, self.etag)
        except Changed as changed:
            self.take(changed.found)
            return False
        self.record, self.etag = record, etag
        self.confirmed = self.written = self.staging.clock.seconds()
        self._derive()
        return True

    # Writing

    @deferred
    async def open_writer(self, total: int) -> IWriter:
        """Begin to append; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.writer is not None:
            raise BackendError("a writer is open already")
        if self.published or self.releasing or self.is_over:
            raise BackendError("the session takes no more bytes")
        if self.total not in (None, total):
            raise BackendError(f"the file has {self.total} bytes, not {total}")
        settings = self.staging.settings
        part_size = part_size_for(total, settings.part_size, settings.max_parts)
        if part_size > MOST_PART:
            raise OutOfSpace(
                f"{total} bytes do not fit into {settings.max_parts} parts"
            )
        writer = self.writer = S3Writer(self, total)
        try:
            if not writer.is_small:
                await self.update(self._with_total(total, part_size))
                if not self._has_all and not self._is_fresh:
                    await self._look()
                self._is_fresh = False
        except BaseException:
            self.writer = None
            raise
        self._total = total
        writer.begin(part_size)
        return writer

    def _with_total(
        self, total: int, part_size: int
    ) -> Callable[[Record], Record | None]:
        def change(record: Record) -> Record | None:
            self.standing()
            if record.total is None:
                return record.changed(
                    total=total, part_size=part_size, node=self.staging.node
                )
            if record.total != total:
                raise BackendError(f"the file has {record.total} bytes, not {total}")
            return None

        return change

    def store_small(
        self, total: int, part_size: int, start: int, data: bytes
    ) -> Deferred[None]:
        """Write bytes of a small file, and its length, into the record."""

        def change(record: Record) -> Record | None:
            self.standing()
            if record.total not in (None, total):
                raise BackendError(f"the file has {record.total} bytes, not {total}")
            held = len(record.inline)
            if held < start:
                raise StagedDataLost(f"{held} bytes are held, not {start}")
            if record.total == total and held >= start + len(data):
                return None
            return record.changed(
                total=total,
                part_size=part_size,
                inline=record.inline + data[held - start :],
            )

        return begun(self._progressed(self.update(change)))

    async def _progressed(self, writing: Awaitable[None]) -> None:
        await writing
        self.acknowledged = self.offset
        self.progressed = self.staging.clock.seconds()
        self.staging.known.weigh(self)

    async def store_tail(self, span: Span, body: Body) -> None:
        """Put bytes of a cell that is not full."""
        staging = self.staging
        await staging.bucket.put(staging.tail_key(self.session_id, span), body)
        self.tails.add(span)

    async def store_part(self, number: int, body: Body) -> None:
        """
        Put a whole cell.

        :raises NoSuchSession: If the session was ended meanwhile.
        :raises BackendError: If only its multipart upload was: what was in it has to
            be sent again, into another one.
        """
        upload = self.record.upload or await self._begun_upload()
        try:
            await self.staging.bucket.put_part(self.upload_key, upload, number, body)
        except NoUpload as error:
            await self.reread()
            if await self.is_whole():
                raise BackendError("all parts were there already") from error
            await self.update(
                lambda record: (
                    record.changed(state="open", upload=None, in_doubt=True)
                    if record.upload == upload
                    else None
                )
            )
            await self.measure()
            raise BackendError(
                f"somebody has aborted the multipart upload {upload}"
            ) from error
        self.parts.add(number)

    async def is_whole(self) -> bool:
        """Tell whether the multipart upload has ended because it was completed."""
        return self.record.state == "publishing" and await has_published(self)

    async def _begun_upload(self) -> str:
        """Begin the multipart upload, once for all parts that are being sent."""
        await self._beginning.acquire()
        try:
            return self.record.upload or await self._begin_upload()
        finally:
            self._beginning.release()

    async def _begin_upload(self) -> str:
        is_staged = self.record.is_staged
        upload = await self.began(self.upload_key, self.upload_headers)

        def change(record: Record) -> Record | None:
            self.standing()
            if record.is_staged != is_staged:
                # It is to another key.
                raise _Otherwise("another node asks an application about the session")
            if record.upload:
                return None
            return record.changed(
                upload=upload,
                in_doubt=False,
                has_strays=record.has_strays or self.has_strays,
            )

        await self.named(self.upload_key, upload, change)
        return self.chosen(self.record.upload)

    async def began(self, key: str, headers: Mapping[str, str]) -> str:
        """Begin a multipart upload, and note whether there may be others by that."""
        try:
            one = await self.staging.bucket.begin_upload(key, headers)
        except UnknownUploads:
            self.has_strays = True
            raise
        self.has_strays = self.has_strays or one.is_repeated
        return one.upload

    async def named(
        self, key: str, upload: str, change: Callable[[Record], Record | None]
    ) -> None:
        """
        Write a multipart upload that was begun into the record.

        :param change: Does it, unless the record names one already; the one that is not
            in the record is aborted.
        """
        bucket = self.staging.bucket
        try:
            await self.update(change)
        except (NoSuchSession, _Otherwise):
            await bucket.abort(key, upload)
            raise
        except BackendError:
            # The record may name it, and another node use it. If it does not, nobody
            # knows its id.
            self.has_strays = True
            raise
        if upload not in (self.record.upload, self.record.copy):
            await bucket.abort(key, upload)

    def chosen(self, upload: str | None) -> str:
        """Insist that the record names an upload."""
        if upload is None:
            raise BackendError("the record does not name its multipart upload")
        return upload

    def reached(self, offset: int) -> None:
        """Note that all bytes before an offset are in the bucket."""
        self.offset = max(self.offset, offset)
        self.acknowledged = max(self.acknowledged, self.offset)
        self.progressed = self.staging.clock.seconds()

    async def prove(self, tails: Iterable[Span]) -> None:
        """
        Find out, before an Ack of a long file's bytes, that the session stands, and
        that nobody has acknowledged more of it than is known here.

        While the record names this node a look at it is enough. If it does not, it is
        made to, which is a look with consequences: the node that it named finds that
        out before its next Ack.

        :param tails: What was written; it is removed if the session does not stand.
        :raises NoSuchSession: If not.
        """
        try:
            if (
                not self._is_named
                # It looked, and that failed.
                or self._has_missed
                or not await self._is_unchanged()
            ):
                await self._take_over()
            if self.record.acknowledged > self.offset:
                # They are lost; this Ack tells the client so.
                await self.update(
                    lambda record: record.changed(acknowledged=self.offset)
                )
            self.acknowledged = self.offset
        except NoSuchSession:
            await self._remove(tails)
            raise

    async def look(self, tails: Iterable[Span] = ()) -> None:
        """
        Find out whether the session stands, after something was written.

        :param tails: As of :meth:`prove`.
        :raises NoSuchSession: If not.
        """
        try:
            await self._is_unchanged()
        except NoSuchSession:
            await self._remove(tails)
            raise

    async def _remove(self, tails: Iterable[Span]) -> None:
        bucket = self.staging.bucket
        await bucket.delete_all(
            [self.staging.tail_key(self.session_id, span) for span in tails]
        )
        if self.record.upload is not None:
            await bucket.abort(self.upload_key, self.record.upload)

    async def _is_unchanged(self) -> bool:
        """
        Look whether the record is the one that is known here.

        :returns: Whether it is. If not, it is now.
        :raises NoSuchSession: If the session does not stand.
        """
        staging = self.staging
        found = await staging.bucket.head(staging.record_key(self.session_id))
        if found is not None and found.etag == self.etag:
            self.confirmed = staging.clock.seconds()
            return True
        await self.reread()
        return False

    async def _take_over(self) -> None:
        """
        Have the record name this node, and find what others have acknowledged.

        :raises NoSuchSession: If the session does not stand.
        """

        def change(record: Record) -> Record | None:
            self.standing()
            return record.changed(node=self.staging.node, acknowledged=self.offset)

        await self.update(change)
        if self._has_missed:
            await self.measure()
        else:
            # Whoever was named before may have acknowledged something after this node
            # had looked. That Ack was on its way together with this one; but by the
            # next Fragment it is to be known.
            self._is_settled = False

    async def read_tails(self, start: int, end: int) -> list[bytes]:
        """
        Read bytes back that lie in tails.

        :raises StagedDataLost: If they do not.
        """
        chunks = []
        for span in cover(self.tails, start, end):
            key = self.staging.tail_key(self.session_id, span)
            found = await self.staging.bucket.get(key, span.length)
            if found is None or len(found.body) != span.length:
                raise StagedDataLost(f"{key} is not what it was")
            # An earlier one may reach beyond where this begins.
            chunks.append(found.body[start - span.start : end - span.start])
            start = min(span.end, end)
        if start < end:
            raise StagedDataLost(f"no tail holds byte {start}")
        return chunks

    def drop_copy(self) -> None:
        """Hold no bytes that the bucket has."""
        held = sum(map(len, self.copy))
        self.copy = []
        if held:
            self.staging.memory.give(held)

    # The end

    @deferred
    async def give_up(self, *, closed: bool) -> bool:
        """Begin the end; see :class:`~txbits.interfaces.IRefreshable`."""
        self.standing()
        known = self.offset, self.published, self.in_doubt
        if not self.is_ours:
            # Whoever acknowledges something from now on changes the record before;
            # and what was acknowledged by then is found.
            if not await self._write(self.record.changed(node=None)):
                await self.measure()
                return False
            etag = self.etag
            await self.measure()
            if (self.offset, self.published, self.in_doubt, self.etag) != (
                *known,
                etag,
            ):
                return False
        if closed and (self.has_gap or self.offset < self.acknowledged):
            raise BackendError(
                f"the bucket shows {self.offset} bytes of session {self.session_id}, "
                + (
                    f"but {self.acknowledged} were stored"
                    if self.offset < self.acknowledged
                    else "then a gap with more bytes behind it"
                )
                + "; the session is kept"
            )
        state: State = "closing" if closed else "releasing"
        if await self._write(self.record.changed(state=state)):
            return True
        await self.measure()
        return False

    @deferred
    async def publish(self, *, overwrite: bool, create_directories: bool) -> None:
        """Make the file appear; see :class:`~txbits.interfaces.IUploadSession`."""
        if self.published:
            return
        if not self.is_complete:
            raise BackendError("the upload is not complete")
        self.standing()
        oldest = self.staging.clock.seconds() - _LOOK_LASTS
        seen = self.seen
        if (
            seen is None
            or seen.at < oldest
            or not self.record.is_small
            # Nothing is put then, so no condition would notice that it is free again.
            or (seen.etag is not None and not overwrite)
        ):
            seen = await self.staging.look(self.destination, overwrite=True)
            self.seen = seen
            if self.record.is_small:
                # Another node may have closed the session, and what stands there now be
                # newer than this.
                await self.reread()
        if self.record.is_small or self.grid.cells == 1:
            await publish_whole(self, seen, overwrite)
        else:
            await publish_parts(self, overwrite)
        self.published = True

    def release(self) -> Deferred[None]:
        """Discard everything; see :class:`~txbits.interfaces.IReleasable`."""
        self.releasing = True
        return self._ended(self._discard)

    def remember_close(self) -> Deferred[None]:
        """
        Leave nothing but the record that the session was closed with success.

        :returns: A Deferred that fires with ``None`` when that is so.
        """
        return self._ended(self._close)

    def _ended(
        self, end: Callable[[], Coroutine[Deferred[Any], Any, None]]
    ) -> Deferred[None]:
        release = self._release
        if release is None:
            release = self._release = Waiters()
            mine = release.wait()
            begun(self._end(end)).addBoth(self._has_ended)
            return mine
        return release.wait()

    async def _end(
        self, end: Callable[[], Coroutine[Deferred[Any], Any, None]]
    ) -> None:
        if self.writer is not None:
            await self.writer.abandon()
        self.drop_copy()
        if not self.is_over:
            await end()
            self._is_over_now()

    def _is_over_now(self) -> None:
        self.is_over = True
        self.drop_copy()
        # Nobody asks for them any more.
        self.record = self.record.changed(inline=b"")
        self.staging.known.weigh(self)

    def _has_ended(self, outcome: Failure | None) -> None:
        release, self._release = self._release, None
        if release is not None:
            release.fire(outcome)

    async def uploads(self) -> list[tuple[str, str]]:
        """Tell the multipart uploads that are to be aborted, by their keys."""
        upload = self.record.upload
        return [] if upload is None or self.published else [(self.upload_key, upload)]

    async def _discard(self) -> None:
        try:
            # To remove a record is one step.
            if not self.published and not self.is_only_record:
                await self.mark("releasing")
        except NoSuchSession:
            # Another node was faster; whatever it has not come to yet goes here.
            await clear(self)
            return
        if self.record.state == "closing":
            await self._close()
            return
        await clear(self)
        await self.staging.bucket.delete(self.staging.record_key(self.session_id))

    async def _close(self) -> None:
        try:
            if not self.published and not (
                self.is_only_record and self.record.state == "open"
            ):
                await self.mark("closing")
            await clear(self)
            await self._write_closed()
        except NoSuchSession:
            await clear(self)
            if self._is_taken_back:
                raise

    async def mark(self, state: State) -> None:
        """
        Note in the record what is about to happen.

        :raises NoSuchSession: If the session is over.
        """

        def change(record: Record) -> Record | None:
            if state == "publishing":
                self.standing()
            if record.state in (state, "releasing", "closing"):
                return None
            if state == "publishing" and not record.is_small:
                return record.changed(state=state, acknowledged=record.total or 0)
            return record.changed(state=state)

        await self.update(change)

    async def _write_closed(self) -> None:
        staging = self.staging
        record = closed(self.session_id, self.destination, self.owner)
        for _ in range(_MOST_CHANGES):
            try:
                await staging.write_closed(self.session_id, record, self.etag)
            except Changed as changed:
                if changed.found is None and self.published:
                    self._is_taken_back = await taken_back(self)
                self.take(changed.found)
            else:
                return
        raise BackendError(f"the record of {self.session_id} does not come to rest")
