"""
Where the operator's listener of a server is, from its settings: for
``txbits sessions``, on the host of the server.
"""

from __future__ import annotations

from txbits._descriptions import parse_description

# For the command, which uses nothing else of the server.
from txbits.errors import InvalidSetting as InvalidSetting
from txbits.service._reading import from_file

#: Interfaces that stand for all of the machine's, and where they are reached.
_REACHED = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


def admin_endpoint(config: str) -> str:
    """
    Find out how to connect to the operator's listener.

    :param config: The settings file of the server. This reads it, which blocks.
    :returns: A client endpoint of Twisted.
    :raises InvalidSetting: With one line, if the settings do not say.
    """
    endpoint = from_file(config).admin_listen
    if endpoint is None:
        raise InvalidSetting(
            f"{config}: admin-listen is not set, and without it a server cannot be "
            'asked; add admin-listen = "unix:/run/txbits/admin:mode=600" and restart'
        )
    kind, args, named = parse_description(endpoint)
    if kind == "unix":
        return f"unix:{_escaped(named.get('address') or args[0])}"
    if kind in ("tcp", "tcp6"):
        port = named.get("port") or args[0]
        place = 1 if kind == "tcp" else 2
        interface = args[place] if len(args) > place else ""
        interface = named.get("interface", interface)
        host = _REACHED.get(interface, interface)
        if kind == "tcp6" and not interface:
            host = "::1"
        return f"tcp:host={_escaped(host)}:port={port}"
    raise InvalidSetting(
        f"{config}: admin-listen: {endpoint} does not say how to connect; use "
        "--admin with unix:PATH, tcp:host=HOST:port=PORT or tls:host=HOST:port=PORT"
    )


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:")
