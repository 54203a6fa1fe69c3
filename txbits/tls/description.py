"""
The parser of ``https:`` among Twisted's endpoint strings.

It imports the endpoint only when it makes one, since every program that reads such a
string imports all parsers.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import (
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from zope.interface import implementer


@implementer(IPlugin, IStreamServerEndpointStringParser)
class HttpsEndpointParser:
    """
    ``https:443:certificate=FILE:key=FILE``, with ``chain=``, ``client-ca=``,
    ``crl-file=``, ``interface=`` and ``backlog=``.
    """

    prefix = "https"

    def parseStreamServer(
        self, reactor: Any, *args: Any, **kwargs: Any
    ) -> IStreamServerEndpoint:
        """
        Make the endpoint.

        :raises InvalidSetting: If the description or a file cannot be used.
        """
        from txbits.tls.endpoint import https_endpoint

        return https_endpoint(reactor, *args, **kwargs)
