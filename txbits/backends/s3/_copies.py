"""
How a file is published that was put together in the staging area: by a copy within the
store.

It is copied in parts of a multipart upload, also where one request could copy it whole.
That upload is completed once, or aborted, and completed with ``If-None-Match`` where
nothing may be replaced: the very things that files rest on which are not staged. Of the
conditions of CopyObject few stores but Amazon's have heard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred, DeferredSemaphore

from txbits._deferreds import begun, together
from txbits.backends.s3._bucket import Found, NotMet, NoUpload, Part, WrongPart
from txbits.backends.s3._grid import Grid, part_size_for
from txbits.backends.s3._publish import fitting, has_published
from txbits.backends.s3._records import Record
from txbits.errors import BackendError, DestinationExists, StagedDataLost

if TYPE_CHECKING:
    from txbits.backends.s3._answering import AnsweringSession

#: How often a copy is begun anew, or its parts are listed.
_MOST_ROUNDS = 10

#: How many parts are copied at a time.
_AT_ONCE = 4


async def publish_copy(
    session: AnsweringSession, source: Found, overwrite: bool
) -> None:
    """
    Copy a file to its destination.

    :param source: The object that is all of it.
    """
    staging = session.staging
    bucket = staging.bucket
    destination = session.destination
    if session.seen is not None and session.seen.etag is not None and not overwrite:
        if await staging.is_published(destination, session.session_id):
            return
        raise DestinationExists(f"{destination!a} exists")
    key = staging.settings.key(destination)
    for _ in range(_MOST_ROUNDS):
        was_there = False
        known = session.record.copy
        upload = known or await _begin(session, key)
        try:
            parts = await _copied(session, key, upload, source, is_new=not known)
            # Not before all parts were seen: when the upload has ended, this says that
            # it was completed.
            await session.mark("publishing")
            was_there = True
            await bucket.complete(key, upload, parts, only_new=not overwrite)
        except NoUpload as error:
            was_there = was_there and not error.is_repeated
            if await staging.is_published(destination, session.session_id):
                return
            await session.reread()
            if session.record.state == "publishing" and await has_published(
                session, was_there=was_there
            ):
                return
            await _forget(session, upload)
            if was_there:
                # Should another node have completed it after all, that comes to its end
                # meanwhile, and nothing is copied over what may be newer.
                raise BackendError(f"somebody has aborted the copy {upload}") from error
        except StagedDataLost:
            # Another node may have ended the session, and removed it.
            await session.reread()
            raise
        except WrongPart:
            # Another node has copied the same part again, or completed it.
            continue
        except NotMet as error:
            if await staging.is_published(destination, session.session_id):
                return
            await session.mark("open")
            await staging.look(destination, overwrite=False)
            raise BackendError(
                f"what stands at {destination!a} does not come to rest"
            ) from error
        else:
            return
    raise BackendError(f"the copy of {session.session_id} does not come to rest")


async def _begin(session: AnsweringSession, key: str) -> str:
    staging = session.staging
    headers = staging.published_headers(session.session_id)
    upload = await session.began(key, headers)

    def change(record: Record) -> Record | None:
        session.standing()
        if record.copy:
            return None
        return record.changed(
            copy=upload, has_strays=record.has_strays or session.has_strays
        )

    await session.named(key, upload, change)
    return session.chosen(session.record.copy)


async def _forget(session: AnsweringSession, upload: str) -> None:
    """Somebody has aborted the copy."""
    await session.update(
        lambda record: (
            record.changed(state="open", copy=None) if record.copy == upload else None
        )
    )


async def _copied(
    session: AnsweringSession, key: str, upload: str, source: Found, *, is_new: bool
) -> list[Part]:
    """
    Copy what is not copied yet, and tell all parts.

    :param is_new: Whether nothing is.
    """
    staging = session.staging
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
            # Some stores list what is left of one that another node completes just now.
            raise WrongPart(f"parts of the copy of {session.session_id} are missing")
    return [parts[number] for number in range(grid.cells)]
