"""
All bytes of an upload in one object, so that an application can read them.

Nobody can read the parts of a multipart upload before it is completed. Where an
application is asked, it therefore is an upload to a key of the session's, and not to
the destination. It is completed when all bytes are held.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer

from txbits._deferreds import begun, shielded
from txbits.backends._serving import Reading
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import Found, NotMet, NoUpload, WrongPart
from txbits.backends.s3._downloads import Stream
from txbits.backends.s3._measuring import find_file, read_tails, whole
from txbits.backends.s3._records import Record
from txbits.backends.s3._staged import Staged
from txbits.errors import BackendError, NoSuchSession, StagedDataLost

#: How often the parts are listed.
_MOST_ROUNDS = 10


async def file(staged: Staged) -> Found:
    """
    Put all bytes together as one object, and write its ETag into the record.

    :raises StagedDataLost: If some are missing.
    """
    found = await make_file(staged)
    if staged.record.file != found.etag:
        await write_file(staged, found.etag, lambda record: record)
    return found


async def make_file(staged: Staged) -> Found:
    """
    Put all bytes together as one object, unless they are.

    :raises StagedDataLost: If some are missing.
    """
    if staged.is_over or staged.releasing:
        raise StagedDataLost("the session is being released")
    if not staged.is_complete:
        raise BackendError("the upload is not complete")
    async with staged.filing:
        record = staged.record
        if record.file is None:
            return await _make(staged)
        return Found(staged.upload_key, record.file, record.total or 0, 0.0)


async def write_file(
    staged: Staged, etag: str, change: Callable[[Record], Record]
) -> None:
    """
    Write into the record which object is all bytes.

    :param change: Makes other changes in the same write.
    """

    def with_file(record: Record) -> Record:
        staged.require_standing()
        return change(record).changed(file=etag)

    try:
        await staged.update(with_file)
    except NoSuchSession:
        await staged.staging.bucket.delete(staged.upload_key)
        raise


async def _make(staged: Staged) -> Found:
    if staged.record.is_small:
        return await _put(staged, Body([staged.record.inline]))
    if staged.grid.cells > 1:
        return await _join(staged)
    if staged.copy:
        return await _put(staged, Body(staged.copy))
    memory = staged.staging.memory
    held = staged.offset
    await memory.take(held)
    try:
        return await _put(staged, Body(await read_tails(staged, 0, held)))
    finally:
        memory.give(held)


async def _put(staged: Staged, body: Body) -> Found:
    key = staged.upload_key
    try:
        # Once: stores that encrypt may give the same bytes another ETag each time.
        etag = await staged.staging.bucket.put(
            key, body, only_new=True, headers=staged.upload_headers
        )
    except NotMet:
        found = await staged.staging.bucket.head(key)
        if found is None or found.size != body.length:
            raise StagedDataLost(f"{key} is not what it was") from None
        return found
    return Found(key, etag, body.length, 0.0)


async def _join(staged: Staged) -> Found:
    """Complete the multipart upload."""
    bucket, key = staged.staging.bucket, staged.upload_key
    upload = staged.record.upload
    if upload is None:
        raise StagedDataLost("the record does not name its multipart upload")
    for _ in range(_MOST_ROUNDS):
        try:
            parts = whole(staged, await bucket.parts(key, upload))
            await bucket.complete(key, upload, parts, only_new=False)
        except StagedDataLost as error:
            # While another node completes it, some stores list only some of its parts.
            found = await find_file(staged)
            if found is None:
                await staged.reread()
                raise BackendError(
                    f"the listing of parts is incomplete: {error}"
                ) from error
            return found
        except WrongPart:
            # A node that serves an old Fragment has put the same part again.
            continue
        except NoUpload:
            # It was completed by another node, or the answer to this one was lost.
            pass
        found = await find_file(staged)
        if found is None:
            # Another node may have ended the session, and removed it.
            await staged.reread()
            staged.lost_parts()
            raise StagedDataLost("somebody has ended the multipart upload")
        return found
    raise BackendError(f"other nodes keep changing the parts of {staged.session_id}")


async def read_into(staged: Staged, consumer: IConsumer, start: int, end: int) -> None:
    """
    Feed staged bytes to a consumer.

    :raises StagedDataLost: If they are not there.
    """
    if staged.is_over or staged.releasing:
        raise StagedDataLost("the session is being released")
    if staged.record.is_small:
        inline = staged.record.inline

        def read(offset: int, length: int) -> Deferred[bytes]:
            return succeed(inline[offset : offset + length])

        await Reading(consumer, read).run(start, end)
        return
    found = await shielded(begun(file(staged)))
    staging = staged.staging
    await Stream(consumer, staging.bucket.client, staging.clock, found).run(start, end)
