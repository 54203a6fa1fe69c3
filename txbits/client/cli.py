"""
The command ``txbits``.

It prints progress and results to standard output, and errors of one line to standard
error. The commands are in :mod:`txbits.client.commands`. The exit status is a
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
from txbits.client.commands import NAMES, load
from txbits.client.commands._command import Context, Status, begin
from txbits.clocks import keep_steady
from txbits.protocol.urls import without_link

#: How many seconds an interrupted command may take to end cleanly.
_PATIENCE = 10.0


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with our exit status."""

    def error(self, message: str) -> NoReturn:
        # It may quote any argument.
        message = without_link(message)
        self.exit(Status.USAGE, f"txbits: {message} (try {self.prog} --help)\n")


class _Version(argparse.Action):
    """Print the versions, which takes time to find out."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from txbits._version import versions

        parser.exit(Status.DONE, f"{versions()}\n")


def build_parser(names: Sequence[str] = NAMES) -> argparse.ArgumentParser:
    """
    Make the parser of the command line.

    :param names: The commands that it knows.
    """
    parser = _Parser(
        prog="txbits",
        description="Upload files to BITS servers, download files, check servers.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action=_Version, help="print versions and exit")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, title="commands"
    )
    for name in names:
        load(name).add_to(commands)
    return parser


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """
    Parse the command line.

    :param argv: The arguments; those of the process if ``None``.
    :raises SystemExit: If they are invalid, or request help.
    """
    argv = sys.argv[1:] if argv is None else argv
    # The completion is that of all commands.
    is_one = argv and argv[0] in NAMES and argv[0] != "completion"
    return build_parser(argv[:1] if is_one else NAMES).parse_args(argv)


def _ask_password(prompt: str) -> str | None:
    if not sys.stdin.isatty():
        return None
    # Nothing else is in progress, so that this may block the reactor.
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
    Perform a command, for :func:`twisted.internet.task.react`.

    :param interrupts: Handles Ctrl-C.
    :returns: A Deferred that fires with ``None`` on success, and otherwise fails with
        :class:`SystemExit`.
    """
    # The wall clock may be set while the command runs.
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
        # Ending cleanly may wait for a disk that does not respond.
        reactor.callLater(_PATIENCE, interrupts.leave)
        run.interrupt()

    interrupts.interrupt = lambda: reactor.callFromThread(interrupt)
    status = await run.status
    interrupts.status = int(status)
    if status is Status.INTERRUPTED:
        # The reactor would wait for its threads, for example for a name lookup.
        flush()
        interrupts.handle()
    if status is not Status.DONE:
        raise SystemExit(int(status))


def _open_closed() -> None:
    """
    Open standard streams that the parent process has closed.

    Otherwise sockets and files would get their descriptors.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = open(os.devnull, mode, encoding="utf-8")  # noqa: SIM115
            setattr(sys, name, stream)


def main(
    argv: Sequence[str] | None = None, interrupts: Interrupts | None = None
) -> NoReturn:
    """
    Run the command ``txbits``.

    :param argv: The arguments; those of the process if ``None``.
    :param interrupts: The handler of Ctrl-C, if one is installed already.
    :raises SystemExit: Always, with the exit status.
    """
    _open_closed()
    options = parse(argv)
    if interrupts is None:
        interrupts = Interrupts()
        interrupts.install()
    # By default Twisted logs warnings and tracebacks to standard error.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    try:
        react(start, (options, interrupts))
    finally:
        interrupts.finish()
