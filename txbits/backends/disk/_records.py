"""
The records of the disk backend's sessions: the file ``.bits-sessions/sessions-1``.

Each session has a line, see :mod:`txbits.backends.disk._lines`. Lines of released
sessions are reused, so the length of the file follows from the most sessions at any one
time. A line, and every change of its beginning, is written with one call, so a kill
cannot interrupt it; and since a line lies within a sector, neither can a power failure.
One file for each session would have to be created, renamed and removed, which are the
most expensive calls of a small upload.

A record that is too long for a line is in a file of its own, ``{GUID}.json``, written
before the line. The line of a closed session is freed with the record of the close in
it, which stays until it is synced elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from typing import Any
from uuid import UUID

from attrs import define, field

from txbits.backends.disk._files import READ, READ_WRITE, WRITE, Files, opened, remove
from txbits.backends.disk._lines import (
    EVERY_BOOT,
    FREE,
    HEAD,
    LENGTH,
    NO_BOOT,
    ROOM,
    TRUST_AT,
    Phase,
    Record,
    close_in,
    encoded,
    id_in,
    is_free,
    line_of,
    line_of_close,
    record_of,
    sound,
)
from txbits.backends.disk._probe import sync_names
from txbits.errors import BackendError, NoSuchSession, OutOfSpace

#: The name of the file.
TABLE = "sessions-1"
_NEW = WRITE | os.O_CREAT | os.O_EXCL
_OPEN = READ_WRITE | os.O_CREAT

# Far more than the longest record: a destination and the client's name for the file
# have at most 4 KiB each, times six in JSON.
_MOST_ASIDE = 1 << 16

_DOES_NOT_FIT = "the record of the session does not fit; free some space"

# In these phases, the file may be at its destination.
_UNDECIDED = (Phase.PUBLISHING._value_, Phase.PUBLISHED._value_)

# How many lines a start reads at a time.
_MANY = 2048


class _AsideIsLost(ValueError):
    """A line is valid, but the file that it refers to is missing."""


def aside_name(session_id: UUID) -> str:
    """The name of the file of a session's record, if it is too long for a line."""
    return f"{str(session_id).upper()}.json"


def _head(
    phase: Phase, total: int | None, safe: int, trust: bytes, boot: bytes
) -> bytes:
    text = b"-" if total is None else b"%d" % total
    return HEAD % (phase._value_, text, b"%d" % safe, trust + boot)


@define(eq=False)
class Table:
    """
    The open file of all records.

    Any thread may read it. The reactor's thread changes it, except for :meth:`mark` and
    :meth:`drop`, which the thread that works on the session calls.

    :ivar boot: The current boot of the machine; see
        :func:`~txbits.backends.disk._boot.this_boot`.
    :ivar fd: The descriptor.
    :ivar damaged: The errors of unreadable lines, which may belong to any session.
    :ivar closed: The lines that keep the record of a close, each with that record.
    :ivar older: The sessions whose lines an older version wrote.
    :ivar kept: The sessions whose lines say that all acknowledged bytes are safe.
    :ivar undecided: The sessions that were published, or about to be, before the last
        system crash. The destination has to tell; see
        :func:`~txbits.backends.disk._recovery.decide_published`.
    """

    _files: Files
    _directory: int
    boot: bytes
    fd: int
    damaged: list[BackendError] = field(factory=list, init=False)
    closed: list[tuple[int, bytes]] = field(factory=list, init=False)
    older: set[UUID] = field(factory=set, init=False)
    kept: set[UUID] = field(factory=set, init=False)
    undecided: list[UUID] = field(factory=list, init=False)
    _lines: dict[UUID, int] = field(factory=dict, init=False)
    # For each line, whether its session is unsafe: a byte, where a set of thousands of
    # sessions takes up to a hundred.
    _unsafe: bytearray = field(factory=bytearray, init=False)
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
        Open the file, and find the line of each session. Slow; for a thread.

        :param directory: The descriptor of the staging area.
        :param boot: The current boot of the machine.
        :param go_on: Called again and again; raises an exception to stop this.
        :raises OSError: If that fails.
        """
        fd = files.open(TABLE, _OPEN, 0o600, dir_fd=directory)
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
        """List the sessions."""
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

        :raises OSError: If that fails.
        :raises OutOfSpace: If there is no room for it.
        :raises BackendError: If the session has one already.
        """
        if session_id in self._lines:
            raise BackendError(f"there is a session {session_id} already")
        name = str(session_id)
        body = encoded(name, created, destination, owner, content_name)
        at = self._free.pop() if self._free else self._end
        if at == self._end:
            self._end += 1
            self._unsafe.append(False)
        # First, since the clean-up removes a file without a line.
        self._lines[session_id] = at
        try:
            if len(body) > ROOM:
                self._put_aside(session_id, body)
                body = encoded(name, created)
            head = _head(Phase.OPEN, None, 0, b"k" if is_kept else b"u", self.boot)
            self._write(line_of(head, body), at * LENGTH)
        except (OSError, BackendError):
            # A part of it that was written must not be read back.
            with suppress(OSError, BackendError):
                self._write(FREE, at * LENGTH)
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
        in_every_boot: bool = False,
    ) -> None:
        """
        Write how far a session is; see :class:`Record`.

        :param in_every_boot: Whether this holds after a system crash, too.
        :raises OSError: If that fails.
        :raises BackendError: If it has no record.
        """
        at = self._lines.get(session_id)
        if at is None:
            raise BackendError(f"session {session_id} has no record")
        trust = b"d" if in_doubt else b"k" if is_kept else b"u"
        boot = EVERY_BOOT if in_every_boot else self.boot
        self._write(_head(phase, total, safe, trust, boot), at * LENGTH)

    def drop(self, session_id: UUID, closed: bytes | None = None) -> None:
        """
        Remove a record, if it exists. This blocks if the record :meth:`is_aside` and
        *closed* is given.

        :param closed: The record of the session's close, if any. It takes the place of
            the session's record until :meth:`let_go`.
        :raises OSError: If something of it is left; call it again then.
        """
        is_aside = session_id in self._aside
        if is_aside and closed is None:
            # A line whose file is missing does not count.
            self._remove_aside(session_id)
        at = self._lines.get(session_id)
        if at is not None:
            if closed is None:
                self._write(FREE, at * LENGTH)
                self._free.append(at)
            else:
                self._write(line_of_close(closed), at * LENGTH)
                if is_aside:
                    # Otherwise the disk may have the old line without its file.
                    self._files.fsync(self.fd)
                self.closed.append((at, closed))
            self._unsafe[at] = False
            del self._lines[session_id]
        if is_aside:
            self._remove_aside(session_id)

    def note_unsafe(self, session_id: UUID) -> None:
        """
        Note, in memory, that a session may have more bytes than its record says are
        safe. A session without a record has none.
        """
        at = self._lines.get(session_id)
        if at is not None:
            self._unsafe[at] = True

    def note_safe(self, session_id: UUID) -> None:
        """Note that a session has no such bytes any more."""
        at = self._lines.get(session_id)
        if at is not None:
            self._unsafe[at] = False

    def unsafe(self) -> list[UUID]:
        """List the sessions that may have such bytes."""
        # A copy, since other threads remove lines.
        lines = list(self._lines.items())
        return [session_id for session_id, at in lines if self._unsafe[at]]

    def let_go(self, count: int) -> None:
        """
        Free the oldest lines that keep records of closes, which are on the disk now.

        :param count: How many.
        :raises OSError: If that fails; call it again then.
        """
        lines = sorted(at for at, _ in self.closed[:count])
        # Most lines are adjacent, and adjacent lines take one write.
        begin = 0
        for end in range(1, len(lines) + 1):
            if end == len(lines) or lines[end] != lines[end - 1] + 1:
                self._write(FREE * (end - begin), lines[begin] * LENGTH)
                begin = end
        self._free += reversed(lines)
        del self.closed[:count]

    def renew(self, session_id: UUID, has_crashed: bool) -> None:
        """
        Rewrite a line of an older version. It blocks.

        :param has_crashed: Whether the system may have crashed since it was written.
        :raises OSError: If that fails.
        """
        files = self._files
        record = self.read(session_id)
        name = str(session_id)
        body = encoded(
            name,
            record.created,
            record.destination,
            record.owner,
            record.content_name,
        )
        if len(body) > ROOM:
            if session_id not in self._aside:
                # It exists if an earlier attempt was interrupted.
                remove(files, aside_name(session_id), self._directory)
                self._put_aside(session_id, body)
                with self._aside_opened(session_id) as aside:
                    files.fsync(aside)
                sync_names(files, self._directory)
            body = encoded(name, record.created)
        head = _head(
            record.phase, record.total, 0, b"u", NO_BOOT if has_crashed else self.boot
        )
        self._write(line_of(head, body), self._lines[session_id] * LENGTH)
        self.older.discard(session_id)

    def is_current(self, boot: bytes | None) -> bool:
        """
        Tell whether a record holds as it is: the system has not crashed since it was
        written, or that makes no difference.

        :param boot: The boot in the record.
        """
        return boot in (self.boot, EVERY_BOOT)

    def read(self, session_id: UUID) -> Record:
        """
        Read a record back.

        :raises NoSuchSession: If there is none.
        :raises OSError: If it cannot be read.
        :raises BackendError: If it is not valid.
        """
        at = self._lines.get(session_id)
        if at is None:
            raise NoSuchSession(f"no session {session_id}")
        line = self._files.pread(self.fd, LENGTH, at * LENGTH)
        if line.startswith(b"free"):
            raise NoSuchSession(f"session {session_id} is being created or released")
        try:
            record = self._decoded(line)
        except (ValueError, TypeError, LookupError) as error:
            raise BackendError(
                f"the record of session {session_id}, line {at + 1} of {TABLE}, cannot "
                f"be read: {error!r}"
            ) from error
        if record.session_id != session_id:
            raise BackendError(f"line {at + 1} of {TABLE} is another session's")
        return record

    def unkeep(self) -> None:
        """
        Have no line say that all acknowledged bytes are safe. It blocks.

        :raises OSError: If that fails; call it again then.
        """
        for session_id in self.kept:
            # The rest of the line stays, including the boot.
            at = self._lines[session_id] * LENGTH
            self._write(b"u", at + TRUST_AT)
        if self.kept:
            self._files.fsync(self.fd)
        self.kept.clear()

    def _write(self, data: bytes, offset: int) -> None:
        if self._files.pwrite(self.fd, data, offset) != len(data):
            raise OutOfSpace(_DOES_NOT_FIT)

    def is_aside(self, session_id: UUID) -> bool:
        """Whether the record of a session is too long for its line."""
        return session_id in self._aside

    def open_aside(self, session_id: UUID) -> int | None:
        """Open the file of a record; ``None`` if the record is in its line."""
        if session_id not in self._aside:
            return None
        return self._files.open(aside_name(session_id), READ, dir_fd=self._directory)

    def _aside_opened(self, session_id: UUID) -> AbstractContextManager[int]:
        return opened(self._files, aside_name(session_id), READ, self._directory)

    def _put_aside(self, session_id: UUID, body: bytes) -> None:
        files = self._files
        name = aside_name(session_id)
        with opened(files, name, _NEW, self._directory) as fd:
            self._aside.add(session_id)
            if files.pwrite(fd, body, 0) != len(body):
                raise OutOfSpace(_DOES_NOT_FIT)

    def _remove_aside(self, session_id: UUID) -> None:
        if session_id in self._aside:
            remove(self._files, aside_name(session_id), self._directory)
            self._aside.discard(session_id)

    def _from_aside(self, session_id: UUID) -> Any:
        with self._aside_opened(session_id) as fd:
            return json.loads(self._files.pread(fd, _MOST_ASIDE, 0))

    def _decoded(self, line: bytes) -> Record:
        """
        Read a line.

        :raises ValueError: If it is not valid, like TypeError and LookupError.
        """
        *_, body = parts = sound(line)
        fields = json.loads(body)
        if len(fields) == 2:
            session_id = UUID(fields[0])
            try:
                fields = self._from_aside(session_id)
            except (FileNotFoundError, ValueError) as error:
                raise _AsideIsLost(
                    f"its file {aside_name(session_id)} is lost: {error!r}"
                ) from error
            self._aside.add(session_id)
        return record_of(parts, fields)

    def _look_through(self, go_on: Callable[[], None]) -> None:
        end = 0
        for at, line in enumerate(self._all_lines()):
            if not at % _MANY:
                go_on()
            if (closed := close_in(line)) is not None:
                self.closed.append((at, closed))
                end = at + 1
                continue
            if is_free(line):
                self._free.append(at)
                continue
            try:
                # Decoding each line would take most of a long start.
                phase, *_, trust, boot, _, body = sound(line)
                session_id = id_in(body) or self._decoded(line).session_id
                self._lines[session_id] = at
                if boot is None:
                    self.older.add(session_id)
                if trust == b"k":
                    self.kept.add(session_id)
                if phase in _UNDECIDED and not self.is_current(boot):
                    self.undecided.append(session_id)
            except _AsideIsLost:
                # A system crash has undone the creation of the record, or half of its
                # removal.
                self._free.append(at)
                continue
            except (OSError, ValueError, TypeError, LookupError) as error:
                self.damaged.append(
                    BackendError(f"line {at + 1} of {TABLE} cannot be read: {error!r}")
                )
            end = at + 1
        # An incomplete line is of a session that was not acknowledged.
        self._files.ftruncate(self.fd, end * LENGTH)
        self._end = end
        self._unsafe = bytearray(end)
        self._free = [at for at in reversed(self._free) if at < end]

    def _all_lines(self) -> Iterator[bytes]:
        at = 0
        while lines := self._files.pread(self.fd, _MANY * LENGTH, at):
            for begin in range(0, len(lines) - LENGTH + 1, LENGTH):
                yield lines[begin : begin + LENGTH]
            at += _MANY * LENGTH
