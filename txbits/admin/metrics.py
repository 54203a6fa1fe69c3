"""
The metrics, for Prometheus.

They are read on the reactor's thread in one go, so that all are from the same moment:
``prometheus_client`` has a resource that would do that in another thread, while the
figures change. Writing them takes longer, with some turns for the reactor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import accumulate
from typing import Any, Literal

from attrs import define, field, frozen
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from txbits._counts import BOUNDS, Counts, Histogram
from txbits._deferreds import Shared
from txbits.admin.figures import Figures
from txbits.admin.pages import Page
from txbits.interfaces import ICleaning, ICounting, IShared, RequestCount
from txbits.protocol.refusals import REFUSALS
from txbits.sessions import SessionManager

#: The format that every Prometheus reads, and that ``generate_latest`` writes.
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

#: Seconds that metrics are written before the reactor gets a turn.
_LONGEST_TURN = 0.005

_BUCKETS = (*(str(bound) for bound in BOUNDS), "+Inf")


#: The values of a metric, with those of its labels.
Values = Iterable[tuple[tuple[str, ...], float | Histogram]]

#: How values of several workers become one: their ``"sum"``; ``"stored"``, the same,
#: but on a store that they share the most, and what a worker that has ended was last
#: known to have counts until its successor tells; ``"most"``; ``"least"``; ``"first"``,
#: the least that any has ever told.
Merging = Literal["sum", "stored", "most", "least", "first"]


@frozen
class Snapshot:
    """
    The metrics at one moment.

    :ivar values: The values of each, in the order of :data:`METRICS`.
    :ivar directories: The mounts of the virtual directories.
    :ivar shared: Those whose stores other processes use as well.
    """

    values: Sequence[Values]
    directories: frozenset[str]
    shared: frozenset[str]


@frozen
class Definition:
    """
    A metric.

    :ivar name: Its name.
    :ivar kind: Its type. The name of a counter ends in ``_total``.
    :ivar labels: The names of its labels.
    :ivar help: What it is.
    :ivar read: Reads its values.
    :ivar merging: How values of several workers become one.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    read: Callable[[Figures], Values]
    merging: Merging = "sum"

    @property
    def is_counted(self) -> bool:
        """Whether values only grow while a process lives."""
        return self.kind != "gauge"

    @property
    def is_of_directories(self) -> bool:
        """Whether the first label is the mount of a virtual directory."""
        return self.labels[:1] == _DIRECTORY

    def snapshot(self, figures: Figures) -> Values:
        """Read its values, which change no more."""
        return [
            (labels, value.copy() if isinstance(value, Histogram) else value)
            for labels, value in self.read(figures)
        ]

    def family(self, values: Values) -> Metric:
        """Make what ``prometheus_client`` writes."""
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(self.name, self.help, labels=self.labels)
            for labels, value in values:
                assert isinstance(value, Histogram)  # noqa: S101
                counts = map(float, accumulate(value.counts))
                buckets = list(zip(_BUCKETS, counts, strict=True))
                histogram.add_metric(labels, buckets, value.seconds)
            return histogram
        family = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        simple = family(self.name, self.help, labels=self.labels)
        for labels, value in values:
            assert not isinstance(value, Histogram)  # noqa: S101
            simple.add_metric(labels, value)
        return simple


def _each(
    read: Callable[[SessionManager], float | Histogram],
) -> Callable[[Figures], Values]:
    """One value of each virtual directory."""
    return lambda figures: [
        ((mount,), read(manager)) for mount, manager in figures.directories()
    ]


def _counted(
    read: Callable[[Counts], Mapping[str, int]], names: Iterable[str]
) -> Callable[[Figures], Values]:
    """
    Counts of each virtual directory, by one label.

    :param names: Values of the label that are shown from the start: Prometheus takes no
        notice of the first event of a series that begins with it.
    """
    zeros = dict.fromkeys(names, 0)
    return lambda figures: [
        *(((_NO_MOUNT, key), n) for key, n in read(figures.unmounted).items()),
        *(
            ((mount, key), count)
            for mount, manager in figures.directories()
            for key, count in {**zeros, **read(manager.counts)}.items()
        ),
    ]


def _counted_twice(
    read: Callable[[Counts], Mapping[tuple[str, Any], int]],
    names: Iterable[tuple[str, Any]] = (),
) -> Callable[[Figures], Values]:
    """
    Counts of each virtual directory, by two labels. A status of 0 is none.

    :param names: Values of the labels that are shown from the start.
    """
    zeros = dict.fromkeys(names, 0)
    return lambda figures: [
        ((mount, key, str(other or "none")), count)
        for mount, counts in (
            (_NO_MOUNT, read(figures.unmounted)),
            *(
                (mount, {**zeros, **read(manager.counts)})
                for mount, manager in figures.directories()
            ),
        )
        for (key, other), count in counts.items()
    ]


def _requests(read: Callable[[RequestCount], float]) -> Callable[[Figures], Values]:
    """Requests of each virtual directory that has a store which is asked by some."""
    return lambda figures: [
        ((mount, *key), read(count))
        for mount, manager in figures.directories()
        if ICounting.providedBy(manager.backend)
        for key, count in ICounting(manager.backend).request_counts().items()
    ]


def _removed(figures: Figures) -> Values:
    """What the clean-up has removed of each store that counts it."""
    return [
        ((mount, kind), count)
        for mount, manager in figures.directories()
        if ICleaning.providedBy(manager.backend)
        for kind, count in ICleaning(manager.backend).removed_counts().items()
    ]


_DIRECTORY = ("directory",)

#: The label of requests that belong to no virtual directory.
_NO_MOUNT = ""

#: How most sessions end: outcomes and reasons.
_ENDINGS = (
    *(("published", "close"), ("handed-over", "close"), ("discarded", "close")),
    *(("cancelled", "cancel"), ("cancelled", "operator"), ("released", "timed-out")),
    *(("released", "disabled"), ("released", "unfinished")),
    *(("lost", "close"), ("lost", "removed")),
)
_RESULTS = (
    *("accepted", "refused", "timed-out", "unreachable", "unusable", "given-up"),
    "failed",
)
#: The states of a worker.
STATES = ("running", "silent", "starting", "ended")
_OPERATIONS = ("admit", "create", "store", "close", "release", "clean up")

#: Those that a server with several workers tells itself.
WORKERS = Definition(
    "txbits_workers", "gauge", ("state",),
    "Worker processes: running, silent if one that runs has not answered within five "
    "seconds, starting, or ended if its replacement has not started yet.",
    lambda figures: [((state,), float(state == "running")) for state in STATES],
)  # fmt: skip

#: All metrics, in the order of the reference.
METRICS = (
    Definition(
        "txbits_packets_total", "counter", ("directory", "type", "status"),
        "Packets that were answered; the status is none if nobody was left to answer, "
        "and the type is other for requests that are no packets.",
        _counted_twice(lambda counts: counts.packets),
    ),
    Definition(
        "txbits_refusals_total", "counter", ("directory", "refusal"),
        "Those that were refused, by name in the table of errors.",
        _counted(lambda counts: counts.refusals, [one.name for one in REFUSALS]),
    ),
    Definition(
        "txbits_downloads_total", "counter", ("directory", "method", "status"),
        "Requests to read files and replies.",
        _counted_twice(lambda counts: counts.downloads),
    ),
    Definition(
        "txbits_authentications_total", "counter", ("directory", "scheme", "result"),
        "Credentials: accepted, rejected, uncheckable, or incomplete for a step of a "
        "login; the scheme is none if there were none, or no scheme takes them.",
        _counted_twice(lambda counts: counts.authentications),
    ),
    Definition(
        "txbits_received_bytes_total", "counter", _DIRECTORY,
        "Bytes of fragments that passed all checks.",
        _each(lambda manager: manager.counts.received),
    ),
    Definition(
        "txbits_published_bytes_total", "counter", _DIRECTORY,
        "Bytes of published files.",
        _each(lambda manager: manager.counts.published),
    ),
    Definition(
        "txbits_discarded_bytes_total", "counter", _DIRECTORY,
        "Bytes that were discarded with their sessions.",
        _each(lambda manager: manager.counts.discarded),
    ),
    Definition(
        "txbits_served_bytes_total", "counter", _DIRECTORY,
        "Bytes of files and replies that were handed to clients.",
        _each(lambda manager: manager.counts.served),
    ),
    Definition(
        "txbits_sessions_created_total", "counter", _DIRECTORY,
        "Sessions that were created.",
        _each(lambda manager: manager.counts.created),
    ),
    Definition(
        "txbits_sessions_ended_total", "counter", ("directory", "outcome", "reason"),
        "Sessions that have ended: published, handed-over, discarded, cancelled, "
        "released or lost, as in the audit trail. The reason is a client's close or "
        "cancel, operator, timed-out, disabled, unfinished if a release that had begun "
        "earlier was completed, or removed if something else emptied the store.",
        _counted_twice(lambda counts: counts.ended, _ENDINGS),
    ),
    Definition(
        "txbits_sessions", "gauge", _DIRECTORY,
        "Open sessions; on S3, those of all nodes when they were last counted.",
        _each(lambda manager: manager.open_sessions),
        "stored",
    ),
    Definition(
        "txbits_staged_bytes", "gauge", _DIRECTORY,
        "Length of the files of open sessions, as the quotas count them.",
        _each(lambda manager: manager.staged_bytes),
        "stored",
    ),
    Definition(
        "txbits_oldest_session_idle_seconds", "gauge", _DIRECTORY,
        "Time since the oldest progress of an open session; 0 without sessions.",
        _each(lambda manager: manager.idle_for()),
        "most",
    ),
    Definition(
        "txbits_fragment_ack_seconds", "histogram", _DIRECTORY,
        "Time from the last byte of a fragment until it is stored, and, for the last "
        "one, until a server application has answered.",
        _each(lambda manager: manager.counts.acks),
    ),
    Definition(
        "txbits_close_seconds", "histogram", _DIRECTORY,
        "Time that a successful Close-Session took.",
        _each(lambda manager: manager.counts.closes),
    ),
    Definition(
        "txbits_notifications_total", "counter", ("directory", "result"),
        "Notifications of the server application: accepted, refused, timed-out, "
        "unreachable, unusable, given-up, or failed for another reason.",
        _counted(lambda counts: counts.notifications, _RESULTS),
    ),
    Definition(
        "txbits_notification_seconds", "histogram", _DIRECTORY,
        "Time that a notification took, whatever its result.",
        _each(lambda manager: manager.counts.asking),
    ),
    Definition(
        "txbits_backend_errors_total", "counter", ("directory", "operation"),
        "Failures of the backend, but for those that concern one upload only: admit, "
        "create, store, close, release, clean up.",
        _counted(lambda counts: counts.errors, _OPERATIONS),
    ),
    Definition(
        "txbits_backend_failing", "gauge", _DIRECTORY,
        "1 if the backend has failed within the last minute and not succeeded since.",
        _each(lambda manager: float(bool(manager.troubles()))),
        "most",
    ),
    Definition(
        "txbits_store_requests_total", "counter", ("directory", "call", "status"),
        "Requests to S3, each attempt; the status is none without a response.",
        _requests(lambda count: count.requests),
    ),
    Definition(
        "txbits_store_request_seconds_total", "counter",
        ("directory", "call", "status"),
        "Time that these took in all.",
        _requests(lambda count: count.seconds),
    ),
    Definition(
        "txbits_cleanups_total", "counter", ("directory", "result"),
        "Rounds of the clean-up: succeeded, failed, or interrupted by the end of the "
        "server.",
        _counted(
            lambda counts: counts.cleanups, ("succeeded", "failed", "interrupted")
        ),
    ),
    Definition(
        "txbits_cleanup_seconds", "histogram", _DIRECTORY,
        "Time that a round of the clean-up took.",
        _each(lambda manager: manager.counts.cleaning),
    ),
    Definition(
        "txbits_cleanup_removed_total", "counter", ("directory", "kind"),
        "What these have removed besides sessions: close for closes that were "
        "forgotten, claim for claims of upload links, stray for files or objects of no "
        "session, upload for abandoned multipart uploads to S3.",
        _removed,
    ),
    Definition(
        "txbits_connections", "gauge", ("state",),
        "Connections of the listeners of uploads, by state.",
        lambda figures: [
            ((state,), count) for state, count in figures.site.connections().items()
        ],
    ),
    Definition(
        "txbits_connections_made_total", "counter", (),
        "Connections that were made.",
        lambda figures: [((), figures.site.made)],
    ),
    Definition(
        "txbits_connections_turned_away_total", "counter", (),
        "Connections that were closed at once because of max-connections or "
        "max-connections-per-peer.",
        lambda figures: [((), figures.site.turned_away)],
    ),
    Definition(
        "txbits_reloads_total", "counter", ("what", "result"),
        "Reloads of settings and certificates: succeeded or failed.",
        lambda figures: [
            ((what, result), count)
            for what, counts in figures.reloads.items()
            for result, count in {"succeeded": 0, "failed": 0, **counts}.items()
        ],
        "most",
    ),
    Definition(
        "txbits_certificate_expiry_timestamp_seconds", "gauge", ("address",),
        "When the certificate of an https: listener expires, in seconds since the "
        "epoch.",
        lambda figures: [
            ((address,), expires) for address, expires in figures.certificates()
        ],
        "least",
    ),
    Definition(
        "txbits_event_loop_delay_seconds", "histogram", (),
        "By how much a call of the reactor was late, once a second.",
        lambda figures: [((), figures.delays)],
    ),
    WORKERS,
    Definition(
        "txbits_start_time_seconds", "gauge", (),
        "When the server was started, in seconds since the epoch.",
        lambda figures: [((), figures.started)],
        "first",
    ),
    Definition(
        "txbits_info", "gauge", ("version",),
        "1; the label is the version of txbits.",
        lambda figures: [((version("txbits"),), 1)],
        "most",
    ),
)  # fmt: skip


def snapshot(figures: Figures) -> Snapshot:
    """Read the values of all metrics, which change no more."""
    directories = list(figures.directories())
    return Snapshot(
        [one.snapshot(figures) for one in METRICS],
        frozenset(mount for mount, _ in directories),
        frozenset(
            mount
            for mount, manager in directories
            if IShared.providedBy(manager.backend)
        ),
    )


@frozen
class _Single(Collector):
    """What ``prometheus_client`` collects: one metric."""

    family: Metric

    def collect(self) -> Iterable[Metric]:
        return [self.family]


@define(eq=False)
class MetricsPage:
    """
    Makes the page with the metrics.

    :param figures: Where they are read.
    :param clock: The steady clock.
    :param everywhere: Reads those of all workers. ``None`` if this process is alone.
    """

    _figures: Figures
    _clock: IReactorTime
    _everywhere: Callable[[], Deferred[Snapshot]] | None = None
    _making: Shared[Page] = field(factory=Shared, init=False)

    def __call__(self) -> Deferred[Page]:
        """
        Make the page, or wait for the one that is being made.

        :returns: A Deferred that fires with it.
        """
        return self._making.run(self._make)

    async def _make(self) -> Page:
        clock = self._clock
        if self._everywhere is None:
            now = snapshot(self._figures)
        else:
            now = await self._everywhere()
        pieces = []
        turn_ends = clock.seconds() + _LONGEST_TURN
        for definition, read in zip(METRICS, now.values, strict=True):
            # The registry is only asked for what it collects.
            single: Any = _Single(definition.family(read))
            pieces.append(generate_latest(single))
            if clock.seconds() > turn_ends:
                await deferLater(clock, 0)
                turn_ends = clock.seconds() + _LONGEST_TURN
        return Page(b"".join(pieces), CONTENT_TYPE)
