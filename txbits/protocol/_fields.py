"""
Single header values: GUIDs, ranges, lengths, HRESULTs.

Each pattern follows the section of MC-BUP (v20240423) that requires it. Reading raises
:class:`LocalProtocolError`; :mod:`txbits.protocol.codec` knows whose value it is, and
translates the error.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from itertools import islice
from uuid import UUID

from attrs import field, frozen


class ProtocolError(Exception):
    """A violation of the protocol."""


class LocalProtocolError(ProtocolError):
    """We tried to write or read a value that BITS does not allow."""


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
