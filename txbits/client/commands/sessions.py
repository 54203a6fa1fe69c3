"""
``txbits sessions``: lists, shows and cancels the open sessions of a server.

It is for the operator of a server, and connects to the server's ``admin-listen``. It
imports the server only to find that in the settings file of the server.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from txbits._units import DURATIONS
from txbits.client._admin import (
    AdminRequests,
    AdminServer,
    InvalidEndpoint,
    admin_server,
)
from txbits.client._display import percent, write
from txbits.client.commands import _types
from txbits.client.commands._command import (
    Command,
    Context,
    Status,
    UsageError,
    explain,
)
from txbits.client.commands._options import add_connection_options, connection_settings
from txbits.client.commands._show import table_on
from txbits.client.events import TransferFailed
from txbits.client.source import printable

_PATH = "/api/sessions"

#: How many sessions one request lists, and cancels.
_PAGE = 500
_STEP = 100

_COLUMNS = (
    *("session", "directory", "destination", "owner", "client"),
    *("bytes", "total", "idle", "state"),
)
_SHORT_COLUMNS = ("session", "file", "from", "held", "idle", "state")
_OPTIONAL = ("from", "state")

_FILTERS = ("directory", "owner", "client", "state", "text")

#: An act of this command.
_Act = Callable[
    [Context, argparse.Namespace, AdminRequests], Coroutine[Any, Any, Status]
]


def _arguments(parser: argparse.ArgumentParser) -> None:
    acts = parser.add_subparsers(
        dest="act", metavar="ACTION", required=True, title="actions"
    )

    def add(name: str, act: _Act, brief: str, text: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = acts.add_parser(
            name, allow_abbrev=False, help=brief, description=text
        )
        made.set_defaults(performs=act)
        return made

    listing = add(
        "list",
        _list,
        "list open sessions",
        "List the open sessions that match all filters. If the output is not a "
        "terminal, columns are separated by tabs.",
    )
    _add_filters(listing)
    _add_common(listing, "print an array of objects")
    showing = add(
        "show",
        _show,
        "show a session",
        "Show all details of a session.",
    )
    showing.add_argument(
        "session", metavar="SESSION", type=_types.session, help="session ID"
    )
    _add_common(showing, "print one object")
    cancelling = add(
        "cancel",
        _cancel,
        "cancel sessions",
        "Cancel sessions, and delete their data on the server. Their clients then have "
        "to upload the files again.",
    )
    cancelling.add_argument(
        "sessions",
        metavar="SESSION",
        nargs="+",
        type=_types.session,
        help="session ID; can be repeated",
    )
    _add_common(cancelling, "print an array of the sessions as they were")
    purging = add(
        "purge",
        _purge,
        "cancel old sessions",
        "Cancel all sessions that have made no progress for some time, and delete "
        "their data on the server.",
    )
    purging.add_argument(
        "--older-than",
        metavar="DURATION",
        type=_types.duration,
        required=True,
        help=f"how long they have made no progress: {DURATIONS}",
    )
    purging.add_argument(
        "--dry-run",
        action="store_true",
        help="only list the sessions that would be cancelled",
    )
    _add_filters(purging, is_purge=True)
    _add_common(purging, "print an array of the sessions as they were")


def _add_filters(parser: argparse.ArgumentParser, *, is_purge: bool = False) -> None:
    group = parser.add_argument_group("filters")
    add = group.add_argument
    add("--directory", metavar="MOUNT", help="in this virtual directory")
    add("--owner", metavar="NAME", help="of this user; '' for anonymous users")
    add("--client", metavar="ADDRESS", help="whose last packet came from this address")
    add("--state", metavar="STATE", help="in this state, such as receiving")
    add(
        "--text",
        metavar="TEXT",
        help="with this text in the ID, destination, file name, owner or client",
    )
    if not is_purge:
        add("--active", action="store_true", help="with a packet in progress")
        add(
            "--older-than",
            metavar="DURATION",
            type=_types.duration,
            help=f"without progress for this long: {DURATIONS}",
        )


def _add_common(parser: argparse.ArgumentParser, json_help: str) -> None:
    group = parser.add_argument_group("server").add_mutually_exclusive_group(
        required=True
    )
    group.add_argument(
        "--config",
        metavar="FILE",
        help="settings file of the server, whose admin-listen is used",
    )
    group.add_argument(
        "--admin",
        metavar="ENDPOINT",
        help="endpoint of its admin-listen: unix:/run/txbits/admin, "
        "tcp:host=HOST:port=PORT or tls:host=HOST:port=PORT",
    )
    add_connection_options(parser, has_proxies=False)
    parser.add_argument("--json", action="store_true", help=json_help)


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    server = await _server(context, options)
    settings = connection_settings(context, options, server.url)
    requests = AdminRequests(context.reactor, server, settings)
    act: _Act = options.performs
    try:
        return await act(context, options, requests)
    finally:
        await requests.close()


async def _server(context: Context, options: argparse.Namespace) -> AdminServer:
    endpoint, where = options.admin, "--admin"
    if endpoint is None:
        endpoint, where = await context.run(_in_settings, options.config), "--config"
    try:
        return admin_server(endpoint)
    except InvalidEndpoint as error:
        raise UsageError(f"{where}: {error}") from None


def _in_settings(config: str) -> str:
    """Find the endpoint in the settings file of a server. This blocks."""
    from txbits.service import admin_address

    try:
        return admin_address.admin_endpoint(config)
    except admin_address.InvalidSetting as error:
        raise UsageError(str(error)) from None


# The acts


async def _list(
    context: Context, options: argparse.Namespace, requests: AdminRequests
) -> Status:
    query = _query(options)
    return await _tell_all(context, options, _pages(requests, b"GET", query, _PAGE))


async def _show(
    context: Context, options: argparse.Namespace, requests: AdminRequests
) -> Status:
    found = await requests.ask(b"GET", _path_of(options.session))
    if options.json:
        context.say_json(**found)
        return Status.DONE
    now = context.now()
    rows = {
        "session": found["session"],
        "directory": found["directory"],
        "destination": found["destination"],
        "file name": found["file_name"],
        "owner": found["owner"],
        "scheme": found["scheme"],
        "client": found["client"],
        "state": found["state"],
        "active": "yes" if found["active"] else "no",
        "bytes": _grouped(found["bytes"]),
        "total": _grouped(found["total"]),
        "rate": None if found["rate"] is None else f"{found['rate']:,.0f} bytes/s",
        "created": _when(found["created"], now),
        "progress": _when(found["last_progress"], now),
        "attempts": found["attempts"],
    }
    for name, value in rows.items():
        context.say(f"{name:<12} {_shown(value)}")
    return Status.DONE


async def _cancel(
    context: Context, options: argparse.Namespace, requests: AdminRequests
) -> Status:
    status = Status.DONE
    cancelled: list[Any] = []
    for session in options.sessions:
        try:
            found = await requests.ask(b"DELETE", _path_of(session))
        except TransferFailed as error:
            if error.status not in (404, 503):
                raise
            failed, line = explain(error)
            context.complain(f"{printable(session)}: {line}")
            status = max(status, failed)
            continue
        cancelled.append(found)
        if not options.json:
            context.say(f"cancelled {_in_words(found)}")
    if options.json:
        write(context.out, json.dumps(cancelled) + "\n")
    return status


async def _purge(
    context: Context, options: argparse.Namespace, requests: AdminRequests
) -> Status:
    query = _query(options)
    if options.dry_run:
        return await _tell_all(context, options, _pages(requests, b"GET", query, _PAGE))
    pages = _pages(requests, b"DELETE", query, _STEP)
    return await _tell_all(context, options, pages)


async def _tell_all(
    context: Context,
    options: argparse.Namespace,
    pages: AsyncIterator[Mapping[str, Any]],
) -> Status:
    """Print sessions, a page at a time."""
    status, count = Status.DONE, 0
    separator = "["
    is_purge = options.act == "purge"
    try:
        async for page in pages:
            found = page["sessions"]
            if options.json:
                for one in found:
                    write(context.out, f"{separator}{json.dumps(one)}")
                    separator = ",\n"
            elif found:
                # One table a page: there may be more sessions than fit into memory.
                _show_rows(context, found, is_first=not count)
            count += len(found)
            for fault in page["faults"]:
                context.complain(printable(fault))
                status = Status.GAVE_UP
    finally:
        if options.json and separator != "[":
            write(context.out, "]\n")
    if options.json and not count:
        write(context.out, "[]\n")
    elif is_purge and not options.json:
        sessions = "session" if count == 1 else "sessions"
        would = "would be " if options.dry_run else ""
        context.say(f"{count:,} {sessions} {would}cancelled")
    elif not (count or options.json or status):
        context.say("no open sessions")
    return status


async def _pages(
    requests: AdminRequests, method: bytes, query: Mapping[str, str], limit: int
) -> AsyncIterator[Mapping[str, Any]]:
    cursor: str | None = None
    while True:
        asked = {**query, "limit": str(limit)}
        if cursor is not None:
            asked["cursor"] = cursor
        page = await requests.ask(method, f"{_PATH}?{urlencode(asked)}")
        yield page
        cursor = page["next"]
        if cursor is None:
            return


def _show_rows(
    context: Context, found: Sequence[Mapping[str, Any]], *, is_first: bool
) -> None:
    now = context.now()
    if (show := table_on(context.out)) is not None:
        show(_SHORT_COLUMNS, [_short_row(one, now) for one in found], _OPTIONAL)
        return
    rows = [_row(one, now) for one in found]
    lines = [_COLUMNS, *rows] if is_first else rows
    write(context.out, "".join("\t".join(line) + "\n" for line in lines))


def _query(options: argparse.Namespace) -> dict[str, str]:
    query = {
        name: getattr(options, name)
        for name in _FILTERS
        if getattr(options, name) is not None
    }
    if options.older_than is not None:
        query["idle"] = f"{options.older_than:f}"
    if getattr(options, "active", False):
        query["active"] = "true"
    return query


def _path_of(session: str) -> str:
    return f"{_PATH}/{quote(session.strip('{}'), safe='')}"


# Words


def _row(one: Mapping[str, Any], now: float) -> list[str]:
    """Make a row of the table that programs may read."""
    idle = max(0.0, now - one["last_progress"])
    return [
        *(_shown(one[name]) for name in _COLUMNS[:-2]),
        f"{idle:.0f}",
        _shown(one["state"]),
    ]


def _short_row(one: Mapping[str, Any], now: float) -> list[str]:
    """Make a row of a table that fits a terminal."""
    owner, client = one["owner"], one["client"]
    sender = [] if owner is None else [printable(owner)]
    sender += [] if client is None else [f"at {printable(client)}"]
    held, total = one["bytes"], one["total"]
    size = _shown(_in_units(held))
    if total is not None and held is not None:
        size = f"{percent(held, total)}% of {_in_units(total)}"
    return [
        one["session"],
        _file(one),
        " ".join(sender) or "-",
        size,
        _ago(max(0.0, now - one["last_progress"])),
        _shown(one["state"]),
    ]


def _file(one: Mapping[str, Any]) -> str:
    mount = printable(one["directory"]).rstrip("/")
    return f"{mount}/{_shown(one['destination'])}"


def _in_units(size: int | None) -> str | None:
    """A size in three digits, as the options for sizes have it."""
    if size is None or size < 1000:
        return None if size is None else str(size)
    number, units = size / 1024, "KMGT"
    while number >= 1000 and len(units) > 1:
        number, units = number / 1024, units[1:]
    return f"{number:.{0 if number >= 100 else 1}f}{units[0]}"


def _shown(value: object) -> str:
    return "-" if value is None else printable(str(value))


def _grouped(number: int | None) -> str | None:
    return None if number is None else f"{number:,}"


def _when(seconds: float | None, now: float) -> str | None:
    if seconds is None:
        return None
    written = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
    return f"{written} ({_ago(max(0.0, now - seconds))} ago)"


def _ago(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:.0f}s"


def _in_words(found: Mapping[str, Any]) -> str:
    held, total = (_shown(_grouped(found[name])) for name in ("bytes", "total"))
    return f"{found['session']}: {_file(found)}, {held} of {total} bytes"


COMMAND = Command(
    name="sessions",
    help="list, show and cancel the open sessions of your server",
    description="List, show and cancel the open sessions of a server. This is for the "
    "operator of the server, and requires its admin-listen setting.",
    arguments=_arguments,
    perform=_perform,
)
