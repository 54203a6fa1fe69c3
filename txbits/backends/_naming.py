"""
How errors and ``repr()`` show paths and sessions.
"""

from __future__ import annotations

import os

from txbits.interfaces import IUploadSession


def shown_path(path: tuple[str, ...] | bytes) -> str:
    """
    Show a path on one line, in ASCII and in quotes.

    :param path: The segments of a destination, or a path of the file system.
    """
    return ascii(os.fsdecode(path) if isinstance(path, bytes) else "/".join(path))


def shown_session(session: IUploadSession) -> str:
    """
    Show a session on one line, as its ``repr()``.

    :returns: Its class, id, destination, and how much of the file it holds.
    """
    length = (
        "no bytes"
        if session.total is None
        else f"{session.offset} of {session.total} bytes"
    )
    return (
        f"<{type(session).__name__} {str(session.session_id).upper()} of "
        f"{'/'.join(session.destination)!r}: {length}>"
    )
