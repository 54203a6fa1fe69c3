"""
How many sessions each caller has open, and how many bytes they stage, those from before
a restart among them.

Users are counted by name, anonymous clients by address. Where sessions are listed, they
have no address: those of anonymous clients from before a restart, or that other
processes have made, count for the directory only.

Where several workers serve the directory, the limits go by what all of them have
counted, in a ledger. As long as bytes are not limited, each worker counts those of its
own sessions by itself, unless all workers see all sessions.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from functools import lru_cache, partial
from math import inf
from uuid import UUID

from attrs import define, field
from twisted.logger import Logger

from txbits._addresses import client_network
from txbits._ledger import LedgerFull, SessionLedger, Usage
from txbits.errors import QuotaReached, SessionLimitReached, UploadTooLarge
from txbits.interfaces import SessionSummary
from txbits.sessions._session import Caller
from txbits.sessions.naming import shown
from txbits.sessions.settings import Settings

_log = Logger()

#: Seconds after which a client refused for a limit may come again: the delay that
#: Windows takes by itself.
_RETRY_AFTER = 600

#: How many sessions are told to the ledger in one go.
_MANY = 500

#: Why no session can be counted.
_FULL = "there are as many sessions open as the workers can count"

#: Who is counted: a user's name, or in a tuple the address of anonymous clients.
Who = str | tuple[str]


def counted_as(caller: Caller) -> Who:
    """Who a caller is counted as."""
    return _anonymous(caller.address) if caller.user is None else caller.user


@lru_cache(4096)
def _anonymous(address: str) -> tuple[str]:
    # Cached, because each session keeps what it is counted as.
    return (client_network(address),)


def _named(who: Who) -> str:
    return f"user {shown(who)}" if isinstance(who, str) else f"address {who[0]}"


def _key(who: Who | None) -> str | None:
    """How the ledger names somebody."""
    if who is None:
        return None
    return f"user {who}" if isinstance(who, str) else f"address {who[0]}"


def _require_room(
    who: Who,
    is_user: bool,
    usage: Usage | None,
    everyone: Usage,
    settings: Settings,
) -> None:
    """
    Refuse a session that is one too many, or could stage nothing.

    :param usage: What the caller uses, if anything.
    :param everyone: What all use.
    """
    if usage is not None:
        limit = settings.sessions_of(is_user=is_user)
        if limit and usage.sessions >= limit:
            raise SessionLimitReached(
                f"{_named(who)} has {usage.sessions} sessions open", _RETRY_AFTER
            )
        if settings.user_quota is not None and usage.staged >= settings.user_quota:
            raise QuotaReached(
                f"{_named(who)} stages {usage.staged} bytes", _RETRY_AFTER
            )
    if settings.max_sessions and everyone.sessions >= settings.max_sessions:
        raise SessionLimitReached(
            f"the directory has {everyone.sessions} sessions open", _RETRY_AFTER
        )
    quota = settings.directory_quota
    if quota is not None and everyone.staged >= quota:
        raise QuotaReached(
            f"the directory stages {everyone.staged} bytes", _RETRY_AFTER
        )


def _are_far(
    is_user: bool,
    usage: Usage | None,
    everyone: Usage,
    kept: int,
    settings: Settings,
) -> bool:
    """
    Whether all limits are far away.

    :param usage: What the caller uses, if anything.
    :param everyone: What all use.
    :param kept: How many sessions may count after their end. Even with these, only half
        of each limit is used.
    """
    return not settings.has_quota and all(
        not most or used + kept <= most // 2
        for used, most in (
            (
                0 if usage is None else usage.sessions,
                settings.sessions_of(is_user=is_user),
            ),
            (everyone.sessions, settings.max_sessions),
        )
    )


def _require_quota(
    usage: Usage | None, everyone: Usage, more: int, size: int, settings: Settings
) -> None:
    """
    Refuse an upload that is too large, or too large now.

    :param usage: What the caller uses; ``None`` if that is unknown.
    :param everyone: What all use.
    :param more: How many bytes of the file are not counted yet.
    :param size: How many it has.
    """
    for quota, used in (
        (settings.user_quota, usage),
        (settings.directory_quota, everyone),
    ):
        if quota is None or used is None:
            continue
        if size > quota:
            raise UploadTooLarge(f"{size} bytes, the quota is {quota}")
        if used.staged + more > quota:
            raise QuotaReached(
                f"{used.staged} bytes are staged, and {size} more would be over "
                f"the quota of {quota}",
                _RETRY_AFTER,
            )


@define(eq=False)
class _Counted:
    """
    A session that is counted.

    :ivar who: Who is counted for it; ``None`` if that is unknown.
    :ivar usage: What they use.
    :ivar size: How many bytes it stages, or is going to.
    :ivar can_be_passed_on: Whether the ledger may count the next session in its place:
        it was made here, and the ledger knows no bytes of it.
    """

    who: Who | None
    usage: Usage | None
    size: int = 0
    can_be_passed_on: bool = False


@define(eq=False)
class Quota:
    """
    Counts the sessions of one directory, and what they stage.

    :param ledger: Counts those of all workers; ``None`` if there is only one.
    :ivar has_counted: Whether those that the store held at the start are counted.
    """

    ledger: SessionLedger | None = None
    has_counted: bool = field(default=False, init=False)
    _counted: dict[UUID, _Counted] = field(factory=dict, init=False)
    _usage: dict[Who, Usage] = field(factory=dict, init=False)
    _all: Usage = field(factory=Usage, init=False)
    _gone: set[UUID] = field(factory=set, init=False)
    _changed: set[UUID] | None = field(default=None, init=False)
    _since: int = field(default=0, init=False)
    _is_noted: bool = field(default=False, init=False)
    _is_ledger_full: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        if self.ledger is not None:
            self._since = self.ledger.now()

    def fill(self, caller: Caller, settings: Settings) -> float:
        """
        Tell how much of the limits is used, as far as is known.

        :returns: The fraction of the limit that is closest to being reached; 1 or more
            if one is.
        """
        usage, everyone = self._used(counted_as(caller))
        return max(
            used / limit if limit else 0.0
            for used, limit in (
                (usage.sessions, settings.sessions_of(is_user=caller.user is not None)),
                (usage.staged, settings.user_quota),
                (everyone.sessions, settings.max_sessions),
                (everyone.staged, settings.directory_quota),
            )
        )

    def _used(self, who: Who) -> tuple[Usage, Usage]:
        """What somebody uses, and what all use."""
        if self.ledger is not None:
            return self.ledger.usage(_key(who))
        return self._usage.get(who) or Usage(), self._all

    def reserve(self, session_id: UUID, caller: Caller, settings: Settings) -> None:
        """
        Count a session that is about to be made.

        :raises SessionLimitReached: If that is one too many.
        :raises QuotaReached: If it could stage nothing.
        """
        who, is_user = counted_as(caller), caller.user is not None
        if self.ledger is None:
            usage = self._usage.get(who)
            _require_room(who, is_user, usage, self._all, settings)
        else:
            kept = self.ledger.most_kept

            def admit(usage: Usage | None, everyone: Usage, more: int) -> bool:
                _require_room(who, is_user, usage, everyone, settings)
                return _are_far(is_user, usage, everyone, kept, settings)

            try:
                self.ledger.add(session_id, _key(who), admit)
            except LedgerFull:
                raise SessionLimitReached(_FULL, _RETRY_AFTER) from None
        self._count(session_id, who).can_be_passed_on = True

    def charge(
        self, session_id: UUID, owner: str | None, size: int, settings: Settings
    ) -> None:
        """
        Count what a session is going to stage, which its first fragment tells. Then it
        can always be finished.

        :param owner: Who is counted for a session that another process has made.
        :param size: The length of the file, in bytes.
        :raises UploadTooLarge: If it is more than may ever be staged.
        :raises QuotaReached: If it is too much now.
        """
        counted = self._counted.get(session_id)
        is_new = counted is None
        if counted is None:
            counted = self._count(session_id, owner)
        more = size - counted.size
        if self.ledger is None:
            if more <= 0:
                return
            _require_quota(counted.usage, self._all, more, size, settings)
        elif settings.has_quota or self.ledger.is_shared or is_new:
            counted.can_be_passed_on = False
            try:
                self.ledger.resize(
                    session_id,
                    _key(counted.who),
                    size,
                    partial(_require_quota, size=size, settings=settings),
                )
            except LedgerFull:
                raise QuotaReached(_FULL, _RETRY_AFTER) from None
        if more > 0:
            self._resize(counted, size)

    def tell_sizes(self) -> Iterator[None]:
        """
        Let other workers count the bytes of the sessions of this one, now that they are
        limited.

        :returns: An iterator that works a few milliseconds at a time.
        """
        if self.ledger is None or self.ledger.is_shared:
            return
        self.ledger.keep_none()
        for number, session_id in enumerate(list(self._counted), 1):
            counted = self._counted.get(session_id)
            if counted is not None:
                counted.can_be_passed_on = False
                try:
                    self.ledger.resize(
                        session_id, _key(counted.who), counted.size, None
                    )
                except LedgerFull:
                    self._is_full()
            if not number % _MANY:
                yield

    def give_back(self, session_id: UUID) -> None:
        """Stop counting a session."""
        if self.ledger is not None:
            counted, who = self._counted.get(session_id), None
            if counted is not None and counted.can_be_passed_on:
                who = _key(counted.who)
            self.ledger.remove(session_id, who)
        self._forget(session_id)

    def _forget(self, session_id: UUID) -> None:
        if not self.has_counted:
            # It may be among those that are being listed just now.
            self._gone.add(session_id)
        if self._changed is not None:
            self._changed.add(session_id)
        counted = self._counted.pop(session_id, None)
        if counted is None:
            return
        self._resize(counted, 0)
        self._all.sessions -= 1
        if counted.who is not None and counted.usage is not None:
            counted.usage.sessions -= 1
            if not counted.usage.sessions:
                del self._usage[counted.who]

    def inventory(self, summary: SessionSummary) -> None:
        """Count a session that was found in the store."""
        session_id = summary.session_id
        if session_id not in self._gone:
            counted = self._counted.get(session_id)
            if counted is None:
                counted = self._count(session_id, summary.owner)
            self._resize(counted, max(summary.size, counted.size))
            self._note_listed(session_id, counted.who, counted.size)

    def listed(self, summary: SessionSummary) -> None:
        """
        Note a session that the store has listed since :meth:`begin_recount`, for other
        workers.
        """
        session_id = summary.session_id
        if self._changed is None or session_id not in self._changed:
            self._note_listed(session_id, summary.owner, summary.size)

    def _note_listed(self, session_id: UUID, who: Who | None, size: int) -> None:
        if self.ledger is None:
            return
        try:
            self.ledger.listed(session_id, _key(who), size, self._since)
        except LedgerFull:
            self._is_full()

    def _is_full(self) -> None:
        """Some sessions are not counted. New ones are refused until others end."""
        if not self._is_ledger_full:
            self._is_ledger_full = True
            _log.error("some sessions are not counted: {reason}", reason=_FULL)

    def drop_others(self, known: Container[UUID] | None = None) -> Iterable[None]:
        """
        Let other workers no longer count sessions that are not in the store, such as
        those that a worker before this one had.

        :param known: The sessions that the store has listed; by default, those that are
            counted here.
        :returns: An iterator that works a few milliseconds at a time.
        """
        if self.ledger is None:
            return ()
        known = self._counted if known is None else known
        return self.ledger.drop_others(known, self._since)

    def counted(self) -> None:
        """All sessions that the store held at the start have been counted."""
        self.has_counted = True
        self._gone.clear()

    def note_recount(self, took: float) -> None:
        """
        Let other workers not list the store again soon.

        :param took: How many seconds ago this listing began.
        """
        if self.ledger is not None:
            self.ledger.note_listing(took)

    @property
    def age(self) -> float:
        """How many seconds ago another worker began to list the store."""
        return inf if self.ledger is None else self.ledger.age()

    def note_counted(self) -> None:
        """
        Let other workers not wait for this one any longer. It has counted what it found
        at the start, as far as it can.
        """
        if self.ledger is not None and not self._is_noted:
            self._is_noted = True
            self.ledger.note_counted()

    @property
    def have_others_counted(self) -> bool:
        """Whether other workers have counted what they found at the start."""
        return self.ledger is None or self.ledger.have_all_counted()

    @property
    def sessions(self) -> int:
        """How many sessions are open."""
        return self._all.sessions

    @property
    def staged(self) -> int:
        """How many bytes they stage, or are going to."""
        return self._all.staged

    def counts(self, session_id: UUID) -> bool:
        """Whether a session is counted."""
        return session_id in self._counted

    def known(self) -> set[UUID]:
        """The sessions that are counted."""
        return set(self._counted)

    def begin_recount(self) -> None:
        """Note what comes and goes here from now on, while the store is listed."""
        self._changed = set()
        if self.ledger is not None:
            self._since = self.ledger.now()

    def give_up_recount(self) -> None:
        """Keep the present count: the store could not be listed."""
        self._changed = None

    def recount(self, listed: dict[UUID, tuple[str | None, int]]) -> None:
        """
        Replace the count by what the store has listed.

        For sessions that came or went here since :meth:`begin_recount`, this process
        knows better than the listing.

        :param listed: The owners of the sessions that the store has listed, and how
            many bytes they stage.
        """
        changed, self._changed = self._changed or set(), None
        for session_id in self._counted.keys() - listed.keys() - changed:
            self._forget(session_id)
        for session_id, (owner, size) in listed.items():
            if session_id not in changed:
                counted = self._counted.get(session_id)
                if counted is None:
                    counted = self._count(session_id, owner)
                self._resize(counted, size)

    def _count(self, session_id: UUID, who: Who | None) -> _Counted:
        usage = None
        if who is not None:
            usage = self._usage.get(who)
            if usage is None:
                usage = self._usage[who] = Usage()
            usage.sessions += 1
        self._all.sessions += 1
        counted = self._counted[session_id] = _Counted(who, usage)
        if self._changed is not None:
            self._changed.add(session_id)
        return counted

    def _resize(self, counted: _Counted, size: int) -> None:
        more = size - counted.size
        counted.size = size
        self._all.staged += more
        if counted.usage is not None:
            counted.usage.staged += more
