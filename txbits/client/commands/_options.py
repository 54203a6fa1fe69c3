"""
Options that several commands share.

Passwords and tokens come from the environment, a file, or a prompt on the terminal, but
never from the command line, which all users of a machine can read.
"""

from __future__ import annotations

import argparse
import os
import pwd
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from txbits._units import DURATIONS
from txbits.client._journals import state_directory
from txbits.client._netrc import password_of
from txbits.client._proxies import FoundProxy, proxy_from
from txbits.client._url import InvalidURL, parse_proxy
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

_ASKED = "for Basic or Digest, if the server requires it"
_BASIC = "sent with each request (Basic)"

#: The maximum length in bytes of a file with certificates, keys or headers.
_LONGEST = 4 * 1024 * 1024

#: The warning where the file system has no locks.
NOT_ALONE = (
    "this file system does not support locks; do not run this command twice at a time"
)


def add_connection_options(
    parser: argparse.ArgumentParser,
    *,
    is_direct: bool = False,
    has_proxies: bool = True,
) -> None:
    """
    Add the options of the connection.

    :param is_direct: Whether neither proxies nor Digest are supported.
    :param has_proxies: Whether proxies are.
    """
    group = parser.add_argument_group("connection")
    add = group.add_argument
    add(
        "--user",
        metavar="NAME",
        type=_types.user,
        help=f"user name, {_BASIC if is_direct else _ASKED}; the password is read from "
        "TXBITS_PASSWORD, ~/.netrc, or the terminal",
    )
    add(
        "--negotiate",
        action="store_true",
        help="log in with your Kerberos ticket (see kinit) if the server asks for "
        "Negotiate",
    )
    add(
        "--token-file",
        metavar="FILE",
        help="bearer token, in a file that other users cannot read; without it, the "
        "token is read from TXBITS_TOKEN",
    )
    add(
        "--allow-plain-token",
        action="store_true",
        help="send the token to another host even without TLS",
    )
    add(
        "--header",
        metavar="NAME: VALUE",
        type=_types.header,
        action="append",
        default=[],
        help="header to send with each request; @FILE reads headers from a file, one "
        "per line; can be repeated",
    )
    if is_direct or not has_proxies:
        parser.set_defaults(proxy="", proxy_user=None)
    else:
        _add_proxy_options(add)
    add(
        "--cacert",
        metavar="FILE",
        help="trusted authorities (PEM), instead of the system's",
    )
    add("--cert", metavar="FILE", help="client certificate (PEM)")
    add("--key", metavar="FILE", help="private key, if not in --cert's file")


def _add_proxy_options(add: Callable[..., argparse.Action]) -> None:
    add(
        "--proxy",
        metavar="URL",
        type=_types.proxy,
        help="HTTP proxy, http://HOST:PORT, or an empty string for none (default: as "
        "http_proxy, https_proxy, all_proxy and no_proxy say)",
    )
    add(
        "--proxy-user",
        metavar="NAME",
        type=_types.user,
        help="user name for the proxy; the password is read from "
        "TXBITS_PROXY_PASSWORD, ~/.netrc, or the terminal",
    )


def add_trust_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that sends credentials to other hosts."""
    parser.add_argument(
        "--trust-host-id",
        action="store_true",
        help="also send password, token, ticket, headers and certificate to a host "
        "that the server names for the upload (BITS-Host-Id)",
    )


def add_retry_option(parser: argparse.ArgumentParser) -> None:
    """Add how long a transfer may be without progress."""
    parser.add_argument(
        "--retry-for",
        metavar="DURATION",
        type=_types.duration,
        default=DEFAULT_RETRY_FOR,
        help=f"how long to retry without progress: {DURATIONS} (default: 10m)",
    )


def add_state_option(parser: argparse.ArgumentParser) -> None:
    """Add the place of the journals."""
    parser.add_argument(
        "--state",
        metavar="PATH",
        help="journal file, or directory of journals (default: ~/.local/state/txbits, "
        "or txbits in XDG_STATE_HOME)",
    )


def connection_settings(
    context: Context, options: argparse.Namespace, url: str
) -> ConnectionSettings:
    """
    Read the connection settings from the options.

    :param url: The server's URL, to look up the password.
    :raises UsageError: If a file cannot be read, or there is no password.
    :raises InvalidSettings: If the token cannot be used.
    """
    key, certificate = options.key, options.cert
    if key is not None and certificate is None:
        raise UsageError("--key needs --cert")
    credentials = proxy_credentials = None
    if options.user is not None:
        host = urlsplit(url).hostname or ""
        credentials = _credentials(context, options.user, host, "TXBITS_PASSWORD")
    proxy = options.proxy or None
    if options.proxy is None:
        found = proxy_of(context.environ, url)
        if found is not None:
            proxy, proxy_credentials = found.url, found.credentials
    if options.proxy_user is not None:
        if proxy is None:
            raise UsageError("--proxy-user needs a proxy")
        host, _ = parse_proxy(proxy)
        proxy_credentials = _credentials(
            context, options.proxy_user, host, "TXBITS_PROXY_PASSWORD"
        )
    token = None
    if options.token_file is None:
        token = context.environ.get("TXBITS_TOKEN") or None
    settings = ConnectionSettings(
        headers=_headers(options.header),
        credentials=credentials,
        proxy=proxy,
        proxy_credentials=proxy_credentials,
        authorities=None if options.cacert is None else read_file(options.cacert),
        certificate=None if certificate is None else read_file(certificate),
        key=None if key is None else read_file(key),
        limit_rate=getattr(options, "limit_rate", None),
        trust_host_id=getattr(options, "trust_host_id", False),
        negotiate=options.negotiate,
        token=token,
        token_file=options.token_file,
        allow_plain_token=options.allow_plain_token,
    )
    if settings.says_token_unasked:
        settings.check_way_of_token(url)
    # A file that cannot be used is told before anything is sent.
    settings.get_token()
    return settings


def proxy_of(environ: Mapping[str, str], url: str) -> FoundProxy | None:
    """
    Find the proxy that the environment names for a URL.

    :raises UsageError: If it cannot be used.
    """
    try:
        return proxy_from(environ, url)
    except (InvalidURL, InvalidSettings) as error:
        raise UsageError(str(error)) from error


def state_path(context: Context, options: argparse.Namespace) -> Path:
    """
    Tell where the journals are.

    :raises UsageError: If neither the options nor the environment say so.
    """
    if options.state is not None:
        return Path(options.state)
    try:
        return state_directory(context.environ)
    except JournalError as error:
        raise UsageError(f"{error}; use --state") from error


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
                    raise InvalidSettings("a line is not of the form NAME: VALUE")
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
        password = context.ask_password(f"Password for {user} at {host}: ")
    if password is None:
        raise UsageError(
            f"no password for {user}: set {variable} or add it to ~/.netrc"
        )
    return Credentials(user, password)


def _from_netrc(context: Context, user: str, host: str) -> str | None:
    path = context.environ.get("NETRC")
    if not path:
        path = os.path.join(_home(context), ".netrc")
    if not os.path.exists(path):
        return None
    # Passwords that are not UTF-8 are sent unchanged.
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
        # A container may run under a user ID that has no name.
        return os.path.sep
