"""
The service's life: start every directory, then listen, then stop within a bound.

Nothing listens before everything works; nothing is cut off that a few seconds more
would have finished.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    maybeDeferred,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import deferred, settled
from txbits.errors import BackendError, InvalidSetting
from txbits.service._served import Served
from txbits.service.options import one_line
from txbits.web import BITSSite

_log = Logger()

#: Seconds that stopping may take.
SHUTDOWN_TIMEOUT = 30.0

#: How often, and how many seconds apart, a look is taken whether all connections are
#: closed. A peer that does not read its answer is not waited for longer.
_HANG_UP_ROUNDS = 40
_HANG_UP_INTERVAL = 0.05

#: Seconds that the rest of the process's end may take once that has passed.
_FORCE_AFTER = 5.0


class IProcess(Protocol):
    """What the service needs of a :class:`~txbits.service._process.Process`."""

    def fail(self, line: str) -> None:
        """Stop, and exit with status 1."""

    def end_by_force(self, seconds: float) -> None:
        """Be gone after so many seconds."""

    def make_room(self, connections: int) -> None:
        """Allow for so many connections."""

    def settle(self) -> None:
        """All is built."""

    def on_hangup(self, react: Callable[[], None]) -> None:
        """Do something at each SIGHUP."""


class IReloader(Protocol):
    """What the service needs of a :class:`~txbits.service._reload.Reloader`."""

    def hangup(self) -> None:
        """Read the settings again."""

    def stop(self) -> Deferred[None]:
        """Wait until that is over."""


@frozen
class Listener:
    """
    Something to listen on.

    :ivar where: What an error message about it begins with.
    :ivar description: The endpoint string.
    :ivar endpoint: The endpoint that it describes.
    """

    where: str
    description: str
    endpoint: IStreamServerEndpoint


class _CannotStart(Exception):
    """The text is the line that an operator gets to see."""


@define(eq=False, slots=False)
class UploadService(Service):
    """
    Serves virtual directories on endpoints.

    :param reactor: Runs it all.
    :param process: Ends when the service cannot start.
    :param site: Serves the connections.
    :param directories: The virtual directories.
    :param listeners: What to listen on, once all of them have started.
    :param connections: How many connections there may be.
    :param shutdown_timeout: Seconds that stopping may take.
    :ivar reloader: Reads the settings again at SIGHUP.
    """

    reactor: Any
    process: IProcess
    site: BITSSite
    directories: list[Served]
    listeners: Sequence[Listener]
    connections: int
    shutdown_timeout: float = SHUTDOWN_TIMEOUT
    reloader: IReloader | None = field(default=None, init=False)
    _is_settled: bool = field(default=False, init=False)
    _is_hung_up: bool = field(default=False, init=False)
    _started: list[Served] = field(factory=list, init=False)
    _ports: list[IListeningPort] = field(factory=list, init=False)
    _starting: Deferred[None] | None = field(default=None, init=False)

    def startService(self) -> None:
        """
        Begin to start; a backend may need a reactor that runs.
        """
        super().startService()
        self.reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[None]:
        """
        Stop accepting, let what is under way end, and stop the backends.

        :returns: A Deferred that fires with ``None`` when all is stopped, or the bound
            has passed; it does not fail.
        """
        super().stopService()
        return self._stop()

    def admit(self, served: Served) -> None:
        """
        Serve one more directory, which has started.
        """
        self.directories.append(served)
        self._started.append(served)

    @deferred
    async def dismiss(self, served: Served) -> None:
        """
        Serve a directory no longer. Its sessions stay in its store, as at a stop.

        :returns: A Deferred that fires with ``None`` when it has stopped; it does not
            fail.
        """
        self.directories.remove(served)
        self._started.remove(served)
        await _all("stop", [served.manager.stop()])

    def _hang_up_came(self) -> None:
        """
        Read the settings again, but not before all has started.
        """
        if self.reloader is None:
            return
        if self._is_settled:
            self.reloader.hangup()
        else:
            self._is_hung_up = True

    def _begin(self) -> None:
        if self.running:
            self.process.on_hangup(self._hang_up_came)
            self._starting = self._start().addErrback(self._cannot_start)

    @deferred
    async def _start(self) -> None:
        self.process.make_room(self.connections)
        for directory in self.directories:
            if not self.running:
                return
            try:
                await directory.manager.start()
            except (BackendError, InvalidSetting) as error:
                raise _CannotStart(f"{directory.where}: {error}") from error
            self._started.append(directory)
        for listener in self.listeners:
            if not self.running:
                return
            try:
                port = await listener.endpoint.listen(self.site)
            except (CannotListenError, OSError, OverflowError, ValueError) as error:
                # The last two are what sockets say of ports and names that are none.
                raise _CannotStart(f"{listener.where}: {error}") from error
            self._ports.append(port)
            _log.info(
                "listening on {address} for uploads to {mounts}",
                address=str(port.getHost()),
                endpoint=listener.description,
                mounts=", ".join(one.directory.mount for one in self.directories),
                backends=[one.directory.backend for one in self.directories],
            )
        self.process.settle()
        self._is_settled = True
        if self._is_hung_up:
            self._hang_up_came()

    def _cannot_start(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            _log.info("start cancelled: the server is stopping")
            return
        if failure.check(_CannotStart):
            line = one_line(failure.value)
            _log.critical("{line}", line=line)
        else:
            line = one_line(failure.value) + "; the log has the traceback"
            _log.failure("cannot start: {log_failure}", failure)
        self.process.fail(line)

    @deferred
    async def _stop(self) -> None:
        # A race, and no addTimeout: that would cancel what may yet come to an end.
        in_time = Deferred[bool]()
        bound = self.reactor.callLater(self.shutdown_timeout, in_time.callback, False)

        def wound_down(result: object) -> None:
            if isinstance(result, Failure):
                _log.failure("cannot stop: {log_failure}", result)
            if bound.active():
                bound.cancel()
                in_time.callback(True)

        self._wind_down().addBoth(wound_down)
        if not await in_time:
            _log.error(
                "not everything stopped within {seconds} s; what is stored is safe",
                seconds=self.shutdown_timeout,
            )
            self.process.end_by_force(_FORCE_AFTER)
        _log.info("stopped")

    @deferred
    async def _wind_down(self) -> None:
        if self._starting is not None:
            # A store may be away, or have a great many sessions.
            self._starting.cancel()
            await self._starting
        ports, self._ports = self._ports, []
        await _all("stop listening", [maybeDeferred(p.stopListening) for p in ports])
        if self.reloader is not None:
            await self.reloader.stop()
        started, self._started = self._started, []
        _log.info("stopping; no new packet is taken")
        await _all("stop", [served.manager.stop() for served in started])
        await self._hang_up()

    @deferred
    async def _hang_up(self) -> None:
        """
        Close the connections, so that answers that are being sent still arrive.
        """
        for channel in list(self.site.channels):
            channel.loseConnection()
        patience = _HANG_UP_ROUNDS
        while self.site.channels and patience:
            patience -= 1
            await deferLater(self.reactor, _HANG_UP_INTERVAL, lambda: None)


@deferred
async def _all(attempt: str, deferreds: list[Deferred[Any]]) -> None:
    """
    Wait for all of them; one that fails keeps none of the others from ending.
    """
    for outcome in await settled(deferreds):
        if isinstance(outcome, Failure):
            _log.failure("could not {attempt}: {log_failure}", outcome, attempt=attempt)
