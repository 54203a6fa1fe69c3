"""
Why a server's certificate is not trusted, in words.

OpenSSL tells the reason to the verification callback only. Afterwards there is one
error for all reasons.
"""

from __future__ import annotations

from typing import Any

from attrs import define
from cryptography.x509 import Certificate, Name
from OpenSSL.crypto import X509
from OpenSSL.SSL import VERIFY_FAIL_IF_NO_PEER_CERT, VERIFY_PEER, Connection
from OpenSSL.SSL import Error as TLSError
from service_identity import CertificateError, VerificationError
from service_identity.hazmat import (
    DNS_ID,
    IPAddress_ID,
    ServiceID,
    verify_service_identity,
)
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.python.failure import Failure
from zope.interface import implementer

from txbits.protocol.codec import quoted

# openssl/x509_vfy.h.
_NO_ISSUER = (2, 19, 20, 21)
_NOT_YET_VALID = 9
_EXPIRED = 10
_SELF_SIGNED = 18
_REVOKED = 23


class Distrusted(TLSError):
    """A server's certificate is not trusted; the text is one line that says why."""


@implementer(IOpenSSLClientConnectionCreator)
@define(eq=False)
class ExplainingCreator:
    """
    Makes connections that say why they fail.

    :ivar creator: Makes the connections.
    :ivar host: The name or address that the certificate must be for.
    """

    creator: IOpenSSLClientConnectionCreator
    host: str

    def clientConnectionForTLS(self, tlsProtocol: Any) -> Connection:  # noqa: N803
        """
        See :class:`twisted.internet.interfaces.IOpenSSLClientConnectionCreator`.
        """
        connection: Connection = self.creator.clientConnectionForTLS(tlsProtocol)

        def verify(_: Connection, cert: X509, error: int, depth: int, ok: int) -> bool:
            words = _objection(cert, error, depth) if not ok else None
            if words is None and depth == 0:
                # From Twisted 25.5 on this takes the place of its own look at the
                # name; before, that came later.
                words = _mismatch(cert, self.host)
            if words is None:
                return True
            text = f"the server's certificate is not trusted: {words}"
            tlsProtocol.failVerification(Failure(Distrusted(text)))
            return False

        connection.set_verify(VERIFY_PEER | VERIFY_FAIL_IF_NO_PEER_CERT, verify)
        return connection


def _objection(cert: X509, error: int, depth: int) -> str:
    whose = "it"
    if depth > 0:
        whose = f"the certificate of its issuer, {_name(_facts(cert).subject)},"
    if error == _EXPIRED:
        return f"{whose} has expired ({_facts(cert).not_valid_after_utc:%Y-%m-%d})"
    if error == _NOT_YET_VALID:
        begin = f"{_facts(cert).not_valid_before_utc:%Y-%m-%d}"
        return f"{whose} is not valid yet ({begin}); check this machine's clock"
    if error == _SELF_SIGNED:
        return "it is self-signed"
    if error == _REVOKED:
        return f"{whose} was revoked"
    if error in _NO_ISSUER:
        issuer = _name(_facts(cert).issuer)
        return f"its issuer, {issuer}, is not trusted"
    return f"{whose} was refused by OpenSSL (error {error})"


def _mismatch(cert: X509, host: str) -> str | None:
    is_address = isIPAddress(host) or isIPv6Address(host)
    wanted: ServiceID = IPAddress_ID(host) if is_address else DNS_ID(host)
    try:
        verify_service_identity(extract_patterns(cert), [wanted], [])
    except VerificationError:
        return f"it is not for {host}"
    except CertificateError:
        return "it names no host"
    return None


def _facts(cert: X509) -> Certificate:
    return cert.to_cryptography()


def _name(name: Name) -> str:
    return quoted(name.rfc4514_string())
