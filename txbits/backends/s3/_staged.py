"""
The bytes of a session that are in the bucket, and its record, as this node knows them.

What this object knows is a copy: other nodes may have changed the session since. These
rules hold:

- The record is only written on the condition that it is still the one that was copied.
  If it is not, the present one is read, and the change is decided again.
- The bytes before :attr:`Staged.offset` are in the bucket, unless somebody else has
  removed them since. They are measured, and not stored as a number.
- The bytes of a small file are in the record. Those of a longer one are not, so what
  this node knows of them has a worth of its own: see
  :mod:`~txbits.backends.s3._knowledge`.
- Bytes are acknowledged when they are stored, and after that the record was written,
  or compared with the copy.
- Once the state of the record is "releasing" or "closing", it stays so until the end. A
  node that learns of it accepts no more bytes, and publishes nothing. One that does not
  learn of it before it publishes notices when it writes the record of its close.
- Before an answer that cannot be taken back, the copy is read again.

This module changes the record and stores what is known.
:mod:`~txbits.backends.s3._measuring` finds out what is in the bucket, and
:mod:`~txbits.backends.s3._storing` adds bytes to it.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol
from uuid import UUID

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, DeferredLock

from txbits._deferreds import Shared
from txbits.backends.s3._bodies import Digest
from txbits.backends.s3._bucket import SESSION_HEADER
from txbits.backends.s3._grid import Grid, Span, reach
from txbits.backends.s3._knowledge import TRANSITIONS, Event, Knowledge
from txbits.backends.s3._records import Closed, Record, State
from txbits.backends.s3._staging import Changed, Seen, Staging, Stored, name_of
from txbits.errors import BackendError, NoSuchSession

#: The maximum number of attempts to write or read a record that other nodes change.
MOST_CHANGES = 20


class Writing(Protocol):
    """A writer that is open."""

    def abandon(self) -> Coroutine[Deferred[Any], Any, None]:
        """Stop writing, and wait for requests in progress."""


@define(eq=False)
class Staged:
    """
    What this node knows of a session.

    Times are those of the steady clock of the staging area.

    :ivar etag: The ETag of the record that was last read or written here.
    :ivar progressed: When bytes were last stored.
    :ivar confirmed: When this was last known to be the record in the bucket.
    :ivar seen: What was at the destination when this node last looked.
    :ivar offset: How many bytes are held.
    :ivar published: Whether the file is at its destination.
    :ivar releasing: Whether the session is being released.
    :ivar in_doubt: Whether somebody has removed bytes that were acknowledged.
    :ivar has_strays: Whether this node may have begun multipart uploads whose ids it
        does not know.
    :ivar is_over: Whether the session has ended.
    :ivar parts: The cells that are parts of the multipart upload.
    :ivar tails: The spans that are stored as tails.
    :ivar copy: The bytes of the last cell up to :attr:`copy_end`, kept in memory so
        that its tails need not be read. Empty if they are not kept.
    :ivar digest: The digest of that copy.
    :ivar writer: The writer that is open, if any.
    :ivar written: When the record was written.
    :ivar acknowledged: The largest number of bytes held so far, as far as is known. It
        is lowered if the Ack of a Fragment reports fewer.
    :ivar has_gap: Whether bytes are missing before others that are stored.
    :ivar opened_total: The length that a writer was opened with, which may not be in
        the record yet.
    :ivar ending: The release, while it is in progress on this node.
    :ivar knowledge: What the last listing of parts and tails is worth.
    :ivar beginning: Held while the multipart upload is being created.
    :ivar filing: Held while all bytes are being assembled into one object.
    :ivar attempt: The last attempt of this node to ask the application.
    :ivar reply_writer: The writer of the application's reply, if one is open.
    :ivar reply_is_torn: Whether bytes of that reply were lost.
    """

    staging: Staging
    record: Record
    etag: str
    progressed: float
    confirmed: float
    seen: Seen | None = None
    offset: int = field(default=0, init=False)
    published: bool = field(default=False, init=False)
    releasing: bool = field(default=False, init=False)
    in_doubt: bool = field(default=False, init=False)
    has_strays: bool = field(default=False, init=False)
    is_over: bool = field(default=False, init=False)
    parts: set[int] = field(factory=set, init=False)
    tails: set[Span] = field(factory=set, init=False)
    copy: list[bytes] = field(factory=list, init=False)
    copy_end: int = field(default=0, init=False)
    digest: Digest | None = field(default=None, init=False)
    writer: Writing | None = field(default=None, init=False)
    written: float = field(default=0.0, init=False)
    acknowledged: int = field(default=0, init=False)
    has_gap: bool = field(default=False, init=False)
    opened_total: int | None = field(default=None, init=False)
    ending: Shared[None] = field(factory=Shared, init=False)
    knowledge: Knowledge = field(default=Knowledge.COMPLETE, init=False)
    beginning: DeferredLock = field(factory=DeferredLock, init=False)
    filing: DeferredLock = field(factory=DeferredLock, init=False)
    attempt: int = field(default=0, init=False)
    reply_writer: Writing | None = field(default=None, init=False)
    reply_is_torn: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.written = self.progressed
        self._derive()

    # The record

    @property
    def session_id(self) -> UUID:
        """See :class:`~txbits.interfaces.IUploadSession`."""
        return self.record.session_id

    @property
    def destination(self) -> tuple[str, ...]:
        """See :class:`~txbits.interfaces.IUploadSession`."""
        return self.record.destination

    @property
    def owner(self) -> str | None:
        """See :class:`~txbits.interfaces.IUploadSession`."""
        return self.record.owner

    @property
    def content_name(self) -> str | None:
        """See :class:`~txbits.interfaces.IUploadSession`."""
        return self.record.content_name

    @property
    def total(self) -> int | None:
        """See :class:`~txbits.interfaces.IUploadSession`."""
        return self.opened_total if self.record.total is None else self.record.total

    @property
    def last_progress(self) -> float:
        """When bytes were last stored, by the wall clock as it is set now."""
        return self.staging.epoch(self.progressed)

    @property
    def announced(self) -> float:
        """When the record first announced that the file may be published."""
        since = self.record.publishing_since
        return self.written if since is None else self.staging.ours(since)

    # The layout

    @property
    def grid(self) -> Grid:
        """How the file is divided into parts."""
        record = self.record
        if record.total is None or record.part_size is None:
            raise BackendError("the length of the file is unknown")
        return Grid(record.total, record.part_size)

    @property
    def upload_key(self) -> str:
        """The key of the object that the multipart upload creates."""
        if self.record.is_staged:
            return self.staging.file_key(self.session_id)
        return self.staging.settings.key(self.destination)

    @property
    def upload_headers(self) -> dict[str, str]:
        """The headers that the multipart upload is created with."""
        if self.record.is_staged:
            # Reading from the storage class of published files may cost money.
            return {SESSION_HEADER: name_of(self.session_id)}
        return self.staging.published_headers(self.session_id)

    @property
    def is_only_record(self) -> bool:
        """Whether the session has nothing in the bucket but its record."""
        # Once all bytes are held, a node may have assembled them, and crashed before it
        # could record that.
        return self.record.is_small and not (self.record.is_staged and self.is_complete)

    # What is known

    @property
    def inline_size(self) -> int:
        """How many bytes of the file are in the record."""
        return len(self.record.inline)

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are held."""
        return self.total is not None and self.offset == self.total

    @property
    def is_ours(self) -> bool:
        """
        Whether this node knows of all bytes that any node has acknowledged, as long as
        the record has not changed.
        """
        record = self.record
        return (
            record.total is None
            or record.is_small
            or self.is_complete
            or self.knowledge is Knowledge.COMPLETE
        )

    @property
    def is_named(self) -> bool:
        """Whether the record names this node."""
        return self.record.node == self.staging.node

    def learn(self, event: Event) -> None:
        """Note what changes the worth of the last listing."""
        self.knowledge = TRANSITIONS[self.knowledge][event]

    def _derive(self) -> None:
        record = self.record
        self.releasing = self.releasing or record.state in ("releasing", "closing")
        self.acknowledged = max(self.acknowledged, record.acknowledged)
        if record.is_small:
            self.offset = len(record.inline)
            self.acknowledged = max(self.acknowledged, self.offset)
        if record.file is not None and record.total is not None:
            self.offset = record.total

    # Reading and writing the record

    def take(self, stored: Stored | None) -> None:
        """
        Replace what is known with another version of the record.

        :raises NoSuchSession: If it says that the session is over.
        """
        if stored is None or isinstance(stored.record, Closed):
            self.end()
            raise NoSuchSession(
                f"session {self.session_id} was "
                + ("cancelled" if stored is None else "closed")
            )
        if self.record.upload not in (None, stored.record.upload):
            self.parts.clear()
            self.offset = reach(self.tails)
        if self.etag != stored.etag:
            self.learn(Event.CHANGED)
            if stored.record.node not in (None, self.staging.node):
                # That node has told the client how much is held, which may be less.
                self.acknowledged = 0
        self.record, self.etag = stored.record, stored.etag
        # If this node failed to release it, another node may have continued with it.
        self.releasing = self.ending.is_running
        self.written = stored.modified
        self.progressed = max(self.progressed, stored.modified)
        self.confirmed = self.staging.clock.seconds()
        self._derive()

    def require_standing(self) -> None:
        """
        Check that the session has not ended, as far as is known.

        :raises NoSuchSession: If its release has begun.
        """
        if self.is_over or self.record.state in ("releasing", "closing"):
            raise NoSuchSession(f"session {self.session_id} is being released")

    async def reread(self) -> None:
        """
        Read the record again, and nothing else.

        :raises NoSuchSession: If the session is over, or its release has begun.
        """
        self.take(await self.staging.read(self.session_id))
        self.require_standing()

    async def is_unchanged(self) -> bool:
        """
        Check whether the record is still the one that is known here.

        :returns: Whether it is. If not, the new one has been read.
        :raises NoSuchSession: If the session is over, or its release has begun.
        """
        staging = self.staging
        found = await staging.bucket.head(staging.record_key(self.session_id))
        if found is not None and found.etag == self.etag:
            self.confirmed = staging.clock.seconds()
            return True
        await self.reread()
        return False

    async def update(self, change: Callable[[Record], Record | None]) -> None:
        """
        Write the record, provided that no other node has changed it.

        :param change: Makes the new record from the current one; returns ``None`` if
            there is nothing to change. It is called again if another node was faster.
        :raises NoSuchSession: If the session is over.
        """
        for _ in range(MOST_CHANGES):
            record = change(self.record)
            if record is None:
                return
            if await self.write(record):
                return
        raise self.restless()

    async def write(self, record: Record) -> bool:
        """
        Write the record, if no other node has changed it.

        :returns: Whether it was written. If not, the current one has been read.
        :raises NoSuchSession: If the session is over.
        """
        since = None
        if record.state == self.record.state == "publishing":
            # It was announced earlier, and this write has another reason.
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

    async def mark(self, state: State) -> None:
        """
        Announce in the record what is about to happen; "open" takes back that the file
        may be published. An end that was announced is not taken back.

        :raises NoSuchSession: If the session is over, or, before it is published, if
            its release has begun.
        """

        def change(record: Record) -> Record | None:
            if state == "publishing":
                self.require_standing()
            if record.state in (state, "releasing", "closing"):
                return None
            if state == "publishing" and not record.is_small:
                return record.changed(state=state, acknowledged=record.total or 0)
            return record.changed(state=state)

        await self.update(change)

    def restless(self) -> BackendError:
        """Make the error for a record that other nodes keep changing."""
        return BackendError(
            f"other nodes keep changing the record of {self.session_id}"
        )

    # Bytes

    def reached(self, offset: int) -> None:
        """Note that all bytes before an offset are in the bucket."""
        self.offset = max(self.offset, offset)
        self.acknowledged = max(self.acknowledged, self.offset)
        self.progressed = self.staging.clock.seconds()

    def lost_parts(self) -> None:
        """Note that the multipart upload has ended, and its parts are gone."""
        self.parts = set()
        self.offset = reach(self.tails)

    def drop_copy(self) -> None:
        """Free the memory of bytes that the bucket has."""
        held = sum(map(len, self.copy))
        self.copy = []
        if held:
            self.staging.memory.give(held)

    def end(self) -> None:
        """Note that the session is over."""
        self.is_over = True
        self.drop_copy()
        # These bytes are no longer needed.
        self.record = self.record.changed(inline=b"")
        self.staging.known.weigh(self)
