"""
What an upload does next, and why.

:class:`~txbits.protocol.upload.Upload` answers each event with one of these.
"""

from __future__ import annotations

from http import HTTPStatus

from attrs import frozen

from txbits.protocol.packets import Ack
from txbits.protocol.refusals import CONTEXT_SERVER, HResult

_PHRASES = {int(status): status.phrase for status in HTTPStatus}
_NAMES = {int(hresult): hresult.name for hresult in HResult}


@frozen
class Again:
    """
    The next packet can be sent at once.

    :ivar progress: Whether the server has stored more than ever before.
    """

    progress: bool


@frozen
class Later:
    """
    The next packet should be sent after a pause.

    :ivar cause: What is wrong, in words.
    :ivar status: The HTTP status, if there was an answer.
    :ivar hresult: The HRESULT, if the answer had one.
    :ivar retry_after: The minimum pause that the server asks for, in seconds.
    """

    cause: str
    status: int | None = None
    hresult: int | None = None
    retry_after: int | None = None


@frozen
class Refused:
    """
    The upload cannot continue.

    :ivar cause: What is wrong, in words.
    :ivar status: The HTTP status.
    :ivar hresult: The HRESULT, if the answer had one.
    :ivar transient: Whether the same upload might succeed at another time.
    """

    cause: str
    status: int
    hresult: int | None
    transient: bool


@frozen
class Done:
    """
    The file is at its destination.

    :ivar session_id: The session that brought it there.
    :ivar reply_url: Where the server application's reply is, if there is one.
    """

    session_id: str
    reply_url: str | None


@frozen
class Cancelled:
    """The server has removed everything of the upload."""


@frozen
class Doubt:
    """
    The file may be at its destination: the answer to a Close-Session was lost, and now
    the session is gone, or the server refuses what it may have done already.

    :ivar done: The end of the upload, if the file is at the destination.
    :ivar otherwise: What follows if it is not.
    :ivar may_be_older: Whether a file that was there before the upload could still be
        there. If so, its length proves nothing.
    """

    done: Done
    otherwise: Again | Later | Refused
    may_be_older: bool


Reaction = Again | Later | Refused | Done | Cancelled | Doubt


def is_transient(status: int) -> bool:
    """Tell whether a packet with this status may succeed if it is sent again."""
    if 500 <= status < 600:
        return status not in (501, 505)
    return status in (408, 409)


def describe_stranger(words: str, location: str | None, *, was_there: bool) -> str:
    """
    Describe an answer that is not from a BITS server, on one line.

    :param words: The answer.
    :param location: Where it redirects to, if it does.
    :param was_there: Whether a BITS server has answered at the same URL before.
    """
    if was_there:
        return (
            f"{words}: something on the way answers in place of the server, such as "
            "a network's login page"
        )
    if location is not None:
        return f"{words}: if the upload belongs there, use that URL"
    return f"{words}: there is no BITS server at this URL"


def describe(ack: Ack[str]) -> str:
    """Describe an Ack that is not a success, on one line."""
    who = "the server"
    if ack.context not in (None, CONTEXT_SERVER):
        who = "the server application"
    words = f"{who} answered {ack.status}"
    phrase = _PHRASES.get(ack.status)
    if phrase is not None:
        words = f"{words} {phrase}"
    if ack.hresult:
        name = _NAMES.get(ack.hresult)
        code = f"0x{ack.hresult:08X}"
        words = f"{words} ({code})" if name is None else f"{words} ({name}, {code})"
    if ack.schemes:
        words = f"{words}; it asks for {' or '.join(ack.schemes)}"
    return words
