"""
Where a server application is asked: the rules for its URL (MC-BUP 3.2.1.1, 3.3.3).

Clients choose the destination's path and query, and the host that they claim to speak
to. None of them may choose whom we tell of uploads: only a relative URL depends on the
path, and none on the host.
"""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from urllib.parse import quote, urljoin

from attrs import frozen

from txbits.errors import InvalidSetting
from txbits.protocol.urls import ABSOLUTE, LONGEST_URL

#: All characters that a URL or a header value may show as they are.
_VISIBLE = "".join(map(chr, range(0x21, 0x7F)))

#: What comes before the path in a destination URL, as clients write it.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*", re.IGNORECASE)

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


@frozen
class Target:
    """
    What one request is sent to.

    :ivar scheme: ``"http"`` or ``"https"``.
    :ivar host: A name or an address, without brackets.
    :ivar port: The port.
    :ivar request_target: Path and query, as they stand in the request.
    """

    scheme: str
    host: str
    port: int
    request_target: str

    @property
    def authority(self) -> str:
        """What Host says, in the form that is signed (RFC 9421 2.2.3)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        is_default = self.port == _PORTS[self.scheme]
        return host if is_default else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """All of it."""
        return f"{self.scheme}://{self.authority}{self.request_target}"


_PORTS = {"http": 80, "https": 443}


def visible(text: str, safe: str = _VISIBLE) -> str:
    """Percent-encode what cannot stand in a URL or a header as it is."""
    return quote(text, safe, errors="surrogateescape")


def visible_path(address: str) -> str:
    """
    Write a path or a URL into a header, so that it can be read back.

    A path has spaces and the like as they are; what is not ASCII is percent-encoded,
    and so is a percent sign: who decodes it always gets the path. A URL is encoded
    already.
    """
    if not address.startswith("/"):
        return visible(address)
    written = visible(address, _VISIBLE.replace("%", "") + " ")
    # A space at the end of a header is none.
    return f"{written[:-1]}%20" if written.endswith(" ") else written


def check_url(url: str, public_url: str | None) -> None:
    """
    Look whether a notification URL can be used at all.

    :param url: As it was set.
    :param public_url: What a relative one is resolved against, if anything.
    :raises InvalidSetting: If not.
    """
    if len(url) > LONGEST_URL:
        raise InvalidSetting(
            f"the notification URL has {len(url):,} characters; at most "
            f"{LONGEST_URL:,} are taken"
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
            f"the notification URL {url!a} is relative, which needs a public URL; "
            "write it with http:// or https://"
        )
    else:
        _parsed(public_url, "public URL")


def resolve(url: str, public_url: str | None, request_url: str) -> Target:
    """
    Find out where the application is asked about one upload.

    :param url: The notification URL; one that was checked.
    :param public_url: What a relative one is resolved against.
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
            remedy = "it may not name a user"
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
