"""
A worker process, as the supervisor sees it.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Literal

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.interfaces import IProcessTransport
from twisted.internet.protocol import Factory, ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import Event, Shared
from txbits._ledger import Ledger
from txbits._workers import Worker
from txbits.service._channel import Channel
from txbits.service._process import in_words, one_line
from txbits.service._workers._log import Output, PipeReader, WorkerLogs, open_pipe
from txbits.service._workers._setup import Inherited, RelaySetup, WorkerSetup
from txbits.service._workers._sockets import Sockets
from txbits.service.settings import Configuration

_log = Logger()

#: What a worker process runs, behind ``python``.
MODULE = "txbits.service.worker"

#: The first number of what systemd passes on.
_FIRST = 3

#: Variables with which systemd addresses one process, which a worker is not.
_OF_SYSTEMD = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")


@define(kw_only=True)
class Shares:
    """
    What all workers share, and the supervisor keeps open.

    :ivar listeners: The sockets of each endpoint of the setting ``listen``.
    :ivar admin: Those of ``admin-listen``, if there is one.
    :ivar relays: The Unix sockets of the workers, where others reach them.
    :ivar doors: Descriptors of their files, to connect to.
    :ivar secret: What workers show each other.
    :ivar ledger: Where they count together.
    :ivar form_key: What they sign the tokens of forms with.
    :ivar logs: Where they log.
    """

    listeners: list[Sockets]
    admin: Sockets | None
    relays: Sockets
    doors: tuple[int, ...]
    secret: bytes = field(repr=False)
    ledger: Ledger
    form_key: bytes = field(repr=False)
    logs: WorkerLogs

    @property
    def of_systemd(self) -> int:
        """How many sockets of systemd there are, up to the last one that is used."""
        admin = [] if self.admin is None else [self.admin]
        numbers = [one.number for one in (*self.listeners, *admin)]
        return max((n - _FIRST + 1 for n in numbers if n is not None), default=0)


@define(eq=False)
class _Descriptors:
    """
    The descriptors of a new process.

    :param next: The first number there that is free.
    :ivar mapped: By the number there, the number here, or ``"r"`` for a pipe.
    """

    _next: int
    mapped: dict[int, int | str] = field(factory=lambda: {1: "r", 2: "r"}, init=False)

    def add(self, here: int | str, there: int | None = None) -> int:
        """Pass a descriptor on, and return its number there."""
        if there is None:
            there, self._next = self._next, self._next + 1
        self.mapped[there] = here
        return there

    def inherit(self, sockets: Sockets, worker: int) -> Inherited:
        """Pass on the socket of a worker."""
        one = sockets.of(worker)
        there = self.add(one.fileno(), sockets.number)
        return Inherited(there, one.family, sockets.is_shared)


@define(eq=False, slots=False)
class Member(ProcessProtocol):
    """
    One worker process.

    :param number: The number of the worker.
    :param on_started: Is called when all its directories have started.
    :param answers: Answer what it asks about the whole service, by the name of the
        question.
    :ivar state: ``"starting"`` until then, ``"started"`` until it listens, then
        ``"running"``.
    :ivar line: Why it could not start, if it has said so.
    :ivar report: What it has last said of how it is doing.
    :ivar is_replaced: Whether its end is on purpose.
    :ivar pid: The number of its process.
    """

    number: int
    on_started: Callable[[Member], None]
    answers: Mapping[str, Callable[..., Any]]
    state: Literal["starting", "started", "running"] = field(
        default="starting", init=False
    )
    line: str | None = field(default=None, init=False)
    report: Mapping[str, Any] = field(factory=dict, init=False)
    is_replaced: bool = field(default=False, init=False)
    pid: int = field(default=0, init=False)
    transport: IProcessTransport | None = field(default=None, init=False)
    _ended: Event = field(factory=Event, init=False)
    _how: str = field(default="", init=False)
    _channel: Channel = field(init=False)
    _outputs: dict[int, Output] = field(init=False)
    _log_pipe: PipeReader | None = field(default=None, init=False)
    _asking: dict[str, Shared[Any]] = field(factory=dict, init=False)

    @_outputs.default
    def _new_outputs(self) -> dict[int, Output]:
        return {1: Output(self.number), 2: Output(self.number)}

    @_channel.default
    def _new_channel(self) -> Channel:
        handlers: dict[str, Callable[..., Any]] = {
            "started": self._is_started,
            "failed": self._has_failed,
            **self.answers,
        }
        # What follows when it is lost begins when the process has ended.
        return Channel(handlers, lambda: None)

    def start(
        self,
        reactor: Any,
        worker: Worker,
        configuration: Configuration,
        directory: str,
        shares: Shares,
    ) -> None:
        """
        Start the process, if the system lets us.

        :param worker: Which worker it is to be.
        :param configuration: Its settings.
        :param directory: The working directory in which its relative paths are meant.
        :param shares: What it inherits.
        """
        try:
            self._spawn(reactor, worker, configuration, directory, shares)
        except OSError as error:
            # There may be too many processes, or open files, for the moment.
            self.line = one_line(f"cannot start a process: {in_words(error)}")
            if self.pid:
                self.kill()
            else:
                self._has_ended("was not started")

    def _spawn(
        self,
        reactor: Any,
        worker: Worker,
        configuration: Configuration,
        directory: str,
        shares: Shares,
    ) -> None:
        number = self.number
        descriptors = _Descriptors(_FIRST + shares.of_systemd)
        with ExitStack() as open_here:
            reader, writer = open_pipe()
            open_here.callback(os.close, writer)
            self._log_pipe = PipeReader(reactor, reader, shares.logs.incoming(number))
            ours, theirs = socket.socketpair()
            open_here.enter_context(ours)
            open_here.enter_context(theirs)
            control = descriptors.add(theirs.fileno())
            log = descriptors.add(writer)
            relay = RelaySetup(
                descriptor=descriptors.add(shares.relays.of(number).fileno()),
                paths=tuple(_path_of(descriptors.add(one)) for one in shares.doors),
                secret=shares.secret,
            )
            admin = shares.admin
            setup = WorkerSetup(
                worker=worker,
                configuration=configuration,
                directory=directory,
                reactor=type(reactor).__module__,
                listeners=tuple(
                    descriptors.inherit(one, number) for one in shares.listeners
                ),
                admin=None if admin is None else descriptors.inherit(admin, number),
                relay=relay,
                ledger=descriptors.add(shares.ledger.fd),
                form_key=shares.form_key,
                log=shares.logs.setup(log),
            )
            process = reactor.spawnProcess(
                self,
                sys.executable,
                [sys.executable, "-P", "-m", MODULE, str(control)],
                _environment(shares.of_systemd),
                childFDs=descriptors.mapped,
            )
            self.pid = process.pid
            ours.setblocking(False)
            reactor.adoptStreamConnection(
                ours.fileno(),
                socket.AF_UNIX,
                Factory.forProtocol(lambda: self._channel),
            )
            self._channel.begin(setup)

    @property
    def is_there(self) -> bool:
        """Whether it has not ended."""
        return not self._how

    @property
    def is_running(self) -> bool:
        """Whether it accepts connections."""
        return self.state == "running" and self.is_there

    def ended(self) -> Deferred[None]:
        """Fires when it has ended and all that it has logged was read."""
        return self._ended.wait()

    @property
    def how(self) -> str:
        """How it has ended, such as ``was killed by SIGKILL``."""
        return self._how

    def ask(self, what: str, *arguments: object) -> Deferred[Any]:
        """As :meth:`Channel.ask`."""
        return self._channel.ask(what, *arguments)

    def ask_once(self, what: str) -> Deferred[Any]:
        """
        As :meth:`ask`, but whoever asks before it has answered waits for that answer:
        a worker that does not answer is not asked again and again.
        """

        async def answer() -> Any:
            return await self.ask(what)

        return self._asking.setdefault(what, Shared()).run(answer)

    def tell(self, what: str, *arguments: object) -> None:
        """As :meth:`Channel.tell`."""
        self._channel.tell(what, *arguments)

    def replace(self) -> None:
        """End the process now, for one with other settings to follow."""
        self.is_replaced = True
        self.kill()

    def kill(self) -> None:
        """End the process now; what it has stored is safe."""
        if self.is_there and self.transport is not None:
            self.transport.signalProcess(signal.SIGKILL)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803
        self._outputs[childFD].received(data)

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        if isinstance(value, ProcessTerminated) and value.signal:
            self._has_ended(f"was killed by {signal.Signals(value.signal).name}")
        else:
            self._has_ended(f"ended with status {value.exitCode}")

    def _has_ended(self, how: str) -> None:
        self._how = how
        if self._log_pipe is not None:
            self._log_pipe.end()
        for output in self._outputs.values():
            output.ended()
        self._channel.close()
        self._ended.set()

    def _is_started(self) -> None:
        self.state = "started"
        self.on_started(self)

    def _has_failed(self, line: str) -> None:
        self.line = line


def _path_of(descriptor: int) -> str:
    """The path of what a descriptor of this process leads to: proc(5)."""
    return f"/proc/self/fd/{descriptor}"


def _environment(of_systemd: int) -> dict[str, str]:
    """
    The environment of a worker: ours, with the path that modules are found on.

    :param of_systemd: How many sockets of systemd it has, as we have.
    """
    variables = {
        name: value for name, value in os.environ.items() if name not in _OF_SYSTEMD
    }
    variables["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    names = variables.pop("LISTEN_FDNAMES", "").split(":")
    if of_systemd:
        # Twisted has removed the number, and takes names for as many sockets.
        variables["LISTEN_FDS"] = str(of_systemd)
        variables["LISTEN_FDNAMES"] = ":".join(names[:of_systemd])
    return variables
