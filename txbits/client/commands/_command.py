"""
What the commands of ``txbits`` have in common.

Each command is a module in this package that ends with a :class:`Command`;
:mod:`txbits.client.commands` lists them. A command prints to standard output, and fails
with an exception. Here exceptions become exit statuses and lines on standard error.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from enum import IntEnum
from typing import Any, TextIO

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred

from txbits._deferreds import deferred
from txbits._interrupts import INTERRUPTED
from txbits.client._display import write, write_json
from txbits.client._exchange import (
    HTTPLine,
    IExchange,
    ILine,
    exchange_over_network,
)
from txbits.client._files import FILES, Files
from txbits.client._login import REFUSED_TOKEN
from txbits.client._requests import CertificateRefused, Untrusted
from txbits.client.events import TransferFailed
from txbits.client.journal import JournalError
from txbits.client.settings import InvalidSettings
from txbits.client.source import SourceError
from txbits.protocol.urls import links_of, without_link


class Status(IntEnum):
    """The exit statuses of ``txbits``."""

    DONE = 0
    USAGE = 1
    REFUSED = 2
    GAVE_UP = 3
    CHANGED = 4
    INTERRUPTED = INTERRUPTED


#: What each status means, unless a command overrides it.
_MEANINGS = {
    Status.DONE: "done",
    Status.USAGE: "wrong usage",
    Status.REFUSED: "refused by the server",
    Status.GAVE_UP: "gave up, try again later",
    Status.CHANGED: "the local file changed",
    Status.INTERRUPTED: "interrupted",
}

#: The statuses of a command that contacts a server.
_OF_SERVERS = (Status.REFUSED, Status.GAVE_UP)


#: What to do after a transfer that can be resumed.
GO_ON = "run the same command again to continue"


class UsageError(Exception):
    """An argument is invalid, or a file cannot be used; the text is one line."""


def no_password(prompt: str) -> str | None:
    """Do not ask."""
    return None


@define
class Context:
    """
    What a command uses of its environment.

    :ivar reactor: Makes the connections, and tells the time.
    :ivar out: Standard output.
    :ivar err: Standard error.
    :ivar run: Runs a function that blocks, and returns a Deferred, as
        :func:`twisted.internet.threads.deferToThread` does.
    :ivar environ: The environment.
    :ivar exchange: Makes what carries packets to a URL.
    :ivar line: Makes a connection for one upload after the other, with reactor,
        settings and throttle.
    :ivar ask_password: Asks the user for a password; returns ``None`` without a
        terminal.
    :ivar stdin: The descriptor of standard input.
    :ivar files: Makes, locks and names files.
    :ivar now: Tells the time, in seconds since 1970.
    :ivar hint: What to do if the command does not succeed, in words.
    :ivar interrupted: Whether the command was interrupted; then any failure counts as
        that.
    """

    reactor: Any
    out: TextIO
    err: TextIO
    run: Callable[..., Deferred[Any]]
    environ: dict[str, str] = field(factory=dict)
    exchange: Callable[..., IExchange] = exchange_over_network
    line: Callable[..., ILine] = HTTPLine
    ask_password: Callable[[str], str | None] = no_password
    stdin: int = 0
    files: Files = FILES
    now: Callable[[], float] = time.time
    hint: str = field(init=False, default="")
    interrupted: bool = field(init=False, default=False)

    def say(self, line: str) -> None:
        """Write one line to standard output."""
        write(self.out, f"{line}\n")

    def say_json(self, **fields: Any) -> None:
        """Write one line of JSON to standard output."""
        write_json(self.out, **fields)

    def complain(self, line: str) -> None:
        """Write one line to standard error, without upload links."""
        write(self.err, f"txbits: {without_link(line)}\n")


@frozen
class Command:
    """
    A command, such as ``txbits upload``.

    :ivar name: The word on the command line.
    :ivar help: What it does, in a few words.
    :ivar description: What it does, in a sentence or two.
    :ivar arguments: Adds its arguments to a parser.
    :ivar perform: Performs it, and returns the exit status. Exceptions become exit
        statuses, see :func:`explain`. On an interrupt the coroutine is cancelled.
    :ivar statuses: The exit statuses that not all commands have.
    :ivar meanings: Meanings of statuses that are special to the command.
    """

    name: str
    help: str
    description: str
    arguments: Callable[[argparse.ArgumentParser], None]
    perform: Callable[[Context, argparse.Namespace], Coroutine[Any, Any, Status]]
    statuses: Sequence[Status] = _OF_SERVERS
    meanings: Mapping[Status, str] = field(factory=dict)

    @property
    def epilog(self) -> str:
        """The last paragraph of the help."""
        ends = {Status.DONE, Status.USAGE, Status.INTERRUPTED, *self.statuses}
        meanings = {**_MEANINGS, **self.meanings}
        told = "; ".join(f"{status:d} {meanings[status]}" for status in sorted(ends))
        return f"Exit statuses: {told}."

    def add_to(self, commands: Any) -> None:
        """Add a parser to the sub-parsers *commands*."""
        parser = commands.add_parser(
            self.name,
            allow_abbrev=False,
            help=self.help,
            description=self.description,
            epilog=self.epilog,
        )
        self.arguments(parser)
        parser.set_defaults(perform=self.perform)


def explain(
    error: BaseException, options: argparse.Namespace | None = None
) -> tuple[Status, str]:
    """
    Say what an exception is for the user.

    :param options: The parsed command line, to say which option may help.
    :returns: The exit status, and one line.
    """
    if isinstance(error, (CancelledError, KeyboardInterrupt)):
        return Status.INTERRUPTED, "interrupted"
    if isinstance(error, (UsageError, JournalError, InvalidSettings)):
        return Status.USAGE, str(error)
    if isinstance(error, SourceError):
        return Status.CHANGED, str(error)
    if isinstance(error, TransferFailed):
        line = f"{error}{_advice(error, options)}"
        return (Status.GAVE_UP if error.transient else Status.REFUSED), line
    if isinstance(error, OSError) and error.filename is not None:
        # For example, a reply cannot be written.
        return Status.USAGE, f"{error.filename}: {error.strerror}"
    # Users get no traceback.
    return Status.USAGE, f"internal error, please report it: {error!r}"


def _advice(error: TransferFailed, options: argparse.Namespace | None) -> str:
    if isinstance(error.__cause__, Untrusted):
        return "; --cacert FILE trusts other authorities"
    if isinstance(error.__cause__, CertificateRefused):
        return "; --cert FILE shows one"
    if error.status == 401 and (
        links_of(getattr(options, "url", "").partition("?")[2].encode())
    ):
        return "; the link may have expired, or have been revoked"
    if error.status == 401:
        return _advice_on_login(str(error), options)
    if error.status == 407 and getattr(options, "proxy_user", None) is None:
        return "; --proxy-user NAME sends a name and a password"
    return ""


#: Which option answers which schemes, and what it sends.
_LOGINS = (
    ("negotiate", ("Negotiate",), "--negotiate sends a Kerberos ticket"),
    ("token_file", ("Bearer",), "--token-file FILE sends a token"),
    ("user", ("Basic", "Digest"), "--user NAME sends a name and a password"),
)


def _advice_on_login(words: str, options: argparse.Namespace | None) -> str:
    """What to send, of what a server asks for, if nothing was sent."""
    _, asks, offered = words.partition("it asks for ")
    given = [option for option, *_ in _LOGINS if getattr(options, option, None)]
    if given == ["token_file"] and "Bearer" not in offered:
        # It was sent unasked.
        return f"; {REFUSED_TOKEN}"
    if given:
        return ""
    found = [
        advice
        for _, schemes, advice in _LOGINS
        # In brackets is what has come of the attempt.
        if not asks
        or any(each in offered and f"{each} (" not in offered for each in schemes)
    ]
    return f"; {', '.join(found)}" if found else ""


def failure_fields(error: BaseException) -> dict[str, Any]:
    """Tell in JSON what the server answered, if it is known."""
    if not isinstance(error, TransferFailed):
        return {}
    hresult = getattr(error, "hresult", None)
    code = None if hresult is None else f"0x{hresult:08X}"
    return {"status": error.status, "hresult": code}


@define
class Run:
    """
    A command that is running.

    :ivar status: Always fires, with the exit status.
    """

    status: Deferred[Status]
    _work: Deferred[Status]
    _context: Context

    def interrupt(self) -> None:
        """End it cleanly."""
        self._context.interrupted = True
        self._work.cancel()


def begin(context: Context, options: argparse.Namespace) -> Run:
    """
    Begin to perform a command.

    :param context: Its environment. The command ends when the reactor stops.
    :param options: The parsed command line.
    """
    work: Deferred[Status] = Deferred.fromCoroutine(options.perform(context, options))
    return Run(_concluded(context, options, work), work, context)


@deferred
async def _concluded(
    context: Context, options: argparse.Namespace, work: Deferred[Status]
) -> Status:
    ended: Deferred[None] = Deferred()

    def stop() -> Deferred[None]:
        context.interrupted = True
        work.cancel()
        return ended

    context.reactor.addSystemEventTrigger("before", "shutdown", stop)
    try:
        return await work
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  all are told
        status, line = explain(
            CancelledError() if context.interrupted else error, options
        )
        if getattr(options, "json", False):
            fields = failure_fields(error)
            fields["error"] = without_link(line)
            context.say_json(event="failed", exit=int(status), **fields)
    finally:
        ended.callback(None)
    goes_on = status in (Status.INTERRUPTED, Status.GAVE_UP) and context.hint
    context.complain(f"{line}; {context.hint}" if goes_on else line)
    return status


def run(context: Context, options: argparse.Namespace) -> Deferred[Status]:
    """
    Perform a command.

    :returns: A Deferred that always fires, with the exit status.
    """
    return begin(context, options).status
