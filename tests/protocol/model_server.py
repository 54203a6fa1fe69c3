"""
A BITS server of a few lines, for clients to be tried against.

It is the least that MC-BUP asks for: bytes in memory, no time, no network. It can be
told to misbehave as real servers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, field

from txbits.protocol.packets import (
    Ack,
    CancelSession,
    ClientPacket,
    CloseSession,
    CreateSession,
    Fragment,
    Ping,
)
from txbits.protocol.refusals import HResult


@define
class ModelServer:
    """
    :ivar largest: How long a fragment may be.
    :ivar new_id: Names a session, whose number it gets.
    :ivar held: The bytes of each session.
    :ivar published: What stands at the destination.
    :ivar taken: How many body bytes were received, useful or not.
    """

    largest: int = 2**40
    new_id: Callable[[int], Any] = "session-{}".format
    held: dict[str, bytearray] = field(factory=dict)
    published: bytes | None = None
    taken: int = 0
    _count: int = 0
    _totals: dict[str, int] = field(factory=dict)

    def receive(self, packet: ClientPacket, body: bytes) -> Ack[str]:
        """Take a packet, whose body may have been cut short, and answer it."""
        if isinstance(packet, Ping):
            return Ack(200)
        if isinstance(packet, CreateSession):
            self._count += 1
            session_id = self.new_id(self._count)
            self.held[session_id] = bytearray()
            return Ack(200, session_id, protocol=packet.protocols[0])
        session_id = packet.session_id
        if session_id not in self.held:
            return Ack(500, session_id, hresult=HResult.BG_E_SESSION_NOT_FOUND)
        if isinstance(packet, Fragment):
            return self._fragment(packet, body)
        held = self.held.pop(session_id)
        if isinstance(packet, CloseSession):
            if len(held) == self._totals.get(session_id, 0):
                self.published = bytes(held)
        else:
            assert isinstance(packet, CancelSession)
        return Ack(200, session_id)

    def _fragment(self, packet: Fragment[str], body: bytes) -> Ack[str]:
        held = self.held[packet.session_id]
        content_range = packet.content_range
        self._totals[packet.session_id] = content_range.total
        if content_range.first > len(held):
            return Ack(416, packet.session_id, received=len(held), hresult=0)
        if content_range.length > self.largest:
            return Ack(413, packet.session_id, hresult=HResult.BG_E_TOO_LARGE)
        self.taken += len(body)
        held += body[len(held) - content_range.first :]
        return Ack(200, packet.session_id, received=len(held))

    def forget(self) -> None:
        """Lose all sessions, as a server does that keeps them in memory."""
        self.held.clear()

    def fall_back(self, count: int) -> None:
        """Lose the last bytes of each session, as when a machine crashed."""
        for held in self.held.values():
            del held[max(0, len(held) - count) :]
