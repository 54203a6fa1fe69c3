"""
Authenticators of third parties: one string, such as ``ldap:directory.example``, becomes
an authenticator.

The first word selects an :class:`~txbits.interfaces.IAuthenticatorParser` among the
Twisted plugins. The schemes of txbits itself need no description.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from txbits._descriptions import installed, make, parse_description
from txbits.errors import InvalidSetting
from txbits.interfaces import IAuthenticator, IAuthenticatorParser


def available_authenticators() -> list[IAuthenticatorParser]:
    """Find the parsers of all installed plugins, sorted by scheme."""
    return installed(IAuthenticatorParser, "scheme")


def authenticator_from_description(
    text: str,
    reactor: Any,
    parsers: Iterable[IAuthenticatorParser] | None = None,
) -> IAuthenticator:
    """
    Make the authenticator that a description names. This may block.

    :param text: The description. One without arguments needs no colon.
    :param reactor: Handed to the parser.
    :param parsers: The parsers to choose from; if ``None``, the installed plugins.
    :raises InvalidSetting: If the description cannot be used; the text is one line.
    """
    scheme, args, kwargs = parse_description(
        text if ":" in text else text + ":",
        "the description of an authenticator, such as ldap:directory.example",
    )
    known = list(available_authenticators() if parsers is None else parsers)
    parser = next((one for one in known if one.scheme == scheme), None)
    if parser is None:
        formats = ", ".join(one.format for one in known) or "none"
        raise InvalidSetting(
            f"unknown scheme {scheme!r}; the schemes of plugins are: {formats}"
        )
    made = make(parser.parse_authenticator, parser.format, reactor, args, kwargs)
    if not IAuthenticator.providedBy(made):
        raise InvalidSetting(f"the plugin of {scheme!r} made no authenticator")
    return made
