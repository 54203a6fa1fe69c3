"""
Options that more than one command has: how the server is reached, and what is said.

Passwords come from the environment, from a file, or from a question on the terminal.
They do not stand on a command line, which all users of a machine can read.
"""

from __future__ import annotations

import argparse
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from txbits.client._journals import state_directory
from txbits.client._netrc import password_of
from txbits.client._url import parse_proxy
from txbits.client.commands import _types
from txbits.client.commands._command import Context, UsageError
from txbits.client.job import DEFAULT_RETRY_FOR
from txbits.client.journal import JournalError
from txbits.client.settings import (
    ConnectionSettings,
    Credentials,
    InvalidSettings,
    check_header,
)
from txbits.client.source import printable

_ASKED = "if the server asks, with Basic or Digest"
_BASIC = "with Basic, in each request"

#: A file of certificates, keys or headers is not longer than this, in bytes.
_LONGEST = 4 * 1024 * 1024

#: Said where the file system has no locks.
NOT_ALONE = "this file system has no locks; do not run this command twice at once"


def add_connection_options(
    parser: argparse.ArgumentParser, *, is_direct: bool = False
) -> None:
    """
    Add what says how the server is reached.

    :param is_direct: Whether there is no way through a proxy, and no Digest.
    """
    group = parser.add_argument_group("how the server is reached")
    add = group.add_argument
    add(
        "--user",
        metavar="NAME",
        type=_types.user,
        help=f"who to be {_BASIC if is_direct else _ASKED}; the password is that of "
        "TXBITS_PASSWORD, of ~/.netrc, or asked for",
    )
    add(
        "--header",
        metavar="NAME: VALUE",
        type=_types.header,
        action="append",
        default=[],
        help="send a header with each request; @FILE reads them from a file, one a "
        "line; may be repeated",
    )
    if is_direct:
        parser.set_defaults(proxy=None, proxy_user=None)
    else:
        _add_proxy_options(add)
    add("--cacert", metavar="FILE", help="trust these authorities only, in PEM")
    add("--cert", metavar="FILE", help="show this certificate to the server, in PEM")
    add("--key", metavar="FILE", help="its key, if that is in a file of its own")


def _add_proxy_options(add: Callable[..., argparse.Action]) -> None:
    add(
        "--proxy",
        metavar="URL",
        type=_types.proxy,
        help="reach the server through an HTTP proxy, http://HOST:PORT",
    )
    add(
        "--proxy-user",
        metavar="NAME",
        type=_types.user,
        help="who to be if the proxy asks; the password is that of "
        "TXBITS_PROXY_PASSWORD, of ~/.netrc, or asked for",
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add who else is told what is meant for the server."""
    parser.add_argument(
        "--trust-host-id",
        action="store_true",
        help="send the password, the headers and the certificate also to another host "
        "that the server names for the upload (BITS-Host-Id)",
    )


def add_retry_option(parser: argparse.ArgumentParser) -> None:
    """Add how long a transfer goes on without progress."""
    parser.add_argument(
        "--retry-for",
        metavar="DURATION",
        type=_types.duration,
        default=DEFAULT_RETRY_FOR,
        help="how long to try again without progress: seconds, or 15m, 12h, 14d "
        "(default: 10m)",
    )


def add_state_option(parser: argparse.ArgumentParser) -> None:
    """Add what says where journals are."""
    parser.add_argument(
        "--state",
        metavar="PATH",
        help="the journal, or the folder of the journals (default: "
        "~/.local/state/txbits, or txbits in XDG_STATE_HOME)",
    )


def connection_settings(
    context: Context, options: argparse.Namespace, url: str
) -> ConnectionSettings:
    """
    Make of the options what they say.

    :param url: Where the server is, for the password's sake.
    :raises UsageError: If a file cannot be read, or a password cannot be had.
    """
    key, certificate = options.key, options.cert
    if key is not None and certificate is None:
        raise UsageError("--key is nothing without --cert")
    credentials = proxy_credentials = None
    if options.user is not None:
        host = urlsplit(url).hostname or ""
        credentials = _credentials(context, options.user, host, "TXBITS_PASSWORD")
    if options.proxy_user is not None:
        if options.proxy is None:
            raise UsageError("--proxy-user is nothing without --proxy")
        host, _ = parse_proxy(options.proxy)
        proxy_credentials = _credentials(
            context, options.proxy_user, host, "TXBITS_PROXY_PASSWORD"
        )
    return ConnectionSettings(
        headers=_headers(options.header),
        credentials=credentials,
        proxy=options.proxy,
        proxy_credentials=proxy_credentials,
        authorities=None if options.cacert is None else read_file(options.cacert),
        certificate=None if certificate is None else read_file(certificate),
        key=None if key is None else read_file(key),
        limit_rate=getattr(options, "limit_rate", None),
        trust_host_id=getattr(options, "trust_host_id", False),
    )


def state_path(context: Context, options: argparse.Namespace) -> Path:
    """
    Where the journals are.

    :raises UsageError: If that cannot be told.
    """
    if options.state is not None:
        return Path(options.state)
    try:
        return state_directory(context.environ)
    except JournalError as error:
        raise UsageError(f"{error}; --state says it as well") from error


def read_file(path: str) -> bytes:
    """
    Read a small file.

    :raises UsageError: If that cannot be done.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_LONGEST + 1)
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise UsageError(f"{printable(path)}: {words}") from error
    if len(data) > _LONGEST:
        raise UsageError(f"{printable(path)} is too long")
    return data


def _headers(given: list[tuple[str, str]]) -> list[tuple[str, str]]:
    found = []
    for name, value in given:
        if name:
            found.append((name, value))
            continue
        for line in read_file(value).decode("utf-8", "replace").splitlines():
            if not line.strip():
                continue
            name, colon, text = line.partition(":")
            try:
                if not colon:
                    raise InvalidSettings("a line is not NAME: VALUE")
                check_header(name.strip(), text.strip())
            except InvalidSettings as error:
                raise UsageError(f"{printable(value)}: {error}") from error
            found.append((name.strip(), text.strip()))
    return found


def _credentials(context: Context, user: str, host: str, variable: str) -> Credentials:
    password = context.environ.get(variable)
    if password is None:
        password = _from_netrc(context, user, host)
    if password is None:
        password = context.ask_password(f"Password of {user} at {host}: ")
    if password is None:
        raise UsageError(
            f"there is no password of {user}: put it into {variable} or ~/.netrc"
        )
    return Credentials(user, password)


def _from_netrc(context: Context, user: str, host: str) -> str | None:
    path = context.environ.get("NETRC")
    if not path:
        path = os.path.join(_home(context), ".netrc")
    if not os.path.exists(path):
        return None
    # A password of bytes that are no UTF-8 goes out as it is.
    text = read_file(path).decode("utf-8", "surrogateescape")
    try:
        return password_of(user, host, text)
    except ValueError as error:
        raise UsageError(
            f"{printable(path)} is not a valid netrc file: {error}"
        ) from error


def _home(context: Context) -> str:
    home = context.environ.get("HOME")
    if home:
        return home
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        # As in a container that runs as some number.
        return os.path.sep
