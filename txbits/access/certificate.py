"""
Authenticates clients by the certificates that they show in the TLS handshake.

The endpoint has checked the certificate: that it leads to a trusted authority, is
valid, and is not revoked. Here only its name is read. The authority vouches for the
name, but nothing of what else the certificate contains is trusted to be well-formed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from attrs import field, frozen
from attrs.validators import in_
from cryptography import x509
from cryptography.x509.oid import NameOID
from zope.interface import implementer

from txbits._deferreds import deferred
from txbits.errors import CredentialsRejected
from txbits.interfaces import (
    Credentials,
    IAuthenticator,
    Identity,
    checked_user_name,
)

#: Where in a certificate the name is.
CertificateName = Literal["cn", "dns", "email", "upn"]

#: User principal names, as in the certificates of Active Directory: [MS-WCCE] 2.2.2.7.
_UPN = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")

#: In DER, the tag of a UTF8String, and what precedes a length of 128 to 255 bytes. No
#: user's name is longer.
_UTF8_STRING = 0x0C
_LONG_LENGTH = 0x81


def _folded(names: Iterable[str]) -> frozenset[str]:
    return frozenset(name.lower() for name in names)


@implementer(IAuthenticator)
@frozen(eq=False)
class CertificateAuthenticator:
    """
    Takes the name of the user from the certificate of the client.

    The certificate of a proxy is not that of its clients: behind a proxy that
    terminates TLS, nobody is known by a certificate.

    :param name: Where the name is: ``"cn"``, the common name of the subject; or among
        the alternative names ``"dns"``, ``"email"`` or ``"upn"``, the user principal
        name. There must be exactly one of the kind.
    :param realms: Parts after the ``@`` of mail addresses and principal names that are
        omitted: with ``EXAMPLE.TEST``, ``alice@example.test`` is ``alice``. Others
        stay part of the name.
    """

    name: CertificateName = field(
        default="cn", validator=in_(("cn", "dns", "email", "upn"))
    )
    realms: frozenset[str] = field(default=(), converter=_folded)
    scheme = "certificate"
    strength = 400

    def challenge(self, credentials: Credentials) -> None:
        """Nobody can be asked for a certificate after the handshake."""

    @deferred
    async def authenticate(self, credentials: Credentials) -> Identity | None:
        if credentials.is_proxied:
            return None
        memory = credentials.connection
        key = (CertificateAuthenticator, self.name, self.realms)
        known = memory.get(key)
        if known is None:
            shown = credentials.certificate()
            if shown is None:
                return None
            # The certificate of a connection never changes.
            known = memory[key] = self._read(shown.to_cryptography)
        if isinstance(known, Identity):
            return known
        raise CredentialsRejected(known)

    def _read(self, load: Callable[[], x509.Certificate]) -> Identity | str:
        """
        Read the name of a certificate.

        :returns: The identity, or why there is none.
        """
        kind = _KINDS[self.name]
        try:
            names = kind.read(load())
        except Exception as error:  # noqa: BLE001 - bad certificates raise a dozen kinds
            return f"the certificate cannot be read: {type(error).__name__}"
        if len(names) != 1:
            return f"the certificate must have one {kind.what}, not {len(names)}"
        try:
            name = checked_user_name(self._without_realm(names[0]))
        except CredentialsRejected as error:
            return f"the {kind.what} of the certificate: {error}"
        return Identity(name, self.scheme)

    def _without_realm(self, name: str) -> str:
        if self.name == "dns":
            # Names of hosts are the same in any case.
            return name.lower()
        user, at, realm = name.rpartition("@")
        is_ours = self.name != "cn" and at and realm.lower() in self.realms
        return user if is_ours else name


@frozen
class _Kind:
    """
    A kind of names in certificates.

    :ivar what: What it is called.
    :ivar read: Finds all such names in a certificate.
    """

    what: str
    read: Callable[[x509.Certificate], list[str]]


def _common_names(certificate: x509.Certificate) -> list[str]:
    found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return [_text(one.value) for one in found]


def _alternatives(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    extensions = certificate.extensions
    try:
        kind = x509.SubjectAlternativeName
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _dns_names(certificate: x509.Certificate) -> list[str]:
    return _alternatives(certificate).get_values_for_type(x509.DNSName)


def _mail_addresses(certificate: x509.Certificate) -> list[str]:
    return _alternatives(certificate).get_values_for_type(x509.RFC822Name)


def _principals(certificate: x509.Certificate) -> list[str]:
    others = _alternatives(certificate).get_values_for_type(x509.OtherName)
    return [_utf8_string(one.value) for one in others if one.type_id == _UPN]


def _text(value: str | bytes) -> str:
    if isinstance(value, bytes):
        raise TypeError("a bit string is no name")
    return value


def _utf8_string(der: bytes) -> str:
    """Read a UTF8String, whose length takes at most two bytes."""
    tag, length, start = der[0], der[1], 2
    if length == _LONG_LENGTH:
        length, start = der[2], 3
    if tag != _UTF8_STRING or length != len(der) - start:
        raise ValueError("not a UTF8String")
    return der[start:].decode()


_KINDS = {
    "cn": _Kind("common name", _common_names),
    "dns": _Kind("DNS name", _dns_names),
    "email": _Kind("mail address", _mail_addresses),
    "upn": _Kind("user principal name", _principals),
}
