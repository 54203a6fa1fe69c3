"""
The closes that the disk backend remembers: what lies in ``.bits-sessions/closed``.

Files that are only ever appended to, of 40 bytes a close: the session's id, a digest of
who closed what, and the time. To remember is one short write, where
a file for each would cost a small upload a tenth of its time. To recall, which happens
only when an Ack was lost, takes an index of each file; that is made when it is first
needed, and kept in memory. A file is no longer written to once it is long, or once a
clean-up has begun, so that the clean-up may take its time.

Nobody waits for an fsync of them: the line of a session that was closed keeps the
record until there has been one, and a process that finds it there appends it again.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from uuid import UUID

from attrs import define, field, frozen

from txbits.backends.disk._close_index import CloseIndex, times_of
from txbits.backends.disk._files import Files, storage_error
from txbits.errors import BackendError, OutOfSpace

_RECORD = struct.Struct(">16s16sd")
_KEY = 32

#: How long a file becomes, in bytes: some hundred thousand closes.
_LONGEST = _RECORD.size << 17

# How much is looked through at a time; a whole number of records. The interpreter is
# held for as long as that takes.
_CHUNK = _RECORD.size << 14

#: So many files have their index kept: eight bytes a close, 64 MiB.
_MOST_INDEXED = 64

# Times in the future by more than so many seconds are of a clock that was set back.
_AHEAD = 60.0

_NAME = re.compile(r"([0-9]{10})(\.new)?")
_APPEND = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


def key_of(session_id: UUID, destination: tuple[str, ...], owner: str | None) -> bytes:
    """What a close is found by: the session's id, and a digest of the rest."""
    # ascii() tells all tuples of strings apart, also those no file could have.
    what = ascii((owner, destination)).encode()
    return session_id.bytes + hashlib.blake2b(what, digest_size=16).digest()


@frozen
class Unsafe:
    """
    What to fsync.

    :ivar directory: The descriptor of the directory of the files.
    :ivar files: Those of all files, open.
    :ivar concluded: Of these, the ones that are no longer appended to.
    """

    directory: int
    files: list[int]
    concluded: list[int]


@define(eq=False)
class Closes:
    """
    What is remembered of closes.

    :param directory: The descriptor of the directory of the files, which is this
        object's from now on.
    :param is_to_be_safe: Whether they are to survive a crash of the machine.
    """

    _files: Files
    _directory: int
    _is_to_be_safe: bool = True
    _number: int = field(default=0, init=False)
    _fd: int = field(default=-1, init=False)
    _length: int = field(default=0, init=False)
    _concluded: list[int] = field(factory=list, init=False)
    _present: set[bytes] = field(factory=set, init=False)
    _indexed: dict[str, CloseIndex] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        names = self._names()
        self._number = int(names[-1]) if names else 0

    def remember(
        self,
        session_id: UUID,
        destination: tuple[str, ...],
        owner: str | None,
        at: float,
    ) -> bytes:
        """
        Append a record.

        :param at: The time, in seconds since the epoch.
        :returns: The record.
        :raises OutOfSpace: If it does not fit.
        """
        key = key_of(session_id, destination, owner)
        record = _RECORD.pack(key[:16], key[16:], at)
        self.append(record)
        return record

    def append(self, record: bytes) -> None:
        """
        Append a record that there was.

        :raises OutOfSpace: If it does not fit.
        """
        if self._fd < 0 or self._length >= _LONGEST:
            self._begin_another()
        # What a write has left undone is written over by the next one.
        if self._files.pwrite(self._fd, record, self._length) != len(record):
            raise OutOfSpace("the record of the close does not fit")
        self._length += len(record)
        self._present.add(record[:_KEY])

    def is_present(self, key: bytes) -> bool:
        """Tell whether a record is in the file that is being written to."""
        return key in self._present

    def names(self) -> list[str]:
        """
        List the files that are no longer written to.

        :returns: The newest first: a lost Ack is soon asked for again.
        """
        names = self._names()
        if self._fd >= 0 and names and names[-1] == f"{self._number:010}":
            names.pop()
        return names[::-1]

    def is_indexed(self, name: str) -> bool:
        """Tell whether a file has been looked through."""
        return name in self._indexed

    def index(self, name: str) -> CloseIndex:
        """Look a file through, if that has not been done. Slow; for a thread."""
        index = self._indexed.get(name)
        if index is None:
            index = self._indexed[name] = CloseIndex.of(self._chunks(name))
            for oldest in list(self._indexed)[:-_MOST_INDEXED]:
                self._indexed.pop(oldest, None)
        return index

    def holds(self, name: str, key: bytes) -> bool:
        """
        Tell whether a record is in a file. Quick, if that has been looked through.
        """
        places = list(self.index(name).places(key))
        if not places:
            return False
        records = [self._record(name, place) for place in places]
        if any(one[:_KEY] == key for one in records):
            return True
        # Another record is there when a clean-up has just written the file anew.
        self._indexed.pop(name, None)
        return any(_holds(chunk, key) for chunk in self._chunks(name))

    def conclude(self) -> int:
        """
        Append no more to the present file.

        :returns: Its number, for :meth:`clean_up`.
        """
        fd, self._fd = self._fd, -1
        self._present = set()
        if fd >= 0 and self._is_to_be_safe:
            self._concluded.append(fd)
        elif fd >= 0:
            self._files.close(fd)
        return self._number

    def unsafe(self) -> Unsafe:
        """What to fsync, so that the records are safe, and then to :meth:`let_go`."""
        present = [self._fd] if self._fd >= 0 else []
        return Unsafe(
            self._directory, [*self._concluded, *present], self._concluded.copy()
        )

    def let_go(self, synced: Unsafe) -> None:
        """Close the files that nothing was appended to meanwhile."""
        for fd in synced.concluded:
            self._concluded.remove(fd)
            with suppress(OSError):  # what was to be stored is, or is known not to be
                self._files.close(fd)

    def clean_up(
        self, before: float, concluded: int, now: float
    ) -> Iterator[BackendError | None]:
        """
        Forget what is older. Slow; each step is for a thread.

        :param before: In seconds since the epoch.
        :param concluded: The number of the last file to look at.
        :param now: The present time, likewise: what is in the future is from before the
            clock was set back, and has its time from now on.
        :returns: The steps: the fault of something that could not be forgotten, which
            ends nothing, or ``None`` after a file.
        """
        for name in sorted(self._files.listdir(self._directory)):
            match = _NAME.fullmatch(name)
            if match is None or int(match[1]) > concluded:
                continue
            try:
                if match[2]:
                    # An earlier clean-up could not put it in place of the old one.
                    self._files.unlink(name, dir_fd=self._directory)
                else:
                    self._forget(name, before, now)
            except FileNotFoundError:
                pass  # somebody else has done it
            except OSError as error:
                yield storage_error(error)
            yield None

    def close(self) -> None:
        """Let go of the directory."""
        self.conclude()
        self.let_go(self.unsafe())
        self._files.close(self._directory)

    def _names(self) -> list[str]:
        names = self._files.listdir(self._directory)
        matches = map(_NAME.fullmatch, names)
        return sorted(one[1] for one in matches if one is not None and not one[2])

    def _begin_another(self) -> None:
        self.conclude()
        self._number += 1
        self._fd = self._files.open(
            f"{self._number:010}",
            _APPEND | os.O_EXCL,
            0o600,
            dir_fd=self._directory,
        )
        self._length = 0

    def _chunks(self, name: str) -> Iterator[bytes]:
        with suppress(FileNotFoundError):  # forgotten meanwhile
            fd = self._files.open(name, _READ, dir_fd=self._directory)
            try:
                at = 0
                while chunk := self._files.pread(fd, _CHUNK, at):
                    yield chunk
                    at += len(chunk)
            finally:
                self._files.close(fd)

    def _forget(self, name: str, before: float, now: float) -> None:
        everything = b"".join(self._chunks(name))
        whole = len(everything) // _RECORD.size * _RECORD.size
        times = times_of(everything[:whole])
        if not times or max(times) < before:
            self._files.unlink(name, dir_fd=self._directory)
            self._indexed.pop(name, None)
            return
        is_sound = whole == len(everything) and max(times) <= now + _AHEAD
        if is_sound and min(times) >= before:
            return
        kept = [
            _RECORD.pack(*record[:2], min(record[2], now + _AHEAD))
            for record in _RECORD.iter_unpack(everything[:whole])
            if record[2] >= before
        ]
        self._replace(name, b"".join(kept))
        self._indexed.pop(name, None)

    def _record(self, name: str, place: int) -> bytes:
        try:
            fd = self._files.open(name, _READ, dir_fd=self._directory)
        except FileNotFoundError:
            return b""  # forgotten meanwhile
        try:
            return self._files.pread(fd, _RECORD.size, place * _RECORD.size)
        finally:
            self._files.close(fd)

    def _replace(self, name: str, content: bytes) -> None:
        files = self._files
        new = f"{name}.new"
        fd = files.open(new, _APPEND | os.O_TRUNC, 0o600, dir_fd=self._directory)
        try:
            if files.pwrite(fd, content, 0) != len(content):
                raise OSError(errno.ENOSPC, "the records of closes do not fit")
            if self._is_to_be_safe:
                # Those that it takes the place of may be safe already.
                files.fsync(fd)
        finally:
            files.close(fd)
        files.rename(new, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)


def _holds(chunk: bytes, key: bytes) -> bool:
    at = chunk.find(key)
    while at >= 0:
        if at % _RECORD.size == 0:
            return True
        at = chunk.find(key, at + 1)
    return False
