"""
Certificates for the tests, made when they are needed.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from attrs import frozen
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@frozen
class Identity:
    """
    A certificate and its key.

    :ivar certificate: In PEM.
    :ivar key: In PEM, without a passphrase.
    """

    certificate: bytes
    key: bytes


def authority(name: str = "Authority of the tests") -> Identity:
    """Make an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(name), _name(name), key).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    return _signed(builder, key, key)


def issued_by(
    issuer: Identity,
    name: str,
    address: str | None = None,
    *,
    ca: bool = False,
    days: int = 0,
) -> Identity:
    """
    Make a certificate that an authority vouches for.

    :param address: The address that it is for, if it is a server's.
    :param ca: Whether it is that of another authority.
    :param days: By how many days it is valid later than now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    above = x509.load_pem_x509_certificate(issuer.certificate)
    above_key = serialization.load_pem_private_key(issuer.key, None)
    builder = _builder(_name(name), above.subject, key, days)
    if ca:
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        builder = builder.add_extension(constraints, critical=True)
    return _signed(_for(builder, address), key, above_key)


def self_signed(name: str, address: str) -> Identity:
    """Make a certificate that only its owner vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    return _signed(_for(_builder(_name(name), _name(name), key), address), key, key)


def _for(
    builder: x509.CertificateBuilder, address: str | None
) -> x509.CertificateBuilder:
    if address is None:
        return builder
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))])
    return builder.add_extension(names, critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(subject, issuer, key, days=0):
    now = datetime.now(UTC) + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
    )


def _signed(builder, key, signer) -> Identity:
    certificate = builder.sign(signer, hashes.SHA256())
    return Identity(
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
