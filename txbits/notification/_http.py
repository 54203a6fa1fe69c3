"""
Telling a server application of uploads over HTTP: the back-end client of MC-BUP 3.3.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Any, Literal

from attrs import define, field
from twisted.web.client import BrowserLikePolicyForHTTPS
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer
from zope.interface.interface import InterfaceClass

from txbits._deferreds import deferred
from txbits.clocks import wall_of
from txbits.errors import InvalidSetting
from txbits.interfaces import (
    Answer,
    CompleteUpload,
    IAddressable,
    INotifier,
    IReadable,
    IReply,
)
from txbits.notification._asking import Asking
from txbits.notification._connection import Endpoints
from txbits.notification._signature import in_base64, sign
from txbits.notification._url import Target, check_url, resolve, visible, visible_path
from txbits.protocol._fields import format_guid

#: How long each step may take without progress, in seconds (MC-BUP 3.3.2).
TIMEOUT = 300.0


@implementer(INotifier)
@define(eq=False)
class HTTPNotifier:
    """
    Asks a server application over HTTP.

    Each request has a connection of its own. Redirects are not followed, and proxies
    that the environment names are not used.

    :param reactor: Connects, and tells the time.
    :param url: Where the application is asked: an absolute URL, or one that is relative
        to the destination on *public_url* (BITSServerNotificationURL).
    :param by: ``"reference"``: the application is told where the upload lies.
        ``"value"``: the upload is the request's body, and the response's is the reply
        (BITSServerNotificationType 1 and 2).
    :param public_url: This server's own URL, as its clients write it.
    :param send_timeout: For how many seconds the application may take nothing of the
        request.
    :param response_timeout: How many seconds the headers of its response may take from
        then on.
    :param reply_timeout: For how many seconds there may come nothing of the response's
        body.
    :param secret: Signs requests, if given.
    :param policy: Whom to trust for https; by default, whom the system trusts.
    :param endpoints: Leads to the application, if not by name and port.
    :raises InvalidSetting: If the URLs, a time-out or the secret cannot be used.
    """

    _reactor: Any
    _url: str
    _by: Literal["reference", "value"] = field(kw_only=True)
    _public_url: str | None = field(default=None, kw_only=True)
    _send_timeout: float = field(default=TIMEOUT, kw_only=True)
    _response_timeout: float = field(default=TIMEOUT, kw_only=True)
    _reply_timeout: float = field(default=TIMEOUT, kw_only=True)
    _secret: bytes | None = field(default=None, kw_only=True, repr=False)
    _policy: IPolicyForHTTPS = field(factory=BrowserLikePolicyForHTTPS, kw_only=True)
    _endpoints: IAgentEndpointFactory | None = field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        check_url(self._url, self._public_url)
        if self._by not in _NEEDS:
            raise InvalidSetting(
                f"an application is told by reference or by value, not by {self._by!r}"
            )
        if min(self._send_timeout, self._response_timeout, self._reply_timeout) <= 0:
            raise InvalidSetting("a time-out of a notification must be over 0 seconds")
        if self._secret is not None and not self._secret:
            raise InvalidSetting("the secret that signs notifications is empty")

    @property
    def needs(self) -> Set[InterfaceClass]:
        """See :class:`txbits.interfaces.INotifier`."""
        return _NEEDS[self._by]

    @deferred
    async def notify(self, upload: CompleteUpload, reply: IReply) -> Answer:
        """See :meth:`txbits.interfaces.INotifier.notify`."""
        target = resolve(self._url, self._public_url, upload.request_url)
        headers = self._headers(target, upload, reply)
        return await Asking(
            self._reactor,
            self._endpoints or Endpoints(self._reactor, self._policy),
            target,
            headers,
            upload,
            reply,
            self._by == "value",
            self._send_timeout,
            self._response_timeout,
            self._reply_timeout,
        ).run()

    def _headers(
        self, target: Target, upload: CompleteUpload, reply: IReply
    ) -> Headers:
        length = (upload.session.total or 0) if self._by == "value" else 0
        session_id = format_guid(upload.session.session_id).decode("ascii")
        fields = [
            ("Content-Length", str(length)),
            ("BITS-Original-Request-URL", visible(upload.request_url)),
            ("BITS-Session-Id", session_id),
            ("BITS-Notification-Attempt", str(upload.attempt)),
            ("Repr-Digest", f"sha-256=:{in_base64(upload.sha256)}:"),
        ]
        if self._by == "reference":
            address = IAddressable(upload.session).address()
            fields.append(("BITS-Request-DataFile-Name", visible_path(address)))
            reply_address = reply.address()
            if reply_address is not None:
                fields.append(
                    ("BITS-Response-DataFile-Name", visible_path(reply_address))
                )
        else:
            fields.append(("Content-Type", "application/octet-stream"))
        if self._secret is not None:
            components = [
                ("@method", "POST"),
                ("@authority", target.authority),
                ("@request-target", target.request_target),
                *((name.lower(), value) for name, value in fields),
            ]
            fields += sign(self._secret, components, int(wall_of(self._reactor)()))
        # Content-Length is written by who sends the body.
        fields += [("Host", target.authority), ("User-Agent", "txbits")]
        return Headers(
            {
                name.encode("ascii"): [value.encode("ascii")]
                for name, value in fields[1:]
            }
        )


_NEEDS: dict[str, frozenset[InterfaceClass]] = {
    "reference": frozenset({IAddressable}),
    "value": frozenset({IReadable}),
}
