"""
Published files, and whatever else stands in the bucket, read by clients.
"""

from __future__ import annotations

from txbits.backends._destinations import checked_segments
from txbits.backends._serving import StoredFile
from txbits.backends.s3._answers import Request
from txbits.backends.s3._bucket import Found
from txbits.backends.s3._staging import Staging
from txbits.backends.s3._streams import Stream
from txbits.errors import BackendError, DestinationIsDirectory, NoSuchFile


def served(staging: Staging, found: Found) -> StoredFile:
    """
    Make an object that was looked at a file that is served.

    Its ETag is the store's: S3 gives another one to each content, and calls none weak.

    Length, ranges and ETag are those of the bytes as they are stored; if these have a
    coding, it goes with them.

    :raises BackendError: If it has no ETag.
    """
    etag = found.etag.removeprefix('"').removesuffix('"')
    if not etag:
        raise BackendError(f"the store tells no ETag of {found.key!a}")
    client = staging.bucket.client
    return StoredFile(
        found.size,
        found.modified,
        etag,
        lambda consumer: Stream(consumer, client, staging.clock, found),
        content_encoding=found.coding,
    )


async def open_file(staging: Staging, destination: tuple[str, ...]) -> StoredFile:
    """
    Look at a file; see :class:`~txbits.interfaces.IDownloadable`.

    :raises BackendError: In the ways of ``IDownloadable.open_file``.
    """
    checked_segments(destination)
    key = staging.settings.key(destination)
    # S3 refuses a longer one with an error that is none of the file's.
    found = await staging.bucket.head(key) if staging.is_key(key) else None
    if found is not None:
        return served(staging, found)
    if staging.is_key(key) and (await staging.bucket.page(f"{key}/", most=1)).found:
        raise DestinationIsDirectory(f"{destination!a} is a directory")
    raise NoSuchFile(f"there is no {destination!a}")


async def location(
    staging: Staging, destination: tuple[str, ...], method: str
) -> str | None:
    """
    Sign a URL of a file; see :class:`~txbits.interfaces.IRedirecting`.

    :returns: ``None`` if the settings say that files are served by us.
    :raises BackendError: In the ways of ``IDownloadable.open_file``.
    """
    seconds = staging.settings.presign
    if seconds is None:
        return None
    # Also so that nobody is sent to what is not there, or is to be seen by nobody.
    await open_file(staging, destination)
    client = staging.bucket.client
    await client.access.ready()
    url = client.url(
        Request(
            operation="GetObject", method=method, key=staging.settings.key(destination)
        )
    )
    return client.access.presigned(method, url, seconds)
