"""
What a service manager, such as systemd, is told: sd_notify(3), in a few lines.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

_log = Logger()

#: Seconds between two lines about the state.
_INTERVAL = 30.0

#: How often the watchdog is told in the time after which it would act.
_SHARE = 3


def _microseconds(text: str | None) -> float | None:
    """Read a positive number of microseconds; ``None`` if that is none."""
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 18:
        return None
    return int(text) / 1e6 or None


@define(eq=False)
class ServiceManager:
    """
    The service manager that has started this process, if one has.

    :param reactor: The clock.
    :param address: The path of its socket, which begins with ``@`` if it is an abstract
        one; ``None`` if nobody wants to be told.
    :param watchdog: Seconds after which it takes the process for hung unless told that
        it is not; ``None`` if it does not watch.
    :param monotonic: Returns the time that the kernel calls monotonic, in seconds.
    """

    _reactor: Any
    _address: str | None = None
    _watchdog: float | None = None
    _monotonic: Callable[[], float] = time.monotonic
    _status: Callable[[], str] | None = field(default=None, init=False)
    _is_well: Callable[[], bool] | None = field(default=None, init=False)
    _call: IDelayedCall | None = field(default=None, init=False)
    _has_failed: bool = field(default=False, init=False)

    @classmethod
    def of(cls, reactor: Any, environment: Mapping[str, str]) -> ServiceManager:
        """Find it by the variables of sd_notify(3) and sd_watchdog_enabled(3)."""
        address = environment.get("NOTIFY_SOCKET")
        if not address or address[0] not in "/@":
            return cls(reactor)
        watchdog = _microseconds(environment.get("WATCHDOG_USEC"))
        if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            watchdog = None
        return cls(reactor, address, watchdog)

    def start(
        self, status: Callable[[], str], is_well: Callable[[], bool] | None = None
    ) -> None:
        """
        Begin to tell at intervals that the reactor still runs, and how things are.

        :param status: Returns a line for operators.
        :param is_well: Is called each time, and returns whether what does not depend on
            the reactor is well, too; otherwise the watchdog is not told.
        """
        self._is_well = is_well
        if self._address is not None:
            self._status = status
            self._tick()

    def stop(self) -> None:
        """Tell no more by itself."""
        self._status = None
        if self._call is not None:
            self._call.cancel()
            self._call = None

    def ready(self) -> None:
        """Tell that uploads are accepted, or that a reload is over."""
        self._tell("READY=1", *self._state())

    def reloading(self) -> None:
        """Tell that settings and certificates are being read again."""
        now = int(self._monotonic() * 1e6)
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        """Tell that the server is stopping."""
        self._tell("STOPPING=1", *self._state())

    def failed(self, line: str) -> None:
        """
        Tell why the process is about to end.

        :param line: One line.
        """
        self._tell(f"STATUS={line}")

    def _tick(self) -> None:
        interval = _INTERVAL
        if self._watchdog is not None:
            interval = min(interval, self._watchdog / _SHARE)
        self._call = self._reactor.callLater(interval, self._tick)
        is_well = self._is_well is None or self._is_well()
        alive = ["WATCHDOG=1"] if is_well and self._watchdog is not None else []
        self._tell(*alive, *self._state())

    def _state(self) -> list[str]:
        return [] if self._status is None else [f"STATUS={self._status()}"]

    def _tell(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        address = self._address
        if address.startswith("@"):
            address = "\0" + address[1:]
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                # What it does not take at once may be lost, rather than wait for it.
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            if not self._has_failed:
                self._has_failed = True
                _log.warn(
                    "cannot notify the service manager at {address}: {reason}",
                    address=self._address,
                    reason=str(error),
                )
        else:
            self._has_failed = False
