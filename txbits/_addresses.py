"""
Which addresses count as one client.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv6Address, ip_address

#: The bits of an IPv6 address that one client does not choose.
_FIXED_BITS = 64


@lru_cache(4096)
def client_network(address: str) -> str:
    """
    What limits for each address count by: the address, or the /64 of an IPv6 address,
    of which a client has all others.

    :param address: An address, or anything else, such as ``-`` for a Unix socket, which
        stays as it is.
    """
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    fixed = int(parsed) >> (128 - _FIXED_BITS) << (128 - _FIXED_BITS)
    return f"{IPv6Address(fixed)}/{_FIXED_BITS}"
