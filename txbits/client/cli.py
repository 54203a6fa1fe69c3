"""
``txbits``, the command.

What is worth knowing while it runs goes to standard output, and one line that says
what went wrong to standard error. What each command does is in
:mod:`txbits.client.commands`; what it exits with is a
:class:`~txbits.client.commands._command.Status`.
"""

from __future__ import annotations

import argparse
import getpass
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError
from twisted.internet.task import react
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogBeginner

from txbits._deferreds import deferred
from txbits._interrupts import Interrupts, flush
from txbits.client.commands import COMMANDS
from txbits.client.commands._command import Context, Status, begin
from txbits.clocks import keep_steady

#: How long, in seconds, what was interrupted may take to end in good order.
_PATIENCE = 10.0


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line, and whose exit status is ours."""

    def error(self, message: str) -> NoReturn:
        self.exit(Status.USAGE, f"txbits: {message} (try {self.prog} --help)\n")


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = _Parser(
        prog="txbits",
        description="Upload files to BITS servers, download files, check servers.",
        allow_abbrev=False,
    )
    parser.set_defaults(parser=parser)
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


def _ask_password(prompt: str) -> str | None:
    if not sys.stdin.isatty():
        return None
    # Nothing else is under way yet, so that the reactor may wait.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return getpass.getpass(prompt, sys.stderr)
    except EOFError:
        return None
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        raise CancelledError from None
    finally:
        signal.signal(signal.SIGINT, handler)


@deferred
async def start(
    reactor: Any, options: argparse.Namespace, interrupts: Interrupts
) -> None:
    """
    Do what the command line says, as :func:`twisted.internet.task.react` wants it.

    :param interrupts: Is told what to do at a Ctrl-C.
    :returns: A Deferred that fires with ``None`` if all went well, and fails with
        :class:`SystemExit` if not.
    """
    # A machine without a battery sets its clock, and may do so while we wait.
    keep_steady(reactor)
    context = Context(
        reactor,
        sys.stdout,
        sys.stderr,
        partial(deferToThreadPool, reactor, reactor.getThreadPool()),
        dict(os.environ),
        ask_password=_ask_password,
    )
    run = begin(context, options)

    def interrupt() -> None:
        # What ends in good order may wait for a disk that does not answer.
        reactor.callLater(_PATIENCE, interrupts.leave)
        run.interrupt()

    interrupts.interrupt = lambda: reactor.callFromThread(interrupt)
    status = await run.status
    interrupts.status = int(status)
    if status is Status.INTERRUPTED:
        # The reactor would wait for its threads, and one of them perhaps for a name.
        flush()
        interrupts.handle()
    if status is not Status.DONE:
        raise SystemExit(int(status))


def _open_closed() -> None:
    """
    Open what whoever started us has closed of the standard streams.

    Sockets and files would get their descriptors otherwise.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def main(
    argv: Sequence[str] | None = None, interrupts: Interrupts | None = None
) -> NoReturn:
    """
    Be the command ``txbits``.

    :param argv: The arguments; those of the process if ``None``.
    :param interrupts: What handles Ctrl-C already, if anything does.
    :raises SystemExit: Always, with the exit status.
    """
    _open_closed()
    options = parse(argv)
    if interrupts is None:
        interrupts = Interrupts()
        interrupts.install()
    # Twisted logs what it finds odd, with tracebacks, to a standard error that has
    # not been claimed.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    try:
        react(start, (options, interrupts))
    finally:
        interrupts.finish()
