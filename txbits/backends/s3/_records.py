"""
The record of a session in the bucket, and the record of its close.

Both are the same object, ``PREFIX.bits-sessions/{GUID}/record``, so that the write that
records a close also ends the session. The first line is JSON, and the bytes of a small
file follow it. A record of a session is padded to :data:`LEAST_OPEN` bytes, and that of
a close is always shorter. So a listing, which has sizes, is enough to count closes and
to remove old ones.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID, uuid4

from attrs import asdict, evolve, field, frozen, validators

from txbits.errors import BackendError
from txbits.interfaces import Answer

_VERSION = 1

#: The least length of the record of a session.
LEAST_OPEN = 1024

#: Files of up to this length are in the record itself.
MOST_INLINE = 1 << 16

#: The greatest length of the first line of a new record, whose names are escaped.
MOST_NAMES = 1 << 16

#: The greatest length of a record: such a line, an answer with a URL, and the bytes.
MOST_RECORD = MOST_NAMES + (1 << 16) + MOST_INLINE


class Unreadable(BackendError):
    """A record has a format that this version does not write."""


State = Literal["open", "publishing", "releasing", "closing"]
_STATES = ("open", "publishing", "releasing", "closing")


@frozen(kw_only=True)
class Record:
    """
    What is in the bucket of a session, besides parts and tails.

    :ivar state: ``"open"``; ``"publishing"`` once the file may be at its destination;
        ``"releasing"`` once the session ends; ``"closing"`` if it ends by a successful
        Close.
    :ivar stamp: New in each version, so that a node recognizes its own write if the
        response was lost.
    :ivar total: The file's length; ``None`` before it is known.
    :ivar part_size: The grid's; ``None`` before the length is known.
    :ivar upload: The id of the multipart upload; ``None`` if there is none.
    :ivar inline: The bytes held, if the file is a small one.
    :ivar in_doubt: Whether somebody else has aborted a multipart upload of it, and no
        other one has been begun since.
    :ivar has_strays: Whether multipart uploads may have been begun whose ids are
        unknown because the responses were lost.
    :ivar node: The node that may answer from memory how many bytes of a long file are
        held: others change the record before they acknowledge any. ``None`` if there is
        none.
    :ivar acknowledged: How many bytes of a long file were held when the record was
        written, as far as its writer knew; never more than were held.
    :ivar publishing_since: When the state became "publishing", by the store's clock, if
        the record has been written again since; ``None`` if it has not.
    :ivar is_staged: The layout: whether the bytes are put together in the staging area
        first, so that a server application can be asked about them. Decided at
        creation.
    :ivar file: The ETag of the object that is all bytes; ``None`` before there is one.
    :ivar copy: The id of the multipart upload that copies that object to the
        destination; ``None`` if there is none.
    :ivar attempts: How often the application was asked.
    :ivar answer: Its final answer.
    :ivar reply: The attempt that its reply is from, and the reply's ETag; ``None`` if
        there is no reply.
    """

    session_id: UUID
    destination: tuple[str, ...]
    owner: str | None
    content_name: str | None
    created: float
    state: State = field(default="open", validator=validators.in_(_STATES))
    stamp: str = field(factory=lambda: uuid4().hex)
    total: int | None = None
    part_size: int | None = None
    upload: str | None = None
    inline: bytes = b""
    in_doubt: bool = False
    has_strays: bool = False
    node: str | None = None
    acknowledged: int = 0
    publishing_since: float | None = None
    is_staged: bool = False
    file: str | None = None
    copy: str | None = None
    attempts: int = 0
    answer: Answer | None = None
    reply: tuple[int, str] | None = None

    @property
    def is_taken(self) -> bool:
        """Whether the application keeps the upload, and nothing is published."""
        return self.answer is not None and not self.answer.publishes

    @property
    def is_small(self) -> bool:
        """Whether its bytes are in the record."""
        return self.total is not None and self.total <= MOST_INLINE

    @property
    def has_parts(self) -> bool:
        """Whether it has a multipart upload to the destination, or will have one."""
        if self.total is None or self.part_size is None:
            return False
        return self.total > (MOST_INLINE if self.is_staged else self.part_size)

    @property
    def publication(self) -> str | None:
        """The id of that upload; ``None`` if there is none."""
        return self.copy if self.is_staged else self.upload

    def changed(self, **changes: Any) -> Record:
        """Make the next version."""
        return evolve(self, stamp=uuid4().hex, **changes)


@frozen
class Closed:
    """
    The record that a session was closed with success.

    :ivar digest: The digest of the session's id, destination and owner, which may be
        long.
    """

    digest: str


def closed(session_id: UUID, destination: tuple[str, ...], owner: str | None) -> Closed:
    """Make the record of a close."""
    said = json.dumps([str(session_id), destination, owner])
    return Closed(sha256(said.encode()).hexdigest())


def encoded(record: Record | Closed) -> bytes:
    """Write a record."""
    if isinstance(record, Closed):
        return json.dumps({"version": _VERSION, "closed": record.digest}).encode()
    # In ASCII, because a client's name for the file need not be valid UTF-8.
    said = {
        "version": _VERSION,
        "session": str(record.session_id),
        "destination": record.destination,
        "owner": record.owner,
        "content_name": record.content_name,
        "created": record.created,
        "state": record.state,
        "stamp": record.stamp,
        "total": record.total,
        "part_size": record.part_size,
        "upload": record.upload,
        "in_doubt": record.in_doubt,
        "has_strays": record.has_strays,
    }
    if record.node is not None:
        said["node"] = record.node
    if record.acknowledged:
        said["acknowledged"] = record.acknowledged
    if record.publishing_since is not None:
        said["publishing_since"] = record.publishing_since
    if record.is_staged:
        answer = record.answer
        said["staged"] = {
            "file": record.file,
            "copy": record.copy,
            "attempts": record.attempts,
            "answer": None if answer is None else asdict(answer),
            "reply": record.reply,
        }
    line = json.dumps(said).encode()
    return line.ljust(LEAST_OPEN - 1) + b"\n" + record.inline


def decoded(text: bytes, key: str) -> Record | Closed:
    """
    Read a record.

    :param key: Its key, for error messages.
    :raises Unreadable: If its format is not that of this version.
    """
    line, newline, inline = text.partition(b"\n")
    try:
        state: Any = json.loads(line)
        if state["version"] != _VERSION:
            raise ValueError(f"version {state['version']}")
        if not newline:
            return Closed(str(state["closed"]))
        record = Record(
            session_id=UUID(state["session"]),
            destination=tuple(state["destination"]),
            owner=state["owner"],
            content_name=state["content_name"],
            created=float(state["created"]),
            state=state["state"],
            stamp=str(state["stamp"]),
            total=state["total"],
            part_size=state["part_size"],
            upload=state["upload"],
            inline=inline,
            # Older versions do not write these.
            in_doubt=state.get("in_doubt", False) is True,
            has_strays=state.get("has_strays", False) is True,
            node=state.get("node"),
            acknowledged=state.get("acknowledged", 0),
            publishing_since=state.get("publishing_since"),
            **_staged(state.get("staged")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"the record {key} cannot be read: {error!r}") from error
    if (
        not all(isinstance(segment, str) for segment in record.destination)
        or not all(
            isinstance(name, str | None)
            for name in (
                record.owner,
                record.content_name,
                record.upload,
                record.node,
                record.file,
                record.copy,
            )
        )
        or not all(
            isinstance(number, int | None)
            for number in (record.total, record.part_size, record.attempts)
        )
        or not isinstance(record.acknowledged, int)
        or not isinstance(record.publishing_since, float | int | None)
        or (record.total is not None and not record.part_size)
        or (inline and (not record.is_small or len(inline) > (record.total or 0)))
    ):
        raise Unreadable(f"the record {key} is wrong")
    return record


def _staged(said: Any) -> dict[str, Any]:
    """
    Read the fields of records of sessions that are staged first.

    :raises ValueError: If it is wrong, like KeyError and TypeError.
    """
    if said is None:
        return {}
    answer, reply = said["answer"], said["reply"]
    return {
        "is_staged": True,
        "file": said["file"],
        "copy": said["copy"],
        "attempts": said["attempts"],
        "answer": None if answer is None else Answer(**answer),
        "reply": None if reply is None else (int(reply[0]), str(reply[1])),
    }
