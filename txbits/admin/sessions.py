"""
The open sessions, as an operator looks at them and ends them.

:class:`SessionsView` is what pages, the JSON interface and commands go by. One
virtual directory has a view (:mod:`txbits.admin.directories`), several views make one
(:class:`~txbits.admin.combined.CombinedSessions`), and a view may be in another process
(:mod:`txbits.admin.remote`): everything here can be written as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, Self

from attrs import asdict, field, fields, frozen
from twisted.internet.defer import Deferred

from txbits.sessions import Caller

#: How many sessions a page has if nobody says how many, and at most.
DEFAULT_LIMIT = 100
MOST_LIMIT = 500

#: The states that a session can have for an operator, see :class:`SessionRecord`.
STATES = (
    *("created", "receiving", "in_doubt", "unanswered", "refused", "complete", "due"),
    *("taken", "standing", "releasing"),
)


class InvalidCursor(ValueError):
    """A cursor is not one that a view has given."""


@frozen(kw_only=True)
class SessionRecord:
    """
    An open session. What is not known is ``None``.

    :ivar session: The whole id, in upper case, as in the log.
    :ivar directory: The mount, without a trailing slash; ``/`` for the root.
    :ivar destination: The path below it, with slashes. It is what the client has sent:
        escape it where it is shown, like *file_name* and *owner*.
    :ivar file_name: The client's name for the file.
    :ivar owner: The user who created it; ``None`` if anonymous.
    :ivar scheme: How the sender of the last packet was authenticated. Only the process
        that answered knows this and *client*.
    :ivar client: The address that the last packet came from.
    :ivar bytes: How many bytes are stored.
    :ivar total: The length of the file; ``None`` before the first Fragment.
    :ivar rate: Bytes per second of the Fragment that is arriving, or that arrived
        within the last seconds; ``None`` if there is none.
    :ivar created: When it was created, in seconds since the epoch.
    :ivar last_progress: When bytes were last stored, likewise.
    :ivar state: One of :data:`STATES`: as in the life of a session, where *releasing*
        stands for all states in which only the release is left to do.
    :ivar attempts: How often a server application was asked about it.
    :ivar active: Whether a packet of it is being processed now.
    """

    session: str
    directory: str
    destination: str | None
    file_name: str | None
    owner: str | None
    scheme: str | None
    client: str | None
    bytes: int | None
    total: int | None
    rate: float | None
    created: float | None
    last_progress: float
    state: str | None
    attempts: int | None
    active: bool = False

    def as_json(self) -> dict[str, Any]:
        """Make an object for JSON, whose keys are the names of the attributes."""
        # Several times faster than asdict(), and a page has many.
        return {name: getattr(self, name) for name in _NAMES}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> SessionRecord:
        """Read what :meth:`as_json` made; keys of a later version are ignored."""
        return cls(**{name: said[name] for name in _NAMES})


_NAMES = tuple(one.name for one in fields(SessionRecord))


@frozen(kw_only=True)
class SessionFilter:
    """
    Which sessions to list. A session must match everything that is not ``None``; an
    unknown value matches nothing.

    :ivar directory: The mount; a trailing slash makes no difference.
    :ivar owner: The user; an empty string stands for anonymous ones.
    :ivar client: The address.
    :ivar scheme: The scheme.
    :ivar state: The state.
    :ivar active: Whether a packet is being processed.
    :ivar idle: Seconds without progress, at least.
    :ivar text: Part of the session's id, destination, name of the file, owner or
        client, in upper or lower case.
    """

    directory: str | None = None
    owner: str | None = None
    client: str | None = None
    scheme: str | None = None
    state: str | None = None
    active: bool | None = None
    idle: float | None = None
    text: str | None = None

    def required_idle(self) -> float:
        """
        Tell how long a session must be idle to be purged.

        :raises ValueError: If that is not said: nobody is to purge all sessions by
            mistake.
        """
        if self.idle is None:
            raise ValueError("idle is required")
        return self.idle

    def takes(self, record: SessionRecord, now: float) -> bool:
        """
        Whether a session matches.

        :param now: The time, in seconds since the epoch.
        """
        for name in ("client", "scheme", "state", "active"):
            wanted = getattr(self, name)
            if wanted is not None and getattr(record, name) != wanted:
                return False
        if self.owner is not None and (record.owner or "") != self.owner:
            return False
        if self.idle is not None and now - record.last_progress < self.idle:
            return False
        if not self.takes_directory(record.directory):
            return False
        if self.text is None:
            return True
        texts = (
            *(record.session, record.destination, record.file_name),
            *(record.owner, record.client),
        )
        wanted = self.text.casefold()
        return any(wanted in one.casefold() for one in texts if one is not None)

    def takes_directory(self, mount: str) -> bool:
        """Whether sessions of a directory can match."""
        return self.directory is None or shown_mount(self.directory) == shown_mount(
            mount
        )

    def as_json(self) -> dict[str, Any]:
        """Make an object for JSON, without what is ``None``."""
        return {name: one for name, one in asdict(self).items() if one is not None}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> SessionFilter:
        """Read what :meth:`as_json` made."""
        return cls(**said)


def shown_mount(mount: str) -> str:
    """A mount as records have it."""
    return mount.rstrip("/") or "/"


@frozen
class SessionsPage:
    """
    A page of a list of sessions.

    :ivar sessions: The sessions. There may be fewer than were asked for, or none, even
        if there is a next page: a view examines a limited number for each page.
    :ivar next: The cursor of the next page; ``None`` if this is the last.
    :ivar faults: Lines that say why sessions are missing.
    """

    sessions: tuple[SessionRecord, ...] = field(converter=tuple[SessionRecord, ...])
    next: str | None = None
    faults: tuple[str, ...] = field(default=(), converter=tuple[str, ...])

    def as_json(self) -> dict[str, Any]:
        """Make an object for JSON."""
        sessions = [one.as_json() for one in self.sessions]
        return {"sessions": sessions, "next": self.next, "faults": list(self.faults)}

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Self:
        """Read what :meth:`as_json` made."""
        sessions = [SessionRecord.from_json(one) for one in said["sessions"]]
        return cls(sessions, said["next"], said["faults"])


@frozen
class Purged(SessionsPage):
    """
    The result of a step of a purge.

    :ivar sessions: The sessions that were cancelled, as they were before.
    :ivar next: The cursor of the next step; ``None`` if this was the last.
    :ivar faults: Lines that say why matching sessions were not cancelled.
    """


class SessionsView(Protocol):
    """
    Shows open sessions, and ends them.

    Its Deferreds fail with :class:`~txbits.errors.BackendError` if a store fails.
    """

    def page(
        self,
        filters: SessionFilter,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Deferred[SessionsPage]:
        """
        List sessions, a page at a time.

        A session that is open from the first page to the last is on exactly one of
        them, if it matches the filters all the time. Other sessions may be missing.

        :param filters: Which sessions to list.
        :param cursor: ``next`` of the page before; ``None`` to begin.
        :param limit: How many sessions the page has at most.
        :returns: A Deferred that fires with the page. It fails with
            :class:`InvalidCursor`.
        """

    def get(self, session_id: str) -> Deferred[SessionRecord]:
        """
        Look at one session.

        :param session_id: Its id, in any case, with or without braces.
        :returns: A Deferred that fires with the session. It fails with
            :class:`~txbits.errors.NoSuchSession`.
        """

    def cancel(self, session_id: str, operator: Caller) -> Deferred[SessionRecord]:
        """
        Cancel a session, as its client would (MC-BUP 3.2.5.2.8).

        :param session_id: As for :meth:`get`.
        :param operator: Who wants it, for the log.
        :returns: A Deferred that fires with the session as it was, when nothing is left
            of it. It fails with :class:`~txbits.errors.NoSuchSession`, or with
            :class:`~txbits.errors.BackendError` if something is left: then cancel it
            again.
        """

    def purge(
        self,
        filters: SessionFilter,
        operator: Caller,
        cursor: str | None = None,
        limit: int = DEFAULT_LIMIT,
    ) -> Deferred[Purged]:
        """
        Cancel all matching sessions, a few at a time: call it until there is no next
        step.

        A session of which a packet is being processed is skipped, even if it matches.

        :param filters: Which sessions; ``idle`` is required.
        :param operator: Who wants it, for the log.
        :param cursor: ``next`` of the step before; ``None`` to begin.
        :param limit: How many sessions are cancelled at most.
        :returns: A Deferred that fires with what was done. It fails with
            :class:`InvalidCursor`, and with :class:`ValueError` without ``idle``.
        """
