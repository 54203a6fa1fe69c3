"""
The settings of connections: passwords, tokens, certificates, proxies, time-outs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit

from attrs import evolve, field, frozen
from attrs.validators import ge, gt, optional

from txbits._secret_files import UnusableFile, read_secret_file

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


# RFC 6750, section 2.1.
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")

#: The maximum length of a token. Servers take heads of 16 KiB, or less.
_LONGEST_TOKEN = 16 * 1024


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
    :ivar negotiate: Whether to log in with the user's Kerberos ticket where the server
        asks for Negotiate. It needs the extra ``kerberos``.
    :ivar token: A bearer token. ``repr()`` does not show it.
    :ivar token_file: The path of a file with a bearer token instead, which other users
        cannot read. It is read again when the server refuses the token.
    :ivar allow_plain_token: Whether to send a token without TLS to a host other than
        this one.
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
    :ivar trust_host_id: Whether to send *headers*, *credentials*, the token, the ticket
        and *certificate* also to a host that the server names with BITS-Host-Id.
        Otherwise only the server of the URL gets them: the same scheme, host name and
        port.
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
    negotiate: bool = False
    token: str | None = field(default=None, repr=False)
    token_file: str | None = field(default=None)
    allow_plain_token: bool = False

    @property
    def for_strangers(self) -> ConnectionSettings:
        """The same without the secrets that only one server may get."""
        return evolve(
            self,
            headers=(),
            credentials=None,
            certificate=None,
            key=None,
            negotiate=False,
            token=None,
            token_file=None,
        )

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

    @token.validator
    def _check_token(self, attribute: object, value: str | None) -> None:
        if value is not None:
            _check_form(value, "the token")

    @token_file.validator
    def _check_one_token(self, attribute: object, value: str | None) -> None:
        if value is not None and self.token is not None:
            raise InvalidSettings("there can be a token or a file with one, not both")

    @property
    def has_token(self) -> bool:
        """Whether there is a bearer token."""
        return self.token is not None or self.token_file is not None

    @property
    def says_token_unasked(self) -> bool:
        """Whether the token goes with the first request: there is nothing else."""
        return self.has_token and not self.negotiate and self.credentials is None

    def get_token(self) -> str | None:
        """
        Get the token, from its file if it has one. This blocks.

        :raises InvalidSettings: If the file cannot be used.
        """
        if self.token_file is None:
            return self.token
        path = self.token_file
        try:
            content = read_secret_file(path, "a token", _LONGEST_TOKEN)
        except UnusableFile as error:
            raise InvalidSettings(str(error)) from error
        token = content.decode("latin-1").strip()
        _check_form(token, f"the content of {path}")
        return token

    def check_way_of_token(self, url: str) -> None:
        """
        Check that nobody can listen when the token is sent.

        :raises InvalidSettings: If it would be sent in plain text over a network.
        """
        if not self.has_token or self.allow_plain_token or url.startswith("https:"):
            return
        host = urlsplit(url).hostname or ""
        if self.proxy is not None or not _is_this_machine(host):
            raise InvalidSettings(
                f"the token is not sent to {host} in plain text; use https://, or "
                "allow it (allow_plain_token, --allow-plain-token)"
            )


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_form(token: str, what: str) -> None:
    if len(token) > _LONGEST_TOKEN or not _BEARER.fullmatch(token):
        raise InvalidSettings(f"{what} is not a bearer token, which is one word")


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
