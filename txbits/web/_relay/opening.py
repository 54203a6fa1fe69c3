"""
What a relay connection begins with: a secret, and what is known of the client.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Sequence
from hmac import compare_digest
from typing import Any

from attrs import frozen
from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress
from twisted.web.server import Request

#: What the other side answers when it takes a relay connection.
WELCOME = b"+"

#: The status that it answers before it drops a connection that it has not answered
#: otherwise. Without that, it would seem to have been killed.
DROPPED_STATUS = 199

#: The maximum length of what is known of a client, in bytes. A certificate is seldom
#: longer than 4 KiB.
_LONGEST = 256 * 1024

_LENGTH = struct.Struct("!I")

_IP_ADDRESSES = {"4": IPv4Address, "6": IPv6Address}


@frozen
class Client:
    """
    The connection of a client, as known to the worker that accepted it.

    :ivar address: The address of the client.
    :ivar host: The address that it has connected to.
    :ivar is_secure: Whether the connection uses TLS.
    :ivar certificate: The certificate that the client has shown, in DER.
    :ivar logins: Who has logged in on the connection; see
        :meth:`txbits.web.Gate.logins_of`.
    """

    address: IAddress
    host: IAddress
    is_secure: bool = False
    certificate: bytes | None = None
    logins: Sequence[tuple[int, object]] = ()

    @classmethod
    def of(cls, request: Request, logins: Sequence[tuple[int, object]] = ()) -> Client:
        """The client that has sent a request."""
        show = getattr(request.transport, "getPeerCertificate", None)
        shown = None if show is None else show()
        certificate = None
        if shown is not None:
            certificate = shown.to_cryptography().public_bytes(Encoding.DER)
        return cls(
            request.getClientAddress(),
            request.getHost(),
            bool(request.isSecure()),
            certificate,
            logins,
        )

    def opening(self, secret: bytes) -> bytes:
        """
        Write what a relay connection begins with.

        :param secret: What the workers of one service have in common.
        """
        known: dict[str, Any] = {
            "address": _encoded(self.address),
            "host": _encoded(self.host),
            "secure": self.is_secure,
            "logins": self.logins,
        }
        if self.certificate is not None:
            known["certificate"] = b64encode(self.certificate).decode("ascii")
        text = json.dumps(known).encode()
        return secret + _LENGTH.pack(len(text)) + text


def read_opening(data: bytes, secret: bytes) -> tuple[Client, bytes] | None:
    """
    Read what a relay connection begins with.

    :param data: What has arrived so far.
    :param secret: As for :meth:`Client.opening`.
    :returns: The client, and what follows; ``None`` if more has to arrive.
    :raises ValueError: If the other side is no worker of the same service.
    """
    begin = len(secret) + _LENGTH.size
    if len(data) >= len(secret) and not compare_digest(data[: len(secret)], secret):
        raise ValueError("it does not know the secret")
    if len(data) < begin:
        return None
    (length,) = _LENGTH.unpack_from(data, len(secret))
    if length > _LONGEST:
        raise ValueError(f"what it knows of a client takes {length} bytes")
    if len(data) < begin + length:
        return None
    try:
        known = json.loads(data[begin : begin + length])
        certificate = known.get("certificate")
        client = Client(
            _decoded(known["address"]),
            _decoded(known["host"]),
            known["secure"],
            None if certificate is None else b64decode(certificate),
            [(number, login) for number, login in known["logins"]],
        )
    except (AttributeError, LookupError, TypeError) as error:
        raise ValueError(f"what it knows of a client is incomplete: {error}") from error
    return client, data[begin + length :]


def _encoded(address: IAddress) -> list[Any]:
    if isinstance(address, IPv4Address):
        return ["4", address.host, address.port]
    if isinstance(address, IPv6Address):
        return ["6", address.host, address.port]
    return ["unix"]


def _decoded(said: list[Any]) -> IAddress:
    kind = _IP_ADDRESSES.get(said[0])
    if kind is None:
        # No one asks where the socket is.
        return UNIXAddress(None)
    address: IAddress = kind("TCP", said[1], said[2])
    return address
