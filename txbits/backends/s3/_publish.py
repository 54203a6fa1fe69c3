"""
How a session ends: its file is published, and whatever else there is of it goes.

The multipart upload is its own lock: it is either completed or aborted, whoever comes
first. A file that is put whole has no such lock; it is put on the condition that
what stands at the destination is what was seen there before, so a Close that comes
twice, by two nodes, cannot put an old file over a newer one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.task import deferLater
from twisted.logger import Logger

from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import NotMet, NoUpload, Part, WrongPart
from txbits.backends.s3._grid import Grid, reach
from txbits.backends.s3._staging import RECORD, Seen, name_of
from txbits.errors import BackendError, DestinationExists, StagedDataLost

if TYPE_CHECKING:
    from txbits.backends.s3._session import S3Session

_log = Logger()

#: How often a condition is renewed, parts are listed, or leftovers are looked for.
_MOST_ROUNDS = 10

#: For how many seconds a file that was about to be published, and is not there, is
#: taken for one that was published, and taken away. Whoever has got no answer to a
#: Close comes again sooner; who aborts what is old, a rule of the bucket, comes later.
_TAKEN_AWAY = 3600.0

#: Seconds before parts of an aborted upload are looked for again, for each time before.
_PAUSE = 0.2


async def publish_whole(session: S3Session, seen: Seen, overwrite: bool) -> None:
    """
    Put a file that is no longer than a part.

    :param seen: What stood at the destination.
    """
    staging = session.staging
    if session.record.is_small:
        await _put(session, seen, overwrite, Body([session.record.inline]))
        return
    was_publishing = session.record.state == "publishing"
    if was_publishing:
        await session.reread()
    else:
        await session.mark("publishing")
    if session.copy:
        await _put(session, seen, overwrite, Body(session.copy))
        return
    length = session.offset
    await staging.memory.take(length)
    try:
        try:
            tails = await session.read_tails(0, length)
        except StagedDataLost as error:
            await _tails_are_gone(session, error, was_publishing=was_publishing)
            return
        await _put(session, seen, overwrite, Body(tails))
    finally:
        staging.memory.give(length)


async def _tails_are_gone(
    session: S3Session, error: StagedDataLost, *, was_publishing: bool
) -> None:
    """
    Find out whether another node has published them, and removed them.

    :param was_publishing: Whether the record said so before this node did.
    :raises NoSuchSession: If another node has ended the session.
    :raises StagedDataLost: If not.
    """
    await session.reread()
    if await session.staging.is_published(session.destination, session.session_id):
        return
    if was_publishing and await has_published(session, is_cut=True):
        return
    await session.update(
        lambda record: (
            record.changed(state="open", in_doubt=True)
            if record.state == "publishing"
            else None
        )
    )
    await session.measure()
    raise error


async def _put(session: S3Session, seen: Seen, overwrite: bool, body: Body) -> None:
    staging = session.staging
    destination = session.destination
    for _ in range(_MOST_ROUNDS):
        session.seen = seen
        if seen.etag is not None and not overwrite:
            if await staging.is_published(destination, session.session_id):
                return
            raise DestinationExists(f"{destination!a} exists")
        try:
            await staging.bucket.put(
                staging.settings.key(destination),
                body,
                only_new=seen.etag is None,
                instead_of=seen.etag,
                headers=staging.published_headers(session.session_id),
            )
        except NotMet:
            if await staging.is_published(destination, session.session_id):
                return
            # This node's copy of the session may be as old as its look was.
            await session.reread()
            seen = await staging.look(destination, overwrite=True)
        else:
            return
    raise BackendError(f"what stands at {destination!a} does not come to rest")


async def publish_parts(session: S3Session, overwrite: bool) -> None:
    """Complete the multipart upload of a file."""
    staging = session.staging
    bucket = staging.bucket
    upload = session.record.upload
    if upload is None:
        raise StagedDataLost("the record does not name its multipart upload")
    if session.seen is not None and session.seen.etag is not None and not overwrite:
        if await staging.is_published(session.destination, session.session_id):
            return
        raise DestinationExists(f"{session.destination!a} exists")
    key = staging.settings.key(session.destination)
    for _ in range(_MOST_ROUNDS):
        was_there = False
        try:
            parts = whole(session, await bucket.parts(key, upload))
            # Not before all parts were seen: when the upload has ended, this says that
            # it was completed.
            await session.mark("publishing")
            was_there = True
            await bucket.complete(key, upload, parts, only_new=not overwrite)
        except StagedDataLost as error:
            # Some stores list what is left of one that another node completes just now.
            if await staging.is_published(session.destination, session.session_id):
                session.offset = session.grid.total
                return
            await session.reread()
            # The upload stands, and nobody can take single parts out of it.
            raise BackendError(
                f"the listing of parts is incomplete: {error}"
            ) from error
        except NoUpload as error:
            was_there = was_there and not error.is_repeated
            await _upload_is_gone(session, upload, error, was_there=was_there)
        except WrongPart:
            # A node that serves an old fragment has put the same part again.
            continue
        except NotMet as error:
            if not await staging.is_published(session.destination, session.session_id):
                await session.mark("open")
                await staging.look(session.destination, overwrite=False)
                raise BackendError(
                    f"what stands at {session.destination!a} does not come to rest"
                ) from error
        return
    raise BackendError(f"the parts of {session.session_id} do not come to rest")


def fitting(grid: Grid, parts: list[Part]) -> dict[int, Part]:
    """Choose parts that are as long as their cells, one for each number."""
    right: dict[int, Part] = {}
    for one in parts:
        # Some stores list a part that was put again for each time, the latest first.
        if grid.is_part(one.number, one.size):
            right.setdefault(one.number, one)
    return right


def whole(session: S3Session, parts: list[Part]) -> list[Part]:
    """
    Choose the parts that are the file.

    :raises StagedDataLost: If they are not all there.
    """
    grid = session.grid
    right = fitting(grid, parts)
    if len(right) < grid.cells:
        session.parts = set(right)
        session.offset = reach([*map(grid.cell, right), *session.tails])
        raise StagedDataLost(f"{grid.cells - len(right)} parts are missing")
    return [right[number] for number in range(grid.cells)]


async def has_published(
    session: S3Session, *, was_there: bool = False, is_cut: bool = False
) -> bool:
    """
    Tell whether a multipart upload to the destination, which has ended, was completed
    after the record said that it was about to be.

    Only completing and aborting end one, and before we abort one the record says
    "releasing". If the file does not stand there, it was published, by another node or
    in an attempt whose answer got lost, and then taken away by whoever waited for it,
    or replaced; or somebody else has aborted the upload just then.

    :param was_there: Whether this node has just listed it, and asked once to complete
        it.
    :param is_cut: Whether it has none, and tails are missing that were there then.
        That is no proof: a file that is nowhere was not published.
    """
    staging = session.staging
    found = await staging.bucket.head(staging.settings.key(session.destination))
    if found is not None and found.session == name_of(session.session_id):
        return True
    if was_there:
        return False
    if not is_cut and staging.clock.seconds() - session.announced < _TAKEN_AWAY:
        return True
    return found is not None and staging.ours(found.modified) >= session.announced


async def _upload_is_gone(
    session: S3Session, upload: str, error: NoUpload, *, was_there: bool
) -> None:
    """
    Find out whether it was completed.

    :raises StagedDataLost: If not.
    """
    staging = session.staging
    if await staging.is_published(session.destination, session.session_id):
        return
    await session.reread()
    if session.record.state == "publishing":
        if await has_published(session, was_there=was_there):
            return
        await session.update(
            lambda record: (
                record.changed(state="open", upload=None, in_doubt=True)
                if record.upload == upload
                else None
            )
        )
    session.parts = set()
    session.offset = reach(session.tails)
    raise StagedDataLost("somebody has ended the multipart upload") from error


async def taken_back(session: S3Session) -> bool:
    """
    Take a file away again: another node cancelled the session while this one published
    it.

    :returns: Whether there was one to take; one that replaced another stays.
    """
    staging = session.staging
    if session.seen is None or session.seen.etag is not None:
        return False
    found = await staging.is_published(session.destination, session.session_id)
    if found is None:
        return False
    # Not what somebody may have put in its place just now.
    key = staging.settings.key(session.destination)
    await staging.bucket.delete(key, only=found.etag)
    return True


async def clear(session: S3Session) -> None:
    """
    Remove all objects and parts of a session, but for its record.

    :raises BackendError: If something is left.
    """
    staging = session.staging
    if session.is_only_record:
        return
    for key, upload in await session.uploads():
        await _abort(session, key, upload)
    if session.has_strays or session.record.has_strays:
        await _abort_strays(session)
    directory = staging.directory(session.session_id)
    for _ in range(_MOST_ROUNDS):
        keys = [one.key for one in await staging.bucket.every(directory)]
        keys = [key for key in keys if key != directory + RECORD]
        if not keys:
            session.tails = set()
            return
        await staging.bucket.delete_all(keys)
    raise BackendError(f"objects of {session.session_id} remain")


async def _abort_strays(session: S3Session) -> None:
    """
    Abort multipart uploads of this session that nobody has the ids of.

    The store does not tell whose an upload is, and other sessions may have some to the
    same key. So first the uploads are listed, and then the records are read: who had
    begun one of them has a record, which names it by then, or none at all. If there is
    one of the second kind, nothing is touched, and the clean-up does it later.
    """
    staging = session.staging
    key = staging.settings.key(session.destination)
    try:
        found = {
            one.upload for one in await staging.bucket.uploads(key) if one.key == key
        }
        if not found:
            return
        for record in await staging.records():
            if (
                record.session_id == session.session_id
                or record.destination != session.destination
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
            "multipart uploads of session {session} that nobody knows are left to the "
            "clean-up: {why}",
            session=session.session_id,
            why=str(error),
        )


async def _abort(session: S3Session, key: str, upload: str) -> None:
    staging = session.staging
    for number in range(_MOST_ROUNDS):
        await staging.bucket.abort(key, upload)
        try:
            parts = await staging.bucket.parts(key, upload)
        except NoUpload:
            session.parts = set()
            return
        if not parts:
            session.parts = set()
            return
        # Parts that were on their way may arrive after their upload was aborted.
        await deferLater(staging.clock, _PAUSE * (number + 1))
    raise BackendError(f"parts of {session.session_id} remain")
