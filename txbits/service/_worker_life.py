"""
The life of a worker process.

It serves as ``twistd txbits`` with one process does, but for what the supervisor does
for it: it opens no socket, reads no file with settings, and leads no log of its own.
When the supervisor is gone it ends at once.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Mapping
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Factory
from twisted.logger import Logger, globalLogBeginner
from twisted.python.reflect import namedModule

from txbits._deferreds import Event, deferred
from txbits._ledger import Ledger
from txbits.admin.remote import answered
from txbits.clocks import keep_steady
from txbits.errors import InvalidSetting
from txbits.service._admin import Here
from txbits.service._channel import Channel, read_first
from txbits.service._life import UploadService
from txbits.service._process import Process, one_line
from txbits.service._whole import Whole
from txbits.service._workers._log import observer_of
from txbits.service._workers._setup import WorkerSetup
from txbits.service.maker import assemble
from txbits.service.settings import Configuration
from txbits.web import Relay

_log = Logger()


def live(control: socket.socket) -> int:
    """
    Serve until the supervisor, or a signal, ends that.

    :param control: Leads to the supervisor.
    :returns: The exit status.
    """
    try:
        setup: WorkerSetup = read_first(control)
    except EOFError:
        return 1
    globalLogBeginner.beginLoggingTo([observer_of(setup.log, setup.worker.number)])
    try:
        os.chdir(setup.directory)
    except OSError as error:
        _log.warn(
            "cannot change to {directory}, where relative paths begin: {reason}",
            directory=setup.directory,
            reason=error.strerror,
        )
    _install(setup.reactor)
    from twisted.internet import reactor

    keep_steady(reactor)
    member = _Member(reactor, setup, control)
    reactor.callWhenRunning(member.begin)
    reactor.run()
    return member.status


def _install(module: str) -> None:
    """Use a reactor like that of the supervisor."""
    namedModule(module).install()


@define(eq=False)
class _Member:
    """
    This process.

    :ivar status: Its exit status.
    """

    reactor: Any
    setup: WorkerSetup
    control: socket.socket
    status: int = field(default=0, init=False)
    _channel: Channel = field(init=False)
    _turn: Event = field(factory=Event, init=False)
    _service: UploadService | None = field(default=None, init=False)
    _has_ended: bool = field(default=False, init=False)

    def begin(self) -> None:
        """Serve."""
        # Twisted's own handler does not expect that a reactor is stopping already. A
        # service manager may send this signal to us and to the supervisor.
        signal.signal(
            signal.SIGTERM, lambda *_: self.reactor.callFromThread(self._stop)
        )
        self._channel = Channel(
            {
                "listen": self._listen,
                "report": self._report,
                "metrics": self._metrics,
                "elsewhere": self._elsewhere,
                "glance": self._glance,
                "sessions": self._sessions,
                "prepare": self._prepare,
                "apply": self._apply,
                "abandon": self._abandon,
                "certificates": self._certificates,
                "stop": self._stop,
            },
            self._supervisor_is_gone,
        )
        self.control.setblocking(False)
        self.reactor.adoptStreamConnection(
            self.control.fileno(),
            socket.AF_UNIX,
            Factory.forProtocol(lambda: self._channel),
        )
        self.control.close()
        process = _WorkerProcess(self.reactor, member=self)
        try:
            service = self._assemble()
        except InvalidSetting as error:
            process.fail(one_line(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever it is ends this process
            _log.failure("cannot start: {log_failure}")
            process.fail(one_line(f"{error}; the log has the traceback"))
            return
        service.process = process
        service.turn = self._started
        self._service = service
        self.reactor.addSystemEventTrigger("before", "shutdown", self._end)
        service.startService()

    def _assemble(self) -> UploadService:
        setup, relays = self.setup, self.setup.relay
        return assemble(
            setup.configuration,
            self.reactor,
            part=setup,
            ledger=Ledger.open(setup.ledger, setup.worker),
            everywhere=lambda: self._channel.ask("metrics"),
            whole=Whole(setup.worker, setup.form_key, self._channel.ask, self.reactor),
            relay=Relay(setup.worker, relays.paths, relays.secret, self.reactor),
        )

    def fail(self, line: str) -> None:
        """Tell why this process cannot start, and end it."""
        self.status = 1
        # It is to be heard before this process is seen to end.
        self._channel.ask("failed", line).addBoth(lambda _: self._stop())

    def _started(self) -> Deferred[None]:
        self._channel.tell("started")
        return self._turn.wait()

    @property
    def service(self) -> UploadService:
        """What serves, once it was assembled."""
        if self._service is None:
            raise InvalidSetting("this worker has not started")
        return self._service

    @property
    def _here(self) -> Here:
        """What this process can tell the operator."""
        admin = self.service.admin
        if admin is None or admin.here is None:
            raise InvalidSetting("this server has no admin-listen")
        return admin.here

    @deferred
    async def _listen(self) -> Mapping[str, Any]:
        self._turn.set()
        await self.service.settled()
        return self._report()

    def _report(self) -> Mapping[str, Any]:
        service = self.service
        return {
            "sessions": service.sessions,
            "connections": len(service.site.channels),
            "obstacles": service.health.obstacles_here(),
        }

    def _metrics(self) -> Any:
        # Not earlier: a server without this listener does not need its library.
        from txbits.admin.metrics import snapshot

        return snapshot(self._here.figures)

    def _elsewhere(self, obstacles: list[str]) -> None:
        self.service.health.elsewhere = obstacles

    def _glance(self) -> Any:
        return self._here.glance().as_json()

    def _sessions(self, question: Mapping[str, Any]) -> Deferred[Any]:
        return answered(self._here.sessions, question)

    @deferred
    async def _prepare(self, new: Configuration) -> None:
        try:
            await self.service.reloader.prepare(new)
        except CancelledError:
            raise InvalidSetting("the server is stopping") from None

    def _apply(self) -> Any:
        reloader = self.service.reloader
        lines = reloader.apply()
        return reloader.in_effect, lines

    def _abandon(self) -> None:
        self.service.reloader.abandon()

    def _certificates(self) -> Deferred[None]:
        return self.service.reload_certificates()

    def _stop(self) -> None:
        Process(self.reactor).stop()

    @deferred
    async def _end(self) -> None:
        await self.service.stopService()
        self._has_ended = True

    def _supervisor_is_gone(self) -> None:
        # At the end the reactor closes what is still open, and this as well.
        if not self._has_ended:
            # What is stored is safe, and a new supervisor wants to start.
            os._exit(1)


@define(eq=False)
class _WorkerProcess(Process):
    """
    The process of a worker.

    :param member: Whom a failure is told.
    """

    member: _Member = field(kw_only=True)

    def fail(self, line: str) -> None:
        self.member.fail(line)

    def on_hangup(self, react: object) -> None:
        """The supervisor reloads."""
