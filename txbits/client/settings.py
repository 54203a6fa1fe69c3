"""
How a server is reached: names, passwords, certificates, proxies, time-outs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from attrs import evolve, field, frozen
from attrs.validators import ge, gt, optional

#: How long, in seconds, a connection may take nothing of a request, and how long the
#: Ack may take after that. They are Windows' own.
REQUEST_TIMEOUT = 120.0
RESPONSE_TIMEOUT = 300.0

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: Headers that say what a packet is, and how it is framed.
_OURS = re.compile(
    r"bits-.*|content-.*|transfer-encoding|connection|expect|trailer|upgrade",
    re.IGNORECASE,
)


class InvalidSettings(ValueError):
    """A setting makes no sense; the text is one line that says why."""


@frozen
class Credentials:
    """
    A name and a password.

    :ivar user: The name.
    :ivar password: The password. ``repr()`` does not show it.
    """

    user: str = field()
    password: str = field(repr=False)

    @user.validator
    def _check_user(self, attribute: object, value: str) -> None:
        # RFC 7617, section 2: what stands before the first colon is the name.
        if ":" in value or not value.isprintable():
            raise InvalidSettings("a user name has no colon, and is printable")


def _pairs(headers: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple(headers)


@frozen
class ConnectionSettings:
    """
    How a server is reached.

    :ivar headers: What to send with each request besides the protocol's own headers.
    :ivar credentials: What to answer the server with if it asks who is there, with
        Basic or with Digest. They are not sent before it asks.
    :ivar proxy: The URL of an HTTP proxy, ``http://HOST:PORT``.
    :ivar proxy_credentials: What to answer the proxy with.
    :ivar authorities: Certificates of the authorities to trust, in PEM; the system's if
        ``None``.
    :ivar certificate: A certificate to show to the server, and those between it and its
        authority, in PEM.
    :ivar key: Its key, in PEM; ``None`` if it stands beside the certificate.
    :ivar limit_rate: How many bytes of a file may be sent in a second.
    :ivar request_timeout: For how many seconds a connection may take nothing of a
        request.
    :ivar response_timeout: How many seconds an Ack may take.
    :ivar trust_host_id: Whether *headers*, *credentials* and *certificate* are for the
        host as well that a server names with BITS-Host-Id. If not, they are for the
        server of the URL: the same scheme, host name and port.
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
        """The same without what is meant for one server alone."""
        return evolve(self, headers=(), credentials=None, certificate=None, key=None)

    @property
    def has_secrets(self) -> bool:
        """Whether there is anything that is meant for one server alone."""
        return self != self.for_strangers

    @headers.validator
    def _check_headers(
        self, attribute: object, value: tuple[tuple[str, str], ...]
    ) -> None:
        for name, text in value:
            check_header(name, text)


def check_header(name: str, value: str) -> None:
    """
    Check a header that a user wants to have sent.

    :raises InvalidSettings: If it cannot be sent, or is for the protocol to say.
    """
    if not _TOKEN.fullmatch(name):
        raise InvalidSettings(f"{name!r} is not the name of a header")
    if _OURS.fullmatch(name):
        raise InvalidSettings(f"{name} says what a packet is, and cannot be set")
    if not all(c == "\t" or (c >= " " and c != "\x7f") for c in value):
        # The value may be a secret.
        raise InvalidSettings(f"the value of {name} has control characters in it")
