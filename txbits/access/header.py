"""
The scheme ``header``: a trusted proxy has authenticated the sender, and tells the name.
"""

from __future__ import annotations

import re

from attrs import field, frozen
from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import implementer

from txbits.errors import CredentialsRejected, InvalidSetting
from txbits.interfaces import (
    Credentials,
    IAuthenticator,
    Identity,
    checked_user_name,
)

# RFC 9110 5.6.2
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

#: What Apache writes for a variable that is not set.
_NOBODY = ("", "(null)")


def _checked(header: str) -> str:
    if not _TOKEN.fullmatch(header):
        raise InvalidSetting(f"{header!a} cannot be the name of a header")
    if header.lower() in ("authorization", "cookie", "forwarded", "via", "host"):
        raise InvalidSetting(
            f"{header} has a meaning of its own; let the proxy send the name in a "
            "header such as X-Remote-User"
        )
    return header


@implementer(IAuthenticator)
@frozen(eq=False)
class HeaderAuthenticator:
    """
    Believes the name that a trusted proxy sends in a header. From anyone else, the
    header is ignored.

    :param header: The name of the header.
    :raises InvalidSetting: If that cannot be used.
    """

    _header: str = field(default="X-Remote-User", converter=_checked)
    _key: bytes = field(init=False)

    scheme = "header"
    strength = 0

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_key", self._header.lower().encode())

    def challenge(self, credentials: Credentials) -> bytes | None:
        """Only the proxy can ask clients."""
        return None

    def authenticate(self, credentials: Credentials) -> Deferred[Identity | None]:
        """See :class:`~txbits.interfaces.IAuthenticator`."""
        values = credentials.headers.get(self._key)
        if values is None or not credentials.from_trusted_proxy:
            return succeed(None)
        try:
            if len(values) != 1 or b"," in values[0]:
                # A comma is what some proxies make of two headers: one may be the
                # client's.
                raise CredentialsRejected(
                    f"the proxy sent more than one {self._header}; it must remove the "
                    "header from the requests of clients"
                )
            name = _decoded(values[0].strip(b" \t"))
            if name in _NOBODY:
                return succeed(None)
            return succeed(Identity(checked_user_name(name), self.scheme))
        except CredentialsRejected as error:
            return fail(error)


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
