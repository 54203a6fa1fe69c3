"""
The log of a worker, which comes out where the supervisor's does.

A worker writes its log into a pipe. What is in the pipe is not lost when the worker
dies, whatever of. If the supervisor logs lines to a file, the worker makes the same
lines, and the supervisor copies them; the file and its rotation are the supervisor's.
If it logs otherwise, each event goes through the pipe as JSON, and the supervisor logs
it as its own.

The supervisor reads a busy pipe from time to time, and not whenever something was
written: waking it costs a worker as much as making the line.
"""

from __future__ import annotations

import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from threading import Lock
from typing import Any, ClassVar, Self

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReadDescriptor
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.service._log_lines import LineObserver, message_of, system_of
from txbits.service._logs import JournalObserver, fields_of
from txbits.service._workers._setup import LogSetup

_log = Logger()

#: What follows each event in a pipe. UTF-8 does not have this byte, and an event may
#: have several lines.
_END = b"\xff"

#: How many bytes of log a worker can be ahead of the supervisor. Linux allows a user
#: 64 MiB in all pipes together.
_ROOM = 1 << 18

#: How many bytes the supervisor reads at once, and for how many seconds it leaves the
#: pipe alone then. In this time, a worker can fill a pipe that could not be enlarged
#: only if it logs more than 1.6 MB in a second.
_BATCH, _PAUSE = 1 << 16, 0.04


def open_pipe() -> tuple[int, int]:
    """
    Open a pipe for the log of a worker.

    :returns: The descriptors of its ends: that of the supervisor, which does not block,
        and that of the worker, which does.
    :raises OSError: If the system does not allow that for the moment.
    """
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    # Only Linux has this, and allows it for some pipes of a user: pipe(7).
    if (enlarge := getattr(fcntl, "F_SETPIPE_SZ", None)) is not None:
        with suppress(OSError):
            fcntl.fcntl(reader, enlarge, _ROOM)
    return reader, writer


@implementer(ILogObserver)
@define(eq=False)
class PipeObserver:
    """
    Logs into a pipe; it blocks while that is full, as a terminal would.

    :param descriptor: The end to write to.
    :param line: As in :class:`LogSetup`.
    """

    _descriptor: int
    _line: Callable[[LogEvent], str | None]
    _lock: Lock = field(factory=Lock, init=False)

    def __call__(self, event: LogEvent) -> None:
        line = self._line(event)
        if not line:
            return
        left = memoryview(line.encode("utf-8", "surrogatepass") + _END)
        # Threads log as well.
        with self._lock:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BrokenPipeError:
                    # Without a supervisor this process is about to end.
                    return


@implementer(ILogObserver)
@define(eq=False)
class Numbered:
    """
    Gives each event the number of the worker.

    :param worker: The number.
    :param observer: Logs the events.
    """

    _worker: int
    _observer: ILogObserver

    def __call__(self, event: LogEvent) -> None:
        told = {**event, "log_system": f"worker {self._worker}: {system_of(event)}"}
        failure = event.get("log_failure")
        if failure is not None:
            # For its place before the number.
            told["traceback"] = failure.getTraceback()
        told["worker"] = self._worker
        self._observer(told)


def observer_of(setup: LogSetup, worker: int) -> ILogObserver:
    """
    Make what a worker logs with.

    :param worker: Its number.
    """
    observer: ILogObserver = PipeObserver(setup.descriptor, setup.line)
    if setup.journal is not None:
        observer = JournalObserver(observer, setup.journal)
    return Numbered(worker, observer)


def event_line(event: LogEvent) -> str:
    """Write an event of a worker so that :class:`Events` can log it."""
    return json.dumps(
        {
            "time": event["log_time"],
            "level": event["log_level"].name,
            "namespace": event["log_namespace"],
            "system": event["log_system"],
            "text": message_of(event),
            "fields": fields_of(event),
        }
    )


@define(eq=False)
class Incoming(ABC):
    """
    What comes out of a pipe, piece by piece.

    :param worker: The number of the worker at its other end.
    :cvar end: The byte that each piece ends with.
    """

    end: ClassVar[bytes] = _END

    _worker: int
    _begun: list[bytes] = field(factory=list, init=False)

    def received(self, data: bytes) -> None:
        """Some bytes came."""
        whole, end, rest = data.rpartition(self.end)
        if end:
            whole, self._begun = b"".join([*self._begun, whole]), []
            self.pieces(whole)
        if rest:
            self._begun.append(rest)

    def ended(self) -> None:
        """Nothing will come any more."""
        last, self._begun = b"".join(self._begun), []
        if last:
            self.incomplete(last)

    @abstractmethod
    def pieces(self, whole: bytes) -> None:
        """Pieces came, with an end between each two of them."""

    def incomplete(self, last: bytes) -> None:
        """A piece has no end: the worker was killed while it wrote."""
        _log.warn(
            "worker {worker} left an incomplete line: {line}",
            worker=self._worker,
            line=last.decode(errors="replace"),
        )


@define(eq=False)
class Copied(Incoming):
    """
    Copies the lines of a worker into the log's file.

    :param observer: Writes the file.
    """

    _observer: LineObserver

    def pieces(self, whole: bytes) -> None:
        lines = whole.replace(_END, b"").decode("utf-8", "surrogatepass")
        try:
            self._observer.write(lines)
        except Exception:  # noqa: BLE001 - as if an observer had failed
            _log.failure(
                "cannot write {count} lines of the log of worker {worker}",
                count=lines.count("\n"),
                worker=self._worker,
            )


class WorkerError(Exception):
    """An exception in another process, whose class may be unknown here."""


class _RemoteFailure(Failure):
    """
    The failure of an event, in the process that it is not from.

    :param text: Its traceback.
    """

    def __init__(self, text: str) -> None:
        super().__init__(WorkerError(text.rstrip().rpartition("\n")[2]))
        self._text = text

    def getTraceback(self, *_: Any, **__: Any) -> str:
        return self._text


class Events(Incoming):
    """Logs the events of a worker."""

    def pieces(self, whole: bytes) -> None:
        for line in whole.split(_END):
            self._event(json.loads(line))

    def _event(self, told: dict[str, Any]) -> None:
        fields = told["fields"]
        traceback = fields.get("traceback")
        if traceback is not None:
            fields["log_failure"] = _RemoteFailure(traceback)
        globalLogPublisher(
            {
                **fields,
                "log_format": "{log_text}",
                "log_text": told["text"],
                "log_time": told["time"],
                "log_level": LogLevel.lookupByName(told["level"]),
                "log_namespace": told["namespace"],
                "log_system": told["system"],
            }
        )


class Output(Incoming):
    """
    Logs what a worker writes to its standard output and standard error, which is what
    the interpreter says before there is a log, and after.
    """

    end = b"\n"

    def pieces(self, whole: bytes) -> None:
        for line in whole.split(b"\n"):
            _log.error(
                "worker {worker}: {line}",
                worker=self._worker,
                line=line.decode(errors="replace"),
            )

    def incomplete(self, last: bytes) -> None:
        self.pieces(last)


@frozen
class WorkerLogs:
    """
    Where the workers of a supervisor log.

    :ivar line: As in :class:`LogSetup`.
    :ivar observer: Writes the file that their lines are copied into; ``None`` if their
        events are logged as the supervisor's own.
    :ivar journal: As in :class:`LogSetup`.
    """

    line: Callable[[LogEvent], str | None] = event_line
    observer: LineObserver | None = None
    journal: str | None = None

    @classmethod
    def of(cls, observer: ILogObserver | None) -> Self:
        """
        Choose it.

        :param observer: What the supervisor logs with; ``None`` if only Twisted knows.
        """
        journal = None
        if isinstance(observer, JournalObserver):
            journal, observer = observer.path, observer.otherwise
        if isinstance(observer, LineObserver):
            return cls(observer.formatEvent, observer, journal)
        return cls()

    def setup(self, descriptor: int) -> LogSetup:
        """Tell a worker, which has this end of its pipe."""
        return LogSetup(descriptor, self.line, self.journal)

    def incoming(self, worker: int) -> Incoming:
        """Make what takes what comes out of the pipe of a worker."""
        if self.observer is None:
            return Events(worker)
        return Copied(worker, self.observer)


@implementer(IReadDescriptor)
@define(eq=False)
class PipeReader:
    """
    Reads what a worker logs, in batches; a line that comes alone, at once.

    :param reactor: The reactor.
    :param descriptor: The end to read from, which does not block. It is closed at the
        end.
    :param incoming: Takes what was read.
    """

    _reactor: Any
    _descriptor: int
    _incoming: Incoming
    _next: IDelayedCall | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._reactor.addReader(self)

    def fileno(self) -> int:
        return self._descriptor

    def logPrefix(self) -> str:
        return "-"

    def doRead(self) -> None:
        self._reactor.removeReader(self)
        self._read()

    def connectionLost(self, reason: Failure) -> None:
        """Do nothing: the reactor forgets all readers when it stops."""

    def end(self) -> None:
        """Read all that a worker that has ended left there."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        self._reactor.removeReader(self)
        while data := self._available():
            self._incoming.received(data)
        os.close(self._descriptor)
        self._incoming.ended()

    def _read(self) -> None:
        self._next = None
        data = self._available()
        if data is None:
            self._reactor.addReader(self)
        elif data:
            # First: it is to go on whatever happens to what was read.
            pause = _PAUSE if len(data) < _BATCH else 0
            self._next = self._reactor.callLater(pause, self._read)
            self._incoming.received(data)

    def _available(self) -> bytes | None:
        """Read a batch: ``None`` if there is none yet, empty if there will be none."""
        try:
            return os.read(self._descriptor, _BATCH)
        except BlockingIOError:
            return None
