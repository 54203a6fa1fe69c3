"""
Reports for people: a table of the results, by group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from io import StringIO
from shutil import get_terminal_size

from txbits.check._model import Group, Outcome, Report, Result

#: Makes the text of a report.
Renderer = Callable[[Report, Sequence[Group]], str]

#: A table with fewer columns than this is illegible.
_NARROWEST = 100

_COLOURS = {
    Outcome.PASSED: "green",
    Outcome.FAILED: "bold red",
    Outcome.NOT_APPLICABLE: "yellow",
}


def render_plain(report: Report, groups: Sequence[Group]) -> str:
    """Make a table of plain text."""
    lines = []
    for title, results in _by_group(report, groups):
        lines += ["", title]
        for result in results:
            check = result.check
            level, section = check.level.value, check.section
            outcome = result.outcome.value
            lines.append(f"  {outcome:15}{level:8}{section:11}{check.name}")
            if result.outcome is Outcome.FAILED:
                lines.append(f"{'':17}expected: {check.expectation}")
            if result.detail:
                lines.append(f"{'':17}{result.detail}")
    return "\n".join([*lines[1:], "", *_end(report), ""])


def render_rich(
    report: Report, groups: Sequence[Group], width: int | None = None
) -> str:
    """
    Make a table with frames and colours.

    :param width: The number of columns; that of the terminal if ``None``.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    width = width or get_terminal_size().columns
    longest = max(len(result.check.name) for result in report.results)
    table = Table()
    table.add_column("check", min_width=longest)
    for heading in ("level", "MC-BUP", "outcome", ""):
        table.add_column(heading)
    for title, results in _by_group(report, groups):
        table.add_section()
        table.add_row(Text(title, "bold"))
        for result in results:
            check = result.check
            words = [result.detail]
            if result.outcome is Outcome.FAILED:
                words.insert(0, f"Expected: {check.expectation}")
            table.add_row(
                check.name,
                check.level.value,
                check.section,
                Text(result.outcome.value, _COLOURS[result.outcome]),
                # Text, so that rich does not take the server's words for markup.
                Text("\n".join(words)),
            )
    out = StringIO()
    console = Console(file=out, force_terminal=True, width=max(width, _NARROWEST))
    console.print(table)
    for line in _end(report):
        console.print(Text(line))
    return out.getvalue()


def renderer_for(
    is_terminal: bool, columns: int | None = None, has_rich: bool | None = None
) -> Renderer:
    """
    Choose how to print a report.

    :param columns: The width of the terminal; determined if ``None``.
    :param has_rich: Whether rich is installed; determined if ``None``.
    """
    if columns is None:
        columns = get_terminal_size().columns
    if has_rich is None:
        has_rich = find_spec("rich") is not None
    is_fit = is_terminal and has_rich and columns >= _NARROWEST
    return render_rich if is_fit else render_plain


def _by_group(
    report: Report, groups: Iterable[Group]
) -> Iterator[tuple[str, list[Result]]]:
    for group in groups:
        members = set(group)
        results = [result for result in report.results if result.check in members]
        if results:
            yield group.title, results


def _end(report: Report) -> list[str]:
    counts = [f"{report.count(outcome)} {outcome.value}" for outcome in Outcome]
    lines = [", ".join(counts)]
    if report.left_behind:
        lines += ["left behind:", *(f"  {line}" for line in report.left_behind)]
    return lines
