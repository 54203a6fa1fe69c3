"""
How sessions and destinations are called in the log.
"""

from __future__ import annotations

from functools import lru_cache
from uuid import UUID

#: More of what a peer has sent than this is not put into the log, in characters.
_LONGEST = 300


# Each session is named when it is created, and when it ends.
@lru_cache(1024)
def session_name(session_id: UUID) -> str:
    """Name a session as clients and the storage do."""
    return str(session_id).upper()


def destination_name(destination: tuple[str, ...]) -> str:
    """
    Name a destination, whatever the peer has put into it, on one printable line.
    """
    return shown("/".join(destination))


def shown(text: str) -> str:
    """
    Make a text of a peer's fit for the log: printable, on one line, and not long.
    """
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST]}..."
    return text if text.isprintable() else ascii(text)[1:-1]
