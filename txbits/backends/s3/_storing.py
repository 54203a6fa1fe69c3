"""
How bytes get into the bucket, and what is checked before they are acknowledged.

Bytes of a small file are written into the record. Those of a longer one become parts
and tails, which need no condition: each has only one possible content. So the record is
checked afterwards.

Several nodes may begin a multipart upload at the same time. The conditional write of
the record decides which one counts, and the others are aborted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import NoUpload, UnknownUploads
from txbits.backends.s3._grid import Span
from txbits.backends.s3._knowledge import Event, Knowledge
from txbits.backends.s3._measuring import is_whole, measure
from txbits.backends.s3._records import Record
from txbits.backends.s3._staged import Staged
from txbits.errors import BackendError, NoSuchSession, StagedDataLost


async def store_small(
    staged: Staged, total: int, part_size: int, start: int, data: bytes
) -> None:
    """Write bytes of a small file, and its length, into the record."""

    def change(record: Record) -> Record | None:
        staged.require_standing()
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
    upload = staged.record.upload or await _upload_of(staged)
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


# Multipart uploads


async def _upload_of(staged: Staged) -> str:
    """
    Get the multipart upload of the session's parts, and begin it if need be.

    :returns: Its id.
    """
    # Once for all parts that are being sent.
    async with staged.beginning:
        return staged.record.upload or await begin_multipart(
            staged, "upload", staged.upload_key, staged.upload_headers, in_doubt=False
        )


async def begin_multipart(
    staged: Staged,
    name: Literal["upload", "copy"],
    key: str,
    headers: Mapping[str, str],
    **changes: Any,
) -> str:
    """
    Begin a multipart upload, and write its id into the record, unless another node has.

    :param name: The field of the record for the id.
    :param key: The key that it is to.
    :param headers: The headers that it is begun with.
    :param changes: What else to change in the record.
    :returns: The id that the record has then.
    """
    bucket = staged.staging.bucket
    try:
        begun = await bucket.begin_upload(key, headers)
    except UnknownUploads:
        staged.has_strays = True
        raise
    staged.has_strays = staged.has_strays or begun.is_repeated
    upload = begun.upload

    def change(record: Record) -> Record | None:
        staged.require_standing()
        if name == "upload" and staged.upload_key != key:
            # Older versions change the layout when they begin to ask an application.
            raise BackendError(f"another node has moved session {staged.session_id}")
        if getattr(record, name):
            return None
        return record.changed(
            **{name: upload},
            has_strays=record.has_strays or staged.has_strays,
            **changes,
        )

    try:
        await staged.update(change)
    except NoSuchSession:
        await bucket.abort(key, upload)
        raise
    except BackendError:
        # The record may name it, and another node use it. If it does not, nobody knows
        # its id.
        staged.has_strays = True
        raise
    named: str | None = getattr(staged.record, name)
    if named != upload:
        await bucket.abort(key, upload)
    if named is None:
        raise BackendError("the record does not name its multipart upload")
    return named


async def give_upload_up(staged: Staged, upload: str) -> None:
    """Note in the record that somebody has aborted the multipart upload."""
    await staged.update(
        lambda record: (
            record.changed(state="open", upload=None, in_doubt=True)
            if record.upload == upload
            else None
        )
    )


# Checks


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
            or staged.knowledge is Knowledge.OVERTAKEN
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
        staged.require_standing()
        return record.changed(node=staged.staging.node, acknowledged=staged.offset)

    await staged.update(change)
    staged.learn(Event.TAKEN_OVER)
    if staged.knowledge is Knowledge.OVERTAKEN:
        await measure(staged)


async def _remove(staged: Staged, tails: Iterable[Span]) -> None:
    bucket = staged.staging.bucket
    await bucket.delete_all(
        [staged.staging.tail_key(staged.session_id, span) for span in tails]
    )
    if staged.record.upload is not None:
        await bucket.abort(staged.upload_key, staged.record.upload)
