"""
The names of sessions and destinations in the log.
"""

from __future__ import annotations

import re
from functools import lru_cache
from uuid import UUID

from txbits.protocol._fields import format_guid
from txbits.protocol.urls import without_link

#: How many characters of a text from a peer are logged.
_LONGEST = 300

_ID = re.compile(r"([0-9a-f]{8})(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


# Each session is named when it is created, and when it ends.
@lru_cache(1024)
def session_name(session_id: UUID, *, is_secret: bool = False) -> str:
    """
    Name a session as clients and the storage do.

    :param is_secret: Whether who knows its id may act in it. Then only the first eight
        digits are shown.
    """
    name = format_guid(session_id)[1:-1].decode("ascii")
    return f"{name[:8]}..." if is_secret else name


def destination_name(destination: tuple[str, ...]) -> str:
    """
    Name a destination on one printable line, even if a hostile peer has chosen it.
    """
    return shown("/".join(destination))


def shown(text: str, *, hides_ids: bool = False) -> str:
    """
    Make a text from a peer safe for the log: printable, on one line, not long, and
    without upload links, which are secrets.

    :param hides_ids: Whether the ids of sessions are secrets as well.
    """
    text = without_link(text)
    if hides_ids:
        text = _ID.sub(r"\1...", text)
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return text if text.isprintable() else ascii(text)[1:-1]
