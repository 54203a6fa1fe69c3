"""Fragment (MC-BUP 3.2.5.2.6)."""

from __future__ import annotations

from twisted.web.server import Request

from txbits.protocol.packets import Ack, Fragment
from txbits.web._packet import PacketResource
from txbits.web._streaming import body_of
from txbits.web.replies import reply_url


class FragmentResource(PacketResource[Fragment]):
    """Answers a Fragment."""

    async def settle(self, request: Request) -> Ack:
        session_id, content_range = self.packet.session_id, self.packet.content_range
        received = await self.manager.fragment(
            session_id,
            self.destination,
            self.caller,
            content_range,
            body_of(request, content_range.first),
            self.request_url(request),
        )
        url = received.reply_url
        if received.has_reply:
            url = reply_url(self.origins.directory(request), session_id)
        return Ack(200, session_id, received=received.offset, reply_url=url)
