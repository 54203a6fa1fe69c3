"""
The packets of BITS and their Acks, as values that cannot be malformed.

A request that could be read is one of :data:`Packet`; what the server answers is an
:class:`Ack`. Both sides of the wire use them: the server reads packets and writes
Acks, a client writes packets and reads Acks (:mod:`txbits.protocol.codec`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Generic
from uuid import UUID

from attrs import frozen

from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    ContentRange,
    LocalProtocolError,
)

if TYPE_CHECKING:
    # That of typing has defaults from Python 3.13 on.
    from typing_extensions import TypeVar

    #: How a session is called: a GUID where we are the server, and where we are the
    #: client the server's own word, which goes back byte for byte
    #: (:func:`~txbits.protocol._fields.check_session_id`).
    SessionId = TypeVar("SessionId", UUID, str, default=UUID)
else:
    from typing import TypeVar

    SessionId = TypeVar("SessionId")


@frozen
class Ping:
    """Asks for nothing but an Ack (MC-BUP 2.2.4)."""

    packet_type: ClassVar[str] = "Ping"


@frozen
class CreateSession:
    """
    Asks for a new session (MC-BUP 2.2.2).

    :ivar protocols: What the client speaks, most preferred first.
    :ivar content_name: The client's name for the file.
    """

    packet_type: ClassVar[str] = "Create-Session"

    protocols: tuple[UUID, ...] = (BITS_UPLOAD_PROTOCOL,)
    content_name: str | None = None


@frozen
class Fragment(Generic[SessionId]):
    """
    Carries a range of the file (MC-BUP 2.2.6).

    :ivar session_id: Whose it is.
    :ivar content_range: Which bytes.
    :ivar content_length: Length of the body in bytes, ``None`` if it comes chunked;
        if known it is the length of the range.
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
    """Says that all is sent, and may become visible (MC-BUP 2.2.8)."""

    packet_type: ClassVar[str] = "Close-Session"

    session_id: SessionId


@frozen
class CancelSession(Generic[SessionId]):
    """Says that nothing is to be left of the session (MC-BUP 2.2.10)."""

    packet_type: ClassVar[str] = "Cancel-Session"

    session_id: SessionId


Packet = Ping | CreateSession | Fragment | CloseSession | CancelSession

#: What a client sends.
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


@frozen
class Ack(Generic[SessionId]):
    """
    The server's answer to any packet (MC-BUP 2.2.3, 2.2.5, 2.2.7, 2.2.9, 2.2.11).

    What is ``None`` is not there.

    :ivar status: The HTTP status; 200 (or 201) is success.
    :ivar session_id: The session that was created, or that the packet named.
    :ivar protocol: The protocol that the server chose; of Create-Session only.
    :ivar received: Offset of the byte that the server wants next; of Fragment only.
    :ivar hresult: What went wrong, as Windows counts errors.
    :ivar context: Where: 0x5 in the server, 0x7 in the server application.
    :ivar retry_after: Seconds to wait before trying again.
    :ivar host_id: The host to send the rest to; of Create-Session only.
    :ivar host_id_fallback_timeout: Seconds without progress after which a client
        comes back from there.
    :ivar reply_url: Where the server application's reply is; of the last Fragment.
    :ivar schemes: In words, the schemes of authentication that a 401 or 407 offers; of
        Acks that were read only.
    :ivar resource_id: What the file is known by; of a Close-Session that came over
        POST, as clients made for OneDrive send it, which fail without it.
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
        """Whether the packet did what it asked for."""
        return 200 <= self.status < 300
