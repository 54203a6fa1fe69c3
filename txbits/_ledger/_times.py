"""
Times that all workers remember.
"""

from __future__ import annotations

from txbits._ledger._memory import Key, Places
from txbits._ledger._parts import Parts


class TimeLedger:
    """
    A time for each of many keys. The oldest are forgotten when there are too many.

    :param ledger: The ledger.
    :param places: Where they are.
    :param kind: See :meth:`Ledger.failures_of`.
    :ivar seconds: The clock.
    """

    def __init__(self, ledger: Parts, places: Places, kind: str) -> None:
        self._ledger = ledger
        self._memory = ledger.memory
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

    def _key(self, key: str) -> Key:
        return self._ledger.key(self._kind, key)
