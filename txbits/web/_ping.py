"""Ping (MC-BUP 3.2.5.2.5): also how authentication is negotiated."""

from __future__ import annotations

from twisted.web.server import Request

from txbits.protocol.packets import Ack, Ping
from txbits.web._packet import PacketResource


class PingResource(PacketResource[Ping]):
    """Answers a Ping."""

    async def settle(self, request: Request) -> Ack:
        return Ack(200)
