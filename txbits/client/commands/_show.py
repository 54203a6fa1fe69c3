"""
Which display shows the progress of a transfer, and what shows tables.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TextIO

from twisted.internet.interfaces import IReactorTime

from txbits.client._display import Display, PlainDisplay


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


#: Prints a table: its columns, its rows, and columns that may be left out.
ShowTable = Callable[[Sequence[str], Sequence[Sequence[str]], Sequence[str]], None]


def table_on(out: TextIO) -> ShowTable | None:
    """
    Choose what prints tables for people to read.

    :returns: That is rich, on a terminal, if it is installed; otherwise ``None``.
    """
    if out.isatty():
        with suppress(ImportError):
            from txbits.client._rich import show_table

            return partial(show_table, out)
    return None
