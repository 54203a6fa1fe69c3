"""
``txbits upload FILE... URL``, and ``txbits upload --watch DIR URL``.
"""

from __future__ import annotations

import argparse
import os

from txbits._units import DURATIONS, SIZES, shown_duration
from txbits.client.commands import _types
from txbits.client.commands._command import Command, Context, Status, UsageError
from txbits.client.commands._one import One
from txbits.client.commands._options import (
    add_connection_options,
    add_retry_option,
    add_state_option,
    add_trust_option,
    connection_settings,
)
from txbits.client.commands._plan import STDIN, Item, plan
from txbits.client.commands._several import DEFAULT_JOBS, Several
from txbits.client.commands._watch import DEFAULT_SETTLE, Watch
from txbits.client.source import printable


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "files",
        metavar="FILE",
        nargs="*",
        help="file to upload; - is standard input",
    )
    add(
        "url",
        metavar="URL",
        type=_types.url,
        help="destination, http or https; with a trailing slash it is a folder, and "
        "each file keeps its name",
    )
    add(
        "--no-check",
        action="store_true",
        help="ignore the modification time of files; changes that keep the length are "
        "not detected",
    )
    add("-r", "--recursive", action="store_true", help="upload directories recursively")
    add(
        "--length",
        metavar="SIZE",
        type=_types.length,
        help="length of standard input",
    )
    add(
        "--reply",
        metavar="FILE",
        help="save the server application's reply to FILE; fail if there is none",
    )
    add(
        "--fragment-size",
        metavar="SIZE",
        type=_types.size,
        help=f"size of the fragments, such as {SIZES} (default: what the network "
        "transfers in some seconds, from 5 KB to 13 MB)",
    )
    add(
        "--limit-rate",
        metavar="SIZE",
        type=_types.size,
        help="bytes to send per second at most, such as 500K",
    )
    add(
        "-j",
        "--jobs",
        metavar="N",
        type=_types.count,
        default=DEFAULT_JOBS,
        help="files to upload at the same time, each on its own connection (default: "
        f"{DEFAULT_JOBS})",
    )
    group = parser.add_argument_group("watch a directory")
    group.add_argument(
        "--watch",
        metavar="DIR",
        help="upload what comes to rest in DIR, without its subdirectories, and go on "
        "until interrupted; needs --delete or --move-to, and no FILE",
    )
    group.add_argument(
        "--settle",
        metavar="DURATION",
        type=_types.duration,
        default=DEFAULT_SETTLE,
        help=f"how long a file must stay unchanged: {DURATIONS} (default: "
        f"{shown_duration(DEFAULT_SETTLE)})",
    )
    after = group.add_mutually_exclusive_group()
    after.add_argument(
        "--delete", action="store_true", help="delete files that were uploaded"
    )
    after.add_argument(
        "--move-to", metavar="DIR", help="move files that were uploaded to DIR"
    )
    add_retry_option(parser)
    add_state_option(parser)
    add("--no-state", action="store_true", help="keep no journal; start over")
    add_connection_options(parser)
    add_trust_option(parser)
    group = parser.add_argument_group("output").add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="one JSON object per event")
    group.add_argument("-q", "--quiet", action="store_true", help="print failures only")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="print each session and fragment"
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    if options.watch is not None:
        _check_watch(options)
        settings = connection_settings(context, options, options.url)
        return await Watch(context, options, settings).run()
    if not options.files:
        raise UsageError("FILE is missing")
    if options.delete or options.move_to is not None:
        raise UsageError("--delete and --move-to work with --watch only")
    items, left_out = await context.run(
        lambda: plan(options.files, options.url, recursive=options.recursive)
    )
    for words in left_out:
        context.complain(words)
    _check(items, options)
    settings = connection_settings(context, options, options.url)
    if _has_several(items, options):
        return await Several(context, options, settings).run(items)
    return await One(context, options, settings).run(items[0])


def _check_watch(options: argparse.Namespace) -> None:
    if options.files:
        raise UsageError("--watch DIR takes the place of FILE")
    if not options.delete and options.move_to is None:
        raise UsageError("--watch needs --delete or --move-to DIR")
    if not options.url.partition("?")[0].endswith("/"):
        raise UsageError("with --watch, the URL needs a trailing slash")
    for name in ("recursive", "length", "reply"):
        if getattr(options, name):
            raise UsageError(f"--{name} does not work with --watch")
    if options.state is not None and not os.path.isdir(options.state):
        raise UsageError("with --watch, --state must be a directory")


def _has_several(items: list[Item], options: argparse.Namespace) -> bool:
    return len(items) > 1 or options.recursive


def _check(items: list[Item], options: argparse.Namespace) -> None:
    from_stdin = items and items[0].path == STDIN
    if options.length is not None and not from_stdin:
        raise UsageError("--length works with standard input only")
    if len(items) > 1 and options.reply is not None:
        raise UsageError("--reply works with a single file only")
    if options.reply is not None:
        folder = os.path.dirname(options.reply) or os.curdir
        if not os.path.isdir(folder):
            raise UsageError(f"--reply: {printable(folder)} is not a directory")
    if (
        _has_several(items, options)
        and options.state is not None
        and not os.path.isdir(options.state)
    ):
        raise UsageError("with several files or -r, --state must be a directory")


COMMAND = Command(
    name="upload",
    help="upload files",
    description="Upload files. An upload resumes where it stopped after a lost "
    "connection, a restart of the server, or a restart of this command.",
    arguments=_arguments,
    perform=_perform,
    statuses=(Status.REFUSED, Status.GAVE_UP, Status.CHANGED),
)
