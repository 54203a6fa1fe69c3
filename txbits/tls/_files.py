"""
The files of a TLS server: certificates, the key, CAs, and revocation lists.

All of them are read and checked together, so that a server has either all the new ones
or all the old ones. Reading blocks.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from attrs import field, frozen
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from txbits.access._files import read_secret_file
from txbits.errors import InvalidSetting

#: The most bytes that a file may have. Authorities publish long revocation lists.
_LONGEST_KEY = 64 * 1024
_LONGEST_CERTIFICATES = 4 * 1024 * 1024
_LONGEST_CRL = 64 * 1024 * 1024

#: The most characters of a name from a certificate in the log.
_LONGEST_SHOWN = 120

_CRL = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----", re.DOTALL)


@frozen
class Material:
    """
    What a TLS server needs, checked.

    :ivar certificate: Its certificate.
    :ivar key: The key of that.
    :ivar chain: Certificates of authorities between that one and a root.
    :ivar authorities: Certificates that clients' certificates must lead to; empty if
        clients need none. Each one is trusted by itself, be it a root or not.
    :ivar revocations: Lists of revoked certificates; ``None`` if nobody asked to check.
    """

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...]
    authorities: tuple[x509.Certificate, ...]
    revocations: tuple[x509.CertificateRevocationList, ...] | None
    _revoked: Mapping[x509.Name, set[int]] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        # Searching a long list takes milliseconds, for each certificate.
        revoked: defaultdict[x509.Name, set[int]] = defaultdict(set)
        for listed in self.revocations or ():
            revoked[listed.issuer].update(one.serial_number for one in listed)
        object.__setattr__(self, "_revoked", revoked)

    def __str__(self) -> str:
        until = self.certificate.not_valid_after_utc
        return f"{subject_of(self.certificate)}, valid until {until:%Y-%m-%d %H:%M} UTC"

    def warnings(self, now: datetime) -> Iterator[str]:
        """What an operator should know, although the server can start."""
        if self.certificate.not_valid_after_utc < now:
            yield f"the certificate {self} has expired"
        for authority in self.authorities:
            if authority.not_valid_after_utc < now:
                yield (
                    f"{subject_of(authority)} in client-ca has expired: clients with "
                    "its certificates are refused"
                )
        if self.revocations is None:
            return
        for listed in self.revocations:
            if listed.next_update_utc is not None and listed.next_update_utc < now:
                yield (
                    f"the CRL of {issuer_of(listed)} expired on "
                    f"{listed.next_update_utc:%Y-%m-%d %H:%M} UTC: clients with its "
                    "certificates are refused until there is a new one"
                )
        issuers = {listed.issuer for listed in self.revocations}
        for authority in self.authorities:
            if authority.subject not in issuers:
                yield (
                    f"crl-file has no CRL of {subject_of(authority)}: clients with its "
                    "certificates are refused"
                )

    def trusts_whom(self, other: Material) -> bool:
        """Whether this has the same authorities and revocations as another one."""
        return (self.authorities, self.revocations) == (
            other.authorities,
            other.revocations,
        )

    def trusts(self, chain: Sequence[x509.Certificate]) -> bool:
        """
        Whether a client that was let in before would be let in again, as far as
        authorities and revocations tell.

        :param chain: Its certificate, and those of authorities up to one that was
            trusted.
        """
        if not self.authorities:
            return True
        # A renewed certificate of an authority has the same name and key.
        trusted = {_who(one) for one in self.authorities}
        length = next((n for n, one in enumerate(chain) if _who(one) in trusted), None)
        if length is None:
            return False
        return not any(
            one.serial_number in self._revoked.get(one.issuer, ())
            for one in chain[: length or 1]
        )


@frozen
class Files:
    """
    The names of the files.

    :ivar certificate: The certificate of the server, in PEM. More certificates may
        follow it, which are sent with it.
    :ivar key: The key of the certificate, in PEM, without a passphrase. It must not be
        readable by everyone.
    :ivar chain: More certificates to send, in PEM.
    :ivar client_ca: Certificates of authorities, in PEM. If given, clients must have a
        certificate of one of them.
    :ivar crl: Lists of revoked certificates of clients, in PEM, or a single one in DER.
        If given, each client's certificate must be covered by a list that has not
        expired.
    """

    certificate: str
    key: str
    chain: str | None = None
    client_ca: str | None = None
    crl: str | None = None

    def read(self) -> Material:
        """
        Read the files.

        :raises InvalidSetting: If one cannot be used. The text is one line, which
            begins with the name of the argument.
        """
        if self.crl is not None and self.client_ca is None:
            raise InvalidSetting("crl-file: requires client-ca")
        certificate, *more = _certificates("certificate", self.certificate)
        key = _key(self.key)
        if certificate.public_key() != key.public_key():
            raise InvalidSetting(
                f"key: {self.key} is not the key of the first certificate in "
                f"{self.certificate}"
            )
        if self.chain is not None:
            more += _certificates("chain", self.chain)
        authorities: tuple[x509.Certificate, ...] = ()
        revocations = None
        if self.client_ca is not None:
            authorities = tuple(_certificates("client-ca", self.client_ca))
        if self.crl is not None:
            revocations = _revocations(self.crl)
        try:
            return Material(certificate, key, tuple(more), authorities, revocations)
        except ValueError as error:
            # Only entries of a list are read so late.
            raise InvalidSetting(
                f"crl-file: {self.crl} is not a valid CRL: {error}"
            ) from None


def _who(certificate: x509.Certificate) -> tuple[x509.Name, bytes]:
    key = certificate.public_key()
    return certificate.subject, key.public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def subject_of(certificate: x509.Certificate) -> str:
    """The name of a certificate, for the log."""
    return _shown(lambda: certificate.subject)


def issuer_of(signed: x509.Certificate | x509.CertificateRevocationList) -> str:
    """The name of the authority that has signed this, for the log."""
    return _shown(lambda: signed.issuer)


def _shown(name_of: Callable[[], x509.Name]) -> str:
    try:
        text = name_of().rfc4514_string()
    except Exception:  # noqa: BLE001 - the library has a dozen kinds for bad names
        return "a name that cannot be read"
    if not text:
        return "an empty name"
    # Control characters must not reach the log.
    text = ascii(text)[1:-1]
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _read(what: str, path: str, longest: int) -> bytes:
    try:
        with open(path, "rb") as file:
            content = file.read(longest + 1)
    except (OSError, ValueError) as error:
        # A name with a NUL is a ValueError.
        reason = getattr(error, "strerror", None) or "not the name of a file"
        raise InvalidSetting(f"{what}: {path} cannot be read: {reason}") from None
    if len(content) > longest:
        raise InvalidSetting(f"{what}: {path} is longer than {longest:,} bytes")
    return content


def _certificates(what: str, path: str) -> list[x509.Certificate]:
    content = _read(what, path, _LONGEST_CERTIFICATES)
    try:
        found = x509.load_pem_x509_certificates(content)
        for one in found:
            # These are read when they are used for the first time, and may be wrong.
            one.subject, one.issuer, one.public_key()
    except (ValueError, TypeError, LookupError, UnsupportedAlgorithm) as error:
        raise InvalidSetting(
            f"{what}: {path} has no valid certificate in PEM: {error}"
        ) from None
    return found


def _key(path: str) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    try:
        content = read_secret_file(path, "a key in PEM", _LONGEST_KEY)
    except InvalidSetting as error:
        raise InvalidSetting(f"key: {error}") from None
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise InvalidSetting(
            f"key: {path} is encrypted; remove the passphrase: openssl pkey -in {path}"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        # The text of the error may quote the file.
        raise InvalidSetting(f"key: {path} has no valid key in PEM") from None
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise InvalidSetting(f"key: {path} is neither an RSA nor an EC key")
    return key


def _revocations(path: str) -> tuple[x509.CertificateRevocationList, ...]:
    content = _read("crl-file", path, _LONGEST_CRL)
    try:
        if b"-----BEGIN" not in content:
            found = [x509.load_der_x509_crl(content)]
        else:
            found = [x509.load_pem_x509_crl(one) for one in _CRL.findall(content)]
        for one in found:
            one.issuer, one.next_update_utc  # noqa: B018 - as with certificates
    except (ValueError, TypeError, LookupError, UnsupportedAlgorithm) as error:
        raise InvalidSetting(f"crl-file: {path} is not a valid CRL: {error}") from None
    if not found:
        raise InvalidSetting(f"crl-file: {path} has no CRL")
    return tuple(found)
