"""
The sessions that all workers count.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from functools import lru_cache
from math import inf
from uuid import UUID

from attrs import define

from txbits._ledger._memory import MOST, Key, LedgerFull
from txbits._ledger._parts import CHANGES, Parts, SessionFields, UsageFields

#: Of how many callers a worker knows the keys without a digest.
_CALLERS_KNOWN = 4096

#: For how many seconds sessions that have ended may be counted for those that follow
#: them, and how many of one caller.
_KEPT = 0.05
_MOST_KEPT = 16

# Looked up once: these are used for each packet.
_SIZE, _CHANGED = SessionFields.size, SessionFields.changed
_STAGED = UsageFields.staged


@define(eq=False)
class Usage:
    """
    What one caller, or all of them, use.

    :ivar sessions: How many sessions are open.
    :ivar staged: How many bytes they stage, or are going to.
    """

    sessions: int = 0
    staged: int = 0


#: Raises an exception if a caller who uses this may not use any more. Where it is
#: unknown who is counted, there is no usage of theirs. The second is that of all
#: callers, and the last the bytes that are to be added.
Allow = Callable[[Usage | None, Usage, int], None]

#: Does the same, and returns whether all limits are far away.
Admit = Callable[[Usage | None, Usage, int], bool]

#: Calls a function after some seconds.
Later = Callable[[float, Callable[[], None]], object]


class SessionLedger:
    """
    The sessions of one directory. Each counts once, whichever workers know of it.

    To count costs the lock of the memory, for which workers wait for each other. As
    long as all limits are far away, the count of a session that has ended is therefore
    kept for a moment, and passed on to the next session of the same caller.

    :param ledger: The ledger.
    :param directory: See :meth:`Ledger.sessions_of`.
    :param is_shared: See there.
    :param later: See there.
    :ivar is_shared: The same.
    :ivar most_kept: How many counts of one caller all workers together may keep.
    """

    def __init__(
        self,
        ledger: Parts,
        directory: str,
        is_shared: bool,
        later: Later | None = None,
    ) -> None:
        self._ledger = ledger
        self._memory = ledger.memory
        self._sessions, self._callers = ledger.sessions, ledger.callers
        self._directory = directory
        self.is_shared = is_shared
        self._all = ledger.key("directory", directory)
        self._listing = ledger.key("listing", directory)
        self._have_all_counted = is_shared
        self.most_kept = _MOST_KEPT * ledger.worker.count
        self._later = None if is_shared else later
        # Of callers whose limits are far away: the keys of sessions that have ended.
        self._kept: dict[str, list[Key]] = {}
        # Of sessions that such a count was passed on to.
        self._passed_on: dict[UUID, Key] = {}
        # All of these keys: those of sessions that have ended, and are counted.
        self._ended: set[Key] = set()
        self._caller = lru_cache(_CALLERS_KNOWN)(
            lambda who: ledger.key("caller", directory, who)
        )

    def usage(self, who: str | None) -> tuple[Usage, Usage]:
        """
        Tell what is used now.

        :param who: Names a caller, in all workers; ``None`` for one who is unknown.
        :returns: What they use, and what all use.
        """
        with self._memory:
            caller, everyone = self._find(who)
            return self._read(caller), self._read(everyone)

    def add(self, session_id: UUID, who: str | None, admit: Admit) -> None:
        """
        Count a session that is about to be made.

        :param who: As for :meth:`usage`.
        :param admit: Called first, unless a count is passed on. If it raises an
            exception, so does this method, and nothing changes.
        :raises LedgerFull: If there is no room.
        """
        kept = None if who is None else self._kept.get(who)
        if kept:
            self._passed_on[session_id] = kept.pop()
            return
        with self._memory:
            caller, everyone = self._find(who)
            used = self._read(everyone)
            are_far = admit(self._read(caller), used, 0)
            if not self._sessions.find(_key_of(session_id)):
                self._add(session_id, who, caller, everyone)
        if (
            are_far
            and kept is None
            and who is not None
            and self._later is not None
            and used.sessions < self._sessions.capacity // 2
        ):
            if not self._kept:
                self._later(_KEPT, self.keep_none)
            self._kept[who] = []

    def resize(
        self, session_id: UUID, who: str | None, size: int, allow: Allow | None
    ) -> None:
        """
        Count more bytes for a session.

        :param who: As for :meth:`usage`, if the session is not counted yet.
        :param size: How many bytes it is going to stage. If that is less than before,
            nothing changes.
        :param allow: Called first. If it raises an exception, so does this method, and
            nothing changes. ``None`` allows any size.
        :raises LedgerFull: If there is no room.
        """
        with self._memory:
            session = self._sessions.find(self._key(session_id))
            if not session:
                session = self._add(session_id, who, *self._find(who))
            everyone, caller, counted, *_ = self._sessions.fields(session)
            more = size - counted
            if more > 0:
                if allow is not None:
                    usage = self._read(caller) if caller else None
                    allow(usage, self._read(everyone), more)
                self._resize(session, size)

    def remove(self, session_id: UUID, who: str | None = None) -> None:
        """
        Stop counting a session, if it is counted.

        :param who: As for :meth:`add`, if this session was given to that; then the
            count may be kept for the next one. ``None`` if it must not be.
        """
        key = self._passed_on.pop(session_id, None)
        if key is None:
            key = _key_of(session_id)
            if key in self._ended:
                # It was removed before.
                return
        kept = None if who is None else self._kept.get(who)
        if kept is not None and len(kept) < _MOST_KEPT:
            kept.append(key)
            self._ended.add(key)
        else:
            self._stop_counting(key)

    def keep_none(self) -> None:
        """Stop counting sessions that have ended."""
        every, self._kept = self._kept, {}
        for kept in every.values():
            for key in kept:
                self._stop_counting(key)

    def _stop_counting(self, key: Key) -> None:
        self._ended.discard(key)
        with self._memory:
            session = self._sessions.find(key)
            if session:
                self._remove(session)

    def _key(self, session_id: UUID) -> Key:
        """The key with which a session is counted."""
        return self._passed_on.get(session_id) or _key_of(session_id)

    def now(self) -> int:
        """
        How many changes there have been, for :meth:`listed`. Any thread may ask.
        """
        return self._memory.words[CHANGES]

    def listed(self, session_id: UUID, who: str | None, size: int, since: int) -> None:
        """
        Count a session that the store has listed.

        :param who: As for :meth:`usage`.
        :param size: How many bytes it stages, or is going to.
        :param since: What :meth:`now` returned before the listing. A session that was
            changed later stays as it is.
        :raises LedgerFull: If there is no room.
        """
        words = self._memory.words
        with self._memory:
            session = self._sessions.find(self._key(session_id))
            if not session:
                session = self._add(session_id, who, *self._find(who))
            elif words[session + _CHANGED] > since:
                return
            if words[session + _SIZE] != min(size, MOST):
                self._resize(session, size)

    def drop_others(self, known: Container[UUID], since: int) -> Iterator[None]:
        """
        Stop counting the sessions that the store did not list: those of this worker;
        or, if each worker sees all, of all workers.

        :param known: Those that it did list.
        :param since: As for :meth:`listed`. Sessions that were changed later stay.
        :returns: An iterator that works a few milliseconds at a time.
        """
        sessions = self._sessions
        with self._memory:
            everyone = self._callers.find(self._all)
        if not everyone:
            return
        for number, batch in enumerate(sessions.batches(SessionFields.directory)):
            if number:
                yield
            for session, directory in batch:
                # This was read without the lock, and may be another session by now.
                if directory == everyone and self._is_over(session, known, since):
                    with self._memory:
                        if self._is_here(session) and self._is_over(
                            session, known, since
                        ):
                            self._remove(session)

    def note_listing(self, took: float) -> None:
        """
        All sessions of the store are counted. If there is no room for that, other
        workers count them as well.

        :param took: How many seconds ago the listing of them began.
        """
        began = int(1e6 * (self._ledger.seconds() - took))
        self._note(self._listing, max(0, began))

    def age(self) -> float:
        """How many seconds ago the last such listing of any worker began."""
        with self._memory:
            record = self._callers.find(self._listing)
            if not record:
                return inf
            began = self._memory.words[record + _STAGED]
        return self._ledger.seconds() - began / 1e6

    def note_counted(self) -> None:
        """
        This worker has counted the sessions that it found when it started. If there is
        no room for that, other workers do not learn of it.
        """
        self._note(self._counted_by(self._ledger.worker.number), 0)

    def have_all_counted(self) -> bool:
        """Whether no worker finds any more sessions from before the start."""
        if not self._have_all_counted:
            with self._memory:
                self._have_all_counted = all(
                    self._callers.find(self._counted_by(number))
                    for number in range(self._ledger.worker.count)
                )
        return self._have_all_counted

    def _note(self, key: Key, value: int) -> None:
        """Put a number among what callers use, if there is room."""
        try:
            with self._memory:
                record = self._callers.find(key) or self._callers.add(key, 1, 0, 0)
                self._memory.put(record + _STAGED, value)
        except LedgerFull:
            return

    def _counted_by(self, number: int) -> Key:
        return self._ledger.key("counted", self._directory, str(number))

    def _is_here(self, session: int) -> bool:
        """Whether a record is one of a session of this directory."""
        directory = self._memory.words[session + SessionFields.directory]
        return bool(directory) and directory == self._callers.find(self._all)

    def _is_over(self, session: int, known: Container[UUID], since: int) -> bool:
        words = self._memory.words
        worker = words[session + SessionFields.worker]
        return (
            (self.is_shared or worker == self._ledger.worker.number)
            and words[session + _CHANGED] <= since
            and _id_of(self._sessions.key(session)) not in known
        )

    def _find(self, who: str | None) -> tuple[int, int]:
        """What a caller uses, and what all use. If that is nothing, it is 0."""
        find = self._callers.find
        return 0 if who is None else find(self._caller(who)), find(self._all)

    def _read(self, record: int) -> Usage:
        if not record:
            return Usage()
        sessions, staged, high = self._callers.fields(record)
        return Usage(sessions, high << 64 | staged)

    def _add(
        self, session_id: UUID, who: str | None, caller: int, everyone: int
    ) -> int:
        """Count a session. What is used so far is as from :meth:`_find`."""
        if not everyone:
            everyone = self._callers.add(self._all, 0, 0, 0)
        if not caller and who is not None:
            caller = self._callers.add(self._caller(who), 0, 0, 0)
        self._use(everyone, caller, 1, 0)
        number, change = self._ledger.worker.number, self._next_change()
        return self._sessions.add(
            _key_of(session_id), everyone, caller, 0, change, number
        )

    def _resize(self, session: int, size: int) -> None:
        everyone, caller, before, changed, _ = self._sessions.fields(session)
        words, size = self._memory.words, min(size, MOST)
        self._memory.note(session + _SIZE, before, session + _CHANGED, changed)
        words[session + _SIZE] = size
        words[session + _CHANGED] = self._next_change()
        self._use(everyone, caller, 0, size - before)

    def _remove(self, session: int) -> None:
        words = self._memory.words
        everyone, caller, size, *_ = self._sessions.fields(session)
        self._use(everyone, caller, -1, -size)
        if not words[everyone]:
            self._callers.remove(everyone)
        if caller and not words[caller]:
            self._callers.remove(caller)
        self._sessions.remove(session)

    def _use(self, everyone: int, caller: int, sessions: int, more: int) -> None:
        """
        Change what all use, and what a caller uses.

        :param caller: 0 if it is unknown.
        :param sessions: How many more sessions.
        :param more: How many more bytes.
        """
        put, words = self._memory.put, self._memory.words
        for record in (everyone, caller) if caller else (everyone,):
            if sessions:
                put(record, words[record] + sessions)
            if more:
                staged = words[record + _STAGED] + more
                put(record + _STAGED, staged & MOST)
                if not 0 <= staged <= MOST:
                    high = record + UsageFields.staged_high
                    put(high, words[high] + (staged >> 64))

    def _next_change(self) -> int:
        """
        The number of a change. It is not undone: that there may be some without a
        change does no harm.
        """
        changes = self._memory.words[CHANGES] + 1
        self._memory.words[CHANGES] = changes
        return changes


def _key_of(session_id: UUID) -> Key:
    number = session_id.int
    return number >> 64, number & MOST


def _id_of(key: Key) -> UUID:
    return UUID(int=key[0] << 64 | key[1])
