"""
How far an upload is, for whoever watches it.

On a terminal one line is rewritten; anywhere else, as in the mail of a cron job,
there are a few plain lines.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Protocol, TextIO

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from txbits.client.uploader import Event, Progress, Waiting

#: A terminal's line is not rewritten more often than this, in seconds.
_REDRAW_INTERVAL = 0.1

#: Without a terminal there is a line for every step of so many percent, and one after
#: so many seconds if a step takes longer.
_STEP_PERCENT = 10
_STEP_SECONDS = 60.0


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
    return f"{_percent(count, event.total):3d} % {count:,} of {event.total:,} bytes"


def describe_waiting(event: Waiting) -> str:
    """Say what is waited for."""
    return f"{event.cause}; trying again in {event.seconds:.1f} s"


@define
class PlainDisplay:
    """Lines."""

    out: TextIO
    clock: IReactorTime
    _step: int = field(init=False, default=-1)
    _shown_at: float = field(init=False, default=0.0)
    _shown: int = field(init=False, default=-1)

    def show(self, event: Event) -> None:
        """See :class:`Display`."""
        if isinstance(event, Waiting):
            self._write(describe_waiting(event))
            return
        step = _percent(event.acknowledged, event.total) // _STEP_PERCENT
        now = self.clock.seconds()
        overdue = now >= self._shown_at + _STEP_SECONDS
        if step > self._step or (overdue and event.acknowledged != self._shown):
            self._step = max(step, self._step)
            self._shown_at = now
            self._shown = event.acknowledged
            self._write(describe_progress(event, event.acknowledged))

    def end(self) -> None:
        """See :class:`Display`."""

    def _write(self, line: str) -> None:
        write(self.out, f"{line}\n")


@define
class TerminalDisplay:
    """One line that is rewritten."""

    out: TextIO
    clock: IReactorTime
    _shown_at: float | None = field(init=False, default=None)
    _width: int = field(init=False, default=0)

    def show(self, event: Event) -> None:
        """See :class:`Display`."""
        if isinstance(event, Waiting):
            self._write(describe_waiting(event))
            return
        now = self.clock.seconds()
        recent = self._shown_at is not None and now < self._shown_at + _REDRAW_INTERVAL
        if recent and event.acknowledged < event.total:
            return
        self._shown_at = now
        self._write(describe_progress(event, event.sent))

    def end(self) -> None:
        """See :class:`Display`."""
        if self._width:
            self._width = 0
            write(self.out, "\n")

    def _write(self, line: str) -> None:
        write(self.out, f"\r{line:<{self._width}}")
        self._width = len(line)


def display_for(out: TextIO, clock: IReactorTime) -> Display:
    """Make the display that fits where it is shown."""
    return TerminalDisplay(out, clock) if out.isatty() else PlainDisplay(out, clock)


def _percent(count: int, total: int) -> int:
    # Rounded down: 100 % means all.
    return count * 100 // total if total else 100
