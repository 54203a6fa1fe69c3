"""
The claims of the disk backend: ``.bits-sessions/claims``, which the first one creates.

Each is a file that is named by a digest of the claim, with the session that has it. It
is complete when it gets its name, and always synced: a claim that a system crash takes
away would let a second file be published. All workers have the same claims, and lock
``claims.lock`` while they use them.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar
from uuid import UUID

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.backends._threads import InThread
from txbits.backends.disk._files import (
    DIRECTORY,
    READ,
    WRITE,
    Files,
    Removed,
    Step,
    opened,
    remove,
    storage_error,
    translated,
)
from txbits.backends.disk._probe import sync_names
from txbits.backends.disk._slots import LOCK, take_lock
from txbits.errors import BackendError, OutOfSpace
from txbits.interfaces import IClaim

T = TypeVar("T")

_NAME = "claims"
_LOCK_NAME = "claims.lock"
_NEW = ".new"

#: Seconds after which a file that did not get its name is removed.
_STRAY_AGE = 24 * 3600.0

#: The session, and the time until which the claim is needed.
_RECORD = struct.Struct(">16sd")


@define(eq=False)
class Claims:
    """
    The claims of one root.

    :param directory: The descriptor of the staging area.
    :param is_shared: Whether other processes have the same claims.
    """

    _files: Files
    _directory: int
    _in_thread: InThread
    _is_shared: bool = False
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    @deferred
    async def take(self, name: str, session_id: UUID, until: float) -> IClaim | None:
        """Take one; see :class:`~txbits.interfaces.IClaimable`."""
        is_ours = await self._alone(self._take, _file_of(name), session_id, until)
        return Claim(self, name) if is_ours else None

    @deferred
    async def is_taken(self, name: str) -> bool:
        """Look one up; see :class:`~txbits.interfaces.IClaimable`."""
        return await self._alone(self._is_taken, _file_of(name))

    @deferred
    async def give_back(self, name: str) -> None:
        """Remove one."""
        await self._alone(self._remove, _file_of(name))

    def clean_up(self, now: float) -> Iterator[Step]:
        """
        Remove those that nobody needs any more. Slow; each step is for a thread.

        :param now: The time, in seconds since the epoch.
        :returns: The steps, as those of
            :meth:`~txbits.backends.disk._closes.Closes.clean_up`.
        """
        try:
            with self._opened() as directory:
                names = self._files.listdir(directory)
        except FileNotFoundError:
            return
        for name in names:
            done: Step = None
            try:
                with self._locked(), self._opened() as directory:
                    if self._is_old(directory, name, now):
                        remove(self._files, name, directory)
                        done = Removed("claim")
            except FileNotFoundError:
                pass  # removed meanwhile
            except OSError as error:
                done = storage_error(error)
            except BackendError as error:
                done = error
            yield done

    async def _alone(self, function: Callable[..., T], *args: object) -> T:
        async with self._lock:
            outcome: T = await self._in_thread(
                translated, self._locked_while, function, *args
            )
        return outcome

    def _locked_while(self, function: Callable[..., T], *args: object) -> T:
        with self._locked():
            return function(*args)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        if not self._is_shared:
            yield
            return
        with opened(self._files, _LOCK_NAME, LOCK, self._directory) as lock:
            take_lock(self._files, lock, wait=True)
            yield

    def _take(self, name: str, session_id: UUID, until: float) -> bool:
        files = self._files
        with suppress(FileExistsError):
            files.mkdir(_NAME, 0o700, dir_fd=self._directory)
        # Always, because a process that was killed may not have come to it.
        sync_names(files, self._directory)
        with self._opened() as directory:
            held = self._held(directory, name)
            if held is None:
                self._write(directory, name, _RECORD.pack(session_id.bytes, until))
            elif held[0] != session_id:
                return False
            sync_names(files, directory)
        return True

    def _write(self, directory: int, name: str, record: bytes) -> None:
        files, new = self._files, name + _NEW
        flags = WRITE | os.O_CREAT | os.O_TRUNC
        with opened(files, new, flags, directory) as fd:
            if files.pwrite(fd, record, 0) != len(record):
                raise OutOfSpace("a claim does not fit; free some space")
            files.fsync(fd)
        files.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)

    def _is_taken(self, name: str) -> bool:
        try:
            with self._opened() as directory:
                return self._held(directory, name) is not None
        except FileNotFoundError:
            return False

    def _remove(self, name: str) -> None:
        with self._opened() as directory:
            remove(self._files, name, directory)
            sync_names(self._files, directory)

    def _held(self, directory: int, name: str) -> tuple[UUID, float] | None:
        """
        Read a claim.

        :returns: The session that has it, and the time until which it is needed.
        """
        try:
            with opened(self._files, name, READ, directory) as fd:
                record = self._files.pread(fd, _RECORD.size + 1, 0)
        except FileNotFoundError:
            return None
        if len(record) != _RECORD.size:
            raise BackendError(f"the claim {name} is damaged")
        holder, until = _RECORD.unpack(record)
        return UUID(bytes=holder), until

    def _is_old(self, directory: int, name: str, now: float) -> bool:
        if name.endswith(_NEW):
            # A process was killed while it wrote it, or one is just writing it.
            return self._files.lstat(name, dir_fd=directory).st_mtime < now - _STRAY_AGE
        held = self._held(directory, name)
        return held is not None and held[1] < now

    @contextmanager
    def _opened(self) -> Iterator[int]:
        with opened(self._files, _NAME, DIRECTORY, self._directory) as directory:
            yield directory


@implementer(IClaim)
@frozen(eq=False)
class Claim:
    """A claim that was taken; see :class:`~txbits.interfaces.IClaim`."""

    _claims: Claims
    _name: str

    def withdraw(self) -> Deferred[None]:
        """Give it back; see :class:`~txbits.interfaces.IClaim`."""
        return self._claims.give_back(self._name)


def _file_of(name: str) -> str:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
