"""
The disk backend: uploads are staged and published below one directory.

Sessions lie in ``ROOT/.bits-sessions`` and outlive the process. The length of a
staged file is the offset, and publishing is one ``link`` or ``rename`` on the same
file system, so there is no moment at which a crash leaves half a file, or loses what
was acknowledged. What is slow (unlinking long files, scans) runs in threads, and fsync
in the kernel's own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from attrs import define, field, validators
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.backends._disk_session import DiskSession
from txbits.backends._files import Files
from txbits.backends._paths import checked_segments
from txbits.backends._staging import FsyncPolicy, Staging
from txbits.backends._syncs import KernelSyncs, Sync, all_done
from txbits.backends._work import InThread, Threads, at_once, translated
from txbits.errors import BackendError, NoSuchSession, ParentMissing
from txbits.interfaces import IBackend, IUploadSession, SessionSummary

_log = Logger()


def _booted_at() -> float:
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _absolute(path: str) -> str:
    return os.path.abspath(path)


@implementer(IBackend)
@define(eq=False)
class DiskBackend:
    """
    Keeps sessions and published files below a directory.

    :ivar root: The directory; made at the start if it is missing. One server at a
        time uses it.

    :param reactor: The clock, and where work in threads is reported.
    :param fsync: When bytes are made to survive a crash of the machine: ``"close"``
        (before publishing is done), ``"fragment"`` (also before a new session, or
        the closing of a writer, is done) or ``"never"``.
    :param in_thread: Called with a function and its arguments to run it where it
        may block; threads of the backend's own if ``None``.
    :param sync: Called with a descriptor to fsync it where that may block. If ``None``
        the kernel's asynchronous I/O does it, or *in_thread*, if that is given or the
        kernel has none.
    :param files: The system calls.
    :param booted: Tells when the machine was started.
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
    _booted: Callable[[], float] = field(default=_booted_at, kw_only=True)
    _threads: Threads | None = field(default=None, init=False)
    _syncs: KernelSyncs | None = field(default=None, init=False)
    _opened: Staging | None = field(default=None, init=False)

    @property
    def _staging(self) -> Staging:
        if self._opened is None:
            raise BackendError(f"the backend of {self.root} is not started")
        return self._opened

    @deferred
    async def start(self) -> None:
        """Take the directory; see :class:`~txbits.interfaces.IBackend`."""
        in_thread, sync, files = self._in_thread, self._sync, self._files
        if in_thread is None:
            in_thread = self._threads = Threads(self._reactor)
            if sync is None:
                sync = self._syncs = KernelSyncs.opened(self._reactor)
        if sync is None:

            def sync(fd: int, /) -> Deferred[None]:
                return in_thread(translated, lambda: files.fsync(fd))

        try:
            self._opened = await in_thread(
                translated,
                Staging.opened,
                self.root,
                self._files,
                self._fsync,
                self._reactor.seconds,
                self._booted,
                in_thread,
                sync,
            )
        except BackendError:
            await self.stop()
            raise

    @deferred
    async def stop(self) -> None:
        """Give the directory back; see :class:`~txbits.interfaces.IBackend`."""
        syncs, self._syncs = self._syncs, None
        if syncs is not None:
            await syncs.stop()
        threads, self._threads = self._threads, None
        if threads is not None:
            await threads.stop()
        opened, self._opened = self._opened, None
        if opened is not None:
            opened.close()

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
        staging = self._staging
        staging.tree.check(
            checked_segments(destination),
            overwrite=overwrite,
            create_directories=create_directories,
        )
        now = staging.seconds()
        staging.table.add(session_id, now, destination, owner, content_name)
        return DiskSession(session_id, destination, owner, content_name, now, staging)

    @deferred
    async def _safe(self, session: IUploadSession) -> IUploadSession:
        """Make a new session survive a crash of the machine."""
        staging = self._staging
        await all_done(staging.sync_table(), staging.sync_directory())
        return session

    @deferred
    async def find(self, session_id: UUID) -> IUploadSession:
        """Read a session back; see :class:`~txbits.interfaces.IBackend`."""
        staging = self._staging
        try:
            found = await at_once(staging.load, session_id)
        except NoSuchSession:
            raise
        except BackendError as fault:
            _log.error(
                "session {session_id}: {fault}", session_id=session_id, fault=fault
            )
            raise
        record = found.record
        if found.published and self._fsync != "never":
            # The process may have died between publishing and making that safe.
            await staging.in_thread(
                translated, self._sync_published_in_thread, record.destination
            )
        return DiskSession(
            session_id,
            record.destination,
            record.owner,
            record.content_name,
            found.last_progress,
            staging,
            record.total,
            found.offset,
            found.published,
            found.releasing,
            found.in_doubt,
        )

    def _sync_published_in_thread(self, destination: tuple[str, ...]) -> None:
        tree = self._staging.tree
        try:
            parent = tree.open_parent(checked_segments(destination))
        except ParentMissing:
            return  # removed since, with the file in it
        try:
            self._files.fsync(parent)
        finally:
            tree.let_go(parent)

    @deferred
    async def sessions(self) -> Sequence[SessionSummary]:
        """Read all sessions back; see :class:`~txbits.interfaces.IBackend`."""
        staging = self._staging
        found, faults = await staging.in_thread(translated, staging.summaries)
        for fault in faults:
            _log.error("session left out: {fault}", fault=fault)
        return found  # type: ignore[no-any-return]

    def remember_close(
        self, session_id: UUID, destination: tuple[str, ...], owner: str | None
    ) -> Deferred[None]:
        """Write it down; see :class:`~txbits.interfaces.IBackend`."""
        return at_once(self._remember_close, session_id, destination, owner)

    def _remember_close(
        self, session_id: UUID, destination: tuple[str, ...], owner: str | None
    ) -> None:
        staging = self._staging
        staging.closes.remember(session_id, destination, owner, staging.seconds())

    @deferred
    async def recalls_close(
        self, session_id: UUID, destination: tuple[str, ...], owner: str | None
    ) -> bool:
        """Look it up; see :class:`~txbits.interfaces.IBackend`."""
        staging = self._staging
        recalled: bool = await staging.in_thread(
            translated, staging.closes.recalls, session_id, destination, owner
        )
        return recalled

    @deferred
    async def clean_up(self, closed_before: float) -> None:
        """Scan the staging area; see :class:`~txbits.interfaces.IBackend`."""
        staging = self._staging
        staging.closes.conclude()
        for fault in await staging.in_thread(
            translated, staging.clean_up, closed_before
        ):
            _log.error("clean-up left something: {fault}", fault=fault)
