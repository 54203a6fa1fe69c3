"""
``txbits token NAME``.

It makes a token for the scheme ``bearer``, and its line for the server's token file. It
knows the form of such a line, and nothing else of the server.
"""

from __future__ import annotations

import argparse
import hashlib
import secrets
from datetime import UTC, datetime

from txbits._units import DURATIONS
from txbits.client.commands import _types
from txbits.client.commands._command import Command, Context, Status, UsageError

#: The random bytes of a token: so many that a fast hash without a salt protects them.
_LENGTH = 32


def _arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("name", metavar="NAME", help="who uses the token, as permissions name them")
    add(
        "--groups",
        metavar="NAMES",
        default="",
        help="groups that the user is in, separated by commas",
    )
    add(
        "--expires",
        metavar="DURATION",
        type=_types.duration,
        help=f"how long the token is valid: {DURATIONS} (default: until its line is "
        "removed)",
    )


async def _perform(context: Context, options: argparse.Namespace) -> Status:
    for what, text in (("NAME", options.name), ("--groups", options.groups)):
        if ":" in text or not text.isprintable() or text != text.strip():
            raise UsageError(f"{what} must have no colon, and no spaces around it")
    if not options.name or options.name.startswith("#"):
        raise UsageError("NAME must not be empty, or begin with #")
    token = secrets.token_urlsafe(_LENGTH)
    expires = ""
    if options.expires is not None:
        ends = datetime.fromtimestamp(context.now() + options.expires, UTC)
        expires = ends.strftime("%Y-%m-%dT%H:%M:%SZ")
    digest = hashlib.sha256(token.encode()).hexdigest()
    line = f"{options.name}:{digest}:{options.groups}:{expires}"
    context.say(token)
    context.say(line.rstrip(":"))
    return Status.DONE


COMMAND = Command(
    name="token",
    help="make a token for a client of your server",
    description="Print a new token for a client of your server, and below it the line "
    "for the file that token-file names. The line has only a hash of the token.",
    arguments=_arguments,
    perform=_perform,
    statuses=(),
)
