"""
How a file appears at its destination.

A multipart upload is its own lock: it is either completed or aborted, once. A file that
is put whole has no such lock. It is put on the condition that the destination is as
this node saw it before, so that a second Close, on another node, cannot put an old file
over a newer one.

Where an application is asked, the file is first put together in the staging area, and
then copied within the store. It is copied as parts of a multipart upload, even where
one request could copy it whole: few stores but Amazon's support the conditions of
CopyObject.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, DeferredSemaphore

from txbits._deferreds import begun, together
from txbits.backends._naming import shown_path
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import (
    Found,
    NotMet,
    NoUpload,
    Part,
    WrongPart,
    fitting,
)
from txbits.backends.s3._grid import Grid, part_size_for
from txbits.backends.s3._measuring import has_published, measure, read_tails, whole
from txbits.backends.s3._staged import Staged
from txbits.backends.s3._staging import Seen
from txbits.backends.s3._storing import begin_multipart, give_upload_up
from txbits.errors import BackendError, DestinationExists, StagedDataLost

#: How often a condition is renewed, parts are listed, or a copy is begun again.
_MOST_ROUNDS = 10

#: How many parts are copied at a time.
_AT_ONCE = 4

#: For how many seconds a look at the destination is good, if a condition backs it.
_LOOK_LASTS = 60.0


async def publish(staged: Staged, *, overwrite: bool) -> None:
    """
    Publish a complete file from its record, its tails or its parts.

    :raises DestinationExists: If a file is there that may not be replaced.
    :raises StagedDataLost: If bytes are missing.
    """
    staging = staged.staging
    is_small = staged.record.is_small
    seen = staged.seen
    if (
        seen is None
        or seen.at < staging.clock.seconds() - _LOOK_LASTS
        or not is_small
        # Nothing is put then, so no condition would tell that it is free again.
        or (seen.etag is not None and not overwrite)
    ):
        seen = staged.seen = await staging.look(staged.destination, overwrite=True)
        if is_small:
            # Another node may have closed the session, and the file that is there may
            # be newer than this one.
            await staged.reread()
    if is_small:
        await _put(staged, seen, overwrite, Body([staged.record.inline]))
    elif staged.grid.cells == 1:
        await _put_tails(staged, seen, overwrite)
    else:
        await _complete(staged, overwrite)


async def _put_tails(staged: Staged, seen: Seen, overwrite: bool) -> None:
    """
    Put a file that is no longer than a part.

    :param seen: What was at the destination.
    """
    staging = staged.staging
    was_publishing = staged.record.state == "publishing"
    if was_publishing:
        await staged.reread()
    else:
        await staged.mark("publishing")
    if staged.copy:
        await _put(staged, seen, overwrite, Body(staged.copy))
        return
    length = staged.offset
    await staging.memory.take(length)
    try:
        try:
            tails = await read_tails(staged, 0, length)
        except StagedDataLost as error:
            await _tails_are_gone(staged, error, was_publishing=was_publishing)
            return
        await _put(staged, seen, overwrite, Body(tails))
    finally:
        staging.memory.give(length)


async def _tails_are_gone(
    staged: Staged, error: StagedDataLost, *, was_publishing: bool
) -> None:
    """
    Find out whether another node has published the tails, and removed them.

    :param was_publishing: Whether another node had announced that in the record.
    :raises NoSuchSession: If another node has ended the session.
    :raises StagedDataLost: If not.
    """
    await staged.reread()
    if await staged.staging.is_published(staged.destination, staged.session_id):
        return
    if was_publishing and await has_published(staged, is_cut=True):
        return
    await staged.update(
        lambda record: (
            record.changed(state="open", in_doubt=True)
            if record.state == "publishing"
            else None
        )
    )
    await measure(staged)
    raise error


async def _put(staged: Staged, seen: Seen, overwrite: bool, body: Body) -> None:
    staging = staged.staging
    destination = staged.destination
    for _ in range(_MOST_ROUNDS):
        staged.seen = seen
        if await _is_taken(staged, overwrite):
            return
        try:
            await staging.bucket.put(
                staging.settings.key(destination),
                body,
                only_new=seen.etag is None,
                instead_of=seen.etag,
                headers=staging.published_headers(staged.session_id),
            )
        except NotMet:
            if await staging.is_published(destination, staged.session_id):
                return
            # What this node knows of the session may be as old as its look was.
            await staged.reread()
            seen = await staging.look(destination, overwrite=True)
        else:
            return
    raise _restless(staged)


async def _is_taken(staged: Staged, overwrite: bool) -> bool:
    """
    Return whether the file at the destination, if there is one, makes publishing
    needless.

    :returns: Whether it is this very file.
    :raises DestinationExists: If it is another one that may not be replaced.
    """
    if staged.seen is None or staged.seen.etag is None or overwrite:
        return False
    if await staged.staging.is_published(staged.destination, staged.session_id):
        return True
    raise DestinationExists(f"{shown_path(staged.destination)} exists")


async def _was_not_free(staged: Staged) -> None:
    """
    Find out why the destination was not free when a multipart upload was completed.

    :raises DestinationExists: If another file is there.
    """
    staging = staged.staging
    if await staging.is_published(staged.destination, staged.session_id):
        return
    await staged.mark("open")
    await staging.look(staged.destination, overwrite=False)
    raise _restless(staged)


def _restless(staged: Staged) -> BackendError:
    return BackendError(f"somebody keeps changing {shown_path(staged.destination)}")


async def _complete(staged: Staged, overwrite: bool) -> None:
    """Complete the multipart upload of a file to its destination."""
    staging = staged.staging
    bucket = staging.bucket
    upload = staged.record.upload
    if upload is None:
        raise StagedDataLost("the record does not name its multipart upload")
    if await _is_taken(staged, overwrite):
        return
    key = staging.settings.key(staged.destination)
    for _ in range(_MOST_ROUNDS):
        was_there = False
        try:
            parts = whole(staged, await bucket.parts(key, upload))
            # All parts have been seen, so if the upload has ended, this tells that it
            # was completed.
            await staged.mark("publishing")
            was_there = True
            await bucket.complete(key, upload, parts, only_new=not overwrite)
        except StagedDataLost as error:
            # While another node completes it, some stores list only some of its parts.
            if await staging.is_published(staged.destination, staged.session_id):
                staged.offset = staged.grid.total
                return
            await staged.reread()
            # The upload exists, and single parts cannot be removed from it.
            raise BackendError(
                f"the listing of parts is incomplete: {error}"
            ) from error
        except NoUpload as error:
            if not await _was_completed(staged, was_there and not error.is_repeated):
                if staged.record.state == "publishing":
                    await give_upload_up(staged, upload)
                staged.lost_parts()
                raise StagedDataLost(
                    "somebody has ended the multipart upload"
                ) from error
        except WrongPart:
            # A node that serves an old Fragment has put the same part again.
            continue
        except NotMet:
            await _was_not_free(staged)
        return
    raise BackendError(f"other nodes keep changing the parts of {staged.session_id}")


async def _was_completed(staged: Staged, was_there: bool) -> bool:
    """
    Find out whether a multipart upload to the destination that has ended was completed.

    :param was_there: Whether this node has just listed it, and asked once to complete
        it.
    """
    if await staged.staging.is_published(staged.destination, staged.session_id):
        return True
    await staged.reread()
    return staged.record.state == "publishing" and await has_published(
        staged, was_there=was_there
    )


async def publish_copy(staged: Staged, source: Found, overwrite: bool) -> None:
    """
    Copy a file to its destination.

    :param source: The object that is all of it.
    """
    staging = staged.staging
    bucket = staging.bucket
    if await _is_taken(staged, overwrite):
        return
    key = staging.settings.key(staged.destination)
    for _ in range(_MOST_ROUNDS):
        was_there = False
        known = staged.record.copy
        upload = known or await begin_multipart(
            staged, "copy", key, staging.published_headers(staged.session_id)
        )
        try:
            parts = await _copy_parts(staged, key, upload, source, is_new=not known)
            # All parts have been seen, so if the upload has ended, this tells that it
            # was completed.
            await staged.mark("publishing")
            was_there = True
            await bucket.complete(key, upload, parts, only_new=not overwrite)
        except NoUpload as error:
            was_there = was_there and not error.is_repeated
            if await _was_completed(staged, was_there):
                return
            await _give_copy_up(staged, upload)
            if was_there:
                # If another node has completed it after all, it finishes meanwhile, and
                # nothing is copied over a file that may be newer.
                raise BackendError(f"somebody has aborted the copy {upload}") from error
            continue
        except StagedDataLost:
            # Another node may have ended the session, and removed it.
            await staged.reread()
            raise
        except WrongPart:
            # Another node has copied the same part again, or completed it.
            continue
        except NotMet:
            await _was_not_free(staged)
        return
    raise BackendError(f"other nodes keep changing the copy of {staged.session_id}")


async def _give_copy_up(staged: Staged, upload: str) -> None:
    """Note in the record that somebody has aborted the copy."""
    await staged.update(
        lambda record: (
            record.changed(state="open", copy=None) if record.copy == upload else None
        )
    )


async def _copy_parts(
    staged: Staged, key: str, upload: str, source: Found, *, is_new: bool
) -> list[Part]:
    """
    Copy the parts that are not copied yet.

    :param is_new: Whether none are.
    :returns: All parts.
    """
    staging = staged.staging
    bucket = staging.bucket
    size = part_size_for(source.size, staging.copy_part, staging.settings.max_parts)
    grid = Grid(source.size, size)
    parts = {} if is_new else fitting(grid, await bucket.parts(key, upload))
    missing = [number for number in range(grid.cells) if number not in parts]
    if missing:
        at_once = DeferredSemaphore(_AT_ONCE)

        def copy(number: int) -> Deferred[None]:
            return begun(
                bucket.copy_part(key, upload, number, source, grid.cell(number))
            )

        await together(*(at_once.run(copy, number) for number in missing))
        parts = fitting(grid, await bucket.parts(key, upload))
        if len(parts) < grid.cells:
            # While another node completes it, some stores list only some of its parts.
            raise WrongPart(f"parts of the copy of {staged.session_id} are missing")
    return [parts[number] for number in range(grid.cells)]
