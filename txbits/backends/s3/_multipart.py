"""
Multipart uploads of a session, whose ids are in its record.

Several nodes may begin one at the same time. The conditional write of the record
decides which one counts, and the others are aborted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from txbits.backends.s3._bucket import UnknownUploads
from txbits.backends.s3._records import Record
from txbits.backends.s3._staged import Staged
from txbits.errors import BackendError, NoSuchSession


async def upload_of(staged: Staged) -> str:
    """
    Get the multipart upload of the session's parts, and begin it if need be.

    :returns: Its id.
    """
    # Once for all parts that are being sent.
    await staged.beginning.acquire()
    try:
        return staged.record.upload or await begin_multipart(
            staged, "upload", staged.upload_key, staged.upload_headers, in_doubt=False
        )
    finally:
        staged.beginning.release()


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
        staged.standing()
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
