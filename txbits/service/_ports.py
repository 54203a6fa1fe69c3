"""
The listening ports, and the certificates that they read again at SIGHUP.
"""

from __future__ import annotations

import re

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger

from txbits._deferreds import deferred, settled
from txbits.errors import InvalidSetting
from txbits.interfaces import IReloadable
from txbits.service._process import on_one_line

_log = Logger()

#: Twisted's own endpoint for TLS, also behind another one.
_SSL = re.compile(r"(?:^|:)ssl:")


@define(eq=False)
class Ports:
    """The ports that listen, each with the endpoint string that has made it."""

    _ports: list[tuple[str, IListeningPort]] = field(factory=list, init=False)
    _reloading: Deferred[None] | None = field(default=None, init=False)
    _is_wanted: bool = field(default=False, init=False)

    def add(self, description: str, port: IListeningPort) -> None:
        """A port has begun to listen."""
        self._ports.append((description, port))

    def take(self) -> list[IListeningPort]:
        """Forget all ports, and return them."""
        ports, self._ports = self._ports, []
        return [port for _, port in ports]

    def reload(self) -> None:
        """Read the certificates again; if that is in progress, once more after it."""
        self._is_wanted = True
        if self._reloading is None:
            self._reloading = running = self._run()
            if running.called:
                self._reloading = None

    @deferred
    async def stop(self) -> None:
        """
        Stop reloading.

        :returns: A Deferred that fires with ``None`` when no thread reads any more.
        """
        self._is_wanted = False
        if self._reloading is not None:
            over: Deferred[None] = Deferred()
            self._reloading.addBoth(over.callback)
            await over

    @deferred
    async def _run(self) -> None:
        try:
            while self._is_wanted:
                self._is_wanted = False
                await settled([_reloaded(*one) for one in self._ports])
        finally:
            self._reloading = None


@deferred
async def _reloaded(description: str, port: IListeningPort) -> None:
    """Read the certificates of a port again, and log what has come of it."""
    if IReloadable.providedBy(port):
        try:
            what = await port.reload()
        except InvalidSetting as error:
            _log.error(
                "{listen}: reload failed, keeping the old certificates: {reason}",
                listen=description,
                reason=on_one_line(error),
            )
        except Exception:  # noqa: BLE001 - whatever it was, the service continues
            _log.failure("{listen}: reload failed: {log_failure}", listen=description)
        else:
            _log.info(
                "{listen}: certificates reloaded: {what}",
                listen=description,
                what=what,
            )
    elif _SSL.search(description):
        _log.warn(
            "restart required for new certificates: {listen}; https: reloads them",
            listen=description,
        )
