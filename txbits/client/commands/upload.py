"""
``txbits upload FILE... URL``.
"""

from __future__ import annotations

import argparse
import os

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
from txbits.client.source import printable


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "files",
        metavar="FILE",
        nargs="+",
        help="what to upload; - is standard input",
    )
    add(
        "url",
        metavar="URL",
        type=_types.url,
        help="where it is to appear, http or https; one that ends with a slash is a "
        "folder, in which each file has its own name",
    )
    add(
        "--no-check",
        action="store_true",
        help="do not check the modification time of files; a change of content that "
        "leaves the length the same then goes unnoticed",
    )
    add("-r", "--recursive", action="store_true", help="send the files of directories")
    add(
        "--length",
        metavar="BYTES",
        type=_types.length,
        help="how many bytes standard input has",
    )
    add(
        "--reply",
        metavar="FILE",
        help="put the server application's reply there; it fails if there is none",
    )
    add(
        "--fragment-size",
        metavar="BYTES",
        type=_types.size,
        help="how much is sent at a time (default: as much as the network takes in "
        "some seconds, from 5 KB to 13 MB)",
    )
    add(
        "--limit-rate",
        metavar="BYTES",
        type=_types.size,
        help="send at most so much in a second; K, M and G may follow",
    )
    add(
        "-j",
        "--jobs",
        metavar="N",
        type=_types.count,
        default=DEFAULT_JOBS,
        help="upload up to N files at a time, each on a connection of its own "
        f"(default: {DEFAULT_JOBS})",
    )
    add_retry_option(parser)
    add_state_option(parser)
    add("--no-state", action="store_true", help="write nothing down; begin anew")
    add_connection_options(parser)
    add_trust_option(parser)
    group = parser.add_argument_group("what is said").add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="a line of JSON an event")
    group.add_argument("-q", "--quiet", action="store_true", help="failures only")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="each session and fragment"
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
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


def _has_several(items: list[Item], options: argparse.Namespace) -> bool:
    return len(items) > 1 or options.recursive


def _check(items: list[Item], options: argparse.Namespace) -> None:
    from_stdin = items and items[0].path == STDIN
    if options.length is not None and not from_stdin:
        raise UsageError("--length is for standard input only")
    if len(items) > 1 and options.reply is not None:
        raise UsageError("--reply takes a single file")
    if options.reply is not None:
        folder = os.path.dirname(options.reply) or os.curdir
        if not os.path.isdir(folder):
            raise UsageError(f"--reply: {printable(folder)} is not a folder")
    if (
        _has_several(items, options)
        and options.state is not None
        and not os.path.isdir(options.state)
    ):
        raise UsageError("with several files --state has to be a folder")


COMMAND = Command(
    name="upload",
    help="upload files",
    description="Upload files, going on where they stopped when a connection is lost, "
    "or the server or this command is started again.",
    arguments=_arguments,
    perform=_perform,
    statuses=(Status.REFUSED, Status.GAVE_UP, Status.CHANGED),
)
