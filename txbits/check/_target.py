"""
Where a run takes place: the server's address, and names for files on it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any
from uuid import uuid4

from attrs import define, field
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.url import URL
from twisted.web.client import BrowserLikePolicyForHTTPS

from txbits.client._url import to_wire

_PORTS = {"http": 80, "https": 443}


def _new_prefix() -> str:
    return f"txbits-check-{uuid4().hex[:12]}"


@define(eq=False)
class Target:
    """
    A folder of a server.

    :ivar url: Its URL, in ASCII, ending with a slash; a query, which may be an access
        token, is kept for all requests.
    :ivar headers: What goes with each request besides, such as credentials.
    """

    url: URL
    headers: Sequence[tuple[bytes, bytes]] = ()
    prefix: str = field(factory=_new_prefix)
    _numbers: Any = field(init=False, factory=count)

    @classmethod
    def of(cls, text: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> Target:
        """
        Take the URL that a user gives.

        :raises txbits.client.InvalidURL: If it is none.
        """
        url = URL.fromText(to_wire(text))
        segments = [segment for segment in url.path if segment]
        return cls(url.replace(path=[*segments, ""]), headers)

    @property
    def host(self) -> bytes:
        """The value of the Host header."""
        name = f"[{self.url.host}]" if ":" in self.url.host else self.url.host
        is_default = self.url.port == _PORTS[self.url.scheme]
        return (name if is_default else f"{name}:{self.url.port}").encode("ascii")

    def new_name(self) -> bytes:
        """Make up a name for a file; each is another."""
        return f"{self.prefix}-{next(self._numbers)}.bin".encode("ascii")

    def target(self, name: bytes) -> bytes:
        """Write the request target of a file in the folder, or of the folder."""
        path = "/".join(self.url.path).encode("ascii")
        query = self.url.to_text().partition("?")[2].encode("ascii")
        return b"/%b%b" % (path, name) + (b"?" + query if query else b"")

    def absolute(self, target: bytes) -> bytes:
        """Write a request target as a URL."""
        return self.url.scheme.encode("ascii") + b"://" + self.host + target

    def shown(self, target: bytes = b"") -> str:
        """Write a URL for people: without its query, which may be a secret."""
        url = self.absolute(target or self.target(b""))
        return url.partition(b"?")[0].decode("ascii")

    def endpoint(
        self,
        reactor: Any,
        patience: float,
        policy: Callable[[], Any] = BrowserLikePolicyForHTTPS,
    ) -> IStreamClientEndpoint:
        """Make the endpoint that connects to the server."""
        host, port = self.url.host, self.url.port or _PORTS[self.url.scheme]
        endpoint = HostnameEndpoint(reactor, host, port, timeout=patience)
        if self.url.scheme == "http":
            return endpoint
        options = policy().creatorForNetloc(host.encode("ascii"), port)
        return wrapClientTLS(options, endpoint)
