"""
Where in a file of remembered closes is which one: what spares reading all of it.

The ids of sessions are random, so that the last bits of one find its record. A number
of eight bytes holds them and, at its end, the place of the record; these numbers are
sorted, so a look-up takes a few comparisons, and a million closes eight megabytes.
They are sorted in runs, none of which keeps the interpreter for long.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator

from attrs import define, field

#: The length of a record in bytes: its session's id stands at its beginning.
RECORD = 40

# A number has so many bits for the place.
_BITS = 20
_PLACE = (1 << _BITS) - 1
_OF_THE_ID = (1 << (64 - _BITS)) - 1

_WORDS = RECORD // 8


@define(eq=False)
class CloseIndex:
    """The records of one file."""

    _runs: list[array[int]] = field(factory=list, init=False)
    _count: int = field(default=0, init=False)

    @classmethod
    def of(cls, chunks: Iterable[bytes]) -> CloseIndex:
        """
        Look a file through.

        :param chunks: What is in it; each but the last has a whole number of records.
        """
        index = cls()
        for chunk in chunks:
            whole = len(chunk) // RECORD * RECORD
            words = array("Q", chunk[:whole])
            if sys.byteorder == "little":
                words.byteswap()
            begin = index._count
            numbers = (
                (word & _OF_THE_ID) << _BITS | place
                for place, word in enumerate(words[1::_WORDS], begin)
            )
            index._runs.append(array("Q", sorted(numbers)))
            index._count += whole // RECORD
        return index

    def places(self, session_id: bytes) -> Iterator[int]:
        """
        Tell which records may be a session's: none, or hardly ever more than one.

        :param session_id: The sixteen bytes that these records begin with.
        """
        sought = int.from_bytes(session_id[8:16], "big") & _OF_THE_ID
        for run in self._runs:
            at = bisect_left(run, sought << _BITS)
            while at < len(run) and run[at] >> _BITS == sought:
                yield run[at] & _PLACE
                at += 1


def times_of(content: bytes) -> array[float]:
    """
    Read the last eight bytes of all records as a number.

    :param content: Records, and nothing else.
    """
    words = array("Q", content)[_WORDS - 1 :: _WORDS]
    if sys.byteorder == "little":
        words.byteswap()
    return array("d", words.tobytes())
