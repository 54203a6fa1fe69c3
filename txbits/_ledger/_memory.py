"""
Shared memory that is changed as a whole or not at all, and tables in it.

Whoever reads or changes it has its lock, which is a POSIX record lock: the kernel takes
it from a process that is killed. What such a process has left half done is undone by
whoever has the lock next, since the old value of each word is noted before the word
changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from fcntl import LOCK_EX, LOCK_UN, lockf
from mmap import mmap
from struct import Struct
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

# What writes so many adjacent words.
_PACK = [Struct(f"{count}Q").pack_into for count in range(2 * _MOST_UNDONE + 1)]

Key = tuple[int, int]


class LedgerFull(Exception):
    """There is no room to count another session, caller or peer."""


class Memory:
    """
    Words that several processes change. Each change is made whole or not at all.

    As a context manager, it has the lock. It may be entered again meanwhile: then all
    is one change. What has changed is undone when an exception leaves it.

    A process may be killed between any two assignments to :attr:`words`, but not within
    one: a word is written by one instruction. So whoever changes what others can see
    calls :meth:`note` first, and then assigns one word at a time; :meth:`put` does both
    for a single word. What others do not use yet may be written by :meth:`fill`.

    :param fd: A file of the right length.
    :ivar words: All words.
    :ivar map: The same as bytes.
    :ivar freed: The records that this change has removed.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.map = mmap(fd, 0)
        self.words = memoryview(self.map).cast("Q")
        self.freed: set[int] = set()
        self._pack = _PACK
        self._began: list[int] = []

    def close(self) -> None:
        """Stop using it; the descriptor stays open."""
        self.words.release()
        self.map.close()

    def __enter__(self) -> None:
        if self._began:
            self._began.append(self.words[_UNDO])
            return
        lockf(self._fd, LOCK_EX)
        if self.words[_UNDO]:
            # Whoever had the lock was killed.
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
            if self.freed:
                self.freed.clear()
            lockf(self._fd, LOCK_UN)

    def note(self, *noted: int) -> None:
        """
        Note some words that are about to change.

        :param noted: Where the first of them is, and its value; and so on.
        """
        words = self.words
        before = words[_UNDO]
        after = before + len(noted) // 2
        if after > _MOST_UNDONE:
            raise AssertionError("this is too much for one change of the ledger")
        self._pack[len(noted)](self.map, 8 * (_UNDO + 1 + 2 * before), *noted)
        # From here on they are undone.
        words[_UNDO] = after

    def put(self, at: int, value: int) -> None:
        """Note a word, and change it."""
        words = self.words
        before = words[_UNDO]
        if before == _MOST_UNDONE:
            raise AssertionError("this is too much for one change of the ledger")
        note = _UNDO + 1 + 2 * before
        words[note] = at
        words[note + 1] = words[at]
        words[_UNDO] = before + 1
        words[at] = value

    def fill(self, at: int, *values: int) -> None:
        """
        Write adjacent words. If this is interrupted, they may have any value.

        :param at: The first of them.
        """
        self._pack[len(values)](self.map, 8 * at, *values)

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
    :ivar capacity: The same.
    :ivar end: The word after its last one.
    """

    def __init__(self, memory: Memory, start: int, capacity: int, fields: int) -> None:
        self.memory = memory
        self._start, self.capacity = start, capacity
        self._chains = start + 2
        self._width = 3 + fields
        self._fields = Struct(f"{fields}Q")
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

    def fields(self, record: int) -> tuple[int, ...]:
        """All fields of a record."""
        return self._fields.unpack_from(self.memory.map, 8 * record)

    def add(self, key: Key, *values: int) -> int:
        """
        Add a record with a key that no other has.

        :param values: Its first fields.
        :raises LedgerFull: If there is no room.
        """
        memory, words, head = self.memory, self.memory.words, self._start
        first, second = key
        chain = self._chains + (first ^ second) % self._spread
        record, following = words[head], words[chain]
        if record:
            left = words[record - 1]
            memory.note(head, record, chain, following, record - 1, left, record, 0)
        else:
            head += 1
            used = words[head]
            if used == self.capacity:
                raise LedgerFull
            left = used + 1
            record = self._first + used * self._width
            memory.note(head, used, chain, following, record, 0)
        if record in memory.freed:
            # What else is here may be needed again.
            for at in range(record - 3, record + len(values)):
                memory.note(at, words[at])
        memory.fill(record - 3, first, second, following, *values)
        words[chain] = record
        words[head] = left
        return record

    def remove(self, record: int) -> None:
        """Remove a record."""
        memory, words, start = self.memory, self.memory.words, self._start
        first, second = words[record - 3], words[record - 2]
        link = self._chains + (first ^ second) % self._spread
        while (other := words[link]) != record:
            if not other:
                raise AssertionError("a record is not where it belongs")
            link = other - 1
        following, free = words[record - 1], words[start]
        value = words[record]
        memory.note(link, record, record - 1, following, start, free, record, value)
        words[link] = following
        words[record - 1] = free
        words[start] = record
        words[record] = 0
        memory.freed.add(record)

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
