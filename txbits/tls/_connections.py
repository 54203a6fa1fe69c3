"""
TLS connections: how they read and write long bodies, what a failed handshake tells the
log, and who loses a connection when authorities or revocation lists have changed.

This module uses private parts of :mod:`twisted.protocols.tls` and of ``OpenSSL``; no
other one does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL._util import ffi, lib
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IOpenSSLServerConnectionCreator,
    IProtocolFactory,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogLevel
from twisted.protocols.haproxy._wrapper import (
    HAProxyProtocolWrapper,
    HAProxyWrappingFactory,
)
from twisted.protocols.policies import ProtocolWrapper
from twisted.protocols.tls import (
    BufferingTLSTransport,
    TLSMemoryBIOFactory,
    TLSMemoryBIOProtocol,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits._troubles import Troubles
from txbits.clocks import steady
from txbits.tls._context import Refusal, make_context, reason_of
from txbits.tls._files import Material, subject_of

_log = Logger()

#: How many connections the reactor's thread looks at in one go: some milliseconds.
_BATCH = 200

#: The most bytes in a record (RFC 8446 5.1).
_RECORD = 1 << 14

#: How many bytes OpenSSL gets at a time. For each connection, it keeps as much memory
#: as it was ever passed in one go.
_SLICE = 1 << 16

#: The most bytes that encryption adds to a record (RFC 5246 6.2.3), with its header.
_ADDED = 2048 + 5

#: Shorter records than this are short, in bytes.
_SHORT = 1024

#: How many bytes are decrypted before they are delivered, at most.
_ROOM = 1 << 20

#: After how many seconds the keys of tickets are made anew. RFC 5077 5.5: "The keys
#: should be changed regularly". Who gets hold of one could decrypt TLS 1.2.
_TICKET_KEYS_LAST = 24 * 3600.0

#: What OpenSSL says if a client does not speak TLS, or none of ours.
_NO_TLS = {
    "http request": "it sent plain HTTP",
    "https proxy request": "it sent plain HTTP",
    "wrong version number": "it sent something that is not TLS",
    "unsupported protocol": "it supports only versions before TLS 1.2",
    "no shared cipher": "it supports none of the ciphers",
}


@frozen
class Loaded:
    """Files that were read, and the context made of them."""

    material: Material
    context: SSL.Context

    @classmethod
    def of(cls, material: Material) -> Loaded:
        """
        Make the context; this may take some time.

        :raises InvalidSetting: If OpenSSL does not accept the material.
        """
        return cls(material, make_context(material))


class _Decrypted:
    """
    What the records of a read contain: memory for one connection at a time.

    pyOpenSSL makes a new object of each record, of which one would have to be made to
    deliver them together. That is a fifth of the time that an upload takes.

    :ivar length: How many bytes there are.
    :ivar records: How many records they come from.
    """

    def __init__(self) -> None:
        self._view = memoryview(bytearray(_ROOM))
        self._address = ffi.from_buffer("char[]", self._view)
        self.length = self.records = 0

    def read(self, connection: Any) -> bool:
        """
        Decrypt records, as many as OpenSSL has and there is room for.

        :param connection: The :class:`OpenSSL.SSL.Connection`.
        :returns: Whether there is no room for another one.
        :raises OpenSSL.SSL.Error: As ``recv()`` of the connection raises it, but not if
            the rest of a record has yet to come.
        """
        # Names of its own: this loop turns for every 16 KiB that arrive.
        ssl, read, start = connection._ssl, lib.SSL_read, self._address
        length, records, count = self.length, self.records, 1
        while length <= _ROOM - _RECORD:
            count = read(ssl, start + length, _RECORD)
            if count <= 0:
                break
            length += count
            records += 1
        self.length, self.records = length, records
        if count > 0:
            return True
        # Not as an exception, of which there would be one for every four records.
        if lib.SSL_get_error(ssl, count) != lib.SSL_ERROR_WANT_READ:
            connection._raise_ssl_error(ssl, count)
        return False

    def take(self) -> memoryview:
        """Return what there is, for use before the next read, and begin anew."""
        length, self.length, self.records = self.length, 0, 0
        return self._view[:length]


_decrypted = _Decrypted()


class GatheringTransport(BufferingTLSTransport):
    """
    A TLS connection that handles the records of a read or of a long write together.

    Twisted delivers each record by itself. As a record has at most 16 KiB, everything
    above would work in such small pieces, however much is read from the socket. In the
    same way it hands each record that it sends to the socket by itself.

    A protocol above that has a method ``view_received`` gets a view of memory that is
    used again, instead of bytes.

    :ivar has_short_records: Whether the last read had many short records. Each record
        takes some time, so a long read of them would keep all others waiting.
    """

    has_short_records = False

    def dataReceived(self, data: bytes) -> None:
        if len(data) <= _SLICE or not self._handshakeDone or self._lostTLSConnection:
            super().dataReceived(data)
            return
        view = memoryview(data)
        ended = None
        for start in range(0, len(data), _SLICE):
            self._tlsConnection.bio_write(view[start : start + _SLICE])
            ended = self._decrypt()
            if ended is not None or self._lostTLSConnection:
                break
        self._deliver()
        if self._appSendBuffer and ended is None and not self._lostTLSConnection:
            self._unbufferPendingWrites()
        self._end(ended)

    def _flushReceiveBIO(self) -> None:
        ended = None if self._lostTLSConnection else self._decrypt()
        self._deliver()
        self._end(ended)

    def encrypt(self, data: memoryview) -> tuple[int, bytes]:
        """
        Encrypt bytes; the caller sends the result, before anything else is written.

        :param data: At least one byte. It is not kept.
        :returns: How many of the bytes were encrypted, 0 if others have to be sent
            before them or none can be sent now, and the records.
        """
        aggregator: Any = self._aggregator
        if (
            not self._handshakeDone
            or self._lostTLSConnection
            or self.disconnecting
            or self._appSendBuffer
            or getattr(aggregator, "_buffer", None)
        ):
            return 0, b""
        connection = self._tlsConnection
        count, end = 0, min(len(data), _SLICE)
        try:
            while count < end:
                count += connection.send(data[count:end])
        except SSL.Error:
            # To write the rest shows that again.
            if not count:
                return 0, b""
        # One more, for what is not data, such as a ticket.
        return count, connection.bio_read(count + _ADDED * (count // _RECORD + 2))

    def _decrypt(self) -> Failure | None:
        """
        Decrypt what OpenSSL has.

        :returns: Why nothing more can be read, if that is so.
        """
        try:
            while _decrypted.read(self._tlsConnection):
                self._deliver()
                if self._lostTLSConnection:
                    return None
        except SSL.Error:
            return Failure()
        return None

    def _deliver(self) -> None:
        """Deliver what was decrypted."""
        length, records = _decrypted.length, _decrypted.records
        self.has_short_records = records * _SHORT > max(length, _SLICE)
        view = _decrypted.take()
        if not length or self._aborted:
            return
        receive = getattr(self.wrappedProtocol, "view_received", None)
        if receive is None:
            ProtocolWrapper.dataReceived(self, bytes(view))
        else:
            receive(view)

    def _end(self, ended: Failure | None) -> None:
        """Tell the end of what can be read, as Twisted does."""
        if ended is not None and not self._lostTLSConnection:
            if ended.check(SSL.ZeroReturnError):
                self._shutdownTLS()
                self._tlsShutdownFinished(None)
            else:
                self._tlsShutdownFinished(ended)
        self._flushSendBIO()


class HttpsTransport(GatheringTransport):
    """
    A TLS connection of our own endpoint.

    :ivar refusal: Why the certificate of the client was refused, if it was.
    :ivar loaded: What the server had loaded when the connection was made.
    """

    factory: HttpsFactory
    refusal: Refusal | None = None
    loaded: Loaded

    def _checkHandshakeStatus(self) -> None:
        super()._checkHandshakeStatus()
        if self._handshakeDone:
            self.factory.connected(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        is_failed = not self._handshakeDone and not self._aborted
        has_begun = is_failed and self._tlsConnection.client_random() is not None
        why = self._reason
        super().connectionLost(reason)
        if is_failed and (why is not None or has_begun):
            error = None if why is None else why.value
            self.factory.failed(self.getPeer(), error, self.refusal)

    def getPeerCertificate(self) -> Any:
        # A request may be served for a while after its connection was lost.
        return None if self._tlsConnection is None else super().getPeerCertificate()

    def client_chain(self) -> Sequence[x509.Certificate]:
        """
        The certificate of the client and those of its authorities, as verified.
        """
        if self._tlsConnection is None:
            return ()
        found: list[x509.Certificate] | None = self._tlsConnection.get_verified_chain(
            as_cryptography=True
        )
        return found or ()


@implementer(IOpenSSLServerConnectionCreator)
class HttpsFactory(TLSMemoryBIOFactory):
    """
    Puts TLS around the connections of another factory.

    :param loaded: What new connections use.
    :param wrapped: The other factory.
    :param reactor: The reactor.
    """

    protocol = HttpsTransport

    def __init__(self, loaded: Loaded, wrapped: IProtocolFactory, reactor: Any) -> None:
        self._seconds = steady(reactor).seconds
        self._troubles = Troubles(_log, reactor.seconds)
        self.use(loaded)
        super().__init__(self, False, wrapped, reactor)

    def buildProtocol(  # type: ignore[override]
        self, addr: IAddress | None
    ) -> TLSMemoryBIOProtocol | None:
        # Not TLSMemoryBIOFactory.buildProtocol, which would wrap a None.
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)

    def _applyProtocolNegotiation(self, connection: SSL.Connection) -> None:
        """The context has done that; Twisted 24.10 would change it once in use."""

    def serverConnectionForTLS(self, transport: Any) -> SSL.Connection:
        loaded = self.loaded
        if (
            not loaded.material.authorities
            and self._seconds() - self._in_use_since > _TICKET_KEYS_LAST
        ):
            self.use(Loaded.of(loaded.material))
        transport.loaded = self.loaded
        connection = SSL.Connection(self.loaded.context, None)
        connection.set_app_data(transport)
        return connection

    # Handshakes

    def connected(self, transport: HttpsTransport) -> None:
        """A handshake is complete."""
        loaded = self.loaded
        if transport.loaded is loaded:
            return
        # The files were read again meanwhile.
        if not loaded.material.trusts(transport.client_chain()):
            self.drop(transport)

    def failed(
        self, peer: IAddress, error: BaseException | None, refusal: Refusal | None
    ) -> None:
        """A handshake has failed: the log has to say why, since no answer can."""
        kind, reason = _told(error, refusal)
        self._troubles.report(
            kind,
            "TLS handshake with {client} failed: {reason}",
            level=LogLevel.warn,
            client=getattr(peer, "host", "-"),
            reason=reason,
        )

    # New files

    def use(self, loaded: Loaded) -> None:
        """Use other files, or other keys of tickets, for new connections."""
        self.loaded = loaded
        self._in_use_since = self._seconds()

    def batches(self) -> Iterator[list[HttpsTransport]]:
        """The open connections, a few at a time."""
        opened: list[Any] = list(self.protocols)
        for first in range(0, len(opened), _BATCH):
            yield opened[first : first + _BATCH]

    def drop(self, transport: HttpsTransport) -> None:
        """Drop the connection of a client that would not be let in again."""
        chain = transport.client_chain()
        _log.info(
            "dropped the connection of {client}: {subject} is revoked, or its "
            "authority is no longer in client-ca",
            client=getattr(transport.getPeer(), "host", "-"),
            subject=subject_of(chain[0]) if chain else "the certificate",
        )
        transport.abortConnection()


class ProxiedFactory(HAProxyWrappingFactory):
    """Reads the header of the PROXY protocol before TLS begins."""

    def buildProtocol(self, addr: IAddress | None) -> Any:
        wrapped = self.wrappedFactory.buildProtocol(addr)
        if wrapped is None:
            return None
        return HAProxyProtocolWrapper(self, wrapped)  # type: ignore[arg-type]


def secured(
    loaded: Loaded, wrapped: IProtocolFactory, reactor: Any
) -> tuple[HttpsFactory, IProtocolFactory]:
    """
    Put TLS around the connections of a factory.

    Twisted's ``haproxy:`` wraps the factory, so its header would be expected inside
    TLS. All proxies send it before TLS begins; therefore the order is changed here.

    :returns: The factory with TLS, and the one to listen with.
    """
    if isinstance(wrapped, HAProxyWrappingFactory):
        inner = HttpsFactory(loaded, wrapped.wrappedFactory, reactor)
        return inner, ProxiedFactory(inner)
    factory = HttpsFactory(loaded, wrapped, reactor)
    return factory, factory


def gather_records(port: IListeningPort) -> None:
    """
    Let the connections of a port deliver the records of a read together.

    :param port: A port that has just begun to listen. This affects those of Twisted's
        ``ssl:``; those of ``https:`` do it anyway.
    """
    factory = getattr(port, "factory", None)
    if (
        isinstance(factory, TLSMemoryBIOFactory)
        and factory.protocol is BufferingTLSTransport
    ):
        factory.protocol = GatheringTransport


def _told(error: BaseException | None, refusal: Refusal | None) -> tuple[object, str]:
    """The kind of a failure, and what to tell about it."""
    if refusal is not None:
        return refusal.code, f"its certificate is refused: {refusal.text}"
    reason = reason_of(error) if isinstance(error, SSL.Error) else ""
    if not reason:
        return "closed", (
            "it closed the connection; perhaps it does not trust our certificate"
        )
    if "did not return a certificate" in reason:
        return "none", "it has sent no client certificate"
    if reason in _NO_TLS:
        return reason, _NO_TLS[reason]
    if "alert" in reason:
        return reason, f"it refuses our certificate, or the connection: {reason}"
    return reason, reason
