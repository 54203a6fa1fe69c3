"""
The handlers of the five packets: each turns its packet into one call of the manager.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from attrs import define, field
from twisted.logger import Logger
from twisted.web.server import Request

from txbits._events import log_often
from txbits.protocol._fields import BITS_UPLOAD_PROTOCOL
from txbits.protocol.codec import METHOD
from txbits.protocol.packets import (
    Ack,
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
    Packet,
    Ping,
)
from txbits.sessions import Caller, SessionManager
from txbits.sessions.naming import destination_name, session_name
from txbits.web._ack import count_accepted_credentials, named, refuse, write_ack
from txbits.web._gate import Gate
from txbits.web._origin import Origins
from txbits.web._streaming import body_of
from txbits.web.replies import reply_url

_log = Logger()

P = TypeVar("P", bound=Packet)


@define(eq=False)
class PacketHandler(Generic[P]):
    """
    Settles one packet: has it admitted, calls the manager once, and answers.

    :param manager: Settles it.
    :param gate: Admits it.
    :param packet: The packet.
    :param destination: The destination that the packet is for.
    :param caller: Who sent it, as far as is known.
    :param origins: Knows the URLs that clients use.
    :ivar is_logged: Whether the log has a line for a packet that succeeds.
    """

    manager: SessionManager
    gate: Gate
    packet: P
    destination: tuple[str, ...]
    caller: Caller
    origins: Origins
    is_logged: bool = field(default=False, init=False)

    async def answer(self, request: Request) -> None:
        """Settle the packet that a request carries, and answer, whatever happens."""
        began = self.manager.clock.seconds() if self.is_logged else 0.0
        try:
            if not self.gate.is_open:
                self.caller = await self.manager.admitted(
                    self.gate.admit(
                        request,
                        self.caller,
                        self.origins,
                        self.destination,
                        self.packet.packet_type,
                        self.manager,
                        getattr(self.packet, "session_id", None),
                        known=self._known,
                    )
                )
            ack = await self.settle(request)
        except Exception as error:  # noqa: BLE001 - the edge: every error is answered
            refuse(
                request,
                error,
                self.destination,
                self.caller,
                self.packet.packet_type,
                counts=self.manager.counts,
                hides_id=self.gate.hides_ids,
            )
        else:
            self.manager.counts.packets[self.packet.packet_type, ack.status] += 1
            write_ack(request, ack)
            if self.is_logged:
                self._log_answer(request, ack, self.manager.clock.seconds() - began)

    def _log_answer(self, request: Request, ack: Ack, seconds: float) -> None:
        found = getattr(self.packet, "content_range", None)
        content_range = found and f"{found.first}-{found.last}/{found.total}"
        log_format = (
            "answered {packet} from {who} for {directory}/{destination} with {status} "
            "after {seconds:.3f} s"
        )
        if content_range is not None:
            log_format += ": bytes {range}"
        session, is_secret = ack.session_id, self.gate.hides_ids
        log_often(
            _log,
            log_format,
            packet=self.packet.packet_type,
            **named(request, self.caller),
            session=session and session_name(session, is_secret=is_secret),
            destination=destination_name(self.destination),
            status=ack.status,
            range=content_range,
            seconds=seconds,
        )

    def _known(self, caller: Caller) -> None:
        """It is established who sent the packet."""
        self.caller = caller
        count_accepted_credentials(self.manager.counts, caller)

    def request_url(self, request: Request) -> str:
        """
        The destination URL as the client gave it, with its query.

        :returns: Empty if there is no notifier to send it to.
        """
        if self.manager.notifier is None:
            return ""
        return self.origins.destination(request)

    async def settle(self, request: Request) -> Ack:
        """
        Do what the packet asks for.

        :param request: The request that carries it.
        :returns: The Ack of success.
        """
        raise NotImplementedError(f"{type(self).__name__} settles nothing")


class PingHandler(PacketHandler[Ping]):
    """Ping (MC-BUP 3.2.5.2.5), with which clients also negotiate authentication."""

    async def settle(self, request: Request) -> Ack:
        return Ack(200)


class CreateHandler(PacketHandler[CreateSession]):
    """Create-Session (MC-BUP 3.2.5.2.4)."""

    async def settle(self, request: Request) -> Ack:
        session_id = await self.manager.settle_create(
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


class FragmentHandler(PacketHandler[Fragment]):
    """Fragment (MC-BUP 3.2.5.2.6)."""

    async def settle(self, request: Request) -> Ack:
        session_id, content_range = self.packet.session_id, self.packet.content_range
        request_url = self.request_url(request)
        received = await self.manager.settle_fragment(
            session_id,
            self.destination,
            self.caller,
            content_range,
            body_of(request, content_range.first),
            request_url,
        )
        url = received.reply_url
        if received.has_reply:
            url = reply_url(self.origins.directory(request), session_id)
        return Ack(200, session_id, received=received.offset, reply_url=url)


class CloseHandler(PacketHandler[CloseSession]):
    """
    Close-Session (MC-BUP 3.2.5.2.7): the Ack follows when the file is published and
    everything else is released.
    """

    async def settle(self, request: Request) -> Ack:
        session_id = self.packet.session_id
        await self.manager.settle_close(
            session_id, self.destination, self.caller, self.request_url(request)
        )
        if request.method == METHOD:
            return Ack(200, session_id)
        # Clients made for OneDrive, which send POST, take the file's id from here and
        # fail without one. A session makes one file, so its id tells that from others.
        return Ack(200, session_id, resource_id=str(session_id).upper())


class CancelHandler(PacketHandler[CancelSession]):
    """
    Cancel-Session (MC-BUP 3.2.5.2.8).

    "The server sends the acknowledgment after releasing all resources associated with
    the upload session": the Ack follows the manager's Deferred.
    """

    async def settle(self, request: Request) -> Ack:
        session_id = self.packet.session_id
        await self.manager.settle_cancel(session_id, self.destination, self.caller)
        return Ack(200, session_id)


#: The handler of each packet.
HANDLERS: dict[type[Packet], type[PacketHandler[Any]]] = {
    Ping: PingHandler,
    CreateSession: CreateHandler,
    Fragment: FragmentHandler,
    CloseSession: CloseHandler,
    CancelSession: CancelHandler,
}
