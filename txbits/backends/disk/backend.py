"""
The disk backend: uploads are staged and published below one directory.

Sessions are stored in ``ROOT/.bits-sessions`` and outlive the process. The length of a
staged file is the offset, and publishing is one ``link`` or ``rename`` within the file
system, so a crash of the process never leaves an incomplete file, and loses nothing
that was acknowledged. After a system crash only bytes count that are known to have been
on the disk. Slow work, such as removing long files, runs in threads; the kernel runs
fsyncs in its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any
from uuid import UUID

from attrs import define, field, validators
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from txbits._deferreds import deferred, together
from txbits._workers import Worker, new_session_id
from txbits.backends._destinations import checked_segments
from txbits.backends._order import Order
from txbits.backends._serving import StoredFile
from txbits.backends._threads import InThread, Threads
from txbits.backends.disk._application import DiskAnswers
from txbits.backends.disk._boot import this_boot
from txbits.backends.disk._downloads import open_plain_file, published_file
from txbits.backends.disk._file_clock import Look
from txbits.backends.disk._files import (
    Files,
    at_once,
    storage_error,
    translated,
)
from txbits.backends.disk._found import (
    details,
    is_published,
    load,
    note_unsafe,
    summaries,
)
from txbits.backends.disk._partition import Partition
from txbits.backends.disk._probe import FileSystem, Way
from txbits.backends.disk._recovery import (
    keep_published,
    remove_rest,
    secure_all,
    settle,
    sync_parent,
)
from txbits.backends.disk._session import DiskSession
from txbits.backends.disk._staging import FsyncPolicy, Staging
from txbits.backends.disk._start import open_root
from txbits.backends.disk._syncs import KernelSyncs, Sync
from txbits.clocks import Wall, wall_of
from txbits.errors import BackendError, NoSuchSession
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
    IDownloadable,
    IExclusive,
    IOverwriting,
    IPaged,
    IPartitioned,
    IReadable,
    IReplyAddressable,
    ISorted,
    IStoredFile,
    IUploadSession,
    SessionDetails,
    SessionSummary,
)

_log = Logger()


#: How many sessions a listing reads at a time.
_PAGE = 256


def _absolute(path: str) -> str:
    return os.path.abspath(path)


@implementer(
    IBackend,
    IAbilities,
    IExclusive,
    IDownloadable,
    IPaged,
    ISorted,
    IOverwriting,
    IClaimable,
    ICleaning,
    IPartitioned,
)
@define(eq=False)
class DiskBackend:
    """
    Keeps sessions and published files below a directory.

    :ivar root: The directory. One server at a time uses it, or the workers of one.
    :ivar worker: Which of the processes that use the directory this one is. It has the
        sessions that it creates, and takes over those of workers that no longer exist.

    :param reactor: The steady clock; results of threads arrive through it.
    :param fsync: When bytes are made to survive a system crash: ``"close"`` (before
        publishing succeeds), ``"fragment"`` (also before creating a session, or closing
        a writer, succeeds) or ``"never"``.
    :param in_thread: Called with a function that may block and its arguments; if
        ``None``, the backend has threads of its own.
    :param sync: Called with a descriptor to fsync. If ``None``, the kernel's
        asynchronous I/O does that, or *in_thread* if that is given or the kernel does
        not support it.
    :param files: The system calls.
    :param wall: Tells seconds since the epoch; if not given, the wall clock that
        belongs to *reactor*.
    :param booted: Names the current boot of the machine; see
        :func:`txbits.backends.disk._boot.this_boot`.
    :param create: Whether to create *root*, and its parents, if it is missing. If not,
        the start fails then: the volume with the uploads may not be mounted.
    :param patience: How many seconds the start waits for the locks of another process
        that uses *root*: a killed process may take a moment to end.
    """

    root: str = field(converter=_absolute)
    _reactor: Any
    _fsync: FsyncPolicy = field(
        default="close",
        kw_only=True,
        validator=validators.in_(("close", "fragment", "never")),
    )
    _in_thread: InThread | None = field(default=None, kw_only=True)
    _sync: Sync | None = field(default=None, kw_only=True)
    _files: Files = field(factory=Files, kw_only=True)
    _wall: Wall = field(kw_only=True, validator=validators.is_callable())
    _booted: Callable[[], bytes] = field(default=this_boot, kw_only=True)
    _create_root: bool = field(default=True, kw_only=True, alias="create")
    _patience: float = field(default=0.0, kw_only=True, validator=validators.ge(0))
    worker: Worker = field(
        factory=Worker, kw_only=True, validator=validators.instance_of(Worker)
    )
    _threads: Threads | None = field(default=None, init=False)
    _syncs: KernelSyncs | None = field(default=None, init=False)
    _opened: Partition | None = field(default=None, init=False)
    _served: dict[int, StoredFile] = field(factory=dict, init=False)
    _stopping: bool = field(default=False, init=False)
    _order: Order = field(init=False)

    @_order.default
    def _new_order(self) -> Order:
        return Order(self._reactor)

    @_wall.default
    def _wall_of_the_reactor(self) -> Wall:
        return wall_of(self._reactor)

    @property
    def session_abilities(self) -> Set[InterfaceClass]:
        """All abilities; see :class:`~txbits.interfaces.IAbilities`."""
        return frozenset({IReadable, IAddressable, IAnswerable, IReplyAddressable})

    def _go_on(self) -> None:
        """Stop what a thread does at the start, if the backend is stopping."""
        if self._stopping:
            raise BackendError("the backend is stopping")

    @property
    def _partition(self) -> Partition:
        if self._opened is None:
            raise BackendError(f"the backend of {self.root} is not started")
        return self._opened

    @property
    def _staging(self) -> Staging:
        return self._partition.own

    def new_id(self) -> UUID:
        """Have it tell the slot; see :class:`~txbits.interfaces.IPartitioned`."""
        return new_session_id(self.worker.number)

    def worker_of(self, session_id: UUID) -> int:
        """Read it in the id; see :class:`~txbits.interfaces.IPartitioned`."""
        return self.worker.owner_of(session_id)

    def disputes(self, other: IBackend) -> bool:
        """See :class:`~txbits.interfaces.IExclusive`; roots may be nested."""
        return isinstance(other, DiskBackend) and (
            os.path.realpath(self.root) == os.path.realpath(other.root)
        )

    @deferred
    async def start(self) -> None:
        """Take the directory; see :class:`~txbits.interfaces.IBackend`."""
        self._stopping = False
        in_thread, sync, files = self._in_thread, self._sync, self._files
        run = in_thread
        if run is None:
            run = self._threads = Threads(self._reactor)

        def sync_in_thread(fd: int, /) -> Deferred[None]:
            return run(translated, lambda: files.fsync(fd))

        if sync is None and in_thread is None:
            sync = self._syncs = KernelSyncs.opened(self._reactor, sync_in_thread)
        try:
            boot = await run(self._booted)
            await run(self._open, boot, run, sync or sync_in_thread)
        except BaseException:
            await self.stop()
            raise
        if not self.worker.number:
            self._log_file_system(self._staging.file_system)
        if adopted := self._partition.adopted:
            _log.info(
                "{root}: continuing the sessions of slots {slots}, which other "
                "workers have left",
                root=self.root,
                slots=", ".join(map(str, adopted)),
            )

    def _log_file_system(self, found: FileSystem) -> None:
        is_unsafe = self._fsync != "never" and not found.syncs_names
        (_log.warn if is_unsafe else _log.info)(
            "{root}: to publish without overwriting: {way}; the file system lacks: "
            "{lacking}",
            root=self.root,
            way=found.way.value,
            lacking=", ".join(found.lacking) or "nothing",
        )

    def why_only_overwriting(self) -> str | None:
        """See :class:`~txbits.interfaces.IOverwriting`."""
        if self._opened is None or self._opened.own.file_system.way is not Way.NONE:
            return None
        return self._only_overwriting()

    def _only_overwriting(self) -> str:
        return (
            f"{self.root} is on a file system with neither hard links nor a rename "
            "that never replaces, so an existing file could be overwritten; set "
            "--allow-overwrites, or choose a directory on another file system"
        )

    def _open(self, boot: bytes, in_thread: InThread, sync: Sync) -> None:
        # Also if nothing waits for it any more: stop() then closes it.
        self._opened = open_root(
            self.root,
            self._files,
            self._fsync,
            self._wall,
            boot,
            in_thread,
            sync,
            create=self._create_root,
            worker=self.worker,
            patience=self._patience,
            go_on=self._go_on,
        )

    @deferred
    async def stop(self) -> None:
        """Release the directory; see :class:`~txbits.interfaces.IBackend`."""
        self._stopping = True
        for served in list(self._served.values()):
            await served.release()
        if self._opened is not None:
            # If this fails, the directory is released nevertheless.
            for last in [
                done
                for staging in self._opened
                for done in (
                    secure_all(staging, self._reactor.seconds),
                    staging.close_memory.settle(),
                )
            ]:
                await last.addErrback(self._is_left_unsafe)
        syncs, self._syncs = self._syncs, None
        if syncs is not None:
            await syncs.stop()
        threads, self._threads = self._threads, None
        if threads is not None:
            await threads.stop()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

    def _is_left_unsafe(self, failure: Failure) -> None:
        _log.error(
            "could not sync everything in {root}: {fault!r}",
            root=self.root,
            fault=failure.value,
        )

    def create(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        *,
        owner: str | None,
        content_name: str | None,
        overwrite: bool,
        create_directories: bool,
    ) -> Deferred[IUploadSession]:
        """Make a session; see :class:`~txbits.interfaces.IBackend`."""
        made = at_once(
            self._create,
            session_id,
            destination,
            owner,
            content_name,
            overwrite,
            create_directories,
        )
        return made.addCallback(self._safe) if self._fsync == "fragment" else made

    def _create(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | None,
        content_name: str | None,
        overwrite: bool,
        create_directories: bool,
    ) -> IUploadSession:
        staging = self._partition.slot_for(session_id)
        # For Create-Session, a moment ago is good enough: Close-Session checks, too.
        staging.root.check_again()
        if not overwrite and staging.file_system.way is Way.NONE:
            raise BackendError(self._only_overwriting())
        staging.tree.check(
            checked_segments(destination),
            overwrite=overwrite,
            create_directories=create_directories,
        )
        now = staging.seconds()
        is_kept = self._fsync == "fragment"
        try:
            staging.table.add(
                session_id, now, destination, owner, content_name, is_kept
            )
        except OSError as error:
            raise storage_error(error, self.root) from error
        return DiskSession(
            session_id,
            staging,
            now,
            is_kept=is_kept,
            destination=destination,
            owner=owner,
            content_name=content_name,
        )

    @deferred
    async def _safe(self, session: IUploadSession) -> IUploadSession:
        """Make a new session survive a system crash."""
        staging = self._staging
        session_id = session.session_id
        try:
            await together(*staging.sync_record(session_id), staging.sync_directory())
        except BackendError:
            translated(staging.table.drop, session_id)
            raise
        return session

    @deferred
    async def find(self, session_id: UUID) -> IUploadSession:
        """Read a session back; see :class:`~txbits.interfaces.IBackend`."""
        staging = self._partition.of(session_id)
        try:
            found = await at_once(load, staging, session_id)
        except NoSuchSession:
            raise
        except BackendError as fault:
            _log.error(
                "session {session}: {fault}",
                session=str(session_id).upper(),
                fault=fault,
            )
            raise
        if not found.is_settled:
            found = await staging.in_thread(translated, settle, staging, found)
        if found.published:
            # The process may have died before its record said so, or was synced.
            await staging.in_thread(translated, keep_published, staging, [found.record])
        note_unsafe(staging, found)
        record = found.record
        answers = None
        if (asked := found.asked) is not None:
            answers = DiskAnswers(staging, session_id, asked.attempts, asked.answer)
        return DiskSession(
            session_id,
            staging,
            found.last_progress,
            record.total,
            found.offset,
            found.releasing,
            found.in_doubt,
            record.safe,
            record.is_kept,
            destination=record.destination,
            owner=record.owner,
            content_name=record.content_name,
            published=found.published,
            answers=answers,
        )

    @deferred
    async def sessions(self) -> Sequence[SessionSummary]:
        """Read all sessions back; see :class:`~txbits.interfaces.IBackend`."""
        found: list[SessionSummary] = []

        def look(page: Sequence[SessionSummary]) -> Deferred[None]:
            found.extend(page)
            return succeed(None)

        await self.list_in_pages(look)
        return found

    @deferred
    async def list_in_pages(
        self, look: Callable[[Sequence[SessionSummary]], Deferred[None]]
    ) -> None:
        """Read them a few at a time; see :class:`~txbits.interfaces.IPaged`."""
        for staging in self._partition:
            await self._list_slot(staging, look)

    async def _list_slot(
        self,
        staging: Staging,
        look: Callable[[Sequence[SessionSummary]], Deferred[None]],
    ) -> None:
        faults = staging.table.damaged
        session_ids = staging.table.ids()
        for at in range(0, max(len(session_ids), 1), _PAGE):
            for fault in faults:
                _log.error("session left out: {fault}", fault=fault)
            page, faults = await staging.in_thread(
                translated, summaries, staging, session_ids[at : at + _PAGE]
            )
            await look(page)
        for fault in faults:
            _log.error("session left out: {fault}", fault=fault)

    @deferred
    async def list_after(
        self, session_id: UUID | None, limit: int
    ) -> tuple[Sequence[SessionDetails], UUID | None]:
        """Read some back in order; see :class:`~txbits.interfaces.ISorted`."""
        partition = self._partition

        def ids() -> list[UUID]:
            return [one for staging in partition for one in staging.table.ids()]

        page, last = await self._order.after(session_id, limit, ids)
        found, faults = await self._details(page)
        for fault in faults:
            _log.error("session left out: {fault}", fault=fault)
        return found, last

    @deferred
    async def details_of(self, session_id: UUID) -> SessionDetails:
        """Read one back; see :class:`~txbits.interfaces.ISorted`."""
        found, faults = await self._details([session_id])
        if faults:
            raise faults[0]
        if not found:
            raise NoSuchSession(f"no session {session_id}")
        return found[0]

    async def _details(
        self, session_ids: list[UUID]
    ) -> tuple[list[SessionDetails], list[BackendError]]:
        found: list[SessionDetails]
        faults: list[BackendError]
        found, faults = await self._staging.in_thread(
            translated, details, self._partition.of, session_ids
        )
        return found, faults

    @deferred
    async def recalls_close(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | AnyOwner | None,
    ) -> bool:
        """Look it up; see :class:`~txbits.interfaces.IBackend`."""
        staging = self._partition.of(session_id)
        memory = staging.close_memory
        is_known = await memory.recalls(session_id, destination, owner)
        if not is_known or memory.is_late(session_id):
            is_there = await staging.in_thread(
                translated, is_published, staging, session_id, destination
            )
            if not (is_known or is_there):
                return False
            await staging.in_thread(translated, sync_parent, staging, destination)
            whose = None if owner is ANY_OWNER else owner
            await memory.remember_late(
                session_id, destination, whose, staging.seconds()
            )
        await staging.in_thread(translated, remove_rest, staging, session_id)
        staging.root.check()
        return True

    def claim(
        self, name: str, session_id: UUID, until: float
    ) -> Deferred[IClaim | None]:
        """Take a claim; see :class:`~txbits.interfaces.IClaimable`."""
        return self._staging.claims.take(name, session_id, until)

    def is_claimed(self, name: str) -> Deferred[bool]:
        """Look a claim up; see :class:`~txbits.interfaces.IClaimable`."""
        return self._staging.claims.is_taken(name)

    @deferred
    async def clean_up(self, closed_before: float) -> None:
        """Scan the staging area; see :class:`~txbits.interfaces.IBackend`."""
        await self._partition.clean_up(closed_before)

    def removed_counts(self) -> Mapping[str, int]:
        """See :class:`~txbits.interfaces.ICleaning`."""
        removed = {} if self._opened is None else self._opened.removed
        return {"close": 0, "claim": 0, "stray": 0} | removed

    @deferred
    async def open_file(self, destination: tuple[str, ...]) -> IStoredFile:
        """Open a published file; see :class:`~txbits.interfaces.IDownloadable`."""
        staging = self._staging
        segments = checked_segments(destination)
        fd, look = await staging.in_thread(
            translated, self._open_in_thread, staging, segments
        )
        if self._stopping:
            translated(self._files.close, fd)
            raise BackendError("the backend is stopping")
        served = self._served[fd] = published_file(
            fd,
            look,
            self._files,
            staging.in_thread,
            lambda: self._served.pop(fd, None),
        )
        return served

    def _open_in_thread(
        self, staging: Staging, segments: tuple[str, ...]
    ) -> tuple[int, Look]:
        fd = open_plain_file(staging.tree, self._files, segments)
        try:
            return fd, staging.file_clock.look(fd)
        except BaseException:
            self._files.close(fd)
            raise
