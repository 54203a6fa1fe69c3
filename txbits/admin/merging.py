"""
The metrics of several workers as those of one server.

A worker that is killed loses what it has counted. If a sum dropped because of that,
Prometheus would take it for a restart of the server, and count the values of the other
workers again. Therefore the last known values of each worker are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from attrs import define, field

from txbits._counts import Histogram
from txbits.admin.metrics import METRICS, WORKERS, Definition, Snapshot

#: A value of a metric.
_Value = float | Histogram

#: The values of one metric, by those of its labels.
_Series = dict[tuple[str, ...], _Value]


def _sum(one: _Value, other: _Value) -> _Value:
    if isinstance(one, Histogram) and isinstance(other, Histogram):
        return one.plus(other)
    assert not isinstance(one, Histogram)  # noqa: S101
    assert not isinstance(other, Histogram)  # noqa: S101
    return one + other


def _most(one: _Value, other: _Value) -> _Value:
    assert not isinstance(one, Histogram)  # noqa: S101
    assert not isinstance(other, Histogram)  # noqa: S101
    return max(one, other)


def _least(one: _Value, other: _Value) -> _Value:
    assert not isinstance(one, Histogram)  # noqa: S101
    assert not isinstance(other, Histogram)  # noqa: S101
    return min(one, other)


_MERGING: Mapping[str, Callable[[_Value, _Value], _Value]] = {
    "sum": _sum,
    "stored": _sum,
    "most": _most,
    "least": _least,
    "first": _least,
}


def _add(
    series: _Series,
    more: Iterable[tuple[tuple[str, ...], _Value]],
    merge: Callable[[_Value, _Value], _Value],
) -> None:
    """Merge values into others."""
    for labels, value in more:
        known = series.get(labels)
        series[labels] = value if known is None else merge(known, value)


@define(eq=False)
class Totals:
    """
    What the workers of a server have counted, and the state of the workers.

    Each number of a worker has one process after the other.
    """

    # Of the present processes, and of those that have ended and have no successor yet
    # that has told anything.
    _last: dict[int, Snapshot] = field(factory=dict, init=False)
    _left: dict[int, Snapshot] = field(factory=dict, init=False)
    # What all earlier processes of a worker have counted, in the order of METRICS.
    _before: dict[int, list[_Series]] = field(factory=dict, init=False)

    def note(self, worker: int, snapshot: Snapshot) -> None:
        """
        Take the metrics of a worker.

        :param snapshot: Its metrics, as its present process has counted them.
        """
        self._last[worker] = snapshot
        self._left.pop(worker, None)

    def ended(self, worker: int) -> None:
        """The present process of a worker has ended; what it has counted remains."""
        last = self._last.pop(worker, None)
        if last is None:
            return
        self._left[worker] = last
        before = self._before.setdefault(worker, [{} for _ in METRICS])
        for definition, series, values in zip(
            METRICS, before, last.values, strict=True
        ):
            if definition.is_counted:
                _add(series, values, _sum)
            elif definition.merging == "first":
                _add(series, values, _least)

    def snapshot(self, states: Mapping[str, int]) -> Snapshot:
        """
        The metrics of the whole server.

        :param states: How many workers are in which state.
        """
        known = [*self._last.values(), *self._left.values()]
        directories = frozenset[str]().union(*(one.directories for one in known))
        shared = frozenset[str]().union(*(one.shared for one in known))
        values = [
            [((state,), number) for state, number in states.items()]
            if definition is WORKERS
            else self._values(at, definition, directories, shared)
            for at, definition in enumerate(METRICS)
        ]
        return Snapshot(values, directories, shared)

    def _values(
        self,
        at: int,
        definition: Definition,
        directories: frozenset[str],
        shared: frozenset[str],
    ) -> list[tuple[tuple[str, ...], _Value]]:
        """
        The values of one metric.

        :param at: Its place in METRICS.
        :param directories: The mounts that there are. What was counted for others does
            not remain.
        :param shared: Those whose stores all workers share.
        """
        merge, together = _MERGING[definition.merging], _Series()
        for worker in {*self._last, *self._left, *self._before}:
            series = _Series()
            if (before := self._before.get(worker)) is not None:
                if definition.is_of_directories:
                    _keep_only(before[at], directories)
                series.update(before[at])
            if (last := self._last.get(worker)) is not None:
                within = _sum if definition.is_counted else merge
                _add(series, last.values[at], within)
            elif definition.merging == "stored":
                series.update(self._left[worker].values[at])
            if definition.merging == "stored":
                _add(
                    together,
                    [item for item in series.items() if item[0][0] in shared],
                    _most,
                )
                series = {
                    labels: value
                    for labels, value in series.items()
                    if labels[0] not in shared
                }
            _add(together, series.items(), merge)
        return list(together.items())


def _keep_only(series: _Series, directories: frozenset[str]) -> None:
    """Drop what was counted for directories that are no more."""
    for labels in [one for one in series if one[0] and one[0] not in directories]:
        del series[labels]
