"""
What several workers count together, so that a limit holds for all of them: sessions and
their bytes, connections, and failed logins.

The ledger is shared memory that the supervisor makes and each worker inherits. Whoever
reads or changes it has its lock, which is a POSIX record lock: the kernel takes it from
a process that is killed. What such a process has left half done is undone by whoever
has the lock next, since the old value of each word is noted before the word changes.

All of that takes microseconds. A lock of this kind belongs to a process and not to a
thread, so only the reactor's thread may use a ledger.

A process that serves alone needs none.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Container, Iterator
from functools import lru_cache
from hashlib import blake2b
from math import inf
from mmap import mmap
from struct import unpack
from time import monotonic
from types import TracebackType
from uuid import UUID

from attrs import define, frozen

from txbits._workers import Worker

#: How many sessions there may be, and how many users and addresses that have some.
_SESSIONS = 1 << 20
_CALLERS = 1 << 20

#: From how many addresses there may be connections.
_PEERS = 1 << 18

#: How many names and addresses with failed logins are remembered, and how many logins
#: that have succeeded.
_FAILURES = 1 << 16
_SUCCESSES = 1 << 16

#: How many places there are where a login may be remembered.
_WAYS = 8

# The first words of the memory, which is all in words of 64 bits: a mark, the number of
# workers, the five capacities, a secret, a counter of changes to sessions, and what is
# to be undone: how many words, and of each where it is and its old value.
_MARK = 0x7478_6269_7473_0001
_CAPACITIES = 2
_SECRET = 7
_CHANGES = 11
_UNDO = 12
_MOST_UNDONE = 128
_HEADER = _UNDO + 1 + 2 * _MOST_UNDONE

#: Of how many users and addresses a worker knows the keys without a digest.
_CALLERS_KNOWN = 4096

#: The most that fits into a word.
_MOST = (1 << 64) - 1

#: How many records are looked at in one go.
_BATCH = 1000

_Key = tuple[int, int]


class LedgerFull(Exception):
    """There is no room to count another session, caller or peer."""


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


class _Memory:
    """
    Words that several processes change. Each change is made whole or not at all.

    As a context manager, it has the lock. It may be entered again meanwhile: then all
    is one change. What has changed is undone when an exception leaves it.

    :param fd: A file of the right length.
    :ivar words: All words. Those that others can see are changed by :meth:`put`.
    :ivar freed: The records that this change has removed.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._map = mmap(fd, 0)
        self.words = memoryview(self._map).cast("Q")
        self.freed: set[int] = set()
        self._began: list[int] = []

    def close(self) -> None:
        self.words.release()
        self._map.close()

    def __enter__(self) -> None:
        if self._began:
            self._began.append(self.words[_UNDO])
            return
        fcntl.lockf(self._fd, fcntl.LOCK_EX)
        # If there is anything, whoever had the lock was killed.
        self._undo(0)
        self._began.append(0)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        began = self._began.pop()
        if kind is not None:
            self._undo(began)
        if not self._began:
            self.words[_UNDO] = 0
            self.freed.clear()
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def put(self, at: int, value: int) -> None:
        """
        Change a word.

        A process may be killed between any two of these assignments, but not within
        one: a word is written by one instruction.
        """
        words = self.words
        noted = words[_UNDO]
        if noted == _MOST_UNDONE:
            raise AssertionError("this is too much for one change of the ledger")
        note = _UNDO + 1 + 2 * noted
        words[note] = at
        words[note + 1] = words[at]
        words[_UNDO] = noted + 1
        words[at] = value

    def _undo(self, began: int) -> None:
        """
        Restore words, in reverse order. If that is interrupted, it is done again.

        :param began: How many of those that are noted stay.
        """
        words = self.words
        while (noted := words[_UNDO]) > began:
            note = _UNDO - 1 + 2 * noted
            words[words[note]] = words[note + 1]
            words[_UNDO] = noted - 1


class _Table:
    """
    Records in the memory, each with a key, found by hashing with chains.

    A record is named by the word where its fields are. It has a key of two words and a
    link before them. As long as it is used, it stays there, and its first field is not
    0. The table itself begins with the first record of the list of those that are free
    again, with how many were ever used, and with the chains. Fields that are not given
    when a record is added are 0, also of those that are free.

    :param memory: The memory.
    :param start: Its first word.
    :param capacity: How many records there may be.
    :param fields: How many fields each has.
    :ivar end: The word after its last one.
    """

    def __init__(self, memory: _Memory, start: int, capacity: int, fields: int) -> None:
        self.memory = memory
        self._start, self._capacity = start, capacity
        self._chains = start + 2
        self._width = 3 + fields
        # Fewer, longer chains take less memory while there are few records.
        self._spread = capacity // 4 + 1
        records = self._chains + self._spread
        self._first = records + 3
        self.end = records + capacity * self._width

    def find(self, key: _Key) -> int:
        """The record with a key; 0 if there is none."""
        words, (first, second) = self.memory.words, key
        record = words[self._chains + (first ^ second) % self._spread]
        while record and (words[record - 3] != first or words[record - 2] != second):
            record = words[record - 1]
        return record

    def add(self, key: _Key, *values: int) -> int:
        """
        Add a record with a key that no other has.

        :param values: Its first fields.
        :raises LedgerFull: If there is no room.
        """
        memory, words, start = self.memory, self.memory.words, self._start
        put = memory.put
        record = words[start]
        if record:
            put(start, words[record - 1])
        else:
            used = words[start + 1]
            if used == self._capacity:
                raise LedgerFull
            put(start + 1, used + 1)
            record = self._first + used * self._width
        put(record, values[0])
        if record in memory.freed:
            put(record - 3, key[0])
            put(record - 2, key[1])
            for field, value in enumerate(values[1:], record + 1):
                put(field, value)
        else:
            # Nobody misses what was here.
            words[record - 3], words[record - 2] = key
            for field, value in enumerate(values[1:], record + 1):
                words[field] = value
        chain = self._chain(key)
        put(record - 1, words[chain])
        put(chain, record)
        return record

    def _chain(self, key: _Key) -> int:
        return self._chains + (key[0] ^ key[1]) % self._spread

    def remove(self, record: int) -> None:
        """Remove a record."""
        put, words = self.memory.put, self.memory.words
        link = self._chain(self.key(record))
        while (other := words[link]) != record:
            if not other:
                raise AssertionError("a record is not where it belongs")
            link = other - 1
        put(link, words[record - 1])
        put(record - 1, words[self._start])
        put(self._start, record)
        put(record, 0)
        self.memory.freed.add(record)

    def key(self, record: int) -> _Key:
        """The key of a record."""
        return self.memory.words[record - 3], self.memory.words[record - 2]

    def batches(self, field: int) -> Iterator[list[tuple[int, int]]]:
        """
        Read a field of all records, without the lock: others may change meanwhile.

        :param field: The number of the field.
        :returns: Some records at a time, each with the value.
        """
        words, width, row = self.memory.words, self._width, 0
        while row < (used := words[self._start + 1]):
            until = min(row + _BATCH, used)
            first, last = (self._first + one * width for one in (row, until))
            values = words[first + field : last + field : width].tolist()
            yield list(zip(range(first, last, width), values, strict=True))
            row = until


@frozen(eq=False)
class _Places:
    """
    Times in the memory, each with a key.

    Each key has one of a few places. If there is none left, the one that was put there
    first is forgotten.

    :param memory: The memory.
    :param start: Its first word.
    :param sets: How many sets of places there are.
    """

    memory: _Memory
    start: int
    sets: int

    # The words of a place: the key; the time, until which it is not forgotten before
    # others are; and when it was put there.
    _KEY, _TIME, _PUT, _WIDTH = 0, 2, 3, 4

    @property
    def end(self) -> int:
        """The word after its last one."""
        return self.start + self.sets * _WAYS * self._WIDTH

    def find(self, key: _Key) -> int:
        """Where a time is; 0 if there is none with this key."""
        for place in self._of(key):
            if self._key(place) == key:
                return place + self._TIME
        return 0

    def put(self, key: _Key, time: int, now: int) -> None:
        """Set a time."""
        put = self.memory.put
        place = min(self._of(key), key=lambda one: self._worth(one, key, now))
        put(place, key[0])
        put(place + 1, key[1])
        put(place + self._TIME, time)
        put(place + self._PUT, now)

    def remove(self, time: int) -> None:
        """Forget a time."""
        self.memory.put(time - self._TIME, 0)
        self.memory.put(time - self._TIME + 1, 0)

    def _of(self, key: _Key) -> range:
        first = self.start + key[0] % self.sets * _WAYS * self._WIDTH
        return range(first, first + _WAYS * self._WIDTH, self._WIDTH)

    def _key(self, place: int) -> _Key:
        return self.memory.words[place], self.memory.words[place + 1]

    def _worth(self, place: int, key: _Key, now: int) -> int:
        """How much to regret what is in a place, when another key needs it."""
        its, words = self._key(place), self.memory.words
        if its == key:
            return -2
        if its == (0, 0) or words[place + self._TIME] <= now:
            return -1
        return words[place + self._PUT]


class Ledger:
    """
    What all workers count together; made by :meth:`create` and :meth:`open`.

    As a context manager, it makes one change of all those within.

    :ivar fd: The descriptor of the memory. A worker inherits it, under any number.
    :ivar seconds: The clock of logins, the same in all workers.
    :ivar secret: Some bytes that only the workers have.
    """

    def __init__(
        self, fd: int, worker: Worker, seconds: Callable[[], float] = monotonic
    ) -> None:
        self.fd = fd
        self.worker = worker
        self.seconds = seconds
        memory = self._memory = _Memory(fd)
        self.secret = memory.words[_SECRET:_CHANGES].tobytes()
        parts = self._parts = _Parts.of(memory, worker.count)
        self._sessions, self._callers = parts.sessions, parts.callers
        self._peers = parts.peers

    @classmethod
    def create(
        cls,
        count: int,
        *,
        sessions: int = _SESSIONS,
        callers: int = _CALLERS,
        peers: int = _PEERS,
        failures: int = _FAILURES,
        successes: int = _SUCCESSES,
    ) -> Ledger:
        """
        Make an empty ledger. It takes as much memory as has ever been used of it, at
        most some 170 MB for 16 workers.

        :param count: How many workers there are going to be.
        :param sessions: How many sessions there may be, in all directories together.
        :param callers: How many users and addresses with sessions there may be, those
            of each directory for themselves.
        :param peers: From how many addresses there may be connections.
        :param failures: How many names and addresses with failed logins are remembered,
            at most; a multiple of 8.
        :param successes: How many logins that have succeeded are remembered, at most; a
            multiple of 8.
        """
        capacities = sessions, callers, peers, failures, successes
        fd = os.memfd_create("txbits-ledger", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(fd, 8 * _HEADER)
            memory = _Memory(fd)
            header = _MARK, count, *capacities, *unpack("4Q", os.urandom(32))
            for at, word in enumerate(header):
                memory.words[at] = word
            length = _Parts.of(memory, count).successes.end
            memory.close()
            os.ftruncate(fd, 8 * length)
            # Whoever touches memory that is no longer there is killed.
            seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
            return cls(fd, Worker(0, count))
        except BaseException:
            os.close(fd)
            raise

    @classmethod
    def open(
        cls, fd: int, worker: Worker, seconds: Callable[[], float] = monotonic
    ) -> Ledger:
        """
        Use the ledger that the supervisor has made.

        :param fd: The descriptor of its memory, which :meth:`close` closes.
        :param worker: Which worker this process is.
        :param seconds: A steady clock, the same in all workers.
        :raises ValueError: If this is no ledger, or one for another number of workers.
        """
        header = os.pread(fd, 16, 0)
        if len(header) < 16 or unpack("2Q", header) != (_MARK, worker.count):
            raise ValueError(f"this is not the ledger of {worker.count} workers")
        os.set_inheritable(fd, False)
        return cls(fd, worker, seconds)

    def close(self) -> None:
        """Stop using it. What is counted stays."""
        self._memory.close()
        os.close(self.fd)

    def __enter__(self) -> None:
        self._memory.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._memory.__exit__(kind, error, traceback)

    def sessions_of(self, directory: str, *, is_shared: bool) -> SessionLedger:
        """
        The sessions of a virtual directory.

        :param directory: Names the directory, in all workers, also after it was mounted
            elsewhere.
        :param is_shared: Whether each worker sees all sessions, and not only its own.
        """
        return SessionLedger(self, directory, is_shared)

    def connections(self) -> ConnectionLedger:
        """The connections."""
        return ConnectionLedger(self)

    def failures_of(self, kind: str) -> TimeLedger:
        """
        When the failures of names, or addresses, are forgotten.

        :param kind: Names what has failed, in all workers.
        """
        return TimeLedger(self, self._parts.failures, kind)

    def successes_of(self, kind: str) -> TimeLedger:
        """
        Which credentials were right, and until when that is remembered.

        :param kind: Names what has succeeded, in all workers.
        """
        return TimeLedger(self, self._parts.successes, kind)

    def clear_connections(self, number: int) -> None:
        """
        Stop counting the connections of a worker that has ended, before another begins
        in its place.

        :param number: The number of the worker.
        """
        for batch in self._peers.batches(1 + number):
            for record, connections in batch:
                # There may be none any more, if it was killed while it counted one.
                if connections:
                    with self._memory:
                        self._take_out(record, number)

    def _take_out(self, record: int, number: int, most: int = _MOST) -> None:
        """
        Count fewer connections of a worker.

        :param record: With one peer, or with all.
        :param most: How many fewer, if it has so many.
        """
        put, words = self._memory.put, self._memory.words
        its = words[record + 1 + number]
        fewer = min(its, most)
        if not fewer:
            return
        put(record + 1 + number, its - fewer)
        if words[record] == fewer:
            self._peers.remove(record)
        else:
            put(record, words[record] - fewer)

    def _key(self, *parts: str) -> _Key:
        """
        The key for some text.

        It depends on a secret, so nobody can choose names or addresses that have the
        same, or that are all in one chain.
        """
        digest = blake2b(key=self.secret, digest_size=16)
        for part in parts:
            encoded = part.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(encoded), encoded))
        first, second = unpack("2Q", digest.digest())
        return first, second


@frozen(eq=False)
class _Parts:
    """
    What a ledger is made of, in this order.

    The fields of a peer, or of all, are how many connections there are in all workers,
    and in each.
    """

    sessions: _Table
    callers: _Table
    peers: _Table
    failures: _Places
    successes: _Places

    @classmethod
    def of(cls, memory: _Memory, count: int) -> _Parts:
        """Find them by the capacities in the memory, for so many workers."""
        capacities = memory.words[_CAPACITIES:_SECRET].tolist()
        sessions = _Table(memory, _HEADER, capacities[0], _SessionFields.count)
        callers = _Table(memory, sessions.end, capacities[1], _UsageFields.count)
        peers = _Table(memory, callers.end, capacities[2], 1 + count)
        failures = _Places(memory, peers.end, capacities[3] // _WAYS)
        successes = _Places(memory, failures.end, capacities[4] // _WAYS)
        return cls(sessions, callers, peers, failures, successes)


class _UsageFields:
    """
    The fields of what a caller, or all of a directory, use: the number of sessions, and
    of bytes in two words.
    """

    sessions, staged, staged_high, count = range(4)


class _SessionFields:
    """
    The fields of a session.

    What its directory uses, what its caller uses, or 0 if the caller is unknown; how
    many bytes it stages, or is going to; the number of the last change; and the number
    of the worker that has counted it.
    """

    directory, caller, size, changed, worker, count = range(6)


class SessionLedger:
    """
    The sessions of one directory. Each counts once, whichever workers know of it.

    :param ledger: The ledger.
    :param directory: See :meth:`Ledger.sessions_of`.
    :param is_shared: See there.
    """

    def __init__(self, ledger: Ledger, directory: str, is_shared: bool) -> None:
        self._ledger = ledger
        self._memory = ledger._memory
        self._sessions, self._callers = ledger._sessions, ledger._callers
        self._directory = directory
        self._is_shared = is_shared
        self._all = ledger._key("directory", directory)
        self._listing = ledger._key("listing", directory)
        self._have_all_counted = is_shared
        self._caller = lru_cache(_CALLERS_KNOWN)(
            lambda who: ledger._key("caller", directory, who)
        )

    def usage(self, who: str | None) -> tuple[Usage, Usage]:
        """
        Tell what is used now.

        :param who: Names a caller, in all workers; ``None`` for one who is unknown.
        :returns: What they use, and what all use.
        """
        with self._memory:
            caller = 0 if who is None else self._callers.find(self._caller(who))
            return self._read(caller), self._read(self._callers.find(self._all))

    def add(self, session_id: UUID, who: str | None, allow: Allow) -> None:
        """
        Count a session that is about to be made.

        :param who: As for :meth:`usage`.
        :param allow: Called first. If it raises an exception, so does this method, and
            nothing changes.
        :raises LedgerFull: If there is no room.
        """
        callers = self._callers
        with self._memory:
            caller = 0 if who is None else callers.find(self._caller(who))
            allow(self._read(caller), self._read(callers.find(self._all)), 0)
            if not self._sessions.find(_key_of(session_id)):
                self._add(session_id, who)

    def resize(
        self, session_id: UUID, who: str | None, size: int, allow: Allow
    ) -> None:
        """
        Count more bytes for a session.

        :param who: As for :meth:`usage`, if the session is not counted yet.
        :param size: How many bytes it is going to stage. If that is less than before,
            nothing changes.
        :param allow: Called first. If it raises an exception, so does this method, and
            nothing changes.
        :raises LedgerFull: If there is no room.
        """
        words = self._memory.words
        with self._memory:
            session = self._sessions.find(_key_of(session_id))
            if not session:
                session = self._add(session_id, who)
            more = size - words[session + _SessionFields.size]
            if more > 0:
                caller = words[session + _SessionFields.caller]
                everyone = words[session + _SessionFields.directory]
                allow(
                    self._read(caller) if caller else None, self._read(everyone), more
                )
                self._resize(session, size)

    def remove(self, session_id: UUID) -> None:
        """Stop counting a session, if it is counted."""
        with self._memory:
            session = self._sessions.find(_key_of(session_id))
            if session:
                self._remove(session)

    def now(self) -> int:
        """
        How many changes there have been, for :meth:`listed`. Any thread may ask.
        """
        return self._memory.words[_CHANGES]

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
            session = self._sessions.find(_key_of(session_id))
            if not session:
                session = self._add(session_id, who)
            elif words[session + _SessionFields.changed] > since:
                return
            if words[session + _SessionFields.size] != min(size, _MOST):
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
        for number, batch in enumerate(sessions.batches(_SessionFields.directory)):
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
            began = self._memory.words[record + _UsageFields.staged]
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

    def _note(self, key: _Key, value: int) -> None:
        """Put a number among what callers use, if there is room."""
        try:
            with self._memory:
                record = self._callers.find(key) or self._callers.add(key, 1, 0, 0)
                self._memory.put(record + _UsageFields.staged, value)
        except LedgerFull:
            return

    def _counted_by(self, number: int) -> _Key:
        return self._ledger._key("counted", self._directory, str(number))

    def _is_here(self, session: int) -> bool:
        """Whether a record is one of a session of this directory."""
        directory = self._memory.words[session + _SessionFields.directory]
        return bool(directory) and directory == self._callers.find(self._all)

    def _is_over(self, session: int, known: Container[UUID], since: int) -> bool:
        words = self._memory.words
        worker = words[session + _SessionFields.worker]
        return (
            (self._is_shared or worker == self._ledger.worker.number)
            and words[session + _SessionFields.changed] <= since
            and _id_of(self._sessions.key(session)) not in known
        )

    def _read(self, record: int) -> Usage:
        if not record:
            return Usage()
        words = self._memory.words
        sessions = words[record + _UsageFields.sessions]
        return Usage(sessions, self._staged(record))

    def _staged(self, record: int) -> int:
        words = self._memory.words
        high = words[record + _UsageFields.staged_high]
        return high << 64 | words[record + _UsageFields.staged]

    def _add(self, session_id: UUID, who: str | None) -> int:
        everyone = self._one_more(self._all)
        caller = 0 if who is None else self._one_more(self._caller(who))
        return self._sessions.add(
            _key_of(session_id),
            everyone,
            caller,
            0,
            self._next_change(),
            self._ledger.worker.number,
        )

    def _one_more(self, key: _Key) -> int:
        record = self._callers.find(key)
        if not record:
            return self._callers.add(key, 1, 0, 0)
        self._memory.put(record, self._memory.words[record] + 1)
        return record

    def _resize(self, session: int, size: int) -> None:
        words, put = self._memory.words, self._memory.put
        size = min(size, _MOST)
        more = size - words[session + _SessionFields.size]
        put(session + _SessionFields.size, size)
        put(session + _SessionFields.changed, self._next_change())
        for record in self._records(session):
            self._stage(record, more)

    def _remove(self, session: int) -> None:
        words = self._memory.words
        size = words[session + _SessionFields.size]
        for record in self._records(session):
            left = words[record + _UsageFields.sessions] - 1
            if left:
                self._memory.put(record + _UsageFields.sessions, left)
                self._stage(record, -size)
            else:
                self._callers.remove(record)
        self._sessions.remove(session)

    def _records(self, session: int) -> list[int]:
        """What its directory uses, and its caller, if that is known."""
        words = self._memory.words
        directory = words[session + _SessionFields.directory]
        caller = words[session + _SessionFields.caller]
        return [directory, caller] if caller else [directory]

    def _stage(self, record: int, more: int) -> None:
        """Add to the bytes that somebody stages."""
        put, before = self._memory.put, self._staged(record)
        staged = before + more
        put(record + _UsageFields.staged, staged & _MOST)
        if staged >> 64 != before >> 64:
            put(record + _UsageFields.staged_high, staged >> 64)

    def _next_change(self) -> int:
        changes = self._memory.words[_CHANGES] + 1
        self._memory.put(_CHANGES, changes)
        return changes


class ConnectionLedger:
    """
    The connections of all workers: those of each peer, and all.

    :param ledger: The ledger.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._memory, self._peers = ledger._memory, ledger._peers
        self._all = ledger._key("connections")
        self._peer = lru_cache(_CALLERS_KNOWN)(lambda peer: ledger._key("peer", peer))

    def add(self, peer: str, most: int, most_of_peer: int) -> bool:
        """
        Count a connection of this worker, unless there are too many.

        :param peer: The address that it comes from.
        :param most: How many there may be.
        :param most_of_peer: How many of them may come from one address.
        :returns: Whether it is counted.
        """
        words, key = self._memory.words, self._peer(peer)
        try:
            with self._memory:
                everyone, one = self._peers.find(self._all), self._peers.find(key)
                if (everyone and words[everyone] >= most) or (
                    one and words[one] >= most_of_peer
                ):
                    return False
                self._one_more(everyone, self._all)
                self._one_more(one, key)
        except LedgerFull:
            return False
        return True

    def remove(self, peer: str) -> None:
        """
        Stop counting a connection of this worker.

        :param peer: The address that it came from.
        """
        number = self._ledger.worker.number
        with self._memory:
            for key in (self._all, self._peer(peer)):
                record = self._peers.find(key)
                if record:
                    self._ledger._take_out(record, number, 1)

    def count(self) -> int:
        """How many connections there are."""
        with self._memory:
            everyone = self._peers.find(self._all)
            return self._memory.words[everyone] if everyone else 0

    def _one_more(self, record: int, key: _Key) -> None:
        put, words, worker = self._memory.put, self._memory.words, self._ledger.worker
        if not record:
            record = self._peers.add(key, 1)
        else:
            put(record, words[record] + 1)
        put(record + 1 + worker.number, words[record + 1 + worker.number] + 1)


class TimeLedger:
    """
    A time for each of many keys. The oldest are forgotten when there are too many.

    :param ledger: The ledger.
    :param places: Where they are.
    :param kind: See :meth:`Ledger.failures_of`.
    :ivar seconds: The clock.
    """

    def __init__(self, ledger: Ledger, places: _Places, kind: str) -> None:
        self._ledger = ledger
        self._memory = ledger._memory
        self._places = places
        self._kind = kind
        self.seconds = ledger.seconds

    def get(self, key: str) -> float | None:
        """
        Tell the time of a key.

        :returns: In seconds of the ledger's clock; ``None`` if there is none.
        """
        with self._memory:
            place = self._places.find(self._key(key))
            return self._memory.words[place] / 1e6 if place else None

    def put(self, key: str, until: float) -> None:
        """
        Remember a time.

        :param until: As from :meth:`get`. When it has passed, it is forgotten first.
        """
        now = int(self.seconds() * 1e6)
        with self._memory:
            self._places.put(self._key(key), int(until * 1e6), now)

    def remove(self, key: str) -> None:
        """Forget the time of a key."""
        with self._memory:
            place = self._places.find(self._key(key))
            if place:
                self._places.remove(place)

    def _key(self, key: str) -> _Key:
        return self._ledger._key(self._kind, key)


def _key_of(session_id: UUID) -> _Key:
    number = session_id.int
    return number >> 64, number & _MOST


def _id_of(key: _Key) -> UUID:
    return UUID(int=key[0] << 64 | key[1])
