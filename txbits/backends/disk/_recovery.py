"""
How sessions on disk are prepared for a system crash, and repaired after one.

The kernel keeps written bytes and names in memory for a while. After a crash, a file
that was not synced has what was written, what was there before, or its new length
without the bytes. Such bytes read as zeros, and need not be a hole: where a file grows
within a block that is on the disk already, ext4 stores its new length first. So only
those bytes count that are *known* to have been on the disk: those before the safe
offset in the session's record.

With ``fsync = "close"``, nothing waits for the bytes of an open upload to reach the
disk. Before a planned reboot servers are stopped, and :func:`secure_all` syncs these
bytes, so that uploads continue where they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from uuid import UUID

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txbits._deferreds import deferred, together
from txbits.backends._destinations import checked_segments
from txbits.backends.disk._answer_file import answer_name, reply_name
from txbits.backends.disk._files import READ_WRITE, WRITE, opened, remove, translated
from txbits.backends.disk._found import Found, load
from txbits.backends.disk._lines import EVERY_BOOT, Phase, Record
from txbits.backends.disk._probe import sync_names
from txbits.backends.disk._records import aside_name
from txbits.backends.disk._staged import Staged, part_name
from txbits.backends.disk._staging import Staging
from txbits.errors import BackendError, NoSuchSession, ParentMissing, StagedDataLost

_log = Logger()

# How many bytes are copied at a time.
_PIECE = 1 << 20

# For how many seconds new fsyncs are started, and how many run at a time.
_LONGEST = 5.0
_AT_A_TIME = 8

_NEW = READ_WRITE | os.O_CREAT | os.O_TRUNC


def _new_name(session_id: UUID) -> str:
    return f"{part_name(session_id)}-new"


def settle(staging: Staging, found: Found) -> Found:
    """
    Make a session agree with what was found of it after a system crash. For a thread.

    If this is interrupted, it can start again.

    :returns: The same, settled.
    :raises BackendError: If that fails, like OSError.
    """
    files, directory, record = staging.files, staging.directory, found.record
    session_id = record.session_id
    if not found.published and record.total is None:
        # The total is lost, and with it all bytes. The name may be used again.
        part = part_name(session_id)
        if staging.staged(part) is not None:
            remove(files, part, directory)
            _keep_names(staging)
    elif not found.published:
        _cut(staging, session_id, found.offset)
    if found.asked is not None and not found.asked.attempts:
        # It is unreadable or incomplete.
        for name in (answer_name(session_id), f"{answer_name(session_id)}-new"):
            remove(files, name, directory)
    # Last: a session that is found unsettled is settled again.
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
    """Cut off the bytes that do not count."""
    files, directory = staging.files, staging.directory
    part, new_name = part_name(session_id), _new_name(session_id)
    staged = staging.staged(part)
    if staged is None or staged.st_size <= length:
        return
    remove(files, new_name, directory)  # of an earlier, interrupted attempt
    with opened(files, part, READ_WRITE, directory) as fd:
        system = staging.file_system
        if staged.st_nlink < 2 and (system.shows_links or not system.links):
            files.ftruncate(fd, length)
            return
        # Another name of the file exists, such as that of a moved publication, or may
        # exist: some file systems do not show that. That file must stay as it is.
        with opened(files, new_name, _NEW, directory, 0o666) as new:
            _copy(staging, fd, new, length)
    files.rename(new_name, part, src_dir_fd=directory, dst_dir_fd=directory)
    _keep_names(staging)


def _keep_names(staging: Staging) -> None:
    """
    Sync the names of staged files if sessions have to survive a system crash.

    Otherwise the next crash may give a name back to the file that had it before, and
    what the record tells of its successor would be believed of that.
    """
    if staging.is_to_be_safe:
        sync_names(staging.files, staging.directory)


def _copy(staging: Staging, source: int, target: int, length: int) -> None:
    files = staging.files
    at = 0
    while at < length:
        piece = files.pread(source, min(length - at, _PIECE), at)
        stored = files.pwrite(target, piece, at)
        if not stored:
            raise BackendError(f"a staged file has {at} of {length} bytes")
        at += stored
    # The safe bytes have to be safe in the copy as well.
    files.fsync(target)


def decide_published(
    staging: Staging, go_on: Callable[[], None] = lambda: None
) -> None:
    """
    Settle the sessions that may have been published before a system crash, and
    :func:`keep_published` those that were. It blocks.

    The file at the destination tells, but only until another upload replaces it. So the
    start does this, before anything is published.

    :param go_on: Called again and again; raises an exception to stop this.
    """
    published = []
    for session_id in staging.table.undecided:
        go_on()
        try:
            found = load(staging, session_id)
            if not found.is_settled:
                found = settle(staging, found)
        except (OSError, BackendError) as fault:
            _not_decided(fault)
            continue
        if found.published:
            published.append(found.record)
    staging.table.undecided.clear()
    try:
        keep_published(staging, published)
    except (OSError, BackendError) as fault:
        _not_decided(fault)


def _not_decided(fault: Exception) -> None:
    # Only these sessions suffer: each is looked at again when it is found.
    _log.error("could not settle what was published: {fault}", fault=fault)


def keep_published(staging: Staging, records: Iterable[Record]) -> None:
    """
    Have records tell that their sessions were published, and sync what they tell if
    sessions have to survive a system crash. It blocks.

    :raises BackendError: If that fails, like OSError.
    """
    records = [one for one in records if one.boot != EVERY_BOOT]
    is_to_be_safe = staging.is_to_be_safe
    if is_to_be_safe:
        # First: from then on, no crash undoes it, and another file that replaces this
        # one is no reason to doubt the record.
        for destination in {
            one.destination[:-1]: one.destination for one in records
        }.values():
            sync_parent(staging, destination)
    for one in records:
        # Once the staged file is gone, only the record tells that.
        if is_to_be_safe or one.phase is Phase.OPEN:
            staging.table.mark(
                one.session_id,
                Phase.PUBLISHED,
                one.total,
                one.safe,
                is_kept=one.is_kept,
                in_every_boot=is_to_be_safe,
            )
    if is_to_be_safe and records:
        staging.files.fsync(staging.table.fd)


def sync_parent(staging: Staging, destination: tuple[str, ...]) -> None:
    """
    Sync the directory of a destination, if it still exists. It blocks.

    :raises BackendError: If that fails, like OSError.
    """
    try:
        parent = staging.tree.open_parent(checked_segments(destination))
    except ParentMissing:
        return  # removed meanwhile, with the file in it
    try:
        sync_names(staging.files, parent)
    finally:
        staging.tree.let_go(parent)


def remove_rest(staging: Staging, session_id: UUID) -> None:
    """
    Remove what is left of a closed session that has no record. It may take a while.

    A system crash may have undone the end of its release.

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
        remove(staging.files, name, staging.directory)
    staging.answered.discard(session_id)


@deferred
async def secure_all(staging: Staging, seconds: Callable[[], float]) -> None:
    """
    Sync the bytes of all sessions, as far as that takes a few seconds. The sessions
    must be idle.

    Bytes that are not synced count nevertheless, unless the machine reboots.

    :param seconds: A clock.
    :returns: A Deferred that fires with ``None``. It fails with
        :class:`~txbits.errors.BackendError` if the records cannot be synced.
    """
    waiting = staging.table.unsafe()
    if not waiting:
        return
    ends = seconds() + _LONGEST

    def next_ones() -> Iterator[UUID]:
        while waiting and seconds() < ends:
            yield waiting.pop()

    ids = next_ones()
    work = (_secure_some(staging, ids) for _ in range(_AT_A_TIME))
    await together(*map(Deferred.fromCoroutine, work))
    await staging.sync_table()
    if waiting:
        _log.warn(
            "{sessions} open uploads hold bytes that were not synced; clients resend "
            "them if the machine reboots now",
            sessions=len(waiting),
        )


async def _secure_some(staging: Staging, ids: Iterator[UUID]) -> None:
    for session_id in ids:
        try:
            await _secure(staging, session_id)
        except (NoSuchSession, StagedDataLost):
            continue  # released meanwhile
        except BackendError as fault:
            _log.error(
                "could not sync session {session}: {fault}",
                session=str(session_id).upper(),
                fault=fault,
            )


async def _secure(staging: Staging, session_id: UUID) -> None:
    files = staging.files
    record = translated(staging.table.read, session_id)
    if record.phase is not Phase.OPEN or record.total is None:
        return
    staged = Staged(session_id, staging, 0.0, record.total)
    staged.in_doubt, staged.safe = record.in_doubt, record.safe
    staged.is_kept = record.is_kept
    fd = translated(staged.open, WRITE)
    try:
        staged.offset = translated(files.fstat, fd).st_size
        try:
            await staging.sync(fd)
        except BackendError:
            # What was stored is unknown, and a second fsync would not tell. The bytes
            # that are cut off were acknowledged, so the next Close-Session must not
            # count as a request to discard an incomplete file.
            staged.in_doubt = True
            translated(staged.mark, Phase.OPEN)
            await staging.in_thread(translated, files.ftruncate, fd, record.safe)
            raise
    finally:
        translated(files.close, fd)
    translated(staged.record_safe)
