"""
How a session ends: everything is removed, or everything except the record of its close.

First, the record announces that the session ends. Then its uploads, tails and other
objects are removed, and finally the record itself. If a node crashes in between,
another node can release the session. The announcement can be omitted if the file is
published, or if the session has nothing but its record. The record is removed, or
replaced by that of the close, on the condition that no other node has changed it: of
two nodes that end a session at the same moment, the second one learns what the first
has done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from twisted.internet.task import deferLater
from twisted.logger import Logger

from txbits.backends.s3._bucket import NoUpload
from txbits.backends.s3._records import closed
from txbits.backends.s3._staged import MOST_CHANGES, Staged
from txbits.backends.s3._staging import RECORD, Changed
from txbits.errors import BackendError, NoSuchSession

_log = Logger()

#: The maximum number of searches for leftovers.
_MOST_ROUNDS = 10

#: Seconds to wait after the first search for parts of an aborted upload. The wait grows
#: by the same time after each further search.
_PAUSE = 0.2


class _TakenBack(NoSuchSession):
    """The session was cancelled during its close, and its file was removed again."""


async def end(staged: Staged, how: Callable[[Staged], Awaitable[None]]) -> None:
    """
    End a session, once its writers have stopped.

    :param how: :func:`discard` or :func:`close`.
    """
    for writer in (staged.reply_writer, staged.writer):
        if writer is not None:
            await writer.abandon()
    staged.drop_copy()
    if not staged.is_over:
        await how(staged)
        staged.end()


async def discard(staged: Staged) -> None:
    """
    Remove everything.

    :raises BackendError: If something is left.
    """
    try:
        for _ in range(MOST_CHANGES):
            # Removing only a record is one step, and needs no announcement.
            if not staged.published and not staged.is_only_record:
                await staged.mark("releasing")
            if staged.record.state == "closing":
                await close(staged)
                return
            await _clear(staged)
            try:
                await staged.staging.remove(staged.session_id, staged.etag)
            except Changed as changed:
                staged.take(changed.found)
            else:
                return
    except NoSuchSession:
        # Another node was faster. What it has not removed yet is removed here.
        await _clear(staged)
        return
    raise staged.restless()


async def close(staged: Staged) -> None:
    """
    Remove everything except the record that the session was closed successfully.

    :raises NoSuchSession: If another node has cancelled the session, and the file that
        this node published was removed again.
    :raises BackendError: If something is left.
    """
    try:
        if not staged.published and not (
            staged.is_only_record and staged.record.state == "open"
        ):
            await staged.mark("closing")
        await _clear(staged)
        await _write_closed(staged)
    except _TakenBack:
        await _clear(staged)
        raise
    except NoSuchSession:
        await _clear(staged)


async def _write_closed(staged: Staged) -> None:
    staging = staged.staging
    record = closed(staged.session_id, staged.destination, staged.owner)
    for _ in range(MOST_CHANGES):
        try:
            await staging.write_closed(staged.session_id, record, staged.etag)
        except Changed as changed:
            is_cancelled = changed.found is None and staged.published
            is_taken_back = is_cancelled and await _take_back(staged)
            try:
                staged.take(changed.found)
            except NoSuchSession as error:
                if is_taken_back:
                    raise _TakenBack(str(error)) from error
                raise
        else:
            return
    raise staged.restless()


async def _take_back(staged: Staged) -> bool:
    """
    Remove the published file, because another node cancelled the session meanwhile.

    :returns: Whether there was a file to remove. One that replaced another file stays.
    """
    staging = staged.staging
    if staged.seen is None or staged.seen.etag is not None:
        return False
    found = await staging.is_published(staged.destination, staged.session_id)
    if found is None:
        return False
    # The condition prevents the removal of a file that was put there meanwhile.
    key = staging.settings.key(staged.destination)
    await staging.bucket.delete_if(key, found.etag)
    return True


async def _clear(staged: Staged) -> None:
    """
    Remove all objects and parts of a session, except its record.

    :raises BackendError: If something is left.
    """
    staging = staged.staging
    if staged.is_only_record:
        return
    for key, upload in await _uploads(staged):
        await _abort(staged, key, upload)
    if staged.has_strays or staged.record.has_strays:
        await _abort_strays(staged)
    directory = staging.directory(staged.session_id)
    for _ in range(_MOST_ROUNDS):
        keys = [one.key for one in await staging.bucket.every(directory)]
        keys = [key for key in keys if key != directory + RECORD]
        if not keys:
            staged.tails = set()
            return
        await staging.bucket.delete_all(keys)
    raise BackendError(f"objects of session {staged.session_id} remain")


async def _uploads(staged: Staged) -> list[tuple[str, str]]:
    """List the multipart uploads to abort, each with its key."""
    record, staging = staged.record, staged.staging
    destination = staging.settings.key(staged.destination)
    uploads = []
    publication = record.publication
    if publication is not None and not staged.published:
        uploads.append((destination, publication))
    if not record.is_staged:
        return uploads
    if record.upload is not None and record.file is None:
        uploads.insert(0, (staged.upload_key, record.upload))
    # The record contains neither the uploads of replies, nor an upload that a node had
    # just created when it crashed.
    found = await staging.bucket.uploads(staging.directory(staged.session_id))
    return uploads + [(one.key, one.upload) for one in found]


async def _abort_strays(staged: Staged) -> None:
    """
    Abort multipart uploads of this session whose ids are in no record.

    The store does not tell which session an upload belongs to, and other sessions may
    have uploads to the same key. So the uploads are listed first, and the records are
    read afterwards. By then, the record of a session that has created one of them
    contains its id, or no id at all. If a record has no id, nothing is aborted, and the
    clean-up does it later.
    """
    staging = staged.staging
    key = staging.settings.key(staged.destination)
    try:
        found = {
            one.upload for one in await staging.bucket.uploads(key) if one.key == key
        }
        if not found:
            return
        for record in await staging.records():
            if (
                record.session_id == staged.session_id
                or record.destination != staged.destination
                or not record.has_parts
            ):
                continue
            if record.publication is None:
                return
            found.discard(record.publication)
        for upload in found:
            await staging.bucket.abort(key, upload)
    except BackendError as error:
        _log.warn(
            "multipart uploads of session {session} remain until the clean-up: {why}",
            session=str(staged.session_id).upper(),
            why=str(error),
        )


async def _abort(staged: Staged, key: str, upload: str) -> None:
    staging = staged.staging
    for number in range(_MOST_ROUNDS):
        await staging.bucket.abort(key, upload)
        try:
            parts = await staging.bucket.parts(key, upload)
        except NoUpload:
            parts = []
        if not parts:
            staged.parts = set()
            return
        # Parts that were being sent may arrive after the upload was aborted.
        await deferLater(staging.clock, _PAUSE * (number + 1))
    raise BackendError(f"parts of session {staged.session_id} remain")
