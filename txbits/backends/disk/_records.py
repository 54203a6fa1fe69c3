"""
The records of the disk backend's sessions: the file ``.bits-sessions/sessions-1``.

A line of 512 bytes for each session, readable as text; the lines of sessions that are
gone are used again, so that the file is as long as the most sessions there ever were at
a time. A line says how far the session is, its total length, its *safe offset*, since
which start of the machine that has been so, a checksum, and who wants to upload what.
It is written with one call, and so is every change of its beginning: no
kill comes between, and since a line lies within a sector, no power failure. A file for
each session would have to be made, renamed and removed, which are the dearest of all
calls that a small upload needs.

The safe offset tells how many bytes of the staged file are known to have got to the
disk. It is written when the fsync that it tells of has returned, so what the disk has
of it may be behind, and is never ahead: whoever lets a session's bytes go, so that
fewer are there, has a lower one stored before others come in their place.

What is too long for a line lies in a file of its own, ``{GUID}.json``, written before
the line. The line of a session that was closed is freed with the record of its close in
it, until that is known to have got to the disk elsewhere.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from enum import Enum
from typing import Any
from uuid import UUID

from attrs import define, field, frozen

from txbits.backends.disk._files import Files
from txbits.backends.disk._probe import sync_names
from txbits.errors import BackendError, NoSuchSession, OutOfSpace

_NAME = "sessions-1"
_LINE = 512
_HEAD = b"%-10b %19b %19b %17b "
_FREE = b"free".ljust(_LINE - 1) + b"\n"
_HEAD_LENGTH = len(_HEAD % (b"", b"", b"", b""))
_TRUST_AT = _HEAD_LENGTH - 18

# The checksum, the blank behind it, and the line's end.
_ROOM = _LINE - _HEAD_LENGTH - 10

# Older versions wrote neither a safe offset nor a boot.
_PATTERN = re.compile(
    rb"(open|publishing|published|releasing) +(-|[0-9]{1,19}) "
    rb"(?: *([0-9]{1,19}) ([kud])([0-9a-f]{16}) )?"
    rb"([0-9a-f]{8}) (\[.*\]) *\n"
)

# No start of the machine.
_NO_BOOT = b"0" * 16

_CLOSED = b"free closed %b"
_CLOSED_PATTERN = re.compile(rb"free closed ([0-9a-f]{80}) *\n")

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC

# Far more than the longest record: a destination has at most 4 KiB, times six for JSON,
# and so has the client's name for the file.
_MOST_ASIDE = 1 << 16

# Lines that are read at a time, when all are.
_MANY = 2048


class Phase(Enum):
    """How far a session is."""

    OPEN = b"open"
    """It takes bytes, or is complete."""

    PUBLISHING = b"publishing"
    """Its staged file is being moved to the destination: where it is not here any
    more, it is there."""

    PUBLISHED = b"published"
    """Its file stands at the destination; if the staged one is here as well, it is
    another link to the same."""

    RELEASING = b"releasing"
    """Its release has begun."""


@frozen
class Record:
    """
    What is written of a session.

    :ivar total: Its total length in bytes, ``None`` if no writer was ever opened.
    :ivar created: When it was made, in seconds since the epoch.
    :ivar safe: How many bytes of its staged file are known to be on the disk.
    :ivar boot: The start of the machine that it was last written in; ``None`` if it was
        written by a version that did not say.
    :ivar is_kept: Whether no more bytes than the safe ones were ever acknowledged.
    :ivar in_doubt: Whether bytes that were acknowledged may be missing.
    """

    session_id: UUID
    phase: Phase
    total: int | None
    created: float
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    safe: int = 0
    boot: bytes | None = None
    is_kept: bool = False
    in_doubt: bool = False


class _AsideIsLost(ValueError):
    """A line is in order, and the file that it refers to is not there."""


def part_name(session_id: UUID) -> str:
    """The name of a session's staged file."""
    return f"{str(session_id).upper()}.part"


def aside_name(session_id: UUID) -> str:
    """The name of the file of a session's record, if it is too long for a line."""
    return f"{str(session_id).upper()}.json"


def _sound(line: bytes) -> tuple[Any, ...]:
    """
    Take a line apart, and check what can be told from the line alone.

    :returns: What the pattern finds; ``None`` for what older versions did not write.
    :raises ValueError: If it is wrong.
    """
    match = _PATTERN.fullmatch(line)
    if match is None:
        raise ValueError("it is not of the form of one")
    *_, checksum, body = parts = match.groups()
    if zlib.crc32(body) != int(checksum, 16):
        raise ValueError("the checksum differs")
    return parts


def _id_in(body: bytes) -> UUID | None:
    """
    Find a session's id in the body of a line, which begins with it.

    :returns: ``None`` where the rest of the record lies aside, or something is unusual:
        then all of it is to be read.
    """
    # The names of the destination follow, or nothing does.
    if body.find(b", [", 40) < 0 or body[38:41] != b'", ':
        return None
    try:
        return UUID(int=int(body[2:38].replace(b"-", b""), 16))
    except ValueError:
        return None


def _head(
    phase: Phase, total: int | None, safe: int, trust: bytes, boot: bytes
) -> bytes:
    text = b"-" if total is None else b"%d" % total
    return _HEAD % (phase.value, text, b"%d" % safe, trust + boot)


def _line(head: bytes, body: bytes) -> bytes:
    line = b"%b%08x %b" % (head, zlib.crc32(body), body)
    return line.ljust(_LINE - 1) + b"\n"


def _encoded(*fields: Any) -> bytes:
    # In ASCII, so that a client's name for the file may be no UTF-8.
    return json.dumps(fields).encode()


@define(eq=False)
class Table:
    """
    All records, opened.

    It is changed by the reactor's thread, except that :meth:`mark` and :meth:`drop` are
    called by whoever acts in a session, wherever that is; it is read by any.

    :ivar boot: This start of the machine; see
        :func:`~txbits.backends.disk._boot.this_boot`.
    :ivar fd: The file.
    :ivar damaged: Why lines cannot be read, and so may belong to any session.
    :ivar closed: The lines that keep the record of a close, and the record.
    :ivar older: The sessions whose line was written by an older version.
    :ivar kept: Those whose line says that all that was acknowledged is safe.
    """

    _files: Files
    _directory: int
    boot: bytes
    fd: int
    damaged: list[BackendError] = field(factory=list, init=False)
    closed: list[tuple[int, bytes]] = field(factory=list, init=False)
    older: set[UUID] = field(factory=set, init=False)
    kept: set[UUID] = field(factory=set, init=False)
    _lines: dict[UUID, int] = field(factory=dict, init=False)
    _aside: set[UUID] = field(factory=set, init=False)
    _free: list[int] = field(factory=list, init=False)
    _end: int = field(default=0, init=False)

    @classmethod
    def opened(
        cls,
        files: Files,
        directory: int,
        boot: bytes,
        go_on: Callable[[], None] = lambda: None,
    ) -> Table:
        """
        Open the file, and look where in it which session is. Slow; for a thread.

        :param directory: The descriptor of the staging area.
        :param boot: This start of the machine.
        :param go_on: Called again and again; what it raises ends this.
        :raises OSError: If that cannot be done.
        """
        fd = files.open(_NAME, _OPEN, 0o600, dir_fd=directory)
        table = cls(files, directory, boot, fd)
        try:
            table._look_through(go_on)
        except BaseException:
            files.close(fd)
            raise
        return table

    def close(self) -> None:
        """Close the file."""
        self._files.close(self.fd)

    def __contains__(self, session_id: object) -> bool:
        return session_id in self._lines

    def ids(self) -> list[UUID]:
        """The sessions there are."""
        return list(self._lines)

    def add(
        self,
        session_id: UUID,
        created: float,
        destination: tuple[str, ...],
        owner: str | None,
        content_name: str | None,
        is_kept: bool = False,
    ) -> None:
        """
        Write a new record.

        :param is_kept: See :class:`Record`.
        :raises OSError: If that cannot be done.
        :raises OutOfSpace: If there is no room for it.
        :raises BackendError: If the session has one already.
        """
        if session_id in self._lines:
            raise BackendError(f"there is a session {session_id} already")
        name = str(session_id)
        body = _encoded(name, created, destination, owner, content_name)
        at = self._free.pop() if self._free else self._end
        self._end = max(self._end, at + 1)
        # Here first: a file that lies aside is kept by the clean-up only if it is.
        self._lines[session_id] = at
        try:
            if len(body) > _ROOM:
                self._put_aside(session_id, body)
                body = _encoded(name, created)
            head = _head(Phase.OPEN, None, 0, b"k" if is_kept else b"u", self.boot)
            self._write(_line(head, body), at * _LINE)
        except (OSError, BackendError):
            # Whatever was written of it must not be read back.
            with suppress(OSError, BackendError):
                self._write(_FREE, at * _LINE)
            self._free.append(self._lines.pop(session_id))
            with suppress(OSError):  # the clean-up removes what has no line
                self._remove_aside(session_id)
            raise

    def mark(
        self,
        session_id: UUID,
        phase: Phase,
        total: int | None,
        safe: int = 0,
        *,
        is_kept: bool = False,
        in_doubt: bool = False,
    ) -> None:
        """
        Write down how far a session is.

        :param total: Its total length in bytes, ``None`` if that is not known yet.
        :param safe: See :class:`Record`, like the others.
        :raises OSError: If that cannot be done.
        :raises BackendError: If it has no record.
        """
        at = self._lines.get(session_id)
        if at is None:
            raise BackendError(f"session {session_id} has no record")
        trust = b"d" if in_doubt else b"k" if is_kept else b"u"
        self._write(_head(phase, total, safe, trust, self.boot), at * _LINE)

    def drop(self, session_id: UUID, closed: bytes | None = None) -> None:
        """
        Remove a record; one that is gone is gone. It blocks, if the record
        :meth:`is_aside` and *closed* is given.

        :param closed: The record of the session's close, if there is one: it stays in
            the line, in its stead, until :meth:`let_go`.
        :raises OSError: If something of it is left; to be called again then.
        """
        is_aside = session_id in self._aside
        if is_aside and closed is None:
            # A line without what lies aside is none.
            self._remove_aside(session_id)
        at = self._lines.get(session_id)
        if at is not None:
            if closed is None:
                self._write(_FREE, at * _LINE)
                self._free.append(at)
            else:
                line = (_CLOSED % closed.hex().encode()).ljust(_LINE - 1) + b"\n"
                self._write(line, at * _LINE)
                if is_aside:
                    # Otherwise the disk may have the old line, without what it refers
                    # to.
                    self._files.fsync(self.fd)
                self.closed.append((at, closed))
            del self._lines[session_id]
        if is_aside:
            self._remove_aside(session_id)

    def let_go(self, count: int) -> None:
        """
        Free the oldest lines that keep records of closes: those are on the disk.

        :param count: How many.
        :raises OSError: If that cannot be done; to be called again then.
        """
        lines = sorted(at for at, _ in self.closed[:count])
        # Adjacent lines are written in one go: most were allocated in a row.
        begin = 0
        for end in range(1, len(lines) + 1):
            if end == len(lines) or lines[end] != lines[end - 1] + 1:
                self._write(_FREE * (end - begin), lines[begin] * _LINE)
                begin = end
        self._free += reversed(lines)
        del self.closed[:count]

    def renew(self, session_id: UUID, has_crashed: bool) -> None:
        """
        Write one of the older lines as this version does. It blocks.

        :param has_crashed: Whether the machine may have crashed since it was written.
        :raises OSError: If that cannot be done.
        """
        files = self._files
        record = self.read(session_id)
        name = str(session_id)
        body = _encoded(
            name,
            record.created,
            record.destination,
            record.owner,
            record.content_name,
        )
        if len(body) > _ROOM:
            if session_id not in self._aside:
                with suppress(FileNotFoundError):  # an earlier attempt came so far
                    files.unlink(aside_name(session_id), dir_fd=self._directory)
                self._put_aside(session_id, body)
                aside = self._open_aside(session_id)
                try:
                    files.fsync(aside)
                finally:
                    files.close(aside)
                sync_names(files, self._directory)
            body = _encoded(name, record.created)
        head = _head(
            record.phase, record.total, 0, b"u", _NO_BOOT if has_crashed else self.boot
        )
        self._write(_line(head, body), self._lines[session_id] * _LINE)
        self.older.discard(session_id)

    def read(self, session_id: UUID) -> Record:
        """
        Read a record back.

        :raises NoSuchSession: If there is none.
        :raises OSError: If it cannot be read.
        :raises BackendError: If it says nothing that makes sense.
        """
        at = self._lines.get(session_id)
        if at is None:
            raise NoSuchSession(f"no session {session_id}")
        line = self._files.pread(self.fd, _LINE, at * _LINE)
        if line.startswith(b"free"):
            raise NoSuchSession(f"session {session_id} has just gone, or is being made")
        try:
            record = self._decoded(line)
        except (ValueError, TypeError, LookupError) as error:
            raise BackendError(
                f"the record of session {session_id}, line {at + 1} of {_NAME}, cannot "
                f"be read: {error!r}"
            ) from error
        if record.session_id != session_id:
            raise BackendError(f"line {at + 1} of {_NAME} is another session's")
        return record

    def unkeep(self) -> None:
        """
        Have no line say that all that was acknowledged is safe. It blocks.

        :raises OSError: If that cannot be done; to be called again then.
        """
        for session_id in self.kept:
            # The rest of the line stays, also the boot.
            at = self._lines[session_id] * _LINE
            self._write(b"u", at + _TRUST_AT)
        if self.kept:
            self._files.fsync(self.fd)
        self.kept.clear()

    # Below: how it is done

    def _write(self, data: bytes, offset: int) -> None:
        if self._files.pwrite(self.fd, data, offset) != len(data):
            raise OutOfSpace("the record of the session does not fit")

    def is_aside(self, session_id: UUID) -> bool:
        """Whether the record of a session is too long for its line."""
        return session_id in self._aside

    def open_aside(self, session_id: UUID) -> int | None:
        """Open the file of a record that lies aside; ``None`` if it does not."""
        if session_id not in self._aside:
            return None
        return self._open_aside(session_id)

    def _open_aside(self, session_id: UUID) -> int:
        return self._files.open(aside_name(session_id), _READ, dir_fd=self._directory)

    def _put_aside(self, session_id: UUID, body: bytes) -> None:
        files = self._files
        name = aside_name(session_id)
        fd = files.open(name, _NEW, 0o600, dir_fd=self._directory)
        self._aside.add(session_id)
        try:
            if files.pwrite(fd, body, 0) != len(body):
                raise OutOfSpace("the record of the session does not fit")
        finally:
            files.close(fd)

    def _remove_aside(self, session_id: UUID) -> None:
        if session_id in self._aside:
            with suppress(FileNotFoundError):
                self._files.unlink(aside_name(session_id), dir_fd=self._directory)
            self._aside.discard(session_id)

    def _from_aside(self, session_id: UUID) -> Any:
        files = self._files
        fd = self._open_aside(session_id)
        try:
            return json.loads(files.pread(fd, _MOST_ASIDE, 0))
        finally:
            files.close(fd)

    def _decoded(self, line: bytes) -> Record:
        """
        Read a line.

        :raises ValueError: If it is wrong, like TypeError and LookupError.
        """
        phase, total, safe, trust, boot, _, body = _sound(line)
        fields = json.loads(body)
        session_id = UUID(fields[0])
        if len(fields) == 2:
            try:
                fields = self._from_aside(session_id)
            except (FileNotFoundError, ValueError) as error:
                raise _AsideIsLost(f"what lies aside is lost: {error!r}") from error
            self._aside.add(session_id)
        _, created, destination, owner, content_name = fields
        if not all(isinstance(segment, str) for segment in destination) or not all(
            isinstance(name, str | None) for name in (owner, content_name)
        ):
            raise ValueError("a name is no text")
        return Record(
            session_id,
            Phase(phase),
            None if total == b"-" else int(total),
            float(created),
            tuple(destination),
            owner,
            content_name,
            0 if safe is None else int(safe),
            boot,
            trust == b"k",
            trust == b"d",
        )

    def _look_through(self, go_on: Callable[[], None]) -> None:
        end = 0
        for at, line in enumerate(self._all_lines()):
            if not at % _MANY:
                go_on()
            # Also where a full disk took only its beginning. Zeros are what a crash of
            # the machine leaves of a line never stored.
            if closed := _CLOSED_PATTERN.fullmatch(line):
                self.closed.append((at, bytes.fromhex(closed[1].decode())))
                end = at + 1
                continue
            if line.startswith(b"free") or not line[_HEAD_LENGTH:].strip(b" \n\0"):
                self._free.append(at)
                continue
            try:
                # To read all of each would take most of a long start.
                *_, trust, boot, _, body = _sound(line)
                session_id = _id_in(body) or self._decoded(line).session_id
                self._lines[session_id] = at
                if boot is None:
                    self.older.add(session_id)
                if trust == b"k":
                    self.kept.add(session_id)
            except _AsideIsLost:
                # A crash of the machine has taken back the making of a record, or has
                # taken back half of its removal.
                self._free.append(at)
                continue
            except (OSError, ValueError, TypeError, LookupError) as error:
                self.damaged.append(
                    BackendError(f"line {at + 1} of {_NAME} cannot be read: {error!r}")
                )
            end = at + 1
        # A line that was cut short is one that nobody was told of.
        self._files.ftruncate(self.fd, end * _LINE)
        self._end = end
        self._free = [at for at in reversed(self._free) if at < end]

    def _all_lines(self) -> Iterator[bytes]:
        at = 0
        while lines := self._files.pread(self.fd, _MANY * _LINE, at):
            for begin in range(0, len(lines) - _LINE + 1, _LINE):
                yield lines[begin : begin + _LINE]
            at += _MANY * _LINE
