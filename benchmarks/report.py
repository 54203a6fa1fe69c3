"""
Tables and verdicts as plain text, independent of the measurements.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Literal

from attrs import frozen


@frozen
class Goal:
    """
    A figure beside what it is to reach.

    :ivar text: What the figure is.
    :ivar value: The figure.
    :ivar sense: Whether it is to be at least or at most the limit.
    :ivar limit: The limit; ``None`` if the figure is only for information.
    """

    text: str
    value: float
    sense: Literal["at least", "at most"] = "at least"
    limit: float | None = None

    @property
    def verdict(self) -> str:
        """``pass``, ``FAIL``, or nothing where there is no limit."""
        if self.limit is None:
            return ""
        if self.sense == "at least":
            return "pass" if self.value >= self.limit else "FAIL"
        return "pass" if self.value <= self.limit else "FAIL"


def middle(values: Sequence[float], digits: int = 2) -> str:
    """The median, and in brackets the lowest and the highest value."""
    median = statistics.median(values)
    if len(values) == 1:
        return f"{median:.{digits}f}"
    low, high = min(values), max(values)
    return f"{median:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def paired(values: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios of two sides, each of one repetition."""
    return statistics.median(
        [one / other for one, other in zip(values, others, strict=True)]
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which *percent* of all values are."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    print(f"\n{title}")
    for row in (columns, ["-" * width for width in widths], *rows):
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1])]
        cells += [cell.rjust(width) for cell, width in others]
        print("  " + "  ".join(cells).rstrip())
    print(flush=True)


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table as Markdown: the first column to the left, all others too."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def goals(title: str, reached: Sequence[Goal]) -> None:
    """Print figures beside what they are to reach."""
    rows = [
        [
            goal.text,
            f"{goal.value:.2f}",
            "" if goal.limit is None else f"{goal.sense} {goal.limit:g}",
            goal.verdict,
        ]
        for goal in reached
    ]
    if rows:
        table(title, ["", "measured", "goal", ""], rows)
