"""
What the server did within the last hour: a sample every few seconds.

The number of samples is fixed, so they take the same memory however long the server
runs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from txbits._counts import Counts
from txbits._workers import Worker
from txbits.admin.directories import are_told_elsewhere
from txbits.admin.figures import Figures

#: Seconds between two samples.
INTERVAL = 10.0

#: How many samples are kept: those of an hour.
MOST_SAMPLES = 360


@frozen
class Rates:
    """
    What happened within the last hour. The latest sample is the last one of each tuple.

    :ivar interval: Seconds between two samples.
    :ivar received: Bytes of Fragments a second.
    :ivar packets: Packets a second.
    :ivar refusals: Refusals a second.
    :ivar sessions: Open sessions.
    """

    interval: float = INTERVAL
    received: tuple[float, ...] = ()
    packets: tuple[float, ...] = ()
    refusals: tuple[float, ...] = ()
    sessions: tuple[float, ...] = ()

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rates:
        """Read what ``attrs.asdict`` has written, as JSON."""
        return cls(
            data["interval"],
            *(tuple(data[name]) for name in _SERIES),
        )

    @classmethod
    def merged(cls, rates: Sequence[Rates]) -> Rates:
        """The sums of several, whose latest samples are from the same time."""
        return cls(
            INTERVAL,
            *(_sums([getattr(one, name) for one in rates]) for name in _SERIES),
        )


_SERIES = ("received", "packets", "refusals", "sessions")


def _sums(series: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    """Add series that end at the same time, but may begin at different times."""
    backwards = zip_longest(*(reversed(one) for one in series), fillvalue=0.0)
    return tuple(sum(values) for values in backwards)[::-1]


@frozen
class _Totals:
    """What has happened in a directory since its start."""

    received: int = 0
    packets: int = 0
    refusals: int = 0

    @classmethod
    def of(cls, counts: Counts) -> _Totals:
        return cls(
            counts.received,
            sum(counts.packets.values()),
            sum(counts.refusals.values()),
        )


@define(eq=False)
class Sampler:
    """
    Takes the samples.

    :param figures: What they are taken of.
    :param clock: The steady clock.
    :param worker: Which of several processes this is.
    :ivar delay: By how many seconds calls of the reactor were late, on average between
        the last two samples.
    """

    _figures: Figures
    _clock: IReactorTime
    _worker: Worker = field(factory=Worker)
    delay: float = field(default=0.0, init=False)
    _samples: deque[tuple[float, float, float, float]] = field(
        factory=lambda: deque(maxlen=MOST_SAMPLES), init=False
    )
    _before: dict[Counts, _Totals] = field(factory=dict, init=False)
    _delayed: tuple[int, float] = field(default=(0, 0.0), init=False)
    _taken: float = field(default=0.0, init=False)
    _loop: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._take)
        self._loop.clock = self._clock

    def start(self) -> Deferred[LoopingCall]:
        """
        Begin to take samples.

        :returns: A Deferred that fires with the loop when :meth:`stop` was called.
        """
        self._taken = self._clock.seconds()
        self._before = self._totals()
        return self._loop.start(INTERVAL, now=False)

    def stop(self) -> None:
        """Take no more."""
        if self._loop.running:
            self._loop.stop()

    def rates(self) -> Rates:
        """What happened within the last hour, by the samples."""
        columns = zip(*self._samples, strict=True)
        return Rates(INTERVAL, *(tuple(column) for column in columns))

    def _totals(self) -> dict[Counts, _Totals]:
        figures = self._figures
        known = [manager.counts for _, manager in figures.directories()]
        return {one: _Totals.of(one) for one in [figures.unmounted, *known]}

    def _take_delay(self) -> None:
        """Average the delays since the last sample."""
        delays = self._figures.delays
        count, seconds = self._delayed
        self._delayed = delays.total, delays.seconds
        if delays.total > count:
            self.delay = (delays.seconds - seconds) / (delays.total - count)

    def _take(self) -> None:
        now, totals = self._clock.seconds(), self._totals()
        seconds = max(now - self._taken, 0.001)
        # One that is new has begun with nothing; one that is gone counts no more.
        pairs = [(totals[key], self._before.get(key, _Totals())) for key in totals]
        self._samples.append(
            (
                sum(one.received - was.received for one, was in pairs) / seconds,
                sum(one.packets - was.packets for one, was in pairs) / seconds,
                sum(one.refusals - was.refusals for one, was in pairs) / seconds,
                sum(
                    one.open_sessions
                    for _, one in self._figures.directories()
                    if not are_told_elsewhere(one, self._worker)
                ),
            )
        )
        self._before, self._taken = totals, now
        self._take_delay()
