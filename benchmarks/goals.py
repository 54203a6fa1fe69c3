"""
The goals of txbits, each measured beside what it is compared with, as one table in
Markdown.

A figure is the median of the ratios of pairs of runs that follow each other; the order
of the sides alternates. The other parts of the benchmarks make the runs, and their
tables are printed as well.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import Any

from attrs import frozen

from benchmarks import downloads, limits, operating, small, throughput
from benchmarks.conditions import idle_share
from benchmarks.report import Goal, markdown, paired
from benchmarks.servers import CHECKOUT, Side, txbits

MIB = 1024 * 1024
KIB = 1024

#: With more of a CPU for others while the benchmarks wait, the machine is not quiet.
_QUIET = 0.05


@frozen
class Effort:
    """
    How much is measured.

    :ivar total: Bytes of a large upload or download.
    :ivar pairs: Pairs of runs of large uploads and downloads.
    :ivar secure_pairs: Pairs of runs of uploads over TLS.
    :ivar sessions: Small uploads of a run.
    :ivar session_pairs: Pairs of runs of small uploads.
    :ivar opened: How many sessions are open, on connections of their own and without.
    :ivar watched: How many sessions are open while the metrics are read.
    """

    total: int = 1024 * MIB
    pairs: int = 4
    secure_pairs: int = 3
    sessions: int = 2000
    session_pairs: int = 5
    opened: tuple[int, int] = (5_000, 100_000)
    watched: int = 10_000


_QUICK = Effort(64 * MIB, 1, 1, 200, 1, (50, 200), 200)


@frozen
class Work:
    """
    One line of the table.

    :ivar text: What is done, and what it is compared with.
    :ivar figures: The figures beside their goals.
    :ivar missing: Why there are none.
    """

    text: str
    figures: Sequence[Goal] = ()
    missing: str = ""

    def row(self) -> list[str]:
        """The cells of the line."""
        if not self.figures:
            return [self.text, self.missing, "-", "-"]
        return [
            self.text,
            "; ".join(f"{goal.text} {goal.value:.2f}" for goal in self.figures),
            "; ".join(
                "-" if goal.limit is None else f"{goal.text} {goal.sense} {goal.limit}"
                for goal in self.figures
            ),
            "; ".join(goal.verdict or "-" for goal in self.figures),
        ]


@frozen
class Measuring:
    """
    Measures the lines.

    :param sides: All servers that can be run here, by name.
    :param directory: Where the folders of the runs are made.
    :param template: The command that starts txbits.
    :param options: More options of it.
    :param effort: How much to measure.
    """

    sides: Mapping[str, Side]
    directory: Path
    template: str
    options: list[str]
    effort: Effort

    def works(self) -> Iterator[Work]:
        """Measure line after line."""
        if "nginx" in self.sides:
            yield from self._uploads()
            yield from self._secure_uploads()
            yield from self._downloads()
        else:
            yield Work("large uploads and downloads", missing="without nginx")
        yield from self._relay()
        yield from self._sessions()
        yield from self._memory()
        yield from self._operating()

    def _uploads(self) -> Iterator[Work]:
        sides = [self.sides[name] for name in ("txbits", "txbits-never", "nginx")]
        for count, each in ((1, self.effort.total), (8, self.effort.total // 4)):
            sizes = throughput.Sizes(count * each)
            with self._folder(f"uploads-{count}") as folder:
                results = throughput.measure(
                    sides,
                    folder,
                    connections=[count],
                    repetitions=self.effort.pairs,
                    sizes=sizes,
                )
            runs = {side.name: results[count, side.name] for side in sides}
            what = f"{count} x {each // MIB} MiB"
            for side, text, rate, cost in (
                ("txbits", "default fsync", 0.9, 1.15),
                ("txbits-never", "`never`", 1.0, 1.0),
            ):
                yield Work(
                    f"{what}, {text}, with Close, beside nginx without fsync",
                    _rate_and_cost(
                        runs[side],
                        runs["nginx"],
                        rate,
                        cost,
                        seconds=attrgetter("whole_seconds"),
                        cpu=attrgetter("whole_cpu"),
                    ),
                )
            yield Work(
                f"{what}, default fsync, until the last byte is acknowledged",
                _rate_and_cost(runs["txbits"], runs["nginx"]),
            )
            yield Work(
                f"limit of Linux: {what}, `never`, the system calls alone, beside all "
                "of nginx",
                [
                    Goal(
                        "CPU",
                        paired(
                            [run.system_cpu for run in runs["txbits-never"]],
                            [run.whole_cpu for run in runs["nginx"]],
                        ),
                    )
                ],
            )
            if count == 1:
                yield self._disk(each, runs["nginx"])

    def _disk(self, size: int, nginx: Sequence[throughput.Transfer]) -> Work:
        """What the disk allows where bytes are to be safe."""
        text = (
            f"limit of this disk: {size // MIB} MiB written straight to it and synced, "
            "beside nginx without fsync"
        )
        try:
            took = [limits.disk_seconds(self.directory, size) for _ in nginx]
        except OSError as error:
            return Work(text, missing=f"no direct access: {error.strerror}")
        speed = paired([run.seconds for run in nginx], took)
        return Work(text, [Goal("speed", speed)])

    def _secure_uploads(self) -> Iterator[Work]:
        sides = [self.sides[name] for name in ("txbits-tls", "nginx-tls")]
        sizes = throughput.Sizes(self.effort.total)
        with self._folder("secure-uploads") as folder:
            results = throughput.measure(
                sides,
                folder,
                connections=[1],
                repetitions=self.effort.secure_pairs,
                sizes=sizes,
            )
        yield Work(
            f"{sizes.total // MIB} MiB over TLS, until the last byte is acknowledged, "
            "beside nginx",
            _rate_and_cost(
                results[1, "txbits-tls"], results[1, "nginx-tls"], 0.75, 1.6
            ),
        )

    def _relay(self) -> Iterator[Work]:
        text = "Fragments that all reach the other of two workers, beside the right one"
        if "relayed" not in self.sides:
            yield Work(text, missing="this txbits has no --workers")
            return
        sides = [self.sides[name] for name in ("relayed", "direct")]
        with self._folder("relay") as folder:
            results = throughput.measure(
                sides,
                folder,
                connections=[1],
                repetitions=self.effort.pairs,
                sizes=throughput.Sizes(self.effort.total),
                part="h",
            )
        yield Work(
            text,
            _rate_and_cost(results[1, "relayed"], results[1, "direct"], 0.7),
        )

    def _downloads(self) -> Iterator[Work]:
        options = [*self.options, "--allow-downloads"]
        plain = [txbits(self.template, options), self.sides["nginx"]]
        secure = [
            txbits(self.template, options, is_secure=True),
            self.sides["nginx-tls"],
        ]
        what = f"download of {self.effort.total // MIB} MiB"
        for sides, text, pairs, asked in (
            (plain, "beside nginx with sendfile off", self.effort.pairs, (0.9, 1.3)),
            (secure, "over TLS, beside nginx", self.effort.secure_pairs, (None, None)),
        ):
            with self._folder(f"downloads-{sides[0].name}") as folder:
                results = downloads.measure(
                    sides,
                    folder,
                    connections=[1, 8],
                    repetitions=pairs,
                    total=self.effort.total,
                )
            for count in (1, 8):
                ours, theirs = (results[count, side.name] for side in sides)
                on = f"{count} connection{'s' if count > 1 else ''}"
                yield Work(
                    f"{what} on {on}, {text}",
                    _rate_and_cost(ours, theirs, *asked),
                )

    def _sessions(self) -> Iterator[Work]:
        names = [
            "txbits",
            "buffered",
            "buffered-crash",
            "txbits-never",
            "txbits-2",
            "txbits-2-never",
        ]
        with self._folder("sessions") as folder:
            results = small.measure_sessions(
                [self.sides[name] for name in names if name in self.sides],
                folder,
                connections=32,
                sessions=self.effort.sessions,
                repetitions=self.effort.session_pairs,
            )
        ours = results["txbits"]
        (rate, cost) = _rate_and_cost(ours, results["buffered"], None, 1.1)
        yield Work(
            "tiny uploads, one process, default fsync, beside the naive server",
            [cost, rate],
        )
        yield Work(
            "limit of durable sessions: tiny uploads, the naive server with their "
            "system calls, beside itself",
            _rate_and_cost(results["buffered-crash"], results["buffered"]),
        )
        for two, one, text, limit in (
            ("txbits-2", "txbits", "default fsync", 1.35),
            ("txbits-2-never", "txbits-never", "`never`", 1.8),
        ):
            what = f"tiny uploads, 2 workers beside 1, {text}"
            if two not in results:
                yield Work(what, missing="this txbits has no --workers")
                continue
            yield Work(
                what,
                _rate_and_cost(results[two], results[one], limit),
            )
        for name, text in (("txbits", "default fsync"), ("txbits-never", "`never`")):
            with self._folder(f"apart-{name}") as folder:
                pairs = limits.measure_apart(
                    self.sides[name],
                    folder,
                    connections=32,
                    sessions=self.effort.sessions,
                    repetitions=self.effort.session_pairs,
                )
            yield Work(
                "limit of these cores: tiny uploads, 2 servers that share nothing "
                f"beside 1, {text}",
                _rate_and_cost(
                    [pair.together for pair in pairs], [pair.alone for pair in pairs]
                ),
            )

    def _memory(self) -> Iterator[Work]:
        few, many = self.effort.opened
        small.raise_open_files(few + 1000)
        side = txbits(self.template, [*self.options, "--session-limit", "0"])
        for count, connected, limit in ((few, True, 2.8), (many, False, 1.25)):
            with self._folder(f"open-{count}") as folder:
                size = small.session_bytes(
                    side, folder / "run", count, connected=connected
                )
            how = "on connections of their own" if connected else "without connections"
            yield Work(
                f"memory of a session, {count} open, {how}",
                [Goal("KiB", size / KIB, "at most", limit)],
            )

    def _operating(self) -> Iterator[Work]:
        with self._folder("operating") as folder:
            cost, reading = operating.measure(
                folder,
                template=self.template,
                options=self.options,
                connections=32,
                repetitions=self.effort.session_pairs,
                sessions=self.effort.watched,
            )
        yield Work("tiny uploads, JSON log and operator's listener, beside none", cost)
        yield Work(f"reading the metrics of {self.effort.watched} sessions", reading)

    @contextmanager
    def _folder(self, name: str) -> Iterator[Path]:
        """
        A new folder, and how long its runs took.

        It is removed with the others: without a journal, ext4 passes over the inodes of
        files that were removed in the last half minute, one by one, whenever a file is
        made.
        """
        folder = self.directory / name
        folder.mkdir()
        start = monotonic()
        yield folder
        print(f"{name}: {monotonic() - start:.0f} s", flush=True)


def _rate_and_cost(
    ours: Sequence[Any],
    theirs: Sequence[Any],
    rate: float | None = None,
    cost: float | None = None,
    *,
    seconds: Callable[[Any], float] = attrgetter("seconds"),
    cpu: Callable[[Any], float] = attrgetter("cpu"),
) -> list[Goal]:
    """
    The ratios of speed and of CPU time, with their goals.

    :param rate: The goal of the speed.
    :param cost: The goal of the CPU time.
    :param seconds: How long a run took.
    :param cpu: How many CPU seconds.
    """
    return [
        Goal(
            "speed",
            # The more seconds, the less speed.
            paired([seconds(run) for run in theirs], [seconds(run) for run in ours]),
            "at least",
            rate,
        ),
        Goal(
            "CPU",
            paired([cpu(run) for run in ours], [cpu(run) for run in theirs]),
            "at most",
            cost,
        ),
    ]


def measure(
    sides: Mapping[str, Side],
    directory: Path,
    *,
    template: str,
    options: list[str],
    is_quick: bool,
) -> None:
    """
    Measure everything, and print the table.

    :param sides: All servers that can be run here, by name.
    :param directory: Where the folders of the runs are made.
    :param template: The command that starts txbits.
    :param options: More options of it.
    :param is_quick: Whether this is a smoke test.
    """
    effort = _QUICK if is_quick else Effort()
    begun = datetime.now(UTC)
    others = [idle_share()]
    measuring = Measuring(sides, directory, template, options, effort)
    works = list(measuring.works())
    others.append(idle_share())
    print(
        f"\n{begun:%Y-%m-%d %H:%M} UTC, commit {_commit()}, {_machine()}. "
        f"{_quietness(max(others))}\n"
    )
    print(
        markdown(
            ["work", "measured", "goal", ""],
            [work.row() for work in works],
        ),
        flush=True,
    )


def _commit() -> str:
    """Which version of the source this is."""
    shown = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=8"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
    )
    return shown.stdout.strip() or "unknown"


def _machine() -> str:
    models, memory = set(), 0.0
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            models.add(value.strip())
    count = Path("/proc/cpuinfo").read_text().count("processor\t:")
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemTotal:"):
            memory = int(line.split()[1]) / KIB / KIB
    return (
        f"{count} x {' and '.join(sorted(models)) or platform.machine()}, "
        f"{memory:.0f} GiB, Linux {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _quietness(others: float) -> str:
    told = f"others used {others:.0%} of a CPU before or after the runs"
    if others <= _QUIET:
        return f"The machine was quiet: {told}."
    return f"The machine was NOT quiet, so do not trust the figures: {told}."
