"""
Reads the headers in which proxies describe the requests that they forward:
``Forwarded`` (RFC 7239), and the older ``X-Forwarded-`` headers.

A client may have written any of them. So all limits are fixed here, and
:mod:`txbits.web._origin` decides which proxies are trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from attrs import frozen

Address = IPv4Address | IPv6Address

#: Maximum length of all headers of one name together, in bytes, and maximum number of
#: hops. The rest is ignored.
MAX_LENGTH = 4096
MAX_HOPS = 32

_MAX_PREFIX = 1024

# RFC 7239 4. Unquoted values may also have the colon and the brackets of addresses,
# because some proxies do not quote them.
_NAME = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_PAIR = re.compile(
    rf"[ \t]*(?:({_NAME})=(?:([-!#$%&'*+.^_`|~0-9A-Za-z:\[\]]+)"
    r'|"((?:[^"\\]|\\.)*)")[ \t]*)?([;,]|$)'
)
_ESCAPED = re.compile(r"\\(.)")

_HOST = re.compile(r"(?:([-.\w]{1,255})|\[([0-9A-Fa-f:.]+)\])(?::([0-9]{1,5}))?", re.A)
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[-.~!$&'()*+,;=:@\w]+)+", re.A)
_PORT = re.compile(r":[0-9]{1,5}$")


@frozen
class Hop:
    """
    What one proxy tells about a request.

    :ivar address: Who sent it to that proxy; ``None`` if that is not an address.
    :ivar scheme: ``"http"`` or ``"https"``; ``None`` if unknown.
    :ivar host: The requested host, perhaps with a port; ``None`` if unknown.
    :ivar prefix: The prefix that the proxy has removed from the path.
    """

    address: Address | None = None
    scheme: str | None = None
    host: str | None = None
    prefix: str = ""


def read_hops(headers: Mapping[bytes, Sequence[bytes]]) -> list[Hop]:
    """
    Read what proxies tell, the one next to the client first.

    If there is a ``Forwarded``, the other headers are ignored. Malformed values are
    ignored, too.

    :param headers: Values by lower-case name.
    """
    forwarded = _joined(headers, b"forwarded")
    if forwarded is not None:
        return _parse_forwarded(forwarded)
    addresses = _elements(headers, b"x-forwarded-for")[-MAX_HOPS:]
    hops = [Hop(parse_address(one)) for one in addresses[:-1]]
    last = addresses[-1] if addresses else ""
    scheme = _elements(headers, b"x-forwarded-proto")
    host = _elements(headers, b"x-forwarded-host")
    prefix = _elements(headers, b"x-forwarded-prefix")
    said = Hop(
        parse_address(last),
        checked_scheme(scheme[-1]) if scheme else None,
        checked_host(host[-1]) if host else None,
        checked_prefix(prefix[-1]) if prefix else "",
    )
    # These three have one value only, which the proxy next to the server sets.
    return [*hops, said]


def _parse_forwarded(value: str) -> list[Hop]:
    hops: list[Hop] = []
    pairs: dict[str, str] = {}
    position = 0
    while position <= len(value):
        match = _PAIR.match(value, position)
        if match is None:
            return []
        name, token, quoted, separator = match.groups()
        if name is not None:
            text = token if quoted is None else _ESCAPED.sub(r"\1", quoted)
            if pairs.setdefault(name.lower(), text) is not text:
                return []
        if separator != ";" and pairs:
            hops.append(
                Hop(
                    parse_address(pairs.get("for", "")),
                    checked_scheme(pairs.get("proto", "")),
                    checked_host(pairs.get("host", "")),
                )
            )
            pairs = {}
        position = match.end() if separator else len(value) + 1
    return hops[-MAX_HOPS:]


def parse_address(text: str) -> Address | None:
    """
    Read an address, perhaps with a port, or in brackets.

    :returns: ``None`` if it is not one, such as ``unknown``.
    """
    if text.startswith("["):
        text = _PORT.sub("", text) if not text.endswith("]") else text
        if not text.endswith("]"):
            return None
        text = text[1:-1]
    elif text.count(":") == 1:
        text = _PORT.sub("", text)
    if "%" in text:
        return None  # a zone has a meaning on the other machine only
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def checked_scheme(text: str) -> str | None:
    """The scheme in lower case; ``None`` if it is not HTTP."""
    return lower if (lower := text.lower()) in ("http", "https") else None


def checked_host(text: str) -> str | None:
    """The host, perhaps with a port, as in a URL; ``None`` if it is invalid."""
    match = _HOST.fullmatch(text)
    if match is None:
        return None
    name, address, port = match.groups()
    if port is not None and not 0 < int(port) < 65536:
        return None
    if name is None:
        found = parse_address(address)
        if not isinstance(found, IPv6Address):
            return None
    return text


def checked_prefix(text: str) -> str:
    """The prefix of a path, without a trailing slash; empty if it is invalid."""
    text = text.rstrip("/")
    return text if len(text) <= _MAX_PREFIX and _PREFIX.fullmatch(text) else ""


def _joined(headers: Mapping[bytes, Sequence[bytes]], name: bytes) -> str | None:
    values = headers.get(name)
    if values is None:
        return None
    joined = b",".join(values)
    return joined.decode("latin-1") if len(joined) <= MAX_LENGTH else ""


def _elements(headers: Mapping[bytes, Sequence[bytes]], name: bytes) -> list[str]:
    joined = _joined(headers, name)
    return [] if joined is None else [one.strip(" \t") for one in joined.split(",")]
