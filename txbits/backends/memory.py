"""
The memory backend: for first experiments, for tests, and for embedders who need the
bytes themselves.

A directory exists as long as a file is in it, and no path is both a file and a
directory.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence, Set
from itertools import count
from typing import ClassVar
from uuid import UUID

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IReactorTime
from twisted.internet.task import deferLater
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from txbits._deferreds import deferred
from txbits.backends._destinations import checked_segments
from txbits.backends._naming import shown_path, shown_session
from txbits.backends._order import Order
from txbits.backends._serving import Reading, StoredFile, by_pieces
from txbits.clocks import Wall, wall_of
from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationIsDirectory,
    NoSuchFile,
    NoSuchSession,
    ParentMissing,
    StagedDataLost,
)
from txbits.interfaces import (
    ANY_OWNER,
    Answer,
    AnyOwner,
    IAbilities,
    IAnswerable,
    IBackend,
    IClaim,
    IClaimable,
    ICleaning,
    IDownloadable,
    IPaged,
    IReadable,
    ISorted,
    IStoredFile,
    IUploadSession,
    IWriter,
    SessionDetails,
    SessionSummary,
)

# How many sessions are listed, and closes cleaned up, at a time.
_PAGE = 256
_MANY = 10_000


@implementer(IWriter)
@define(eq=False)
class _MemoryWriter:
    _session: MemorySession
    _open: bool = True

    @deferred
    async def write(self, data: bytes) -> None:
        session = self._session
        if not self._open:
            raise BackendError("this writer is closed")
        if session.offset + len(data) > (session.total or 0):
            raise BackendError("more bytes than the file has")
        session._pieces.append(data)
        session.offset += len(data)
        session.last_progress = session._backend._wall()

    def close(self) -> Deferred[None]:
        self._open = False
        self._session._writer = None
        return succeed(None)


@implementer(IWriter)
@define(eq=False)
class _ReplyWriter:
    _session: MemorySession
    _pieces: list[bytes] = field(factory=list)
    _open: bool = True

    @deferred
    async def write(self, data: bytes) -> None:
        if not self._open or self._session.releasing:
            raise BackendError("this writer is closed")
        self._pieces.append(data)

    @deferred
    async def close(self) -> None:
        if self._open and not self._session.releasing:
            self._session._reply = b"".join(self._pieces)
        self._open = False


def _stored(content: bytes, modified: float, etag: str) -> StoredFile:
    """Open bytes for a download."""
    whole = memoryview(content)

    def read(offset: int, length: int) -> Deferred[bytes]:
        return succeed(bytes(whole[offset : offset + length]))

    return StoredFile(len(content), modified, etag, by_pieces(read))


@implementer(IClaim)
@frozen(eq=False)
class _MemoryClaim:
    _claims: dict[str, tuple[UUID, float]]
    _name: str

    def withdraw(self) -> Deferred[None]:
        self._claims.pop(self._name, None)
        return succeed(None)


@implementer(IUploadSession, IReadable, IAnswerable)
@define(eq=False)
class MemorySession:
    """One upload; see :class:`~txbits.interfaces.IUploadSession`."""

    session_id: UUID
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    _backend: MemoryBackend
    last_progress: float
    total: int | None = None
    offset: int = 0
    published: bool = False
    releasing: bool = False
    in_doubt: bool = False
    _pieces: list[bytes] = field(factory=list)
    _writer: _MemoryWriter | None = None
    attempts: int = 0
    answer: Answer | None = None
    _answered_at: float = 0.0
    _reply: bytes | None = None
    created: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.created = self.last_progress

    def __repr__(self) -> str:
        return shown_session(self)

    @deferred
    async def open_writer(self, total: int) -> IWriter:
        """Begin to append; see :class:`~txbits.interfaces.IUploadSession`."""
        if self._writer is not None:
            raise BackendError("a writer is open already")
        if self.published or self.releasing:
            raise BackendError("the session takes no more bytes")
        if self.total not in (None, total):
            raise BackendError(f"the file has {self.total} bytes, not {total}")
        self.total = total
        self._writer = _MemoryWriter(self)
        return self._writer

    @deferred
    async def publish(self, *, overwrite: bool, create_directories: bool) -> None:
        """Put the file into ``files``; see
        :class:`~txbits.interfaces.IUploadSession`."""
        if self.published:
            return
        if self.total is None or self.offset < self.total:
            raise BackendError("the upload is not complete")
        self._backend._check(self.destination, overwrite)
        self._backend.files[self.destination] = self._joined()
        self._pieces.clear()
        self.published = True

    def release(self, *, remember: bool = False) -> Deferred[None]:
        """Forget everything; see :class:`~txbits.interfaces.IUploadSession`."""
        backend = self._backend
        if remember:
            closes = backend._closed.setdefault(self.session_id, {})
            closes[self.destination, self.owner] = backend._wall()
        self.releasing = True
        if self._writer is not None:
            self._writer._open = False
            self._writer = None
        self._pieces.clear()
        self._reply = self.answer = None
        backend._sessions.pop(self.session_id, None)
        return succeed(None)

    @deferred
    async def read_into(self, consumer: IConsumer, start: int, end: int) -> None:
        """Feed staged bytes; see :class:`~txbits.interfaces.IReadable`."""
        if self.published or self.releasing:
            raise StagedDataLost("the staged bytes are gone")
        whole = memoryview(self._joined())

        def read(offset: int, length: int) -> Deferred[bytes]:
            return succeed(bytes(whole[offset : offset + length]))

        await Reading(consumer, read).run(start, end)

    @deferred
    async def begin_attempt(self) -> int:
        """Count an attempt; see :class:`~txbits.interfaces.IAnswerable`."""
        self._require_standing()
        self.attempts += 1
        self._reply = None
        return self.attempts

    @deferred
    async def open_reply(self) -> IWriter:
        """Begin a reply; see :class:`~txbits.interfaces.IAnswerable`."""
        self._require_standing()
        return _ReplyWriter(self)

    @deferred
    async def keep_answer(self, answer: Answer) -> None:
        """Keep what was answered; see :class:`~txbits.interfaces.IAnswerable`."""
        self._require_standing()
        self.answer = evolve(answer, has_reply=self._reply is not None)
        self._answered_at = self._backend._wall()

    @deferred
    async def reply(self) -> IStoredFile:
        """Open the reply; see :class:`~txbits.interfaces.IAnswerable`."""
        if self.answer is None or not self.answer.has_reply or self._reply is None:
            raise NoSuchFile(f"session {self.session_id} has no reply")
        # A session has only one reply.
        return _stored(self._reply, self._answered_at, str(self.session_id))

    def _require_standing(self) -> None:
        if self.releasing:
            raise NoSuchSession(f"session {self.session_id} was released")

    def _joined(self) -> bytes:
        # Joined here rather than in write(), so that appending never copies.
        if len(self._pieces) != 1:
            self._pieces[:] = [b"".join(self._pieces)]
        return self._pieces[0]


@define(eq=False)
class PublishedFiles(MutableMapping[tuple[str, ...], bytes]):
    """
    Files by their destinations.

    :param seconds: Tells seconds since the epoch.
    :ivar directories: How many files each directory contains, at any depth.
    """

    _seconds: Callable[[], float] = time.time
    _files: dict[tuple[str, ...], bytes] = field(factory=dict, init=False)
    directories: Counter[tuple[str, ...]] = field(factory=Counter, init=False)
    _changes: dict[tuple[str, ...], tuple[float, str]] = field(factory=dict, init=False)
    _serial: Iterator[int] = field(factory=count, init=False)
    _name: str = field(factory=lambda: secrets.token_hex(8), init=False)

    def __getitem__(self, destination: tuple[str, ...]) -> bytes:
        return self._files[destination]

    def __setitem__(self, destination: tuple[str, ...], content: bytes) -> None:
        if destination not in self._files:
            self.directories.update(_above(destination))
        self._files[destination] = content
        # Not used again by any process, even after a restart.
        tag = f"{self._name}-{next(self._serial):x}"
        self._changes[destination] = (self._seconds(), tag)

    def opened(self, destination: tuple[str, ...]) -> StoredFile:
        """
        Open a file for a download.

        :raises KeyError: If there is none.
        """
        return _stored(self._files[destination], *self._changes[destination])

    def __delitem__(self, destination: tuple[str, ...]) -> None:
        del self._files[destination], self._changes[destination]
        for directory in _above(destination):
            self.directories[directory] -= 1
            if not self.directories[directory]:
                del self.directories[directory]

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._files!r})"


def _summary(session: MemorySession) -> SessionSummary:
    return SessionSummary(
        session.session_id,
        session.owner,
        session.last_progress,
        session.published or session.releasing,
        session.published and not session.releasing,
        session.total or 0,
    )


def _details(session: MemorySession) -> SessionDetails:
    return SessionDetails(
        session_id=session.session_id,
        destination=session.destination,
        owner=session.owner,
        content_name=session.content_name,
        created=session.created,
        total=session.total,
        offset=session.offset,
        last_progress=session.last_progress,
        published=session.published,
        releasing=session.releasing,
        attempts=session.attempts,
        answer=session.answer,
    )


def _above(destination: tuple[str, ...]) -> list[tuple[str, ...]]:
    return [destination[:end] for end in range(1, len(destination))]


@implementer(
    IBackend, IAbilities, IDownloadable, IPaged, ISorted, IClaimable, ICleaning
)
@define(eq=False)
class MemoryBackend:
    """
    Keeps sessions and published files in the memory of the process.

    :param clock: The steady clock.
    :param wall: Tells seconds since the epoch; if not given, the wall clock that
        belongs to *clock*, see :func:`txbits.clocks.wall_of`.
    :ivar files: The published files, which an embedder may read, add and remove.
    """

    session_abilities: ClassVar[Set[InterfaceClass]] = frozenset(
        {IReadable, IAnswerable}
    )

    _clock: IReactorTime
    _wall: Wall = field(kw_only=True)
    files: PublishedFiles = field(init=False)
    _sessions: dict[UUID, MemorySession] = field(factory=dict, init=False)
    _closed: dict[UUID, dict[tuple[tuple[str, ...], str | None], float]] = field(
        factory=dict, init=False
    )

    @_wall.default
    def _wall_of_the_clock(self) -> Wall:
        return wall_of(self._clock)

    _claims: dict[str, tuple[UUID, float]] = field(factory=dict, init=False)
    _removed: Counter[str] = field(factory=Counter, init=False)
    _order: Order = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._order = Order(self._clock)
        self.files = PublishedFiles(self._wall)

    def start(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)

    def stop(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)

    @deferred
    async def create(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        *,
        owner: str | None,
        content_name: str | None,
        overwrite: bool,
        create_directories: bool,
    ) -> IUploadSession:
        """Make a session; see :class:`~txbits.interfaces.IBackend`."""
        self._check(checked_segments(destination), overwrite)
        if session_id in self._sessions:
            raise BackendError(f"there is a session {session_id} already")
        session = self._sessions[session_id] = MemorySession(
            session_id,
            destination,
            owner,
            content_name,
            self,
            self._wall(),
        )
        return session

    @deferred
    async def find(self, session_id: UUID) -> IUploadSession:
        """Look a session up; see :class:`~txbits.interfaces.IBackend`."""
        try:
            return self._sessions[session_id]
        except KeyError:
            raise NoSuchSession(f"no session {session_id}") from None

    def sessions(self) -> Deferred[Sequence[SessionSummary]]:
        """List the sessions; see :class:`~txbits.interfaces.IBackend`."""
        return succeed([_summary(one) for one in self._sessions.values()])

    @deferred
    async def list_in_pages(
        self, look: Callable[[Sequence[SessionSummary]], Deferred[None]]
    ) -> None:
        """List a few at a time; see :class:`~txbits.interfaces.IPaged`."""
        all_of_them = list(self._sessions.values())
        for at in range(0, len(all_of_them), _PAGE):
            if at:
                await deferLater(self._clock, 0)
            await look([_summary(one) for one in all_of_them[at : at + _PAGE]])

    @deferred
    async def list_after(
        self, session_id: UUID | None, limit: int
    ) -> tuple[Sequence[SessionDetails], UUID | None]:
        """List some in order; see :class:`~txbits.interfaces.ISorted`."""
        sessions = self._sessions
        page, last = await self._order.after(session_id, limit, lambda: list(sessions))
        return [_details(sessions[one]) for one in page if one in sessions], last

    @deferred
    async def details_of(self, session_id: UUID) -> SessionDetails:
        """Look at a session; see :class:`~txbits.interfaces.ISorted`."""
        session = self._sessions.get(session_id)
        if session is None:
            raise NoSuchSession(f"no session {session_id}")
        return _details(session)

    def recalls_close(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | AnyOwner | None,
    ) -> Deferred[bool]:
        """Look a close up; see :class:`~txbits.interfaces.IBackend`."""
        if owner is ANY_OWNER:
            return succeed(session_id in self._closed)
        return succeed((destination, owner) in self._closed.get(session_id, ()))

    @deferred
    async def clean_up(self, closed_before: float) -> None:
        """Forget old closes; see :class:`~txbits.interfaces.IBackend`."""
        now = self._wall()
        for name, (_, until) in list(self._claims.items()):
            if until < now:
                del self._claims[name]
                self._removed["claim"] += 1
        for number, session_id in enumerate(list(self._closed), 1):
            if not number % _MANY:
                await deferLater(self._clock, 0)
            # If the clock was set back, do not keep a close until that time.
            closes = self._closed[session_id]
            kept = {
                what: min(when, now)
                for what, when in closes.items()
                if when >= closed_before
            }
            self._removed["close"] += len(closes) - len(kept)
            if kept:
                self._closed[session_id] = kept
            else:
                del self._closed[session_id]

    def removed_counts(self) -> Mapping[str, int]:
        """See :class:`~txbits.interfaces.ICleaning`."""
        return {"close": 0, "claim": 0} | self._removed

    def claim(
        self, name: str, session_id: UUID, until: float
    ) -> Deferred[IClaim | None]:
        """Take a claim; see :class:`~txbits.interfaces.IClaimable`."""
        holder, _ = self._claims.setdefault(name, (session_id, until))
        if holder != session_id:
            return succeed(None)
        return succeed(_MemoryClaim(self._claims, name))

    def is_claimed(self, name: str) -> Deferred[bool]:
        """Look a claim up; see :class:`~txbits.interfaces.IClaimable`."""
        return succeed(name in self._claims)

    @deferred
    async def open_file(self, destination: tuple[str, ...]) -> IStoredFile:
        """Open a published file; see :class:`~txbits.interfaces.IDownloadable`."""
        checked_segments(destination)
        if destination in self.files.directories:
            raise DestinationIsDirectory(f"{shown_path(destination)} is a directory")
        try:
            return self.files.opened(destination)
        except KeyError:
            raise NoSuchFile(f"no {shown_path(destination)}") from None

    def _check(self, destination: tuple[str, ...], overwrite: bool) -> None:
        """Refuse a destination that currently cannot be published to."""
        for directory in _above(destination):
            if directory in self.files:
                raise ParentMissing(f"{shown_path(directory)} is a file")
        if destination in self.files:
            if not overwrite:
                raise DestinationExists(f"{shown_path(destination)} exists")
        elif destination in self.files.directories:
            raise DestinationIsDirectory(f"{shown_path(destination)} is a directory")
