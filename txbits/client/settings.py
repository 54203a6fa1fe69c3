"""
The settings of connections: passwords, certificates, proxies, time-outs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve, field, frozen
from attrs.validators import ge, gt, optional

#: How many seconds a connection may accept no byte of a request, and how many the Ack
#: may take after that. Windows has the same.
REQUEST_TIMEOUT = 120.0
RESPONSE_TIMEOUT = 300.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: Headers of the protocol.
_OURS = re.compile(
    r"bits-.*|content-.*|transfer-encoding|connection|expect|trailer|upgrade",
    re.IGNORECASE,
)


class InvalidSettings(ValueError):
    """A setting is invalid; the text is one line that says why."""


@frozen
class Credentials:
    """
    A user name and a password.

    :ivar user: The name.
    :ivar password: The password. ``repr()`` does not show it.
    """

    user: str = field()
    password: str = field(repr=False)

    @user.validator
    def _check_user(self, attribute: object, value: str) -> None:
        # RFC 7617, section 2: the first colon ends the name.
        if ":" in value or not value.isprintable():
            raise InvalidSettings("a user name has no colon, and is printable")


def _pairs(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(headers)


@frozen
class ConnectionSettings:
    """
    How to connect to a server.

    :ivar headers: Additional headers of each request.
    :ivar credentials: Credentials for Basic and Digest. They are sent only if the
        server requires them.
    :ivar proxy: The URL of an HTTP proxy, ``http://HOST:PORT``.
    :ivar proxy_credentials: Credentials for the proxy.
    :ivar authorities: Certificates of the trusted authorities, in PEM; the system's if
        ``None``.
    :ivar certificate: The client certificate and intermediate certificates, in PEM.
    :ivar key: The private key, in PEM; ``None`` if *certificate* contains it.
    :ivar limit_rate: Bytes of files to send per second, at most.
    :ivar request_timeout: How many seconds a connection may accept no byte of a
        request.
    :ivar response_timeout: How many seconds an Ack may take.
    :ivar trust_host_id: Whether to send *headers*, *credentials* and *certificate* also
        to a host that the server names with BITS-Host-Id. Otherwise only the server of
        the URL gets them: the same scheme, host name and port.
    """

    headers: tuple[tuple[str, str], ...] = field(default=(), converter=_pairs)
    credentials: Credentials | None = None
    proxy: str | None = None
    proxy_credentials: Credentials | None = None
    authorities: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    limit_rate: int | None = field(default=None, validator=optional(ge(1)))
    request_timeout: float = field(default=REQUEST_TIMEOUT, validator=gt(0))
    response_timeout: float = field(default=RESPONSE_TIMEOUT, validator=gt(0))
    trust_host_id: bool = False

    @property
    def for_strangers(self) -> ConnectionSettings:
        """The same without the secrets that only one server may get."""
        return evolve(self, headers=(), credentials=None, certificate=None, key=None)

    @property
    def has_secrets(self) -> bool:
        """Whether there are secrets that only one server may get."""
        return self != self.for_strangers

    @headers.validator
    def _check_headers(
        self, attribute: object, value: tuple[tuple[str, str], ...]
    ) -> None:
        for name, text in value:
            check_header(name, text)


def check_header(name: str, value: str) -> None:
    """
    Check a header that a user adds.

    :raises InvalidSettings: If it is invalid, or belongs to the protocol.
    """
    if not _TOKEN.fullmatch(name):
        raise InvalidSettings(f"{name!r} is not the name of a header")
    if _OURS.fullmatch(name):
        raise InvalidSettings(f"{name} says what a packet is, and cannot be set")
    if not all(c == "\t" or (c >= " " and c != "\x7f") for c in value):
        # The value may be a secret.
        raise InvalidSettings(f"the value of {name} has control characters in it")
