"""
Requests to the operator's listener of a server.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import urlsplit

from attrs import define, frozen
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from txbits._agents import agent_with
from txbits._unix_sockets import UnixEndpoint
from txbits.client._auth import Authorizer
from txbits.client._fetch import Body
from txbits.client._requests import Connections, ExchangeError, NoAnswer, Requests
from txbits.client._url import InvalidURL, to_wire
from txbits.client.events import TransferFailed
from txbits.client.settings import ConnectionSettings
from txbits.client.source import printable
from txbits.protocol.reactions import is_transient

#: How long an answer may be, in bytes: a page of hundreds of sessions with long names.
_LONGEST = 64 << 20

#: Seconds that connecting to a Unix socket may take.
_CONNECT_TIMEOUT = 30.0

#: A colon that no backslash escapes.
_COLON = re.compile(r"(?<!\\):")
_ESCAPED = re.compile(r"\\(.)")
_NAMED = re.compile(r"([a-z]+)=(.*)", re.DOTALL)

_TLS = ("tls", "ssl")


class InvalidEndpoint(ValueError):
    """An endpoint cannot be used; the text is one line."""


@frozen
class AdminServer:
    """
    Where the operator's listener of a server is.

    :ivar url: The URL of its root, without a slash at the end.
    :ivar socket: The Unix socket that it is reached by; ``None`` if it is at that URL.
    """

    url: str
    socket: str | None = None


def admin_server(endpoint: str) -> AdminServer:
    r"""
    Read a client endpoint of Twisted.

    :param endpoint: ``unix:PATH``, ``tcp:HOST:PORT`` or ``tls:HOST:PORT``, where parts
        may have their names, as in ``tcp:host=HOST:port=PORT``. A backslash escapes a
        colon in one.
    :raises InvalidEndpoint: If it is another one.
    """
    kind, *parts = _COLON.split(endpoint)
    args: list[str] = []
    named: dict[str, str] = {}
    for part in parts:
        if (match := _NAMED.fullmatch(part)) is None:
            args.append(_ESCAPED.sub(r"\1", part))
        else:
            named[match[1]] = _ESCAPED.sub(r"\1", match[2])
    if kind == "unix":
        path = named.get("path") or next(iter(args), "")
        if path:
            return AdminServer("http://localhost", path)
    elif kind in ("tcp", *_TLS):
        host = named.get("host") or (args.pop(0) if args else "")
        port = named.get("port") or (args.pop(0) if args else "")
        url = f"{'https' if kind in _TLS else 'http'}://{_in_url(host)}:{port}"
        if host and port.isascii() and port.isdigit():
            try:
                return AdminServer(to_wire(url))
            except InvalidURL as error:
                raise InvalidEndpoint(f"{printable(endpoint)}: {error}") from None
    raise InvalidEndpoint(
        f"{printable(endpoint)} is not a client endpoint, such as "
        "unix:/run/txbits/admin, tcp:host=HOST:port=PORT or tls:host=HOST:port=PORT"
    )


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@implementer(IAgentEndpointFactory)
@define(eq=False)
class _Socket:
    """Connects to a Unix socket, whatever the URL."""

    reactor: Any
    path: str

    def endpointForURI(self, uri: Any) -> IStreamClientEndpoint:
        return UnixEndpoint(self.reactor, self.path, _CONNECT_TIMEOUT)


class _OverSocket(Requests):
    """Requests whose failures name the socket."""

    path = ""

    def _server_of(self, url: str) -> str:
        return self.path


class AdminRequests:
    """
    Requests to the operator's listener, whose answers are JSON.

    :param reactor: Makes the connections.
    :param server: Where it is.
    :param settings: The credentials.
    :raises InvalidSettings: If the settings make no sense.
    """

    def __init__(
        self, reactor: Any, server: AdminServer, settings: ConnectionSettings
    ) -> None:
        self._reactor = reactor
        self._server = server
        self._patience = settings.response_timeout
        if server.socket is None:
            self._requests = Requests.over_network(reactor, settings)
            return
        connections = Connections(reactor)
        agent = agent_with(reactor, _Socket(reactor, server.socket), connections)
        self._requests = requests = _OverSocket(
            reactor, connections, agent, settings, Authorizer(None)
        )
        requests.path = printable(server.socket)

    async def ask(self, method: bytes, path: str) -> Any:
        """
        Send a request.

        :param path: The path, with a query, in ASCII.
        :returns: What was answered.
        :raises TransferFailed: If that is a refusal, or nothing. A ``status`` of 404
            means that there is no such session.
        :raises InvalidSettings: If the token cannot be used.
        """
        requests, url = self._requests, self._server.url + path
        try:
            response = await requests.ask(method, url, (), lambda _: None)
            body = await self._body(response)
        except NoAnswer as error:
            raise TransferFailed(str(error), transient=True) from error
        except ExchangeError as error:
            raise TransferFailed(str(error), transient=False) from error
        status: int = response.code
        said = _read(response, body)
        if status == 200 and said is not None:
            return said
        raise TransferFailed(
            self._refusal(response, said), transient=is_transient(status), status=status
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._requests.close()

    async def _body(self, response: Any) -> bytes:
        body = bytearray()

        def take(data: bytes) -> None:
            if len(body) + len(data) > _LONGEST:
                raise TransferFailed("the answer is too long", transient=False)
            body.extend(data)

        if response.length == 0:
            return b""
        taking = Body(self._reactor, self._patience, take, self._requests.drop)
        response.deliverBody(taking)
        await taking.ended
        return bytes(body)

    def _refusal(self, response: Any, said: Any) -> str:
        status = response.code
        if isinstance(said, dict) and isinstance(said.get("error"), str):
            return printable(said["error"])
        if schemes := self._requests.offered(response):
            return f"the server answered {status}; it asks for {' or '.join(schemes)}"
        if status == 403:
            return "the server answered 403: this user is not in admin-users"
        if status in (200, 404, 405):
            where = self._server.socket or urlsplit(self._server.url).netloc
            return f"{printable(where)} is not the admin-listen of a txbits server"
        return f"the server answered {status}"


def _read(response: Any, body: bytes) -> Any:
    """Read an answer; ``None`` if it is no JSON."""
    kinds = response.headers.getRawHeaders(b"Content-Type") or [b""]
    if kinds[0].partition(b";")[0].strip().lower() != b"application/json":
        return None
    try:
        return json.loads(body)
    except ValueError:
        return None
