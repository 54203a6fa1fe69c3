"""
HTTP requests by way of treq, for the client, the S3 backend, and notifications.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from typing import Any

from attrs import define, field, frozen
from hyperlink import URL
from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    ConnectionClosed,
)
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.web.client import (
    Agent,
    HTTPConnectionPool,
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
)
from twisted.web.http_headers import Headers
from twisted.web.iweb import (
    IAgent,
    IAgentEndpointFactory,
    IBodyProducer,
    IPolicyForHTTPS,
    IResponse,
)
from zope.interface import implementer

from txbits.protocol._fields import trimmed


@implementer(IAgentEndpointFactory)
@frozen(eq=False)
class Direct:
    """
    Endpoints of servers.

    :ivar policy: For TLS.
    :ivar timeout: How many seconds connecting may take.
    """

    reactor: Any
    policy: IPolicyForHTTPS
    timeout: float = 30.0

    def endpointForURI(self, uri: Any) -> Any:
        host = uri.host.decode("ascii")
        endpoint = HostnameEndpoint(self.reactor, host, uri.port, self.timeout)
        if uri.scheme != b"https":
            return endpoint
        creator = self.policy.creatorForNetloc(uri.host, uri.port)
        return wrapClientTLS(creator, endpoint)


@implementer(IStreamClientEndpoint)
@frozen(eq=False)
class _MadeToConnect:
    """An endpoint that is made anew for each connection."""

    _make: Callable[[Any], Any]
    _uri: Any

    def connect(self, protocolFactory: Any) -> Deferred[Any]:  # noqa: N803
        connecting: Deferred[Any] = self._make(self._uri).connect(protocolFactory)
        return connecting


@implementer(IAgentEndpointFactory)
@frozen(eq=False)
class _MadeLater:
    """
    The endpoints of another factory, made when they are connected to.

    An agent asks for one with each request, although the connection is kept. To make it
    takes a fifth of the CPU time of a small request, and more with TLS.
    """

    _factory: Any

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        return _MadeToConnect(self._factory.endpointForURI, uri)


def agent_with(
    reactor: Any, endpoints: IAgentEndpointFactory, pool: HTTPConnectionPool
) -> IAgent:
    """
    Make an agent that keeps its connections.

    :param endpoints: Makes the endpoints.
    :param pool: Keeps the connections.
    """
    later = _MadeLater(endpoints)
    agent: IAgent = Agent.usingEndpointFactory(  # type: ignore[no-untyped-call]
        reactor, later, pool
    )
    return agent


def open_request(
    agent: IAgent,
    method: str,
    url: str,
    *,
    headers: Headers,
    body: IBodyProducer | None = None,
    cookies: CookieJar | None = None,
    reactor: Any,
) -> Deferred[IResponse]:
    """
    Make one request with treq, which changes neither the URL nor the body.

    The URL is requested exactly as it is written, because it may be signed. The body of
    the response is not decoded, because its length, ranges and validators are those of
    the coded form. Redirects are not followed.

    :param agent: What makes the request.
    :param url: An absolute URL, in ASCII.
    :param cookies: Where cookies are kept; without it, they are not.
    :param reactor: The clock of treq.
    :returns: A Deferred that fires with the response when its head has arrived, and
        fails as that of :meth:`twisted.web.client.Agent.request` does. To cancel it
        gives the request up.
    """
    verbatim = _Verbatim(agent)
    # Newer versions of treq annotate a jar of their own kind, for Response.cookies().
    jar: Any = cookies
    opening: Deferred[Any] = HTTPClient(verbatim, jar).request(
        method,
        _ExactURL(text=url),
        headers=headers,
        data=body,
        allow_redirects=False,
        unbuffered=True,
        reactor=reactor,
    )

    def restored(response: IResponse) -> IResponse:
        verbatim.restore(response)
        return response

    return opening.addCallback(restored)


class _ExactURL(URL):
    """
    A URL for treq that stays as it is.

    treq encodes URLs again: those that are signed would no longer be valid, and those
    with an IPv6 address are refused.
    """

    def __init__(self, *, text: str) -> None:
        super().__init__()
        self._text = text

    def to_uri(self) -> _ExactURL:
        return self

    def to_text(self, with_password: bool = False) -> str:
        return self._text


@implementer(IAgent)
@define(eq=False)
class _Verbatim:
    """
    Makes one request without any coding of bodies.

    treq asks for gzip, and decodes what comes coded. This agent asks for no coding
    instead, and hides the Content-Encoding of a body that has one all the same.

    :param agent: What makes the request.
    """

    _agent: IAgent
    _codings: list[bytes] = field(factory=list, init=False)

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers.copy()
        headers.setRawHeaders(b"Accept-Encoding", [b"identity"])
        asking = self._agent.request(method, uri, headers, bodyProducer)
        return asking.addCallback(self._hide_codings)

    def _hide_codings(self, response: IResponse) -> IResponse:
        found = response.headers.getRawHeaders(b"Content-Encoding")
        if found is not None:
            self._codings = list(found)
            response.headers.removeHeader(b"Content-Encoding")
        return response

    def restore(self, response: IResponse) -> None:
        """Put the codings of a response back, once treq is done with it."""
        if self._codings:
            response.headers.setRawHeaders(b"Content-Encoding", self._codings)
        else:
            # treq leaves an empty one.
            response.headers.removeHeader(b"Content-Encoding")


def coding_of(response: IResponse) -> str | None:
    """
    Determine the content codings of a response (RFC 9110 8.4).

    Some stores return ``aws-chunked``, which only tells how an object was uploaded, or
    an empty header.

    :returns: The codings in lower case, separated by commas; ``None`` if there is none.
    """
    values = response.headers.getRawHeaders(b"Content-Encoding")
    if values is None:
        return None
    codings = [
        trimmed(one).lower().decode("latin-1") for one in b",".join(values).split(b",")
    ]
    return ", ".join(one for one in codings if one not in _NO_CODINGS) or None


_NO_CODINGS = frozenset({"", "identity", "aws-chunked"})


@define
class Watch:
    """
    A time-out that is restarted with each progress.

    :ivar clock: The clock.
    :ivar expired: The time-out that has expired, in seconds, if one has.
    """

    clock: IReactorTime
    expired: float | None = field(init=False, default=None)
    _request: Deferred[Any] | None = field(init=False, default=None)
    _call: IDelayedCall | None = field(init=False, default=None)
    _is_over: bool = field(init=False, default=False)

    def restart(self, seconds: float) -> None:
        """Start the time-out again, unless :meth:`stop` was called."""
        self.end()
        if not self._is_over:
            self._call = self.clock.callLater(seconds, self._expire, seconds)

    def guard(self, request: Deferred[Any]) -> None:
        """Cancel *request* when the time-out expires."""
        self._request = request

    def end(self) -> None:
        """Stop the time-out for now."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def stop(self) -> None:
        """
        Stop the time-out for good. A body may be on its way for a moment after its
        request has ended, and that is no progress any more.
        """
        self._is_over = True
        self.end()

    def _expire(self, seconds: float) -> None:
        self._call = None
        self.expired = seconds
        if self._request is not None:
            self._request.cancel()


#: What a request may fail with because of the network, the peer, or the source of the
#: body. Any other exception is a programming error.
FAILURES = (
    RequestGenerationFailed,
    RequestTransmissionFailed,
    ResponseFailed,
    ConnectError,
    ConnectionClosed,
    ConnectingCancelledError,
    CancelledError,
    TLSError,
    VerificationError,
    OSError,
)


def reasons_of(error: BaseException) -> Iterator[BaseException]:
    """An error of ``twisted.web.client`` and all its reasons, the innermost first."""
    for failure in getattr(error, "reasons", ()):
        yield from reasons_of(failure.value)
    yield error


def in_words(error: BaseException) -> str:
    """Describe the innermost reason of such an error, on one line."""
    innermost = next(reasons_of(error))
    if isinstance(innermost, TLSError):
        return _tls_in_words(innermost)
    words = " ".join(str(innermost).split()).rstrip(".")
    return words or type(innermost).__name__


#: How versions of OpenSSL describe plain text instead of TLS.
_NO_TLS = frozenset(
    {
        "wrong version number",
        "packet length too long",
        "http request",
        "unknown protocol",
    }
)


def _tls_in_words(error: TLSError) -> str:
    """Describe an error of OpenSSL, which reports a list of tuples."""
    found = error.args[0] if error.args else None
    if isinstance(found, list) and found:
        # Library, function, and reason.
        reasons = [str(one[-1]) for one in found]
        said = ", ".join(reasons)
        if not _NO_TLS.isdisjoint(reasons):
            return f"this port does not speak TLS ({said})"
    else:
        # A system call has a number and a text.
        said = str(error.args[-1] or "") if error.args else ""
    return f"TLS failed: {said or 'no reason given'}"
