"""
The log of ``twistd`` and ``twist``: lines of text, a JSON object a line, or the fields
of systemd's journal.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite
from types import NoneType
from typing import Any, TextIO
from uuid import UUID

from attrs import define, field
from twisted.application.service import Service
from twisted.logger import ILogObserver, LogEvent, LogLevel
from twisted.python.logfile import LogFile
from zope.interface import implementer

from txbits.service._log_lines import (
    LineObserver,
    message_of,
    text_observer,
)

#: What the events of Twisted's old logging system have for their own use.
_LEGACY = frozenset(("format", "isError", "message", "printed", "system", "time"))

#: The priorities of syslog, which the journal uses.
_PRIORITIES = {
    LogLevel.debug: 7,
    LogLevel.info: 6,
    LogLevel.warn: 4,
    LogLevel.error: 3,
    LogLevel.critical: 2,
}

#: Where the journal takes messages.
_JOURNAL = "/run/systemd/journal/socket"

#: How many bytes of a value the journal gets. Longer messages do not fit a datagram.
_LONGEST = 16_000


def _value(value: object) -> object:
    """A value of an event as JSON has it."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else str(value)
    if isinstance(value, (list, tuple)):
        return [_value(one) for one in value]
    return str(value)


#: What is told of. Other objects are for observers in this process.
_TOLD = (NoneType, bool, int, float, str, list, tuple, BaseException, UUID)

#: What JSON has. Most values are of these types.
_AS_IS = frozenset((NoneType, bool, int, str))


def _is_left_out(name: str) -> bool:
    return name[:4] == "log_" or name in _LEGACY


def fields_of(event: LogEvent) -> dict[str, object]:
    """What an event tells beside its text, as JSON has it."""
    fields: dict[str, object] = {}
    for name, value in event.items():
        if _is_left_out(name):
            continue
        if type(value) in _AS_IS:
            fields[name] = value
        elif isinstance(value, _TOLD):
            fields[name] = _value(value)
    failure = event.get("log_failure")
    if failure is not None:
        fields["traceback"] = failure.getTraceback()
    return fields


@lru_cache(4)
def _second(when: int) -> str:
    return datetime.fromtimestamp(when, UTC).isoformat()[:19]


def _moment(when: float) -> str:
    """
    Write a time as RFC 3339 says, in UTC.

    :param when: Seconds since the epoch.
    """
    second = int(when)
    micros = round((when - second) * 1e6)
    if when < 0 or micros == 1_000_000:
        return datetime.fromtimestamp(when, UTC).isoformat(timespec="microseconds")
    return f"{_second(second)}.{micros:06}+00:00"


@lru_cache(1024)
def _key(name: str) -> str:
    """
    What precedes a value in a line.

    :param name: The name of a field. The source has few, each of them often.
    :returns: Nothing if the field is left out.
    """
    if _is_left_out(name):
        return ""
    return f", {json.dumps(name)}: "


def json_line(event: LogEvent) -> str:
    """
    Write an event as one line of JSON.

    It has ``time``, ``level``, ``logger`` and ``message``, and the event's own fields.
    """
    if "log_failure" in event or "level" in event or "logger" in event:
        return _unusual_line(event)
    # As json.dumps would do, in half of the time.
    line = (
        f'{{"time": "{_moment(event["log_time"])}", '
        f'"level": "{event["log_level"].name}", '
        f'"logger": {_quoted(event["log_namespace"])}, '
        f'"message": {_quoted(message_of(event))}'
    )
    for name, value in event.items():
        key = _key(name)
        if key:
            kind = type(value)
            if kind is str:
                line += key + _quoted(value)
            elif value is None:
                line += key + "null"
            elif kind is int:
                line += key + repr(value)
            elif isinstance(value, _TOLD):
                line += key + json.dumps(_value(value))
    return line + "}\n"


def _unusual_line(event: LogEvent) -> str:
    """Write an event that has a traceback, or fields with names that a line has."""
    line: dict[str, object] = {
        "time": _moment(event["log_time"]),
        "level": event["log_level"].name,
        "logger": event["log_namespace"],
        "message": message_of(event),
    }
    line.update(fields_of(event))
    return json.dumps(line) + "\n"


def json_observer(file: Any) -> LineObserver:
    """Log to a file, as JSON."""
    return LineObserver(file, json_line)


def log_file(parent: Mapping[str, Any]) -> Any:
    """
    Open the file that ``twistd`` would log to, and rotate it at SIGUSR1, as it does.

    :param parent: The options of ``twistd``.
    :raises SystemExit: If a daemon is to log to standard output.
    """
    name = parent["logfile"]
    if parent["nodaemon"] and name in (None, "", "-"):
        return sys.stdout
    if name == "-":
        raise SystemExit("txbits: a daemon cannot log to standard output")
    file = LogFile.fromFullPath(name or "twistd.log")

    def rotate(number: int, frame: object) -> None:
        from twisted.internet import reactor

        reactor.callFromThread(file.rotate)  # type: ignore[attr-defined]

    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, rotate)
    return file


def is_journal(output: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether what is written to a stream goes to systemd's journal."""
    try:
        found = os.fstat(output.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _journal_entry(event: LogEvent) -> bytes:
    """An event in the native protocol of the journal."""
    entry = [
        ("PRIORITY", _PRIORITIES[event["log_level"]]),
        ("SYSLOG_IDENTIFIER", "txbits"),
        ("MESSAGE", message_of(event)),
        ("TXBITS_LOGGER", event["log_namespace"]),
    ]
    for name, value in fields_of(event).items():
        # Other names are refused.
        if name.isidentifier() and name.isascii() and value is not None:
            entry.append((f"TXBITS_{name.upper()}", value))
    parts = []
    for name, value in entry:
        text = value if isinstance(value, str) else json.dumps(value)
        data = text.encode("utf-8", "backslashreplace")[:_LONGEST]
        length = len(data).to_bytes(8, "little")
        parts.append(b"%b\n%b%b\n" % (name.encode(), length, data))
    return b"".join(parts)


@implementer(ILogObserver)
@define(eq=False)
class JournalObserver:
    """
    Logs to the journal, with a field for each field of an event.

    :ivar otherwise: Gets what the journal does not take at once, and logs it to
        standard output as text, where the journal has it too.
    :ivar path: The socket of the journal.
    """

    otherwise: ILogObserver
    path: str = _JOURNAL
    _socket: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def __call__(self, event: LogEvent) -> None:
        try:
            self._socket.sendto(_journal_entry(event), self.path)
        except OSError:
            self.otherwise(event)


@define(eq=False, slots=False)
class LoggedService(Service):
    """
    A service that tells its application what to log with.

    :ivar make_observer: Makes what ``twistd`` logs with; ``None`` for its own.
    :ivar observer: What that has made.
    """

    make_observer: Callable[[], Any] | None = field(default=None, init=False)
    observer: ILogObserver | None = field(default=None, init=False)

    def setServiceParent(self, parent: Any) -> None:
        """
        Become part of an application, and tell it what to log with.

        :param parent: The application.
        """
        if self.make_observer is not None:
            self.observer = self.make_observer()
            parent.setComponent(ILogObserver, self.observer)
        super().setServiceParent(parent)


def observer_factory(
    log_format: str | None, parent: Mapping[str, Any]
) -> Callable[[], ILogObserver]:
    """
    Choose what ``twistd`` logs with.

    :param log_format: The setting; ``None`` for text, or for the journal's fields if
        standard output leads there.
    :param parent: The options of ``twistd``.
    :returns: Makes the observer.
    """
    if log_format == "json":
        return lambda: json_observer(log_file(parent))
    is_shown = parent["nodaemon"] and parent["logfile"] in (None, "", "-")
    if log_format is None and is_shown and is_journal(sys.stdout):
        return lambda: JournalObserver(text_observer(sys.stdout))
    return lambda: text_observer(log_file(parent))
