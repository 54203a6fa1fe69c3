"""
Tests, at the start, of the features of a store that txbits requires.
"""

from __future__ import annotations

from uuid import uuid4

from txbits.backends.s3._bodies import Body
from txbits.backends.s3._bucket import Bucket, NotMet
from txbits.backends.s3._responses import S3Unfit
from txbits.backends.s3._staging import Staging
from txbits.errors import BackendError


async def probe(staging: Staging) -> None:
    """
    Test the features of the store that txbits requires.

    :raises BackendError: If the bucket cannot be used; the text is one line.
    """
    bucket = staging.bucket
    await bucket.page(staging.settings.staging, most=1)
    # With braces, as in the names of sessions: some stores encode them.
    key = f"{staging.settings.staging}probe-{{{uuid4()}}}"
    is_written = False
    # Each write may be repeated, if a response is lost. Then the first is done
    # twice, and the last finds that it has been done.
    try:
        etag = await bucket.put(key, Body([b"txbits"]))
        await _try_condition(bucket, key, None)
        await _try_condition(bucket, key, '"0"')
        again = Body([b"txbits again"])
        try:
            etag = await bucket.put(key, again, instead_of=etag)
        except NotMet as error:
            if error.is_repeated:
                etag = ""
            else:
                # DigitalOcean's Spaces accept it only without quotes.
                bucket.has_bare_conditions = True
                etag = await bucket.put(key, again, instead_of=etag)
                await _try_condition(bucket, key, '"0"')
        # This detects a proxy that compresses or changes responses.
        found = await bucket.head(key)
        if (
            found is None
            or found.size != again.length
            or found.coding is not None
            or etag not in ("", found.etag)
        ):
            raise S3Unfit(
                "this store does not describe an object as it was stored: for "
                f"{again.length} bytes with the ETag {etag} it reports {found}"
            )
        listed = [one.key for one in (await bucket.page(key, most=1)).found]
        if listed != [key]:
            raise S3Unfit(
                "this store does not list a new object at once under its own name: "
                f"{key!a} as {listed}"
            )
        is_written = True
    finally:
        if is_written:
            # Together with a key that does not exist, to test DeleteObjects.
            await bucket.delete_all([key, f"{key}-none"])
        else:
            await bucket.delete(key)


async def _try_condition(bucket: Bucket, key: str, etag: str | None) -> None:
    """
    Test a condition that does not hold.

    :param etag: The ETag of another object; ``None`` if there must be none.
    :raises BackendError: If the object is written anyway.
    """
    try:
        await bucket.put(key, Body([b"other"]), only_new=etag is None, instead_of=etag)
    except NotMet:
        return
    raise BackendError(
        "this store does not respect If-None-Match and If-Match in writes; txbits "
        "cannot keep sessions apart on it"
    )
