"""
The journal of a run that uploads many files: one file for all of them.

It has a line of JSON for each step, and is only appended to. The last line about a file
counts. A line that was cut short or that a crash of the machine filled with zeros is
ignored. In detail:

- The lines survive when the process is killed. They are synced at most a second later,
  in the background. After a crash of the machine a file whose last lines are lost is
  resumed from an earlier step, or sent again. No bytes are lost by that: the file is
  still here, and the server publishes it in one step.
- A line says that a file is done only after the server has acknowledged it.
- Runs to the same URL use one journal, unless they run at the same time. A run takes
  over what earlier runs left, so that the list of files may change in between.
- While a run has its journal locked, other runs leave its files alone.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txbits.client._files import FILES, Files, is_at, make_folder
from txbits.client._url import without_query
from txbits.client.journal import (
    Entry,
    JournalBusy,
    JournalError,
    locked,
    name_of,
)
from txbits.client.source import FileIdentity
from txbits.protocol.upload import Position

_PREFIX, _SUFFIX = "run-", ".jsonl"

#: The lock that serializes the start of one user's runs.
_GATE = "runs-{user}.lock"

#: How many seconds after a line the journal is synced.
_SYNC_AFTER = 1.0

#: The journal is rewritten when it has grown by so many bytes.
_MOST_GROWTH = 16 * 1024 * 1024

#: A line that says nothing, longer than most: it shows whether there is room again.
_PADDING = b" " * 4095 + b"\n"

#: How many runs to one URL can be in progress.
_MOST_RUNS = 1000


@define
class Lines:
    """
    The content of a journal.

    :ivar entries: The files, by the names that their own journals would have.
    :ivar upcoming: The names of all files of the run.
    """

    entries: dict[str, Entry] = field(factory=dict)
    upcoming: set[str] = field(factory=set)

    @classmethod
    def read(cls, text: bytes) -> Lines:
        """Parse a journal."""
        lines = cls()
        for line in text.split(b"\n"):
            try:
                lines._add(json.loads(line))
            except (ValueError, TypeError, RecursionError):
                # A crash of the machine destroyed it.
                continue
        return lines

    def _add(self, found: Any) -> None:
        if "upcoming" in found:
            self.upcoming.update(map(str, found["upcoming"]))
        elif "forgotten" in found:
            self.entries.pop(str(found["forgotten"]), None)
        else:
            entry = Entry.from_fields(found)
            self.entries[name_of(entry.url, entry.file.path)] = entry

    @property
    def text(self) -> bytes:
        """The entries, one per line."""
        return b"".join(_line(entry) for entry in self.entries.values())

    @property
    def unfinished(self) -> set[str]:
        """The names of the files that have not arrived."""
        done = {name for name, entry in self.entries.items() if entry.done}
        return self.upcoming - done


def _line(entry: Entry) -> bytes:
    return entry.to_json(indent=None).encode("utf-8") + b"\n"


def journals_of_runs(directory: Path, url: str | None = None) -> list[Path]:
    """
    List the journals of runs in a directory.

    :param url: The URL that the files go to; ``None`` for all.
    """
    key = "" if url is None else f"{_key(url)}."
    return sorted(directory.glob(f"{_PREFIX}{key}*{_SUFFIX}"))


def is_of_run(path: Path) -> bool:
    """Tell by its name whether a file is the journal of a run."""
    return path.name.startswith(_PREFIX) and path.name.endswith(_SUFFIX)


def _key(url: str) -> str:
    return hashlib.sha256(without_query(url).encode("utf-8")).hexdigest()[:32]


def forget_entries(path: Path, names: Iterable[str], files: Files = FILES) -> int:
    """
    Remove entries from the journal of a run that has ended. It blocks.

    :returns: How many were removed.
    :raises JournalError: If the run is in progress, or the journal is another user's.
    :raises OSError: If that cannot be done.
    """
    descriptor, _ = locked(path, files=files)
    try:
        lines = Lines.read(_all_of(descriptor))
        found = [lines.entries.pop(name) for name in names if name in lines.entries]
        if not lines.entries:
            path.unlink(missing_ok=True)
        elif found:
            files.write(str(path), lines.text)
    finally:
        os.close(descriptor)
    return len(found)


def _all_of(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def is_taken(directory: Path, name: str, files: Files = FILES) -> bool:
    """
    Check whether a run in progress is going to upload a file. It blocks.

    :param name: The name that the file's own journal would have.
    """
    return any(name in taken for taken in _taken_by_others(directory, (), files))


def _taken_by_others(
    directory: Path, own: Sequence[Path], files: Files
) -> Iterator[set[str]]:
    for path in journals_of_runs(directory):
        is_current = path in own
        while not is_current:
            try:
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
                descriptor = os.open(path, flags)
            except OSError:
                # It was removed just now, or is another user's.
                break
            try:
                files.lock(descriptor, fcntl.LOCK_SH)
                # Its run may have rewritten it between opening and locking.
                is_current = is_at(descriptor, str(path))
            except BlockingIOError:
                is_current = True
                yield Lines.read(_all_of(descriptor)).unfinished
            finally:
                os.close(descriptor)


@define(eq=False)
class RunJournal:
    """
    The journal of one run.

    :ivar path: Where it is.
    :ivar is_alone: Whether no other process can write it; ``False`` if the file system
        has no locks.
    """

    path: Path
    is_alone: bool
    _clock: IReactorTime
    _now: Callable[[], float]
    _run: Callable[..., Deferred[Any]]
    _files: Files
    _descriptor: int | None
    _lines: Lines
    _upcoming: frozenset[str]
    _taken: frozenset[str]
    _growth: int = field(init=False, default=0)
    _call: IDelayedCall | None = field(init=False, default=None)
    _syncing: Deferred[None] | None = field(init=False, default=None)
    _failure: BaseException | None = field(init=False, default=None)
    _is_full: bool = field(init=False, default=False)

    @classmethod
    def open(
        cls,
        directory: Path,
        url: str,
        names: Iterable[str],
        *,
        clock: IReactorTime,
        now: Callable[[], float],
        run: Callable[..., Deferred[Any]],
        files: Files = FILES,
    ) -> Deferred[RunJournal]:
        """
        Start a run, and take over the entries of earlier ones.

        :param directory: The directory of journals.
        :param url: The folder that the files are uploaded to.
        :param names: The names that the files' own journals would have.
        :param clock: Schedules the syncs.
        :param now: Returns the time, in seconds since 1970.
        :param run: Runs a function that blocks, and returns a Deferred of its result.
        :returns: A Deferred that fires with the journal. It fails with
            :class:`JournalError`.
        """

        def begin() -> RunJournal:
            upcoming = frozenset(names)
            try:
                make_folder(directory)
                with _gate(directory, files):
                    path, descriptor, is_alone, lines = _take_over(
                        directory, url, upcoming, files
                    )
                    taken = frozenset().union(
                        *_taken_by_others(directory, [path], files)
                    )
            except OSError as error:
                place = error.filename or directory
                raise JournalError(f"{place}: {error.strerror or error}") from error
            return cls(
                path,
                is_alone,
                clock,
                now,
                run,
                files,
                descriptor,
                lines,
                upcoming,
                taken,
            )

        return run(begin)

    def of_file(self, url: str, file: FileIdentity) -> FileJournal:
        """
        Get the journal of one file.

        :param url: The destination of the file.
        :raises JournalBusy: If another run has the same upload in progress.
        :raises JournalError: If the last line could not be written, nor can another. A
            session that no journal names would stay on the server.
        """
        url = without_query(url)
        name = name_of(url, file.path)
        if name in self._taken:
            raise JournalBusy("another txbits is at this upload")
        if self._is_full or self._failure is not None:
            try:
                self._append(_PADDING)
            except OSError as error:
                raise JournalError(f"{self.path}: {error.strerror or error}") from error
        entry = self._lines.entries.get(name)
        return FileJournal(self, name, url, file, self._now, entry)

    def add(self, name: str, entry: Entry | None) -> Deferred[None]:
        """
        Append the entry of a file; ``None`` to forget the file.

        :returns: A Deferred that fires with ``None``. It fails with
            :class:`JournalError`.
        """
        if entry is None:
            if self._lines.entries.pop(name, None) is None:
                return succeed(None)
            text = json.dumps({"forgotten": name}).encode("ascii") + b"\n"
        else:
            self._lines.entries[name] = entry
            text = _line(entry)
        try:
            # Writing to the page cache takes less time than a thread would.
            self._append(text)
        except OSError as error:
            return fail(JournalError(f"{self.path}: {error.strerror or error}"))
        return succeed(None)

    def finish(self, *, all_done: bool) -> Deferred[None]:
        """
        End the run, and close the journal.

        :param all_done: Whether to forget its files, because all have arrived.
        :returns: A Deferred that fires with ``None``. It fails with
            :class:`JournalError`.
        """
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        idle = succeed(None) if self._syncing is None else self._syncing

        def translate(failure: Failure) -> None:
            error = failure.value
            failure.trap(OSError)
            raise JournalError(f"{self.path}: {error}") from error

        return idle.addCallback(
            lambda _: self._run(self._end, all_done).addErrback(translate)
        )

    def _end(self, all_done: bool) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        entries = self._lines.entries
        try:
            if all_done:
                for name in self._upcoming:
                    entries.pop(name, None)
            if not entries:
                self.path.unlink(missing_ok=True)
            elif all_done:
                self._files.write(str(self.path), self._lines.text)
            else:
                self._files.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _append(self, text: bytes) -> None:
        if self._failure is not None:
            raise self._failure
        if self._descriptor is None:
            raise ValueError("the journal is closed")
        start = os.lseek(self._descriptor, 0, os.SEEK_CUR)
        try:
            self._files.fill(self._descriptor, text, is_durable=False)
        except OSError:
            # The next line must not be the end of this one.
            os.lseek(self._descriptor, start, os.SEEK_SET)
            self._is_full = True
            raise
        self._is_full = False
        self._growth += len(text)
        if self._growth > _MOST_GROWTH and self._syncing is None:
            try:
                self._rewrite()
            except OSError as error:
                # The line is written. If there is no room for a copy, it grows on.
                self._growth = 0
                if not is_at(self._descriptor, str(self.path)):
                    self._failure = error
                    raise
        if self._call is None and self._syncing is None:
            self._call = self._clock.callLater(_SYNC_AFTER, self._sync)

    def _sync(self) -> None:
        self._call = None
        idle: Deferred[None] = Deferred()
        self._syncing = idle

        def end(outcome: Any) -> None:
            self._syncing = None
            if isinstance(outcome, Failure):
                # The next step fails with it.
                self._failure = outcome.value
            idle.callback(None)

        self._run(self._files.fsync, self._descriptor).addBoth(end)

    def _rewrite(self) -> None:
        """Leave out what later lines have replaced. It blocks, but rarely happens."""
        descriptor = self._files.replace_locked(
            str(self.path), _upcoming_line(self._upcoming) + self._lines.text
        )
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._growth = descriptor, 0


@define(eq=False)
class FileJournal:
    """
    The part of a run's journal that is about one file.

    It is an :class:`~txbits.client.journal.UploadJournal`.
    """

    run: RunJournal
    name: str
    url: str
    file: FileIdentity
    now: Callable[[], float]
    entry: Entry | None
    is_cheap: bool = field(init=False, default=True)
    _began: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        found = self.found
        self._began = self.now() if found is None else found.began

    @property
    def found(self) -> Entry | None:
        entry = self.entry
        is_same = entry is not None and entry.file.is_same(self.file)
        return entry if is_same else None

    @property
    def stale(self) -> Entry | None:
        return self.entry if self.found is None else None

    def adopt(self, entry: Entry) -> Deferred[None]:
        """Take over an entry of the file's own journal."""
        self.entry, self._began = entry, entry.began
        return self.run.add(self.name, entry)

    def save(self, position: Position) -> Deferred[None]:
        return self._save(position, done=False)

    def finish(self, position: Position) -> Deferred[None]:
        return self._save(position, done=True)

    def remove(self) -> Deferred[None]:
        self.entry = None
        return self.run.add(self.name, None)

    def _save(self, position: Position, *, done: bool) -> Deferred[None]:
        self.entry = Entry(self.url, self.file, position, done, self._began, self.now())
        return self.run.add(self.name, self.entry)


@contextmanager
def _gate(directory: Path, files: Files) -> Iterator[None]:
    """Let one run at a time read the other journals and announce its files."""
    path = directory / _GATE.format(user=os.geteuid())
    descriptor, _ = locked(path, files=files, wait=True)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _take_over(
    directory: Path, url: str, upcoming: Iterable[str], files: Files
) -> tuple[Path, int, bool, Lines]:
    """Merge the journals that earlier runs to the same URL left."""
    merged, left, is_alone = Lines(), [], True
    for path in journals_of_runs(directory, url):
        try:
            descriptor, is_alone = locked(path, files=files)
        except (JournalError, PermissionError):
            # Another run has it, or it is another user's.
            continue
        left.append((path, descriptor))
        for name, entry in Lines.read(_all_of(descriptor)).entries.items():
            other = merged.entries.get(name)
            if other is None or other.updated < entry.updated:
                merged.entries[name] = entry
    try:
        path = left[0][0] if left else _free(directory, url)
        text = _upcoming_line(upcoming) + merged.text
        descriptor = files.replace_locked(str(path), text)
        is_alone = files.lock(descriptor)
        for other_path, _ in left[1:]:
            other_path.unlink(missing_ok=True)
    finally:
        for _, earlier in left:
            os.close(earlier)
    return path, descriptor, is_alone, merged


def _free(directory: Path, url: str) -> Path:
    for number in range(_MOST_RUNS):
        path = directory / f"{_PREFIX}{_key(url)}.{number}{_SUFFIX}"
        if not os.path.lexists(path):
            return path
    raise JournalBusy(f"{_MOST_RUNS} runs to {without_query(url)} are under way")


def _upcoming_line(names: Iterable[str]) -> bytes:
    return json.dumps({"upcoming": sorted(names)}).encode("ascii") + b"\n"
