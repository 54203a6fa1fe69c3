"""
The S3 backend: uploads straight into a bucket.

All state is in the bucket. Any number of processes may use the same bucket and prefix,
each may serve any packet of any session, and each may be killed at any time.
``docs/reference/s3.md`` describes what is in the bucket, the requests of each packet,
and why this is correct.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from txbits._agents import Direct, agent_with
from txbits._deferreds import begun, deferred, together
from txbits.backends._destinations import checked_segments
from txbits.backends._threads import Threads
from txbits.backends.s3._access import Access, resolved
from txbits.backends.s3._bucket import Bucket
from txbits.backends.s3._budget import OF_PROCESS, Budget
from txbits.backends.s3._cache import Known
from txbits.backends.s3._claims import Claims
from txbits.backends.s3._cleanup import Survey
from txbits.backends.s3._client import Client
from txbits.backends.s3._downloads import location, open_file
from txbits.backends.s3._measuring import measure
from txbits.backends.s3._pool import Pool, policy_of
from txbits.backends.s3._probe import probe
from txbits.backends.s3._records import (
    MOST_NAMES,
    Closed,
    Record,
    closed,
    encoded,
)
from txbits.backends.s3._session import AnsweringSession, S3Session
from txbits.backends.s3._settings import LEAST_PARTS, NOT_IN_XML, S3Settings
from txbits.backends.s3._staging import MOST_KEY, Changed, Seen, Staging, Stored
from txbits.clocks import steady
from txbits.errors import (
    BackendError,
    DestinationForbidden,
    NoSuchSession,
    ParentMissing,
)
from txbits.interfaces import (
    ANY_OWNER,
    AnyOwner,
    IAbilities,
    IAddressable,
    IAnswerable,
    IBackend,
    IClaim,
    IClaimable,
    ICleaning,
    ICounting,
    IDownloadable,
    IExclusive,
    IPaged,
    IReadable,
    IRedirecting,
    IReplyAddressable,
    IShared,
    ISorted,
    IStoredFile,
    IUploadSession,
    RequestCount,
    SessionDetails,
    SessionSummary,
)

_log = Logger()

#: How many seconds connecting to the store may take.
_CONNECT_TIMEOUT = 10.0

#: For how many seconds what this node knows of a session need not be read again.
TRUST = 60.0

#: How many folders are remembered as such.
_MOST_PARENTS = 4096

#: Seconds that threads may take to end.
_MOST_FOR_THREADS = 1.0


@implementer(
    IBackend,
    IAbilities,
    IExclusive,
    IPaged,
    ISorted,
    IShared,
    IDownloadable,
    IRedirecting,
    IClaimable,
    ICleaning,
    ICounting,
)
@define(eq=False)
class S3Backend:
    """
    Keeps sessions and published files in a bucket.

    :ivar settings: The bucket, and how to use it.
    :param reactor: The clock, the network, and what threads report to.
    :param notifies: Whether a server application is asked about complete uploads. Their
        bytes are then put together where it can read them, and copied from there.
    :param make_client: Makes the client, from the same arguments as
        :class:`~txbits.backends.s3._client.Client`.
    :param resolve: Finds the bucket's URL and credentials, as
        :func:`~txbits.backends.s3._access.resolved` does.
    :param probe: Tests the store at the start.
    :param workers: How many processes of this server use the bucket.
    :param budget: The memory that it shares with other backends.
    :param patience: After how many seconds the log says what the start waits for.
    """

    settings: S3Settings
    _reactor: Any
    _notifies: bool = field(default=False, kw_only=True)
    _make_client: Callable[..., Client] = field(default=Client, kw_only=True)
    _resolve: Callable[..., Access] = field(default=resolved, kw_only=True)
    _probe: Callable[[Staging], Awaitable[None]] = field(default=probe, kw_only=True)
    _workers: int = field(default=1, kw_only=True)
    _budget: Budget = field(default=OF_PROCESS, kw_only=True)
    _patience: float = field(default=3.0, kw_only=True)
    _threads: Threads | None = field(default=None, init=False)
    _pool: Pool | None = field(default=None, init=False)
    _opened: Staging | None = field(default=None, init=False)
    _parents: OrderedDict[str, float] = field(factory=OrderedDict, init=False)
    _surveyor: Survey | None = field(default=None, init=False)
    _claims: Claims | None = field(default=None, init=False)

    @property
    def session_abilities(self) -> Set[InterfaceClass]:
        """Those of notification; see :class:`~txbits.interfaces.IAbilities`."""
        if not self._notifies:
            return frozenset()
        return frozenset({IReadable, IAddressable, IAnswerable, IReplyAddressable})

    @property
    def staging(self) -> Staging:
        """Where sessions are, once the backend is started."""
        if self._opened is None:
            raise BackendError(f"the backend of {self.settings.bucket} is not started")
        return self._opened

    def request_counts(self) -> Mapping[tuple[str, str], RequestCount]:
        """See :class:`~txbits.interfaces.ICounting`."""
        if self._opened is None:
            return {}
        client = self._opened.bucket.client
        return {
            key: RequestCount(count, client.seconds[key])
            for key, count in client.answered.items()
        }

    @property
    def _survey(self) -> Survey:
        if self._surveyor is None:
            raise BackendError(f"the backend of {self.settings.bucket} is not started")
        return self._surveyor

    @property
    def claims(self) -> Claims:
        """What is good for one upload, once the backend is started."""
        if self._claims is None:
            raise BackendError(f"the backend of {self.settings.bucket} is not started")
        return self._claims

    def disputes(self, other: IBackend) -> bool:
        """
        See :class:`~txbits.interfaces.IExclusive`.

        This backend aborts multipart uploads below its prefix that belong to none of
        its sessions, so no other backend's prefix may begin with it.
        """
        if not isinstance(other, S3Backend):
            return False
        ours, theirs = self.settings, other.settings
        return (ours.bucket, ours.store) == (theirs.bucket, theirs.store) and (
            ours.prefix.startswith(theirs.prefix)
            or theirs.prefix.startswith(ours.prefix)
        )

    # Life

    @deferred
    async def start(self) -> None:
        """Find the bucket, and try it; see :class:`~txbits.interfaces.IBackend`."""
        threads = self._threads = Threads(self._reactor)
        try:
            clock = steady(self._reactor)
            with self._tell_if_slow(self._say_no_credentials):
                access = await threads(self._resolve, self.settings, clock, threads)
                await access.ready()
                policy = await threads(policy_of, self.settings)
            pool = self._pool = Pool(self._reactor)
            pool.maxPersistentPerHost = self.settings.connections
            # A request that is repeated is one that is counted, and is logged.
            pool.retryAutomatically = False
            endpoints = Direct(self._reactor, policy, _CONNECT_TIMEOUT)
            agent = agent_with(self._reactor, endpoints, pool)
            client = self._make_client(self.settings, access, agent, clock, threads)
            memory = self._budget.join(
                self,
                self.settings.memory,
                self._workers,
                LEAST_PARTS * self.settings.part_size,
            )
            known = Known[S3Session](self._budget.for_small)
            memory.drop_copies_by(known.drop_copies)
            self._opened = Staging(
                self.settings,
                Bucket(client),
                memory.for_uploads(),
                memory.for_replies(),
                clock,
                known,
            )
            self._claims = Claims(self._opened)
            self._surveyor = Survey(self._opened, self._claims)
            self._opened.read_records_by(self._surveyor.records)
            with self._tell_if_slow(client.report, "has not answered yet"):
                await self._probe(self._opened)
        except BaseException:
            await self.stop()
            raise

    @contextmanager
    def _tell_if_slow(self, say: Callable[..., None], *args: Any) -> Iterator[None]:
        """Log what a step of the start waits for, if it takes long."""
        timer = self._reactor.callLater(self._patience, say, *args)
        try:
            yield
        finally:
            if timer.active():
                timer.cancel()

    def _say_no_credentials(self) -> None:
        _log.warn(
            "still waiting for credentials for bucket {bucket}; check the settings of "
            "AWS that they come from, or set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
            bucket=self.settings.bucket,
        )

    @deferred
    async def stop(self) -> None:
        """Close connections, end threads; see :class:`~txbits.interfaces.IBackend`."""
        opened, self._opened = self._opened, None
        self._surveyor = self._claims = None
        if opened is not None:
            opened.known.forget_all()
            opened.memory.memory.drop_no_copies_by(opened.known.drop_copies)
        self._budget.leave(self)
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()
        threads, self._threads = self._threads, None
        if threads is not None:
            await self._wait_briefly(threads.stop())

    def _wait_briefly(self, stopping: Deferred[None]) -> Deferred[None]:
        """
        Wait for the threads to end, but not for long.

        One may wait for a program that finds credentials. It ends with the process.
        """
        ended: Deferred[None] = Deferred()
        timer = self._reactor.callLater(_MOST_FOR_THREADS, ended.callback, None)

        def has_ended(outcome: Any) -> None:
            if timer.active():
                timer.cancel()
                ended.callback(outcome)

        stopping.addBoth(has_ended)
        return ended

    # Sessions

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
        staging = self.staging
        checked_segments(destination)
        key = self.settings.key(destination)
        if NOT_IN_XML.search(key):
            raise DestinationForbidden(f"a character that S3 cannot list in {key!a}")
        if not staging.is_key(key):
            raise DestinationForbidden(f"the key {key!a} is over {MOST_KEY} bytes")
        looks: list[Deferred[Any]] = [
            begun(staging.look(destination, overwrite=overwrite)),
            begun(self._no_file_above(destination)),
        ]
        seen: Seen = (await together(*looks))[0]
        now = staging.clock.seconds()
        record = Record(
            session_id=session_id,
            destination=destination,
            owner=owner,
            content_name=content_name,
            created=staging.epoch(now),
            is_staged=self._notifies,
        )
        if len(encoded(record)) > MOST_NAMES:
            raise BackendError("the names in the record are too long")
        try:
            etag = await staging.write(record, None)
        except Changed as error:
            raise BackendError(f"there is a session {session_id} already") from error
        session = _kind(record)(staging, record, etag, now, now, seen)
        staging.known.keep(session)
        return session

    async def _no_file_above(self, destination: tuple[str, ...]) -> None:
        """
        Check that no parent of a destination is a file.

        Most stores would allow it. The result is kept for a while, so that each upload
        into the same folder does not need the requests.
        """
        staging = self.staging
        now = staging.clock.seconds()
        keys = [
            self.settings.key(destination[:depth])
            for depth in range(1, len(destination))
        ]
        asked = [
            key for key in keys if self._parents.get(key, float("-inf")) <= now - TRUST
        ]
        for key, found in zip(
            asked,
            await together(*(begun(staging.bucket.head(key)) for key in asked)),
            strict=True,
        ):
            if found is not None:
                raise ParentMissing(f"{key!a} is a file")
            self._parents[key] = now
            self._parents.move_to_end(key)
        while len(self._parents) > _MOST_PARENTS:
            self._parents.popitem(last=False)

    @deferred
    async def find(self, session_id: UUID) -> IUploadSession:
        """Look a session up; see :class:`~txbits.interfaces.IBackend`."""
        staging = self.staging
        session: S3Session | None = staging.known.get(session_id)
        if session is not None and not session.is_over:
            if session.writer is None and not (
                session.is_ours and session.confirmed > staging.clock.seconds() - TRUST
            ):
                await session.refresh()
            staging.known.keep(session)
            return session
        if session is not None:
            staging.known.forget(session_id)
        stored = await staging.read(session_id)
        if stored is None or isinstance(stored.record, Closed):
            raise NoSuchSession(f"no session {session_id}")
        session = self._session(stored, stored.record)
        await measure(session)
        if self._notifies and not stored.record.is_staged:
            await self._give_up_unreadable(session)
        staging.known.keep(session)
        return session

    async def _give_up_unreadable(self, session: S3Session) -> None:
        """
        Discard a session that was created when its directory had no application.

        Its bytes go to the destination, where no application could read them before it
        is asked.

        :raises NoSuchSession: If it was discarded; the client sends the file again.
        """
        if session.published or session.releasing:
            # The application is not asked about it any more.
            return
        await session.release()
        raise NoSuchSession(
            f"session {session.session_id} was created before there was an application "
            "to ask, and is discarded; the client has to send the file again"
        )

    def _session(self, stored: Stored, record: Record) -> S3Session:
        return _kind(record)(
            self.staging,
            record,
            stored.etag,
            stored.modified,
            self.staging.clock.seconds(),
        )

    @deferred
    async def sessions(self) -> Sequence[SessionSummary]:
        """List the sessions; see :class:`~txbits.interfaces.IBackend`."""
        return await self._survey.sessions()

    @deferred
    async def list_in_pages(
        self, look: Callable[[Sequence[SessionSummary]], Deferred[None]]
    ) -> None:
        """List a few at a time; see :class:`~txbits.interfaces.IPaged`."""
        async for page in self._survey.pages():
            await look(page)

    def list_after(
        self, session_id: UUID | None, limit: int
    ) -> Deferred[tuple[Sequence[SessionDetails], UUID | None]]:
        """List some in order; see :class:`~txbits.interfaces.ISorted`."""
        return begun(self._survey.after(session_id, limit))

    @deferred
    async def details_of(self, session_id: UUID) -> SessionDetails:
        """Look at a session; see :class:`~txbits.interfaces.ISorted`."""
        # Another node may have ended even a session that this one serves.
        stored = await self.staging.read(session_id)
        if stored is None or isinstance(stored.record, Closed):
            raise NoSuchSession(f"no session {session_id}")
        session: S3Session | None = self.staging.known.get(session_id)
        if session is None or session.is_over or not session.is_ours:
            session = self._session(stored, stored.record)
            await measure(session)
        record = session.record
        return SessionDetails(
            session_id=session_id,
            destination=record.destination,
            owner=record.owner,
            content_name=record.content_name,
            created=record.created,
            total=record.total,
            offset=session.offset,
            last_progress=session.last_progress,
            published=session.published,
            releasing=session.releasing,
            in_doubt=session.in_doubt,
            attempts=record.attempts,
            answer=record.answer,
        )

    # Closes

    @deferred
    async def recalls_close(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | AnyOwner | None,
    ) -> bool:
        """Look a close up; see :class:`~txbits.interfaces.IBackend`."""
        stored = await self.staging.read(session_id)
        if stored is None:
            return False
        record = stored.record
        if isinstance(record, Closed):
            return owner is ANY_OWNER or record == closed(
                session_id, destination, owner
            )
        if (
            record.state != "closing"
            or record.destination != destination
            or owner not in (record.owner, ANY_OWNER)
        ):
            return False
        # A node died on the way. The Ack says that everything is released.
        self.staging.known.forget(session_id)
        await self._session(stored, record).release(remember=True)
        return True

    @deferred
    async def clean_up(self, closed_before: float) -> None:
        """Remove what is old; see :class:`~txbits.interfaces.IBackend`."""
        await self._survey.clean_up(closed_before)

    def removed_counts(self) -> Mapping[str, int]:
        """See :class:`~txbits.interfaces.ICleaning`."""
        removed = Counter() if self._surveyor is None else self._surveyor.removed
        return dict.fromkeys(("close", "claim", "stray", "upload"), 0) | removed

    # Claims

    @deferred
    async def claim(self, name: str, session_id: UUID, until: float) -> IClaim | None:
        """Take a claim; see :class:`~txbits.interfaces.IClaimable`."""
        return await self.claims.take(name, session_id, until)

    @deferred
    async def is_claimed(self, name: str) -> bool:
        """Look a claim up; see :class:`~txbits.interfaces.IClaimable`."""
        return await self.claims.is_taken(name)

    # Published files

    @deferred
    async def open_file(self, destination: tuple[str, ...]) -> IStoredFile:
        """Look at a file; see :class:`~txbits.interfaces.IDownloadable`."""
        return await open_file(self.staging, destination)

    @deferred
    async def location(self, destination: tuple[str, ...], method: str) -> str | None:
        """Sign a URL; see :class:`~txbits.interfaces.IRedirecting`."""
        return await location(self.staging, destination, method)


def _kind(record: Record) -> type[S3Session]:
    return AnsweringSession if record.is_staged else S3Session
