"""
Loads ``tests/vectors``: requests and answers as the bytes that travel.

:func:`request` and :func:`answer` load one by its name below that folder, such as
``request("requests/windows-ping")``; :func:`names` lists a folder. ``raw`` can be sent
to a server as it is; the rest is the same, taken apart by a reader that is
independent of Twisted's.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from uuid import UUID

from attrs import frozen

FOLDER = Path(__file__).parent.parent / "vectors"

#: The session that all vectors speak of, and the destination of all requests.
SESSION = UUID("2c4f5a1e-93b7-4d08-a6c1-7e0f9d3b8a52")
DESTINATION = b"/name.txt"

Fields = list[tuple[bytes, bytes]]


def by_name(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, list[bytes]]:
    """Collect header values by lower-case name, as the codec takes them."""
    headers: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        headers.setdefault(name.lower(), []).append(value)
    return headers


@frozen
class Request:
    """
    A request.

    :ivar raw: All of it.
    :ivar fields: The headers, in order and as they are spelled.
    :ivar body: The body, without the framing of chunks.
    """

    raw: bytes
    method: bytes
    target: bytes
    fields: Fields
    body: bytes

    @property
    def headers(self) -> dict[bytes, list[bytes]]:
        """Values by lower-case name."""
        return by_name(self.fields)


@frozen
class Answer:
    """
    An answer.

    :ivar raw: All of it.
    :ivar fields: The headers, in order and as they are spelled.
    """

    raw: bytes
    status: int
    fields: Fields
    body: bytes

    @property
    def headers(self) -> dict[bytes, list[bytes]]:
        """Values by lower-case name."""
        return by_name(self.fields)


def names(folder: str) -> list[str]:
    """Name all vectors of a folder: requests, refused, acks, foreign."""
    return sorted(
        f"{folder}/{path.stem}"
        for path in (FOLDER / folder).iterdir()
        if path.suffix in (".request", ".ack")
    )


def request(name: str) -> Request:
    """Load a request."""
    raw = (FOLDER / f"{name}.request").read_bytes()
    start, fields, body = _take_apart(raw)
    method, target, version = start.split(b" ")
    _insist(version == b"HTTP/1.1", name)
    return Request(raw, method, target, fields, body)


def answer(name: str) -> Answer:
    """Load an Ack, or what a server said instead of one."""
    raw = (FOLDER / f"{name}.ack").read_bytes()
    start, fields, body = _take_apart(raw)
    version, status, _ = start.split(b" ", 2)
    _insist(version == b"HTTP/1.1", name)
    return Answer(raw, int(status), fields, body)


def _take_apart(raw: bytes) -> tuple[bytes, Fields, bytes]:
    head, blank, body = raw.partition(b"\r\n\r\n")
    _insist(blank != b"", "a head that ends")
    start, *lines = head.split(b"\r\n")
    fields = []
    for line in lines:
        name, _, value = line.partition(b":")
        fields.append((name, value.strip(b" \t")))
    headers = by_name(fields)
    if b"transfer-encoding" in headers:
        body = _unchunked(body)
    else:
        # A vector must not be mistaken about its own length, unless it is about that.
        length = int(headers.get(b"content-length", [b"0"])[0])
        _insist(len(body) == length, f"{length} bytes of body, not {len(body)}")
    return start, fields, body


def _unchunked(rest: bytes) -> bytes:
    body = b""
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size, 16)
        if not length:
            _insist(rest == b"\r\n", "chunks that end")
            return body
        body, rest = body + rest[:length], rest[length + 2 :]


def _insist(condition: bool, what: str) -> None:
    if not condition:
        raise ValueError(f"a vector is broken: {what}")
