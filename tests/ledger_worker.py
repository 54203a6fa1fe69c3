"""
A worker that uses a ledger without a pause, until it is killed.

It counts sessions and connections within limits. When there are too many sessions, it
drops its own. Arguments: the descriptor of the ledger, the number of the worker, and
how many there are.
"""

from __future__ import annotations

import sys
from random import Random
from uuid import UUID

from txbits._ledger import Ledger, Usage
from txbits._workers import Worker

#: The limits, and who is counted.
MOST_SESSIONS = 12
MOST_CONNECTIONS = 9
MOST_OF_PEER = 4
CALLERS = ("alice", "bob", "carol")
PEERS = ("192.0.2.1", "192.0.2.2", "192.0.2.3")


class TooMany(Exception):
    """A limit is reached."""


def allow(usage: Usage | None, everyone: Usage, more: int) -> bool:
    """The limit of sessions."""
    if everyone.sessions >= MOST_SESSIONS:
        raise TooMany
    return False


def charge(usage: Usage | None, everyone: Usage, more: int) -> None:
    """No limit of bytes."""


def ids_of(number: int) -> list[UUID]:
    """The sessions that a worker may have."""
    return [UUID(int=number << 64 | one) for one in range(1, 21)]


def work(ledger: Ledger) -> None:
    """Count at random."""
    random, number = Random(), ledger.worker.number
    sessions = ledger.sessions_of("/uploads", is_shared=False)
    connections = ledger.connections()
    mine: list[str] = []
    while True:
        session_id, who = random.choice(ids_of(number)), random.choice(CALLERS)
        peer = random.choice(PEERS)
        try:
            match random.randrange(5):
                case 0:
                    sessions.add(session_id, who, allow)
                case 1:
                    sessions.remove(session_id)
                case 2:
                    with ledger:
                        sessions.add(session_id, who, allow)
                        # A sum of some of these takes two words.
                        size = random.choice((5, 1000, 1 << 63))
                        sessions.resize(session_id, None, size, charge)
                case 3:
                    if connections.add(peer, MOST_CONNECTIONS, MOST_OF_PEER):
                        mine.append(peer)
                case 4 if mine:
                    connections.remove(mine.pop())
        except TooMany:
            # As a worker does that was restarted, and has found nothing.
            for _ in sessions.drop_others(set(), sessions.now()):
                pass


if __name__ == "__main__":
    fd, worker, workers = map(int, sys.argv[1:])
    work(Ledger.open(fd, Worker(worker, workers)))
