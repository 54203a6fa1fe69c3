"""
What the resources of the five packets have in common.
"""

from __future__ import annotations

from typing import Generic, TypeVar
from urllib.parse import quote

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits._deferreds import begun
from txbits.interfaces import IAccessPolicy
from txbits.protocol.packets import Ack, Packet
from txbits.sessions import Caller, SessionManager
from txbits.web._ack import refuse, write_ack
from txbits.web._streaming import headers_of

P = TypeVar("P", bound=Packet)

#: What stays as it is in a URL: whatever is printable there, also if it is wrong.
_KEPT = "".join(map(chr, range(0x21, 0x7F)))


def url_of(request: Request) -> str:
    """
    The URL of a request, as the client gave it.

    Bytes that no URL has are percent-encoded, so that it fits into a header.
    """
    target = quote(request.uri, safe=_KEPT)
    if not target.startswith("/"):
        # RFC 9112 3.2.2: all of it.
        return target
    hosts = headers_of(request).get(b"host")
    if hosts:
        host = quote(hosts[0], safe=_KEPT)
    else:
        address = request.getHost()
        host = f"{getattr(address, 'host', '')}:{getattr(address, 'port', '')}"
    scheme = "https" if request.isSecure() else "http"
    return f"{scheme}://{host}{target}"


class PacketResource(Resource, Generic[P]):
    """
    Settles one packet: asks for permission, calls the manager once, has it answered.

    :param manager: Settles it.
    :param policy: Permits it; ``None`` permits everything.
    :param packet: The packet.
    :param destination: The destination it is for.
    :param caller: Who sent it.
    """

    isLeaf = True

    def __init__(
        self,
        manager: SessionManager,
        policy: IAccessPolicy | None,
        packet: P,
        destination: tuple[str, ...],
        caller: Caller,
    ) -> None:
        super().__init__()
        self.manager = manager
        self.policy = policy
        self.packet = packet
        self.destination = destination
        self.caller = caller

    def render(self, request: Request) -> int:
        begun(self._answer(request))
        return NOT_DONE_YET

    async def _answer(self, request: Request) -> None:
        try:
            if self.policy is not None:
                await self.policy.check(
                    self.caller.user, self.destination, self.packet.packet_type
                )
            ack = await self.settle(request)
        except Exception as error:  # noqa: BLE001 - the edge: every error is answered
            refuse(request, error, self.destination, self.packet.packet_type)
        else:
            write_ack(request, ack)

    def request_url(self, request: Request) -> str:
        """
        The destination URL as the client gave it, with its query.

        :returns: Nothing where nobody will ask for it.
        """
        return "" if self.manager.notifier is None else url_of(request)

    async def settle(self, request: Request) -> Ack:
        """
        Do what the packet asks for.

        :param request: What brought it.
        :returns: The Ack of success.
        """
        raise NotImplementedError(f"{type(self).__name__} settles nothing")
