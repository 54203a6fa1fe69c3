"""
URLs: checking and encoding those of users and servers.
"""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from twisted.python.url import URL

from txbits.protocol.urls import LINK_PARAMETER, links_of, without_link

_PROXY = re.compile(r"http://(\[[0-9A-Fa-f:.]+\]|[^\s/:@]+)(?::([0-9]{1,5}))?/?")


class InvalidURL(ValueError):
    """The URL is invalid or not supported; the text is one line that says why."""


# A server, and a path that needs no encoding.
_PLAIN = re.compile(r"(https?://[^/?#\\\s]+/)([-._~/0-9A-Za-z]*)")


def to_wire(text: str) -> str:
    """
    Check a URL, and percent-encode it where needed.

    Percent-encoding by the user stays unchanged: to some servers ``%2F`` differs from
    ``/``, and access tokens in a query are often signed.

    :returns: The URL in ASCII.
    :raises InvalidURL: If it is invalid or not supported.
    """
    # Files of one folder have one server, and most of their names are plain.
    match = _PLAIN.fullmatch(text)
    return _encoded(text) if match is None else _encoded(match[1]) + match[2]


@lru_cache(maxsize=64)
def _encoded(text: str) -> str:
    shown = without_link(text)
    if any(c in "\t\r\n" or ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise InvalidURL(f"{shown!r} has control characters in it")
    if "://" not in text or text.split("://")[0].lower() not in ("http", "https"):
        raise InvalidURL(f"{shown!r} does not begin with http:// or https://")
    if "#" in text:
        raise InvalidURL(f"{shown!r} has a '#' in it; write %23 if it is meant")
    try:
        url = URL.fromText(text)
        url = url.replace(scheme=url.scheme.lower())
        host = url.host
        # The encoding of a name takes most of the time; see _in_ascii().
        encoded = url.replace(host="h" if host else "").to_uri()
        encoded = encoded.replace(host=_in_ascii(host))
    except ValueError as error:
        raise InvalidURL(
            f"{shown!r} is not a URL: {without_link(str(error))}"
        ) from error
    if not host:
        raise InvalidURL(f"{shown!r} names no host")
    if url.userinfo:
        raise InvalidURL("a user name in the URL is not supported")
    if not 0 < (url.port or 0) < 65536:
        raise InvalidURL(f"{shown!r} has a port that does not exist")
    return encoded.to_text()


@lru_cache(maxsize=64)
def _in_ascii(host: str) -> str:
    # to_uri() would take an IPv6 address for a name.
    is_name = host and ":" not in host
    return URL(scheme="http", host=host).to_uri().host if is_name else host


def with_host(url: str, host: str) -> str:
    """
    Put another host into a URL (MC-BUP 2.2.3.2, BITS-Host-ID).

    :param host: A name or an address. A port is optional; that of the URL stays
        otherwise.
    """
    parts = urlsplit(url)
    if host.count(":") > 1 and not host.startswith("["):
        # RFC 2373 writes addresses without brackets.
        host = f"[{host}]"
    has_port = ":" in host.rpartition("]")[2]
    if parts.port is not None and not has_port:
        host = f"{host}:{parts.port}"
    return urlunsplit(parts._replace(netloc=host))


def resolve_reply(destination: str, text: str) -> str:
    """
    Turn a BITS-Reply-URL into an absolute URL.

    IIS sends paths with backslashes, and braces that are not encoded.

    :param destination: The base of a relative URL.
    :raises InvalidURL: If it is invalid or not supported.
    """
    text = text.strip(" \t").replace("\\", "/")
    try:
        url = urljoin(destination, quote(text, safe="%/:?#[]@!$&'()*+,;=~"))
        return to_wire(url.partition("#")[0])
    except ValueError as error:
        raise InvalidURL(f"the server gave {text!r} as reply URL") from error


def with_link_of(url: str, other: str) -> str:
    """
    Append the upload links of another URL, if it has any.

    :param url: An encoded URL.
    :param other: Likewise.
    """
    parameters = [
        f"{LINK_PARAMETER}={quote(link)}"
        for link in links_of(urlsplit(other).query.encode("ascii"))
    ]
    if not parameters:
        return url
    return url + ("&" if "?" in url else "?") + "&".join(parameters)


def same_server(one: str, other: str) -> bool:
    """
    Check whether two encoded URLs have the same scheme, host name and port.

    Another port is another server, which may belong to another user of the machine.
    Names are compared without resolving them.
    """
    return _server_of(one) == _server_of(other)


def _server_of(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def parse_proxy(text: str) -> tuple[str, int]:
    """
    Read the URL of an HTTP proxy.

    :returns: Host and port.
    :raises InvalidURL: If it is invalid, or contains a user name.
    """
    if "://" not in text:
        text = f"http://{text}"
    if "@" in text:
        raise InvalidURL("a user name in the URL of a proxy is not supported")
    match = _PROXY.fullmatch(text)
    port = int(match[2] or 8080) if match else 0
    if match is None or not 0 < port < 65536:
        raise InvalidURL(f"{text!r} is not the URL of an HTTP proxy")
    return match[1].strip("[]"), port


def without_query(url: str) -> str:
    """Remove the query, which may contain a token."""
    return url.partition("?")[0]


def target_of(url: str) -> bytes:
    """The request target of a URL."""
    parts = urlsplit(url)
    path = parts.path or "/"
    return (f"{path}?{parts.query}" if parts.query else path).encode("ascii")
