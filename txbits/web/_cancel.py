"""Cancel-Session (MC-BUP 3.2.5.2.8)."""

from __future__ import annotations

from twisted.web.server import Request

from txbits.protocol.packets import Ack, CancelSession
from txbits.web._packet import PacketResource


class CancelResource(PacketResource[CancelSession]):
    """
    Answers a Cancel-Session.

    "The server sends the acknowledgment after releasing all resources associated with
    the upload session": the Ack is what follows the manager's Deferred, and nothing
    else writes one.
    """

    async def settle(self, request: Request) -> Ack:
        session_id = self.packet.session_id
        await self.manager.cancel(session_id, self.destination, self.caller)
        return Ack(200, session_id)
