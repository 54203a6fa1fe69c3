"""
Which display shows the progress of a transfer, and what shows tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TextIO

from twisted.internet.interfaces import IReactorTime

from txbits.client._display import Display, PlainDisplay, write


def display_for(out: TextIO, clock: IReactorTime, *, verbose: bool = False) -> Display:
    """
    Make the display that fits *out*.

    That is a bar on a terminal if rich is installed, and plain lines otherwise.

    :param verbose: Whether to show all events, in plain lines.
    """
    if out.isatty() and not verbose:
        with suppress(ImportError):
            from txbits.client._rich import RichDisplay

            return RichDisplay(out, clock)
    return PlainDisplay(out, clock, verbose)


#: Prints a table: its columns, its rows, and whether to print the columns.
ShowTable = Callable[[Sequence[str], Sequence[Sequence[str]], bool], None]


def table_for(out: TextIO) -> ShowTable:
    """
    Choose what prints tables on *out*.

    That is rich on a terminal if it is installed. Otherwise columns are separated by
    tabs, for other programs to read.
    """
    if out.isatty():
        with suppress(ImportError):
            from txbits.client._rich import show_table

            return lambda columns, rows, _: show_table(out, columns, rows)

    def show(
        columns: Sequence[str], rows: Sequence[Sequence[str]], is_first: bool
    ) -> None:
        lines = [columns, *rows] if is_first else rows
        write(out, "".join("\t".join(line) + "\n" for line in lines))

    return show
