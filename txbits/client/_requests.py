"""
HTTP requests and their responses.

Failures are sorted into temporary ones (:class:`NoAnswer`) and permanent ones
(:class:`NoTrust`, :class:`NoWay`, and the exceptions of the source of a body).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.cookiejar import CookieJar
from typing import Any, Protocol
from urllib.parse import urlsplit

from OpenSSL.SSL import Error as TLSError
from service_identity import VerificationError
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
)
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol as ByteProtocol
from twisted.internet.protocol import connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent

from txbits._agents import FAILURES, Watch, in_words, open_request, reasons_of
from txbits._deferreds import deferred
from txbits._heads import BoundedPool
from txbits.client._auth import Authorizer
from txbits.client._bodies import CHUNK
from txbits.client._cancelling import cancellable
from txbits.client._http import make_agent
from txbits.client._login import Login
from txbits.client._malformed import describe_malformed
from txbits.client._negotiate import MOST_STEPS, NoTicket
from txbits.client._proxy import ProxyRefused
from txbits.client._trust import Distrusted
from txbits.client._url import parse_proxy
from txbits.client.settings import ConnectionSettings
from txbits.client.source import SourceError
from txbits.protocol.reactions import is_transient

#: How many seconds idle connections may take to close.
_CLOSE_TIMEOUT = 2.0

#: How often one request is sent, at most, because the proxy and the server require
#: credentials, or a fresh nonce; and how often more for the steps of Negotiate.
_ATTEMPTS = 4

#: The longest body of a 401 that is read to keep the connection, in bytes.
_LONGEST_REFUSAL = 64 * 1024


class ExchangeError(Exception):
    """A request failed; the text is one line that says why."""


class NoAnswer(ExchangeError):
    """The connection failed or timed out. This may be temporary."""


class NoTrust(ExchangeError):
    """TLS failed over a certificate. This is permanent."""


class Untrusted(NoTrust):
    """None of the trusted authorities vouches for the server's certificate."""


class CertificateRefused(NoTrust):
    """The server requires a client certificate, and there is none."""


class NoWay(ExchangeError):
    """
    The proxy refuses the connection, there is no Kerberos ticket, or the server does
    not prove who it is. This is permanent.
    """


class Connections(BoundedPool):
    """A pool that can drop the connection of the latest request."""

    maxPersistentPerHost = 1
    # A packet without an answer may have arrived. The upload decides what to send next.
    retryAutomatically = False
    _latest: Any = None

    def getConnection(self, key: Any, endpoint: IStreamClientEndpoint) -> Any:
        """See :class:`twisted.web.client.HTTPConnectionPool`."""

        def remember(connection: Any) -> Any:
            self._latest = connection
            # Send a chunk in one call: by default Twisted sends it in two halves, and
            # polls all sockets in between.
            connection.transport.SEND_LIMIT = CHUNK
            return connection

        return super().getConnection(key, endpoint).addCallback(remember)

    def drop(self) -> None:
        """Drop that connection, even if data is still on its way."""
        latest, self._latest = self._latest, None
        transport = None if latest is None else latest.transport
        # Twisted 24.10 fails if a TLS connection is already closed.
        if transport is not None and getattr(transport, "connected", True):
            transport.abortConnection()


class Body(Protocol):
    """A body producer that knows whether all of it has been sent."""

    finished: bool


class Requests:
    """
    Requests, one at a time, on a connection that is kept.

    :param clock: For the time-outs.
    :param connections: The pool of *agent*.
    :param agent: What makes the requests.
    :param settings: What goes with each request, and the time-outs.
    :param proxy_authorizer: What answers a proxy, if there is one.
    :param login: What logs in to the server; with *settings* if ``None``.
    :raises InvalidSettings: If the settings need a package that is not installed.
    """

    def __init__(
        self,
        clock: Any,
        connections: Connections,
        agent: IAgent,
        settings: ConnectionSettings,
        proxy_authorizer: Authorizer,
        login: Login | None = None,
    ) -> None:
        self._clock = clock
        self._connections = connections
        self._agent = agent
        self._cookies = CookieJar()
        self._url = ""
        self._settings = settings
        self._login = login or Login(settings, self._in_thread)
        self._proxy_authorizer = proxy_authorizer

    @classmethod
    def over_network(cls, reactor: Any, settings: ConnectionSettings) -> Requests:
        """
        Make requests on sockets.

        :raises InvalidSettings: If the settings make no sense.
        """
        connections = Connections(reactor)
        proxy_authorizer = Authorizer(settings.proxy_credentials)
        agent = make_agent(reactor, settings, connections, proxy_authorizer)
        return cls(reactor, connections, agent, settings, proxy_authorizer)

    async def ask(
        self,
        method: bytes,
        url: str,
        headers: Iterable[tuple[bytes, bytes]],
        make_body: Callable[[Callable[[], None]], Body | None],
    ) -> Any:
        """
        Send a request, again with credentials if the server asks for them.

        :param url: In ASCII.
        :param make_body: Makes the body of one attempt, or returns ``None``. Its
            argument has to be called whenever a part of the body was sent.
        :returns: The response, whose body is not read yet.
        :raises NoAnswer: If the failure may be temporary.
        :raises NoTrust: If a certificate is not trusted.
        :raises NoWay: If the proxy refuses the connection, there is no ticket, or the
            server does not prove who it is.
        :raises InvalidSettings: If the token cannot be used.
        :raises SourceError: If the body cannot be read.
        """
        self._url = url
        try:
            return await self._ask(method, url, headers, make_body)
        except NoTicket as error:
            self.drop()
            kind = NoAnswer if error.transient else NoWay
            raise kind(str(error)) from error

    async def _ask(
        self,
        method: bytes,
        url: str,
        headers: Iterable[tuple[bytes, bytes]],
        make_body: Callable[[Callable[[], None]], Body | None],
    ) -> Any:
        await self._login.begin(url)
        attempts = _ATTEMPTS + (MOST_STEPS if self._settings.negotiate else 0)
        for _ in range(attempts):
            response = await self._attempt(method, url, headers, make_body)
            if not await self._has_an_answer(response):
                break
            if self._login.keeps_connection:
                await self._read_away(response)
            else:
                await self.discard(response)
        get = response.headers.getRawHeaders
        asked, persistent = get(b"WWW-Authenticate", []), get(b"Persistent-Auth", [])
        await self._login.answered(response.code, asked, persistent)
        return response

    async def discard(self, response: Any) -> None:
        """Discard the body of a response, by dropping the connection if it has one."""
        if response.length == 0:
            return
        self.drop()
        # Twisted is still parsing what came with the head, and may then put the
        # connection into the pool, where close() finds it.
        await deferLater(self._clock, 0)

    async def _read_away(self, response: Any) -> None:
        """Read the body of a response, so that the connection can be used again."""
        known = response.length if isinstance(response.length, int) else 0
        if response.length == 0 or known > _LONGEST_REFUSAL:
            await self.discard(response)
            return
        remains = _Remains(self.drop)
        response.deliverBody(remains)
        remains.ended.addTimeout(self._settings.response_timeout, self._clock)
        try:
            await remains.ended
        except TimeoutError:
            self.drop()
        # Twisted puts the connection into the pool after that.
        await deferLater(self._clock, 0)

    def _in_thread(self, function: Callable[..., Any], *args: Any) -> Deferred[Any]:
        pool = self._clock.getThreadPool()
        return deferToThreadPool(self._clock, pool, function, *args)

    def offered(self, response: Any) -> tuple[str, ...]:
        """List the authentication schemes that a 401 or 407 response offers."""
        authorizer, asked = self._asked(response)
        return () if authorizer is None else authorizer.describe(asked)

    def drop(self) -> None:
        """Drop the connection of the latest request."""
        self._connections.drop()

    @deferred
    async def close(self) -> None:
        """
        Let go of the connections.

        :returns: A Deferred that fires with ``None`` when they are closed.
        """
        closed: Deferred[None] = Deferred()

        def fire(_: object) -> None:
            if not closed.called:
                closed.callback(None)

        self._connections.closeCachedConnections().addBoth(fire)
        # A TLS connection waits for the peer, which may be gone.
        patience = self._clock.callLater(_CLOSE_TIMEOUT, fire, None)
        await closed
        if patience.active():
            patience.cancel()
        self._connections.drop()

    async def _attempt(
        self,
        method: bytes,
        url: str,
        headers: Iterable[tuple[bytes, bytes]],
        make_body: Callable[[Callable[[], None]], Body | None],
    ) -> Any:
        watch = Watch(self._clock)
        settings = self._settings

        def restart() -> None:
            out = body is None or body.finished
            watch.restart(
                settings.response_timeout if out else settings.request_timeout
            )

        all_headers = await self._headers(method, url, headers)
        body: Any = make_body(restart)
        restart()
        request = cancellable(
            open_request(
                self._agent,
                method.decode("ascii"),
                url,
                headers=all_headers,
                body=body,
                cookies=self._cookies,
                reactor=self._clock,
            )
        )
        watch.guard(request)
        try:
            response = await request
        except (*FAILURES, ProxyRefused) as error:
            server = self._server_of(url)
            shown = settings.certificate is not None
            raise _sorted(
                error, watch.expired, server, self._peer(server), shown
            ) from error
        finally:
            watch.stop()
        # An answer before the end of the body means that the rest is not needed.
        if body is not None and not body.finished:
            self.drop()
        return response

    def _server_of(self, url: str) -> str:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return _with_port(parts.hostname or "", port)

    def _peer(self, server: str) -> str:
        """What connections are made to, in order to reach a server."""
        if self._settings.proxy is None:
            return server
        return f"the proxy {_with_port(*parse_proxy(self._settings.proxy))}"

    async def _headers(
        self, method: bytes, url: str, headers: Iterable[tuple[bytes, bytes]]
    ) -> Headers:
        made = Headers({b"User-Agent": [b"txbits"], b"Accept": [b"*/*"]})
        own = [
            (name.encode("ascii"), text.encode("utf-8"))
            for name, text in self._settings.headers
        ]
        for name, _ in own:
            made.removeHeader(name)
        for name, text in own:
            made.addRawHeader(name, text)
        for header, value in headers:
            made.addRawHeader(header, value)
        answer = await self._login.answer(method, url)
        if answer is not None:
            made.setRawHeaders(b"Authorization", [answer])
        return made

    async def _has_an_answer(self, response: Any) -> bool:
        """Whether the response requires credentials, and there are some."""
        authorizer, asked = self._asked(response)
        if isinstance(authorizer, Login):
            return await authorizer.challenged(asked)
        return authorizer is not None and authorizer.challenged(asked)

    def _asked(self, response: Any) -> tuple[Login | Authorizer | None, list[bytes]]:
        """Get the authorizer for a response, and the challenges in the response."""
        if response.code == 401:
            asked = response.headers.getRawHeaders(b"WWW-Authenticate")
            return self._login, asked or []
        if response.code == 407 and not self._url.startswith("https:"):
            # In a tunnel the answer is not from the proxy.
            asked = response.headers.getRawHeaders(b"Proxy-Authenticate")
            return self._proxy_authorizer, asked or []
        return None, []


class _Remains(ByteProtocol):
    """Takes a body that nobody reads, if it is short; drops the connection if not."""

    def __init__(self, drop: Callable[[], None]) -> None:
        self.ended: Deferred[None] = Deferred()
        self._left = _LONGEST_REFUSAL
        self._drop = drop

    def dataReceived(self, data: bytes) -> None:
        self._left -= len(data)
        if self._left < 0:
            self._drop()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ended.called:
            self.ended.callback(None)


def _with_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _sorted(
    error: BaseException,
    expired: float | None,
    server: str,
    peer: str,
    has_certificate: bool,
) -> BaseException:
    """
    Tell what a request failed with, and where.

    :param expired: The seconds of the time-out that has passed, if one has.
    :param server: The host and port that the request is for.
    :param peer: What connections are made to: the same, or a proxy.
    :param has_certificate: Whether a client certificate was shown.
    """
    reasons = list(reasons_of(error))
    for reason in reasons:
        if isinstance(reason, SourceError):
            return reason
    if expired is not None:
        return NoAnswer(f"{server} sent nothing for {expired:g} seconds")
    for reason in reasons:
        if isinstance(reason, (CancelledError, ConnectingCancelledError)):
            return CancelledError()
        if isinstance(reason, Distrusted):
            return Untrusted(str(reason))
        if isinstance(reason, VerificationError) or (
            isinstance(reason, TLSError) and "certificate verify failed" in str(reason)
        ):
            return Untrusted("the server's certificate is not trusted")
        alert = _alert_on_certificate(reason)
        if alert is not None and not has_certificate:
            return CertificateRefused(
                f"the server requires a client certificate: {alert}"
            )
        if alert is not None:
            return NoTrust(f"the server did not accept the client certificate: {alert}")
        if isinstance(reason, ProxyRefused) and not is_transient(reason.status):
            return NoWay(str(reason))
    return NoAnswer(_in_words(error, reasons, server, peer))


def _in_words(
    error: BaseException, reasons: list[BaseException], server: str, peer: str
) -> str:
    for reason in reasons:
        if isinstance(reason, DNSLookupError):
            return f"cannot connect to {peer}: host name not found"
        if isinstance(reason, ConnectError):
            words = str(reason.args[0]) if reason.args and reason.args[0] else ""
            return f"cannot connect to {peer}: {words or in_words(reason)}"
    words = describe_malformed(reasons) or in_words(error)
    if "does not speak TLS" in words:
        words += "; check the port, or use http://"
    return f"{server}: {words}"


def _alert_on_certificate(error: BaseException) -> str | None:
    """The alert of a server that did not accept the client certificate."""
    if not isinstance(error, TLSError) or not error.args:
        return None
    # OpenSSL: a list of library, function and reason.
    for *_, reason in error.args[0]:
        if "alert" in reason and ("certificate" in reason or "unknown ca" in reason):
            return str(reason)
    return None
