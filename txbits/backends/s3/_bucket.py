"""
The handful of calls that the S3 backend makes, by what they are for.

"Not there" is an answer here, and so is "the condition does not hold"; what remains is
a :class:`~txbits.errors.BackendError`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import escape

from attrs import define, frozen

from txbits.backends.s3._access import seconds_of
from txbits.backends.s3._answers import Answer, Request, S3Error, S3Unreachable
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._client import Client
from txbits.backends.s3._grid import Span
from txbits.errors import BackendError, StagedDataLost

#: How many objects one request removes at most.
_BATCH = 1000

#: An object's metadata that says which session put it there.
SESSION_HEADER = "x-amz-meta-txbits-session"


@frozen
class Found:
    """
    An object that is there.

    :ivar etag: Its ETag, as it stands in headers.
    :ivar size: Its length.
    :ivar modified: When it was stored, by the store's clock.
    :ivar session: The session that published it, in the words of the header; ``None``
        if none did, or in a listing.
    """

    key: str
    etag: str
    size: int
    modified: float
    session: str | None = None
    body: bytes = b""


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
    :ivar is_repeated: Whether others may have been, whose answers were lost.
    """

    upload: str
    is_repeated: bool


@frozen
class Listing:
    """One page of a listing, and where the next begins, if there is one."""

    found: list[Found]
    prefixes: list[str]
    next: str | None


class NotMet(BackendError):
    """
    The condition of a write does not hold; nothing was written.

    :ivar is_repeated: But an earlier attempt of the same write may have been.
    """

    def __init__(self, error: S3Error) -> None:
        super().__init__(str(error))
        self.is_repeated = error.is_repeated


class NoUpload(BackendError):
    """
    There is no such multipart upload: it is complete, aborted, or never was.

    :ivar is_repeated: Whether an earlier attempt of the same request may have ended it.
    """

    def __init__(self, error: S3Error) -> None:
        super().__init__(str(error))
        self.is_repeated = error.is_repeated


class UnknownUploads(BackendError):
    """A multipart upload may have been begun, and nobody has its id."""


class WrongPart(BackendError):
    """A part is not what it was when the parts were listed."""


@define(eq=False)
class Bucket:
    """
    A bucket.

    :ivar client: Asks for what is called here.
    """

    client: Client

    # Objects

    async def get(self, key: str, most: int) -> Found | None:
        """
        Read an object.

        :param most: How many bytes it has at most.
        """
        try:
            answer = await self.client.ask(
                Request(operation="GetObject", method="GET", key=key, most=most)
            )
        except S3Error as error:
            if _is_absence(error):
                return None
            raise
        return _found(key, answer, answer.body)

    async def head(self, key: str) -> Found | None:
        """Look at an object."""
        try:
            answer = await self.client.ask(
                Request(operation="HeadObject", method="HEAD", key=key, most=0)
            )
        except S3Error as error:
            if _is_absence(error, "404"):
                return None
            raise
        return _found(key, answer, b"")

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
        :raises NotMet: If something else stands there.
        """
        sent = dict(headers or ())
        sent.update(self._encryption())
        if only_new:
            sent["if-none-match"] = "*"
        elif instead_of is not None:
            sent["if-match"] = instead_of
        try:
            answer = await self.client.ask(
                Request(
                    operation="PutObject",
                    method="PUT",
                    key=key,
                    headers=sent,
                    body=body,
                )
            )
        except S3Error as error:
            if error.status == 412 or (
                error.status == 404 and error.code == "NoSuchKey"
            ):
                raise NotMet(error) from error
            raise
        return answer.headers["etag"]

    async def delete(self, key: str, only: str | None = None) -> None:
        """
        Remove an object; that there is none is success.

        :param only: The ETag of the one that is meant; another one stays, where the
            store heeds that.
        """
        try:
            await self.client.ask(
                Request(
                    operation="DeleteObject",
                    method="DELETE",
                    key=key,
                    headers={} if only is None else {"if-match": only},
                )
            )
        except S3Error as error:
            if only is None or error.status not in (404, 412):
                raise

    async def delete_all(self, keys: Sequence[str]) -> None:
        """Remove objects; that some are not there is success."""
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            if len(batch) == 1:
                await self.delete(batch[0])
                continue
            body = "".join(
                f"<Object><Key>{escape(key)}</Key></Object>" for key in batch
            )
            answer = await self.client.ask(
                Request(
                    operation="DeleteObjects",
                    method="POST",
                    query={"delete": ""},
                    body=_xml(f"<Delete><Quiet>true</Quiet>{body}</Delete>"),
                    is_parsed=True,
                )
            )
            errors = [
                one
                for one in answer.parsed.get("Errors", ())
                if one.get("Code") != "NoSuchKey"
            ]
            if errors:
                raise BackendError(
                    f"S3 did not remove {len(errors)} objects, the first of them "
                    f"{errors[0].get('Key')!a}: {errors[0].get('Code')}"
                )

    async def page(
        self, prefix: str, *, delimiter: str = "", after: str = "", most: int = 1000
    ) -> Listing:
        """List some of the objects whose keys begin with a prefix, in order."""
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
        answer = await self.client.ask(
            Request(
                operation="ListObjectsV2", method="GET", query=query, is_parsed=True
            )
        )
        if theirs := _http_date(answer.headers.get("date", "")):
            self.client.access.saw(theirs)
        parsed = answer.parsed
        is_encoded = parsed.get("EncodingType") == "url"

        def read(key: str) -> str:
            return unquote_plus(key) if is_encoded else key

        return Listing(
            [
                Found(
                    read(one["Key"]),
                    one.get("ETag", ""),
                    one["Size"],
                    seconds_of(one["LastModified"]),
                )
                for one in parsed.get("Contents", ())
            ],
            [read(one["Prefix"]) for one in parsed.get("CommonPrefixes", ())],
            parsed.get("NextContinuationToken") if parsed.get("IsTruncated") else None,
        )

    async def every(self, prefix: str) -> list[Found]:
        """List all objects whose keys begin with a prefix."""
        page = await self.page(prefix)
        found = page.found
        while page.next is not None:
            page = await self.page(prefix, after=page.next)
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
            # Of the whole object: the checksums of the parts need not be given again
            # to complete it, and not every store lists them.
            sent["x-amz-checksum-algorithm"] = "CRC32"
            sent["x-amz-checksum-type"] = "FULL_OBJECT"
        request = Request(
            operation="CreateMultipartUpload",
            method="POST",
            key=key,
            query={"uploads": ""},
            headers=sent,
            body=Body(()),
            is_parsed=True,
        )
        try:
            answer = await self.client.ask(request)
        except S3Error as error:
            if error.is_repeated:
                raise UnknownUploads(str(error)) from error
            raise
        except S3Unreachable as error:
            raise UnknownUploads(str(error)) from error
        return Begun(str(answer.parsed["UploadId"]), answer.is_repeated)

    async def put_part(self, key: str, upload: str, number: int, body: Body) -> None:
        """
        Upload a part, counted from 0.

        :raises NoUpload: If there is no such upload.
        """
        await self._of_upload(
            Request(
                operation="UploadPart",
                method="PUT",
                key=key,
                query={"uploadId": upload, "partNumber": str(number + 1)},
                body=body,
            )
        )

    async def copy_part(
        self, key: str, upload: str, number: int, source: Found, span: Span
    ) -> None:
        """
        Upload a part, counted from 0, that the store copies from another object.

        :param source: The object.
        :param span: Which of its bytes.
        :raises NoUpload: If there is no such upload.
        :raises StagedDataLost: If the object is gone, or another.
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
                Request(
                    operation="UploadPartCopy",
                    method="PUT",
                    key=key,
                    query={"uploadId": upload, "partNumber": str(number + 1)},
                    headers=headers,
                    body=Body(()),
                    is_parsed=True,
                )
            )
        except S3Error as error:
            if error.status == 412 or error.code == "NoSuchKey":
                raise StagedDataLost(str(error)) from error
            raise

    async def parts(self, key: str, upload: str) -> list[Part]:
        """
        List the parts of an upload, counted from 0.

        :raises NoUpload: If there is no such upload.
        """
        parts: list[Part] = []
        marker = "0"
        while True:
            answer = await self._of_upload(
                Request(
                    operation="ListParts",
                    method="GET",
                    key=key,
                    query={
                        "uploadId": upload,
                        "max-parts": "1000",
                        "part-number-marker": marker,
                    },
                    is_parsed=True,
                )
            )
            parts += [
                Part(
                    one["PartNumber"] - 1,
                    one["Size"],
                    one["ETag"],
                    seconds_of(one["LastModified"]),
                    one.get("ChecksumCRC32"),
                )
                for one in answer.parsed.get("Parts", ())
            ]
            following = str(answer.parsed.get("NextPartNumberMarker", marker))
            if not answer.parsed.get("IsTruncated") or following == marker:
                return parts
            marker = following

    async def complete(
        self, key: str, upload: str, parts: Sequence[Part], *, only_new: bool
    ) -> None:
        """
        Make the parts of an upload an object.

        :raises NotMet: If something stands there, and may not be replaced.
        :raises NoUpload: If there is no such upload.
        :raises WrongPart: If the parts are not these.
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
                Request(
                    operation="CompleteMultipartUpload",
                    method="POST",
                    key=key,
                    query={"uploadId": upload},
                    headers={"if-none-match": "*"} if only_new else {},
                    body=_xml(
                        f"<CompleteMultipartUpload>{said}</CompleteMultipartUpload>"
                    ),
                    is_parsed=True,
                )
            )
        except S3Error as error:
            if error.status == 412 or error.code == "PreconditionFailed":
                raise NotMet(error) from error
            if error.code in ("InvalidPart", "InvalidPartOrder"):
                raise WrongPart(str(error)) from error
            raise

    async def abort(self, key: str, upload: str) -> None:
        """Abort an upload; that there is none is success."""
        try:
            await self._of_upload(
                Request(
                    operation="AbortMultipartUpload",
                    method="DELETE",
                    key=key,
                    query={"uploadId": upload},
                )
            )
        except NoUpload:
            return

    async def uploads(self, prefix: str) -> list[Upload]:
        """List the uploads that are under way to keys that begin with a prefix."""
        found: list[Upload] = []
        query = {"uploads": "", "prefix": prefix, "encoding-type": "url"}
        while True:
            answer = await self.client.ask(
                Request(
                    operation="ListMultipartUploads",
                    method="GET",
                    query=query,
                    is_parsed=True,
                )
            )
            parsed = answer.parsed
            is_encoded = parsed.get("EncodingType") == "url"
            found += [
                Upload(
                    unquote_plus(one["Key"]) if is_encoded else one["Key"],
                    one["UploadId"],
                    seconds_of(one["Initiated"]),
                )
                for one in parsed.get("Uploads", ())
            ]
            if not parsed.get("IsTruncated"):
                return found
            marker = str(parsed.get("NextKeyMarker", ""))
            query = {
                **query,
                "key-marker": unquote_plus(marker) if is_encoded else marker,
                "upload-id-marker": str(parsed.get("NextUploadIdMarker", "")),
            }

    async def _of_upload(self, request: Request) -> Answer:
        try:
            return await self.client.ask(request)
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
    # A 404 with a body that is not S3's comes from something in front of it.
    return error.status == 404 and error.code == code


def _found(key: str, answer: Answer, body: bytes) -> Found:
    headers = answer.headers
    return Found(
        key,
        headers.get("etag", ""),
        # In an answer to HEAD it is that of the object.
        int(headers.get("content-length", len(body))),
        _http_date(headers.get("last-modified", "")),
        headers.get(SESSION_HEADER),
        body,
    )


def _http_date(text: str) -> float:
    try:
        return parsedate_to_datetime(text).timestamp()
    except ValueError:
        return 0.0


def _xml(text: str) -> Body:
    return Body([text.encode()])
