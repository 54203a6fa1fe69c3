"""
``txbits upload FILE URL``, the command.

What is worth knowing while it runs goes to standard output, and one line that says
what went wrong to standard error. Exit statuses: 0 the file is at its destination;
1 a wrong argument, or a file that cannot be opened; 2 the server refused it; 3 gave
up, and trying again later can help; 4 the local file changed; 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Any, NoReturn, TextIO

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import react
from twisted.logger import globalLogBeginner

from txbits._deferreds import deferred
from txbits.client._display import display_for, write
from txbits.client._url import InvalidURL, to_wire
from txbits.client.source import FileSource, SourceError, printable
from txbits.client.uploader import (
    DEFAULT_RETRY_FOR,
    Event,
    UploadFailed,
    UploadResult,
    upload,
)
from txbits.protocol.upload import DEFAULT_FRAGMENT_SIZE


class Status(IntEnum):
    """What the command exits with."""

    DONE = 0
    USAGE = 1
    REFUSED = 2
    GAVE_UP = 3
    CHANGED = 4
    INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and whose exit status is ours."""

    def error(self, message: str) -> NoReturn:
        self.exit(Status.USAGE, f"txbits: {message} (try {self.prog} --help)\n")


def _url(text: str) -> str:
    try:
        to_wire(text)
    except InvalidURL as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _fragment_size(text: str) -> int:
    size = int(text) if text.isdecimal() else 0
    if size < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return size


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Read the command line.

    :param argv: The arguments; those of the process if ``None``.
    :raises SystemExit: If they are wrong, or ask for help.
    """
    parser = _Parser(
        prog="txbits", description="Upload files to a BITS server.", allow_abbrev=False
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands"
    )
    command = commands.add_parser(
        "upload",
        allow_abbrev=False,
        help="upload a file",
        description="Upload a file, going on where it stopped when a connection is "
        "lost or the server is restarted.",
        epilog="Exit statuses: 0 done; 1 wrong usage; 2 refused by the server; 3 gave "
        "up, try again later; 4 the local file changed; 130 interrupted.",
    )
    command.add_argument("file", metavar="FILE", help="the file to upload")
    command.add_argument(
        "url",
        metavar="URL",
        type=_url,
        help="where it is to appear, name included; http or https",
    )
    command.add_argument(
        "--fragment-size",
        metavar="BYTES",
        type=_fragment_size,
        default=DEFAULT_FRAGMENT_SIZE,
        help="how much is sent at a time (default: %(default)s)",
    )
    command.add_argument(
        "--retry-for",
        metavar="SECONDS",
        type=_seconds,
        default=DEFAULT_RETRY_FOR,
        help="how long to try again without progress (default: %(default)g)",
    )
    return parser.parse_args(argv)


@deferred
async def run(
    reactor: Any,
    options: argparse.Namespace,
    out: TextIO,
    err: TextIO,
    perform: Callable[..., Deferred[UploadResult]] = upload,
) -> Status:
    """
    Do what the command line says.

    :param reactor: Makes the connections; when it stops, the upload does.
    :param options: The parsed command line.
    :param out: For what goes well.
    :param err: For one line on what does not.
    :param perform: Uploads.
    :returns: A Deferred that fires with the exit status, whatever happens.
    """
    display = display_for(out, reactor)
    try:
        result = await _upload(reactor, options, display.show, perform)
    except CancelledError:
        status, line = Status.INTERRUPTED, "interrupted"
    except _NotOpened as error:
        status, line = Status.USAGE, str(error)
    except SourceError as error:
        status, line = Status.CHANGED, str(error)
    except UploadFailed as error:
        status = Status.GAVE_UP if error.transient else Status.REFUSED
        line = str(error)
    except Exception as error:  # noqa: BLE001  no traceback is meant for a user
        status = Status.USAGE
        line = f"a fault of txbits, please report it: {error!r}"
    else:
        status = Status.DONE
        line = f"{result.length:,} bytes are at {options.url}"
    display.end()
    if status is Status.DONE:
        write(out, f"{line}\n")
    else:
        write(err, f"txbits: {line}\n")
    return status


class _NotOpened(Exception):
    """The file cannot be opened."""


async def _upload(
    reactor: Any,
    options: argparse.Namespace,
    on_event: Callable[[Event], None],
    perform: Callable[..., Deferred[UploadResult]],
) -> UploadResult:
    try:
        source = FileSource.open(options.file)
    except OSError as error:
        name = printable(options.file)
        raise _NotOpened(f"{name}: {error.strerror or error}") from error
    except (SourceError, ValueError) as error:
        raise _NotOpened(str(error)) from error
    work = perform(
        source,
        options.url,
        reactor=reactor,
        fragment_size=options.fragment_size,
        retry_for=options.retry_for,
        on_event=on_event,
    )
    ended: Deferred[None] = Deferred()

    def stop() -> Deferred[None]:
        work.cancel()
        return ended

    reactor.addSystemEventTrigger("before", "shutdown", stop)
    try:
        return await work
    finally:
        source.close()
        ended.callback(None)


@deferred
async def start(
    reactor: Any,
    options: argparse.Namespace,
    perform: Callable[..., Deferred[UploadResult]] = upload,
) -> None:
    """
    Do what the command line says, as :func:`twisted.internet.task.react` wants it.

    :returns: A Deferred that fires with ``None`` if all went well, and fails with
        :class:`SystemExit` if not.
    """
    status = await run(reactor, options, sys.stdout, sys.stderr, perform)
    if status is not Status.DONE:
        raise SystemExit(int(status))


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Be the command ``txbits``.

    :param argv: The arguments; those of the process if ``None``.
    :raises SystemExit: Always, with the exit status.
    """
    options = parse(argv)
    # Twisted logs what it finds odd, with tracebacks, to a standard error that has
    # not been claimed.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    react(start, (options,))
