"""
What the resources of the five packets have in common.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from txbits._deferreds import begun
from txbits.interfaces import IAccessPolicy
from txbits.protocol.packets import Ack, Packet
from txbits.sessions import Caller, SessionManager
from txbits.web._ack import refuse, write_ack
from txbits.web._origin import Origins

P = TypeVar("P", bound=Packet)


class PacketResource(Resource, Generic[P]):
    """
    Settles one packet: asks for permission, calls the manager once, has it answered.

    :param manager: Settles it.
    :param policy: Permits it; ``None`` permits everything.
    :param packet: The packet.
    :param destination: The destination it is for.
    :param caller: Who sent it.
    :param origins: Knows the URLs that clients use.
    """

    isLeaf = True

    def __init__(
        self,
        manager: SessionManager,
        policy: IAccessPolicy | None,
        packet: P,
        destination: tuple[str, ...],
        caller: Caller,
        origins: Origins | None = None,
    ) -> None:
        super().__init__()
        self.manager = manager
        self.policy = policy
        self.packet = packet
        self.destination = destination
        self.caller = caller
        self.origins = Origins() if origins is None else origins

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
            refuse(
                request,
                error,
                self.destination,
                self.packet.packet_type,
                client=self.caller.address,
            )
        else:
            write_ack(request, ack)

    def request_url(self, request: Request) -> str:
        """
        The destination URL as the client gave it, with its query.

        :returns: Nothing where nobody will ask for it.
        """
        if self.manager.notifier is None:
            return ""
        return self.origins.destination(request)

    async def settle(self, request: Request) -> Ack:
        """
        Do what the packet asks for.

        :param request: What brought it.
        :returns: The Ack of success.
        """
        raise NotImplementedError(f"{type(self).__name__} settles nothing")
