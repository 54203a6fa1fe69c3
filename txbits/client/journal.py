"""
The journal of one upload: a small file from which another run resumes it.

It contains the URL, the session, the server's offset, and the identity of the file, so
that parts of different files are never mixed. It contains neither passwords nor the
query of the URL, which may contain tokens.

A new version is synced before it replaces the old one, so that a crash of the machine
leaves one of the two. The file is also the lock that prevents two runs of the same
upload. A new version is locked before it gets the name.

See :mod:`txbits.client._runs` for the journal that several uploads share.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID

from attrs import define, evolve, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from txbits.client._files import FILES, Files, make_folder
from txbits.client._url import without_query
from txbits.client.source import FileIdentity
from txbits.protocol._fields import (
    LocalProtocolError,
    check_session_id,
    format_guid,
)
from txbits.protocol.upload import Position

T = TypeVar("T")

#: In version 1 each session ID was a GUID, written without braces.
_VERSION = 2
_WITH_BARE_GUIDS = 1

SUFFIX = ".json"

#: The latest valid time, in seconds since 1970: the year 5138.
_LATEST = 1e11

#: The maximum length of a journal, in bytes.
LONGEST = 64 * 1024


#: How often to try to lock a journal, and the pause between two, in seconds. Whoever
#: only looks at it, such as ``txbits status`` or another run that begins, has it locked
#: for a moment.
_LOCK_TRIES = 4
_LOCK_PAUSE = 0.02


#: How many seconds pass, at least, until a mere change of the offset is written.
_OFFSET_AFTER = 1.0


class JournalError(Exception):
    """The journal cannot be used; the text is one line that says why."""


class JournalBusy(JournalError):
    """Another process has the same upload in progress."""


def name_of(url: str, path: str) -> str:
    """
    Name the journal of an upload.

    :param url: Where the file goes.
    :param path: The file, without symbolic links.
    """
    key = f"{without_query(url)}\n{path}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(key).hexdigest()[:32] + SUFFIX


@frozen
class Entry:
    """
    What a journal says.

    :ivar url: The destination, without a query.
    :ivar file: The identity of the file.
    :ivar position: How far the upload is.
    :ivar done: Whether the file is at its destination.
    :ivar began: When the upload began, in seconds since 1970.
    :ivar updated: When this was written, in seconds since 1970.
    """

    url: str
    file: FileIdentity
    position: Position
    done: bool
    began: float
    updated: float

    def to_json(self, indent: int | None = 1) -> str:
        """Write it; on one line if *indent* is ``None``."""
        position = self.position
        return json.dumps(
            {
                "version": _VERSION,
                "url": self.url,
                "path": self.file.path,
                "device": self.file.device,
                "inode": self.file.inode,
                "length": self.file.length,
                "modified": self.file.modified,
                "session": position.session_id,
                "offset": position.offset,
                "host": position.host,
                "host_timeout": position.host_timeout,
                "failing_since": position.failing_since,
                "reply_url": position.reply_url,
                "done": self.done,
                "began": self.began,
                "updated": self.updated,
            },
            indent=indent,
        )

    @classmethod
    def from_json(cls, text: bytes) -> Entry:
        """
        Read it.

        :raises ValueError: If the text is invalid.
        """
        try:
            return cls.from_fields(json.loads(text))
        except RecursionError as error:
            raise ValueError(f"it is nested too deeply: {error!r}") from error

    @classmethod
    def from_fields(cls, found: Any) -> Entry:
        """
        Read it from parsed JSON.

        :raises ValueError: If the fields are invalid.
        """
        try:
            version = found["version"]
            if version not in (_WITH_BARE_GUIDS, _VERSION):
                raise ValueError(f"unknown version {version}")
            to_session = _guid if version == _WITH_BARE_GUIDS else check_session_id
            entry = cls(
                url=str(found["url"]),
                file=FileIdentity(
                    str(found["path"]),
                    int(found["device"]),
                    int(found["inode"]),
                    int(found["length"]),
                    _optional(int, found["modified"]),
                ),
                position=Position(
                    _optional(to_session, found["session"]),
                    int(found["offset"]),
                    _optional(str, found["host"]),
                    _optional(int, found["host_timeout"]),
                    _optional(float, found["failing_since"]),
                    _optional(str, found["reply_url"]),
                ),
                done=bool(found["done"]),
                began=float(found["began"]),
                updated=float(found["updated"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks something: {error!r}") from error
        except LocalProtocolError as error:
            raise ValueError(str(error)) from error
        except OverflowError as error:
            raise ValueError("a number in it is not finite") from error
        times = (entry.began, entry.updated, entry.position.failing_since or 0.0)
        if not all(abs(each) < _LATEST for each in times):
            raise ValueError("a time in it is out of range")
        if not 0 <= entry.position.offset <= entry.file.length:
            raise ValueError("its offset lies outside the file")
        return entry


def _guid(text: str) -> str:
    return format_guid(UUID(text)).decode("ascii")


def _optional(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)


class UploadJournal(Protocol):
    """
    What an upload needs of a journal.

    See :class:`Journal` for what is not described here.

    :ivar is_cheap: Whether saving does not wait for the disk.
    """

    is_cheap: bool
    now: Callable[[], float]

    @property
    def found(self) -> Entry | None:
        """What an earlier run left, if it was about this file as it is."""

    @property
    def stale(self) -> Entry | None:
        """What an earlier run left that was about another state of the file."""

    def save(self, position: Position) -> Deferred[None]:
        """Record how far the upload is."""

    def finish(self, position: Position) -> Deferred[None]:
        """Record that the file is at its destination."""

    def remove(self) -> Deferred[None]:
        """Forget the upload."""


@define(eq=False)
class Journal:
    """
    The journal of one upload, locked for this process.

    :ivar path: The journal file.
    :ivar url: The destination, without a query.
    :ivar file: The identity of the file.
    :ivar now: Returns the time, in seconds since 1970.
    :ivar run: Runs a function that blocks, and returns a Deferred of its result, as
        :func:`twisted.internet.threads.deferToThread` does.
    :ivar keeps_done: Whether to keep the journal when the file is at its destination,
        so that a later run does not send it again.
    :ivar files: The system calls.
    :ivar found: What an earlier run left for the file in its present state.
    :ivar stale: What an earlier run left for another state of the file.
    :ivar is_alone: Whether the journal is locked; ``False`` if the file system does
        not support locks.
    :ivar was_lost: Whether the journal contains only zeros, which a crash of the
        machine may leave.
    """

    path: Path
    url: str
    file: FileIdentity
    now: Callable[[], float]
    run: Callable[..., Deferred[Any]]
    keeps_done: bool = False
    files: Files = FILES
    is_alone: bool = field(init=False, default=True)
    was_lost: bool = field(init=False, default=False)
    found: Entry | None = field(init=False, default=None)
    stale: Entry | None = field(init=False, default=None)
    is_cheap: bool = field(init=False, default=False)
    _began: float = field(init=False, default=0.0)
    _descriptor: int | None = field(init=False, default=None)

    @classmethod
    def open(
        cls,
        path: Path,
        url: str,
        file: FileIdentity,
        now: Callable[[], float],
        run: Callable[..., Deferred[Any]],
        files: Files = FILES,
    ) -> Deferred[Journal]:
        """
        Open and lock the journal, and read it.

        :returns: A Deferred that fires with the journal. It fails with
            :class:`JournalBusy` if another process has it, or with
            :class:`JournalError`.
        """
        journal = cls(path, without_query(url), file, now, run, files=files)
        return run(journal._open).addCallback(lambda _: journal)

    def save(self, position: Position) -> Deferred[None]:
        """
        Record how far the upload is.

        :returns: A Deferred that fires with ``None`` when the record is synced. It
            fails with :class:`JournalError`.
        """
        return self.run(self._save, position, False)

    def finish(self, position: Position) -> Deferred[None]:
        """
        Record that the file is at its destination.

        :returns: A Deferred that fires with ``None`` when that is synced, or the
            journal is removed. It fails with :class:`JournalError`.
        """
        if self.keeps_done:
            return self.run(self._save, position, True)
        return self.remove()

    def adopt(self, entry: Entry) -> Deferred[None]:
        """
        Take over what a run of several files left.

        :returns: A Deferred that fires with ``None`` when the record is synced. It
            fails with :class:`JournalError`.
        """
        if not entry.file.is_same(self.file):
            self.stale = entry
            return succeed(None)
        self._began = entry.began
        return self.save(entry.position)

    def remove(self) -> Deferred[None]:
        """
        Remove and close the journal.

        :returns: A Deferred that fires with ``None``.
        """
        return self.run(self._remove)

    def close(self) -> None:
        """Close and unlock it. Closing it twice is safe."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def _open(self) -> None:
        try:
            make_folder(self.path.parent)
            self._descriptor, self.is_alone = locked(self.path, files=self.files)
            text = os.pread(self._descriptor, LONGEST, 0)
        except OSError as error:
            self.close()
            raise JournalError(f"{self.path}: {error.strerror or error}") from error
        self._began = self.now()
        if not text.strip(b"\0"):
            self.was_lost = bool(text)
            return
        try:
            entry = Entry.from_json(text)
        except ValueError as error:
            self.close()
            raise JournalError(f"{self.path} is no journal: {error}") from error
        if entry.url != self.url or entry.file.path != self.file.path:
            self.close()
            raise JournalError(
                f"{self.path} is the journal of another upload: {entry.file.path} to "
                f"{entry.url}"
            )
        if entry.file.is_same(self.file):
            self.found = entry
            self._began = entry.began
        else:
            self.stale = entry

    def _save(self, position: Position, done: bool) -> None:
        entry = Entry(self.url, self.file, position, done, self._began, self.now())
        try:
            descriptor = self.files.replace_locked(
                str(self.path), entry.to_json().encode("utf-8")
            )
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror or error}") from error
        self.close()
        self._descriptor = descriptor
        self.found = entry

    def _remove(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
            self.path.with_name(f"{self.path.name}.new").unlink(missing_ok=True)
        except OSError as error:
            raise JournalError(f"{self.path}: {error.strerror or error}") from error
        finally:
            self.close()


def locked(
    path: Path,
    user: int | None = None,
    files: Files = FILES,
    *,
    wait: bool = False,
) -> tuple[int, bool]:
    """
    Open a journal, and lock it.

    :param user: The required owner; the user of this process if ``None``. Another user
        could redirect the upload, and its passwords.
    :param wait: Whether to wait while another process has it.
    :returns: Its descriptor, and whether it is locked; if not, the file system has no
        locks.
    :raises JournalError: If another user owns it, or another process has it.
    """
    for left in reversed(range(_LOCK_TRIES)):
        try:
            descriptor, is_alone = files.open_locked(str(path), wait=wait)
            break
        except BlockingIOError:
            if not left:
                raise JournalBusy("another txbits is at this upload") from None
            time.sleep(_LOCK_PAUSE)
    status = os.fstat(descriptor)
    if status.st_uid != (os.geteuid() if user is None else user):
        words = f"{path} belongs to another user"
    elif not stat.S_ISREG(status.st_mode):
        words = f"{path} is not a regular file"
    else:
        return descriptor, is_alone
    os.close(descriptor)
    raise JournalError(words)


@define
class Record:
    """
    Decides what of an upload is written to its journal, if it has one.

    Times in the journal are wall-clock times, since each run has its own clock. A mere
    change of the offset is written once a second at most, because each version is
    synced. An offset that is too low costs one fragment at most: the server's counts.

    :ivar clock: The clock of the upload.
    :ivar journal: The journal.
    """

    clock: IReactorTime
    journal: UploadJournal | None
    _saved: Position = field(init=False, factory=Position)
    _saved_at: float = field(init=False, default=-inf)
    _began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._began = self.clock.seconds()

    def seconds(self) -> float:
        """The age of the upload in seconds, including earlier runs."""
        seconds = self.clock.seconds() - self._began
        journal = self.journal
        if journal is not None and journal.found is not None:
            seconds = max(seconds, journal.now() - journal.found.began)
        return seconds

    def stale(self) -> Position | None:
        """Where an earlier run with another state of the file stopped."""
        journal = self.journal
        if journal is None or journal.stale is None or journal.stale.done:
            return None
        return self._position(journal, journal.stale)

    def found(self) -> Position | None:
        """Where an earlier run stopped."""
        journal = self.journal
        if journal is None or journal.found is None or journal.found.done:
            return None
        self._saved = self._position(journal, journal.found)
        return self._saved

    async def write(self, position: Position) -> None:
        """
        Record the position, unless only the offset changed a moment ago.

        :raises JournalError: If that fails.
        """
        now = self.clock.seconds()
        is_new_offset_only = evolve(position, offset=self._saved.offset) == self._saved
        if self.journal is None or (
            is_new_offset_only
            and not self.journal.is_cheap
            and now - self._saved_at < _OFFSET_AFTER
        ):
            return
        await self.catch_up(position)

    async def catch_up(self, position: Position) -> None:
        """
        Record the position.

        :raises JournalError: If that fails.
        """
        if self.journal is not None and position != self._saved:
            self._saved, self._saved_at = position, self.clock.seconds()
            await self.journal.save(self._entry(self.journal, position))

    async def finish(self, position: Position) -> None:
        """
        Record that the file is at its destination.

        :raises JournalError: If that fails.
        """
        if self.journal is not None:
            await self.journal.finish(self._entry(self.journal, position))

    async def remove(self) -> None:
        """Forget the upload."""
        if self.journal is not None:
            await self.journal.remove()

    def _position(self, journal: UploadJournal, entry: Entry) -> Position:
        since = entry.position.failing_since
        if since is None:
            return entry.position
        ago = max(0.0, journal.now() - since)
        return evolve(entry.position, failing_since=self.clock.seconds() - ago)

    def _entry(self, journal: UploadJournal, position: Position) -> Position:
        since = position.failing_since
        if since is None:
            return position
        ago = self.clock.seconds() - since
        return evolve(position, failing_since=journal.now() - ago)
