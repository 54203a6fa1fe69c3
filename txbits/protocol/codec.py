"""
From request head to packet and back, from Ack to status and headers and back.

A head is the method and the headers, whose names are given in lower case. Bodies
never come here: a packet says how long its body is, and whoever reads the socket
does the rest.

MC-BUP calls the header of an HRESULT ``BITS-Error`` (2.2.1.2); the reference pages,
IIS and every client known say ``BITS-Error-Code``. Both are written, with the same
value, and either is read.
"""

from __future__ import annotations

from uuid import UUID

from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    MAX_CONTENT_NAME,
    MAX_VALUE_LENGTH,
    WHITE_SPACE,
    ContentRange,
    Headers,
    LocalProtocolError,
    RemoteProtocolError,
    check_encoding,
    check_lengths,
    format_guid,
    format_hresult,
    format_protocols,
    is_chunked,
    parse_guid,
    parse_hresult,
    parse_offset,
    parse_protocols,
    quoted,
    read_content_length,
    read_content_range,
    read_session_id,
    read_single,
    trimmed,
)
from txbits.protocol.packets import (
    PACKETS,
    Ack,
    CancelSession,
    ClientPacket,
    CloseSession,
    CreateSession,
    Fragment,
    Packet,
    Ping,
)
from txbits.protocol.refusals import (
    BAD_RANGE,
    LENGTH_REQUIRED,
    MALFORMED_HEADER,
    METHOD_NOT_ALLOWED,
    NO_COMMON_PROTOCOL,
    UNEXPECTED_BODY,
    UNKNOWN_PACKET_TYPE,
)

#: MC-BUP 2.2.1: "an HTTP extension-method called BITS_POST".
METHOD = b"BITS_POST"

_PACKET_TYPE = b"bits-packet-type"
_OVERRIDE = b"x-http-method-override"


class BodyWithheld(RemoteProtocolError):
    """
    A Fragment came without its body.

    Clients that expect to be asked for credentials keep it back until they have been:
    curl and the libraries of Windows, with schemes of challenge and response.
    """


class NotAnAck(RemoteProtocolError):
    """
    What answers is no BITS server: a web server, or something on the way to one.

    :ivar status: The HTTP status.
    :ivar location: Where it redirects to, if it does.
    """

    def __init__(self, message: str, status: int, location: str | None = None) -> None:
        super().__init__(message, UNKNOWN_PACKET_TYPE)
        self.status = status
        self.location = location


def is_upload_request(method: bytes, headers: Headers) -> bool:
    """
    Tell whether a request is meant for an upload server at all.

    ``POST`` with ``X-HTTP-Method-Override: BITS_POST``, and plain ``POST`` with a
    ``BITS-Packet-Type``, come from clients whose proxies refuse unknown methods.
    """
    if method == METHOD:
        return True
    if method != b"POST":
        return False
    if _PACKET_TYPE in headers:
        return True
    override = _first(headers, _OVERRIDE)
    return override is not None and override.upper() == METHOD


def session_id_of(headers: Headers) -> UUID | None:
    """Read the session that a head names, if it is well formed."""
    values = headers.get(b"bits-session-id")
    if values is None or len(values) != 1:
        return None
    try:
        return parse_guid(values[0].strip(WHITE_SPACE))
    except LocalProtocolError:
        return None


def parse_request(method: bytes, headers: Headers) -> Packet:
    """
    Read a packet from the head of a request.

    :param method: The request's method.
    :param headers: As in :func:`parse_packet`.
    :raises RemoteProtocolError: If it is no packet.
    """
    if not is_upload_request(method, headers):
        error = RemoteProtocolError(
            f"the method is {quoted(method.decode('latin-1'))}, not BITS_POST",
            METHOD_NOT_ALLOWED,
        )
        error.session_id = session_id_of(headers)
        raise error
    return parse_packet(headers)


def parse_packet(headers: Headers, *, is_short: bool = False) -> Packet:
    """
    Read a packet from the headers of an upload request (:func:`is_upload_request`).

    :param headers: Its headers. ``content-length`` consists of digits, and does not
        stand beside ``transfer-encoding``; any HTTP parser makes sure of that.
    :param is_short: Whether the whole head is known to be no longer than
        :data:`MAX_VALUE_LENGTH`, and so none of its values is.
    :raises RemoteProtocolError: If it is no packet. The checks come in the order that
        the failure table is documented in.
    """
    try:
        return _parse_packet(headers, is_short)
    except RemoteProtocolError as error:
        error.session_id = session_id_of(headers)
        raise


def _parse_packet(headers: Headers, is_short: bool) -> Packet:
    packet_type = read_single(headers, _PACKET_TYPE, UNKNOWN_PACKET_TYPE)
    packet = PACKETS.get(packet_type.lower() if packet_type else b"")
    if packet is None:
        found = "missing"
        if packet_type is not None:
            found = quoted(packet_type.decode("latin-1"))
        raise RemoteProtocolError(f"BITS-Packet-Type is {found}", UNKNOWN_PACKET_TYPE)
    if not is_short:
        check_lengths(headers)
    if packet is Fragment:
        return _parse_fragment(headers)
    check_encoding(headers)
    if is_chunked(headers) or read_content_length(headers):
        raise RemoteProtocolError(
            f"{packet.packet_type} came with a body", UNEXPECTED_BODY
        )
    if packet is CreateSession:
        return _parse_create_session(headers)
    if packet is Ping:
        return Ping()
    session_id = read_session_id(headers)
    return (
        CloseSession(session_id)
        if packet is CloseSession
        else CancelSession(session_id)
    )


def _parse_create_session(headers: Headers) -> CreateSession:
    protocols = parse_protocols(b",".join(headers.get(b"bits-supported-protocols", ())))
    if BITS_UPLOAD_PROTOCOL not in protocols:
        raise RemoteProtocolError(
            "no protocol is in common with the client's", NO_COMMON_PROTOCOL
        )
    return CreateSession(protocols, _content_name(headers))


def _parse_fragment(headers: Headers) -> Fragment:
    session_id = read_session_id(headers)
    check_encoding(headers)
    length = read_content_length(headers)
    if length is None and not is_chunked(headers):
        raise RemoteProtocolError("a Fragment of unknown length", LENGTH_REQUIRED)
    content_range = read_content_range(headers)
    try:
        return Fragment(session_id, content_range, length)
    except LocalProtocolError as error:
        failure = BodyWithheld if length == 0 else RemoteProtocolError
        raise failure(str(error), BAD_RANGE) from error


def _content_name(headers: Headers) -> str | None:
    value = read_single(headers, b"content-name", MALFORMED_HEADER)
    if value is None:
        return None
    return _readable(value.decode("utf-8", "replace"))


def _readable(name: str) -> str:
    # A name of a Linux file may hold line ends, and bytes that are no UTF-8.
    if name.isprintable() and len(name) <= MAX_CONTENT_NAME:
        return name
    return "".join(
        c if c.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for c in name[:MAX_CONTENT_NAME]
    )


def encode_request(
    packet: Packet | ClientPacket, content_name: str | None = None
) -> list[tuple[bytes, bytes]]:
    """
    Write the headers of a packet, all but Content-Length, which follows the body.

    :param packet: What to send, with the method :data:`METHOD`.
    :param content_name: The file's name; Windows sends it with every Fragment. What
        cannot stand in a header is replaced, since no one needs it to be exact.
    """
    headers = [(b"BITS-Packet-Type", packet.packet_type.encode("ascii"))]
    if isinstance(packet, CreateSession):
        headers.append(
            (b"BITS-Supported-Protocols", format_protocols(packet.protocols))
        )
        content_name = packet.content_name
    elif not isinstance(packet, Ping):
        headers.append((b"BITS-Session-Id", _written(packet.session_id)))
    if content_name is not None:
        headers.append((b"Content-Name", _readable(content_name).encode("utf-8")))
    if isinstance(packet, Fragment):
        headers.append((b"Content-Range", packet.content_range.to_bytes()))
    return headers


def _written(session_id: UUID | str) -> bytes:
    if isinstance(session_id, UUID):
        return format_guid(session_id)
    return session_id.encode("latin-1")


def encode_ack(ack: Ack) -> list[tuple[bytes, bytes]]:
    """
    Write the headers of an Ack; its status is beside them.

    :raises LocalProtocolError: If its host id, reply URL or resource id cannot stand in
        a header.
    """
    headers = [(b"BITS-Packet-Type", b"Ack"), (b"Content-Length", b"0")]
    if ack.session_id is not None:
        headers.append((b"BITS-Session-Id", format_guid(ack.session_id)))
    if ack.received is not None:
        headers.append((b"BITS-Received-Content-Range", b"%d" % ack.received))
    if ack.protocol is not None:
        headers.append((b"BITS-Protocol", format_protocols((ack.protocol,))))
        headers.append((b"Accept-Encoding", b"identity"))
    if ack.host_id is not None:
        headers.append((b"BITS-Host-Id", _visible(ack.host_id)))
    if ack.host_id_fallback_timeout is not None:
        headers.append(
            (b"BITS-Host-Id-Fallback-Timeout", b"%d" % ack.host_id_fallback_timeout)
        )
    if ack.reply_url is not None:
        headers.append((b"BITS-Reply-URL", _visible(ack.reply_url)))
    if ack.resource_id is not None:
        headers.append((b"X-Resource-Id", _visible(ack.resource_id)))
    if ack.hresult is not None:
        hresult = format_hresult(ack.hresult)
        headers.append((b"BITS-Error-Code", hresult))
        headers.append((b"BITS-Error", hresult))
    if ack.context is not None:
        headers.append((b"BITS-Error-Context", b"0x%X" % ack.context))
    if ack.retry_after is not None:
        headers.append((b"Retry-After", b"%d" % ack.retry_after))
    return headers


def _visible(text: str) -> bytes:
    # Names of hosts and URLs are visible ASCII; an application's reply URL is not to
    # be trusted with that.
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise LocalProtocolError(f"{text!r} cannot stand in a header")
    return text.encode("ascii")


def parse_ack(status: int, headers: Headers) -> Ack[str]:
    """
    Read an Ack, tolerantly: servers differ, and IIS leaves things out.

    A header that cannot be read is as good as one that is not there, except for
    BITS-Received-Content-Range, which says where to go on.

    :returns: The Ack; its session is named as the server does, byte for byte.
    :raises NotAnAck: If it is a success or a redirection that is no Ack.
    :raises RemoteProtocolError: If its BITS-Received-Content-Range cannot be read.
    """
    _check_is_ack(status, headers)
    protocol = _first(headers, b"bits-protocol")
    code = _first(headers, b"bits-error-code") or _first(headers, b"bits-error")
    return Ack(
        status,
        _text(headers, b"bits-session-id"),
        protocol=None
        if protocol is None
        else next(iter(parse_protocols(protocol)), None),
        received=_received(headers),
        hresult=_hresult(code),
        context=_hresult(_first(headers, b"bits-error-context")),
        retry_after=_seconds(_first(headers, b"retry-after")),
        host_id=_text(headers, b"bits-host-id"),
        host_id_fallback_timeout=_seconds(
            _first(headers, b"bits-host-id-fallback-timeout")
        ),
        reply_url=_text(headers, b"bits-reply-url"),
        resource_id=_text(headers, b"x-resource-id"),
    )


def _check_is_ack(status: int, headers: Headers) -> None:
    packet_type = _first(headers, _PACKET_TYPE)
    # MC-BUP 2.2.1 spells it BITS-Package-Type once.
    packet_type = packet_type or _first(headers, b"bits-package-type")
    if (packet_type or b"").lower() == b"ack" or not 200 <= status < 400:
        return
    location = _text(headers, b"location") if status >= 300 else None
    if location is None:
        raise NotAnAck(f"the answer is {status}, but not an Ack", status)
    location = quoted(location)
    raise NotAnAck(
        f"the answer is {status}, a redirect to {location}", status, location
    )


def _received(headers: Headers) -> int | None:
    value = _first(headers, b"bits-received-content-range")
    try:
        return None if value is None else parse_offset(value)
    except LocalProtocolError as error:
        shown = quoted(value.decode("latin-1")) if value else "empty"
        raise RemoteProtocolError(
            f"the server's BITS-Received-Content-Range is not a number: {shown}",
            BAD_RANGE,
        ) from error


def _first(headers: Headers, name: bytes) -> bytes | None:
    values = headers.get(name)
    return trimmed(values[0]) if values else None


def _text(headers: Headers, name: bytes) -> str | None:
    # Latin-1 has a character for each byte.
    value = _first(headers, name)
    return None if value is None else value.decode("latin-1")


def _hresult(value: bytes | None) -> int | None:
    try:
        return None if value is None else parse_hresult(value)
    except LocalProtocolError:
        return None


def _seconds(value: bytes | None) -> int | None:
    try:
        return None if value is None else parse_offset(value)
    except LocalProtocolError:
        return None


__all__ = [
    "MAX_VALUE_LENGTH",
    "METHOD",
    "ContentRange",
    "Headers",
    "NotAnAck",
    "RemoteProtocolError",
    "encode_ack",
    "encode_request",
    "is_upload_request",
    "parse_ack",
    "parse_packet",
    "parse_request",
    "quoted",
    "session_id_of",
]
