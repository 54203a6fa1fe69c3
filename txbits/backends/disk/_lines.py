"""
The lines of the table of sessions: their form.

Each session has a line of 512 bytes of text, with its phase, total length, *safe
offset*, boot of the machine, a checksum, and who uploads what: :class:`Record`. The
beginning, up to the checksum, changes; the *body* stays.

The safe offset is the number of bytes of the staged file that are known to be on the
disk. It is written after the fsync, so the offset on the disk may be too low but is
never too high. When bytes are discarded, a lower offset is synced before other bytes
replace them.

The line of a closed session has the record of its close, until that is synced
elsewhere. Others are free.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Sequence
from enum import Enum
from typing import Any
from uuid import UUID

from attrs import frozen

#: How long a line is, in bytes.
LENGTH = 512

#: The beginning of a line: the phase, the total length, the safe offset, and how far
#: that is to be trusted: ``k`` if only safe bytes were ever acknowledged, ``d`` if the
#: session is in doubt, otherwise ``u``; with that, the boot.
HEAD = b"%-10b %19b %19b %17b "

#: A line that is free.
FREE = b"free".ljust(LENGTH - 1) + b"\n"
HEAD_LENGTH = len(HEAD % (b"", b"", b"", b""))

#: Where a line says how far the offset is to be trusted.
TRUST_AT = HEAD_LENGTH - 18

#: How long a body can be: without the checksum, the blank after it, and the line's
#: end.
ROOM = LENGTH - HEAD_LENGTH - 10

# Older versions wrote neither a safe offset nor a boot.
_PATTERN = re.compile(
    rb"(open|publishing|published|releasing) +(-|[0-9]{1,19}) "
    rb"(?: *([0-9]{1,19}) ([kud])([0-9a-f]{16}) )?"
    rb"([0-9a-f]{8}) (\[.*\]) *\n"
)

#: Matches no boot of the machine.
NO_BOOT = b"0" * 16

#: Stands for every boot: the line was written when all that it says was on the disk,
#: and holds whatever a system crash undoes.
EVERY_BOOT = b"f" * 16

_CLOSED = b"free closed %b"
_CLOSED_PATTERN = re.compile(rb"free closed ([0-9a-f]{80}) *\n")


class Phase(Enum):
    """How far a session is."""

    OPEN = b"open"
    """It receives bytes, or is complete."""

    PUBLISHING = b"publishing"
    """Its staged file is being moved: if it is missing, it is at the destination."""

    PUBLISHED = b"published"
    """Its file is at the destination; a staged file is another link to it."""

    RELEASING = b"releasing"
    """Its release has begun."""


@frozen
class Record:
    """
    The record of a session.

    :ivar total: Its total length in bytes; ``None`` if no writer was ever opened.
    :ivar created: When it was created, in seconds since the epoch.
    :ivar safe: How many bytes of its staged file are known to be on the disk.
    :ivar boot: The boot of the machine in which it was last written, or
        :data:`EVERY_BOOT`; ``None`` if an older version wrote it.
    :ivar is_kept: Whether only safe bytes were ever acknowledged.
    :ivar in_doubt: Whether acknowledged bytes may be missing.
    """

    session_id: UUID
    phase: Phase
    total: int | None
    created: float
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    safe: int = 0
    boot: bytes | None = None
    is_kept: bool = False
    in_doubt: bool = False


def sound(line: bytes) -> tuple[Any, ...]:
    """
    Split a line, and check its form and checksum.

    :returns: The groups of the pattern; ``None`` for those of a line by an older
        version that are missing.
    :raises ValueError: If the line is not valid.
    """
    match = _PATTERN.fullmatch(line)
    if match is None:
        raise ValueError("it does not have the form of a record")
    *_, checksum, body = parts = match.groups()
    if zlib.crc32(body) != int(checksum, 16):
        raise ValueError("the checksum differs")
    return parts


def id_in(body: bytes) -> UUID | None:
    """
    Read the session's id at the beginning of a line's body.

    :returns: ``None`` if the record is in a file of its own, or if the body is unusual:
        the caller then has to read all of it.
    """
    # The destination follows, unless the record is in a file of its own.
    if body.find(b", [", 40) < 0 or body[38:41] != b'", ':
        return None
    try:
        return UUID(int=int(body[2:38].replace(b"-", b""), 16))
    except ValueError:
        return None


def line_of(head: bytes, body: bytes) -> bytes:
    """Write a line."""
    line = b"%b%08x %b" % (head, zlib.crc32(body), body)
    return line.ljust(LENGTH - 1) + b"\n"


def encoded(*fields: Any) -> bytes:
    """Write a body."""
    # In ASCII, since a client's name for the file may be invalid UTF-8.
    return json.dumps(fields).encode()


def line_of_close(record: bytes) -> bytes:
    """Write the line that keeps the record of a close."""
    return (_CLOSED % record.hex().encode()).ljust(LENGTH - 1) + b"\n"


def close_in(line: bytes) -> bytes | None:
    """The record of a close that a line keeps, if it does."""
    match = _CLOSED_PATTERN.fullmatch(line)
    return None if match is None else bytes.fromhex(match[1].decode())


def is_free(line: bytes) -> bool:
    """
    Whether a line says nothing.

    A full disk may have taken only the beginning of it. A system crash leaves zeros of
    a line that was never stored.
    """
    return line.startswith(b"free") or not line[HEAD_LENGTH:].strip(b" \n\0")


def record_of(parts: Sequence[Any], fields: Sequence[Any]) -> Record:
    """
    Make the record of a line.

    :param parts: What :func:`sound` made of the line.
    :param fields: What its body says, or the file that it refers to.
    :raises ValueError: If they are not valid, like TypeError and LookupError.
    """
    phase, total, safe, trust, boot, *_ = parts
    session_id, created, destination, owner, content_name = fields
    if not all(isinstance(segment, str) for segment in destination) or not all(
        isinstance(name, str | None) for name in (owner, content_name)
    ):
        raise ValueError("a name is not a string")
    return Record(
        UUID(session_id),
        Phase(phase),
        None if total == b"-" else int(total),
        float(created),
        tuple(destination),
        owner,
        content_name,
        0 if safe is None else int(safe),
        boot,
        trust == b"k",
        trust == b"d",
    )
