"""
How bytes get into the bucket, and what is checked before they are acknowledged.

Bytes of a small file are written into the record. Those of a longer one become parts
and tails, which need no condition: each has only one possible content. So the record is
checked afterwards.
"""

from __future__ import annotations

from collections.abc import Iterable

from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import NoUpload
from txbits.backends.s3._grid import Span
from txbits.backends.s3._measuring import is_whole, measure
from txbits.backends.s3._multipart import give_upload_up, upload_of
from txbits.backends.s3._records import Record
from txbits.backends.s3._staged import Staged
from txbits.errors import BackendError, NoSuchSession, StagedDataLost


async def store_small(
    staged: Staged, total: int, part_size: int, start: int, data: bytes
) -> None:
    """Write bytes of a small file, and its length, into the record."""

    def change(record: Record) -> Record | None:
        staged.standing()
        if record.total not in (None, total):
            raise BackendError(f"the file has {record.total} bytes, not {total}")
        held = len(record.inline)
        if held < start:
            raise StagedDataLost(f"{held} bytes are held, not {start}")
        if record.total == total and held >= start + len(data):
            return None
        return record.changed(
            total=total,
            part_size=part_size,
            inline=record.inline + data[held - start :],
        )

    await staged.update(change)
    staged.acknowledged = staged.offset
    staged.progressed = staged.staging.clock.seconds()
    staged.staging.known.weigh(staged)


async def store_tail(staged: Staged, span: Span, body: Body) -> None:
    """Put bytes of a cell that is not full."""
    staging = staged.staging
    await staging.bucket.put(staging.tail_key(staged.session_id, span), body)
    staged.tails.add(span)


async def store_part(staged: Staged, number: int, body: Body) -> None:
    """
    Put a whole cell.

    :raises NoSuchSession: If the session was ended meanwhile.
    :raises BackendError: If only its multipart upload was: the client has to send what
        was in it again.
    """
    upload = staged.record.upload or await upload_of(staged)
    try:
        await staged.staging.bucket.put_part(staged.upload_key, upload, number, body)
    except NoUpload as error:
        await staged.reread()
        if await is_whole(staged):
            raise BackendError("all parts were there already") from error
        await give_upload_up(staged, upload)
        await measure(staged)
        raise BackendError(
            f"somebody has aborted the multipart upload {upload}"
        ) from error
    staged.parts.add(number)


async def prove(staged: Staged, tails: Iterable[Span]) -> None:
    """
    Make sure, before bytes of a long file are acknowledged, that the session stands,
    and that no other node has acknowledged more of it than is known here.

    While the record names this node, a look at the record is enough. If it does not,
    this node writes its name there; the node that was named before notices that before
    it acknowledges anything else.

    :param tails: What was written; it is removed if the session has ended.
    :raises NoSuchSession: If the session has ended.
    """
    try:
        if (
            not staged.is_named
            # An earlier attempt to list what others have stored failed.
            or staged.has_missed
            or not await staged.is_unchanged()
        ):
            await _take_over(staged)
        if staged.record.acknowledged > staged.offset:
            # They are lost, and this Ack tells the client so.
            await staged.update(
                lambda record: record.changed(acknowledged=staged.offset)
            )
        staged.acknowledged = staged.offset
    except NoSuchSession:
        await _remove(staged, tails)
        raise


async def look(staged: Staged, tails: Iterable[Span] = ()) -> None:
    """
    Check, after something was written, whether the session stands.

    :param tails: As for :func:`prove`.
    :raises NoSuchSession: If the session has ended.
    """
    try:
        await staged.is_unchanged()
    except NoSuchSession:
        await _remove(staged, tails)
        raise


async def _take_over(staged: Staged) -> None:
    """
    Write the name of this node into the record, and find what others have acknowledged.

    :raises NoSuchSession: If the session has ended.
    """

    def change(record: Record) -> Record | None:
        staged.standing()
        return record.changed(node=staged.staging.node, acknowledged=staged.offset)

    await staged.update(change)
    if staged.has_missed:
        await measure(staged)
    else:
        # The node that was named before may have acknowledged something after this one
        # had listed. That Ack was sent at the same time as this one will be, but the
        # next Fragment has to take it into account.
        staged.is_settled = False


async def _remove(staged: Staged, tails: Iterable[Span]) -> None:
    bucket = staged.staging.bucket
    await bucket.delete_all(
        [staged.staging.tail_key(staged.session_id, span) for span in tails]
    )
    if staged.record.upload is not None:
        await bucket.abort(staged.upload_key, staged.record.upload)
