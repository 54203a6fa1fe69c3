"""
How sessions and destinations are called in the log.
"""

from __future__ import annotations

from uuid import UUID


def session_name(session_id: UUID) -> str:
    """Name a session as clients and the storage do."""
    return str(session_id).upper()


def destination_name(destination: tuple[str, ...]) -> str:
    """
    Name a destination, whatever the peer has put into it, on one printable line.
    """
    name = "/".join(destination)
    return name if name.isprintable() else ascii(name)[1:-1]
