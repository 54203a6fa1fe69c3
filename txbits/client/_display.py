"""
The progress of a transfer: plain lines for people, and lines of JSON for programs.

On a terminal :mod:`txbits.client._rich` draws a bar in their place.
"""

from __future__ import annotations

import json
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

#: A line is written for each step of so many percent, and after so many seconds if a
#: step takes longer.
_STEP_PERCENT = 10
_STEP_SECONDS = 60.0


class Display(Protocol):
    """Shows the events of a transfer."""

    def show(self, event: Event) -> None:
        """Show an event."""

    def end(self) -> None:
        """End the display; other output then starts on a line of its own."""


def write(out: TextIO, text: str) -> None:
    """
    Write text, and ignore a reader that is gone.

    An upload must not stop because ``head`` has ended. Characters that the terminal
    cannot show are escaped.
    """
    encoding = out.encoding or "utf-8"
    with suppress(OSError):
        out.write(text.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()


def describe_progress(event: Progress, count: int) -> str:
    """Describe the progress of a transfer that has moved *count* bytes."""
    return f"{percent(count, event.total):3d} % {count:,} of {event.total:,} bytes"


def describe_waiting(event: Waiting) -> str:
    """Describe why and how long a transfer waits."""
    return f"{event.cause}; trying again in {event.seconds:.1f} s"


def describe_paused(event: Paused) -> str:
    """Describe a transfer that has stopped."""
    return f"paused; the server holds {event.acknowledged:,} bytes"


@define
class PlainDisplay:
    """
    Plain lines.

    :ivar verbose: Whether each fragment and each session gets a line.
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
            # Sent bytes are reported once a second, acknowledged ones always.
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
    """Shows nothing."""

    def show(self, event: Event) -> None:
        """See :class:`Display`."""

    def end(self) -> None:
        """See :class:`Display`."""


def write_json(out: TextIO, **fields: Any) -> None:
    """Write one line of JSON."""
    write(out, json.dumps(fields) + "\n")


def percent(count: int, total: int) -> int:
    """The percentage, rounded down: 100 means complete."""
    return count * 100 // total if total else 100
