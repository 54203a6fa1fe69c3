"""
Sessions as they are found in the staging area: what is read back of them.

The record tells what was promised, the staged file what there is, and the destination
what was published. Within one boot of the machine, they agree as far as the process
came. After a system crash, each may be older than the others; then only safe bytes
count, and what is found has to be settled by :mod:`~txbits.backends.disk._recovery`
before it is used.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from attrs import evolve, frozen

from txbits.backends._destinations import checked_segments
from txbits.backends.disk._answer_file import Asked, UnreadableAnswer, read_answer
from txbits.backends.disk._files import READ, Files, opened, storage_error
from txbits.backends.disk._lines import Phase, Record
from txbits.backends.disk._probe import Way
from txbits.backends.disk._staged import part_name
from txbits.backends.disk._staging import Staging
from txbits.errors import (
    BackendError,
    DestinationForbidden,
    DestinationIsDirectory,
    NoSuchSession,
    ParentMissing,
)
from txbits.interfaces import SessionDetails, SessionSummary

# How many bytes are compared at a time.
_COMPARED = 1 << 20


@frozen
class Found:
    """
    A session as it lies on disk.

    :ivar offset: How many bytes are staged; all of them if it is published.
    :ivar last_progress: When they were stored, in seconds since the epoch.
    :ivar published: Whether its file stands at the destination.
    :ivar in_doubt: Whether acknowledged bytes may be missing.
    :ivar asked: What an application answered; ``None`` if none was asked.
    :ivar is_settled: Whether the staging area agrees with this. If not, the machine may
        have crashed, and :func:`~txbits.backends.disk._recovery.settle` has to repair
        the session.
    """

    record: Record
    offset: int
    last_progress: float
    published: bool
    in_doubt: bool
    asked: Asked | None = None
    is_settled: bool = True

    @property
    def releasing(self) -> bool:
        """Whether its release has begun."""
        return self.record.phase is Phase.RELEASING


def load(staging: Staging, session_id: UUID) -> Found:
    """
    Read a session back.

    :raises NoSuchSession: If there is none.
    :raises BackendError: If it cannot be read, like OSError.
    """
    table = staging.table
    part = part_name(session_id)
    staged = staging.staged(part)
    try:
        record = table.read(session_id)
    except NoSuchSession:
        if staged is not None and table.damaged:
            raise BackendError(
                f"{part} may belong to a session whose record cannot be read"
            ) from table.damaged[0]
        raise
    has_crashed = not table.is_current(record.boot)
    asked = _asked(staging, session_id, has_crashed)
    if asked is not None and asked.has_taken:
        # The application may have moved or changed the bytes, or linked them anywhere.
        last = asked.written if staged is None else staged.st_mtime
        last -= staging.disk_ahead
        return Found(record, record.total or 0, last, False, False, asked)
    # Acknowledged bytes may be missing if there was no fsync before the Ack.
    in_doubt = record.in_doubt or (has_crashed and not record.is_kept)
    is_settled = not has_crashed or record.phase is Phase.RELEASING
    total, phase = record.total, record.phase
    if staged is None:
        published = phase in (Phase.PUBLISHING, Phase.PUBLISHED) and (
            not has_crashed or _stands(staging, record.destination, total)
        )
        return Found(
            record,
            (total or 0) if published else 0,
            (asked.written - staging.disk_ahead)
            if asked is not None and asked.written
            else record.created,
            published,
            # There was a staged file once.
            not published
            and (in_doubt or (phase is not Phase.RELEASING and total is not None)),
            asked,
            is_settled,
        )
    if (
        total is None
        and has_crashed
        and is_linked(staging, record.destination, staged, staged.st_size)
    ):
        # The file was synced before it was linked; the record was not.
        record = evolve(record, total=staged.st_size)
        total = record.total
    if total is None:
        # A system crash has lost the total. If it was acknowledged, the Ack promised
        # nothing about crashes.
        return Found(record, 0, record.created, False, in_doubt, asked, is_settled)
    if staged.st_size > total:
        raise BackendError(f"{part} has {staged.st_size} bytes")
    # After a system crash the record may be wrong: the link may be lost.
    published = (phase is Phase.PUBLISHED and not has_crashed) or is_linked(
        staging, record.destination, staged, total
    )
    offset = staged.st_size
    if not (is_settled or published):
        # A session whose release has begun keeps its length: its release takes long if
        # the file is long.
        offset = min(offset, record.safe)
    return Found(
        record,
        offset,
        staged.st_mtime - staging.disk_ahead,
        published,
        # Bytes that are known to have been stored may be gone nevertheless.
        offset < total and (in_doubt or offset < record.safe),
        asked,
        is_settled,
    )


def _asked(staging: Staging, session_id: UUID, has_crashed: bool) -> Asked | None:
    """
    Read what an application answered.

    :raises BackendError: If it cannot be read.
    """
    if session_id not in staging.answered:
        return None
    try:
        return read_answer(staging.files, staging.directory, session_id)
    except UnreadableAnswer as error:
        if has_crashed:
            # An answer that matters is synced. This file says at most that the
            # application was asked.
            return Asked()
        raise BackendError(str(error)) from error


def summaries(
    staging: Staging, session_ids: Iterable[UUID]
) -> tuple[list[SessionSummary], list[BackendError]]:
    """
    Read sessions back. Slow; for a thread.

    :returns: What :func:`load` finds, and the errors of those that it fails on.
    """
    found: list[SessionSummary] = []
    faults: list[BackendError] = []
    for one in _loaded(lambda _: staging, session_ids, faults):
        note_unsafe(staging, one)
        found.append(
            SessionSummary(
                one.record.session_id,
                one.record.owner,
                one.last_progress,
                one.published or one.releasing,
                one.published and not one.releasing,
                one.record.total or 0,
            )
        )
    return found, faults


def details(
    staging_of: Callable[[UUID], Staging], session_ids: Iterable[UUID]
) -> tuple[list[SessionDetails], list[BackendError]]:
    """
    Read sessions back for operators, as :func:`summaries` does.

    :param staging_of: Tells where a session is.
    """
    faults: list[BackendError] = []
    found = [
        SessionDetails(
            session_id=one.record.session_id,
            destination=one.record.destination,
            owner=one.record.owner,
            content_name=one.record.content_name,
            created=one.record.created,
            total=one.record.total,
            offset=one.offset,
            last_progress=one.last_progress,
            published=one.published,
            releasing=one.releasing,
            in_doubt=one.in_doubt,
            attempts=0 if one.asked is None else one.asked.attempts,
            answer=None if one.asked is None else one.asked.answer,
        )
        for one in _loaded(staging_of, session_ids, faults)
    ]
    return found, faults


def _loaded(
    staging_of: Callable[[UUID], Staging],
    session_ids: Iterable[UUID],
    faults: list[BackendError],
) -> Iterator[Found]:
    """
    Read sessions back.

    :param staging_of: Tells where a session is.
    :param faults: Gets the errors of those that cannot be read.
    """
    for session_id in session_ids:
        try:
            yield load(staging_of(session_id), session_id)
        except NoSuchSession:
            continue  # released meanwhile
        except BackendError as fault:
            faults.append(fault)
        except OSError as error:
            faults.append(storage_error(error))


def note_unsafe(staging: Staging, found: Found) -> None:
    """Note a session that may have more bytes than its record says are safe."""
    record = found.record
    if found.offset > record.safe and staging.is_to_be_safe and not found.published:
        staging.table.note_unsafe(record.session_id)


# -- what stands at the destination


def is_published(
    staging: Staging, session_id: UUID, destination: tuple[str, ...]
) -> bool:
    """
    Tell whether a session without a record was published. For a thread.

    A system crash may have lost the record after the file was published: then the
    staged file is the one at the destination, or has the same bytes where that does not
    show.

    :raises BackendError: If that is not certain, like OSError.
    """
    if session_id in staging.table:
        return False
    staged = staging.staged(part_name(session_id))
    if staged is None:
        return False
    if staging.file_system.way is not Way.COMPARED:
        return is_linked(staging, destination, staged, staged.st_size)
    segments = checked_segments(destination)
    try:
        parent = staging.tree.open_parent(segments)
    except ParentMissing:
        return False
    try:
        return is_same(staging, session_id, segments, parent)
    finally:
        staging.tree.let_go(parent)


def is_linked(
    staging: Staging, destination: tuple[str, ...], staged: os.stat_result, total: int
) -> bool:
    """Tell whether a staged file is the one at its destination."""
    if staged.st_nlink < 2 or staged.st_size != total:
        return False
    there = _at(staging, destination)
    return there is not None and os.path.samestat(there, staged)


def is_same(
    staging: Staging, session_id: UUID, segments: tuple[str, ...], parent: int
) -> bool:
    """
    Tell whether the file at a destination has the bytes of a staged file. For a thread.

    This finds a link where the file system does not show that it is one, if it was made
    before a crash, or could not be undone.

    :param parent: The descriptor of the destination's directory.
    :raises BackendError: If that cannot be told, like OSError.
    """
    files = staging.files
    part = part_name(session_id)
    there = staging.tree.check_name(parent, segments, overwrite=True)
    here = staging.staged(part)
    if (
        here is None
        or there is None
        or not stat.S_ISREG(there.st_mode)
        or there.st_size != here.st_size
    ):
        return False
    with (
        opened(files, part, READ, staging.directory) as staged,
        opened(files, segments[-1].encode(), READ, parent) as other,
    ):
        return _same_bytes(files, staged, other)


def _same_bytes(files: Files, one: int, other: int) -> bool:
    at = 0
    while True:
        bytes_of_one = files.pread(one, _COMPARED, at)
        if bytes_of_one != files.pread(other, _COMPARED, at):
            return False
        if not bytes_of_one:
            return True
        at += len(bytes_of_one)


def _stands(staging: Staging, destination: tuple[str, ...], total: int | None) -> bool:
    """
    Tell whether the file at a destination may be the one published there.

    A missing staged file does not prove that it was published: the record may have
    reached the disk before the file's name did.
    """
    there = _at(staging, destination)
    return there is not None and stat.S_ISREG(there.st_mode) and there.st_size == total


def _at(staging: Staging, destination: tuple[str, ...]) -> os.stat_result | None:
    """Look at what stands at a destination."""
    tree = staging.tree
    try:
        segments = checked_segments(destination)
        parent = tree.open_parent(segments)
        try:
            return tree.check_name(parent, segments, overwrite=True)
        finally:
            tree.let_go(parent)
    except (DestinationForbidden, DestinationIsDirectory, ParentMissing):
        return None
