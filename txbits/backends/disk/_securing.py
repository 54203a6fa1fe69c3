"""
What sessions on disk hold, made safe when the backend stops.

With the setting ``close`` nobody waits for the bytes of an upload under way to get to
the disk, and after the machine was started anew only those count that are known to be
there. A machine that is started anew as planned stops its servers before, so uploads
go on from where they were.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txbits._deferreds import deferred
from txbits.backends.disk._files import translated
from txbits.backends.disk._records import Phase, part_name
from txbits.backends.disk._staging import Staging
from txbits.backends.disk._syncs import all_done
from txbits.errors import BackendError, NoSuchSession

_log = Logger()

# For how many seconds fsyncs are begun, and how many are under way at a time.
_LONGEST = 5.0
_AT_A_TIME = 8

_WRITE = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


@deferred
async def secure_all(staging: Staging, seconds: Callable[[], float]) -> None:
    """
    Make safe what all sessions hold, as far as that is done in a few seconds. Nothing
    may go on in any of them.

    What is not made safe stays as it is: it counts, unless the machine is started anew.

    :param seconds: Tells the time.
    :returns: A Deferred that fires with ``None``. It fails with
        :class:`~txbits.errors.BackendError` if the records cannot be stored.
    """
    waiting = staging.unsafe
    if not waiting:
        return
    ends = seconds() + _LONGEST

    def next_ones() -> Iterator[UUID]:
        while waiting and seconds() < ends:
            yield waiting.pop()

    ids = next_ones()
    work = (_secure_some(staging, ids) for _ in range(_AT_A_TIME))
    await all_done(*map(Deferred.fromCoroutine, work))
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
        except NoSuchSession:
            continue  # gone meanwhile
        except BackendError as fault:
            _log.error(
                "could not sync session {session_id}: {fault}",
                session_id=session_id,
                fault=fault,
            )


async def _secure(staging: Staging, session_id: UUID) -> None:
    files = staging.files
    record = translated(staging.table.read, session_id)
    if record.phase is not Phase.OPEN or record.total is None:
        return
    fd = translated(_opened, staging, session_id)
    try:
        held = translated(files.fstat, fd).st_size
        try:
            await staging.sync(fd)
        except BackendError:
            # Nobody knows what was stored, and a second fsync would not tell. What is
            # cut off was acknowledged, so a Close-Session that comes next must not be
            # taken for the wish to discard half a file.
            translated(_mark, staging, session_id, record.safe, True)
            await staging.in_thread(translated, files.ftruncate, fd, record.safe)
            raise
    finally:
        translated(files.close, fd)
    translated(_mark, staging, session_id, held)


def _opened(staging: Staging, session_id: UUID) -> int:
    try:
        return staging.files.open(
            part_name(session_id), _WRITE, dir_fd=staging.directory
        )
    except FileNotFoundError as error:
        raise NoSuchSession(str(error)) from None


def _mark(
    staging: Staging, session_id: UUID, safe: int, has_lost: bool = False
) -> None:
    record = staging.table.read(session_id)
    staging.table.mark(
        session_id,
        record.phase,
        record.total,
        safe,
        is_kept=record.is_kept,
        in_doubt=record.in_doubt or has_lost,
    )
