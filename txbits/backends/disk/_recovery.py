"""
What a crash of the machine has left of a session on disk.

The kernel keeps written bytes, and names, in memory for a while. After a crash there is
of what was not synced whatever the file system likes: what was written, what was there
before, or a length without the bytes. Those read as zeros, and need not be a hole:
where a file grows within a block that is on the disk already, ext4 stores its new
length first. So only those bytes count that are *known* to have been on the disk: those
before the safe offset that the session's record tells of.
"""

from __future__ import annotations

import os
from contextlib import suppress
from uuid import UUID

from attrs import evolve

from txbits.backends._destinations import checked_segments
from txbits.backends.disk._answer_file import answer_name, reply_name
from txbits.backends.disk._probe import Way
from txbits.backends.disk._records import Phase, aside_name, part_name
from txbits.backends.disk._staging import Found, Staging
from txbits.errors import BackendError, ParentMissing

# How much is copied at a time.
_PIECE = 1 << 20

_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW = _WRITE | os.O_CREAT | os.O_TRUNC


def _new_name(session_id: UUID) -> str:
    return f"{part_name(session_id)}-new"


def settle(staging: Staging, found: Found) -> Found:
    """
    Make a session what :meth:`Staging.load` has found after a crash of the machine.

    It may take long, so it is for a thread. It may be cut short, and begun again.

    :returns: The same, settled.
    :raises BackendError: If that cannot be done, like OSError.
    """
    files, directory, record = staging.files, staging.directory, found.record
    session_id = record.session_id
    if not found.published and record.total is None:
        # The total was lost, and so all bytes are; others may go by the same name.
        with suppress(FileNotFoundError):
            files.unlink(part_name(session_id), dir_fd=directory)
    elif not found.published:
        _cut(staging, session_id, found.offset)
    if found.asked is not None and not found.asked.attempts:
        # It cannot be read, or is the beginning of one.
        for name in (answer_name(session_id), f"{answer_name(session_id)}-new"):
            with suppress(FileNotFoundError):
                files.unlink(name, dir_fd=directory)
    # Last: whoever finds it unsettled does all of this again.
    staging.table.mark(
        session_id,
        Phase.PUBLISHED if found.published else Phase.OPEN,
        record.total,
        min(record.safe, found.offset),
        is_kept=record.is_kept,
        in_doubt=found.in_doubt,
    )
    return evolve(found, is_settled=True)


def _cut(staging: Staging, session_id: UUID, length: int) -> None:
    """Remove what is behind the bytes that count."""
    files, directory = staging.files, staging.directory
    part, new_name = part_name(session_id), _new_name(session_id)
    staged = staging.staged(part)
    if staged is None or staged.st_size <= length:
        return
    with suppress(FileNotFoundError):  # an earlier attempt came no further
        files.unlink(new_name, dir_fd=directory)
    fd = files.open(part, _WRITE, dir_fd=directory)
    try:
        system = staging.file_system
        if staged.st_nlink < 2 and (system.shows_links or not system.links):
            files.ftruncate(fd, length)
            return
        # Somebody has linked to it, or has moved what was published from it, or may
        # have: there are file systems on which that does not show.
        new = files.open(new_name, _NEW, 0o666, dir_fd=directory)
        try:
            _copy(staging, fd, new, length)
        finally:
            files.close(new)
    finally:
        files.close(fd)
    files.rename(new_name, part, src_dir_fd=directory, dst_dir_fd=directory)


def _copy(staging: Staging, source: int, target: int, length: int) -> None:
    files = staging.files
    at = 0
    while at < length:
        piece = files.pread(source, min(length - at, _PIECE), at)
        stored = files.pwrite(target, piece, at)
        if not stored:
            raise BackendError(f"a staged file has {at} of {length} bytes")
        at += stored
    # Its safe bytes are to be safe in this one.
    files.fsync(target)


def is_published(
    staging: Staging, session_id: UUID, destination: tuple[str, ...]
) -> bool:
    """
    Tell whether a session that has no record was published. For a thread.

    A crash of the machine may have taken the record when the file stood there already:
    the staged file is the one at the destination then, or, where that does not show,
    has the same bytes.

    :raises BackendError: If that is not certain, like OSError.
    """
    if session_id in staging.table:
        return False
    staged = staging.staged(part_name(session_id))
    if staged is None:
        return False
    if staging.file_system.way is not Way.COMPARED:
        return staging.is_linked(destination, staged, staged.st_size)
    segments = checked_segments(destination)
    try:
        parent = staging.tree.open_parent(segments)
    except ParentMissing:
        return False
    try:
        return staging.is_same(session_id, segments, parent)
    finally:
        staging.tree.let_go(parent)


def remove_rest(staging: Staging, session_id: UUID) -> None:
    """
    Remove what is left of a session that was closed, and has no record any more.

    A crash of the machine may have taken back the end of its release. It may take a
    while.

    :raises OSError: If something is left.
    """
    if session_id in staging.table:
        return
    answer = answer_name(session_id)
    for name in (
        part_name(session_id),
        _new_name(session_id),
        aside_name(session_id),
        reply_name(session_id),
        answer,
        f"{answer}-new",
    ):
        with suppress(FileNotFoundError):
            staging.files.unlink(name, dir_fd=staging.directory)
    staging.answered.discard(session_id)
