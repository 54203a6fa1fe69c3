"""
Shared memory that is changed as a whole or not at all, and tables in it.

Whoever reads or changes it has its lock, which is a POSIX record lock: the kernel takes
it from a process that is killed. What such a process has left half done is undone by
whoever has the lock next, since the old value of each word is noted before the word
changes.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from mmap import mmap
from types import TracebackType

from attrs import frozen

#: How many places there are where a time may be.
WAYS = 8

# After 12 words of others, it is noted what is to be undone: how many words, and of
# each where it is and its old value.
_UNDO = 12
_MOST_UNDONE = 128

#: The first word after the notes.
END = _UNDO + 1 + 2 * _MOST_UNDONE

#: The most that fits into a word.
MOST = (1 << 64) - 1

#: How many records are looked at in one go.
_BATCH = 1000

Key = tuple[int, int]


class LedgerFull(Exception):
    """There is no room to count another session, caller or peer."""


class Memory:
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
        """Stop using it; the descriptor stays open."""
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


class Table:
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

    def __init__(self, memory: Memory, start: int, capacity: int, fields: int) -> None:
        self.memory = memory
        self._start, self._capacity = start, capacity
        self._chains = start + 2
        self._width = 3 + fields
        # Fewer, longer chains take less memory while there are few records.
        self._spread = capacity // 4 + 1
        records = self._chains + self._spread
        self._first = records + 3
        self.end = records + capacity * self._width

    def find(self, key: Key) -> int:
        """The record with a key; 0 if there is none."""
        words, (first, second) = self.memory.words, key
        record = words[self._chains + (first ^ second) % self._spread]
        while record and (words[record - 3] != first or words[record - 2] != second):
            record = words[record - 1]
        return record

    def add(self, key: Key, *values: int) -> int:
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

    def _chain(self, key: Key) -> int:
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

    def key(self, record: int) -> Key:
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
class Places:
    """
    Times in the memory, each with a key.

    Each key has one of a few places. If there is none left, the one that was put there
    first is forgotten.

    :param memory: The memory.
    :param start: Its first word.
    :param sets: How many sets of places there are.
    """

    memory: Memory
    start: int
    sets: int

    # The words of a place: the key; the time, until which it is not forgotten before
    # others are; and when it was put there.
    _KEY, _TIME, _PUT, _WIDTH = 0, 2, 3, 4

    @property
    def end(self) -> int:
        """The word after its last one."""
        return self.start + self.sets * WAYS * self._WIDTH

    def find(self, key: Key) -> int:
        """Where a time is; 0 if there is none with this key."""
        for place in self._of(key):
            if self._key(place) == key:
                return place + self._TIME
        return 0

    def put(self, key: Key, time: int, now: int) -> None:
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

    def _of(self, key: Key) -> range:
        first = self.start + key[0] % self.sets * WAYS * self._WIDTH
        return range(first, first + WAYS * self._WIDTH, self._WIDTH)

    def _key(self, place: int) -> Key:
        return self.memory.words[place], self.memory.words[place + 1]

    def _worth(self, place: int, key: Key, now: int) -> int:
        """How much to regret what is in a place, when another key needs it."""
        its, words = self._key(place), self.memory.words
        if its == key:
            return -2
        if its == (0, 0) or words[place + self._TIME] <= now:
            return -1
        return words[place + self._PUT]
