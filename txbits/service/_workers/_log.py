"""
The log of a worker, which comes out where the supervisor's does.

A worker writes each event as one line of JSON into a pipe. What is in the pipe is not
lost when the worker dies, whatever of. The supervisor logs the events as its own, with
the number of the worker.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from threading import Lock
from typing import Any

from attrs import define, field
from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.service._log_lines import message_of
from txbits.service._logs import fields_of

_log = Logger()


@implementer(ILogObserver)
@define(eq=False)
class PipeObserver:
    """
    Logs into a pipe; it blocks while that is full, as a terminal would.

    :param descriptor: The end to write to.
    """

    _descriptor: int
    _lock: Lock = field(factory=Lock, init=False)

    def __call__(self, event: LogEvent) -> None:
        line = json.dumps(
            {
                "time": event["log_time"],
                "level": event["log_level"].name,
                "namespace": event["log_namespace"],
                "system": event.get("log_system"),
                "text": message_of(event),
                "fields": fields_of(event),
            }
        )
        left = memoryview(line.encode() + b"\n")
        # Threads log as well.
        with self._lock:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BrokenPipeError:
                    # Without a supervisor this process is about to end.
                    return


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


@define(eq=False)
class Lines(ABC):
    """
    What comes out of a pipe, as lines.

    :param worker: The number of the worker at its other end.
    """

    _worker: int
    _pieces: list[bytes] = field(factory=list, init=False)

    def received(self, data: bytes) -> None:
        """Some bytes came."""
        first, end, rest = data.partition(b"\n")
        self._pieces.append(first)
        if end:
            *lines, last = rest.split(b"\n")
            lines.insert(0, b"".join(self._pieces))
            self._pieces = [last]
            for line in lines:
                self.line(line)

    def ended(self) -> None:
        """Nothing will come any more."""
        last, self._pieces = b"".join(self._pieces), []
        if last:
            self.line(last)

    @abstractmethod
    def line(self, line: bytes) -> None:
        """A line came."""


class Events(Lines):
    """Logs the events of a worker."""

    def line(self, line: bytes) -> None:
        try:
            told = json.loads(line)
        except ValueError:
            # The worker was killed while it wrote.
            _log.warn(
                "worker {worker} left an incomplete line: {line}",
                worker=self._worker,
                line=line.decode(errors="replace"),
            )
            return
        fields, system = told["fields"], told["system"]
        traceback = fields.get("traceback")
        if traceback is not None:
            fields["log_failure"] = _RemoteFailure(traceback)
        if system is None:
            system = f"{told['namespace']}#{told['level']}"
        globalLogPublisher(
            {
                **fields,
                "log_format": "{log_text}",
                "log_text": told["text"],
                "log_time": told["time"],
                "log_level": LogLevel.lookupByName(told["level"]),
                "log_namespace": told["namespace"],
                "log_system": f"worker {self._worker}: {system}",
                "worker": self._worker,
            }
        )


class Output(Lines):
    """
    Logs what a worker writes to its standard output and standard error, which is what
    the interpreter says before there is a log, and after.
    """

    def line(self, line: bytes) -> None:
        _log.error(
            "worker {worker}: {line}",
            worker=self._worker,
            line=line.decode(errors="replace"),
        )
