"""
What lies where in the memory of a ledger.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import blake2b
from struct import unpack
from time import monotonic

from txbits._ledger._memory import END, WAYS, Key, Memory, Places, Table
from txbits._workers import Worker

# The first words, before the notes of the memory: a mark, the number of workers, the
# five capacities, a secret, and a counter of changes to sessions.
_MARK = 0x7478_6269_7473_0001
_CAPACITIES = 2
_SECRET = 7
CHANGES = 11


def new_header(count: int, *capacities: int) -> list[int]:
    """
    The first words of a ledger.

    :param count: How many workers there are going to be.
    :param capacities: As of :meth:`txbits._ledger.Ledger.create`.
    """
    return [_MARK, count, *capacities, *unpack("4Q", os.urandom(32))]


def require_header(fd: int, count: int) -> None:
    """
    Check that a file is a ledger of so many workers.

    :raises ValueError: If it is not.
    """
    header = os.pread(fd, 16, 0)
    if len(header) < 16 or unpack("2Q", header) != (_MARK, count):
        raise ValueError(f"this is not the ledger of {count} workers")


class UsageFields:
    """
    The fields of what a caller, or all of a directory, use: the number of sessions, and
    of bytes in two words.
    """

    sessions, staged, staged_high, count = range(4)


class SessionFields:
    """
    The fields of a session.

    What its directory uses, what its caller uses, or 0 if the caller is unknown; how
    many bytes it stages, or is going to; the number of the last change; and the number
    of the worker that has counted it.
    """

    directory, caller, size, changed, worker, count = range(6)


class Parts:
    """
    The memory of a ledger, and its parts in this order.

    :param fd: The memory.
    :param worker: Which worker this process is.
    :param seconds: The clock of logins, the same in all workers.
    :ivar secret: Some bytes that only the workers have.
    :ivar sessions: The sessions, by their ids.
    :ivar callers: What callers, and all of a directory, use.
    :ivar peers: How many connections there are with a peer, or with all: in all
        workers, and in each.
    :ivar failures: When the failures of names, or addresses, are forgotten.
    :ivar successes: Until when it is remembered which credentials were right.
    :ivar end: The word after its last one.
    """

    def __init__(
        self, fd: int, worker: Worker, seconds: Callable[[], float] = monotonic
    ) -> None:
        self.fd = fd
        self.worker = worker
        self.seconds = seconds
        memory = self.memory = Memory(fd)
        capacities = memory.words[_CAPACITIES:_SECRET].tolist()
        self.secret = memory.words[_SECRET:CHANGES].tobytes()
        self.sessions = Table(memory, END, capacities[0], SessionFields.count)
        end = self.sessions.end
        self.callers = Table(memory, end, capacities[1], UsageFields.count)
        self.peers = Table(memory, self.callers.end, capacities[2], 1 + worker.count)
        self.failures = Places(memory, self.peers.end, capacities[3] // WAYS)
        self.successes = Places(memory, self.failures.end, capacities[4] // WAYS)
        self.end = self.successes.end

    def key(self, *parts: str) -> Key:
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
