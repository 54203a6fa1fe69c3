"""
How far an upload is, for whoever watches it.

On a terminal one line is rewritten, or, where rich is installed, a bar is drawn.
Anywhere else, as in the mail of a cron job, there are a few plain lines; and for
programs there is a line of JSON for each event.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import Any, Protocol, TextIO

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txbits.client.events import (
    Created,
    Event,
    Paused,
    Progress,
    Unlocked,
    Waiting,
)
from txbits.client.source import printable

#: A terminal's line is not rewritten more often than this, in seconds.
REDRAW_INTERVAL = 0.1

#: Without a terminal there is a line for every step of so many percent, and one after
#: so many seconds if a step takes longer.
_STEP_PERCENT = 10
_STEP_SECONDS = 60.0

#: Over how many seconds a rate is taken, about.
_RATE_SECONDS = 5.0

#: How many signs wide a bar is.
_BAR = 20


class Display(Protocol):
    """Shows the events of an upload."""

    def show(self, event: Event) -> None:
        """Something happened."""

    def end(self) -> None:
        """Nothing more will happen; what is written next starts a line."""


def write(out: TextIO, text: str) -> None:
    """
    Write, and carry on if nobody reads.

    That ``head`` has seen enough is no reason to stop an upload. What the terminal
    cannot show is escaped.
    """
    encoding = out.encoding or "utf-8"
    with suppress(OSError):
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()


def describe_progress(event: Progress, count: int) -> str:
    """Say how far an upload is that has moved *count* bytes."""
    return f"{percent(count, event.total):3d} % {count:,} of {event.total:,} bytes"


def describe_waiting(event: Waiting) -> str:
    """Say what is waited for."""
    return f"{event.cause}; trying again in {event.seconds:.1f} s"


def describe_paused(event: Paused) -> str:
    """Say that nothing is waited for."""
    return f"paused; the server holds {event.acknowledged:,} bytes"


def describe_seconds(seconds: float) -> str:
    """Say how long something takes, as a clock would show it."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


@define
class Rate:
    """How many bytes move in a second, these days."""

    clock: IReactorTime
    value: float | None = field(init=False, default=None)
    _count: int | None = field(init=False, default=None)
    _at: float = field(init=False, default=0.0)

    def moved(self, count: int) -> None:
        """So many bytes have moved in all."""
        now = self.clock.seconds()
        seconds = now - self._at
        if self._count is None or count < self._count:
            # It began, or began again.
            self._count, self._at = count, now
        elif seconds >= REDRAW_INTERVAL:
            rate = (count - self._count) / seconds
            weight = min(1.0, seconds / _RATE_SECONDS)
            old = rate if self.value is None else self.value
            self.value = old + (rate - old) * weight
            self._count, self._at = count, now

    def describe(self, left: int) -> str:
        """Say it, and how long so many bytes take; nothing if that is not known."""
        if not self.value or self.value < 1:
            return ""
        rate = f"{self.value / 1e6:.1f} MB/s"
        return f"{rate}, {describe_seconds(left / self.value)} left" if left else rate


@define
class PlainDisplay:
    """
    Lines.

    :ivar verbose: Whether each fragment and each session gets one.
    :ivar prefix: What each line begins with.
    """

    out: TextIO
    clock: IReactorTime
    verbose: bool = False
    prefix: str = ""
    _step: int = field(init=False, default=-1)
    _shown_at: float = field(init=False, default=0.0)
    _shown: int = field(init=False, default=-1)

    def show(self, event: Event) -> None:
        """See :class:`Display`."""
        if isinstance(event, Waiting):
            self._write(describe_waiting(event))
        elif isinstance(event, Paused):
            self._write(describe_paused(event))
        elif isinstance(event, Progress):
            self._show_progress(event)
        elif isinstance(event, Created) and self.verbose:
            self._write(f"session {printable(event.session_id)}")

    def _show_progress(self, event: Progress) -> None:
        step = percent(event.acknowledged, event.total) // _STEP_PERCENT
        now = self.clock.seconds()
        overdue = self.verbose or now >= self._shown_at + _STEP_SECONDS
        if step > self._step or (overdue and event.acknowledged != self._shown):
            self._step = max(step, self._step)
            self._shown_at = now
            self._shown = event.acknowledged
            self._write(describe_progress(event, event.acknowledged))

    def end(self) -> None:
        """See :class:`Display`."""

    def _write(self, line: str) -> None:
        write(self.out, f"{self.prefix}{line}\n")


@define
class TerminalDisplay:
    """One line that is rewritten."""

    out: TextIO
    clock: IReactorTime
    _rate: Rate = field(init=False)
    _shown_at: float | None = field(init=False, default=None)
    _width: int = field(init=False, default=0)

    def __attrs_post_init__(self) -> None:
        self._rate = Rate(self.clock)

    def show(self, event: Event) -> None:
        """See :class:`Display`."""
        if isinstance(event, Waiting):
            self._write(describe_waiting(event))
        elif isinstance(event, Paused):
            self._write(describe_paused(event))
        elif isinstance(event, Progress):
            self._show_progress(event)

    def _show_progress(self, event: Progress) -> None:
        self._rate.moved(event.sent)
        now = self.clock.seconds()
        recent = self._shown_at is not None and now < self._shown_at + REDRAW_INTERVAL
        if recent and event.acknowledged < event.total:
            return
        self._shown_at = now
        done = _BAR * event.sent // event.total if event.total else _BAR
        line = f"[{'#' * done:<{_BAR}}] {describe_progress(event, event.sent)}"
        rate = self._rate.describe(event.total - event.sent)
        self._write(f"{line}, {rate}" if rate else line)

    def end(self) -> None:
        """See :class:`Display`."""
        if self._width:
            self._width = 0
            write(self.out, "\n")

    def _write(self, line: str) -> None:
        # One that wraps could not be rewritten.
        line = line[: max(1, columns(self.out) - 1)]
        write(self.out, f"\r{line:<{self._width}}")
        self._width = len(line)


@define
class JSONDisplay:
    """
    A line of JSON for each event.

    :ivar fields: What each line has besides.
    """

    out: TextIO
    clock: IReactorTime
    fields: dict[str, Any] = field(factory=dict)
    _shown_at: float | None = field(init=False, default=None)
    _acknowledged: int = field(init=False, default=-1)

    def show(self, event: Event) -> None:
        """See :class:`Display`."""
        if isinstance(event, Progress):
            # What is on its way is told now and then; what arrived, always.
            now = self.clock.seconds()
            recent = self._shown_at is not None and now < self._shown_at + 1
            if recent and event.acknowledged == self._acknowledged:
                return
            self._shown_at, self._acknowledged = now, event.acknowledged
            self._write(
                event="progress",
                sent=event.sent,
                acknowledged=event.acknowledged,
                total=event.total,
            )
        elif isinstance(event, Waiting):
            self._write(event="waiting", seconds=event.seconds, cause=event.cause)
        elif isinstance(event, Created):
            self._write(event="session", session=event.session_id)
        elif isinstance(event, Unlocked):
            self._write(event="unlocked", file=event.path)
        else:
            self._write(event="paused", acknowledged=event.acknowledged)

    def end(self) -> None:
        """See :class:`Display`."""

    def _write(self, **fields: Any) -> None:
        write_json(self.out, **{**fields, **self.fields})


class NoDisplay:
    """Nothing."""

    def show(self, event: Event) -> None:
        """See :class:`Display`."""

    def end(self) -> None:
        """See :class:`Display`."""


def write_json(out: TextIO, **fields: Any) -> None:
    """Write one line of JSON."""
    write(out, json.dumps(fields) + "\n")


def display_for(
    out: TextIO, clock: IReactorTime, *, verbose: bool = False, plain: bool = False
) -> Display:
    """
    Make the display that fits where it is shown.

    :param verbose: Whether all that happens is to be seen.
    :param plain: Whether to do without rich.
    """
    if verbose or not out.isatty():
        return PlainDisplay(out, clock, verbose)
    if not plain:
        with suppress(ImportError):
            from txbits.client._rich import RichDisplay

            return RichDisplay(out, clock)
    return TerminalDisplay(out, clock)


def columns(out: TextIO) -> int:
    """How many signs fit into a line."""
    try:
        return os.get_terminal_size(out.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def percent(count: int, total: int) -> int:
    """How many of a hundred; rounded down, since 100 % means all."""
    return count * 100 // total if total else 100
