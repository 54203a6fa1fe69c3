"""
What endpoint strings tell about the connections that arrive on them.

Only what is sure counts: an endpoint of a kind that is not known here is taken for one
without TLS that every machine can reach.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from attrs import frozen

from txbits._descriptions import parse_description
from txbits.errors import InvalidSetting

#: Endpoints whose connections have TLS.
_SECURE = ("ssl", "https")

#: Where the interface stands among the positional parts, after the port.
_INTERFACE = {"tcp": 1, "tcp6": 2}

#: A mode of a file, and what it has if every user of the machine may connect.
_MODE = re.compile("[0-7]{3,4}")
_OTHERS_WRITE = 0o002

#: Endpoints that pass connections of another one on: the rest of the string names it.
_WRAPPERS = "haproxy:"


@frozen
class Listening:
    """
    Who can reach a listener, and who can read along.

    :ivar is_secure: Whether its connections have TLS.
    :ivar is_local: Whether only this machine can reach it.
    :ivar is_file: Whether it is a Unix socket, which has an owner and a mode.
    :ivar is_private: Whether only some users of this machine can connect.
    :ivar asks_certificate: Whether it requires a certificate of clients.
    """

    is_secure: bool = False
    is_local: bool = False
    is_file: bool = False
    is_private: bool = False
    asks_certificate: bool = False

    @property
    def is_open(self) -> bool:
        """Whether somebody on the network can read what clients send."""
        return not self.is_secure and not self.is_local


def listening(endpoint: str) -> Listening:
    """
    Tell what an endpoint string says.

    :param endpoint: A description that Twisted accepts. With ``haproxy:``, a proxy in
        front passes connections on: what counts is how it connects.
    """
    while endpoint.startswith(_WRAPPERS):
        endpoint = endpoint.removeprefix(_WRAPPERS)
    try:
        kind, args, kwargs = parse_description(endpoint)
    except InvalidSetting:
        return Listening()
    if kind in _SECURE:
        return Listening(is_secure=True, asks_certificate="client-ca" in kwargs)
    if kind == "unix":
        mode = kwargs.get("mode", args[1] if len(args) > 1 else "666")
        is_private = bool(_MODE.fullmatch(mode)) and not int(mode, 8) & _OTHERS_WRITE
        return Listening(is_local=True, is_file=True, is_private=is_private)
    if kind == "systemd":
        # Where a socket of another family is bound is in the unit of systemd.
        domain = kwargs.get("domain", args[0] if args else "")
        is_unix = domain == "UNIX"
        # That unit also has the mode.
        return Listening(is_local=is_unix, is_file=is_unix, is_private=is_unix)
    if kind in _INTERFACE:
        place = _INTERFACE[kind]
        default = args[place] if len(args) > place else ""
        return Listening(is_local=_is_loopback(kwargs.get("interface", default)))
    return Listening()


def _is_loopback(interface: str) -> bool:
    if interface == "localhost":
        return True
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        return False
