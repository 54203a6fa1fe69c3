"""
The staging area of the disk backend: what lies in ``ROOT/.bits-sessions``, and how it
is read back.

::

    lock                                held while a server uses the root
    closed/{GUID}-{DIGEST}              a close that is remembered
    {GUID}/open.json                    a session: who, where to; written once
    {GUID}/1024.part                    its bytes; the name tells the total length,
                                        the length of the file is the offset

The name of the state file tells the phase, so that a change of phase is one rename:
``publishing-1024.json`` stands before anything appears at the destination, and
together with a part that is gone it means *published*; ``releasing.json`` stands
before anything of an unpublished session is removed. A directory without a state file
is no session: its making or its release was cut short.

The record of a close is its name, and the time of its last change (not of its bytes).
Where it can, it is a second link to the state file, so that an upload gives no more
inodes back than that of its directory: ext4 searches long for a free inode where many
were freed lately, which at a thousand small uploads a second takes longer than all
else.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import suppress
from typing import Literal
from uuid import UUID

from attrs import define, field

from txbits.backends._files import Files
from txbits.backends._records import Found, decoded, encoded
from txbits.backends._tree import Tree
from txbits.backends._work import InThread, storage_error
from txbits.errors import BackendError, NoSuchSession, OutOfSpace
from txbits.interfaces import SessionSummary

FsyncPolicy = Literal["close", "fragment", "never"]

OPEN = "open.json"
RELEASING = "releasing.json"

#: What is left free on the file system, in bytes, when a file is accepted.
RESERVE = 1 << 20

_STATE = re.compile(r"open\.json|releasing\.json|publishing-(0|[1-9][0-9]*)\.json")
_PART = re.compile(r"(0|[1-9][0-9]*)\.part")
_GUID = re.compile(r"[0-9A-F]{8}(?:-[0-9A-F]{4}){3}-[0-9A-F]{12}")

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# Far more than the longest state file: a destination has at most 4 KiB, times six for
# JSON, and so has the client's name for the file.
_MOST_STATE = 1 << 16


def publishing(total: int) -> str:
    """The state file's name while a file of *total* bytes is published, and after."""
    return f"publishing-{total}.json"


@define(eq=False)
class Staging:
    """
    The staging area of one root, opened and locked.

    :ivar path: Its absolute path.
    :ivar tree: Where its sessions are published.
    :ivar fsync: When bytes are made to survive a crash of the machine.
    :ivar being_made: Directories of sessions that are being made just now.
    :ivar published: The state files, by session, that a record of a close may be made
        from: of those that are published and not released yet.
    """

    files: Files
    path: str
    tree: Tree
    fsync: FsyncPolicy
    seconds: Callable[[], float]
    in_thread: InThread
    _lock: int
    being_made: set[str] = field(factory=set)
    published: dict[UUID, str] = field(factory=dict)

    @classmethod
    def opened(
        cls,
        root: str,
        files: Files,
        fsync: FsyncPolicy,
        seconds: Callable[[], float],
        in_thread: InThread,
    ) -> Staging:
        """
        Make what is missing of the root, and take it for this process.

        :raises BackendError: In one line, if the root cannot be used.
        """
        descriptors: list[int] = []
        try:
            os.makedirs(root, exist_ok=True)
            real = os.path.realpath(root)
            path = os.path.join(real, ".bits-sessions")
            for directory in (path, os.path.join(path, "closed")):
                with suppress(FileExistsError):
                    files.mkdir(directory, 0o700)
            lock = files.open(
                os.path.join(path, "lock"),
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            descriptors.append(lock)
            try:
                files.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackendError(
                    f"{root} is in use by another txbits; stop that one, or give this "
                    "one a directory of its own"
                ) from None
            fd = files.open(real, _DIRECTORY)
            descriptors.append(fd)
            if not files.access(real, os.W_OK | os.X_OK):
                raise BackendError(
                    f"{root} is not writable; let the user that txbits runs as write "
                    "there"
                )
            device = files.fstat(fd).st_dev
            inside = files.stat(path)
            if inside.st_dev != device:
                raise BackendError(
                    f"{path} is on another file system than {root}; files could not "
                    "be published from there, so make it a directory of that one"
                )
        except BaseException as error:
            for descriptor in descriptors:
                files.close(descriptor)
            if isinstance(error, OSError):
                raise BackendError(
                    f"{root} cannot be used: {error}; name a directory that the user "
                    "txbits runs as may write to"
                ) from error
            raise
        identity = (inside.st_dev, inside.st_ino)
        tree = Tree(files, os.fsencode(real), fd, device, identity, fsync != "never")
        return cls(files, path, tree, fsync, seconds, in_thread, lock)

    def close(self) -> None:
        """Give the root back."""
        self.files.close(self.tree.fd)
        self.files.close(self._lock)

    def directory(self, session_id: UUID) -> str:
        """Where a session lies."""
        return f"{self.path}/{str(session_id).upper()}"

    def closed(
        self, session_id: UUID, destination: tuple[str, ...], owner: str | None
    ) -> str:
        """The path of the record of a close."""
        # ascii() tells all tuples of strings apart, also those no file could have.
        what = ascii((owner, destination)).encode()
        digest = hashlib.blake2b(what, digest_size=16).hexdigest()
        return f"{self.path}/closed/{str(session_id).upper()}-{digest}"

    def remember_close(
        self, session_id: UUID, destination: tuple[str, ...], owner: str | None
    ) -> None:
        """Make the record of a close, unless there is one."""
        record = self.closed(session_id, destination, owner)
        state = self.published.get(session_id)
        with suppress(FileExistsError):
            if state is not None:
                try:
                    self.files.link(state, record)
                    return
                except FileExistsError:
                    raise
                except OSError:
                    pass  # no links here, or no state; the other way tells
            self.files.mknod(record)

    def need_space(self, length: int) -> None:
        """
        Look whether *length* more bytes fit.

        :raises OutOfSpace: If they do not.
        """
        there = self.files.statvfs(self.path)
        free = there.f_bavail * there.f_frsize - RESERVE
        if length and length > free:
            raise OutOfSpace(f"{length} bytes do not fit: {max(free, 0)} are free")

    def write_state(
        self,
        directory: str,
        destination: tuple[str, ...],
        owner: str | None,
        content_name: str | None,
    ) -> None:
        """Make the directory and the state file of a new session."""
        files = self.files
        state = encoded(destination, owner, content_name)
        path = f"{directory}/{OPEN}"
        files.mkdir(directory, 0o700)
        try:
            fd = files.open(
                path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600
            )
            try:
                if files.pwrite(fd, state, 0) != len(state):
                    raise OutOfSpace("the record of the session does not fit")
            finally:
                files.close(fd)
        except (OSError, OutOfSpace):
            self.remove(directory)
            raise

    def sync(self, path: str) -> None:
        """Make a file, or a directory's entries, survive a crash of the machine."""
        fd = self.files.open(path, _READ)
        try:
            self.files.fsync(fd)
        finally:
            self.files.close(fd)

    def remove(self, directory: str) -> None:
        """Remove a directory of a session, with whatever is in it."""
        files = self.files
        try:
            for name in files.listdir(directory):
                files.unlink(f"{directory}/{name}")
            files.rmdir(directory)
        except FileNotFoundError:
            pass  # somebody else has done it

    def load(self, name: str) -> Found:
        """
        Read a session back.

        :param name: The name of its directory.
        :raises NoSuchSession: If there is none, or only a half-made one.
        :raises BackendError: If it cannot be read.
        """
        for _ in range(3):
            try:
                found = self._load(name)
            except FileNotFoundError:
                # Renamed since it was listed: its phase has just changed. Looked at
                # from a thread, a session may be acted on meanwhile.
                continue
            if found is None:
                raise NoSuchSession(f"no session {name}")
            return found
        raise BackendError(f"session {name} changes faster than it can be read")

    def _load(self, name: str) -> Found | None:
        files = self.files
        directory = f"{self.path}/{name}"
        try:
            entries = files.listdir(directory)
        except FileNotFoundError:
            if not os.path.isdir(self.path):
                raise BackendError(f"{self.path} is gone; is it mounted?") from None
            return None
        states = [entry for entry in entries if _STATE.fullmatch(entry)]
        parts = [entry for entry in entries if _PART.fullmatch(entry)]
        if not states:
            return None
        if len(states) > 1 or len(parts) > 1:
            raise BackendError(f"{directory} holds two sessions in one: {entries}")
        state = states[0]
        fd = files.open(f"{directory}/{state}", _READ)
        try:
            record = files.pread(fd, _MOST_STATE, 0)
            last_progress = files.fstat(fd).st_mtime
        finally:
            files.close(fd)
        if not record:
            return None
        destination, owner, content_name = decoded(record, directory)
        total: int | None = None
        offset = 0
        published = False
        if parts:
            total = int(parts[0].removesuffix(".part"))
            there = files.lstat(f"{directory}/{parts[0]}")
            offset, last_progress = there.st_size, there.st_mtime
            if offset > total:
                raise BackendError(f"{directory}/{parts[0]} has {offset} bytes")
        elif state.startswith("publishing-"):
            total = offset = int(state.removeprefix("publishing-")[: -len(".json")])
            published = True
        return Found(
            destination,
            owner,
            content_name,
            state,
            total,
            offset,
            last_progress,
            published,
        )

    def summaries(self) -> tuple[list[SessionSummary], list[BackendError]]:
        """
        Read all sessions back. Slow; for a thread.

        :returns: What :meth:`load` finds, and the faults of what it fails on.
        """
        found: list[SessionSummary] = []
        faults: list[BackendError] = []
        for name in self._session_names():
            try:
                one = self.load(name)
            except NoSuchSession:
                continue
            except BackendError as fault:
                faults.append(fault)
            else:
                found.append(
                    SessionSummary(
                        UUID(name),
                        one.owner,
                        one.last_progress,
                        one.published or one.state == RELEASING,
                    )
                )
        return found, faults

    def clean_up(self, closed_before: float) -> list[BackendError]:
        """
        Forget old closes, remove what is no session. Slow; for a thread.

        :returns: The faults of what could not be removed; the rest is.
        """
        faults: list[BackendError] = []
        files = self.files
        closed = f"{self.path}/closed"
        for name in files.listdir(closed):
            record = f"{closed}/{name}"
            try:
                if files.lstat(record).st_ctime < closed_before:
                    files.unlink(record)
            except FileNotFoundError:
                pass  # somebody else has done it
            except OSError as error:
                faults.append(storage_error(error))
        for name in self._session_names():
            # Looked at twice: one that is being made, on the reactor's thread, looks
            # half made. Ids are never used again, so if it was there before and is
            # not in the making now, the second look sees it as it will stay.
            if (
                self._is_half_made(name)
                and name not in self.being_made
                and self._is_half_made(name)
            ):
                try:
                    self.remove(f"{self.path}/{name}")
                except OSError as error:
                    faults.append(storage_error(error))
        return faults

    def _is_half_made(self, name: str) -> bool:
        try:
            self.load(name)
        except NoSuchSession:
            return True
        except BackendError:
            return False
        return False

    def _session_names(self) -> list[str]:
        return [name for name in self.files.listdir(self.path) if _GUID.fullmatch(name)]
