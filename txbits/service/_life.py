"""
The life of the service: start every directory, listen, and stop within a time limit.

Nothing listens before every directory has started. At the end, whatever a few seconds
more can finish is finished.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    maybeDeferred,
)
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.internet.task import deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from txbits._deferreds import Event, deferred, settled
from txbits._version import versions
from txbits.admin import Health
from txbits.admin.figures import Activity
from txbits.errors import InvalidSetting
from txbits.service._admin import Here
from txbits.service._ports import Ports
from txbits.service._process import Process, in_words, one_line
from txbits.service._reload import Reloader
from txbits.service._served import Served
from txbits.service._service_manager import ServiceManager
from txbits.web import BITSSite, Relay

_log = Logger()

#: Seconds that stopping may take.
SHUTDOWN_TIMEOUT = 30.0

#: How often, and how many seconds apart, closed connections are checked for. The
#: product is how long a peer that does not read its answer can delay the end.
_HANG_UP_ROUNDS = 40
_HANG_UP_INTERVAL = 0.05

#: Seconds that the process may take to end after that.
_FORCE_AFTER = 5.0


@frozen
class Listener:
    """
    An endpoint to listen on.

    :ivar where: What an error message about it begins with.
    :ivar description: The endpoint string.
    :ivar endpoint: The endpoint that it describes.
    """

    where: str
    description: str
    endpoint: IStreamServerEndpoint


@frozen
class AdminListener:
    """
    The operator's listener.

    :ivar listener: Its endpoint.
    :ivar site: Serves its connections.
    :ivar activities: What goes on while it listens.
    :ivar here: What this process can tell other processes of the same server.
    """

    listener: Listener
    site: BITSSite
    activities: Sequence[Activity]
    here: Here | None = None


@frozen
class Relayed:
    """
    What other workers pass on.

    :ivar relay: Takes it.
    :ivar descriptor: The socket that they connect to.
    :ivar root: Answers it.
    """

    relay: Relay
    descriptor: int
    root: IResource

    def listen(self, ports: Ports) -> None:
        """
        Begin to take it.

        :param ports: Gets the port.
        """
        port = self.relay.listen(self.descriptor, self.root)
        ports.add(port, shown_address(port.getHost()), "relay")


@define(eq=False, slots=False)
class UploadService(Service):
    """
    Serves virtual directories on endpoints.

    :param reactor: The reactor.
    :param process: The process, which ends if the service cannot start.
    :param site: Serves the connections.
    :param directories: The virtual directories.
    :param listeners: The endpoints to listen on when all of them have started.
    :param connections: The maximum number of connections.
    :param reloader: Reads the settings again at SIGHUP.
    :param health: Is told what the service is doing.
    :param admin: The operator's listener, if there is one. It is the first to listen
        and the last to stop.
    :param service_manager: Is told what the service is doing.
    :param shutdown_timeout: Seconds that stopping may take.
    :ivar make_observer: Makes what ``twistd`` logs with; ``None`` for its own.
    :param relayed: What other workers pass on, if this is one of several.
    :ivar turn: If this is one of several workers, is called when all directories have
        started. The endpoints listen when its Deferred fires; what all workers do is
        then for the supervisor to log.
    :param ports: Gets what listens for uploads.
    :param admin_ports: Gets what listens for the operator.
    """

    reactor: Any
    process: Process
    site: BITSSite
    directories: list[Served]
    listeners: Sequence[Listener]
    connections: int
    reloader: Reloader
    health: Health
    service_manager: ServiceManager
    admin: AdminListener | None = None
    shutdown_timeout: float = SHUTDOWN_TIMEOUT
    make_observer: Callable[[], Any] | None = field(default=None, init=False)
    turn: Callable[[], Deferred[None]] | None = field(default=None, init=False)
    _settled: Event = field(factory=Event, init=False)
    _is_hung_up: bool = field(default=False, init=False)
    relayed: Relayed | None = field(default=None, kw_only=True)
    _ports: Ports = field(factory=Ports, kw_only=True)
    _admin_ports: Ports = field(factory=Ports, kw_only=True)
    _starting: Deferred[None] | None = field(default=None, init=False)
    _reloads: int = field(default=0, init=False)

    def setServiceParent(self, parent: Any) -> None:
        """
        Become part of an application, and tell it what to log with.

        :param parent: The application.
        """
        if self.make_observer is not None:
            parent.setComponent(ILogObserver, self.make_observer())
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Begin to start; a backend may need a running reactor."""
        super().startService()
        self._say("{versions} starting", versions=versions())
        self.reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[None]:
        """
        Stop accepting, let what is in progress end, and stop the backends.

        :returns: A Deferred that fires with ``None`` when all is stopped, or the time
            limit has passed; it does not fail.
        """
        super().stopService()
        return self._stop()

    def _hang_up_came(self) -> None:
        """Read settings and certificates again, but not before all has started."""
        if self._settled.is_set:
            self._reload()
        else:
            self._is_hung_up = True

    def _reload(self) -> None:
        # A mistake in one of them does not keep back the other: certificates expire,
        # and permissions are revoked.
        self.service_manager.reloading()
        self.reloader.hangup()
        self._ports.reload()
        self._admin_ports.reload()
        self._reloads += 1
        self._reloaded(self._reloads)

    @deferred
    async def _reloaded(self, number: int) -> None:
        """Tell when everything has been read again, unless another reload follows."""
        for reading in (self.reloader, self._ports, self._admin_ports):
            await reading.over()
        if number == self._reloads and self.health.state == "running":
            self.service_manager.ready()

    def _begin(self) -> None:
        if self.running:
            self.service_manager.start(self._status)
            self.process.on_hangup(self._hang_up_came)
            self._starting = self._start().addErrback(self._cannot_start)

    @deferred
    async def _start(self) -> None:
        self.process.make_room(self.connections)
        if self.admin is not None:
            address = await _listen(
                self.admin.listener, self.admin.site, self._admin_ports
            )
            for activity in self.admin.activities:
                activity.start()
            self._say(
                "listening on {address} for the operator",
                address=address,
                endpoint=self.admin.listener.description,
            )
        for served in self.directories:
            if not self.running:
                return
            await served.start()
        if self.relayed is not None:
            self.relayed.listen(self._ports)
        if self.turn is not None:
            await self.turn()
        for listener in self.listeners:
            if not self.running:
                return
            address = await _listen(listener, self.site, self._ports)
            self._say(
                "listening on {address} for uploads to {mounts}",
                address=address,
                endpoint=listener.description,
                mounts=", ".join(one.directory.mount for one in self.directories),
                backends=[one.directory.backend for one in self.directories],
            )
        self.process.settle()
        self._settled.set()
        self.health.state = "running"
        self.service_manager.ready()
        if self._is_hung_up:
            self._reload()

    def _cannot_start(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            _log.info("start cancelled: the server is stopping")
            return
        line = one_line(failure.value)
        if not failure.check(InvalidSetting):
            line += "; the log has the traceback"
            _log.failure("cannot start: {log_failure}", failure)
        self.service_manager.failed(line)
        self.process.fail(line)

    @deferred
    async def _stop(self) -> None:
        # Not addTimeout, which would cancel what may still finish.
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
                "stopping takes longer than {seconds:.0f} s, exiting; stored data is "
                "safe",
                seconds=self.shutdown_timeout,
            )
            self.process.end_by_force(_FORCE_AFTER)
        self.service_manager.stop()
        self._say("stopped")

    @property
    def sessions(self) -> int:
        """How many sessions are open in all directories."""
        return sum(one.manager.open_sessions for one in self.directories)

    def settled(self) -> Deferred[None]:
        """Wait until everything has started and listens."""
        return self._settled.wait()

    @deferred
    async def reload_certificates(self) -> None:
        """
        Read the certificates of all ports again.

        :returns: A Deferred that fires with ``None`` when all are read; it does not
            fail.
        """
        for ports in (self._ports, self._admin_ports):
            ports.reload()
        for ports in (self._ports, self._admin_ports):
            await ports.over()

    def _say(self, text: str, **fields: object) -> None:
        """Log what one of several workers leaves to the supervisor."""
        if self.turn is None:
            _log.info(text, **fields)

    def _status(self) -> str:
        """A line about the service, for its manager."""
        if self.health.state != "running":
            return self.health.state
        figures = (
            f"{self.sessions} sessions open, {len(self.site.channels)} connections"
        )
        return "; ".join([figures, *self.health.obstacles()])

    @deferred
    async def _wind_down(self) -> None:
        self.health.state = "stopping"
        self.service_manager.stopping()
        if self._starting is not None:
            # A store may be unreachable, or have a great many sessions.
            self._starting.cancel()
            await self._starting
        did_listen = await _close(self._ports)
        await self.reloader.stop()
        if did_listen:
            self._say("stopping: new packets are refused")
        await settled([one.stop() for one in self.directories if one.is_started])
        await self._hang_up(self.site)
        if self.relayed is not None and self.relayed.relay.site is not None:
            await self._hang_up(self.relayed.relay.site)
        await _close(self._admin_ports)
        if self.admin is not None:
            for activity in self.admin.activities:
                activity.stop()
            await self._hang_up(self.admin.site)

    @deferred
    async def _hang_up(self, site: BITSSite) -> None:
        """Close the connections when the answers on them are sent."""
        for channel in list(site.channels):
            channel.loseConnection()
        patience = _HANG_UP_ROUNDS
        while site.channels and patience:
            patience -= 1
            await deferLater(self.reactor, _HANG_UP_INTERVAL, lambda: None)


async def _listen(listener: Listener, site: BITSSite, ports: Ports) -> str:
    """
    Listen on an endpoint.

    :returns: The address, for the log.
    :raises InvalidSetting: If that is impossible.
    """
    port = await opened(listener, site)
    address = shown_address(port.getHost())
    ports.add(port, address, listener.description)
    return address


async def opened(listener: Listener, factory: IProtocolFactory) -> IListeningPort:
    """
    Listen on an endpoint.

    :raises InvalidSetting: If that is impossible, with a whole line.
    """
    try:
        return await listener.endpoint.listen(factory)
    except (CannotListenError, OSError, OverflowError, ValueError) as error:
        # Sockets raise the last two for impossible ports and names.
        line = f"{listener.where}: cannot listen: {in_words(error)}"
        is_denied = isinstance(getattr(error, "socketError", error), PermissionError)
        if is_denied and not listener.description.startswith("unix:"):
            line += (
                "; a port below 1024 requires CAP_NET_BIND_SERVICE "
                "(AmbientCapabilities= in a systemd unit)"
            )
        raise InvalidSetting(line) from error


async def _close(ports: Ports) -> bool:
    """
    Stop listening.

    :returns: Whether there was anything that listened.
    """
    listening = ports.take()
    for outcome in await settled(
        [maybeDeferred(port.stopListening) for port in listening]
    ):
        if isinstance(outcome, Failure):
            _log.failure("cannot stop listening: {log_failure}", outcome)
    await ports.stop()
    return bool(listening)


def shown_address(address: Any) -> str:
    """Write the address of a port as an operator does."""
    if isinstance(address, UNIXAddress):
        return os.fsdecode(address.name or b"")
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    if host is None:
        return str(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
