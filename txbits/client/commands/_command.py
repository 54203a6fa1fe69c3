"""
What a command of ``txbits`` is, and what is common to all of them.

Each command is a module of its own beside this one, which ends with a
:class:`Command`; :mod:`txbits.client.commands` lists them. A command says what is
worth knowing while it works to standard output, and fails with an exception: what
that is for the exit status, and the line on standard error, is the same for all.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, TextIO

from attrs import define, frozen
from twisted.internet.defer import CancelledError, Deferred

from txbits._deferreds import deferred
from txbits.client._display import write
from txbits.client._url import InvalidURL, to_wire
from txbits.client.events import TransferFailed
from txbits.client.source import SourceError
from txbits.client.uploader import upload


class Status(IntEnum):
    """What ``txbits`` exits with."""

    DONE = 0
    USAGE = 1
    REFUSED = 2
    GAVE_UP = 3
    CHANGED = 4
    INTERRUPTED = 130


#: The last paragraph of each command's help.
STATUSES = (
    "Exit statuses: 0 done; 1 wrong usage; 2 refused by the server; 3 gave up, try "
    "again later; 4 the local file changed; 130 interrupted."
)


class UsageError(Exception):
    """An argument is wrong, or what it names cannot be used; the text is one line."""


@define
class Context:
    """
    What a command works with.

    :ivar reactor: Makes the connections, and tells the time.
    :ivar out: For what is worth knowing.
    :ivar err: For one line on what went wrong.
    :ivar upload: Uploads.
    """

    reactor: Any
    out: TextIO
    err: TextIO
    upload: Callable[..., Deferred[Any]] = upload

    def say(self, line: str) -> None:
        """Write one line to standard output."""
        write(self.out, f"{line}\n")


@frozen
class Command:
    """
    One word after ``txbits``.

    :ivar name: That word.
    :ivar help: What it does, in a few words.
    :ivar description: What it does, in a sentence or two.
    :ivar arguments: Adds its arguments to its parser.
    :ivar perform: Does it. What it returns is the exit status; what it raises becomes
        one, see :func:`run`. When it is interrupted, what it awaits is cancelled.
    """

    name: str
    help: str
    description: str
    arguments: Callable[[argparse.ArgumentParser], None]
    perform: Callable[[Context, argparse.Namespace], Coroutine[Any, Any, Status]]

    def add_to(self, commands: Any) -> None:
        """Make its parser one of the sub-parsers *commands*."""
        parser = commands.add_parser(
            self.name,
            allow_abbrev=False,
            help=self.help,
            description=self.description,
            epilog=STATUSES,
        )
        self.arguments(parser)
        parser.set_defaults(perform=self.perform)


@deferred
async def run(context: Context, options: argparse.Namespace) -> Status:
    """
    Do what the command line says.

    :param context: What to do it with. When its reactor stops, so does the command.
    :param options: The parsed command line.
    :returns: A Deferred that fires with the exit status, whatever happens.
    """
    ended: Deferred[None] = Deferred()
    work: Deferred[Status] = Deferred.fromCoroutine(options.perform(context, options))

    def stop() -> Deferred[None]:
        work.cancel()
        return ended

    context.reactor.addSystemEventTrigger("before", "shutdown", stop)
    try:
        return await work
    except CancelledError:
        status, line = Status.INTERRUPTED, "interrupted"
    except UsageError as error:
        status, line = Status.USAGE, str(error)
    except SourceError as error:
        status, line = Status.CHANGED, str(error)
    except TransferFailed as error:
        status = Status.GAVE_UP if error.transient else Status.REFUSED
        line = str(error)
    except Exception as error:  # noqa: BLE001  no traceback is meant for a user
        status = Status.USAGE
        line = f"a fault of txbits, please report it: {error!r}"
    finally:
        ended.callback(None)
    write(context.err, f"txbits: {line}\n")
    return status


def url(text: str) -> str:
    """Check a URL, as a type of an argument."""
    try:
        to_wire(text)
    except InvalidURL as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def size(text: str) -> int:
    """Read a number of bytes, at least 1, as a type of an argument."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return number


def seconds(text: str) -> float:
    """Read a number of seconds, as a type of an argument."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds")
    return number
