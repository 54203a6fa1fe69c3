"""
How many bytes a client sends at a time.

Windows sends from 5 KB up to 13 MB, as the network allows. So does this: a fragment is
to take some seconds, long enough that the pause between an Ack and the next fragment
does not matter, and short enough that little is sent twice when a connection breaks.
A server that finds fragments too large sets a limit of its own.
"""

from __future__ import annotations

from attrs import define, field
from attrs.validators import ge

#: The shortest and the longest fragment, in bytes, that the rate of a network leads to.
SMALLEST_BY_RATE = 5 * 1024
LARGEST_BY_RATE = 13 * 1024 * 1024

#: How long the first fragment is, in bytes. Nothing is known of the network yet.
FIRST_FRAGMENT = 1024 * 1024

#: A server that finds a fragment of this many bytes too large takes none.
SMALLEST_FRAGMENT = 1024

#: How long a fragment is to take, in seconds.
TARGET_SECONDS = 10.0

#: By how much a fragment may be longer than the one before.
_GROWTH = 4


@define
class FragmentSizes:
    """
    The length of the next fragment, from what became of those before.

    :ivar size: How many bytes the next fragment has at most.
    :ivar adapts: Whether that follows the network.
    """

    size: int = field(default=FIRST_FRAGMENT, validator=ge(1))
    adapts: bool = True
    _limit: int = field(init=False, default=LARGEST_BY_RATE)

    @classmethod
    def fixed(cls, size: int) -> FragmentSizes:
        """
        Send so many bytes at a time, whatever the network does.

        Only a server that finds them too large makes them fewer.
        """
        return cls(size, adapts=False)

    def acknowledged(self, length: int, seconds: float) -> None:
        """
        A fragment was taken.

        :param length: How many bytes it had.
        :param seconds: How long it took, Ack included.
        """
        # What is shorter than it might be, like the last one, shows no rate: most of
        # its time may be the Ack's.
        if not self.adapts or length < self.size:
            return
        most = self.size * _GROWTH
        if seconds * most > length * TARGET_SECONDS:
            most = int(length * TARGET_SECONDS / seconds)
        self.size = min(self._limit, max(SMALLEST_BY_RATE, most))

    def lost(self) -> None:
        """A fragment was not answered: the network is worse than it was."""
        if self.adapts:
            self.size = min(self._limit, max(SMALLEST_BY_RATE, self.size // 2))

    def too_large(self, length: int) -> bool:
        """
        The server takes no fragment of so many bytes.

        :returns: Whether it may take a shorter one.
        """
        if length <= SMALLEST_FRAGMENT:
            return False
        self._limit = self.size = max(SMALLEST_FRAGMENT, length // 2)
        return True
