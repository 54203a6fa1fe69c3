"""
Signed requests to S3 over treq, which are repeated if they fail.

A request is repeated while that can help and there is time. An earlier attempt, whose
response was lost, may have been carried out; the outcome says so (``is_repeated``). The
caller handles that if the request cannot be carried out twice.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote

from attrs import define, field
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger, LogLevel
from twisted.web.client import (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse

from txbits._agents import coding_of, open_request
from txbits._troubles import Troubles
from txbits.backends._threads import InThread
from txbits.backends.s3._access import UNSIGNED, Access
from txbits.backends.s3._bodies import (
    EMPTY_SHA256,
    LONG,
    BodyProducer,
    Collector,
    Digest,
    TooLong,
)
from txbits.backends.s3._responses import (
    Reader,
    Request,
    Response,
    S3Error,
    S3Unreachable,
    S3Untrusted,
    http_date,
)
from txbits.backends.s3._settings import S3Settings
from txbits.clocks import wall_of

_log = Logger()

#: Seconds that one attempt may take, in addition to the time for its body.
ATTEMPT_TIMEOUT = 15.0

# S3 may take minutes to complete an upload of many parts, or to copy a long one.
_LENGTHY = frozenset({"CompleteMultipartUpload", "UploadPartCopy"})

# These have no checksum, because their body is not an object's bytes.
_UNCHECKED = frozenset({"UploadPartCopy"})

#: The least speed of a body, in bytes a second.
_SLOWEST = 1 << 17

#: The first pause and the longest, in seconds; each is drawn between 0 and that.
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 8.0

#: The greatest length of an error response, in bytes.
_MOST_ERROR = 1 << 16

_PASSING = frozenset({429, 500, 502, 503, 504})
_PASSING_CODES = frozenset(
    {
        "ConditionalRequestConflict",
        "InternalError",
        "OperationAborted",
        "RequestTimeout",
        "ServiceUnavailable",
        "SlowDown",
    }
)
#: The trouble that the store is away.
_STORE = "store"

#: By how many seconds a clock is wrong when a store rejects it; for most it is 900.
_SKEWED = 300.0

_LOST = (
    CancelledError,
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
    DNSLookupError,
    PotentialDataLoss,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)


@define(eq=False)
class Client:
    """
    Sends requests to S3.

    :param access: The bucket's URL, and credentials.
    :param agent: Sends single requests.
    :param reactor: The clock.
    :param in_thread: Calls functions in threads, for long bodies.
    :ivar counts: How many attempts were made, by operation.
    :ivar answered: How many attempts have ended, by operation and status; the status is
        ``"none"`` if there was no response.
    :ivar seconds: How long these took in all.
    """

    settings: S3Settings
    access: Access
    _agent: IAgent
    _reactor: Any
    _in_thread: InThread
    counts: Counter[str] = field(factory=Counter, init=False)
    answered: Counter[tuple[str, str]] = field(factory=Counter, init=False)
    seconds: dict[tuple[str, str], float] = field(factory=dict, init=False)
    _random: Callable[[float, float], float] = field(default=random.uniform)
    _at_once: DeferredSemaphore = field(init=False)
    _reader: Reader = field(init=False)
    _troubles: Troubles = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._at_once = DeferredSemaphore(self.settings.connections)
        access = self.access
        self._reader = Reader(access.model, access.region, self._in_thread)
        self._troubles = Troubles(_log, self._reactor.seconds)

    async def ask(self, request: Request) -> Response:
        """
        Send a request, and repeat it as often as needed while there is time.

        :raises S3Error: If S3 refuses it.
        :raises S3Unreachable: If no attempt settles it in time.
        :raises S3Unfit: If the response cannot be relied on.
        :raises CancelledError: If the caller's Deferred was cancelled. The caller may
            do that only for requests that change nothing, or may be carried out later.
        """
        asked = self._reactor.seconds()
        async with self._at_once:
            return await self._ask(request, asked)

    async def _ask(self, request: Request, asked: float) -> Response:
        payload, headers = await self._described(request)
        # The time in the queue counts, so that no request takes longer while the store
        # is away; but each gets at least one attempt.
        for_body = _seconds_for(request)
        deadline = asked + self.settings.timeout + for_body
        once = min(ATTEMPT_TIMEOUT, self.settings.timeout) + for_body
        attempt = 0
        is_repeated = False
        has_renewed = False
        while True:
            await self.access.ready()
            wait = max(1.0 if attempt else once, deadline - self._reactor.seconds())
            if request.operation not in _LENGTHY:
                wait = min(wait, ATTEMPT_TIMEOUT + for_body)
            began, status = self._reactor.seconds(), 0
            try:
                response = await self._attempt(
                    request, headers, payload, wait, is_repeated
                )
                status = response.status
                self._is_back()
                return response
            except S3Untrusted:
                raise
            except S3Unreachable as error:
                why = error
                is_repeated = True
            except S3Error as error:
                status = error.status
                if not has_renewed and self._puts_right(request, error):
                    # It was not carried out.
                    has_renewed = True
                    continue
                if error.status not in _PASSING and error.code not in _PASSING_CODES:
                    self._is_back()
                    error.is_repeated = is_repeated
                    raise
                why = S3Unreachable(str(error), f"refuses requests: {error}")
                is_repeated = True
            finally:
                self._count(request.operation, status, began)
            if attempt:
                # A single failure usually is a connection that the store has closed.
                self.report(why.reason)
            pause = self._random(0, min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
            attempt += 1
            if self._reactor.seconds() + pause >= deadline:
                raise why
            _log.debug(
                "{operation} is tried again in {pause} s: {why}",
                operation=request.operation,
                pause=pause,
                why=str(why),
            )
            await deferLater(self._reactor, pause)

    def _count(self, operation: str, status: int, began: float) -> None:
        key = operation, str(status or "none")
        self.answered[key] += 1
        took = self._reactor.seconds() - began
        self.seconds[key] = self.seconds.get(key, 0.0) + took

    def report(self, why: str) -> None:
        """
        Log that the store cannot be used for now.

        :param why: What is wrong.
        """
        self._troubles.report(
            _STORE,
            "bucket {bucket} at {url} {why}; still trying. Check that the store is "
            "running and can be reached from here, and the endpoint in the settings",
            level=LogLevel.warn,
            bucket=self.settings.bucket,
            url=self.access.base,
            why=why,
        )

    def _is_back(self) -> None:
        self._troubles.over(
            _STORE,
            "bucket {bucket} at {url} can be used again",
            bucket=self.settings.bucket,
            url=self.access.base,
        )

    async def _described(self, request: Request) -> tuple[str, dict[str, str]]:
        """Return the hash of the body that is signed, and all headers."""
        headers = dict(request.headers)
        body = request.body
        if body is None:
            return EMPTY_SHA256, headers
        kind = "md5" if request.operation == "DeleteObjects" else self.settings.checksum
        is_signed = not self.access.is_safe
        if body.digest is not None and body.is_digested(kind, is_signed):
            await body.digest.settled(self._in_thread)
        elif body.length > LONG:
            await self._in_thread(body.digested, kind, is_signed)
        digest = body.digested(kind, is_signed)
        if request.operation == "DeleteObjects" or (
            request.method == "PUT" and request.operation not in _UNCHECKED
        ):
            name = "content-md5" if kind == "md5" else "x-amz-checksum-crc32"
            headers[name] = digest.checksum()
        return digest.sha256() if is_signed else UNSIGNED, headers

    def new_digest(self) -> Digest:
        """Begin the digest of a body that is arriving."""
        return Digest(self.settings.checksum, not self.access.is_safe)

    def digest(self, digest: Digest, chunk: bytes) -> None:
        """Add the next bytes of such a body to its digest."""
        digest.feed(chunk, self._in_thread)

    def url(self, request: Request) -> str:
        """Return the URL of a request."""
        url = self.access.base
        # A bucket's own URL has a trailing slash, however it is addressed.
        url += "/" + quote(request.key or "", safe="/~")
        if request.query:
            url += "?" + "&".join(
                f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}"
                for name, value in sorted(request.query.items())
            )
        return url

    async def _attempt(
        self,
        request: Request,
        headers: Mapping[str, str],
        payload: str,
        seconds: float,
        is_repeated: bool,
    ) -> Response:
        self.counts[request.operation] += 1
        url = self.url(request)
        signed = self.access.signed(request.method, url, headers, payload)
        body = request.body
        waiting: Deferred[Any] = open_request(
            self._agent,
            request.method,
            url,
            headers=Headers(
                {
                    name.encode("ascii"): [value.encode("utf-8")]
                    for name, value in signed.items()
                }
            ),
            body=None if body is None else BodyProducer(body),
            reactor=self._reactor,
        )
        is_late = is_cancelled = False

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            waiting.cancel()

        def cancel(_: Deferred[Any]) -> None:
            nonlocal is_cancelled
            is_cancelled = True
            waiting.cancel()

        def settle(outcome: Any) -> None:
            if not responding.called:
                responding.callback(outcome)

        # Endpoints make a failed look-up of the host's name out of a cancellation.
        responding: Deferred[Any] = Deferred(cancel)
        waiting.addBoth(settle)
        timer = self._reactor.callLater(seconds, give_up)
        try:
            response = await responding
            coding = coding_of(response)
            is_refusal = response.code >= 300
            if request.is_left_open and not is_refusal:
                return Response(
                    response.code,
                    _named(response),
                    b"",
                    {},
                    is_repeated,
                    response,
                    coding,
                )
            collector = Collector(_MOST_ERROR if is_refusal else request.most)
            waiting = collector.collected
            response.deliverBody(collector)
            content = await waiting
        except _LOST as error:
            if is_cancelled or (not is_late and _is_cancelled(error)):
                raise CancelledError(f"{request.operation} was given up") from error
            raise self._lost(error, is_late, seconds) from error
        except TooLong as error:
            raise S3Unreachable(f"S3 answered {request.operation} {error}") from error
        finally:
            if timer.active():
                timer.cancel()
        names = _named(response)
        return await self._reader.read(
            request, response.code, names, content, is_repeated, coding
        )

    def _lost(self, error: Exception, is_late: bool, seconds: float) -> S3Unreachable:
        reasons = [one.value for one in getattr(error, "reasons", ())] or [error]
        if any(isinstance(one, (TLSError, VerificationError)) for one in reasons):
            return S3Untrusted(
                f"the certificate of {self.access.base} is not trusted; if it is "
                f"self-signed, set ca=FILE: {reasons[-1]!r}"
            )
        if is_late:
            why = f"did not answer within {seconds:g} s"
            return S3Unreachable(f"S3 {why}", why)
        said = "; ".join(str(one).removesuffix(".") or repr(one) for one in reasons)
        why = f"cannot be reached: {said}"
        return S3Unreachable(f"{self.access.base} {why}", why)

    def _puts_right(self, request: Request, error: S3Error) -> bool:
        """
        Fix what caused an error, if possible, for the next attempt.

        :returns: Whether something was fixed.
        """
        # Responses to HEAD have no body with an error code.
        is_silent = request.method == "HEAD"
        if error.code == "ExpiredToken" or (is_silent and error.status == 400):
            self.access.forget()
            return True
        if error.code == "RequestTimeTooSkewed":
            return self._correct_clock(error.date, 0.0)
        return (
            is_silent
            and error.status == 403
            and self._correct_clock(error.date, _SKEWED)
        )

    def _correct_clock(self, date: str, least: float) -> bool:
        theirs = http_date(date)
        if theirs is None or abs(theirs - self.access.now()) < least:
            return False
        self.access.skew = theirs - wall_of(self._reactor)()
        self.access.saw(theirs)
        _log.warn(
            "this machine's clock is {skew:.0f} s behind S3's; requests are signed "
            "with S3's time",
            skew=self.access.skew,
        )
        return True


def _named(response: IResponse) -> dict[str, str]:
    return {
        name.decode("ascii").lower(): values[-1].decode("latin-1")
        for name, values in response.headers.getAllRawHeaders()
    }


def _is_cancelled(error: Exception) -> bool:
    """Return whether the request was cancelled."""
    reasons = [one.value for one in getattr(error, "reasons", ())]
    return any(
        isinstance(one, (CancelledError, ConnectingCancelledError))
        for one in (error, *reasons)
    )


def _seconds_for(request: Request) -> float:
    length = 0 if request.body is None else request.body.length
    most = request.most if request.operation == "GetObject" else 0
    return (length + most) / _SLOWEST
