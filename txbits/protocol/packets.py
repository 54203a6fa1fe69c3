"""
The packets of BITS and their Acks, as values that cannot be malformed.

A valid request is one of :data:`Packet`; the server's answer is an :class:`Ack`. The
server reads packets and writes Acks, a client writes packets and reads Acks
(:mod:`txbits.protocol.codec`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic
from uuid import UUID

from attrs import define, frozen

from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    ContentRange,
    LocalProtocolError,
)

if TYPE_CHECKING:
    # typing.TypeVar has defaults from Python 3.13 on.
    from typing_extensions import TypeVar

    #: The id of a session: on the server a GUID, on the client the server's own text,
    #: which is sent back byte for byte
    #: (:func:`~txbits.protocol._fields.check_session_id`).
    SessionId = TypeVar("SessionId", UUID, str, default=UUID)
else:
    from typing import TypeVar

    SessionId = TypeVar("SessionId")


@frozen
class Ping:
    """Only requests an Ack (MC-BUP 2.2.4)."""

    packet_type: ClassVar[str] = "Ping"


@frozen
class CreateSession:
    """
    Requests a new session (MC-BUP 2.2.2).

    :ivar protocols: The protocols that the client supports, most preferred first.
    :ivar content_name: The client's name for the file.
    """

    packet_type: ClassVar[str] = "Create-Session"

    protocols: tuple[UUID, ...] = (BITS_UPLOAD_PROTOCOL,)
    content_name: str | None = None


@frozen
class Fragment(Generic[SessionId]):
    """
    Contains a range of the file (MC-BUP 2.2.6).

    :ivar session_id: Its session.
    :ivar content_range: Which bytes.
    :ivar content_length: Length of the body in bytes, which is that of the range;
        ``None`` if the body is chunked.
    """

    packet_type: ClassVar[str] = "Fragment"

    session_id: SessionId
    content_range: ContentRange
    content_length: int | None

    def __attrs_post_init__(self) -> None:
        if self.content_length not in (None, self.content_range.length):
            raise LocalProtocolError(
                f"a body of {self.content_length} bytes is not as long as its range, "
                f"{self.content_range.length} bytes"
            )


@frozen
class CloseSession(Generic[SessionId]):
    """Says that the file is complete, and may become visible (MC-BUP 2.2.8)."""

    packet_type: ClassVar[str] = "Close-Session"

    session_id: SessionId


@frozen
class CancelSession(Generic[SessionId]):
    """Requests that everything of the session is removed (MC-BUP 2.2.10)."""

    packet_type: ClassVar[str] = "Cancel-Session"

    session_id: SessionId


Packet = Ping | CreateSession | Fragment | CloseSession | CancelSession

#: The packets of a client.
ClientPacket = (
    Ping | CreateSession | Fragment[str] | CloseSession[str] | CancelSession[str]
)

#: Every packet by its type, in lower case.
PACKETS: dict[bytes, type[Packet]] = {
    b"ping": Ping,
    b"create-session": CreateSession,
    b"fragment": Fragment,
    b"close-session": CloseSession,
    b"cancel-session": CancelSession,
}


# Not frozen: attrs takes three times as long to make an object that is.
@define
class Ack(Generic[SessionId]):
    """
    The server's answer to any packet (MC-BUP 2.2.3, 2.2.5, 2.2.7, 2.2.9, 2.2.11).

    Headers that are missing are ``None``.

    :ivar status: The HTTP status; 200 (or 201) is success.
    :ivar session_id: The session that was created, or that the packet named.
    :ivar protocol: The protocol that the server chose; of Create-Session only.
    :ivar received: Offset of the byte that the server expects next; of Fragment only.
    :ivar hresult: The error, as an HRESULT.
    :ivar context: Where it occurred: 0x5 in the server, 0x7 in the server application.
    :ivar retry_after: Seconds to wait before trying again.
    :ivar host_id: The host to send the rest to; of Create-Session only.
    :ivar host_id_fallback_timeout: Seconds without progress after which a client
        comes back from there.
    :ivar reply_url: Where the server application's reply is; of the last Fragment.
    :ivar schemes: The schemes of authentication that a 401 or 407 offers, in words;
        only of Acks that were read.
    :ivar resource_id: Identifies the file; only of a Close-Session sent with POST:
        clients for OneDrive send it like this, and fail without the header.
    """

    status: int
    session_id: SessionId | None = None
    protocol: UUID | None = None
    received: int | None = None
    hresult: int | None = None
    context: int | None = None
    retry_after: int | None = None
    host_id: str | None = None
    host_id_fallback_timeout: int | None = None
    reply_url: str | None = None
    resource_id: str | None = None
    schemes: tuple[str, ...] = ()

    @property
    def success(self) -> bool:
        """Whether the packet succeeded."""
        return 200 <= self.status < 300
