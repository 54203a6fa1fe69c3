"""
How far a session has got: what the bucket has of it, and whether it is published.

The multipart upload of a session ends when it is completed or aborted, and S3 does not
say which. So the record announces a completion, and the object tells whether it came.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from txbits._deferreds import begun, together
from txbits.backends.s3._bucket import Found, NoUpload, Part, fitting
from txbits.backends.s3._grid import cover, reach, tail_span
from txbits.backends.s3._knowledge import Event
from txbits.backends.s3._staged import MOST_CHANGES, Staged
from txbits.backends.s3._staging import name_of
from txbits.errors import StagedDataLost

#: For how many seconds after an announcement a file that is missing counts as
#: published, and then taken away. A client whose Close was not answered tries again
#: sooner; a lifecycle rule of the bucket that aborts old uploads acts later.
_TAKEN_AWAY = 3600.0


async def look_anew(staged: Staged) -> None:
    """
    Read the record again, and measure.

    :raises NoSuchSession: If the session is over.
    """
    staged.take(await staged.staging.read(staged.session_id))
    await measure(staged)


async def measure(staged: Staged) -> None:
    """
    Find out how many bytes are held, and whether the file is published.

    :raises NoSuchSession: If the session is over.
    """
    staged.opened_total = None
    if staged.record.is_staged:
        await _measure_file(staged)
    else:
        await _measure_upload(staged)
    if staged.published and staged.record.total is not None:
        staged.offset = staged.record.total


async def _measure_upload(staged: Staged) -> None:
    """Measure a session whose parts go to the destination."""
    is_ended = is_cut = False
    if not staged.record.is_small and staged.record.total is not None:
        is_ended = await _measure_grid(staged)
    record = staged.record
    if record.state == "publishing" and not record.is_small:
        # Tails are removed once the file is published.
        is_cut = not staged.is_complete and staged.grid.cells == 1
    if is_ended and record.state == "publishing":
        staged.published = await has_published(staged)
    elif is_cut:
        staged.published = await has_published(staged, is_cut=True)
    elif _may_be_published(staged):
        staged.published = await _is_at_destination(staged)
    # Somebody has aborted the upload, and acknowledged bytes with it.
    staged.in_doubt = record.in_doubt or (
        (is_ended or is_cut)
        and not staged.published
        and record.state in ("open", "publishing")
    )


async def _measure_file(staged: Staged) -> None:
    """Measure a session whose bytes are put together as one object first."""
    record = staged.record
    staged.in_doubt = record.in_doubt
    if record.total is not None and not record.is_small and record.file is None:
        is_ended = await _measure_grid(staged)
        if record is not staged.record:
            # Another node has changed it meanwhile.
            record = staged.record
            staged.in_doubt = record.in_doubt
            is_ended = is_ended and record.file is None
        if is_ended and await find_file(staged) is None:
            # Somebody has aborted the upload, and acknowledged bytes with it.
            staged.in_doubt = True
        elif is_ended:
            staged.offset = record.total or 0
    # The application may have copied the file there; a copy has our metadata.
    if not record.is_taken and _may_be_published(staged):
        staged.published = await _is_copied(staged) or await _is_at_destination(staged)


def _may_be_published(staged: Staged) -> bool:
    record = staged.record
    return record.state == "publishing" or (
        # Longer files are announced.
        record.state == "open" and record.is_small and staged.is_complete
    )


async def _is_at_destination(staged: Staged) -> bool:
    found = await staged.staging.is_published(staged.destination, staged.session_id)
    return found is not None


async def _is_copied(staged: Staged) -> bool:
    """Return whether the copy has ended, after all of its parts were there."""
    record = staged.record
    if record.state != "publishing" or record.copy is None:
        return False
    key = staged.staging.settings.key(staged.destination)
    try:
        await staged.staging.bucket.parts(key, record.copy)
    except NoUpload:
        return await has_published(staged)
    return False


async def _measure_grid(staged: Staged) -> bool:
    """
    List parts and tails.

    :returns: Whether the multipart upload has ended.
    """
    for _ in range(MOST_CHANGES):
        is_ended = await _list_grid(staged)
        if not is_ended:
            return False
        # A node that completes it, or begins another, changes the record before; and
        # what was listed may be the remains of an upload that is ending.
        etag = staged.etag
        staged.take(await staged.staging.read(staged.session_id))
        if staged.etag == etag:
            return True
    raise staged.restless()


async def _list_grid(staged: Staged) -> bool:
    staging = staged.staging
    directory = staging.directory(staged.session_id)
    looks: list[Deferred[Any]] = [
        begun(staging.bucket.every(directory)),
        begun(_parts_of_upload(staged)),
    ]
    listed, found_parts = await together(*looks)
    parts = {
        one.number: one.modified
        for one in found_parts or ()
        if staged.grid.is_part(one.number, one.size)
    }
    tails = {}
    for found in listed:
        span = tail_span(found.key.removeprefix(directory))
        if span is not None and span.length == found.size:
            tails[span] = found.modified
    staged.parts, staged.tails = set(parts), set(tails)
    staged.drop_copy()
    spans = [*map(staged.grid.cell, parts), *tails]
    staged.offset = reach(spans)
    staged.has_gap = any(span.end > staged.offset for span in spans)
    staged.acknowledged = max(staged.acknowledged, staged.offset)
    staged.learn(Event.LISTED if staged.is_named else Event.LISTED_BEHIND)
    latest = max([*parts.values(), *tails.values()], default=0.0)
    staged.progressed = max(staged.progressed, staging.ours(latest))
    return found_parts is None


async def _parts_of_upload(staged: Staged) -> list[Part] | None:
    """List the parts; ``None`` if the multipart upload has ended."""
    if staged.record.upload is None:
        return []
    try:
        return await staged.staging.bucket.parts(
            staged.upload_key, staged.record.upload
        )
    except NoUpload:
        return None


async def read_tails(staged: Staged, start: int, end: int) -> list[bytes]:
    """
    Read back bytes that are stored as tails.

    :raises StagedDataLost: If some of them are missing.
    """
    chunks = []
    for span in cover(staged.tails, start, end):
        key = staged.staging.tail_key(staged.session_id, span)
        found = await staged.staging.bucket.get(key, span.length)
        if found is None or len(found.body) != span.length:
            raise StagedDataLost(f"{key} is missing or has changed")
        # The previous tail may overlap with the beginning of this one.
        chunks.append(found.body[start - span.start : end - span.start])
        start = min(span.end, end)
    if start < end:
        raise StagedDataLost(f"no tail contains byte {start}")
    return chunks


async def find_file(staged: Staged) -> Found | None:
    """Look at the object that is all bytes; ``None`` if it is not there."""
    found = await staged.staging.bucket.head(staged.staging.file_key(staged.session_id))
    return None if found is None or found.size != staged.record.total else found


async def is_whole(staged: Staged) -> bool:
    """Return whether the multipart upload has ended because it was completed."""
    if not staged.record.is_staged:
        return staged.record.state == "publishing" and await has_published(staged)
    if staged.record.file is None and await find_file(staged) is None:
        return False
    staged.offset = staged.record.total or 0
    return True


def whole(staged: Staged, parts: list[Part]) -> list[Part]:
    """
    Choose the parts that are the file.

    :raises StagedDataLost: If some are missing.
    """
    grid = staged.grid
    right = fitting(grid, parts)
    if len(right) < grid.cells:
        staged.parts = set(right)
        staged.offset = reach([*map(grid.cell, right), *staged.tails])
        raise StagedDataLost(f"{grid.cells - len(right)} parts are missing")
    return [right[number] for number in range(grid.cells)]


async def has_published(
    staged: Staged, *, was_there: bool = False, is_cut: bool = False
) -> bool:
    """
    Return whether a multipart upload to the destination, which has ended, was completed
    after the record announced it.

    Only completing and aborting end one, and before we abort one the record says
    "releasing". If the file is not at the destination, there are two explanations.
    Another node published it, or an earlier attempt whose answer was lost, and somebody
    has taken it away or replaced it since. Or somebody else has aborted the upload.

    :param was_there: Whether this node has just listed it, and asked once to complete
        it.
    :param is_cut: Whether there was no multipart upload, and tails are missing that
        were there at the announcement. That is no proof: a file that is nowhere was not
        published.
    """
    staging = staged.staging
    found = await staging.bucket.head(staging.settings.key(staged.destination))
    if found is not None and found.session == name_of(staged.session_id):
        return True
    if was_there:
        return False
    if not is_cut and staging.clock.seconds() - staged.announced < _TAKEN_AWAY:
        return True
    return found is not None and staging.ours(found.modified) >= staged.announced
