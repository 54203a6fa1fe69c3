"""
``txbits link``: makes upload links.

Unlike the other commands it is for the operator of a server, on its host. It imports
the server when it is performed, and no other command does.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from txbits._units import DURATIONS, SIZES
from txbits.client.commands import _types
from txbits.client.commands._command import Command, Context, Status, UsageError
from txbits.client.source import printable


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--path",
        metavar="PATH",
        help="path of the URL to upload to, such as /cases/17/; with a trailing slash, "
        "all files below it",
    )
    what.add_argument(
        "--show", metavar="URL", help="print what the link in this URL permits"
    )
    what.add_argument(
        "--new-key", action="store_true", help="print a new key for link-key-file"
    )
    add(
        "--config",
        metavar="FILE",
        help="settings file of the server",
    )
    add(
        "--expires",
        metavar="DURATION",
        type=_types.duration,
        help=f"how long the link is valid: {DURATIONS}",
    )
    add(
        "--max-size",
        metavar="SIZE",
        type=_types.size,
        help=f"maximum size of a file, such as {SIZES} (default: what the server "
        "accepts)",
    )
    add(
        "--name",
        metavar="TEXT",
        help="who the link is for, in the log and in revoked-links (default: a "
        "random id)",
    )
    add(
        "--once",
        action="store_true",
        help="valid until one file is uploaded",
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    _check(options)
    for line in await context.run(_lines, context, options):
        context.say(line)
    return Status.DONE


def _check(options: argparse.Namespace) -> None:
    made = {
        "--expires": options.expires,
        "--max-size": options.max_size,
        "--name": options.name,
        "--once": options.once or None,
    }
    if options.path is None:
        for name, value in made.items():
            if value is not None:
                raise UsageError(f"{name} works with --path only")
    if options.new_key:
        if options.config is not None:
            raise UsageError("--new-key works without --config")
    elif options.config is None:
        raise UsageError("--config is required: the settings file of the server")
    elif options.path is not None and options.expires is None:
        raise UsageError(
            "--expires is required: how long the link is valid, such as 12h or 7d"
        )


def _lines(context: Context, options: argparse.Namespace) -> list[str]:
    """Do what the options say, and write it in lines. This blocks."""
    from txbits.service import links

    try:
        if options.new_key:
            return [links.new_key()]
        if options.show is not None:
            shown = links.show(options.config, options.show, now=context.now())
            return _told(shown, context.now())
        made = links.make_link(
            options.config,
            options.path,
            now=context.now(),
            lasts=options.expires,
            max_size=options.max_size,
            name=options.name,
            is_once=options.once,
            reactor=context.reactor,
        )
    except links.InvalidSetting as error:
        raise UsageError(str(error)) from None
    return [made.url, made.powershell]


def _told(shown: Any, now: float) -> list[str]:
    link = shown.link
    expires = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(link.expires))
    left = link.expires - now
    if left > 0:
        expires += f" (in {_in_words(left)})"
    rows = {
        "state": shown.state,
        "path": shown.path + (" and all below" if link.is_tree else ""),
        "name": printable(link.name),
        "id": printable(link.id),
        "expires": expires,
        "max size": f"{link.max_size:,} bytes" if link.max_size else "as the directory",
        "once": "yes" if link.is_once else "no",
    }
    return [f"{name:<9} {value}" for name, value in rows.items()]


def _in_words(seconds: float) -> str:
    """Write how long a link is still valid, in days, hours or minutes."""
    for unit, name in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"


COMMAND = Command(
    name="link",
    help="make upload links, on the host of a server",
    description="Make a URL with which somebody without an account can upload files to "
    "your server, and a PowerShell command that uses it. Whoever has the URL can use "
    "it. Run this on the host of the server, as a user who can read its settings file "
    "and link-key-file.",
    arguments=_arguments,
    perform=_perform,
    statuses=(),
)
