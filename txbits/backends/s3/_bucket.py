"""
The few calls that the S3 backend makes.

That an object is missing is a result here, and a condition that does not hold is an
error of its own; all others are a :class:`~txbits.errors.BackendError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import escape

from attrs import define, field, frozen
from twisted.logger import Logger

from txbits._deferreds import a_few_at_a_time
from txbits.backends.s3._access import seconds_of
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._client import Client
from txbits.backends.s3._grid import Grid, Span
from txbits.backends.s3._listings import Pages, goes_on, listed, told
from txbits.backends.s3._responses import (
    Request,
    Response,
    S3Error,
    S3Unfit,
    S3Unreachable,
    http_date,
)
from txbits.errors import BackendError, StagedDataLost

_log = Logger()

#: How many objects one request removes at most, and how many are removed one by one at
#: the same time.
_BATCH = 1000
_SINGLY_AT_ONCE = 8

#: How many entries a page of a listing has at most.
_PAGE = 1000

#: How many pages a listing has at most: of all sessions, of one, of parts.
_MOST_PAGES = 1_000_000
_MOST_OF_ONE = 1000
_MOST_OF_PARTS = 10_000

#: Status of stores that do not support DeleteObjects. Google's says 400, with
#: InvalidArgument or NotImplemented; others 501, 405, or 404.
_NOT_THERE = frozenset({400, 404, 405, 501})

#: The metadata of an object that names the session that put it there.
SESSION_HEADER = "x-amz-meta-txbits-session"


@frozen
class Found:
    """
    An object.

    :ivar etag: Its ETag, as in headers.
    :ivar size: Its length.
    :ivar modified: When it was stored, by the store's clock.
    :ivar session: The session that published it, as in the header; ``None`` if none
        did, or in a listing.
    :ivar coding: The Content-Encoding that it is stored with; ``None`` if it has none,
        or in a listing.
    """

    key: str
    etag: str
    size: int
    modified: float
    session: str | None = None
    body: bytes = b""
    coding: str | None = None


@frozen
class Part:
    """A part of a multipart upload; see :class:`Found`."""

    number: int
    size: int
    etag: str
    modified: float
    crc32: str | None


@frozen
class Upload:
    """A multipart upload that somebody began; see :class:`Found`."""

    key: str
    upload: str
    initiated: float


@frozen
class Begun:
    """
    A multipart upload that was begun.

    :ivar upload: Its id.
    :ivar is_repeated: Whether others may have been, whose responses were lost.
    """

    upload: str
    is_repeated: bool


@frozen
class Listing:
    """A page of a listing, and where the next one begins, if there is one."""

    found: list[Found]
    prefixes: list[str]
    next: str | None


class _Failed(BackendError):
    """
    S3 refused a request that an earlier attempt may have changed something for.

    :ivar is_repeated: Whether there was an earlier attempt that may have been carried
        out.
    """

    def __init__(self, error: S3Error) -> None:
        super().__init__(str(error))
        self.is_repeated = error.is_repeated


class NotMet(_Failed):
    """The condition of a write does not hold; nothing was written."""


class NoUpload(_Failed):
    """There is no such multipart upload: it is complete, aborted, or never was."""


class UnknownUploads(BackendError):
    """A multipart upload may have been begun, and its id is unknown."""


class WrongPart(BackendError):
    """A part has changed since the parts were listed."""


def fitting(grid: Grid, parts: Iterable[Part]) -> dict[int, Part]:
    """Choose parts that are as long as their cells, one for each number."""
    right: dict[int, Part] = {}
    for one in parts:
        # Some stores list a part that was put again for each time, the latest first.
        if grid.is_part(one.number, one.size):
            right.setdefault(one.number, one)
    return right


@define(eq=False)
class Bucket:
    """
    A bucket.

    :ivar client: Sends the requests.
    :ivar removes_singly: Whether the store is known to remove one object at a time.
    :ivar has_bare_conditions: Whether it accepts an ETag as a condition only without
        quotes.
    """

    client: Client
    removes_singly: bool = field(default=False, init=False)
    has_bare_conditions: bool = field(default=False, init=False)

    # Objects

    async def get(self, key: str, most: int) -> Found | None:
        """
        Read an object.

        :param most: How many bytes it has at most.
        """
        try:
            response = await self.client.ask(
                Request("GetObject", "GET", key, most=most)
            )
        except S3Error as error:
            if _is_absence(error):
                return None
            raise
        return _found(key, response, len(response.body))

    async def head(self, key: str) -> Found | None:
        """Look at an object."""
        try:
            response = await self.client.ask(Request("HeadObject", "HEAD", key, most=0))
        except S3Error as error:
            if _is_absence(error, "404"):
                return None
            raise
        # If it is missing, something in front of the store changes bodies or headers.
        length = response.headers.get("content-length", "").strip()
        if not (length.isascii() and length.isdecimal()):
            raise S3Unfit(
                f"S3 answered HeadObject of {key!a} without a length; a proxy in front "
                "of the store must not compress or change responses"
            )
        return _found(key, response, int(length))

    async def put(
        self,
        key: str,
        body: Body,
        *,
        instead_of: str | None = None,
        only_new: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """
        Write an object.

        :param instead_of: The ETag of the object that it may replace.
        :param only_new: Whether it may replace none.
        :returns: Its ETag.
        :raises NotMet: If another object is there, or none.
        """
        sent = dict(headers or ())
        sent.update(self._encryption())
        if only_new:
            sent["if-none-match"] = "*"
        elif instead_of is not None:
            sent["if-match"] = self._condition(instead_of)
        try:
            response = await self.client.ask(
                Request("PutObject", "PUT", key, headers=sent, body=body)
            )
        except S3Error as error:
            if error.status == 412 or (
                error.status == 404 and error.code == "NoSuchKey"
            ):
                raise NotMet(error) from error
            raise
        return quoted(response.headers["etag"])

    async def delete(self, key: str) -> None:
        """Remove an object, if there is one."""
        await self._delete(key, {})

    async def delete_if(self, key: str, etag: str) -> bool:
        """
        Remove an object, if it is still the same.

        A store that does not support conditions of removals may remove another one, or
        refuse to remove any.

        :returns: Whether there is none any more. If not, it is another one.
        """
        try:
            await self._delete(key, {"if-match": self._condition(etag)})
        except S3Error as error:
            if error.status != 412:
                raise
            return False
        return True

    async def _delete(self, key: str, headers: Mapping[str, str]) -> None:
        try:
            await self.client.ask(
                Request("DeleteObject", "DELETE", key, headers=headers)
            )
        except S3Error as error:
            # Amazon's answers 204 if there is none, others 404.
            if error.status != 404 or error.code == "NoSuchBucket":
                raise

    def _condition(self, etag: str) -> str:
        return etag.strip('"') if self.has_bare_conditions else etag

    async def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects, those of them that exist."""
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            if len(batch) == 1 or self.removes_singly:
                await self._delete_singly(batch)
            else:
                await self._delete_together(batch)

    async def _delete_singly(self, keys: Sequence[str]) -> None:
        await a_few_at_a_time(_SINGLY_AT_ONCE, self.delete, keys)

    async def _delete_together(self, keys: Sequence[str]) -> None:
        body = "".join(f"<Object><Key>{escape(key)}</Key></Object>" for key in keys)
        try:
            response = await self.client.ask(
                Request(
                    "DeleteObjects",
                    "POST",
                    query={"delete": ""},
                    body=_xml(f"<Delete><Quiet>true</Quiet>{body}</Delete>"),
                    is_parsed=True,
                )
            )
        except S3Error as error:
            if error.status not in _NOT_THERE or error.code == "NoSuchBucket":
                raise
            why = str(error)
        else:
            if b"DeleteResult" in response.body:
                left = {
                    one.get("Key")
                    for one in response.parsed.get("Errors", ())
                    if one.get("Code") != "NoSuchKey"
                }
                # A failure of single objects often passes; if not, this raises it.
                await self._delete_singly([key for key in keys if key in left])
                return
            why = "the response is not a DeleteResult"
        # If the store has another problem, these fail too.
        await self._delete_singly(keys)
        self.removes_singly = True
        _log.info(
            "the store of {bucket} does not support DeleteObjects, so objects are "
            "removed one by one: {why}",
            bucket=self.client.settings.bucket,
            why=why,
        )

    async def page(
        self,
        prefix: str,
        *,
        delimiter: str = "",
        after: str = "",
        most: int = _PAGE,
        start: str = "",
    ) -> Listing:
        """
        List some of the objects whose keys begin with a prefix, in order.

        :param start: List those whose keys are greater than this, until the store says
            where to go on.
        :raises S3Unfit: If there are more, and the store does not say where to go on.
        """
        query = {
            "list-type": "2",
            "prefix": prefix,
            "max-keys": str(most),
            "encoding-type": "url",
        }
        if delimiter:
            query["delimiter"] = delimiter
        if after:
            query["continuation-token"] = after
        elif start:
            query["start-after"] = start
        lists = "ListObjectsV2"
        response = await self.client.ask(
            Request(lists, "GET", query=query, is_parsed=True)
        )
        theirs = http_date(response.headers.get("date", ""))
        if theirs is not None:
            self.client.access.saw(theirs)
        parsed = response.parsed

        def read(key: str) -> str:
            return listed(lists, key, parsed.get("EncodingType") == "url", prefix)

        found = [
            Found(
                read(told(lists, one, "Key")),
                quoted(one.get("ETag", "")),
                told(lists, one, "Size"),
                seconds_of(told(lists, one, "LastModified")),
            )
            for one in parsed.get("Contents", ())
        ]
        prefixes = [
            read(told(lists, one, "Prefix")) for one in parsed.get("CommonPrefixes", ())
        ]
        count = len(found) + len(prefixes)
        if not goes_on(lists, response, count, parsed.get("MaxKeys") or most):
            return Listing(found, prefixes, None)
        following = parsed.get("NextContinuationToken")
        if not following or following == after:
            raise S3Unfit(
                "S3 lists some objects and says that there are more, but not where to "
                "continue (ListObjectsV2 without a new NextContinuationToken)"
            )
        return Listing(found, prefixes, following)

    async def pages(
        self, prefix: str, most: int = _MOST_PAGES, *, start: str = ""
    ) -> AsyncIterator[Listing]:
        """
        List all objects whose keys begin with a prefix, a page at a time.

        :param most: How many pages there may be.
        :param start: As for :meth:`page`.
        :raises S3Unfit: If the listing cannot be relied on.
        """
        pages = Pages("ListObjectsV2", most)
        after = ""
        while True:
            page = await self.page(prefix, after=after, start=start)
            yield page
            if page.next is None:
                return
            after = page.next
            pages.turn(after, page.found[0].key if page.found else None)

    async def every(self, prefix: str) -> list[Found]:
        """List all objects whose keys begin with a prefix."""
        found: list[Found] = []
        async for page in self.pages(prefix, _MOST_OF_ONE):
            found += page.found
        return found

    # Multipart uploads

    async def begin_upload(self, key: str, headers: Mapping[str, str]) -> Begun:
        """
        Begin a multipart upload.

        :raises UnknownUploads: If that failed, but may have begun some.
        """
        sent = dict(headers)
        sent.update(self._encryption())
        if self.client.settings.checksum == "crc32":
            # For the whole object, so that the checksums of the parts need not be
            # repeated to complete it: not every store lists them.
            sent["x-amz-checksum-algorithm"] = "CRC32"
            sent["x-amz-checksum-type"] = "FULL_OBJECT"
        request = Request(
            "CreateMultipartUpload",
            "POST",
            key,
            query={"uploads": ""},
            headers=sent,
            body=Body(()),
            is_parsed=True,
        )
        try:
            response = await self.client.ask(request)
        except S3Error as error:
            if error.is_repeated:
                raise UnknownUploads(str(error)) from error
            raise
        except (S3Unreachable, S3Unfit) as error:
            raise UnknownUploads(str(error)) from error
        return Begun(str(response.parsed["UploadId"]), response.is_repeated)

    async def put_part(self, key: str, upload: str, number: int, body: Body) -> None:
        """
        Upload a part, counted from 0.

        :raises NoUpload: If there is no such upload.
        """
        query = {"partNumber": str(number + 1)}
        await self._of_upload("UploadPart", "PUT", key, upload, query, body=body)

    async def copy_part(
        self, key: str, upload: str, number: int, source: Found, span: Span
    ) -> None:
        """
        Upload a part, counted from 0, that the store copies from another object.

        :param source: The object.
        :param span: The bytes to copy.
        :raises NoUpload: If there is no such upload.
        :raises StagedDataLost: If the object is gone, or has changed.
        """
        bucket = self.client.settings.bucket
        within = f"{bucket}/object" if bucket.startswith("arn:") else bucket
        headers = {
            "x-amz-copy-source": quote(f"{within}/{source.key}", safe="/~"),
            "x-amz-copy-source-if-match": source.etag,
        }
        if span.length < source.size:
            headers["x-amz-copy-source-range"] = f"bytes={span.start}-{span.end - 1}"
        try:
            await self._of_upload(
                "UploadPartCopy",
                "PUT",
                key,
                upload,
                {"partNumber": str(number + 1)},
                headers=headers,
                body=Body(()),
                is_parsed=True,
            )
        except S3Error as error:
            if error.status == 412 or error.code == "NoSuchKey":
                raise StagedDataLost(str(error)) from error
            raise

    async def parts(self, key: str, upload: str) -> list[Part]:
        """
        List the parts of an upload, counted from 0.

        :raises NoUpload: If there is no such upload.
        :raises S3Unfit: If the listing cannot be relied on.
        """
        parts: list[Part] = []
        marker = 0
        lists = "ListParts"
        pages = Pages(lists, _MOST_OF_PARTS)
        while True:
            query = {"max-parts": str(_PAGE), "part-number-marker": str(marker)}
            response = await self._of_upload(
                lists, "GET", key, upload, query, is_parsed=True
            )
            parsed = response.parsed
            found = [
                Part(
                    told(lists, one, "PartNumber") - 1,
                    told(lists, one, "Size"),
                    told(lists, one, "ETag"),
                    seconds_of(told(lists, one, "LastModified")),
                    one.get("ChecksumCRC32"),
                )
                for one in parsed.get("Parts", ())
            ]
            parts += found
            if not goes_on(
                lists, response, len(found), parsed.get("MaxParts") or _PAGE
            ):
                return parts
            following = str(parsed.get("NextPartNumberMarker") or "")
            is_beyond = following.isdecimal() and int(following) > marker
            pages.turn(
                int(following) if is_beyond else None,
                found[0].number if found else None,
            )
            marker = int(following)

    async def complete(
        self, key: str, upload: str, parts: Sequence[Part], *, only_new: bool
    ) -> None:
        """
        Make an object of the parts of an upload.

        :raises NotMet: If an object is there that may not be replaced.
        :raises NoUpload: If there is no such upload.
        :raises WrongPart: If a part has changed.
        """
        said = "".join(
            f"<Part><PartNumber>{one.number + 1}</PartNumber>"
            f"<ETag>{escape(one.etag)}</ETag>"
            + (
                f"<ChecksumCRC32>{escape(one.crc32)}</ChecksumCRC32>"
                if one.crc32
                else ""
            )
            + "</Part>"
            for one in parts
        )
        try:
            await self._of_upload(
                "CompleteMultipartUpload",
                "POST",
                key,
                upload,
                headers={"if-none-match": "*"} if only_new else {},
                body=_xml(f"<CompleteMultipartUpload>{said}</CompleteMultipartUpload>"),
                is_parsed=True,
            )
        except S3Error as error:
            if error.status == 412 or error.code == "PreconditionFailed":
                raise NotMet(error) from error
            if error.code in ("InvalidPart", "InvalidPartOrder"):
                raise WrongPart(str(error)) from error
            raise

    async def abort(self, key: str, upload: str) -> None:
        """
        Abort an upload, if there is one.

        It is gone when a listing of its parts says so.
        """
        try:
            await self._of_upload("AbortMultipartUpload", "DELETE", key, upload)
        except NoUpload:
            return
        except S3Error as error:
            if error.status != 404 or error.code == "NoSuchBucket":
                raise

    async def uploads(self, prefix: str) -> list[Upload]:
        """
        List the uploads that are under way to keys that begin with a prefix.

        :raises S3Unfit: If the listing cannot be relied on.
        """
        uploads: list[Upload] = []
        lists = "ListMultipartUploads"
        pages = Pages(lists, _MOST_OF_ONE)
        query = {"uploads": "", "prefix": prefix, "encoding-type": "url"}
        while True:
            response = await self.client.ask(
                Request(lists, "GET", query=query, is_parsed=True)
            )
            parsed = response.parsed
            is_encoded = parsed.get("EncodingType") == "url"
            found = [
                Upload(
                    listed(lists, told(lists, one, "Key"), is_encoded, prefix),
                    told(lists, one, "UploadId"),
                    seconds_of(told(lists, one, "Initiated")),
                )
                for one in parsed.get("Uploads", ())
            ]
            uploads += found
            if not goes_on(
                lists, response, len(found), parsed.get("MaxUploads") or _PAGE
            ):
                return uploads
            # SeaweedFS uses the id alone.
            marker = str(parsed.get("NextKeyMarker") or "")
            id_marker = str(parsed.get("NextUploadIdMarker") or "")
            pages.turn(
                (marker, id_marker) if marker or id_marker else None,
                (found[0].key, found[0].upload) if found else None,
            )
            query = {
                **query,
                "key-marker": unquote_plus(marker) if is_encoded else marker,
                "upload-id-marker": id_marker,
            }

    async def _of_upload(
        self,
        operation: str,
        method: str,
        key: str,
        upload: str,
        query: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Response:
        query = {"uploadId": upload, **(query or {})}
        try:
            return await self.client.ask(Request(operation, method, key, query, **more))
        except S3Error as error:
            if error.code == "NoSuchUpload":
                raise NoUpload(error) from error
            raise

    def _encryption(self) -> dict[str, str]:
        settings = self.client.settings
        headers = {}
        if settings.sse is not None:
            headers["x-amz-server-side-encryption"] = settings.sse
        if settings.sse_key is not None:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = settings.sse_key
        return headers


def _is_absence(error: S3Error, code: str = "NoSuchKey") -> bool:
    # A 404 with another body comes from something in front of S3.
    return error.status == 404 and error.code == code


def quoted(etag: str) -> str:
    """Return an ETag as headers have it."""
    # Some stores omit the quotes, in listings or everywhere, and accept both forms as
    # conditions. With quotes, ETags can be compared.
    etag = etag.strip()
    return f'"{etag}"' if etag and etag[0] != '"' and etag[:2] != "W/" else etag


def _found(key: str, response: Response, size: int) -> Found:
    headers = response.headers
    modified = headers.get("last-modified", "")
    seconds = http_date(modified)
    if seconds is None:
        raise S3Unfit(
            f"S3 does not say when {key!a} was last changed: {modified[:100]!a}"
        )
    return Found(
        key,
        quoted(headers["etag"]),
        size,
        seconds,
        headers.get(SESSION_HEADER),
        response.body,
        response.coding,
    )


def _xml(text: str) -> Body:
    return Body([text.encode()])
