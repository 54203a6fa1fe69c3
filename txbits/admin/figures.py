"""
Where the figures of a server are, and what measures some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from attrs import frozen

from txbits._counts import Counts, Histogram
from txbits.sessions import SessionManager
from txbits.web import BITSSite


class Activity(Protocol):
    """Something that goes on while the operator's listener listens."""

    def start(self) -> object: ...
    def stop(self) -> None: ...


@frozen(eq=False)
class Figures:
    """
    Where the figures of a server are.

    :ivar directories: Returns the mounts of the virtual directories, and what settles
        their packets.
    :ivar unmounted: Counts requests for no virtual directory.
    :ivar site: Serves the connections of uploads.
    :ivar certificates: Returns the addresses of ports with certificates, and when these
        expire, in seconds since the epoch.
    :ivar reloads: How often what was read again, by result.
    :ivar delays: How late the reactor calls.
    :ivar started: When the server was started, in seconds since the epoch.
    """

    directories: Callable[[], Iterable[tuple[str, SessionManager]]]
    unmounted: Counts
    site: BITSSite
    certificates: Callable[[], Iterable[tuple[str, float]]]
    reloads: Mapping[str, Mapping[str, int]]
    delays: Histogram
    started: float
