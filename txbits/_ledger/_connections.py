"""
The connections that all workers count.
"""

from __future__ import annotations

from functools import lru_cache

from txbits._ledger._memory import MOST, Key, LedgerFull
from txbits._ledger._parts import Parts

#: Of how many addresses a worker knows the keys without a digest.
_PEERS_KNOWN = 4096


class ConnectionLedger:
    """
    The connections of all workers: those of each peer, and all.

    :param ledger: The ledger.
    """

    def __init__(self, ledger: Parts) -> None:
        self._ledger = ledger
        self._memory, self._peers = ledger.memory, ledger.peers
        self._all = ledger.key("connections")
        self._peer = lru_cache(_PEERS_KNOWN)(lambda peer: ledger.key("peer", peer))

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
                    self._take_out(record, number, 1)

    def count(self) -> int:
        """How many connections there are."""
        with self._memory:
            everyone = self._peers.find(self._all)
            return self._memory.words[everyone] if everyone else 0

    def _one_more(self, record: int, key: Key) -> None:
        put, words, worker = self._memory.put, self._memory.words, self._ledger.worker
        if not record:
            record = self._peers.add(key, 1)
        else:
            put(record, words[record] + 1)
        put(record + 1 + worker.number, words[record + 1 + worker.number] + 1)

    def clear(self, number: int) -> None:
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

    def _take_out(self, record: int, number: int, most: int = MOST) -> None:
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
