"""
The journals in a directory.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from txbits.client._files import FILES, Files
from txbits.client._runs import Lines, forget_entries, is_of_run, journals_of_runs
from txbits.client.journal import (
    LONGEST,
    SUFFIX,
    Entry,
    Journal,
    JournalError,
    locked,
    name_of,
)
from txbits.client.source import FileSource

#: The age in seconds of old journals. Servers keep sessions for 14 days.
_OLD = 30 * 86400.0


def state_directory(environ: dict[str, str]) -> Path:
    """
    The default directory of journals (XDG Base Directory Specification).

    :raises JournalError: If the environment names no home.
    """
    state = environ.get("XDG_STATE_HOME", "")
    # "All paths […] must be absolute. If an implementation encounters a relative path
    # […] it should consider the path invalid and ignore it."
    if os.path.isabs(state):
        return Path(state, "txbits")
    home = environ.get("HOME", "")
    if not os.path.isabs(home):
        raise JournalError("neither XDG_STATE_HOME nor HOME says where to keep state")
    return Path(home, ".local", "state", "txbits")


@frozen
class Found:
    """
    What a journal says of an upload.

    :ivar path: Where the journal is.
    :ivar entry: What it says; ``None`` if it cannot be read.
    :ivar running: Whether a process has it open.
    """

    path: Path
    entry: Entry | None
    running: bool


def look_into(directory: Path) -> Iterator[Found]:
    """
    Find the uploads in the journals of a directory. Nothing is changed by that.

    :raises OSError: If it cannot be read.
    """
    for path in [*sorted(directory.glob(f"*{SUFFIX}")), *journals_of_runs(directory)]:
        try:
            yield from look_at(path)
        except PermissionError:
            # Another user's, in a folder that several users share.
            continue


def look_at(path: Path, files: Files = FILES) -> list[Found]:
    """
    Read a journal, which another process may be writing.

    :returns: The uploads in it; none if there is no journal, or an empty one. Only
        regular files are opened, since opening a pipe would block.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return []
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return []
    with open(descriptor, "rb") as file:
        text = file.read(-1 if is_of_run(path) else LONGEST)
        try:
            # Without locks it cannot be known.
            files.lock(descriptor, fcntl.LOCK_SH)
            running = False
        except BlockingIOError:
            running = True
    if is_of_run(path):
        return [
            Found(path, each, running) for each in Lines.read(text).entries.values()
        ]
    if not text:
        return []
    try:
        return [Found(path, Entry.from_json(text), running)]
    except ValueError:
        return [Found(path, None, running)]


def left_by_runs(
    directory: Path, url: str, path: str, files: Files = FILES
) -> Found | None:
    """
    Find the unfinished upload of a file in the journals of runs that have ended. It
    blocks.

    :param url: The destination, without a query.
    :param path: The file, without symbolic links.
    """
    found = [
        each
        for journal in journals_of_runs(directory)
        for each in _look_if_ours(journal, files)
        if each.entry is not None
        and not each.running
        and not each.entry.done
        and (each.entry.url, each.entry.file.path) == (url, path)
    ]
    return max(found, key=_updated, default=None)


def _look_if_ours(journal: Path, files: Files) -> list[Found]:
    try:
        return look_at(journal, files)
    except PermissionError:
        return []


def _updated(found: Found) -> float:
    return 0.0 if found.entry is None else found.entry.updated


def forget(found: Iterable[Found], files: Files = FILES) -> int:
    """
    Remove uploads from their journals, but not from those that are in use or another
    user's. It blocks.

    :returns: How many were removed.
    :raises OSError: If that cannot be done.
    """
    names: dict[Path, list[str]] = {}
    for each in found:
        if each.entry is not None and not each.running:
            name = name_of(each.entry.url, each.entry.file.path)
            names.setdefault(each.path, []).append(name)
    forgotten = 0
    for path, of_path in names.items():
        with suppress(JournalError, PermissionError):
            if is_of_run(path):
                forgotten += forget_entries(path, of_path, files)
            else:
                descriptor, _ = locked(path, files=files)
                try:
                    path.unlink(missing_ok=True)
                finally:
                    os.close(descriptor)
                forgotten += 1
    return forgotten


def forget_old(directory: Path, now: float) -> None:
    """
    Remove uploads that are so old that no server knows their sessions any more.

    :param now: The time, in seconds since 1970.
    """
    if directory.is_dir():
        forget(
            each
            for each in look_into(directory)
            if each.entry is not None and each.entry.updated <= now - _OLD
        )
        for path in journals_of_runs(directory):
            # A run that was killed before it began a file leaves one without entries.
            with suppress(JournalError, FileNotFoundError, PermissionError):
                if path.stat().st_mtime <= now - _OLD:
                    forget_entries(path, ())


def open_journal(
    reactor: Any, source: FileSource, url: str, path: str | os.PathLike[str]
) -> Deferred[Journal]:
    """
    Open the journal of an upload, reading and writing in threads of the reactor.

    :param source: The file, which needs a name.
    :param url: The destination.
    :param path: The journal, or a directory for it.
    :returns: The result of :meth:`Journal.open`.
    :raises ValueError: If the source is not a complete file with a name.
    """
    if source.identity is None:
        raise ValueError("only a file with a name can be resumed")
    place = Path(path)
    if place.is_dir():
        place /= name_of(url, source.identity.path)
    run = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    return Journal.open(place, url, source.identity, time.time, run)
