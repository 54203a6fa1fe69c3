"""
``txbits``, the command.

What is worth knowing while it runs goes to standard output, and one line that says
what went wrong to standard error. What each command does is in
:mod:`txbits.client.commands`; what it exits with is a
:class:`~txbits.client.commands._command.Status`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from twisted.internet.task import react
from twisted.logger import globalLogBeginner

from txbits._deferreds import deferred
from txbits.client.commands import COMMANDS
from txbits.client.commands._command import Context, Status, run


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and whose exit status is ours."""

    def error(self, message: str) -> NoReturn:
        self.exit(Status.USAGE, f"txbits: {message} (try {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = _Parser(
        prog="txbits", description="Upload files to a BITS server.", allow_abbrev=False
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands"
    )
    for command in COMMANDS:
        command.add_to(commands)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Read the command line.

    :param argv: The arguments; those of the process if ``None``.
    :raises SystemExit: If they are wrong, or ask for help.
    """
    return build_parser().parse_args(argv)


@deferred
async def start(reactor: Any, options: argparse.Namespace) -> None:
    """
    Do what the command line says, as :func:`twisted.internet.task.react` wants it.

    :returns: A Deferred that fires with ``None`` if all went well, and fails with
        :class:`SystemExit` if not.
    """
    status = await run(Context(reactor, sys.stdout, sys.stderr), options)
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
