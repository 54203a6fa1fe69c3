"""Create-Session (MC-BUP 3.2.5.2.4)."""

from __future__ import annotations

from twisted.web.server import Request

from txbits.protocol._fields import BITS_UPLOAD_PROTOCOL
from txbits.protocol.codec import METHOD
from txbits.protocol.packets import Ack, CreateSession
from txbits.web._packet import PacketResource


class CreateResource(PacketResource[CreateSession]):
    """Answers a Create-Session."""

    async def settle(self, request: Request) -> Ack:
        session_id = await self.manager.create(
            self.destination, self.caller, self.packet.content_name
        )
        # Clients that send POST (python-onedrive is one) insist on 201.
        status = 200 if request.method == METHOD else 201
        settings = self.manager.settings
        has_host = settings.host_id is not None
        return Ack(
            status,
            session_id,
            protocol=BITS_UPLOAD_PROTOCOL,
            host_id=settings.host_id,
            # IIS sends it with every host id, and never without one.
            host_id_fallback_timeout=(
                settings.host_id_fallback_timeout if has_host else None
            ),
        )
