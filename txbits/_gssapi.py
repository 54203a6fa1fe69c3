"""
What the server and the client share of Kerberos: the library of the system, by gssapi.

That package is not installed everywhere. Import this module only where Kerberos is
asked for, and expect an ``ImportError``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gssapi
from gssapi import raw
from gssapi.raw import ext_rfc4178

_KERBEROS = gssapi.OID.from_int_seq("1.2.840.113554.1.2.2")

#: The mechanism that HTTP uses, which negotiates another one.
SPNEGO = gssapi.OID.from_int_seq("1.3.6.1.5.5.2")

#: Both sides prove who they are.
MUTUAL = gssapi.RequirementFlag.mutual_authentication

#: What a function of the library fails with.
GSSError = raw.GSSError

accept: Callable[..., Any] = raw.accept_sec_context
initiate: Callable[..., Any] = raw.init_sec_context

#: How much of the library's words is told.
_LONGEST_TEXT = 300


def service_name(service: str, host: str = "") -> Any:
    """The name of a service on a host; without one, of that service on any host."""
    name = f"{service}@{host}" if host else service
    return gssapi.Name(name, gssapi.NameType.hostbased_service)


def user_name(name: Any) -> str:
    """A name in words, such as ``alice@EXAMPLE.TEST``."""
    shown: bytes = raw.display_name(name, False).name
    return shown.decode()


def kerberos_credentials(
    usage: str, name: Any = None, store: dict[bytes | str, bytes | str] | None = None
) -> Any:
    """
    Get credentials for Kerberos, alone and within SPNEGO.

    :param usage: ``"accept"`` or ``"initiate"``.
    :param name: Whose they are.
    :param store: Where they are, as the library names it.
    :raises GSSError: If there are none.
    """
    acquire = partial(gssapi.Credentials, usage=usage, mechs=[_KERBEROS, SPNEGO])
    credentials = acquire(name=name, store=store)
    # Otherwise a token of NTLM in one of SPNEGO reaches whatever mechanism the system
    # has, and these can crash the process.
    ext_rfc4178.set_neg_mechs(credentials, [_KERBEROS])
    return credentials


def in_words(error: Any) -> str:
    """
    What the library says of a failure, in printable ASCII.

    Ask in the thread of the failure: the library remembers it for each thread.
    """
    found = error.get_all_statuses(error.min_code, False)
    if error.min_code == 0 or found in (["Success"], ["Unknown error"]):
        found = error.get_all_statuses(error.maj_code, True)
    words = "; ".join(found).rstrip("\0")
    if words.startswith("Unspecified GSS failure"):
        words = "the token is malformed"
    return ascii(words[:_LONGEST_TEXT])[1:-1]
