"""
The side of a relay connection that has the sessions: a site whose requests seem to come
from the clients themselves.
"""

from __future__ import annotations

import os
import sys
from math import inf
from typing import Any

from OpenSSL import crypto
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Request

from txbits._accounts import peer_user
from txbits.web._relay.opening import (
    DROPPED_STATUS,
    WELCOME,
    Client,
    read_opening,
)
from txbits.web._streaming import (
    MAX_HEAD,
    TOLD_LOGINS,
    BITSSite,
    Limits,
    StreamingChannel,
    send_some,
)

_log = Logger()

_DROPPED = b"HTTP/1.1 %d Dropped\r\n\r\n" % DROPPED_STATUS

#: Seconds within which a relay connection must have said who it is.
_OPENING_TIMEOUT = 10.0

# The worker that the client is connected to enforces all limits, and closes the relay
# connection with that of the client.
_NO_LIMITS = Limits(
    header_timeout=inf,
    body_timeout=inf,
    idle_timeout=inf,
    max_connections=sys.maxsize,
    max_connections_per_peer=sys.maxsize,
)


class RelayedChannel(StreamingChannel):
    """
    A relay connection, which presents the properties of the client's connection as its
    own.

    :ivar client: The connection of the client.
    """

    client: Client
    memory: dict[Any, Any]
    # A head that the other side has accepted may have become longer by blanks.
    MAX_LENGTH = totalHeadersSize = 2 * MAX_HEAD

    def connectionMade(self) -> None:
        super().connectionMade()
        self.host = self.site.intern(self.client.host)
        if self.client.logins:
            self.memory = {TOLD_LOGINS: self.client.logins}

    def requestDone(self, request: Request) -> None:
        if self.client.logins:
            # They are of the directory of the first request. If that was refused before
            # anyone has taken them, the next one may be for another directory.
            self.memory.pop(TOLD_LOGINS, None)
        super().requestDone(request)

    def getPeer(self) -> IAddress:
        return self.client.address

    def isSecure(self) -> bool:
        return self.client.is_secure

    def getPeerCertificate(self) -> crypto.X509 | None:
        """The certificate that the client has shown."""
        der = self.client.certificate
        if der is None:
            return None
        return crypto.load_certificate(crypto.FILETYPE_ASN1, der)

    def readConnectionLost(self) -> None:
        # The other side never closes only its own: the client has gone.
        self.transport.connectionLost(Failure(ConnectionLost()))

    def loseConnection(self) -> None:
        self._tell_of_drop()
        super().loseConnection()

    def abort(self) -> None:
        self._tell_of_drop()
        super().abort()

    def _tell_of_drop(self) -> None:
        if self.requests and not self.requests[0].startedWriting:
            send_some(self.transport, _DROPPED)


class _Entrance(Protocol):
    """
    A relay connection that has yet to say who it is.

    :param site: Takes it then.
    """

    transport: Any

    def __init__(self, site: RelaySite) -> None:
        self._site = site
        self._data = b""
        self._overdue: IDelayedCall | None = None

    def connectionMade(self) -> None:
        user = peer_user(self.transport.socket)
        if user != os.geteuid():
            self._refuse(f"it is of the user {user}")
            return
        self._overdue = self._site.reactor.callLater(
            _OPENING_TIMEOUT, self._refuse, "it says nothing"
        )

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        try:
            opening = read_opening(self._data, self._site.secret)
        except ValueError as error:
            self._refuse(str(error))
            return
        if opening is None:
            return
        self._rest()
        client, rest = opening
        channel = self._site.channel_of(client)
        transport = self.transport
        transport.protocol = channel
        channel.makeConnection(transport)
        transport.write(WELCOME)
        if rest:
            channel.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._rest()

    def _rest(self) -> None:
        overdue, self._overdue = self._overdue, None
        if overdue is not None and overdue.active():
            overdue.cancel()

    def _refuse(self, why: str) -> None:
        self._rest()
        _log.warn("refused a connection to the relay socket: {why}", why=why)
        self.transport.abortConnection()


class RelaySite(BITSSite):
    """
    The site of the relay connections of a worker.

    :param resource: The root, the same as that of the site for clients.
    :param secret: What the workers of one service have in common.
    """

    protocol = RelayedChannel

    def __init__(
        self, resource: IResource, secret: bytes, *, reactor: IReactorTime
    ) -> None:
        super().__init__(resource, reactor=reactor, limits=_NO_LIMITS)
        self.secret = secret

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> _Entrance:
        return _Entrance(self)

    def channel_of(self, client: Client) -> RelayedChannel:
        """Make the channel of a relay connection."""
        # There is one, as the limits are out of reach.
        channel: Any = super().buildProtocol(client.address)
        channel.client = client
        made: RelayedChannel = channel
        return made
