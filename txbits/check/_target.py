"""
The folder that a run uses: the server's address, and names for files.
"""

from __future__ import annotations

from base64 import b64encode
from itertools import count
from typing import Any
from uuid import uuid4

from attrs import define, evolve, field
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.threads import deferToThread
from twisted.python.url import URL

from txbits.client._http import TrustPolicy
from txbits.client._login import Login
from txbits.client._url import to_wire
from txbits.client.settings import ConnectionSettings, InvalidSettings

_PORTS = {"http": 80, "https": 443}


def _new_prefix() -> str:
    return f"txbits-check-{uuid4().hex[:12]}"


@define(eq=False)
class Target:
    """
    A folder of a server.

    :ivar url: Its URL, in ASCII, with a trailing slash. All requests have its query,
        which may be an access token.
    :ivar settings: How to connect to the server.
    """

    url: URL
    settings: ConnectionSettings = field(factory=ConnectionSettings)
    prefix: str = field(factory=_new_prefix)
    _numbers: Any = field(init=False, factory=count)

    @classmethod
    def of(cls, text: str, settings: ConnectionSettings | None = None) -> Target:
        """
        Parse the URL that a user gives.

        :raises txbits.client.InvalidURL: If it is invalid.
        :raises txbits.client.InvalidSettings: If the token cannot be used.
        """
        settings = ConnectionSettings() if settings is None else settings
        settings.check_way_of_token(to_wire(text))
        # A check is short enough for one token.
        settings = evolve(settings, token=settings.get_token(), token_file=None)
        url = URL.fromText(to_wire(text))
        if settings.negotiate:
            # This checks that it is possible.
            Login(settings, deferToThread)
        segments = [segment for segment in url.path if segment]
        folder = url.replace(path=[*segments, ""])
        return cls(folder, settings)

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Additional headers of each request, such as credentials."""
        headers = [
            (name.encode("ascii"), value.encode("utf-8"))
            for name, value in self.settings.headers
        ]
        # A challenge would take the place of the answer that a check inspects.
        credentials, token = self.settings.credentials, self.settings.token
        if self.settings.negotiate:
            # The connection is the user's.
            return headers
        if token is not None:
            headers.append((b"Authorization", b"Bearer " + token.encode("ascii")))
        elif credentials is not None:
            pair = f"{credentials.user}:{credentials.password}"
            encoded = b64encode(pair.encode("utf-8", "surrogateescape"))
            headers.append((b"Authorization", b"Basic " + encoded))
        return headers

    @property
    def host(self) -> bytes:
        """The value of the Host header."""
        name = f"[{self.url.host}]" if ":" in self.url.host else self.url.host
        is_default = self.url.port == _PORTS[self.url.scheme]
        return (name if is_default else f"{name}:{self.url.port}").encode("ascii")

    def new_name(self) -> bytes:
        """Make a unique name for a file."""
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
        """Write a URL for people, without its query, which may be a secret."""
        url = self.absolute(target or self.target(b""))
        return url.partition(b"?")[0].decode("ascii")

    def endpoint(self, reactor: Any, patience: float) -> IStreamClientEndpoint:
        """
        Make the endpoint that connects to the server.

        :param patience: How many seconds connecting may take.
        :raises txbits.client.InvalidSettings: If the settings are invalid.
        """
        host, port = self.url.host, self.url.port or _PORTS[self.url.scheme]
        if self.settings.proxy is not None:
            raise InvalidSettings(
                "a proxy would change the packets, and cannot be used"
            )
        policy = TrustPolicy.of(self.settings)
        endpoint = HostnameEndpoint(reactor, host, port, timeout=patience)
        if self.url.scheme == "http":
            return endpoint
        return wrapClientTLS(
            policy.creatorForNetloc(host.encode("ascii"), port), endpoint
        )
