"""
The tokens that clients send: those of the library, and what Windows sends instead.
"""

from __future__ import annotations

import gssapi

KERBEROS = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2")
SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")

#: The first message of NTLM.
NTLM = b"NTLMSSP\0\1\0\0\0\x97\x82\x08\xe2" + b"\0" * 24

# Identifiers in DER: of SPNEGO, NTLM, Kerberos, and Kerberos as Windows has it wrong.
_SPNEGO = bytes.fromhex("06062b0601050502")
NTLM_OID = bytes.fromhex("060a2b06010401823702020a")
KERBEROS_OID = bytes.fromhex("06092a864886f712010202")
WINDOWS_OID = bytes.fromhex("06092a864882f712010202")

_FLAG = gssapi.RequirementFlag


def initiator(cache, mechanism=SPNEGO, host="localhost", dce=False):
    """
    A client's side of a login.

    :param cache: The credentials cache of the user.
    :param dce: Whether the login takes three tokens of Kerberos, not two.
    """
    flags = _FLAG.mutual_authentication
    return gssapi.SecurityContext(
        name=gssapi.Name(f"HTTP@{host}", gssapi.NameType.hostbased_service),
        creds=gssapi.Credentials(usage="initiate", store={"ccache": cache}),
        flags=flags | _FLAG.dce_style if dce else flags,
        mech=mechanism,
        usage="initiate",
    )


def der(tag, *contents):
    """An element of DER."""
    content = b"".join(contents)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    digits = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(digits)]) + digits + content


def offer(*mechanisms, token):
    """
    The first token of SPNEGO (NegTokenInit).

    :param mechanisms: The identifiers that the client offers.
    :param token: That of the first of them.
    """
    offered = der(0xA0, der(0x30, *mechanisms))
    return der(
        0x60, _SPNEGO, der(0xA0, der(0x30, offered, der(0xA2, der(0x04, token))))
    )


def reply(token):
    """A later token of SPNEGO (NegTokenResp)."""
    return der(0xA1, der(0x30, der(0xA2, der(0x04, token))))
