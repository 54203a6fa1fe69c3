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

from txbits.backends.disk._files import Files
from txbits.interfaces import Answer

ENDING = ".answer"

# Far more than an answer takes: a URL in it has at most 2,200 characters.
_MOST = 1 << 16

# Opening a pipe would wait for whoever writes into it.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def answer_name(session_id: UUID) -> str:
    """The name of the file of what an application answered to a session."""
    return f"{str(session_id).upper()}{ENDING}"


def reply_name(session_id: UUID) -> str:
    """The name of the file of its reply."""
    return f"{str(session_id).upper()}.reply"


class UnreadableAnswer(ValueError):
    """The file makes no sense."""


@frozen
class Asked:
    """
    What is written in it.

    :ivar attempts: See :class:`~txbits.interfaces.IAnswerable`.
    :ivar answer: See :class:`~txbits.interfaces.IAnswerable`.
    :ivar written: When it was.
    """

    attempts: int = 0
    answer: Answer | None = None
    written: float = 0.0

    @property
    def has_taken(self) -> bool:
        """Whether nothing is to be published, and the bytes are not ours any more."""
        return self.answer is not None and not self.answer.publishes


def read_answer(files: Files, directory: int, session_id: UUID) -> Asked:
    """
    Read it.

    :raises UnreadableAnswer: If what is there makes no sense.
    :raises OSError: If it cannot be read.
    """
    name = answer_name(session_id)
    try:
        fd = files.open(name, _READ, dir_fd=directory)
    except FileNotFoundError:
        # Its release, or its first attempt, was cut short.
        return Asked()
    try:
        text = files.pread(fd, _MOST, 0)
        there = files.fstat(fd)
    finally:
        files.close(fd)
    try:
        return Asked(*_decoded(text), there.st_mtime)
    except (ValueError, TypeError, LookupError) as error:
        raise UnreadableAnswer(f"{name} cannot be read: {error!r}") from error


def encoded(attempts: int, answer: Answer | None) -> bytes:
    """What is written of that."""
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
    Read it back.

    :raises ValueError: If it is none, like TypeError and LookupError.
    """
    state: Any = json.loads(text)
    attempts, said = int(state["attempts"]), state["answer"]
    if said is None:
        return attempts, None
    url = said["reply_url"]
    if not isinstance(url, str | None):
        raise ValueError("the URL is no text")
    return attempts, Answer(
        status=int(said["status"]),
        publishes=bool(said["publishes"]),
        reply_url=url,
        has_reply=bool(said["has_reply"]),
    )
