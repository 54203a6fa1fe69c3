"""
Notifies a server application over HTTP: the back-end client of MC-BUP 3.3.
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
    Notifies a server application over HTTP.

    Each request has its own connection. Redirects are not followed, and proxy settings
    of the environment are ignored.

    :param reactor: Makes connections, and is the clock.
    :param url: The application's URL: absolute, or relative to the destination on
        *public_url* (BITSServerNotificationURL).
    :param by: With ``"reference"``, the request contains the path or URL of the upload.
        With ``"value"``, the upload is the request's body, and the response's body is
        the reply (BITSServerNotificationType 1 and 2).
    :param public_url: The URL of this server's root, as clients see it.
    :param send_timeout: Seconds within which the application must read some of the
        request.
    :param response_timeout: Seconds after that for the headers of the response.
    :param reply_timeout: Seconds within which some of the response's body must arrive.
    :param secret: Signs requests, if given.
    :param policy: Which certificates to trust for https; by default, the system's.
    :param endpoints: Connects to the application, if not by name and port.
    :raises InvalidSetting: If a URL, a time-out or the secret is invalid.
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
                f"'by' must be 'reference' or 'value', not {self._by!r}"
            )
        if min(self._send_timeout, self._response_timeout, self._reply_timeout) <= 0:
            raise InvalidSetting("the time-outs of notifications must be positive")
        if self._secret is not None and not self._secret:
            raise InvalidSetting("the secret for signatures must not be empty")

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
        # Twisted writes Content-Length with the body.
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
