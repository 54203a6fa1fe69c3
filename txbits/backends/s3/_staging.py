"""
Where sessions are in the bucket, and how their records are read and written.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID, uuid4

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from txbits.backends._naming import shown_path
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import SESSION_HEADER, Bucket, Found, NotMet
from txbits.backends.s3._budget import Share
from txbits.backends.s3._cache import Known
from txbits.backends.s3._grid import Span, tail_name
from txbits.backends.s3._records import (
    MOST_RECORD,
    Closed,
    Record,
    decoded,
    encoded,
)
from txbits.backends.s3._responses import S3Error
from txbits.backends.s3._settings import S3Settings
from txbits.clocks import wall_of
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationIsDirectory,
)

#: The longest key that S3 accepts, in bytes of UTF-8.
MOST_KEY = 1024

#: How many keys that begin with a destination's are listed.
_MOST_SIBLINGS = 20

#: The name of a session's record.
RECORD = "record"

#: The name of the folder of claims, see _claims.py.
CLAIMS = "claims"


@frozen
class Stored:
    """
    A record as it is in the bucket.

    :ivar modified: When it was written, by our steady clock.
    """

    record: Record | Closed
    etag: str
    modified: float


class Changed(BackendError):
    """
    Another node has changed a record; nothing was written.

    :ivar found: The present record; ``None`` if it is gone.
    """

    def __init__(self, found: Stored | None) -> None:
        super().__init__("the record has changed")
        self.found = found


@frozen
class Seen:
    """
    A destination as it was.

    :ivar etag: The ETag of the file there; ``None`` if there was none.
    :ivar at: When that was, by our steady clock.
    """

    etag: str | None
    at: float


@define(eq=False)
class Staging:
    """
    The part of a bucket that uploads are staged in.

    :ivar memory: Limits the memory for uploads.
    :ivar reply_memory: Limits the memory for replies.
    :ivar clock: The steady clock; all times are by it, unless stated otherwise.
    :ivar known: The sessions that this node knows.
    :ivar node: The name of this node in records, which is new with each start.
    :ivar copy_part: How much the store copies at a time, in bytes.
    :ivar most_useless: When a session has so many tails that are no longer needed, they
        are removed before its end.
    """

    settings: S3Settings
    bucket: Bucket
    memory: Share
    reply_memory: Share
    clock: IReactorTime
    known: Known[Any]
    copy_part: int = field(default=256 << 20, kw_only=True)
    most_useless: int = field(default=64, kw_only=True)
    node: str = field(factory=lambda: uuid4().hex, kw_only=True)
    _records: Callable[[], Coroutine[Deferred[Any], Any, list[Record]]] | None = field(
        default=None, init=False
    )

    def read_records_by(
        self, read: Callable[[], Coroutine[Deferred[Any], Any, list[Record]]]
    ) -> None:
        """Set what reads the records of all sessions."""
        self._records = read

    async def records(self) -> list[Record]:
        """
        Read the records of all sessions that have not ended.

        :raises BackendError: If one of them cannot be read.
        """
        if self._records is None:
            raise BackendError("the backend is not started")
        return await self._records()

    # Names

    def directory(self, session_id: UUID) -> str:
        """Return the prefix of the keys of a session."""
        return f"{self.settings.staging}{name_of(session_id)}/"

    def record_key(self, session_id: UUID) -> str:
        """Return the key of a session's record."""
        return self.directory(session_id) + RECORD

    def tail_key(self, session_id: UUID, span: Span) -> str:
        """Return the key of a tail."""
        return self.directory(session_id) + tail_name(span)

    def file_key(self, session_id: UUID) -> str:
        """Return the key of the object that is all bytes of a session."""
        return f"{self.directory(session_id)}file"

    def reply_key(self, session_id: UUID, attempt: int) -> str:
        """Return the key of the reply of an application to an attempt."""
        return f"{self.directory(session_id)}reply-{attempt}"

    def url(self, key: str) -> str:
        """Return the URL of an object, for applications."""
        return f"s3://{self.settings.bucket}/{key}"

    def ours(self, modified: float) -> float:
        """Translate a time of the store's clock into one of our steady clock."""
        return modified - self.bucket.client.access.ahead

    def theirs(self, steadily: float) -> float:
        """Translate a time of our steady clock into one of the store's."""
        # The store has whole seconds, and they are the same after both translations.
        return round(steadily + self.bucket.client.access.ahead, 3)

    def epoch(self, steadily: float) -> float:
        """Translate a time of our steady clock into one of the wall clock now."""
        return steadily + wall_of(self.clock)() - self.clock.seconds()

    def steadily(self, epoch: float) -> float:
        """Translate a time of the wall clock now into one of our steady clock."""
        return epoch - wall_of(self.clock)() + self.clock.seconds()

    def is_key(self, key: str) -> bool:
        """Return whether S3 accepts a key of this length."""
        return len(key.encode()) <= MOST_KEY

    # Records

    async def read(self, session_id: UUID) -> Stored | None:
        """
        Read a record.

        :returns: It, or ``None`` if there is none.
        """
        key = self.record_key(session_id)
        found = await self.bucket.get(key, MOST_RECORD)
        if found is None:
            return None
        return Stored(decoded(found.body, key), found.etag, self.ours(found.modified))

    async def write(self, record: Record, instead_of: str | None) -> str:
        """
        Write a record, unless another node has changed it.

        :param instead_of: The ETag of the record that is replaced; ``None`` if there
            must be none.
        :returns: The new ETag.
        :raises Changed: If the record in the bucket is another.
        """
        try:
            return await self.bucket.put(
                self.record_key(record.session_id),
                Body([encoded(record)]),
                instead_of=instead_of,
                only_new=instead_of is None,
            )
        except NotMet as error:
            found = await self.read(record.session_id)
            if (
                found is not None
                and isinstance(found.record, Record)
                and found.record.stamp == record.stamp
            ):
                # An earlier attempt was carried out, and the response lost.
                return found.etag
            raise Changed(found) from error

    async def write_closed(
        self, session_id: UUID, record: Closed, instead_of: str
    ) -> None:
        """
        Write the record of a close.

        :param instead_of: The ETag of the session's record.
        :raises Changed: If the record in the bucket is another, and not this one.
        """
        try:
            await self.bucket.put(
                self.record_key(session_id),
                Body([encoded(record)]),
                instead_of=instead_of,
            )
        except NotMet as error:
            found = await self.read(session_id)
            if found is None or found.record != record:
                raise Changed(found) from error

    async def remove(self, session_id: UUID, etag: str) -> None:
        """
        Remove a record, unless another node has changed it.

        :param etag: The ETag of the record.
        :raises Changed: If the record in the bucket is another, or is gone.
        """
        key = self.record_key(session_id)
        try:
            is_gone = await self.bucket.delete_if(key, etag)
        except S3Error:
            # The store may not support the condition. If it has another problem, what
            # follows fails too.
            is_gone = False
        if is_gone:
            return
        found = await self.read(session_id)
        if found is None or found.etag != etag:
            raise Changed(found)
        await self.bucket.delete(key)

    # Destinations

    def published_headers(self, session_id: UUID) -> dict[str, str]:
        """Return the headers that a published file is stored with."""
        headers = {SESSION_HEADER: name_of(session_id)}
        if self.settings.storage_class is not None:
            headers["x-amz-storage-class"] = self.settings.storage_class
        return headers

    async def look(self, destination: tuple[str, ...], *, overwrite: bool) -> Seen:
        """
        Look whether there is something at a destination.

        One short listing shows the file, because no key that begins with its name sorts
        before it. It also shows whether there are files below it, unless many names
        continue with a character that sorts before a slash.

        :raises DestinationExists: If a file is there, and may not be replaced.
        :raises DestinationIsDirectory: If there are files below it.
        """
        key = self.settings.key(destination)
        now = self.clock.seconds()
        page = await self.bucket.page(key, delimiter="/", most=_MOST_SIBLINGS)
        if page.next is not None or f"{key}/" in page.prefixes:
            # Some stores still list a folder after its last file was removed.
            below = await self.bucket.page(f"{key}/", most=1)
            if below.found:
                raise DestinationIsDirectory(
                    f"{shown_path(destination)} is a directory"
                )
        found = next((one for one in page.found if one.key == key), None)
        if found is None:
            return Seen(None, now)
        if not overwrite:
            raise DestinationExists(f"{shown_path(destination)} exists")
        if not found.etag.startswith('"'):
            # Not every store lists the ETag, which the write needs as its condition.
            found = await self.bucket.head(key)
            return Seen(None if found is None else found.etag, now)
        return Seen(found.etag, now)

    async def is_published(
        self, destination: tuple[str, ...], session_id: UUID
    ) -> Found | None:
        """Return the file at a destination, if it is that of a session."""
        found = await self.bucket.head(self.settings.key(destination))
        if found is None or found.session != name_of(session_id):
            return None
        return found


def name_of(session_id: UUID) -> str:
    """Return a session's id as keys and headers have it."""
    return f"{{{str(session_id).upper()}}}"
