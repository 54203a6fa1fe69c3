"""
The supervisor: opens the sockets, and keeps a number of workers running.

It serves nothing itself, so there is little that could end it. It replaces each worker
that ends, with the settings in effect; a reload changes all workers or none.
"""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from functools import partial
from tempfile import TemporaryDirectory
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredLock,
    maybeDeferred,
)
from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import Event, Shared, begun, deferred, settled
from txbits._ledger import Ledger
from txbits._version import versions
from txbits._workers import Worker
from txbits.errors import InvalidSetting
from txbits.service._life import SHUTDOWN_TIMEOUT, Listener, opened, shown_address
from txbits.service._logs import LoggedService
from txbits.service._process import Process, one_line
from txbits.service._reload import failures_logged
from txbits.service._service_manager import ServiceManager
from txbits.service._whole import ANSWER_WITHIN, NOT_RUNNING, fault_of
from txbits.service._workers._log import WorkerLogs
from txbits.service._workers._member import Member, Shares
from txbits.service._workers._sockets import OpeningReactor, Sockets
from txbits.service._workers._watch import Watch
from txbits.service.settings import Configuration

_log = Logger()

#: Seconds between the end of a worker and the start of its successor: at first, and at
#: most, if one after the other ends.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0

#: From so many seconds on, connections do not wait for the successor.
_LONG_PAUSE = 1.0

#: Seconds after which a worker that has ended is taken for one that worked.
_PROVEN = 60.0

#: Seconds that a worker may take to stop: as long as a server, whose process may then
#: take a few seconds to end by force.
_PATIENCE = SHUTDOWN_TIMEOUT + 6.0

#: Where files are in memory, and can be made even in a read-only container.
_IN_MEMORY = "/dev/shm"  # noqa: S108 - only a directory of our own is made there

#: Seconds for which the sockets of an earlier start may still be in use.
_LEFT_OPEN = 5.0

#: How many connections between workers may wait for one of them.
_BACKLOG = 256


@frozen
class Openable:
    """
    An endpoint, and what it opens sockets with.

    :ivar listener: The endpoint.
    :ivar reactor: The reactor that it was made for.
    """

    listener: Listener
    reactor: OpeningReactor

    @deferred
    async def open(self) -> Sockets:
        """
        Open its sockets.

        :returns: A Deferred that fires with them. It fails with
            :class:`~txbits.errors.InvalidSetting`, with a whole line, if that is
            impossible.
        """
        port = await opened(self.listener, Factory())
        if len(self.reactor.opened) != 1:
            await maybeDeferred(port.stopListening)
            raise InvalidSetting(
                f"{self.listener.where}: several workers cannot share an endpoint of "
                "this kind; use another kind, or set workers to 1"
            )
        return self.reactor.opened[0]


@define(eq=False, slots=False)
class Supervisor(LoggedService):
    """
    Keeps workers running that serve virtual directories on endpoints.

    :param reactor: The reactor.
    :param process: The process, which ends if the service cannot start.
    :param configuration: The settings in effect.
    :param listeners: The endpoints to listen on.
    :param admin: The operator's endpoint, if there is one.
    :param service_manager: Is told what the service is doing.
    :param in_thread: Calls a function in a thread. Its Deferred fires with the result.
    """

    reactor: Any
    process: Process
    configuration: Configuration
    listeners: Sequence[Openable]
    admin: Openable | None
    service_manager: ServiceManager
    in_thread: Callable[..., Deferred[Any]]
    _directory: str = field(factory=os.getcwd, init=False)
    _members: dict[int, Member] = field(factory=dict, init=False)
    _keeping: list[Deferred[None]] = field(factory=list, init=False)
    _pauses: set[Deferred[None]] = field(factory=set, init=False)
    # What is open: where workers accept uploads, and the rest, which closes last.
    _listening: list[Sockets] = field(factory=list, init=False)
    _others: list[Sockets] = field(factory=list, init=False)
    _shares: Shares | None = field(default=None, init=False)
    _doors: tuple[int, ...] = field(default=(), init=False)
    # Whether all workers have started for the first time, and the service accepts.
    _all_started: Event = field(factory=Event, init=False)
    _is_open: bool = field(default=False, init=False)
    _has_failed: bool = field(default=False, init=False)
    _reloading: Shared[None] = field(factory=Shared, init=False)
    _is_reload_wanted: bool = field(default=False, init=False)
    _clearing: DeferredLock = field(factory=DeferredLock, init=False)
    _watch: Watch = field(init=False)

    @_watch.default
    def _new_watch(self) -> Watch:
        return Watch(
            self.reactor,
            self.count,
            lambda: self._members,
            self.admin is not None,
            lambda: begun(self._tell_who_runs()),
        )

    @property
    def count(self) -> int:
        """How many workers there are to be."""
        return self.configuration.workers

    def startService(self) -> None:
        """Begin to start the workers."""
        super().startService()
        _log.info(
            "{versions} starting with {workers} workers",
            versions=versions(),
            workers=self.count,
        )
        self.reactor.callWhenRunning(self._begin)

    @deferred
    async def stopService(self) -> None:
        """
        Stop accepting, and stop the workers.

        :returns: A Deferred that fires with ``None`` when all have ended; it does not
            fail.
        """
        super().stopService()
        self.service_manager.stopping()
        if self._is_open:
            _log.info("stopping: the workers refuse new packets")
        self._watch.stop()
        await self._close(self._listening)
        for pause in list(self._pauses):
            pause.cancel()
        for member in self._members.values():
            member.tell("stop")
        overdue = self.reactor.callLater(_PATIENCE, self._kill_all)
        await settled(self._keeping)
        if overdue.active():
            overdue.cancel()
        await self._close(self._others)
        if self._shares is not None:
            self._shares.ledger.close()
        for door in self._doors:
            os.close(door)
        self.service_manager.stop()
        _log.info("stopped")

    def _begin(self) -> None:
        if self.running:
            self.service_manager.start(self._status, self._is_well)
            self.process.on_hangup(self._hang_up_came)
            self._start().addErrback(self._cannot_start)

    @deferred
    async def _start(self) -> None:
        self.process.make_room(0)
        self._shares = shares = await self._share()
        for number in range(self.count):
            self._keeping.append(self._keep(number).addErrback(self._broken, number))
        await self._all_started.wait()
        if not self.running:
            return
        for sockets in shares.listeners:
            sockets.startListening()
        outcomes = await settled([self._admit(one) for one in self._members.values()])
        if not self.running or self._has_failed:
            return
        for outcome in outcomes:
            # One that has died meanwhile has a successor, as later on.
            if isinstance(outcome, Failure) and not outcome.check(ConnectionLost):
                outcome.raiseException()
        directories = self.configuration.directories
        for one, sockets in zip(self.listeners, shares.listeners, strict=True):
            _log.info(
                "listening on {address} for uploads to {mounts}",
                address=shown_address(sockets.getHost()),
                endpoint=one.listener.description,
                mounts=", ".join(directory.mount for directory in directories),
                backends=[directory.backend for directory in directories],
            )
        self.process.settle()
        self._is_open = True
        self._watch.start()
        self.service_manager.ready()
        if self._is_reload_wanted:
            self._hang_up_came()

    def _cannot_start(self, failure: Failure) -> None:
        if failure.check(ConnectionLost, CancelledError):
            # A worker has ended, which says why, or the service is stopping.
            return
        line = one_line(failure.value)
        if not failure.check(InvalidSetting):
            line += "; the log has the traceback"
            _log.failure("cannot start: {log_failure}", failure)
        self._fail(line)

    def _broken(self, failure: Failure, number: int) -> None:
        _log.failure("worker {worker}: {log_failure}", failure, worker=number)
        self._fail(one_line(f"worker {number}: {failure.value}; the log has more"))

    def _fail(self, line: str) -> None:
        """End the service with one line and status 1."""
        if not self._has_failed:
            self._has_failed = True
            self.service_manager.failed(line)
            self.process.fail(line)

    async def _share(self) -> Shares:
        """
        Open all that workers share.

        :raises InvalidSetting: If that is impossible.
        """
        admin = None
        if self.admin is not None:
            admin = await self._open(self.admin)
            self._others.append(admin)
            admin.startListening()
            _log.info(
                "listening on {address} for the operator",
                address=shown_address(admin.getHost()),
                endpoint=self.admin.listener.description,
            )
        for listener in self.listeners:
            self._listening.append(await self._open(listener))
        relays, self._doors = _hidden(self.count)
        self._others.append(relays)
        return Shares(
            listeners=list(self._listening),
            admin=admin,
            relays=relays,
            doors=self._doors,
            secret=secrets.token_bytes(32),
            ledger=Ledger.create(self.count),
            form_key=secrets.token_bytes(32),
            logs=WorkerLogs.of(self.observer),
        )

    async def _open(self, listener: Openable) -> Sockets:
        """
        Open the sockets of an endpoint.

        The workers of a supervisor that was killed may have them for a moment, until
        the fsyncs that they wait for have ended.

        :raises InvalidSetting: If that is impossible.
        :raises CancelledError: If the service stops meanwhile.
        """
        until = self.reactor.seconds() + _LEFT_OPEN
        while True:
            try:
                return await listener.open()
            except InvalidSetting as error:
                if not _is_in_use(error) or self.reactor.seconds() >= until:
                    raise
            await self._wait(_FIRST_PAUSE)
            if not self.running:
                raise CancelledError

    async def _close(self, opened: list[Sockets]) -> None:
        """Close sockets, and forget them."""
        closing, opened[:] = opened[:], []
        for outcome in await settled([maybeDeferred(s.stopListening) for s in closing]):
            if isinstance(outcome, Failure):
                _log.failure("cannot stop listening: {log_failure}", outcome)

    @deferred
    async def _keep(self, number: int) -> None:
        """Run one process after another as one worker, until the service stops."""
        pause = _FIRST_PAUSE
        while True:
            # It is to start with the settings that are in effect after that.
            await self._reloading.over()
            if not self.running or self._shares is None:
                return
            began = self.reactor.seconds()
            member = self._members[number] = Member(
                number, self._started, self._answers()
            )
            worker = Worker(number, self.count)
            member.start(
                self.reactor, worker, self.configuration, self._directory, self._shares
            )
            await member.ended()
            self._watch.ended(member)
            # In a thread, one at a time: a worker that was stopped may have its lock.
            await self._clearing.run(
                self.in_thread, partial(self._shares.ledger.clear_connections, number)
            )
            await self._tell_who_runs()
            if not self.running:
                return
            if not self._all_started.is_set:
                self._fail(member.line or one_line(_DIED.format(number, member.how)))
                return
            if member.is_replaced:
                continue
            if self.reactor.seconds() - began >= _PROVEN:
                pause = _FIRST_PAUSE
            _log.error(
                "worker {worker}, pid {pid}, {how}; the next one starts in "
                "{seconds:.1f} s" + (": {line}" if member.line else ""),
                worker=number,
                pid=member.pid,
                how=member.how,
                seconds=pause,
                line=member.line,
            )
            if pause >= _LONG_PAUSE:
                self._send_elsewhere(number)
            await self._wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _send_elsewhere(self, number: int) -> None:
        """Let other workers get the connections of one that is long in starting."""
        for sockets in self._listening:
            try:
                sockets.reopen(number)
            except OSError as error:
                _log.warn(
                    "connections wait for worker {worker}: {reason}",
                    worker=number,
                    reason=str(error),
                )

    async def _wait(self, seconds: float) -> None:
        """Wait, but not longer than the service runs."""
        pause = deferLater(self.reactor, seconds, lambda: None)
        self._pauses.add(pause)
        try:
            await pause
        except CancelledError:
            # The service is stopping.
            return
        finally:
            self._pauses.discard(pause)

    def _started(self, member: Member) -> None:
        """All directories of a worker have started: it may accept, or waits for all."""
        if self._all_started.is_set:
            self._admit(member).addErrback(_report_unless_lost, member.number)
        elif len(self._members) == self.count and all(
            one.state == "started" for one in self._members.values()
        ):
            self._all_started.set()

    @deferred
    async def _admit(self, member: Member) -> None:
        """Let a worker accept connections."""
        # First: nobody can watch a socket that does not listen.
        for sockets in self._listening:
            sockets.listen(member.number)
        await member.ask("listen")
        member.state = "running"
        _log.info(
            "worker {worker} accepts connections, pid {pid}",
            worker=member.number,
            pid=member.pid,
        )
        await self._tell_who_runs()

    @property
    def _running(self) -> list[Member]:
        """The workers that accept connections."""
        return [one for one in self._members.values() if one.is_running]

    def _answers(self) -> dict[str, Callable[..., Deferred[Any]]]:
        """What a worker may ask about the whole service."""
        return {
            "metrics": self._watch.metrics,
            "everyone": self._everyone,
            "one": self._one,
        }

    @deferred
    async def _everyone(self, what: str) -> tuple[dict[int, Any], dict[int, str]]:
        """
        Ask all workers the same.

        :returns: A Deferred that fires with their answers, and with what is wrong with
            those that have not answered, both by the numbers of the workers.
        """
        running = self._running
        faults = dict.fromkeys(range(self.count), NOT_RUNNING)
        outcomes = await settled(
            [
                one.ask_once(what).addTimeout(ANSWER_WITHIN, self.reactor)
                for one in running
            ]
        )
        answers: dict[int, Any] = {}
        for member, outcome in zip(running, outcomes, strict=True):
            if isinstance(outcome, Failure):
                faults[member.number] = fault_of(outcome)
            else:
                answers[member.number] = outcome
                del faults[member.number]
        return answers, faults

    @deferred
    async def _one(self, number: int, question: Any) -> tuple[Any, str | None]:
        """
        Ask one worker about its sessions.

        :returns: A Deferred that fires with its answer, and with what is wrong with it
            if it has not answered. Who asks does not wait for ever.
        """
        for member in self._running:
            if member.number == number:
                (outcome,) = await settled([member.ask("sessions", question)])
                if isinstance(outcome, Failure):
                    return None, fault_of(outcome)
                return outcome, None
        return None, NOT_RUNNING

    async def _tell_who_runs(self) -> None:
        """Let all workers know whether the others take uploads, before it is told."""
        await settled(
            [
                one.ask("elsewhere", self._watch.obstacles(one.number))
                for one in self._running
            ]
        )

    def _is_well(self) -> bool:
        """Whether the watchdog need not act on what the workers do."""
        return not self._is_open or self._watch.is_well

    def _status(self) -> str:
        """A line about the service, for its manager."""
        if not self.running:
            return "stopping"
        if not self._is_open:
            return "starting"
        running = self._running
        sessions = sum(one.report.get("sessions", 0) for one in running)
        connections = sum(one.report.get("connections", 0) for one in running)
        obstacles = dict.fromkeys(
            line for one in running for line in one.report.get("obstacles", ())
        )
        figures = f"{sessions} sessions open, {connections} connections"
        return "; ".join(
            [f"{len(running)} of {self.count} workers running", figures, *obstacles]
        )

    def _kill_all(self) -> None:
        there = [one for one in self._members.values() if one.is_there]
        _log.error(
            "workers {workers} take longer than {seconds:.0f} s to stop, killing them; "
            "stored data is safe",
            workers=", ".join(str(one.number) for one in there),
            seconds=_PATIENCE,
        )
        for member in there:
            member.kill()

    def _hang_up_came(self) -> None:
        """Read settings and certificates again, but not before all has started."""
        self._is_reload_wanted = True
        if self._is_open and self.running and not self._reloading.is_running:
            self._reloading.run(self._reload)

    async def _reload(self) -> None:
        while self._is_reload_wanted and self.running:
            self._is_reload_wanted = False
            self.service_manager.reloading()
            # A mistake in one of them does not keep back the other.
            await self._reload_settings()
            await settled([one.ask("certificates") for one in self._running])
        if self.running:
            self.service_manager.ready()

    async def _reload_settings(self) -> None:
        reread = self.configuration.reread
        if reread is None:
            _log.info("no settings to reload: started without --config")
            return
        with failures_logged(self.configuration.path):
            try:
                await self._change(await self.in_thread(reread))
            except Exception as error:
                self._abandon()
                if isinstance(error, InvalidSetting) and not self.running:
                    raise CancelledError from error
                raise

    def _abandon(self) -> None:
        """Let all workers forget what they have prepared, and count a failure."""
        for member in self._running:
            member.tell("abandon")

    async def _change(self, new: Configuration) -> None:
        """
        Change the settings of all workers.

        :raises InvalidSetting: If one of them cannot; then none has changed.
        """
        # Those that are still starting are replaced.
        members = self._running
        outcomes = await settled([one.ask("prepare", new) for one in members])
        ready = [
            member
            for member, outcome in zip(members, outcomes, strict=True)
            if not isinstance(outcome, Failure)
        ]
        for outcome in outcomes:
            if isinstance(outcome, Failure) and not outcome.check(ConnectionLost):
                outcome.raiseException()
        applied = await settled([one.ask("apply") for one in ready])
        changes = [one for one in applied if not isinstance(one, Failure)]
        if not changes:
            raise InvalidSetting("no worker is running")
        self.configuration, lines = changes[0]
        for line in lines:
            line.log()
        for member in self._members.values():
            if member not in ready or isinstance(applied[ready.index(member)], Failure):
                member.replace()


#: What the log says if a worker dies before the service has started.
_DIED = "worker {} {} before it started; see the log"


def _is_in_use(error: InvalidSetting) -> bool:
    """Whether an address could not be had because others have it."""
    cause = getattr(error.__cause__, "socketError", None)
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE


def _hidden(count: int) -> tuple[Sockets, tuple[int, ...]]:
    """
    Make listening Unix sockets that only who gets a descriptor can connect to.

    They have no names any more when this returns, so there is nothing to remove at the
    end, however that comes.

    :returns: The sockets, and the descriptors of their files.
    """
    sockets, doors = list[socket.socket](), list[int]()
    place = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="txbits-", dir=place) as folder:
        for number in range(count):
            path = os.path.join(folder, str(number))
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            one.bind(path)
            one.listen(_BACKLOG)
            sockets.append(one)
            doors.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return Sockets(sockets), tuple(doors)


def _report_unless_lost(failure: Failure, number: int) -> None:
    if not failure.check(ConnectionLost):
        _log.failure("worker {worker}: {log_failure}", failure, worker=number)
