"""
``txbits check URL``.
"""

from __future__ import annotations

import argparse
import json
from difflib import get_close_matches

from txbits.check import (
    CHECKS,
    GROUPS,
    NotLetIn,
    Report,
    Result,
    Run,
    Target,
    Unreachable,
)
from txbits.check._report import renderer_for
from txbits.check._run import DEFAULT_PATIENCE, select
from txbits.client._display import write
from txbits.client.commands import _types
from txbits.client.commands._command import Command, Context, Status, UsageError
from txbits.client.commands._options import add_connection_options, connection_settings
from txbits.client.events import TransferFailed
from txbits.client.source import printable

_NAMES = [check.name for check in CHECKS]


def _check_name(text: str) -> str:
    if text not in _NAMES:
        close = get_close_matches(text, _NAMES, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise argparse.ArgumentTypeError(f"no check is named {printable(text)}{hint}")
    return text


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "url",
        metavar="URL",
        type=_types.url,
        help="a folder of the server that accepts uploads",
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="also run checks that leave files in the folder; the report lists them",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="require the promises of txbits beyond MC-BUP, too",
    )
    parser.add_argument(
        "--only",
        metavar="CHECK",
        action="append",
        default=[],
        type=_check_name,
        choices=_NAMES,
        help="run this check only; may be repeated",
    )
    parser.add_argument(
        "--timeout",
        metavar="DURATION",
        type=_types.duration,
        default=DEFAULT_PATIENCE,
        help="time to wait for an answer (default: 10s)",
    )
    add_connection_options(parser, is_direct=True)
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    if not options.timeout:
        raise UsageError("--timeout must be more than 0")
    settings = connection_settings(context, options, options.url)
    target = Target.of(options.url, settings)
    endpoint = target.endpoint(context.reactor, options.timeout)
    run = Run(
        target, endpoint, context.reactor, options.timeout, may_publish=options.publish
    )
    checks = select(CHECKS, options.only)
    is_terminal = context.out.isatty() and not options.json
    if is_terminal:
        run.on_result = _Counter(context, len(checks)).show
    ended = False
    try:
        report = await run.start(checks)
        ended = True
    except Unreachable as error:
        raise TransferFailed(str(error), transient=True) from error
    except NotLetIn as error:
        raise TransferFailed(
            f"{target.shown()}: {error}", transient=False, status=error.status
        ) from error.__cause__
    finally:
        if not ended:
            for line in run.left_behind:
                context.complain(f"left behind: {line}")
    _print(context, report, options.json, is_terminal)
    is_good = report.is_good(strict=options.strict)
    return Status.DONE if is_good else Status.REFUSED


class _Counter:
    """Shows the progress of the run on a terminal, in one line."""

    def __init__(self, context: Context, total: int) -> None:
        self._context = context
        self._total = total
        self._done = 0

    def show(self, result: Result) -> None:
        self._done += 1
        is_last = self._done == self._total
        line = "" if is_last else f"{self._done} of {self._total}"
        end = "\r" if is_last else ""
        write(self._context.out, f"\r{line:20}{end}")


def _print(context: Context, report: Report, as_json: bool, is_terminal: bool) -> None:
    if as_json:
        context.say(json.dumps(report.to_json(), indent=2))
    else:
        write(context.out, renderer_for(is_terminal)(report, GROUPS))


COMMAND = Command(
    name="check",
    help="check whether a server conforms to BITS",
    description="Check whether a server does what MC-BUP requires and what txbits "
    "promises beyond it. Sessions are cancelled at the end. Exits with 2 if a check "
    "failed that MC-BUP requires. Each request has the token, or the password, as "
    "Basic; with --negotiate each connection is logged in. Client proxies are not "
    "supported, because they would change the packets.",
    arguments=_arguments,
    perform=_perform,
    meanings={
        Status.DONE: "no check failed that MC-BUP requires",
        Status.REFUSED: "a check failed, or the server does not accept the credentials",
        Status.GAVE_UP: "the server cannot be reached",
    },
)
