"""
Which display shows the progress of a transfer.
"""

from __future__ import annotations

from contextlib import suppress
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
