"""
What the operator's page shows, except for the sessions, at one moment.

A :class:`Glance` consists of plain values that can be sent as JSON. Where several
processes serve uploads, each gathers one, and the page shows :func:`merged` ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import attrs
from attrs import field, frozen

from txbits._counts import Refused
from txbits._workers import Worker
from txbits.admin.directories import DirectorySessions, are_told_elsewhere
from txbits.admin.figures import Figures
from txbits.admin.health import Health
from txbits.admin.page.samples import Rates, Sampler
from txbits.admin.sessions import SessionRecord
from txbits.clocks import Wall
from txbits.sessions import SessionManager

#: Seconds for which a refusal is shown.
REFUSALS_LAST = 15 * 60.0

#: How many are shown.
MOST_REFUSALS = 25

#: How many of the busiest sessions are shown.
MOST_BUSIEST = 8


@frozen
class DirectoryState:
    """
    A virtual directory.

    :ivar mount: Where it is mounted.
    :ivar backend: The description of its backend.
    :ivar enabled: Whether it accepts uploads.
    :ivar troubles: What its backend currently fails to do, in a few words each.
    :ivar sessions: How many sessions are open.
    :ivar staged: How many bytes these stage or will stage.
    :ivar published: How many bytes were published since the start.
    :ivar errors: How often the backend has failed since the start.
    """

    mount: str
    backend: str
    enabled: bool
    troubles: tuple[str, ...]
    sessions: int
    staged: int
    published: int
    errors: int

    def merged_with(self, other: DirectoryState) -> DirectoryState:
        """The same directory, as two processes serve it."""
        return attrs.evolve(
            self,
            enabled=self.enabled and other.enabled,
            troubles=_once([*self.troubles, *other.troubles]),
            sessions=self.sessions + other.sessions,
            staged=self.staged + other.staged,
            published=self.published + other.published,
            errors=self.errors + other.errors,
        )


@frozen
class ProcessState:
    """
    A process that serves uploads.

    :ivar name: Its name.
    :ivar pid: Its number.
    :ivar started: When it was started, in seconds since the epoch.
    :ivar connections: How many connections of clients there are.
    :ivar turned_away: How many were turned away since the start.
    :ivar delay: By how many seconds calls of its reactor were recently late.
    """

    name: str
    pid: int
    started: float
    connections: int
    turned_away: int
    delay: float


@frozen
class Glance:
    """
    What is going on at one moment.

    :ivar at: The moment, in seconds since the epoch.
    :ivar obstacles: Why uploads are refused now; none if the server is ready.
    :ivar rates: What happened within the last hour.
    :ivar directories: The virtual directories.
    :ivar certificates: The addresses of ports with certificates, and when these expire,
        in seconds since the epoch.
    :ivar refusals: The last refusals, the latest first.
    :ivar busiest: The sessions in which most bytes arrive a second, the busiest first.
    :ivar processes: The processes that serve uploads.
    """

    at: float
    obstacles: tuple[str, ...]
    rates: Rates
    directories: tuple[DirectoryState, ...]
    certificates: tuple[tuple[str, float], ...]
    refusals: tuple[Refused, ...]
    busiest: tuple[SessionRecord, ...]
    processes: tuple[ProcessState, ...]

    def as_json(self) -> dict[str, Any]:
        """The values, for ``json.dumps``."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Glance:
        """Read what :meth:`as_json` has written."""
        return cls(
            data["at"],
            tuple(data["obstacles"]),
            Rates.from_json(data["rates"]),
            tuple(
                DirectoryState(**{**one, "troubles": tuple(one["troubles"])})
                for one in data["directories"]
            ),
            tuple((address, expires) for address, expires in data["certificates"]),
            tuple(Refused(**one) for one in data["refusals"]),
            tuple(SessionRecord.from_json(one) for one in data["busiest"]),
            tuple(ProcessState(**one) for one in data["processes"]),
        )


def merged(glances: Sequence[Glance]) -> Glance:
    """
    Merge what several processes of one server have gathered.

    :param glances: One of each process, at least one.
    """
    directories: dict[str, DirectoryState] = {}
    certificates: dict[str, float] = {}
    for glance in glances:
        for one in glance.directories:
            known = directories.get(one.mount)
            directories[one.mount] = one if known is None else known.merged_with(one)
        for address, expires in glance.certificates:
            certificates[address] = min(expires, certificates.get(address, expires))
    return Glance(
        max(glance.at for glance in glances),
        _once(line for glance in glances for line in glance.obstacles),
        Rates.merged([glance.rates for glance in glances]),
        tuple(directories.values()),
        tuple(certificates.items()),
        _latest(one for glance in glances for one in glance.refusals),
        _busiest(one for glance in glances for one in glance.busiest),
        tuple(one for glance in glances for one in glance.processes),
    )


def _once(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(lines))


def _latest(refusals: Iterable[Refused]) -> tuple[Refused, ...]:
    ordered = sorted(refusals, key=lambda one: one.at, reverse=True)
    return tuple(ordered[:MOST_REFUSALS])


def _busiest(records: Iterable[SessionRecord]) -> tuple[SessionRecord, ...]:
    ordered = sorted(records, key=lambda one: one.rate or 0.0, reverse=True)
    return tuple(ordered[:MOST_BUSIEST])


@frozen(eq=False)
class Gatherer:
    """
    Gathers what this process knows.

    :param figures: The figures of the server.
    :param health: Whether it can take uploads.
    :param sampler: What happened within the last hour.
    :param backends: Returns the description of the backend of each mount.
    :param wall: The wall clock.
    :param name: The name of this process.
    :param worker: Which of several processes this is.
    """

    _figures: Figures
    _health: Health
    _sampler: Sampler
    _backends: Callable[[], Mapping[str, str]]
    _wall: Wall
    _name: str
    _worker: Worker = field(factory=Worker)

    def __call__(self) -> Glance:
        """Gather what there is now."""
        figures, now = self._figures, self._wall()
        backends, directories = self._backends(), list(figures.directories())
        counts = [figures.unmounted, *(one.counts for _, one in directories)]
        return Glance(
            now,
            tuple(self._health.obstacles()),
            self._sampler.rates(),
            tuple(
                self._directory(mount, backends.get(mount, ""), manager)
                for mount, manager in directories
            ),
            tuple(figures.certificates()),
            _latest(
                refused
                for one in counts
                for refused in one.refused.since(now - REFUSALS_LAST)
            ),
            _busiest(
                record
                for mount, manager in directories
                for record in DirectorySessions(mount, manager).busiest(MOST_BUSIEST)
            ),
            (
                ProcessState(
                    self._name,
                    os.getpid(),
                    figures.started,
                    len(figures.site.channels),
                    figures.site.turned_away,
                    self._sampler.delay,
                ),
            ),
        )

    def _directory(
        self, mount: str, backend: str, manager: SessionManager
    ) -> DirectoryState:
        is_told = not are_told_elsewhere(manager, self._worker)
        return DirectoryState(
            mount,
            backend,
            not manager.is_disabled,
            tuple(manager.troubles()),
            manager.open_sessions if is_told else 0,
            manager.staged_bytes if is_told else 0,
            manager.counts.published,
            sum(manager.counts.errors.values()),
        )
