"""
The text of log events, as Twisted writes it, in a fraction of its time.

Twisted formats each event, and the time of each event, with code in Python. A server
that logs two lines for each small upload would spend more on them than on reading the
requests. What is special about an event, such as a traceback or a call in its format,
is left to Twisted.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from twisted.logger import (
    FileLogObserver,
    ILogObserver,
    LogEvent,
    formatEvent,
    formatEventAsClassicLogText,
    formatTime,
)
from zope.interface import implementer

#: A format for which ``str.format_map`` does what Twisted does: text, doubled braces,
#: and names without attributes, calls, conversions and specifications.
_SIMPLE = re.compile(r"(?:[^{}]|\{\{|\}\}|\{[A-Za-z_][A-Za-z0-9_]*\})*")

#: How many formats are remembered. Each call of a logger in the source has its own.
_FORMATS = 512


@lru_cache(_FORMATS)
def _is_simple(text: str) -> bool:
    return _SIMPLE.fullmatch(text) is not None


def message_of(event: LogEvent) -> str:
    """Format an event; this equals ``twisted.logger.formatEvent``."""
    text = event.get("log_format")
    if type(text) is str and "log_flattened" not in event:
        if "{" not in text and "}" not in text:
            return text
        if _is_simple(text):
            try:
                return text.format_map(event)
            except Exception:  # noqa: BLE001 - of a field's __format__: Twisted tells
                return formatEvent(event)
    return formatEvent(event)


class Stamps:
    """
    Timestamps like those of ``twisted.logger.formatTime``, made once a second.

    :param make: Makes the timestamp of a time in seconds.
    """

    def __init__(self, make: Callable[[float | None], str] = formatTime) -> None:
        self._make = make
        # One object, because any thread may log.
        self._last: tuple[int, str] = (-1, "")

    def __call__(self, when: float | None) -> str:
        """Make the timestamp of *when*."""
        # Twisted rounds to microseconds, which may lead to the next second.
        if type(when) is not float or not 0 <= when < 1e11 or when % 1 > 0.999999:
            return self._make(when)
        second = int(when)
        last, stamp = self._last
        if second != last:
            stamp = self._make(second)
            self._last = second, stamp
        return stamp


class TextLines:
    """
    Writes events as lines of text: those of ``twisted.logger.textFileLogObserver``.

    :param stamp: Makes the timestamps.
    """

    def __init__(self, stamp: Callable[[float | None], str] | None = None) -> None:
        self._stamp = Stamps() if stamp is None else stamp

    def line(self, event: LogEvent) -> str | None:
        """Write an event; ``None`` if it has no text."""
        if "log_failure" in event:
            return formatEventAsClassicLogText(event, self._stamp)
        text = message_of(event)
        if not text:
            return None
        if "\n" in text:
            text = text.replace("\n", "\n\t")
        stamp = self._stamp(event.get("log_time"))
        # Twisted indents all lines but the first of the whole text.
        system = system_of(event)
        if "\n" in system:
            system = system.replace("\n", "\n\t")
        return f"{stamp} [{system}] {text}\n"


def system_of(event: LogEvent) -> str:
    """Name the part of the program that an event is from, as Twisted does."""
    system = event.get("log_system")
    if system is None:
        level = event.get("log_level")
        name = "-" if level is None else level.name
        return f"{event.get('log_namespace', '-')}#{name}"
    try:
        return str(system)
    except Exception:  # noqa: BLE001 - as Twisted does
        return "UNFORMATTABLE"


@implementer(ILogObserver)
class LineObserver(FileLogObserver):
    """
    Writes a line for each event, at once: a crash of the process loses none.

    Twisted's class loses the line that the file cannot encode, such as one with the
    name of a file that is not UTF-8. This one writes it with escapes.
    """

    def __call__(self, event: LogEvent) -> None:
        line = self.formatEvent(event)
        if line:
            self.write(line)

    def write(self, lines: str) -> None:
        """Write whole lines."""
        file: Any = self._outFile
        if self._encoding is not None:
            file.write(lines.encode(self._encoding, "backslashreplace"))
        else:
            try:
                file.write(lines)
            except UnicodeEncodeError:
                # Twisted's log files take text, but do not say that they write UTF-8.
                encoding = getattr(file, "encoding", "utf-8")
                file.write(lines.encode(encoding, "backslashreplace").decode(encoding))
        file.flush()


def text_observer(file: Any) -> LineObserver:
    """
    Log to a file as text.

    :param file: Takes text, or bytes of UTF-8.
    """
    return LineObserver(file, TextLines().line)
