"""
The listening ports, and the certificates that they read again at SIGHUP.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from txbits._deferreds import deferred, settled
from txbits.errors import InvalidSetting
from txbits.interfaces import ICertified, IReloadable
from txbits.service._process import on_one_line
from txbits.tls._connections import gather_records

_log = Logger()

#: Twisted's own endpoint for TLS, also behind another one.
_SSL = re.compile(r"(?:^|:)ssl:")


@frozen
class _Listed:
    port: IListeningPort
    address: str
    description: str


@define(eq=False)
class Ports:
    """
    The ports that listen.

    :ivar counts: How often certificates were read again, by result: ``"succeeded"`` or
        ``"failed"``.
    """

    counts: Counter[str] = field(factory=Counter, init=False)
    _ports: list[_Listed] = field(factory=list, init=False)
    _reloading: Deferred[None] | None = field(default=None, init=False)
    _is_wanted: bool = field(default=False, init=False)

    def add(self, port: IListeningPort, address: str, description: str) -> None:
        """
        A port has just begun to listen.

        :param address: Its address, for the log.
        :param description: The endpoint string that has made it.
        """
        gather_records(port)
        self._ports.append(_Listed(port, address, description))

    def certified(self) -> Iterator[tuple[str, float]]:
        """Tell of each port with a certificate its address and when that expires."""
        for listed in self._ports:
            if ICertified.providedBy(listed.port):
                yield listed.address, ICertified(listed.port).expires

    def take(self) -> list[IListeningPort]:
        """Forget all ports, and return them."""
        ports, self._ports = self._ports, []
        return [listed.port for listed in ports]

    def reload(self) -> None:
        """Read the certificates again; if that is in progress, once more after it."""
        self._is_wanted = True
        if self._reloading is None:
            self._reloading = running = self._run()
            if running.called:
                self._reloading = None

    def over(self) -> Deferred[None]:
        """
        Wait for the reading that is in progress, if any is.

        :returns: A Deferred that fires with ``None`` when none is.
        """
        over: Deferred[None] = Deferred()
        if self._reloading is None:
            over.callback(None)
        else:
            self._reloading.addBoth(over.callback)
        return over

    @deferred
    async def stop(self) -> None:
        """
        Stop reloading.

        :returns: A Deferred that fires with ``None`` when no thread reads any more.
        """
        self._is_wanted = False
        await self.over()

    @deferred
    async def _run(self) -> None:
        try:
            while self._is_wanted:
                self._is_wanted = False
                await settled([_reloaded(one, self.counts) for one in self._ports])
        finally:
            self._reloading = None


@deferred
async def _reloaded(listed: _Listed, counts: Counter[str]) -> None:
    """Read the certificates of a port again, and log what has come of it."""
    fields = {"address": listed.address, "endpoint": listed.description}
    if IReloadable.providedBy(listed.port):
        try:
            what = await listed.port.reload()
        except InvalidSetting as error:
            counts["failed"] += 1
            _log.error(
                "{address}: reload failed, keeping the old certificates: {reason}",
                reason=on_one_line(error),
                **fields,
            )
        except Exception:  # noqa: BLE001 - whatever it was, the service continues
            counts["failed"] += 1
            _log.failure(
                "{address}: reload failed: {log_failure}",
                address=listed.address,
                endpoint=listed.description,
            )
        else:
            counts["succeeded"] += 1
            _log.info("{address}: certificates reloaded: {what}", what=what, **fields)
    elif _SSL.search(listed.description):
        _log.warn(
            "{address}: restart required for new certificates; https: reloads them, "
            "ssl: does not",
            **fields,
        )
