"""
Requests to S3, and its responses, told apart from those of proxies in front of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from attrs import define, field, frozen
from botocore.awsrequest import HeadersDict
from botocore.parsers import ResponseParserError, create_parser

from txbits.backends._threads import InThread
from txbits.backends.s3._bodies import Body
from txbits.errors import BackendError, OutOfSpace

#: The greatest length of a response that is not an object's bytes. A listing of a
#: thousand keys of 1,024 bytes, all of them escaped, fits.
MOST_ANSWER = 8 << 20

_FULL_CODES = frozenset(
    {"InsufficientStorage", "QuotaExceeded", "XMinioStorageFull", "EntityTooLarge"}
)

_ROOT = re.compile(rb"\s*(?:<\?xml[^>]*>)?\s*<([A-Za-z]+)[\s/>]")

# The root elements of successful responses. Anything else with status 200 comes from
# something in front of S3, and must not be taken for an empty listing.
_ROOTS = {
    "CompleteMultipartUpload": b"CompleteMultipartUploadResult",
    "CreateMultipartUpload": b"InitiateMultipartUploadResult",
    "ListMultipartUploads": b"ListMultipartUploadsResult",
    "ListObjectsV2": b"ListBucketResult",
    "ListParts": b"ListPartsResult",
}
_WITH_ETAG = frozenset({"GetObject", "HeadObject", "PutObject", "UploadPart"})
_MEMBERS = {"CompleteMultipartUpload": "ETag", "CreateMultipartUpload": "UploadId"}

#: Longer responses are parsed in a thread, in bytes. A thousand keys take 40 ms.
_LONG_ANSWER = 1 << 14


@frozen
class Response:
    """
    A successful response of S3.

    :ivar headers: The headers, by their names in lower case.
    :ivar parsed: The body as botocore parses it; empty if it was not to be parsed.
    :ivar is_repeated: Whether an earlier attempt may have been carried out.
    :ivar open: Delivers the body, if it was left open.
    :ivar coding: The Content-Encoding of the body; ``None`` if it has none.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    parsed: Mapping[str, Any]
    is_repeated: bool
    open: Any = None
    coding: str | None = None


class S3Error(BackendError):
    """
    S3 refused.

    :ivar code: S3's error code, such as ``"NoSuchUpload"``; the status for a response
        to HEAD, which has no body.
    :ivar is_repeated: Whether an earlier attempt may have been carried out.
    :ivar date: The ``Date`` header.
    """

    def __init__(
        self,
        text: str,
        status: int,
        code: str,
        is_repeated: bool = False,
        date: str = "",
    ) -> None:
        super().__init__(text)
        self.status = status
        self.code = code
        self.is_repeated = is_repeated
        self.date = date


class S3Unfit(BackendError):
    """
    S3, or something in front of it, sends responses that cannot be relied on.

    The request is not repeated: the next response would be the same.
    """


class S3Full(S3Error, OutOfSpace):
    """S3 has no room, or the quota of this account is used up."""


class S3Unreachable(BackendError):
    """
    There was no response in time, or none that settled it.

    :ivar reason: What the store does wrong, as a predicate.
    """

    def __init__(self, text: str, reason: str | None = None) -> None:
        super().__init__(text)
        self.reason = reason or f"does not work: {text}"


class S3Untrusted(S3Unreachable):
    """The certificate of the server is not trusted."""


@frozen
class Request:
    """
    A request to S3.

    :ivar operation: Its name in S3's reference.
    :ivar key: The object's key; ``None`` if it is about the bucket.
    :ivar most: How many bytes the response's body may have.
    :ivar is_parsed: Whether botocore parses the response's body.
    :ivar is_left_open: Whether the caller reads the body of a successful response. Then
        the request does not count as under way, because reading may take long.
    """

    operation: str
    method: str
    key: str | None = None
    query: Mapping[str, str] = field(factory=dict)
    headers: Mapping[str, str] = field(factory=dict)
    body: Body | None = None
    most: int = MOST_ANSWER
    is_parsed: bool = False
    is_left_open: bool = False


@define(eq=False)
class Reader:
    """
    Reads responses.

    :param model: botocore's model of S3.
    :param region: The region of the bucket.
    :param in_thread: Calls functions in threads, for long responses.
    """

    _model: Any
    _region: str
    _in_thread: InThread
    _parser: Any = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = create_parser(self._model.protocol)

    async def read(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        is_repeated: bool,
        coding: str | None = None,
    ) -> Response:
        """
        Read an answer.

        :param headers: By their names in lower case.
        :param is_repeated: Whether an earlier attempt may have been carried out.
        :param coding: What has been done to the body; ``None`` if nothing.
        :raises S3Error: If S3 refuses.
        :raises S3Unreachable: If it is none of S3's.
        :raises S3Unfit: If what it says cannot be relied on.
        """
        # Answers to HEAD have no body, and tell how the object is stored.
        if coding is not None and body:
            # Who says that the store is away for now says so in a page of its own.
            passes = status >= 500 or status == 429
            raise (S3Unreachable if passes else S3Unfit)(
                f"S3 answered {_about(request)} with status {status} and an unexpected "
                f"Content-Encoding {coding[:99]!a}; a proxy in front of the store must "
                "not compress"
            )
        parsed: Mapping[str, Any] = {}
        found = None if request.operation == "GetObject" else _ROOT.match(body)
        root = b"" if found is None else found[1]
        # Some requests fail after their status has been sent.
        failed = status >= 300 or root == b"Error"
        if failed or request.is_parsed:
            model = self._model.operation_model(request.operation)
            answer = {
                "status_code": max(status, 500) if failed and status < 300 else status,
                "headers": HeadersDict(headers),
                "body": body,
            }
            try:
                if len(body) < _LONG_ANSWER:
                    parsed = self._parser.parse(answer, model.output_shape)
                else:
                    parsed = await self._in_thread(
                        self._parser.parse, answer, model.output_shape
                    )
            except (ResponseParserError, ValueError, TypeError) as error:
                raise S3Unreachable(
                    f"S3 answered {request.operation} with what cannot be read: {error}"
                ) from error
        if failed:
            raise self._refused(request, status, headers, parsed)
        operation = request.operation
        if (
            root != _ROOTS.get(operation, root)
            or (operation in _WITH_ETAG and "etag" not in headers)
            or (operation in _MEMBERS and not parsed.get(_MEMBERS[operation]))
        ):
            raise S3Unreachable(
                f"{operation} was answered with status {status}, but not by S3"
            )
        if operation in _WITH_ETAG:
            check_etag(request, headers["etag"])
        return Response(status, headers, body, parsed, is_repeated, None, coding)

    def _refused(
        self,
        request: Request,
        status: int,
        headers: Mapping[str, str],
        parsed: Mapping[str, Any],
    ) -> S3Error:
        error = parsed.get("Error", {})
        code = str(error.get("Code") or status)
        kind = S3Full if status == 507 or code in _FULL_CODES else S3Error
        text = f"S3 refused {_about(request)}: {status} {code}"
        if error.get("Message"):
            text += f": {' '.join(str(error['Message']).split())[:200]}"
        region = error.get("Region") or headers.get("x-amz-bucket-region")
        if region and region != self._region:
            text += f"; the bucket's region is {region}"
        if kind is S3Full:
            text += "; free some space, or raise the quota or limit"
        return kind(text, status, code, date=headers.get("date", ""))


def _about(request: Request) -> str:
    if request.key is None:
        return request.operation
    return f"{request.operation} of {request.key!a}"


def check_etag(request: Request, etag: str) -> None:
    """
    Check that an ETag can be used in a condition.

    :raises S3Unfit: If it is weak: no condition would hold.
    """
    if etag.startswith("W/"):
        raise S3Unfit(
            f"S3 answered {_about(request)} with the weak ETag {etag[:100]!a}; a proxy "
            "in front of the store must not compress or change responses"
        )


def http_date(text: str) -> float | None:
    """
    Read the value of a ``Date`` or ``Last-Modified`` header.

    :returns: The time, in seconds since the epoch; ``None`` if it is not a date.
    """
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
