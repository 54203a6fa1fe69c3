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
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.internet.task import react
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogBeginner

from txbits._deferreds import deferred
from txbits.client.commands import COMMANDS
from txbits.client.commands._command import Context, Status, begin
from txbits.clocks import keep_steady


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


@define
class Interrupts:
    """
    What Ctrl-C does: the first one ends in good order, the second one at once.

    :ivar interrupt: Ends in good order.
    :ivar leave: Ends at once.
    """

    interrupt: Callable[[], None]
    leave: Callable[[], None]
    _seen: bool = field(init=False, default=False)

    def handle(self, *_: object) -> None:
        """A signal came."""
        if self._seen:
            self.leave()
        self._seen = True
        self.interrupt()


def _install(interrupts: Interrupts) -> None:
    # A shell has background jobs ignore it, and so it shall stay.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, interrupts.handle)


def _leave() -> None:
    if sys.stdout.isatty():
        # Whatever drew a bar has hidden the cursor.
        sys.stdout.write("\x1b[?25h\n")
        sys.stdout.flush()
    os._exit(Status.INTERRUPTED)


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
async def start(reactor: Any, options: argparse.Namespace) -> None:
    """
    Do what the command line says, as :func:`twisted.internet.task.react` wants it.

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
    interrupts = Interrupts(lambda: reactor.callFromThread(run.interrupt), leave=_leave)
    # Twisted installs its own handler when the reactor starts.
    reactor.callWhenRunning(reactor.callLater, 0, _install, interrupts)
    status = await run.status
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


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """
    Be the command ``txbits``.

    :param argv: The arguments; those of the process if ``None``.
    :raises SystemExit: Always, with the exit status.
    """
    _open_closed()
    options = parse(argv)
    # Twisted logs what it finds odd, with tracebacks, to a standard error that has
    # not been claimed.
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)
    react(start, (options,))
