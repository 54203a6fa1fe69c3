"""
Where a client sees this server, and where the server sees the client.

A URL that is handed to a client has to lead back here from where the client is. By
itself that is told by what the client used; behind a proxy only the proxy knows, and
only a proxy that is trusted is asked. What a client says of itself is in its own URLs
at most, never in another one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from urllib.parse import quote, urlsplit

from attrs import field, frozen
from twisted.internet.address import UNIXAddress
from twisted.web.server import Request

from txbits.errors import InvalidSetting
from txbits.web._forwarded import (
    Address,
    Hop,
    checked_host,
    checked_scheme,
    parse_address,
    read_hops,
)
from txbits.web._streaming import headers_of

#: Who comes over a socket of the file system, among trusted proxies.
UNIX = "unix"

# What the client has written stays as it is, also if it is wrong; but it fits a header.
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

# RFC 3986 3.3: what may stand in a segment as it is.
_IN_SEGMENT = "!$&'()*+,;=:@~"


@frozen
class TrustedProxies:
    """
    Proxies that are believed what they say of a client.

    :param names: Addresses, networks such as ``10.0.0.0/8``, and ``unix``.
    """

    names: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        networks = [_network(name) for name in self.names if name != UNIX]
        object.__setattr__(self, "_networks", tuple(networks))

    def __contains__(self, address: Address | None) -> bool:
        """Whether the proxy at this address is one; ``None`` is a socket's."""
        if address is None:
            return UNIX in self.names
        return any(address in network for network in self._networks)


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name)
    except ValueError as error:
        raise InvalidSetting(
            f"{name!a} is no address, no network, and not {UNIX!a}: {error}"
        ) from None


def checked_public_url(url: str | None) -> str | None:
    """
    Check the URL that clients see the root of the server at.

    :returns: It, without a slash at its end.
    :raises InvalidSetting: If it is none.
    """
    if url is None:
        return None
    problem = None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidSetting(f"{url!a} is no URL: {error}") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        problem = "has characters that a URL has to have encoded"
    elif checked_scheme(parts.scheme) is None:
        problem = "does not begin with http:// or https://"
    elif checked_host(parts.netloc) is None:
        problem = "names no host that clients could ask for"
    elif "?" in url or "#" in url:
        problem = "has a query or a fragment, and paths are put behind it"
    if problem:
        raise InvalidSetting(f"{url!a} {problem}")
    return url.rstrip("/")


@frozen
class Origins:
    """
    Finds out what a request was sent to, and who has sent it.

    :ivar public_url: What clients see the root of the server at, whatever they say.
    :ivar trusted: The proxies that are believed.
    """

    public_url: str | None = field(default=None, converter=checked_public_url)
    trusted: TrustedProxies = field(factory=TrustedProxies)

    @classmethod
    def of(cls, public_url: str | None, trusted_proxies: Iterable[str]) -> Origins:
        """
        Make one from settings.

        :raises InvalidSetting: If one of them cannot be used.
        """
        return cls(public_url, TrustedProxies(trusted_proxies))

    def client(self, request: Request) -> str:
        """The address of the client, for the log; ``-`` if it has none."""
        peer = request.getClientAddress()
        host: str = getattr(peer, "host", "-")
        if not self.trusted.names:
            return host
        address, _ = self._walk(request)
        return host if address is None else str(address)

    def base(self, request: Request) -> str:
        """
        The URL at which the client of a request sees the root of the server.

        :returns: It, without a slash at its end.
        """
        if self.public_url is not None:
            return self.public_url
        scheme, host = _asked_for(request)
        said = self._walk(request)[1] if self.trusted.names else None
        if said is None:
            return f"{scheme}://{host}"
        return f"{said.scheme or scheme}://{said.host or host}{said.prefix}"

    def directory(self, request: Request) -> str:
        """The URL of the virtual directory that a request has reached, likewise."""
        above = [quote(one, safe=_IN_SEGMENT) for one in request.prepath or () if one]
        return "/".join([self.base(request), *above])

    def destination(self, request: Request) -> str:
        """The URL that a request was sent to, with its query."""
        target: bytes = request.uri
        if not target.startswith(b"/"):
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        return self.base(request) + quote(target, safe=_PRINTABLE)

    def _walk(self, request: Request) -> tuple[Address | None, Hop | None]:
        """
        Go from us toward the client, as far as trust goes.

        :returns: The address where trust ends, ``None`` for a socket's; and what the
            last trusted proxy has said, if there is one.
        """
        peer = request.getClientAddress()
        address = _parsed(getattr(peer, "host", ""))
        if address is None and not isinstance(peer, UNIXAddress):
            return None, None
        said = None
        if address in self.trusted:
            said = Hop()
            for hop in reversed(read_hops(headers_of(request))):
                # What the one further out leaves open, the one nearer may have told.
                said = Hop(
                    hop.address,
                    hop.scheme or said.scheme,
                    hop.host or said.host,
                    hop.prefix or said.prefix,
                )
                if hop.address is None:
                    break
                address = hop.address
                if address not in self.trusted:
                    break
        return address, said


_parsed = lru_cache(1024)(parse_address)


def _asked_for(request: Request) -> tuple[str, str]:
    """The scheme and the host that the request itself names."""
    scheme = "https" if request.isSecure() else "http"
    target = request.uri.decode("latin-1")
    if not target.startswith("/"):
        # RFC 9112 3.2.2: an absolute URL stands above the Host header.
        named, _, rest = target.partition("://")
        host = checked_host(rest.partition("/")[0].partition("?")[0])
        if host is not None:
            return checked_scheme(named) or scheme, host
    hosts = headers_of(request).get(b"host", ())
    host = checked_host(hosts[0].decode("latin-1")) if len(hosts) == 1 else None
    if host is not None:
        return scheme, host
    local = request.getHost()
    name, port = getattr(local, "host", "localhost"), getattr(local, "port", None)
    if ":" in name:
        name = f"[{name}]"
    return scheme, name if port is None else f"{name}:{port}"
