"""
GET and HEAD of a file, for downloads and replies.

Conditions and ranges are evaluated before any byte is read. A response has the length
that its head states; otherwise its connection is dropped, so that the client notices.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from attrs import frozen
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits import errors
from txbits._deferreds import begun, let_go_of_frames
from txbits._events import log_often
from txbits.interfaces import ICodedFile, IStoredFile
from txbits.protocol.conditions import (
    LATEST_DATE,
    Validators,
    Verdict,
    examine,
    format_date,
    honours_range,
)
from txbits.protocol.ranges import (
    ByteRange,
    Multipart,
    chosen_ranges,
    unsatisfied_range,
)
from txbits.sessions import Caller, SessionManager
from txbits.sessions.naming import shown
from txbits.web._ack import (
    challenges,
    count_accepted_credentials,
    count_refused_credentials,
    named,
)
from txbits.web._gate import Gate
from txbits.web._origin import Origins
from txbits.web._sending import ClientGone, Sending
from txbits.web._streaming import headers_of, keeps_alive

_log = Logger()

#: The type of every file: its real type is unknown, and clients must not guess it.
CONTENT_TYPE = b"application/octet-stream"

#: The status for each error; a subclass precedes its base class. The reason is only
#: logged.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.CredentialsRejected, 401),
    (errors.CredentialsUncheckable, 503),
    (errors.AccessDenied, 403),
    (errors.UploadsDisabled, 501),
    (errors.ServerStopping, 503),
    (errors.WorkerUnavailable, 503),
    (errors.NoSuchFile, 404),
    (errors.NoSuchSession, 404),
    (errors.DestinationForbidden, 404),
    (errors.DestinationIsDirectory, 404),
)


@frozen
class Response:
    """
    A response.

    :ivar status: The status.
    :ivar headers: The headers without Content-Length.
    :ivar length: The Content-Length; ``None`` to leave it out.
    :ivar parts: The parts of the body: bytes, followed by a range of the file.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    length: int | None = 0
    parts: Sequence[tuple[bytes, ByteRange | None]] = ()


@frozen
class Redirect:
    """
    A redirection to a URL with the file.

    :ivar location: The URL.
    """

    location: str

    def response(self) -> Response:
        """The answer with the redirection."""
        location = (b"Location", self.location.encode("ascii"))
        # The URL expires.
        return Response(307, [location, (b"Cache-Control", b"no-store")])


class FileResource(Resource):
    """
    Answers GET and HEAD with a file.

    :param manager: The sessions of its directory.
    :param gate: Admits the request.
    :param caller: Who sent the request, as far as is known.
    :param origins: Knows where requests come from.
    :param name: The file's name in the log.
    :ivar to_log: The session and the destination for the log, as far as they are
        known.
    :ivar caching: The Cache-Control of the answers, unless they have another one;
        ``None`` for none.
    """

    isLeaf = True
    caching: bytes | None = None

    def __init__(
        self,
        manager: SessionManager,
        gate: Gate,
        caller: Caller,
        origins: Origins,
        name: str,
    ) -> None:
        super().__init__()
        self.manager = manager
        self.gate = gate
        self.caller = caller
        self.origins = origins
        self.name = name
        self.to_log: dict[str, Any] = {"session": None, "destination": None}

    def known(self, caller: Caller) -> None:
        """It is established who sent the request."""
        self.caller = caller
        count_accepted_credentials(self.manager.counts, caller)

    async def admit(self, request: Request, method: str) -> Caller:
        """
        Establish who sent the request, and ask for permission.

        :param method: ``"GET"`` or ``"HEAD"``.
        """
        raise NotImplementedError(f"{type(self).__name__} admits nobody")

    async def open(self, method: str) -> IStoredFile | Redirect:
        """
        Open the file.

        :param method: ``"GET"`` or ``"HEAD"``.
        :returns: The file, or a redirection to it.
        """
        raise NotImplementedError(f"{type(self).__name__} opens nothing")

    def render(self, request: Request) -> int:
        begun(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        file: IStoredFile | None = None
        try:
            self.manager.require_enabled()
            method = request.method.decode("ascii")
            if not self.gate.is_open:
                self.caller = await self.admit(request, method)
            found = await self.open(method)
            if isinstance(found, Redirect):
                response = found.response()
            else:
                file = found
                response = respond(request, file, int(self.manager.wall()))
        except Exception as error:  # noqa: BLE001 - the edge: every error is answered
            self.refuse(request, error)
        else:
            await self._send(request, file, response)
        finally:
            if file is not None:
                await file.release()

    def refuse(self, request: Request, error: Exception) -> None:
        """Answer a request that failed, and log it."""
        status = next((to for kind, to in _STATUSES if isinstance(error, kind)), 500)
        count_refused_credentials(self.manager.counts, error)
        log_format = (
            "refused {method} of {file} in {directory}/ to {who} with {status}: "
            "{detail}"
        )
        fields = self._fields(
            request, "refused", error, status=status, detail=self._shown(error)
        )
        if status == 500 and isinstance(error, errors.BackendError):
            _log.error(log_format, **fields)
        elif status == 500:
            _log.failure(log_format, Failure(error), **fields)
        elif isinstance(error, errors.CredentialsIncomplete):
            _log.debug(log_format, **fields)
        else:
            _log.info(log_format, **fields)
        if status != 500:
            let_go_of_frames(error)
        retry_after = getattr(error, "retry_after", None)
        if isinstance(error, errors.CredentialsRejected):
            for name, value in challenges(error):
                request.responseHeaders.addRawHeader(name, value)
        self._end(
            request,
            status,
            [] if retry_after is None else [(b"Retry-After", b"%d" % retry_after)],
        )

    def _shown(self, error: BaseException) -> str:
        return shown(str(error), hides_ids=self.gate.hides_ids)

    def _fields(
        self,
        request: Request,
        outcome: str,
        error: BaseException | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        return {
            "outcome": outcome,
            "method": request.method.decode("ascii"),
            "file": self.name,
            "bytes": 0,
            "hresult": None,
            **self.to_log,
            **named(request, self.caller, error),
            **more,
        }

    def _served(self, request: Request, status: int, sent: int = 0) -> None:
        log_often(
            _log,
            "served {method} of {file} in {directory}/ to {who} with {status}, {bytes} "
            "bytes",
            **self._fields(request, "served", status=status, bytes=sent),
        )

    async def _send(
        self, request: Request, file: IStoredFile | None, response: Response
    ) -> None:
        if file is None or not response.parts or request.method == b"HEAD":
            self._end(request, response.status, response.headers, response.length)
            self._served(request, response.status)
            return
        sending = Sending(request)
        try:
            sending.begin()
        except ClientGone:
            return
        try:
            self._begin(request, response.status, response.headers, response.length)
            for before, part in response.parts:
                if before:
                    await sending.send(before)
                if part is not None:
                    await sending.send_file(file, part.first, part.end)
        except ClientGone:
            _log.info(
                "{who} went away during {method} of {file} in {directory}/, after "
                "{bytes} bytes",
                **self._fields(
                    request, "interrupted", status=response.status, bytes=sending.sent
                ),
            )
            return
        except Exception as error:  # noqa: BLE001 - what has begun cannot be refused
            fields = self._fields(
                request,
                "broken-off",
                status=response.status,
                bytes=sending.sent,
                detail=self._shown(error),
            )
            log_format = "broke off {file} in {directory}/ to {who}: {detail}"
            if isinstance(error, errors.StagedDataLost):
                # Its session has ended, or the file has changed.
                _log.info(log_format, **fields)
            elif isinstance(error, errors.BackendError):
                _log.error(log_format, **fields)
            else:
                _log.failure(log_format, **fields)
            # This is the only way to tell the client that the body is incomplete.
            transport: Any = request.transport
            transport.abortConnection()
            return
        finally:
            sending.end()
            self.manager.counts.served += sending.sent
        request.finish()
        self._served(request, response.status, sending.sent)

    def _begin(
        self,
        request: Request,
        status: int,
        headers: list[tuple[bytes, bytes]],
        length: int | None = 0,
    ) -> None:
        """Set the head of a response; it is sent with the first byte of its body."""
        request.setResponseCode(status)
        method = request.method.decode("ascii")
        self.manager.counts.downloads[method, status] += 1
        request.setHeader(b"Server", b"txbits")
        if request.clientproto == b"HTTP/1.0" and not keeps_alive(request):
            request.setHeader(b"Connection", b"close")
        # From the clock that Last-Modified is compared with.
        now = int(self.manager.wall())
        request.setHeader(b"Date", format_date(now))
        # twisted.web would call an answer without a body text/html.
        request.defaultContentType = None
        if self.caching is not None:
            request.setHeader(b"Cache-Control", self.caching)
        for name, value in headers:
            request.setHeader(name, value)
        if length is not None:
            request.setHeader(b"Content-Length", b"%d" % length)

    def _end(
        self,
        request: Request,
        status: int,
        headers: list[tuple[bytes, bytes]],
        length: int | None = 0,
    ) -> None:
        """Answer without a body, unless the connection is gone."""
        if not request._disconnected:
            self._begin(request, status, headers, length)
            request.finish()


def respond(request: Request, file: IStoredFile, now: int) -> Response:
    """
    Choose the answer to a GET or HEAD of a file.

    A HEAD is answered as the GET would be (MC-BUP 3.5.5.2), also if it has a Range.
    """
    asked = headers_of(request)
    # RFC 9110 8.8.2.1 requires that it is not later than the Date. With a clock that is
    # ahead of the server's, it would then differ in each answer, and BITS would give up
    # or start over. So such a time is sent as it is.
    modified = max(0, min(int(file.modified), LATEST_DATE))
    current = Validators(
        None if file.etag is None else file.etag.encode("ascii"),
        modified,
        getattr(file, "is_weak", False),
    )
    headers = [
        (b"Last-Modified", format_date(current.modified)),
        (b"Accept-Ranges", b"bytes"),
    ]
    if (etag := current.quoted) is not None:
        headers.append((b"ETag", etag))
    verdict = examine(asked, current, now)
    if verdict is Verdict.FAILED:
        return Response(412, headers)
    if verdict is Verdict.NOT_MODIFIED:
        return Response(304, headers, length=None)
    total = file.length
    coding = file.content_encoding if ICodedFile.providedBy(file) else None
    ranges = None
    if b"range" in asked and honours_range(asked, current, now):
        ranges = chosen_ranges(asked[b"range"], total)
        if coding is not None and ranges is not None and len(ranges) > 1:
            # In the head of a multipart body, Content-Encoding would refer to the whole
            # body, which is not coded. A server may ignore a Range (RFC 9110 14.2).
            ranges = None
    if ranges == ():
        return Response(416, [*headers, (b"Content-Range", unsatisfied_range(total))])
    headers.append((b"X-Content-Type-Options", b"nosniff"))
    if coding is not None:
        headers.append((b"Content-Encoding", coding.encode("latin-1")))
    if ranges is None:
        whole = ByteRange(0, total - 1) if total else None
        return Response(
            200, [*headers, (b"Content-Type", CONTENT_TYPE)], total, [(b"", whole)]
        )
    if len(ranges) == 1:
        (one,) = ranges
        headers.append((b"Content-Type", CONTENT_TYPE))
        headers.append((b"Content-Range", one.content_range(total)))
        return Response(206, headers, one.length, [(b"", one)])
    boundary = secrets.token_hex(20).encode("ascii")
    multipart = Multipart(ranges, total, CONTENT_TYPE, boundary)
    headers.append((b"Content-Type", multipart.outer_type))
    return Response(
        206, headers, multipart.length, [*multipart.parts(), (multipart.end, None)]
    )
