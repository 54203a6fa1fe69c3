"""
``txbits ping URL``.
"""

from __future__ import annotations

import argparse

from txbits._units import DURATIONS
from txbits.client._url import to_wire
from txbits.client.commands import _types
from txbits.client.commands._command import Command, Context, Status
from txbits.client.commands._options import add_connection_options, connection_settings
from txbits.client.commands._packets import ask
from txbits.protocol.packets import Ping
from txbits.protocol.urls import without_link


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "url",
        metavar="URL",
        type=_types.url,
        help="where files can be uploaded to",
    )
    add(
        "--retry-for",
        metavar="DURATION",
        type=_types.duration,
        default=0.0,
        help=f"how long to retry: {DURATIONS} (default: do not retry)",
    )
    add_connection_options(parser)
    add("--json", action="store_true", help="print one JSON object")


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    settings = connection_settings(context, options, options.url)
    exchange = context.exchange(context.reactor, to_wire(options.url), settings)
    began = context.reactor.seconds()
    await ask(context.reactor, exchange, Ping(), options.retry_for)
    seconds = context.reactor.seconds() - began
    url = without_link(options.url)
    if options.json:
        context.say_json(event="answered", url=url, seconds=seconds)
    else:
        context.say(f"a BITS server answers at {url} ({seconds * 1000:.0f} ms)")
    return Status.DONE


COMMAND = Command(
    name="ping",
    help="check that a BITS server answers",
    description="Ask a server whether it supports BITS at a URL. Nothing is changed.",
    arguments=_arguments,
    perform=_perform,
)
