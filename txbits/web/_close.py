"""Close-Session (MC-BUP 3.2.5.2.7)."""

from __future__ import annotations

from twisted.web.server import Request

from txbits.protocol.codec import METHOD
from txbits.protocol.packets import Ack, CloseSession
from txbits.web._packet import PacketResource


class CloseResource(PacketResource[CloseSession]):
    """Answers a Close-Session, when the file stands and the rest is released."""

    async def settle(self, request: Request) -> Ack:
        session_id = self.packet.session_id
        await self.manager.close(
            session_id, self.destination, self.caller, self.request_url(request)
        )
        if request.method == METHOD:
            return Ack(200, session_id)
        # Clients made for OneDrive, which send POST, take the file's id from here and
        # fail without one. A session makes one file, so its id tells that from others.
        return Ack(200, session_id, resource_id=str(session_id).upper())
