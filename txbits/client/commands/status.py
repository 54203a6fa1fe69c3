"""
``txbits status``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from txbits.client._display import percent
from txbits.client._journals import Found, forget, look_at, look_into
from txbits.client.commands._command import Command, Context, Status, UsageError
from txbits.client.commands._options import add_state_option, state_path
from txbits.client.source import printable

_COLUMNS = ["file", "to", "sent", "state", "session", "updated"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_state_option(parser)
    add = parser.add_argument
    add("--clear", action="store_true", help="forget the uploads that are done")
    add("--json", action="store_true", help="one JSON object per upload")


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    place = state_path(context, options)
    try:
        found: list[Found] = await context.run(_look, place)
        if options.clear:
            done = [each for each in found if _state(each) == "done"]
            forgotten = await context.run(forget, done)
            found = [each for each in found if each not in done]
            if not options.json:
                context.say(f"uploads that are done, now forgotten: {forgotten:,}")
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}") from error
    if options.json:
        for each in found:
            _say_json(context, each)
    elif found:
        _say_table(context, [_row(each) for each in found])
    else:
        context.say("no uploads in progress or interrupted")
    return Status.DONE


def _look(place: Path) -> list[Found]:
    return list(look_into(place)) if place.is_dir() else look_at(place)


def _state(found: Found) -> str:
    if found.entry is None:
        return "damaged"
    if found.running:
        return "running"
    return "done" if found.entry.done else "interrupted"


def _row(found: Found) -> list[str]:
    entry = found.entry
    if entry is None:
        return [str(found.path), "", "", _state(found), "", ""]
    session = entry.position.session_id
    return [
        printable(entry.file.path),
        entry.url,
        f"{percent(entry.position.offset, entry.file.length)} %",
        _state(found),
        "" if session is None else printable(session),
        time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.updated)),
    ]


def _say_json(context: Context, found: Found) -> None:
    entry = found.entry
    if entry is None:
        context.say_json(journal=str(found.path), state=_state(found))
        return
    context.say_json(
        journal=str(found.path),
        state=_state(found),
        file=entry.file.path,
        url=entry.url,
        acknowledged=entry.position.offset,
        total=entry.file.length,
        session=entry.position.session_id,
        began=entry.began,
        updated=entry.updated,
    )


def _say_table(context: Context, rows: Sequence[list[str]]) -> None:
    # A terminal wraps lines so that what is copied from it is still one line.
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in [_COLUMNS, *rows]:
        cells = [f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)]
        context.say("  ".join(cells).rstrip())


COMMAND = Command(
    name="status",
    help="list uploads in progress or interrupted",
    description="List the uploads that have a journal: those in progress, those that "
    "can be resumed, and files of unfinished runs that have arrived. No server is "
    "contacted.",
    arguments=_arguments,
    perform=_perform,
    statuses=(),
)
