"""
How many bytes a client sends at a time.

Windows sends from 5 KB up to 13 MB, as the network allows, and so does this. A fragment
should take some seconds: long enough that the pause between an Ack and the next one
does not matter, and short enough that little is sent twice when a connection breaks.
A server that refuses a fragment as too large sets a limit.
"""

from __future__ import annotations

from attrs import define, field
from attrs.validators import ge

#: The shortest and the longest fragment, in bytes, that the rate of a network leads to.
SMALLEST_BY_RATE = 5 * 1024
LARGEST_BY_RATE = 13 * 1024 * 1024

#: The length of the first fragment, in bytes, when the network is not yet known.
FIRST_FRAGMENT = 1024 * 1024

#: A server that refuses a fragment of this many bytes as too large accepts none.
SMALLEST_FRAGMENT = 1024

#: How long a fragment should take, in seconds.
TARGET_SECONDS = 10.0

#: How many times longer than the previous one a fragment may be.
_GROWTH = 4


@define
class FragmentSizes:
    """
    The length of the next fragment, depending on the outcome of previous ones.

    :ivar size: How many bytes the next fragment has at most.
    :ivar adapts: Whether that adapts to the network.
    """

    size: int = field(default=FIRST_FRAGMENT, validator=ge(1))
    adapts: bool = True
    _limit: int = field(init=False, default=LARGEST_BY_RATE)

    @classmethod
    def fixed(cls, size: int) -> FragmentSizes:
        """
        Send a fixed number of bytes at a time, independent of the network, unless the
        server refuses them as too large.
        """
        return cls(size, adapts=False)

    @classmethod
    def up_to(cls, limit: int) -> FragmentSizes:
        """Adapt to the network, but send at most so many bytes at a time."""
        sizes = cls(min(limit, FIRST_FRAGMENT))
        sizes._limit = limit
        return sizes

    def acknowledged(self, length: int, seconds: float) -> None:
        """
        A fragment was accepted.

        :param length: How many bytes it had.
        :param seconds: How long it took, including the Ack.
        """
        # A fragment that is shorter than possible, like the last one, shows no rate:
        # most of its time may be the Ack's.
        if not self.adapts or length < self.size:
            return
        most = self.size * _GROWTH
        if seconds * most > length * TARGET_SECONDS:
            most = int(length * TARGET_SECONDS / seconds)
        self.size = min(self._limit, max(SMALLEST_BY_RATE, most))

    def lost(self) -> None:
        """A fragment was not answered: the network has become worse."""
        if self.adapts:
            self.size = min(self._limit, max(SMALLEST_BY_RATE, self.size // 2))

    def too_large(self, length: int) -> bool:
        """
        The server does not accept a fragment of so many bytes.

        :returns: Whether it may accept a shorter one.
        """
        if length <= SMALLEST_FRAGMENT:
            return False
        self._limit = self.size = max(SMALLEST_FRAGMENT, length // 2)
        return True
