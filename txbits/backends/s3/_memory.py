"""
How many bytes of uploads a process holds, and what happens when that is too many.

Clients are slow by design: hundreds of them may each have sent half a part. So nothing
is reserved for what may come. Bytes are counted as they arrive, and when there are
too many of them, those that are held longest for nothing go first: copies of what the
bucket has already, and then the halves of parts, which are put into the bucket as
they are. Bytes that are being sent are waited for before a half is put away: to read it
back costs more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

#: The bound if no description names one, in bytes.
DEFAULT_MEMORY = 128 << 20

#: What part of the memory for uploads small ones may take between their packets.
_SMALL_SHARE = 4


class IHolder(Protocol):
    """Holds bytes that it can put away."""

    @property
    def held(self) -> int:
        """How many bytes could be put away."""

    def put_away(self) -> None:
        """Begin to put them away; what comes of that is the holder's own affair."""


@define(eq=False)
class Memory:
    """
    A bound on bytes.

    :ivar limit: The bound.
    :ivar used: How many there are.
    :ivar peak: How many there were at most.
    :ivar leaving: How many of them are being sent, and go without anything else being
        waited for.
    """

    limit: int
    used: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)
    leaving: int = field(default=0, init=False)
    holders: set[IHolder] = field(factory=set, init=False)
    _drop_copies: list[Callable[[int], None]] = field(factory=list, init=False)
    _waiting: deque[tuple[int, Deferred[None]]] = field(factory=deque, init=False)

    def fits(self, length: int) -> bool:
        """Tell whether so many bytes more would be all right at once."""
        return not self._waiting and self.used + length <= self.limit

    def fits_soon(self, length: int) -> bool:
        """
        Tell whether so many bytes more will be all right when those that are leaving
        have left, and all who wait already have been served.

        Whoever waits for that may go on holding bytes meanwhile: nobody has to put any
        away for it.
        """
        waited_for = sum(needed for needed, _ in self._waiting)
        return self.used - self.leaving + waited_for + length <= self.limit

    def take(self, length: int) -> Deferred[None]:
        """
        Hold more bytes.

        :param length: How many; together with nothing else they are always allowed.
        :returns: A Deferred that fires with ``None`` when they may be held; they count
            from then on. Whoever cancels it holds none, and stands in nobody's way.
        """
        if not self.fits(length):
            for drop in self._drop_copies:
                drop(self.used + length - self.limit)
        if self.fits(length) or not self.used:
            self._count(length)
            return succeed(None)
        waiting: Deferred[None] = Deferred(self._no_more)
        self._waiting.append((length, waiting))
        self._relieve()
        return waiting

    def _no_more(self, cancelled: Deferred[None]) -> None:
        self._waiting = deque(one for one in self._waiting if one[1] is not cancelled)
        # The one behind it may need less.
        self.give(0)

    def give(self, length: int) -> None:
        """Hold fewer bytes."""
        self.used -= length
        while self._waiting:
            needed, waiting = self._waiting[0]
            if self.used and self.used + needed > self.limit:
                self._relieve()
                break
            self._waiting.popleft()
            self._count(needed)
            waiting.callback(None)

    def drop_copies_by(self, drop: Callable[[int], None]) -> None:
        """
        Name who holds copies of what the bucket has.

        :param drop: Called with how many bytes are too many; gives back what it can.
        """
        self._drop_copies.append(drop)

    def drop_no_copies_by(self, drop: Callable[[int], None]) -> None:
        """Take that back. Again is fine."""
        if drop in self._drop_copies:
            self._drop_copies.remove(drop)

    def _count(self, length: int) -> None:
        self.used += length
        self.peak = max(self.peak, self.used)

    def _relieve(self) -> None:
        needed, _ = self._waiting[0]
        if self.used - self.leaving + needed <= self.limit:
            return
        largest = max(self.holders, key=lambda one: one.held, default=None)
        if largest is not None and largest.held:
            largest.put_away()


@define(eq=False)
class Budget:
    """
    The memory that all backends of a process have together.

    Its bound is the largest that any of them asks for, while that one is started:
    who writes a number means the process, and a smaller one beside it is not enough for
    what that backend may have to hold.

    :ivar memory: What is held.
    """

    _wanted: dict[Hashable, int | None] = field(factory=dict, init=False)
    memory: Memory = field(factory=lambda: Memory(DEFAULT_MEMORY), init=False)

    def join(self, who: Hashable, wanted: int | None) -> Memory:
        """
        Have a share.

        :param who: A backend.
        :param wanted: The bound that it asks for; ``None`` for any.
        """
        self._wanted[who] = wanted
        self._bound()
        return self.memory

    def leave(self, who: Hashable) -> None:
        """Have none any more. Again is fine."""
        self._wanted.pop(who, None)
        self._bound()

    def for_small(self) -> int:
        """Tell how many bytes of small files one backend may have between packets."""
        return self.memory.limit // _SMALL_SHARE // max(1, len(self._wanted))

    def _bound(self) -> None:
        wanted = [one for one in self._wanted.values() if one is not None]
        self.memory.limit = max(wanted, default=DEFAULT_MEMORY)


#: The one that backends have unless they are given another.
OF_PROCESS = Budget()
