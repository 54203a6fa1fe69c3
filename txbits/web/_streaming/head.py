"""
The head of a ``BITS_POST`` request, read in one go.

``HTTPChannel`` reads a head line by line, into objects that serve every kind of
request. For a small upload that takes more time than everything else. If the head of a
``BITS_POST`` arrives in one piece and has nothing unusual, it is read here instead, all
lines at a time. Any other head is left to ``HTTPChannel``, which also refuses what is
malformed.
"""

from __future__ import annotations

import re
import string
from collections.abc import Mapping, Sequence

from attrs import define

from txbits.protocol._fields import trimmed

# RFC 9112 3: method SP request-target SP HTTP-version.
_REQUEST_LINE = re.compile(rb"BITS_POST ([\x21-\x7e\x80-\xff]+) (HTTP/1\.[01])\r\n")

# Not every client percent-encodes URLs. curl (7.88) does so for a path, but not for a
# query or --request-target. Programs that write requests themselves send UTF-8 in
# paths as well.
_NO_ASCII = re.compile(rb"[\x80-\xff]")

# RFC 9110 5.6.2: the characters of a token, such as the name of a header.
_TOKEN = b"!#$%&'*+-.^_`|~" + (string.digits + string.ascii_letters).encode()

_END = b"\r\n\r\n"

#: The digits of 2**63 - 1, beyond which there is no length.
_LONGEST_LENGTH = 19


# Not frozen: attrs takes three times as long to make an object that is.
@define(eq=False)
class Head:
    """
    A request's head.

    :ivar target: The request-target, percent-encoded where required.
    :ivar version: The HTTP version.
    :ivar headers: Values by lower-case name, in their order.
    :ivar length: The length of the head in bytes.
    :ivar body_length: The length of the body in bytes.
    :ivar expects: Whether the client may be waiting for a 100 Continue.
    :ivar is_kept: Whether the connection is kept, and the client speaks HTTP/1.1.
    """

    target: bytes
    version: bytes
    headers: dict[bytes, list[bytes]]
    length: int
    body_length: int
    expects: bool
    is_kept: bool


def encoded_target(target: bytes) -> bytes | None:
    """
    Percent-encode the bytes of a request-target that are not ASCII (RFC 3987 3.1).

    :returns: The target; ``None`` if its path is not UTF-8, and so names nothing.
    """
    try:
        target.partition(b"?")[0].decode("utf-8")
    except UnicodeDecodeError:
        return None
    return _NO_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], target)


def read_head(data: bytes, longest: int, most: int) -> Head | None:
    """
    Read the head that *data* begins with.

    :param data: The bytes that have arrived.
    :param longest: Maximum length of a head, in bytes.
    :param most: Maximum number of headers.
    :returns: The head; ``None`` if it is incomplete, unusual, or not of ``BITS_POST``.
    """
    line = _REQUEST_LINE.match(data)
    if line is None:
        return None
    end = data.find(_END, line.end() - 2, longest)
    if end < 0:
        return None
    target = line[1] if line[1].isascii() else encoded_target(line[1])
    if target is None:
        return None
    begin, end = line.end(), end + 2
    headers = _read_fields(data[begin:end], most)
    if headers is None:
        return None
    length = _body_length(headers)
    if length is None:
        return None
    return Head(
        target,
        line[2],
        headers,
        end + 2,
        length,
        b"expect" in headers,
        line[2] == b"HTTP/1.1" and is_kept(headers, line[2]),
    )


def _read_fields(text: bytes, most: int) -> dict[bytes, list[bytes]] | None:
    """
    Read the header fields (RFC 9112 5), without obsolete line folding.

    :param text: Their lines, each with its end.
    :param most: Maximum number of headers.
    :returns: Values by lower-case name; ``None`` if a line is not a field.
    """
    *lines, _ = text.split(b"\r\n")
    count = len(lines)
    # No NUL, CR or LF in a value.
    if (
        count > most
        or b"\0" in text
        or text.count(b"\r") != count
        or text.count(b"\n") != count
    ):
        return None
    fields = [line.split(b":", 1) for line in lines]
    try:
        headers = {name.lower(): [value.strip(b" \t")] for name, value in fields}
    except ValueError:  # a line without a colon
        return None
    if b"" in headers or b"".join(headers).translate(None, _TOKEN):
        return None
    if len(headers) != count:
        # A name occurs more than once.
        headers = {}
        for name, value in fields:
            headers.setdefault(name.lower(), []).append(value.strip(b" \t"))
    return headers


def _body_length(headers: Mapping[bytes, Sequence[bytes]]) -> int | None:
    """The length of the body; ``None`` if it is chunked, or its length is unusual."""
    if b"transfer-encoding" in headers:
        return None
    values = headers.get(b"content-length")
    if values is None:
        return 0
    value = values[0]
    plain = len(values) == 1 and len(value) <= _LONGEST_LENGTH and value.isdigit()
    return int(value) if plain else None


def is_kept(headers: Mapping[bytes, Sequence[bytes]], version: bytes) -> bool:
    """
    Tell whether a connection is kept after a request (RFC 9112 9.3).

    :param headers: The request's headers, by lower-case name.
    :param version: Its version.
    """
    values = headers.get(b"connection")
    if version == b"HTTP/1.1" and (values is None or values == [b"Keep-Alive"]):
        return True
    # RFC 9110 7.6.1: a list of tokens, in any case.
    options = {
        trimmed(option).lower()
        for value in values or ()
        for option in value.split(b",")
    }
    if b"close" in options:
        return False
    # RFC 9112 6.1: a coded body of HTTP/1.0 may not end where it seems to.
    return version == b"HTTP/1.1" or (
        b"keep-alive" in options and b"transfer-encoding" not in headers
    )
