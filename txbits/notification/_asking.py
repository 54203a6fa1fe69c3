"""
One request to a server application, and its outcome (MC-BUP 3.3.5).
"""

from __future__ import annotations

from typing import Any

from attrs import define, field
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse

from txbits._agents import (
    FAILURES,
    Watch,
    coding_of,
    in_words,
    open_request,
    reasons_of,
)
from txbits._deferreds import Event
from txbits._heads import BoundedPool, EndlessHead
from txbits.errors import (
    ApplicationRefused,
    ApplicationTimedOut,
    ApplicationUnreachable,
    BackendError,
    BadAnswer,
)
from txbits.interfaces import Answer, CompleteUpload, IReadable, IReply
from txbits.notification._bodies import Drain, ReplyBody, UploadBody
from txbits.notification._connection import (
    LONGEST_HEAD,
    Connection,
    ResponseHead,
    TappedEndpoints,
)
from txbits.notification._url import Target
from txbits.protocol.urls import fault_of_reply_url

#: How many bytes of an unused body are read, and for how many seconds.
_MOST_DRAINED = 1 << 16
_DRAIN_TIME = 5.0

_NO_HTTP = "its response is not HTTP"
_OLD_HTTP = "the application does not answer with HTTP/1.1"


@define(eq=False, repr=False)
class Asking:
    """
    One attempt to get an answer.

    :ivar reactor: The clock.
    :ivar endpoints: Connect to the application.
    :ivar target: The target of the request.
    :ivar headers: The headers of the request.
    :ivar upload: The upload.
    :ivar reply: Stores the reply.
    :ivar by_value: Whether the upload is the request's body.
    """

    reactor: Any
    endpoints: IAgentEndpointFactory
    target: Target
    headers: Headers
    upload: CompleteUpload
    reply: IReply
    by_value: bool
    send_timeout: float
    response_timeout: float
    reply_timeout: float
    _watch: Watch = field(init=False)
    _connection: Connection = field(init=False)
    _upload_body: UploadBody | None = field(default=None, init=False)
    _reply_body: ReplyBody | None = field(default=None, init=False)
    _early: Exception | None = field(default=None, init=False)
    _is_cancelled: bool = field(default=False, init=False)
    _request_ended: Event | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._watch = Watch(self.reactor)
        self._connection = Connection(self._look_at_head, holds=False)

    async def run(self) -> Answer:
        """
        Send the request, and return the answer.

        When it is over, its connection is closed, and the upload is no longer read.
        """
        try:
            answer = await self._answer()
        except GeneratorExit:
            # The process ends.
            raise
        except BaseException as error:
            sorted_out = self._sorted(error)
            await self._ended()
            if sorted_out is error:
                raise
            raise sorted_out from error
        await self._ended()
        return answer

    async def _answer(self) -> Answer:
        response = await self._response()
        if not 200 <= response.code < 300:
            await self._drained(response)
            raise _refusal(response.code)
        reply_url = _reply_url(response)
        if self.by_value and reply_url is None:
            await self._stored(response)
        else:
            await self._drained(response)
        return Answer(
            status=response.code,
            publishes=response.headers.hasHeader(b"BITS-Copy-File-To-Destination"),
            reply_url=reply_url,
        )

    async def _response(self) -> IResponse:
        body: UploadBody | None = None
        if self.by_value:
            session = self.upload.session
            body = self._upload_body = UploadBody(
                IReadable(session), session.total or 0, self._moved
            )
            self._connection.holds = not body.is_out
        endpoints = TappedEndpoints(self._connection, self.endpoints)
        pool = BoundedPool(self.reactor, persistent=False)
        self._restart()
        request = open_request(
            Agent.usingEndpointFactory(self.reactor, endpoints, pool),
            "POST",
            self.target.url,
            headers=self.headers,
            body=body,
            reactor=self.reactor,
        )
        ended = self._request_ended = Event()

        def cancel(_: object) -> None:
            # Its failure does not always show that.
            self._is_cancelled = True
            request.cancel()

        waiting: Deferred[Any] = Deferred(cancel)
        request.chainDeferred(waiting)
        request.addBoth(lambda _: ended.set())
        self._watch.guard(waiting)
        response: IResponse = await waiting
        self._watch.end()
        if response.version != (b"HTTP", 1, 1):
            raise BadAnswer(_OLD_HTTP)
        coding = coding_of(response)
        if coding is not None and response.code < 300:
            raise BadAnswer(
                "the application's response has an unexpected Content-Encoding "
                f"{coding[:100]!a}"
            )
        return response

    def _moved(self) -> None:
        self._restart()
        if not self._is_sending:
            self._connection.let_go()

    @property
    def _is_sending(self) -> bool:
        return self._upload_body is not None and not self._upload_body.is_out

    def _restart(self) -> None:
        self._watch.restart(
            self.send_timeout if self._is_sending else self.response_timeout
        )

    def _look_at_head(self, head: ResponseHead) -> None:
        """
        Give up if the head is too long, or if the upload is refused before all of it is
        sent.
        """
        if not head.is_over and head.length > LONGEST_HEAD:
            self._give_up(
                self._unreachable(f"its response's head is over {LONGEST_HEAD:,} bytes")
            )
        elif not self._is_sending:
            return
        elif not head.is_http:
            self._give_up(self._unreachable(_NO_HTTP))
        elif head.version not in (None, b"1.1"):
            self._give_up(BadAnswer(_OLD_HTTP))
        elif head.status is not None and head.status >= 300:
            self._give_up(_refusal(head.status))

    def _give_up(self, error: Exception) -> None:
        self._early = error
        self._connection.abort()

    async def _stored(self, response: IResponse) -> None:
        def waits(is_waiting: bool) -> None:
            if is_waiting:
                self._watch.restart(self.reply_timeout)
            else:
                self._watch.end()

        body = self._reply_body = ReplyBody(self.reply, waits)
        response.deliverBody(body)
        ended = body.ended.wait()
        self._watch.guard(ended)
        await ended
        if body.error is not None:
            raise body.error

    async def _drained(self, response: IResponse) -> None:
        """
        Read and ignore the rest of a response, within limits, so that the application
        can finish.
        """
        drain = Drain(_MOST_DRAINED)
        response.deliverBody(drain)
        over = self.reactor.callLater(_DRAIN_TIME, drain.ended.set)
        try:
            await drain.ended.wait()
        finally:
            if over.active():
                over.cancel()

    async def _ended(self) -> None:
        """
        Stop the request and both bodies, and wait until they have ended.

        :raises BackendError: If an incomplete reply could not be closed.
        """
        self._watch.stop()
        self._connection.abort()
        if self._request_ended is not None:
            await self._request_ended.outlast()
        if self._connection.was_made:
            await self._connection.gone.outlast()
        if self._upload_body is not None:
            self._upload_body.stopProducing()
            await self._upload_body.ended.outlast()
        if self._reply_body is not None:
            await self._reply_body.ended.outlast()
            if isinstance(self._reply_body.error, BackendError):
                raise self._reply_body.error

    def _sorted(self, error: BaseException) -> BaseException:
        """Determine the error to report."""
        for body in (self._reply_body, self._upload_body):
            if body is not None and body.error is not None:
                return body.error
        if self._watch.expired is not None:
            return ApplicationTimedOut(self._late(self._watch.expired))
        if self._early is not None:
            return self._early
        if not isinstance(error, FAILURES):
            return error
        if self._is_cancelled or isinstance(error, CancelledError):
            return CancelledError()
        reasons = list(reasons_of(error))
        if any(isinstance(one, (TLSError, VerificationError)) for one in reasons):
            why = "its certificate is not trusted, or it does not speak TLS"
        elif isinstance(
            reasons[0], (ConnectionClosed, OSError, ConnectError, EndlessHead)
        ):
            why = in_words(error)
        else:
            why = _NO_HTTP
        return self._unreachable(why)

    def _unreachable(self, why: str) -> ApplicationUnreachable:
        return ApplicationUnreachable(f"no answer from {self.target.authority}: {why}")

    def _late(self, seconds: float) -> str:
        if self._reply_body is not None:
            return f"the application sent nothing of its reply for {seconds:g} seconds"
        if self._is_sending:
            return f"the application read nothing of the upload for {seconds:g} seconds"
        return f"the application did not answer within {seconds:g} seconds"


def _refusal(status: int) -> Exception:
    """
    Make the error for a status other than success.

    A status that is not valid in a final response cannot be forwarded to the client.
    """
    if not 300 <= status < 600:
        return BadAnswer(f"the application answered with status {status}")
    return ApplicationRefused(f"the application answered with status {status}", status)


def _reply_url(response: IResponse) -> str | None:
    """
    Read BITS-Static-Response-URL; an empty one is ignored (MC-BUP 3.3.5.2.4).

    :raises BadAnswer: If it cannot be forwarded to the client.
    """
    values = response.headers.getRawHeaders(b"BITS-Static-Response-URL", ())
    urls: set[str] = {value.strip().decode("latin-1") for value in values} - {""}
    if not urls:
        return None
    url = urls.pop()
    if urls:
        raise BadAnswer("the application returned several reply URLs")
    if (fault := fault_of_reply_url(url)) is not None:
        raise BadAnswer(f"the application's reply URL {fault}")
    return url
