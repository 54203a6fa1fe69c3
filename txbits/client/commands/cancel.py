"""
``txbits cancel URL SESSION``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from txbits._units import DURATIONS
from txbits.client._journals import Found, forget, look_at, look_into
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
from txbits.client.source import printable
from txbits.protocol._fields import LocalProtocolError, parse_guid
from txbits.protocol.packets import CancelSession
from txbits.protocol.refusals import HResult
from txbits.protocol.urls import without_link


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", type=_types.url, help="destination of the upload")
    add(
        "session",
        metavar="SESSION",
        type=_types.session,
        help="session ID, as txbits status shows it",
    )
    add(
        "--retry-for",
        metavar="DURATION",
        type=_types.duration,
        default=60.0,
        help=f"how long to retry: {DURATIONS} (default: 60)",
    )
    add_state_option(parser)
    add_connection_options(parser)
    add("--json", action="store_true", help="print one JSON object")


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    settings = connection_settings(context, options, options.url)
    trouble: UsageError | None = None
    journals: list[Found] = []
    try:
        journals = await _look(context, options)
    except UsageError as error:
        # The session on the server is cancelled nevertheless.
        trouble = error
    session = options.session
    if journals:
        # A GUID that was copied from a log may lack its braces.
        session = _session_of(journals[0])
    exchange = context.exchange(context.reactor, to_wire(options.url), settings)
    await ask(
        context.reactor,
        exchange,
        CancelSession(session),
        options.retry_for,
        good=HResult.BG_E_SESSION_NOT_FOUND,
    )
    if trouble is not None:
        raise trouble
    await context.run(forget, journals)
    if options.json:
        context.say_json(
            event="cancelled", url=without_link(options.url), session=session
        )
    else:
        context.say(f"cancelled session {printable(session)}")
    return Status.DONE


async def _look(context: Context, options: argparse.Namespace) -> list[Found]:
    """Find the journals of the session."""
    try:
        place = state_path(context, options)
    except UsageError:
        return []
    try:
        found: list[Found] = await context.run(_find, place, options.session)
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror or error}") from error
    return found


def _find(place: Path, session: str) -> list[Found]:
    looked = look_into(place) if place.is_dir() else look_at(place)
    found = [each for each in looked if _is_same(_session_of(each), session)]
    # An exact match comes first.
    return sorted(found, key=lambda each: _session_of(each) != session)


def _session_of(found: Found) -> str:
    session = None if found.entry is None else found.entry.position.session_id
    return session or ""


def _is_same(one: str, other: str) -> bool:
    if one == other:
        return True
    try:
        guids = [parse_guid(each.encode("latin-1")) for each in (one, other)]
    except LocalProtocolError:
        return False
    return guids[0] == guids[1]


COMMAND = Command(
    name="cancel",
    help="cancel an upload and delete its data on the server",
    description="Cancel an upload, so that the server deletes its temporary data. A "
    "session that the server does not know counts as cancelled.",
    arguments=_arguments,
    perform=_perform,
)
