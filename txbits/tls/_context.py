"""
The OpenSSL context of a server: protocols, ciphers, and the check of clients.

Clients resume their sessions by tickets, so that a fleet that connects again does not
pay for a whole handshake each. Each context has keys of its own for the tickets, and
nothing of a session is stored in the server.

Clients that have to show a certificate must show it in every handshake: they get no
tickets. A resumed session is not verified again, so somebody whose certificate has
expired since would get in, and the chain that tells whether a client is still trusted
when revocation lists change is not part of a ticket.
"""

from __future__ import annotations

import secrets
from typing import Any

from attrs import frozen
from cryptography import x509
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags
from OpenSSL.SSL import X509VerificationCodes

from txbits.errors import InvalidSetting
from txbits.tls._files import Material, issuer_of, subject_of

#: TLS 1.2 with forward secrecy and authenticated encryption; TLS 1.3 has its own list.
_CIPHERS = b"ECDHE+AESGCM:ECDHE+CHACHA20"

#: The most certificates between a client's and a trusted one.
_DEPTH = 9

_CODES = X509VerificationCodes

#: Why a certificate is refused, by OpenSSL's code.
_REASONS = {
    _CODES.ERR_CERT_HAS_EXPIRED: "{subject} has expired",
    _CODES.ERR_CERT_NOT_YET_VALID: "{subject} is not valid yet",
    _CODES.ERR_CERT_REVOKED: "{subject} (serial number {serial}) is revoked",
    _CODES.ERR_INVALID_PURPOSE: (
        "{subject} is not for clients, according to its key usage or extended key usage"
    ),
    _CODES.ERR_UNABLE_TO_GET_CRL: (
        "{subject}: crl-file has no CRL of {issuer}, which has issued it"
    ),
    _CODES.ERR_CRL_HAS_EXPIRED: (
        "{subject}: the CRL of {issuer} has expired; renew crl-file, and send SIGHUP"
    ),
    _CODES.ERR_CRL_NOT_YET_VALID: "{subject}: the CRL of {issuer} is not valid yet",
    _CODES.ERR_CRL_SIGNATURE_FAILURE: (
        "{subject}: the CRL of {issuer} has a wrong signature"
    ),
}

#: The codes for a certificate that leads to nobody in client-ca.
_STRANGERS = frozenset(
    {
        _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT,
        _CODES.ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY,
        _CODES.ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE,
        _CODES.ERR_DEPTH_ZERO_SELF_SIGNED_CERT,
        _CODES.ERR_SELF_SIGNED_CERT_IN_CHAIN,
        _CODES.ERR_CERT_UNTRUSTED,
    }
)

#: From OpenSSL's ssl.h; pyOpenSSL sets it, and does not name it.
_MODE_ENABLE_PARTIAL_WRITE = 1

_NAMES = {
    code: name.removeprefix("ERR_").lower().replace("_", " ")
    for name, code in vars(_CODES).items()
    if name.startswith("ERR_")
}


@frozen
class Refusal:
    """
    Why the certificate of a client is refused.

    :ivar code: OpenSSL's number of the reason.
    :ivar text: The reason, for the log.
    """

    code: int
    text: str


def make_context(material: Material) -> SSL.Context:
    """
    Make a context.

    Its connections must have an application data object, on which the reason why a
    client's certificate is refused is stored as ``refusal``.

    :raises InvalidSetting: If OpenSSL does not accept the material, such as a key that
        is too short.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(
        SSL.OP_NO_COMPRESSION
        | SSL.OP_NO_RENEGOTIATION
        | SSL.OP_CIPHER_SERVER_PREFERENCE
    )
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    if hasattr(context, "clear_mode"):
        # The memory that it writes to takes everything, so a call may write several
        # records.
        context.clear_mode(_MODE_ENABLE_PARTIAL_WRITE)
    context.set_cipher_list(_CIPHERS)
    context.set_alpn_select_callback(_select_protocol)
    try:
        context.use_certificate(material.certificate)
        context.use_privatekey(material.key)
        context.check_privatekey()
        for one in material.chain:
            context.add_extra_chain_cert(one)
        if material.authorities:
            _require_certificates(context, material)
    except SSL.Error as error:
        raise InvalidSetting(f"OpenSSL refuses it: {reason_of(error)}") from None
    return context


def _require_certificates(context: SSL.Context, material: Material) -> None:
    store = context.get_cert_store()
    assert store is not None  # noqa: S101 - only a context without memory has none
    flags = X509StoreFlags.PARTIAL_CHAIN
    for authority in material.authorities:
        store.add_cert(X509.from_cryptography(authority))
        context.add_client_ca(authority)
    if material.revocations is not None:
        flags |= X509StoreFlags.CRL_CHECK | X509StoreFlags.CRL_CHECK_ALL
        for listed in material.revocations:
            store.add_crl(listed)
    store.set_flags(flags)
    trusted = frozenset(material.authorities)

    def verify(
        connection: SSL.Connection, shown: X509, code: int, depth: int, is_good: int
    ) -> bool:
        if is_good:
            return True
        refused: Any = connection.get_app_data()
        try:
            certificate = shown.to_cryptography()
        except Exception as error:  # noqa: BLE001 - the peer chooses what this reads
            refused.refusal = Refusal(code, f"it cannot be read: {error!r:.200}")
            return False
        if code == _CODES.ERR_UNABLE_TO_GET_CRL and certificate in trusted:
            # Who is in client-ca is trusted until removed from it.
            return True
        refused.refusal = Refusal(code, _reason(code, certificate))
        return False

    context.set_options(SSL.OP_NO_TICKET)
    # Without it, a client that offers an old session would get an error of its own.
    context.set_session_id(secrets.token_bytes(16))
    context.set_verify_depth(_DEPTH)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, verify)


def _reason(code: int, certificate: x509.Certificate) -> str:
    subject, issuer = subject_of(certificate), issuer_of(certificate)
    if code in _STRANGERS:
        return f"{subject}, issued by {issuer}, leads to no authority in client-ca"
    reason = _REASONS.get(code)
    if reason is not None:
        return reason.format(
            subject=subject, issuer=issuer, serial=f"{certificate.serial_number:x}"
        )
    return f"{subject}: {_NAMES.get(code, f'OpenSSL error {code}')}"


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> Any:
    """BITS is HTTP/1.1 (MC-BUP 2.2.1)."""
    return b"http/1.1" if b"http/1.1" in offered else SSL.NO_OVERLAPPING_PROTOCOLS


def reason_of(error: SSL.Error) -> str:
    """What OpenSSL calls an error; empty if it does not say."""
    queue = error.args[0] if error.args else None
    if isinstance(queue, list) and queue:
        return str(queue[-1][-1])
    return ""
