"""
The URLs at which clients reach the server, and the addresses of clients.

A URL that is sent to a client must be valid where the client is. Without a proxy, it
begins as the URL that the client used. Behind a proxy, headers of the proxy tell, if it
is trusted. What an untrusted client claims affects no URLs but its own.
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
from txbits.protocol.urls import without_link
from txbits.web._forwarded import (
    Address,
    Hop,
    checked_host,
    checked_scheme,
    parse_address,
    read_hops,
)
from txbits.web._streaming import headers_of

#: The name of a Unix socket among trusted proxies.
UNIX = "unix"

# What the client has written stays as it is, valid or not, but must fit a header.
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))

# RFC 3986 3.3: the characters that need no encoding in a segment.
_IN_SEGMENT = "!$&'()*+,;=:@~"


@frozen
class TrustedProxies:
    """
    Proxies whose information about clients is trusted.

    :param names: Addresses, networks such as ``10.0.0.0/8``, and ``unix``.
    """

    names: tuple[str, ...] = field(default=(), converter=tuple[str, ...])
    _networks: tuple[IPv4Network | IPv6Network, ...] = field(init=False)

    def __attrs_post_init__(self) -> None:
        networks = [_network(name) for name in self.names if name != UNIX]
        object.__setattr__(self, "_networks", tuple(networks))

    def __contains__(self, address: Address | None) -> bool:
        """Whether this address is trusted; ``None`` stands for a Unix socket."""
        if address is None:
            return UNIX in self.names
        return any(address in network for network in self._networks)


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name)
    except ValueError as error:
        raise InvalidSetting(
            f"{name!a} is not an address, a network, or {UNIX!a}: {error}"
        ) from None


def checked_public_url(url: str | None) -> str | None:
    """
    Check the URL of the server's root, as clients see it.

    :returns: The URL without a trailing slash.
    :raises InvalidSetting: If it is invalid.
    """
    if url is None:
        return None
    problem = None
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InvalidSetting(f"{url!a} is not a URL: {error}") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        problem = "has characters that must be percent-encoded"
    elif checked_scheme(parts.scheme) is None:
        problem = "does not begin with http:// or https://"
    elif checked_host(parts.netloc) is None:
        problem = "has no valid host"
    elif "?" in url or "#" in url:
        problem = "must not have a query or a fragment"
    if problem:
        raise InvalidSetting(f"{url!a} {problem}")
    return url.rstrip("/")


@frozen
class Origins:
    """
    Determines the URL that a request was sent to, and its sender.

    :ivar public_url: The URL of the server's root, if it does not depend on requests.
    :ivar trusted: The proxies that are trusted.
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

    def comes_from_trusted_proxy(self, request: Request) -> bool:
        """Whether the peer of the connection is a proxy that is trusted."""
        if not self.trusted.names:
            return False
        peer = request.getClientAddress()
        address = _parsed(getattr(peer, "host", ""))
        if address is None and not isinstance(peer, UNIXAddress):
            return False
        return address in self.trusted

    def base(self, request: Request) -> str:
        """
        The URL of the server's root, as the client of a request sees it.

        :returns: The URL without a trailing slash.
        """
        if self.public_url is not None:
            return self.public_url
        scheme, host = _asked_for(request)
        said = self._walk(request)[1] if self.trusted.names else None
        if said is None:
            return f"{scheme}://{host}"
        return f"{said.scheme or scheme}://{said.host or host}{said.prefix}"

    def directory(self, request: Request) -> str:
        """The URL of the virtual directory that a request has reached."""
        above = [quote(one, safe=_IN_SEGMENT) for one in request.prepath or () if one]
        return "/".join([self.base(request), *above])

    def destination(self, request: Request) -> str:
        """
        The URL that a request was sent to, with its query.

        An upload link is left out: whoever knows it can upload.
        """
        target: bytes = request.uri
        if not target.startswith(b"/"):
            target = b"/" + target.partition(b"://")[2].partition(b"/")[2]
        return self.base(request) + without_link(quote(target, safe=_PRINTABLE))

    def _walk(self, request: Request) -> tuple[Address | None, Hop | None]:
        """
        Follow the proxies from the server to the client, as far as they are trusted.

        :returns: The first address that is not trusted, ``None`` for a Unix socket; and
            what the last trusted proxy tells, if there is one.
        """
        peer = request.getClientAddress()
        address = _parsed(getattr(peer, "host", ""))
        if address is None and not isinstance(peer, UNIXAddress):
            return None, None
        said = None
        if address in self.trusted:
            said = Hop()
            for hop in reversed(read_hops(headers_of(request))):
                # What this proxy does not tell, a nearer one may have told.
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
    """The scheme and the host according to the request itself."""
    scheme = "https" if request.isSecure() else "http"
    target = request.uri.decode("latin-1")
    if not target.startswith("/"):
        # RFC 9112 3.2.2: an absolute URL takes precedence over the Host header.
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
