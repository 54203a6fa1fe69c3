"""
What a server application answers about an upload, and its reply.

The answer is in the record. The reply is an object, under another name for each
attempt, so that a node that was taken for dead cannot spoil the reply of another.
"""

from __future__ import annotations

from attrs import evolve

from txbits.backends.s3._downloads import served
from txbits.backends.s3._records import Record
from txbits.backends.s3._reply_writer import ReplyWriter
from txbits.backends.s3._staged import Staged
from txbits.backends.s3._whole import make_file, write_file
from txbits.errors import BackendError, NoSuchFile, NoSuchSession, StagedDataLost
from txbits.interfaces import Answer, IStoredFile


def reply_key(staged: Staged) -> str:
    """Return the key of the reply."""
    record = staged.record
    # That of this node's attempt, unless the answer is from another one.
    attempt = staged.attempt or record.attempts or 1
    if record.reply is not None:
        attempt = record.reply[0]
    return staged.staging.reply_key(staged.session_id, attempt)


async def begin_attempt(staged: Staged) -> int:
    """
    Count an attempt to ask the application, whose URL for all bytes works from now on.

    :returns: The number of attempts.
    :raises StagedDataLost: If bytes are missing.
    """
    found = await make_file(staged)

    def change(record: Record) -> Record:
        if record.answer is not None:
            raise BackendError("the application has answered for good")
        return evolve(record, attempts=record.attempts + 1)

    await write_file(staged, found.etag, change)
    staged.attempt = staged.record.attempts
    staged.reply_is_torn = False
    if staged.reply_writer is not None:
        await staged.reply_writer.abandon()
    return staged.attempt


def open_reply(staged: Staged) -> ReplyWriter:
    """
    Begin to write the reply.

    :raises NoSuchSession: If the session has ended.
    """
    staged.require_standing()
    if not staged.attempt or staged.record.answer is not None:
        raise BackendError("no application is being asked")
    if staged.reply_writer is not None:
        raise BackendError("the reply is being written already")
    writer = staged.reply_writer = ReplyWriter(staged, reply_key(staged))
    return writer


async def keep_answer(staged: Staged, answer: Answer) -> None:
    """
    Write the answer into the record, unless another node was first.

    :raises NoSuchSession: If the session has ended.
    """
    if staged.reply_writer is not None or staged.reply_is_torn:
        raise BackendError("the reply is incomplete")
    if not staged.attempt:
        raise BackendError("no application was asked")
    bucket = staged.staging.bucket
    key = reply_key(staged)
    found = await bucket.head(key)
    reply = None if found is None else (staged.attempt, found.etag)
    kept = evolve(answer, has_reply=found is not None)

    def change(record: Record) -> Record | None:
        staged.require_standing()
        # The client may have got the answer of the other node.
        if record.answer is not None:
            return None
        return record.changed(answer=kept, reply=reply)

    try:
        await staged.update(change)
    except NoSuchSession:
        if found is not None:
            await bucket.delete(key)
        raise


async def find_reply(staged: Staged) -> IStoredFile:
    """
    Look at the reply.

    :raises NoSuchFile: If there is none.
    :raises StagedDataLost: If it has been changed since the answer.
    """
    reply = staged.record.reply
    if reply is None or staged.is_over or staged.releasing:
        raise NoSuchFile(f"session {staged.session_id} has no reply")
    found = await staged.staging.bucket.head(reply_key(staged))
    if found is None:
        raise NoSuchFile(f"the reply of session {staged.session_id} is gone")
    if found.etag != reply[1]:
        raise StagedDataLost(f"the reply of session {staged.session_id} has changed")
    return served(staged.staging, found)
