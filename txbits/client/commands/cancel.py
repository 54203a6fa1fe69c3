"""
``txbits cancel URL SESSION``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from uuid import UUID

from attrs import frozen

from txbits.client._journals import (
    look_at,
    look_into,
)
from txbits.client._url import to_wire
from txbits.client.commands import _types
from txbits.client.commands._command import Command, Context, Status, UsageError
from txbits.client.commands._options import (
    add_connection_options,
    add_state_option,
    connection_settings,
    state_path,
)
from txbits.client.commands._packets import ask
from txbits.client.journal import (
    Journal,
    JournalBusy,
)
from txbits.client.source import FileIdentity
from txbits.protocol.packets import CancelSession
from txbits.protocol.refusals import HResult


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", type=_types.url, help="where the file was to appear")
    add("session", metavar="SESSION", type=_types.session, help="the session's id")
    add(
        "--retry-for",
        metavar="DURATION",
        type=_types.duration,
        default=60.0,
        help="how long to try again: seconds, or 15m, 12h (default: 60)",
    )
    add_state_option(parser)
    add_connection_options(parser)
    add("--json", action="store_true", help="say it as a line of JSON")


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    settings = connection_settings(context, options, options.url)
    exchange = context.exchange(context.reactor, to_wire(options.url), settings)
    await ask(
        context.reactor,
        exchange,
        CancelSession(options.session),
        options.retry_for,
        good=HResult.BG_E_SESSION_NOT_FOUND,
    )
    await _forget(context, options)
    session = str(options.session).upper()
    if options.json:
        context.say_json(event="cancelled", url=options.url, session=session)
    else:
        context.say(f"nothing is left of session {session}")
    return Status.DONE


async def _forget(context: Context, options: argparse.Namespace) -> None:
    """Remove the journal of the session, if there is one here."""
    try:
        place = state_path(context, options)
    except UsageError:
        return
    try:
        found = await context.run(_find, place, options.session)
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror or error}") from error
    for entry in found:
        try:
            journal = await Journal.open(
                entry.path, entry.url, entry.file, context.now, context.run
            )
        except JournalBusy:
            # Whoever is at it will see that its session is gone.
            continue
        await journal.remove()


@frozen
class _Journal:
    path: Path
    url: str
    file: FileIdentity


def _find(place: Path, session: UUID) -> list[_Journal]:
    looked = look_into(place) if place.is_dir() else [look_at(place)]
    return [
        _Journal(found.path, found.entry.url, found.entry.file)
        for found in looked
        if found is not None
        and found.entry is not None
        and found.entry.position.session_id == session
    ]


COMMAND = Command(
    name="cancel",
    help="release an upload on the server",
    description="Have the server release all that it holds of an upload. A session "
    "that it does not know is released already.",
    arguments=_arguments,
    perform=_perform,
)
