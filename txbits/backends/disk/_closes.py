"""
The files of the closes that the disk backend remembers: ``.bits-sessions/closed``.

Records are only appended to them: 40 bytes for each close, with the session's id, a
digest of who closed what, and the time. Remembering is one short write, or, if the
record is kept elsewhere, a part of one for many records; a file for each close would
cost a small upload a tenth of its time. Recalling, which is needed only
when an Ack was lost, takes an index of each file, which is made on demand and kept in
memory. A file is complete when it is long, or when a clean-up begins, so that the
clean-up may take its time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import struct
import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from uuid import UUID

from attrs import define, field, frozen

from txbits.backends.disk._files import (
    READ,
    READ_WRITE,
    Files,
    Removed,
    Step,
    opened,
    storage_error,
)
from txbits.errors import OutOfSpace
from txbits.interfaces import ANY_OWNER, AnyOwner

_RECORD = struct.Struct(">16s16sd")
_KEY = 32

#: A session's id, which a record begins with, has so many bytes.
_ID = 16

#: How long a file becomes, in bytes: some hundred thousand closes.
_LONGEST = _RECORD.size << 17

# How many bytes are indexed at a time, which blocks the interpreter; a whole number of
# records.
_CHUNK = _RECORD.size << 14

# How many records one call writes.
_MOST_WRITTEN = 1024

#: How many indexes are kept: eight bytes for each close, 64 MiB.
_MOST_INDEXED = 64

# A time that is more seconds in the future is from before the clock was set back.
_AHEAD = 60.0

# How many bits of a number are for the place.
_BITS = 20
_PLACE = (1 << _BITS) - 1
_OF_THE_ID = (1 << (64 - _BITS)) - 1

_WORDS = _RECORD.size // 8

_NAME = re.compile(r"([0-9]{10})(\.new)?")
_APPEND = READ_WRITE | os.O_CREAT


def key_of(
    session_id: UUID, destination: tuple[str, ...], owner: str | AnyOwner | None
) -> bytes:
    """
    The beginning of the record of a close: the session's id, and a digest.

    :returns: Only the id if any owner is right.
    """
    if owner is ANY_OWNER:
        return session_id.bytes
    # ascii() distinguishes all tuples of strings, even impossible names.
    what = ascii((owner, destination)).encode()
    return session_id.bytes + hashlib.blake2b(what, digest_size=16).digest()


def record_of(
    session_id: UUID, destination: tuple[str, ...], owner: str | None, at: float
) -> bytes:
    """
    Write the record of a close.

    :param at: The time, in seconds since the epoch.
    """
    key = key_of(session_id, destination, owner)
    return _RECORD.pack(key[:_ID], key[_ID:], at)


@frozen
class Unsafe:
    """
    What to fsync.

    :ivar directory: The descriptor of the directory.
    :ivar files: The descriptors of all files that may have unsynced records.
    :ivar concluded: Those of them that are complete.
    """

    directory: int
    files: list[int]
    concluded: list[int]


@define(eq=False)
class _Index:
    """
    Where in a file which record is, so that a look-up need not read all of it.

    The last bits of a session's id, which are random, find its record. They form a
    number of eight bytes, with the place of the record in its lowest bits. The numbers
    are sorted, so a look-up takes a few comparisons, and a million closes take eight
    megabytes. They are sorted in runs, none of which blocks the interpreter for long.
    """

    _runs: list[array[int]] = field(factory=list, init=False)
    _count: int = field(default=0, init=False)

    @classmethod
    def of(cls, chunks: Iterable[bytes]) -> _Index:
        """
        Make the index of a file.

        :param chunks: Its content; each but the last has a whole number of records.
        """
        index = cls()
        for chunk in chunks:
            whole = len(chunk) // _RECORD.size * _RECORD.size
            words = array("Q", chunk[:whole])
            if sys.byteorder == "little":
                words.byteswap()
            begin = index._count
            numbers = (
                (word & _OF_THE_ID) << _BITS | place
                for place, word in enumerate(words[1::_WORDS], begin)
            )
            index._runs.append(array("Q", sorted(numbers)))
            index._count += whole // _RECORD.size
        return index

    def places(self, session_id: bytes) -> Iterator[int]:
        """
        Find the records that may belong to a session, which are rarely more than one.

        :param session_id: The sixteen bytes that its record begins with.
        """
        sought = int.from_bytes(session_id[8:16], "big") & _OF_THE_ID
        for run in self._runs:
            at = bisect_left(run, sought << _BITS)
            while at < len(run) and run[at] >> _BITS == sought:
                yield run[at] & _PLACE
                at += 1


@define(eq=False)
class Closes:
    """
    The remembered closes.

    :param directory: The descriptor of the directory, which this object closes.
    :param is_to_be_safe: Whether the closes have to survive a system crash.
    """

    _files: Files
    _directory: int
    _is_to_be_safe: bool = True
    _number: int = field(default=0, init=False)
    _fd: int = field(default=-1, init=False)
    _length: int = field(default=0, init=False)
    _concluded: list[int] = field(factory=list, init=False)
    _present: dict[bytes, bytes] = field(factory=dict, init=False)
    _noted: list[bytes] = field(factory=list, init=False)
    _indexed: dict[str, _Index] = field(factory=dict, init=False)

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
        record = record_of(session_id, destination, owner, at)
        self.append(record)
        return record

    def append(self, record: bytes) -> None:
        """
        Append a record again.

        :raises OutOfSpace: If it does not fit.
        """
        self._write(record)
        self._show(record)

    def note(self, *records: bytes) -> None:
        """
        Remember records that are kept elsewhere until :meth:`write_noted`.
        """
        self._noted += records
        for record in records:
            self._show(record)

    def write_noted(self) -> None:
        """
        Append all records that are only noted.

        :raises OSError: If that fails; call it again then.
        :raises OutOfSpace: Likewise, if they do not fit.
        """
        while some := self._noted[:_MOST_WRITTEN]:
            self._write(b"".join(some))
            del self._noted[: len(some)]

    def drop_noted(self) -> None:
        """Forget which records are only noted."""
        self._noted.clear()

    def _write(self, data: bytes) -> None:
        if self._fd < 0 or self._length >= _LONGEST:
            self._begin_another()
        # The next record overwrites an incomplete one.
        if self._files.pwrite(self._fd, data, self._length) != len(data):
            raise OutOfSpace("the record of the close does not fit; free some space")
        self._length += len(data)

    def _show(self, record: bytes) -> None:
        # The digests of one session stand one after the other; mostly, there is one.
        session_id, digest = record[:_ID], record[_ID:_KEY]
        self._present[session_id] = digest + self._present.get(session_id, b"")

    def is_present(self, key: bytes) -> bool:
        """Tell whether a record is in the current file, or only noted."""
        digests = self._present.get(key[:_ID])
        return digests is not None and _begins(digests, key[_ID:], _KEY - _ID)

    def names(self) -> list[str]:
        """
        List the complete files.

        :returns: The newest first: clients soon ask again for a lost Ack.
        """
        names = self._names()
        if self._fd >= 0 and names and names[-1] == f"{self._number:010}":
            names.pop()
        return names[::-1]

    def is_indexed(self, name: str) -> bool:
        """Tell whether a file has an index."""
        return name in self._indexed

    def index(self, name: str) -> _Index:
        """Make the index of a file, if it has none. Slow; for a thread."""
        index = self._indexed.get(name)
        if index is None:
            index = self._indexed[name] = _Index.of(self._chunks(name))
            for oldest in list(self._indexed)[:-_MOST_INDEXED]:
                self._indexed.pop(oldest, None)
        return index

    def holds(self, name: str, key: bytes) -> bool:
        """
        Tell whether a record is in a file. Quick if that has an index.
        """
        places = list(self.index(name).places(key))
        if not places:
            return False
        records = [self._record(name, place) for place in places]
        if any(one.startswith(key) for one in records):
            return True
        # Another record is there if a clean-up has just replaced the file.
        self._indexed.pop(name, None)
        return any(_begins(chunk, key, _RECORD.size) for chunk in self._chunks(name))

    def is_empty(self) -> bool:
        """
        Tell whether no close is remembered, and nothing else is in the directory.

        :raises OSError: If that is not certain.
        """
        return not self._files.listdir(self._directory)

    def conclude(self) -> int:
        """
        Complete the current file.

        :returns: Its number, for :meth:`clean_up`.
        """
        fd, self._fd = self._fd, -1
        self._present = {}
        for record in self._noted:
            self._show(record)
        if fd >= 0 and self._is_to_be_safe:
            self._concluded.append(fd)
        elif fd >= 0:
            self._files.close(fd)
        return self._number

    def unsafe(self) -> Unsafe:
        """Tell what to fsync to make the records safe, and then to :meth:`let_go`."""
        present = [self._fd] if self._fd >= 0 else []
        return Unsafe(
            self._directory, [*self._concluded, *present], self._concluded.copy()
        )

    def let_go(self, synced: Unsafe) -> None:
        """Close the complete files that were synced."""
        for fd in synced.concluded:
            self._concluded.remove(fd)
            with suppress(OSError):  # the fsync has succeeded, or has failed already
                self._files.close(fd)

    def clean_up(self, before: float, concluded: int, now: float) -> Iterator[Step]:
        """
        Forget older closes. Slow; each step is for a thread.

        :param before: A time in seconds since the epoch.
        :param concluded: The number of the last file to clean up.
        :param now: The current time. A close in the future is from before the clock was
            set back, and gets this time.
        :returns: The steps, one for each file. After an error the clean-up continues.
        """
        for name in sorted(self._files.listdir(self._directory)):
            match = _NAME.fullmatch(name)
            if match is None or int(match[1]) > concluded:
                continue
            done: Step = None
            try:
                if match[2]:
                    # An earlier clean-up was interrupted before it replaced the file.
                    self._files.unlink(name, dir_fd=self._directory)
                elif forgotten := self._forget(name, before, now):
                    done = Removed("close", forgotten)
            except FileNotFoundError:
                pass  # removed meanwhile
            except OSError as error:
                done = storage_error(error)
            yield done

    def close(self) -> None:
        """Close all descriptors."""
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
        with (
            suppress(FileNotFoundError),  # forgotten meanwhile
            opened(self._files, name, READ, self._directory) as fd,
        ):
            at = 0
            while chunk := self._files.pread(fd, _CHUNK, at):
                yield chunk
                at += len(chunk)

    def _forget(self, name: str, before: float, now: float) -> int:
        """Forget the older closes in a file, and return how many there were."""
        everything = b"".join(self._chunks(name))
        whole = len(everything) // _RECORD.size * _RECORD.size
        times = _times_of(everything[:whole])
        if not times or max(times) < before:
            self._files.unlink(name, dir_fd=self._directory)
            self._indexed.pop(name, None)
            return len(times)
        is_sound = whole == len(everything) and max(times) <= now + _AHEAD
        if is_sound and min(times) >= before:
            return 0
        kept = [
            _RECORD.pack(*record[:2], min(record[2], now + _AHEAD))
            for record in _RECORD.iter_unpack(everything[:whole])
            if record[2] >= before
        ]
        self._replace(name, b"".join(kept))
        self._indexed.pop(name, None)
        return len(times) - len(kept)

    def _record(self, name: str, place: int) -> bytes:
        try:
            with opened(self._files, name, READ, self._directory) as fd:
                return self._files.pread(fd, _RECORD.size, place * _RECORD.size)
        except FileNotFoundError:
            return b""  # forgotten meanwhile

    def _replace(self, name: str, content: bytes) -> None:
        files = self._files
        new = f"{name}.new"
        with opened(files, new, _APPEND | os.O_TRUNC, self._directory) as fd:
            if files.pwrite(fd, content, 0) != len(content):
                raise OSError(errno.ENOSPC, "the records of closes do not fit")
            if self._is_to_be_safe:
                # The records in the old file may be safe already.
                files.fsync(fd)
        files.rename(new, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)


def _begins(chunk: bytes, key: bytes, size: int) -> bool:
    """Whether one of the pieces of a chunk, of *size* bytes each, begins with a key."""
    at = chunk.find(key)
    while at >= 0:
        if at % size == 0:
            return True
        at = chunk.find(key, at + 1)
    return False


def _times_of(content: bytes) -> array[float]:
    """
    Read the times of all records.

    :param content: A whole number of records.
    """
    words = array("Q", content)[_WORDS - 1 :: _WORDS]
    if sys.byteorder == "little":
        words.byteswap()
    return array("d", words.tobytes())
