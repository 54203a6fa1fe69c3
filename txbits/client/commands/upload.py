"""
``txbits upload FILE URL``.
"""

from __future__ import annotations

import argparse

from txbits.client._display import display_for
from txbits.client.commands._command import (
    Command,
    Context,
    Status,
    UsageError,
    seconds,
    size,
    url,
)
from txbits.client.events import UploadResult
from txbits.client.job import DEFAULT_RETRY_FOR
from txbits.client.source import FileSource, SourceError, printable


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file to upload")
    parser.add_argument(
        "url",
        metavar="URL",
        type=url,
        help="where it is to appear, name included; http or https",
    )
    parser.add_argument(
        "--fragment-size",
        metavar="BYTES",
        type=size,
        help="how much is sent at a time (default: as much as the network takes in "
        "some seconds)",
    )
    parser.add_argument(
        "--retry-for",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_RETRY_FOR,
        help="how long to try again without progress (default: %(default)g)",
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    source = _opened(options.file)
    display = display_for(context.out, context.reactor)
    try:
        result: UploadResult = await context.upload(
            source,
            options.url,
            reactor=context.reactor,
            fragment_size=options.fragment_size,
            retry_for=options.retry_for,
            on_event=display.show,
        )
    finally:
        display.end()
        source.close()
    context.say(f"{result.length:,} bytes are at {options.url}")
    return Status.DONE


def _opened(path: str) -> FileSource:
    try:
        return FileSource.open(path)
    except OSError as error:
        raise UsageError(f"{printable(path)}: {error.strerror or error}") from error
    except (SourceError, ValueError) as error:
        raise UsageError(str(error)) from error


COMMAND = Command(
    name="upload",
    help="upload a file",
    description="Upload a file, going on where it stopped when a connection is lost "
    "or the server is restarted.",
    arguments=_arguments,
    perform=_perform,
)
