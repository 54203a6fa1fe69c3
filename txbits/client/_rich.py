"""
What rich draws on a terminal: a bar with rate and time left, and tables.

This module requires rich (``pip install 'txbits[cli]'``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from attrs import define, field
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text
from twisted.internet.interfaces import IReactorTime

from txbits.client._display import describe_paused, describe_waiting
from txbits.client.events import Event, Paused, Progress, Waiting

#: The bar is not redrawn more often than this, in seconds.
REDRAW_INTERVAL = 0.1

#: How long the cells of a column are that are not wrapped, in characters.
_SHORT_CELL = 12

#: How many blanks are between two columns.
_GAP = 2


@define
class RichDisplay:
    """A bar. Events redraw it, not a thread of rich."""

    out: TextIO
    clock: IReactorTime
    _bars: Bars | None = field(init=False, default=None)
    _task: TaskID = field(init=False, default=TaskID(0))
    _shown_at: float | None = field(init=False, default=None)

    def show(self, event: Event) -> None:
        """See :class:`~txbits.client._display.Display`."""
        if isinstance(event, Progress):
            self._show_progress(event)
        elif isinstance(event, Waiting):
            self._say(describe_waiting(event))
        elif isinstance(event, Paused):
            self._say(describe_paused(event))

    def end(self) -> None:
        """See :class:`~txbits.client._display.Display`."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _started(self, total: int) -> Bars:
        if self._bars is None:
            self._bars = Bars(
                BarColumn(),
                TaskProgressColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.description}"),
                console=Console(file=self.out),
                auto_refresh=False,
                get_time=self.clock.seconds,
            )
            self._bars.start()
            self._task = self._bars.add_task("", total=total)
        return self._bars

    def _show_progress(self, event: Progress) -> None:
        bars = self._started(event.total)
        bars.update(self._task, completed=event.sent, total=event.total, description="")
        now = self.clock.seconds()
        recent = self._shown_at is not None and now < self._shown_at + REDRAW_INTERVAL
        if not recent or event.acknowledged == event.total:
            self._shown_at = now
            bars.refresh()

    def _say(self, words: str) -> None:
        if self._bars is not None:
            self._bars.console.print(words, markup=False, highlight=False)
            self._bars.refresh()


def show_table(
    out: TextIO,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    optional: Sequence[str] = (),
) -> None:
    """
    Print a table. Columns of numbers are aligned to the right.

    :param optional: Columns to leave out if the terminal is too narrow, the first of
        them first.
    """
    console = Console(file=out)
    cells = {name: [row[number] for row in rows] for number, name in enumerate(columns)}
    widths = {name: max(map(len, (name, *cells[name]))) for name in cells}
    # What is copied from the terminal, such as an id, must be whole. Columns of short
    # cells stay as they are, too; the others are folded if there is no room.
    needed = {
        name: width if name == columns[0] else min(width, _SHORT_CELL)
        for name, width in widths.items()
    }
    for name in optional:
        if sum(needed.values()) + _GAP * (len(needed) - 1) > console.width:
            del needed[name]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in needed:
        is_whole = widths[name] == needed[name]
        is_number = all(one[:1].isdigit() or one in ("", "-") for one in cells[name])
        table.add_column(
            name,
            justify="right" if is_number and name != columns[0] else "left",
            overflow="fold",
            no_wrap=is_whole,
            min_width=needed[name],
        )
    for number in range(len(rows)):
        table.add_row(*(Text(cells[name][number]) for name in needed))
    console.print(table)
