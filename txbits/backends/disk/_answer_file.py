"""
The file ``{GUID}.answer``: how often a server application was asked about a session on
disk, and what it answered.
"""

from __future__ import annotations

import json
import os
from typing import Any
from uuid import UUID

from attrs import frozen

from txbits.backends.disk._files import READ, Files, opened
from txbits.interfaces import Answer

ENDING = ".answer"

# Far more than the longest answer: a URL in it has at most 2,200 characters.
_MOST = 1 << 16


def answer_name(session_id: UUID) -> str:
    """The name of the file of what an application answered to a session."""
    return f"{str(session_id).upper()}{ENDING}"


def reply_name(session_id: UUID) -> str:
    """The name of the file of its reply."""
    return f"{str(session_id).upper()}.reply"


class UnreadableAnswer(ValueError):
    """The file is not valid."""


@frozen
class Asked:
    """
    The content of the file.

    :ivar attempts: See :class:`~txbits.interfaces.IAnswerable`.
    :ivar answer: See :class:`~txbits.interfaces.IAnswerable`.
    :ivar written: When it was written.
    """

    attempts: int = 0
    answer: Answer | None = None
    written: float = 0.0

    @property
    def has_taken(self) -> bool:
        """Whether the application has taken the bytes, so that none are published."""
        return self.answer is not None and not self.answer.publishes


def read_answer(files: Files, directory: int, session_id: UUID) -> Asked:
    """
    Read the file.

    :raises UnreadableAnswer: If it is not valid.
    :raises OSError: If it cannot be read.
    """
    name = answer_name(session_id)
    try:
        with opened(files, name, READ | os.O_NONBLOCK, directory) as fd:
            text = files.pread(fd, _MOST, 0)
            there = files.fstat(fd)
    except FileNotFoundError:
        # Its release, or its first attempt, was interrupted.
        return Asked()
    try:
        return Asked(*_decoded(text), there.st_mtime)
    except (ValueError, TypeError, LookupError) as error:
        raise UnreadableAnswer(f"{name} cannot be read: {error!r}") from error


def encoded(attempts: int, answer: Answer | None) -> bytes:
    """Make the content of the file."""
    said = None
    if answer is not None:
        said = {
            "status": answer.status,
            "publishes": answer.publishes,
            "reply_url": answer.reply_url,
            "has_reply": answer.has_reply,
        }
    return json.dumps({"attempts": attempts, "answer": said}).encode()


def _decoded(text: bytes) -> tuple[int, Answer | None]:
    """
    Parse the content.

    :raises ValueError: If it is not valid, like TypeError and LookupError.
    """
    state: Any = json.loads(text)
    attempts, said = int(state["attempts"]), state["answer"]
    if said is None:
        return attempts, None
    url = said["reply_url"]
    if not isinstance(url, str | None):
        raise ValueError("the URL is not a string")
    return attempts, Answer(
        status=int(said["status"]),
        publishes=bool(said["publishes"]),
        reply_url=url,
        has_reply=bool(said["has_reply"]),
    )
