"""
The endpoint, its string, and its port, whose certificates can be reloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from os.path import abspath
from typing import Any

from attrs import define, field
from cryptography import x509
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.errors import InvalidSetting
from txbits.interfaces import ICertified, IReloadable
from txbits.tls._connections import HttpsFactory, HttpsTransport, Loaded, secured
from txbits.tls._files import Files, Material

_log = Logger()

#: A number with more digits is no port.
_MOST_DIGITS = 9


@implementer(IStreamServerEndpoint)
class HttpsEndpoint:
    """
    Listens for HTTPS. Its ports provide :class:`~txbits.interfaces.IReloadable` and
    :class:`~txbits.interfaces.ICertified`.

    :param reactor: The reactor.
    :param port: The port number; 0 for any.
    :param files: The certificates and the key. They are read here, which blocks.
    :param interface: The address to listen on; empty for all of IPv4.
    :param backlog: The length of the listen queue.
    :raises InvalidSetting: If the files cannot be used.
    """

    def __init__(
        self,
        reactor: Any,
        port: int,
        files: Files,
        interface: str = "",
        backlog: int = 50,
    ) -> None:
        self._reactor = reactor
        self._files = files
        self._loaded = Loaded.of(files.read())
        self._tcp = TCP4ServerEndpoint(reactor, port, backlog, interface)

    @deferred
    async def listen(self, factory: IProtocolFactory) -> IListeningPort:
        secure, outer = secured(self._loaded, factory, self._reactor)
        warn_of(self._loaded)
        port = await self._tcp.listen(outer)
        return HttpsPort(port, self._reactor, self._files, secure)


@implementer(IListeningPort, IReloadable, ICertified)
@define(eq=False)
class HttpsPort:
    """A port that listens for HTTPS."""

    _port: IListeningPort
    _reactor: Any
    _files: Files
    _factory: HttpsFactory
    _lock: DeferredLock = field(factory=DeferredLock, init=False)

    def startListening(self) -> None:
        self._port.startListening()

    def stopListening(self) -> Deferred[None] | None:
        return self._port.stopListening()

    def getHost(self) -> IAddress:
        return self._port.getHost()

    @property
    def expires(self) -> float:
        certificate = self._factory.loaded.material.certificate
        return certificate.not_valid_after_utc.timestamp()

    def reload(self) -> Deferred[str]:
        return self._lock.run(self._reload)

    @deferred
    async def _reload(self) -> str:
        loaded = await self._in_thread(lambda: Loaded.of(self._files.read()))
        warn_of(loaded)
        before, after = self._factory.loaded.material, loaded.material
        self._factory.use(loaded)
        if not after.trusts_whom(before):
            await self._drop_distrusted(after)
        return str(after)

    async def _drop_distrusted(self, material: Material) -> None:
        """Drop the connections of clients that would not be let in again."""
        for batch in self._factory.batches():
            chains = [(one, chain) for one in batch if (chain := one.client_chain())]
            for transport in await self._in_thread(_distrusted, material, chains):
                self._factory.drop(transport)

    def _in_thread(self, function: Any, *arguments: Any) -> Deferred[Any]:
        reactor = self._reactor
        return deferToThreadPool(reactor, reactor.getThreadPool(), function, *arguments)


def _distrusted(
    material: Material,
    chains: list[tuple[HttpsTransport, Sequence[x509.Certificate]]],
) -> list[HttpsTransport]:
    return [transport for transport, chain in chains if not material.trusts(chain)]


def warn_of(loaded: Loaded) -> None:
    """Log what an operator should know about the files."""
    for line in loaded.material.warnings(datetime.now(UTC)):
        _log.warn("{line}", line=line)


def https_endpoint(reactor: Any, *args: str, **kwargs: str) -> HttpsEndpoint:
    """
    Make an endpoint from the parts of its string.

    :raises InvalidSetting: If they cannot be used.
    """
    given = dict(kwargs)
    ports = [*args, *filter(None, [given.pop("port", None)])]
    if len(ports) != 1:
        raise InvalidSetting("https: must have one port, such as https:443")
    port = _number("port", ports[0])
    backlog = _number("backlog", given.pop("backlog", "50"))
    interface = given.pop("interface", "")
    names = {
        name: given.pop(name, None)
        for name in ("certificate", "key", "chain", "client-ca", "crl-file")
    }
    for name in given:
        raise InvalidSetting(
            f"unknown argument {name[:80]!a}; there are port, {', '.join(names)}, "
            "interface and backlog"
        )
    for name in ("certificate", "key"):
        if names[name] is None:
            raise InvalidSetting(f"{name}: missing; write {name}=FILE")
    for name, path in names.items():
        if path == "":
            raise InvalidSetting(f"{name}: must not be empty")
    # A daemon may change its working directory before the files are read again.
    certificate, key, chain, client_ca, crl = (
        None if path is None else abspath(path) for path in names.values()
    )
    assert certificate is not None and key is not None  # noqa: S101 - checked above
    return HttpsEndpoint(
        reactor,
        port,
        Files(certificate, key, chain, client_ca, crl),
        interface,
        backlog,
    )


def _number(name: str, text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS:
        return int(text)
    raise InvalidSetting(f"{name}: must be a number, not {text[:80]!a}")
