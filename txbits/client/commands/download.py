"""
``txbits download URL FILE``.
"""

from __future__ import annotations

import argparse
import os

from txbits.client._display import Display, JSONDisplay, NoDisplay
from txbits.client.commands import _types
from txbits.client.commands._command import (
    GO_ON,
    Command,
    Context,
    Status,
    UsageError,
)
from txbits.client.commands._options import (
    NOT_ALONE,
    add_connection_options,
    add_retry_option,
    connection_settings,
)
from txbits.client.commands._show import display_for
from txbits.client.downloader import download
from txbits.client.events import Event, Unlocked
from txbits.client.source import printable


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("url", metavar="URL", type=_types.url, help="URL of the file")
    add("file", metavar="FILE", help="where to save it")
    add("--overwrite", action="store_true", help="replace an existing file")
    add_retry_option(parser)
    add_connection_options(parser)
    group = parser.add_argument_group("output").add_mutually_exclusive_group()
    group.add_argument("--json", action="store_true", help="one JSON object per event")
    group.add_argument("-q", "--quiet", action="store_true", help="print failures only")
    group.add_argument("-v", "--verbose", action="store_true", help="print each step")


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    settings = connection_settings(context, options, options.url)
    display = _display(context, options)
    name = printable(options.file)
    context.hint = GO_ON

    def show(event: Event) -> None:
        if isinstance(event, Unlocked) and not options.quiet:
            context.complain(NOT_ALONE)
        display.show(event)

    try:
        result = await download(
            options.url,
            options.file,
            reactor=context.reactor,
            overwrite=options.overwrite,
            retry_for=options.retry_for,
            settings=settings,
            on_event=show,
            in_thread=context.run,
            files=context.files,
        )
    except FileExistsError as error:
        raise UsageError(f"{name} exists (try --overwrite)") from error
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(str(error)) from error
    finally:
        display.end()
    place = os.path.abspath(options.file)
    if options.json:
        context.say_json(
            event="done", file=place, length=result.length, received=result.received
        )
    elif not options.quiet:
        context.say(f"{result.length:,} bytes are in {printable(place)}")
    return Status.DONE


def _display(context: Context, options: argparse.Namespace) -> Display:
    if options.quiet:
        return NoDisplay()
    if options.json:
        return JSONDisplay(context.out, context.reactor)
    return display_for(context.out, context.reactor, verbose=options.verbose)


COMMAND = Command(
    name="download",
    help="download a file",
    description="Download a file. A download resumes where it stopped after a lost "
    "connection, and when the same command is run again.",
    arguments=_arguments,
    perform=_perform,
)
