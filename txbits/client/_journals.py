"""
Where journals are, and which there are.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool

from txbits.client._files import FILES, Files
from txbits.client._url import without_query
from txbits.client.journal import (
    LONGEST,
    Entry,
    Journal,
    JournalError,
    locked,
)
from txbits.client.source import FileSource

_SUFFIX = ".json"

#: After so many seconds a journal is old. Servers keep sessions for 14 days.
_OLD = 30 * 86400.0


def state_directory(environ: dict[str, str]) -> Path:
    """
    Where journals are kept if nothing else is said (XDG Base Directory Specification).

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


def name_of(url: str, path: str) -> str:
    """
    Name the journal of an upload.

    :param url: Where the file goes.
    :param path: The file, without symbolic links.
    """
    key = f"{without_query(url)}\n{path}".encode("utf-8", "surrogateescape")
    return hashlib.sha256(key).hexdigest()[:32] + _SUFFIX


@frozen
class Found:
    """
    A journal that lies in a directory.

    :ivar path: Where.
    :ivar entry: What it says; ``None`` if that cannot be read.
    :ivar running: Whether a process is at it.
    """

    path: Path
    entry: Entry | None
    running: bool


def look_into(directory: Path) -> Iterator[Found]:
    """
    Find the journals in a directory; nothing is changed by that.

    :raises OSError: If it cannot be read.
    """
    for path in sorted(directory.glob(f"*{_SUFFIX}")):
        try:
            found = look_at(path)
        except PermissionError:
            # In a folder of several users. It is nothing that this one can go on with.
            continue
        if found is not None:
            yield found


def forget_old(directory: Path, now: float) -> None:
    """
    Remove journals of which nobody has heard for so long that no server knows the
    session any more.

    :param now: The time, in seconds since 1970.
    """
    if not directory.is_dir():
        return
    for found in look_into(directory):
        entry = found.entry
        if entry is None or found.running or entry.updated > now - _OLD:
            continue
        try:
            descriptor, _ = locked(found.path)
        except (JournalError, PermissionError):
            # It is in use, or another user's.
            continue
        try:
            found.path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def look_at(path: Path, files: Files = FILES) -> Found | None:
    """
    Read a journal that may be another process's.

    :returns: ``None`` if there is none, or nothing in it yet. What is no ordinary file
        is none: a pipe would be waited for.
    """
    try:
        if not stat.S_ISREG(os.lstat(path).st_mode):
            return None
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        return None
    try:
        text = os.read(descriptor, LONGEST)
        try:
            # Without locks nothing tells.
            files.lock(descriptor, fcntl.LOCK_SH)
            running = False
        except BlockingIOError:
            running = True
    finally:
        os.close(descriptor)
    if not text:
        return None
    try:
        return Found(path, Entry.from_json(text), running)
    except ValueError:
        return Found(path, None, running)


def open_journal(
    reactor: Any, source: FileSource, url: str, path: str | os.PathLike[str]
) -> Deferred[Journal]:
    """
    Open the journal of an upload, reading and writing in threads of the reactor.

    :param source: What is uploaded; a file that has a name.
    :param url: Where it goes.
    :param path: Where the journal is; in a directory it has a name of its own.
    :returns: What :meth:`Journal.open` gives.
    :raises ValueError: If the source is no whole file with a name.
    """
    if source.identity is None:
        raise ValueError("only a file with a name can be gone on with")
    place = Path(path)
    if place.is_dir():
        place /= name_of(url, source.identity.path)
    run = partial(deferToThreadPool, reactor, reactor.getThreadPool())
    return Journal.open(place, url, source.identity, time.time, run)
