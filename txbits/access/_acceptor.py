"""
The server's side of Kerberos, by the library of the system. All of it blocks.

The package gssapi is not installed everywhere, so import this module only on demand.

A failure is either the client's or the server's. The codes of the library do not tell:
within SPNEGO they are numbers that it makes up in the order of their appearance. But
it makes an answer for the client, a KRB-ERROR of RFC 4120, and that has a code.
"""

from __future__ import annotations

from typing import Any

from attrs import define, field

from txbits import _gssapi
from txbits.access._keytab import check_keytab
from txbits.access._steps import Step, Suspicious, Unusable
from txbits.errors import CredentialsRejected, InvalidSetting

# How a token begins that another mechanism would get: after the tag and the length,
# the identifier of a mechanism. Windows has a wrong one of Kerberos as well.
_MECHANISM_NAMES = (
    b"\x06\x06\x2b\x06\x01\x05\x05\x02",
    b"\x06\x09\x2a\x86\x48\x86\xf7\x12\x01\x02\x02",
    b"\x06\x09\x2a\x86\x48\x82\xf7\x12\x01\x02\x02",
)

# RFC 4121 4.1: what follows the mechanism of a KRB-ERROR.
_KRB_ERROR = b"\x03\x00\x7e"

# Of the codes in RFC 4120 7.5.9:
_BAD_INTEGRITY = 31
_CLOCK_SKEW = 37
_BAD_VERSION = 44
_GENERIC = 60
_NOT_US = 35

#: What the server may be to blame for, although the client looks wrong as well.
_SUSPICIONS = {
    _BAD_INTEGRITY: "the keytab has another key than the KDC; export it again",
    _NOT_US: "clients use a name of the server that the keytab does not have",
    _CLOCK_SKEW: "the clock of this server is wrong",
}


@define(eq=False, repr=False)
class LibraryAcceptor:
    """
    Checks the tickets of clients with the keys of a keytab.

    The library reads the keytab for each ticket anew.

    :param keytab: The path of the keytab.
    :param service: The service whose keys count.
    """

    _keytab: str
    _service: str
    _credentials: Any = field(default=None, init=False)

    def step(self, context: Any, token: bytes) -> Step:
        """See :class:`~txbits.access._steps.Acceptor`."""
        # Later ones reach the mechanism of the first.
        if context is None and not _is_kerberos(token):
            raise CredentialsRejected("the token is not one of Kerberos")
        try:
            if self._credentials is None:
                self._credentials = _gssapi.kerberos_credentials(
                    "accept",
                    # Without a host, all keys of the service count, and no name is
                    # looked up.
                    _gssapi.service_name(self._service),
                    {"keytab": self._keytab},
                )
            done = _gssapi.accept(
                token, acceptor_creds=self._credentials, context=context
            )
            principal = None
            if not done.more_steps:
                principal = _gssapi.user_name(done.initiator_name)
        except _gssapi.GSSError as error:
            raise self._sorted(error) from None
        return Step(done.token or b"", principal, done.lifetime, done.context)

    def _sorted(self, error: Any) -> Exception:
        """Tell a failure of the client from one of the server."""
        words = _gssapi.in_words(error)
        code = _code(getattr(error, "token", None) or b"")
        try:
            check_keytab(self._keytab, self._service)
        except InvalidSetting as problem:
            return Unusable(str(problem))
        if self._credentials is None:
            return Unusable(words)
        if code == _GENERIC:
            return Unusable(words, is_general=False)
        if code == _BAD_VERSION:
            # The KDC has issued a ticket, so that the server should have the key, be it
            # a newer one, or an older one that was taken away too early.
            return Unusable(
                f"{words}; export the keytab again, and keep its old keys",
                is_general=False,
            )
        if code in _SUSPICIONS:
            return Suspicious(words, _SUSPICIONS[code])
        return CredentialsRejected(words)


def _is_kerberos(token: bytes) -> bool:
    """Whether a first token is for Kerberos, alone or in SPNEGO."""
    # RFC 2743 3.1: a tag, a length of one byte or more, and the mechanism.
    if len(token) < 2 or token[0] != 0x60:
        return False
    more = token[1] & 0x7F if token[1] & 0x80 else 0
    return token.startswith(_MECHANISM_NAMES, 2 + more)


def _code(token: bytes) -> int | None:
    """The error-code in the KRB-ERROR that the library has made; ``None`` without."""
    start = token.find(_KRB_ERROR)
    if start < 0:
        return None
    try:
        # [APPLICATION 30] SEQUENCE { [0] ..., [6] error-code INTEGER, ... }
        _, content, _ = _element(token[start + 2 :])
        _, fields, _ = _element(content)
        while fields:
            tag, value, fields = _element(fields)
            if tag == 0xA6:
                _, number, _ = _element(value)
                return int.from_bytes(number, "big", signed=True)
    except IndexError:
        return None
    return None


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Split off one element of DER: its tag, its content, and what follows it."""
    length, start = data[1], 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[2:start], "big")
    return data[0], data[start : start + length], data[start + length :]
