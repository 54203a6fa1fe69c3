"""
What the client and the S3 backend, which both ask servers by way of treq, share.
"""

from __future__ import annotations

from attrs import define
from twisted.internet.defer import Deferred
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer


@implementer(IAgent)
@define(eq=False)
class ExactURL:
    """
    Requests one URL, just as it was given.

    treq takes URLs apart, and writes them anew when it puts them together again: one
    that was signed is another one then, and with an IPv6 address it cannot do so.

    :param agent: What makes the request.
    :param url: The URL.
    """

    agent: IAgent
    url: bytes

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        return self.agent.request(method, self.url, headers, bodyProducer)
