"""
``txbits download URL FILE``.
"""

from __future__ import annotations

import argparse
import os

from txbits.client._display import display_for
from txbits.client.commands._command import (
    Command,
    Context,
    Status,
    UsageError,
    seconds,
    url,
)
from txbits.client.downloader import download
from txbits.client.job import DEFAULT_RETRY_FOR
from txbits.client.source import printable


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", metavar="URL", type=url, help="where the file is")
    parser.add_argument("file", metavar="FILE", help="where it is to appear")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a file that is there"
    )
    parser.add_argument(
        "--retry-for",
        metavar="SECONDS",
        type=seconds,
        default=DEFAULT_RETRY_FOR,
        help="how long to try again without progress (default: %(default)g)",
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    display = display_for(context.out, context.reactor)
    name = printable(options.file)
    try:
        result = await download(
            options.url,
            options.file,
            reactor=context.reactor,
            overwrite=options.overwrite,
            retry_for=options.retry_for,
            on_event=display.show,
        )
    except FileExistsError as error:
        raise UsageError(f"{name} is there already (try --overwrite)") from error
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        display.end()
    context.say(f"{result.length:,} bytes are in {os.path.abspath(name)}")
    return Status.DONE


COMMAND = Command(
    name="download",
    help="download a file",
    description="Download a file, going on where it stopped when a connection is lost, "
    "and when the same command is run again.",
    arguments=_arguments,
    perform=_perform,
)
