"""
Single headers: GUIDs, ranges, lengths, HRESULTs.

Each pattern follows the section of MC-BUP (v20240423) that requires it. Reading a value
(``parse_``) raises :class:`LocalProtocolError`. Reading a header of a packet from its
head (``read_``) raises :class:`RemoteProtocolError`, which says what answers it;
:mod:`txbits.protocol.codec` reads whole packets so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import islice
from uuid import UUID

from attrs import field, frozen

from txbits.protocol.refusals import (
    BAD_RANGE,
    BAD_SESSION_ID,
    HEADER_TOO_LONG,
    MALFORMED_HEADER,
    UNSUPPORTED_ENCODING,
    Refusal,
)


class ProtocolError(Exception):
    """A violation of the protocol."""


class LocalProtocolError(ProtocolError):
    """We tried to write or read a value that BITS does not allow."""


class RemoteProtocolError(ProtocolError):
    """
    The peer said something that BITS does not allow.

    :ivar refusal: The row of the failure table that answers it.
    :ivar session_id: The session that it named, if that much could be read; the Ack
        echoes it.
    """

    def __init__(
        self, message: str, refusal: Refusal, session_id: UUID | None = None
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.session_id = session_id


#: Header values by lower-case name, in the order in which they came.
Headers = Mapping[bytes, Sequence[bytes]]


#: MC-BUP 1.7.1: "This version of the specification defines a single protocol whose
#: identifying GUID is {7df0354d-249b-430f-820d-3d2a9bef4931}."
BITS_UPLOAD_PROTOCOL = UUID("7df0354d-249b-430f-820d-3d2a9bef4931")

#: MC-BUP 2.2.1: "The size of the value of a header field SHOULD NOT be more than 4
#: kilobytes."
MAX_VALUE_LENGTH = 4096

#: How many GUIDs of BITS-Supported-Protocols are read; others are ignored.
MAX_PROTOCOLS = 100

#: MC-BUP 2.2.1.1 on Content-Name: "The length SHOULD NOT exceed 260 characters."
MAX_CONTENT_NAME = 260

#: The reference page on the Ack for Create-Session lets a server choose the id of a
#: session, of up to 100 characters; MC-BUP 2.2.1.2 has GUIDs only. Our server uses
#: GUIDs, our client accepts either.
MAX_SESSION_ID = 100

#: How much of a URL that a stranger gives is worth showing.
_LONGEST_SHOWN = 200

#: How many parsed and formatted GUIDs are cached: each packet of a session and each
#: Ack contains its id.
_REMEMBERED = 1024

#: What may surround a header value (RFC 9110 5.6.3). ``bytes.strip()`` without an
#: argument also removes vertical tabs and form feeds, and would accept illegal values.
WHITE_SPACE = b" \t"

#: MC-BUP 3.1.1.1 keeps lengths in a "64-bit integer"; Windows' are signed.
MAX_OFFSET = 2**63 - 1
_LONGEST_OFFSET = len(str(MAX_OFFSET))

# MC-BUP 2.2.1.2 takes GUIDs as MS-DTYP 2.3.4.3 writes them, in braces. Windows sends
# upper case in braces; other clients omit the braces.
_GUID = re.compile(
    rb"(?:\{(?P<braced>GUID)\}|(?P<bare>GUID))".replace(
        b"GUID",
        rb"[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}",
    )
)

# RFC 9110, section 5.5: a value begins and ends with visible characters.
_SESSION_ID = re.compile(
    r"[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?"
)

# MC-BUP 2.2.2.2: "a space-delimited or comma-delimited list of the protocols".
_PROTOCOL = re.compile(rb"[^ \t,]+")

# MC-BUP 2.2.6.1: "using the format in section 14.16 of [RFC2616]". The unit is
# compared case-insensitively, like all other tokens of HTTP here.
_CONTENT_RANGE = re.compile(
    rb"bytes[ \t]+(?P<first>[0-9]{1,19})-(?P<last>[0-9]{1,19})/(?P<total>[0-9]{1,19})",
    re.IGNORECASE,
)

# No source says how Windows writes the range of an empty file. These are three
# plausible forms; in all of them the total is 0.
_EMPTY_RANGE = re.compile(rb"bytes[ \t]+(?:0-0|\*|0--1)/0", re.IGNORECASE)

# MC-BUP 2.2.3.2 on BITS-Host-Id: "It MUST have the host format specified in [RFC1738]
# section 5 or the IPv6address specified in [RFC2373] Appendix B." The former has no
# host names that end in a number, and RFC 1123 2.1 lets the other labels begin with a
# digit. The port is IIS's ("server name, IP address, or host:port").
_HOST_NAME = re.compile(
    r"(?:LABEL\.)*(?=[A-Za-z0-9-]*[A-Za-z])LABEL".replace(
        "LABEL", "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    )
)
_LONGEST_HOST_NAME = 253
_HOST_AND_PORT = re.compile(
    r"(?:\[(?P<six>[^\[\]]*)\]|(?P<host>[^:\[\]]*))(?::(?P<port>[0-9]{1,5}))?"
)

# MC-BUP 2.2.1.2 calls BITS-Error "an HRESULT value"; MS-ERREF prints those with
# eight digits behind 0x, and so do the reference pages and IIS.
_HRESULT = re.compile(rb"0[xX](?P<digits>[0-9A-Fa-f]{1,8})")


def trimmed(value: bytes) -> bytes:
    """Remove the white space around a header value."""
    return value.strip(WHITE_SPACE)


@lru_cache(_REMEMBERED)
def parse_guid(value: bytes) -> UUID:
    """
    Read a GUID, in any case, with or without braces.

    :raises LocalProtocolError: If it is not one.
    """
    match = _GUID.fullmatch(value)
    if match is None:
        raise LocalProtocolError(f"{value.decode('latin-1')!r} is not a GUID")
    return UUID((match["braced"] or match["bare"]).decode("ascii"))


@lru_cache(_REMEMBERED)
def format_guid(guid: UUID) -> bytes:
    """Write a GUID as Windows does: upper case, in braces."""
    return b"{%b}" % str(guid).upper().encode("ascii")


def check_session_id(text: str) -> str:
    """
    Check the id of a session on another server, which is to be sent back unchanged.

    :param text: Its bytes as Latin-1.
    :returns: The same.
    :raises LocalProtocolError: If it cannot be sent in a header, or is too long.
    """
    if not text or len(text) > MAX_SESSION_ID:
        raise LocalProtocolError(
            f"a session id has 1 to {MAX_SESSION_ID} characters, not {len(text)}"
        )
    if _SESSION_ID.fullmatch(text) is None:
        raise LocalProtocolError(f"{text!r} is not a session id: no header can hold it")
    return text


# All clients of a kind send the same.
@lru_cache(16)
def parse_protocols(value: bytes) -> tuple[UUID, ...]:
    """
    Read BITS-Supported-Protocols (MC-BUP 2.2.2.2), the most preferred first.

    Anything that is not a GUID is an unknown protocol, and ignored.
    """
    found = []
    for token in islice(_PROTOCOL.finditer(value), MAX_PROTOCOLS):
        match = _GUID.fullmatch(token[0])
        if match is not None:
            found.append(UUID((match["braced"] or match["bare"]).decode("ascii")))
    return tuple(found)


@lru_cache(16)
def format_protocols(protocols: tuple[UUID, ...]) -> bytes:
    """Write BITS-Supported-Protocols, in lower case as Windows does."""
    return b" ".join(b"{%b}" % str(guid).encode("ascii") for guid in protocols)


def parse_offset(value: bytes) -> int:
    """
    Read an offset or a length: digits, below 2**63.

    :raises LocalProtocolError: If it is not one.
    """
    # isdigit() of bytes knows the ten ASCII digits only.
    if (
        not value.isdigit()
        or len(value) > _LONGEST_OFFSET
        or (offset := int(value)) > MAX_OFFSET
    ):
        text = value.decode("latin-1")
        raise LocalProtocolError(f"{text!r} is not a number of bytes")
    return offset


@frozen
class ContentRange:
    """
    Which bytes of the file a Fragment carries (MC-BUP 2.2.6.1).

    Invalid ranges cannot be constructed.

    :ivar first: Offset of the first byte.
    :ivar last: Offset of the last byte; -1 for an empty file.
    :ivar total: Length of the whole file.
    :ivar length: How many bytes are carried.
    """

    first: int
    last: int
    total: int
    length: int = field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "length", self.last - self.first + 1)
        if 0 <= self.first <= self.last < self.total <= MAX_OFFSET:
            return
        if not (self.total == 0 and self.first == 0 and self.last == -1):
            raise LocalProtocolError(
                f"bytes {self.first}-{self.last}/{self.total} is not a range"
            )

    @classmethod
    def empty(cls) -> ContentRange:
        """The range of a file of no bytes."""
        return cls(0, -1, 0)

    def to_bytes(self) -> bytes:
        """Write the value of a Content-Range header."""
        if self.total == 0:
            return b"bytes */0"
        return b"bytes %d-%d/%d" % (self.first, self.last, self.total)


def parse_content_range(value: bytes) -> ContentRange:
    """
    Read a Content-Range.

    :raises LocalProtocolError: If it is not one, or is invalid.
    """
    match = _CONTENT_RANGE.fullmatch(value)
    if match is not None:
        first, last, total = map(int, match.groups())
        if total:
            return ContentRange(first, last, total)
    if _EMPTY_RANGE.fullmatch(value) is not None:
        return ContentRange.empty()
    raise LocalProtocolError(f"{value.decode('latin-1')!r} is not a range of a file")


def parse_hresult(value: bytes) -> int:
    """
    Read an HRESULT such as ``0x80070057``.

    :raises LocalProtocolError: If it is not one.
    """
    match = _HRESULT.fullmatch(value)
    if match is None:
        raise LocalProtocolError(f"{value.decode('latin-1')!r} is not an HRESULT")
    return int(match["digits"], 16)


def format_hresult(hresult: int) -> bytes:
    """Write an HRESULT with its eight digits."""
    return b"0x%08X" % hresult


def check_host_id(text: str) -> str:
    """
    Check a BITS-Host-Id (MC-BUP 2.2.3.2): a host name, an IPv4 or an IPv6 address.

    A port may follow, behind an IPv6 address only if that is in brackets.

    :returns: The same.
    :raises LocalProtocolError: If it is invalid; the text is for an operator.
    """
    if not text.isascii():
        raise LocalProtocolError(
            "must be ASCII: an international name begins with xn--"
        )
    match = _HOST_AND_PORT.fullmatch(text)
    if match is not None:
        is_port = match["port"] is None or 0 < int(match["port"]) < 65536
        if is_port and (
            _is_address(IPv6Address, match["six"])
            if match["host"] is None
            else _is_host(match["host"])
        ):
            return text
    elif _is_address(IPv6Address, text):
        return text
    raise LocalProtocolError(
        "must be a host name, an IPv4 address or an IPv6 address, and may have a port"
    )


def _is_host(text: str) -> bool:
    if len(text) > _LONGEST_HOST_NAME:
        return False
    return _is_address(IPv4Address, text) or _HOST_NAME.fullmatch(text) is not None


def _is_address(kind: type[IPv4Address | IPv6Address], text: str) -> bool:
    try:
        kind(text)
    except AddressValueError:
        return False
    # The zone of an address has a meaning only on one machine.
    return "%" not in text


def quoted(text: str) -> str:
    """
    Quote what a stranger has said, to be shown on a terminal.

    :returns: It on one line, and not too much of it.
    """
    shown = repr(text[:_LONGEST_SHOWN])
    return shown if len(text) <= _LONGEST_SHOWN else f"{shown}..."


def check_lengths(headers: Headers) -> None:
    """Check that no value is too long."""
    # MC-BUP 2.2.1. Credentials and cookies have only HTTP's limit: Kerberos tickets
    # are long.
    for name, values in headers.items():
        for value in values:
            if len(value) > MAX_VALUE_LENGTH and name.startswith(
                (b"bits-", b"content-")
            ):
                raise RemoteProtocolError(
                    f"{name.decode('latin-1')} is {len(value)} bytes long",
                    HEADER_TOO_LONG,
                )


def check_encoding(headers: Headers) -> None:
    """Check that a body is not encoded, such as compressed."""
    for value in headers.get(b"content-encoding", ()):
        if trimmed(value).lower() not in (b"identity", b""):
            raise RemoteProtocolError(
                f"Content-Encoding is {quoted(value.decode('latin-1'))}",
                UNSUPPORTED_ENCODING,
            )


def is_chunked(headers: Headers) -> bool:
    """Whether the length of the body shows only at its end."""
    # Any coding but identity, which is none, brings a body whose length shows at its
    # end. HTTP parsers refuse those that they cannot undo.
    values = headers.get(b"transfer-encoding")
    return values is not None and any(
        trimmed(value).lower() != b"identity" for value in values
    )


def read_single(headers: Headers, name: bytes, refusal: Refusal) -> bytes | None:
    """
    Read a header that may be there once.

    :param refusal: What refuses it if it is there more often.
    :returns: Its value; ``None`` if it is not there.
    """
    values = headers.get(name)
    if values is None:
        return None
    if len(values) != 1:
        raise RemoteProtocolError(
            f"{name.decode('latin-1')} is there {len(values)} times", refusal
        )
    return values[0].strip(WHITE_SPACE)


def read_session_id(headers: Headers) -> UUID:
    """Read BITS-Session-Id, which has to be there."""
    value = read_single(headers, b"bits-session-id", BAD_SESSION_ID)
    try:
        return parse_guid(value or b"")
    except LocalProtocolError as error:
        raise RemoteProtocolError(
            f"BITS-Session-Id: {error}", BAD_SESSION_ID
        ) from error


def read_content_length(headers: Headers) -> int | None:
    """Read Content-Length; ``None`` if it is not there."""
    value = read_single(headers, b"content-length", MALFORMED_HEADER)
    if value is None:
        return None
    try:
        return parse_offset(value)
    except LocalProtocolError as error:
        raise RemoteProtocolError(
            f"Content-Length: {error}", MALFORMED_HEADER
        ) from error


def read_content_range(headers: Headers) -> ContentRange:
    """Read the Content-Range of a Fragment."""
    value = read_single(headers, b"content-range", BAD_RANGE)
    if value is None:
        raise RemoteProtocolError("a Fragment without Content-Range", BAD_RANGE)
    try:
        return parse_content_range(value)
    except LocalProtocolError as error:
        raise RemoteProtocolError(str(error), BAD_RANGE) from error
