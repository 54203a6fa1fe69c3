"""
How sessions of backends are shown to programmers.
"""

from __future__ import annotations

from txbits.interfaces import IUploadSession


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
