"""
The URL of a server application (MC-BUP 3.2.1.1, 3.3.3).

Clients choose the destination's path and query, and the host that they claim to use.
They must not be able to choose the application: only a relative URL depends on the
path, and none depends on the host.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import quote, urljoin

from attrs import frozen

from txbits.errors import InvalidSetting
from txbits.protocol.urls import ABSOLUTE, LONGEST_URL

#: The characters that a URL or a header value may contain without encoding.
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))

#: What precedes the path in a destination URL, as clients write it.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


@frozen
class Target:
    """
    The target of one request.

    :ivar scheme: ``"http"`` or ``"https"``.
    :ivar host: A name or an address, without brackets.
    :ivar port: The port.
    :ivar request_target: Path and query, as in the request.
    """

    scheme: str
    host: str
    port: int
    request_target: str

    @property
    def authority(self) -> str:
        """The value of Host, in the form that is signed (RFC 9421 2.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == _PORTS[self.scheme]
        return host if is_default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL."""
        return f"{self.scheme}://{self.authority}{self.request_target}"


_PORTS = {"http": 80, "https": 443}


def visible(text: str, safe: str = _VISIBLE) -> str:
    """Percent-encode what a URL or a header must not contain."""
    return quote(text, safe, errors="surrogateescape")


def visible_path(address: str) -> str:
    """
    Encode a path or a URL for a header.

    In a path, characters that are not ASCII, and percent signs, are percent-encoded.
    Spaces and other characters stay as they are, so that decoding always yields the
    path. A URL is already encoded.
    """
    if not address.startswith("/"):
        return visible(address)
    written = visible(address, _VISIBLE.replace("%", "") + " ")
    # A trailing space would be lost in a header.
    return f"{written[:-1]}%20" if written.endswith(" ") else written


def check_url(url: str, public_url: str | None) -> None:
    """
    Check a notification URL.

    :param url: The URL, as it was set.
    :param public_url: The base of a relative URL, if there is one.
    :raises InvalidSetting: If it is invalid.
    """
    if len(url) > LONGEST_URL:
        raise InvalidSetting(
            f"the notification URL has {len(url):,} characters; the maximum is "
            f"{LONGEST_URL:,}"
        )
    if not url or url != visible(url):
        raise InvalidSetting(
            f"the notification URL {url!a} must be ASCII without spaces; "
            "percent-encode the rest"
        )
    if "#" in url:
        raise InvalidSetting(f"the notification URL {url!a} has a fragment (#)")
    if _SCHEME.match(url):
        _parsed(url, "notification URL")
    elif public_url is None:
        raise InvalidSetting(
            f"the notification URL {url!a} is relative, which requires a public URL; "
            "add one, or begin with http:// or https://"
        )
    else:
        _parsed(public_url, "public URL")


def resolve(url: str, public_url: str | None, request_url: str) -> Target:
    """
    Determine the target of the notification of one upload.

    :param url: The notification URL, which :func:`check_url` has accepted.
    :param public_url: The base of a relative URL.
    :param request_url: The destination, as the client gave it: a URL, or path and
        query.
    """
    origin = _ORIGIN.match(request_url)
    destination = visible(request_url[origin.end() if origin else 0 :])
    path, _, query = destination.replace("#", "%23").partition("?")
    if _SCHEME.match(url) is None:
        base = _parsed(public_url or "", "public URL")
        prefix = base.request_target.partition("?")[0].rstrip("/")
        path = f"{prefix}/{path.removeprefix('/')}"
        url = urljoin(f"{base.scheme}://{base.authority}{path}", url)
    if query:
        if "?" not in url:
            url += "?"
        elif url[-1] not in "?&":
            url += "&"
        url += query
    return _parsed(url, "notification URL")


def _parsed(url: str, what: str) -> Target:
    match = ABSOLUTE.fullmatch(url)
    if match is None:
        remedy = "write http://HOST/PATH or https://HOST/PATH"
        if "@" in url.partition("//")[2].partition("/")[0]:
            remedy = "it must not contain a user name"
        raise InvalidSetting(f"the {what} {url!a} cannot be used: {remedy}")
    scheme = match["scheme"].lower()
    port = int(match["port"] or _PORTS[scheme])
    if not 0 < port < 1 << 16:
        raise InvalidSetting(f"the {what} {url!a} has a port out of range")
    if match["ipv6"]:
        try:
            IPv6Address(match["ipv6"])
        except ValueError as error:
            raise InvalidSetting(f"the {what} {url!a}: {error}") from None
    query = match["query"]
    return Target(
        scheme,
        (match["ipv6"] or match["host"]).lower(),
        port,
        (match["path"] or "/") + ("" if query is None else f"?{query}"),
    )
