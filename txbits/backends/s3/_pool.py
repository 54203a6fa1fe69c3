"""
The connections to a store, and the certificates that they accept.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakSet

from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.web.client import BrowserLikePolicyForHTTPS

from txbits._heads import BoundedPool
from txbits.backends.s3._settings import S3Settings
from txbits.errors import BackendError

#: Seconds that connections may take to close.
_CLOSE_TIMEOUT = 2.0

#: How often to check whether they are idle, and the states that say so.
_CLOSE_ROUNDS = 200
_AT_REST = frozenset({"QUIESCENT", "CONNECTION_LOST"})


class Pool(BoundedPool):
    """Connections without Nagle's algorithm, which are all closed at the end."""

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._reactor_time = reactor
        self._all: WeakSet[Any] = WeakSet()

    def getConnection(self, key: Any, endpoint: Any) -> Deferred[Any]:
        """See :class:`twisted.web.client.HTTPConnectionPool`."""

        def hurry(connection: Any) -> Any:
            if connection.transport is not None:
                connection.transport.setTcpNoDelay(True)
            self._all.add(connection)
            return connection

        connecting: Deferred[Any] = super().getConnection(key, endpoint)
        return connecting.addCallback(hurry)

    async def close(self) -> None:
        """
        Close all connections.

        A connection whose response has just been read is not idle yet, and not in the
        pool. Those that do not become idle are aborted.
        """
        for _ in range(_CLOSE_ROUNDS):
            if all(one.state in _AT_REST for one in self._all):
                break
            await deferLater(self._reactor_time, _CLOSE_TIMEOUT / _CLOSE_ROUNDS)
        for connection in list(self._all):
            if connection.state not in _AT_REST and connection.transport is not None:
                connection.transport.abortConnection()
        closing: Deferred[None] = self.closeCachedConnections()
        timer = self._reactor_time.callLater(_CLOSE_TIMEOUT, closing.cancel)
        closing.addErrback(lambda _: None)
        await closing
        if timer.active():
            timer.cancel()


def policy_of(settings: S3Settings) -> BrowserLikePolicyForHTTPS:
    """
    Make the policy that says which certificates are trusted. Reads a file.

    :raises BackendError: If the file has no certificates.
    """
    if settings.ca is None:
        return BrowserLikePolicyForHTTPS()
    try:
        with open(settings.ca, "rb") as file:
            text = file.read(1 << 22)
    except OSError as error:
        raise BackendError(f"ca={settings.ca}: {error.strerror}") from error
    begin = b"-----BEGIN CERTIFICATE-----"
    pems = [begin + piece for piece in text.split(begin)[1:]]
    try:
        roots = [Certificate.loadPEM(pem) for pem in pems]
    except Exception as error:
        raise BackendError(f"ca={settings.ca}: {error!r}") from error
    if not roots:
        raise BackendError(f"ca={settings.ca} has no certificates in PEM")
    return BrowserLikePolicyForHTTPS(trustRootFromCertificates(roots))
