"""
How many bytes of uploads and replies a process holds, and what happens when that is too
many.

Clients are slow by design: hundreds of them may each have sent half a part. So nothing
is reserved for what may come. Bytes are counted as they arrive, and when there are
too many of them, those that are held longest for nothing go first: copies of what the
bucket has already, and then the halves of parts, which are put into the bucket as
they are. Bytes that are being sent are waited for before a half is put away: to read it
back costs more.

Who wants to hold more waits for room, and holds nothing meanwhile that others may be
waiting for. How they are served:

- Replies of applications have half of the bound at most. However many there are, and
  however slowly they come, uploads have the other half.
- Each directory has a line for its uploads, and one for its replies. The lines take
  turns, so that a busy directory does not keep the others out.
- Who needs little may pass those for whom there is no room, until as many bytes as the
  bound have been given out since they came; from then on they are waited for. So
  neither waits for ever: not a kilobyte behind five megabytes that do not fit, nor
  these behind one kilobyte after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed

#: The bound if no description names one, in bytes.
DEFAULT_MEMORY = 128 << 20

#: What part of the bound replies may take, all together.
_REPLIES_SHARE = 2

#: How many of a line may be served before the first.
_MOST_LOOKED_AT = 64

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
class Use:
    """
    What bytes are held for, in the whole process.

    :ivar divisor: What part of the bound may be used for that.
    :ivar used: How many bytes are.
    :ivar leaving: How many of them are being sent, and go without anything else being
        waited for.
    :ivar waited_for: How many more are wanted.
    """

    divisor: int
    used: int = field(default=0, init=False)
    leaving: int = field(default=0, init=False)
    waited_for: int = field(default=0, init=False)
    holders: set[IHolder] = field(factory=set, init=False)


@frozen(eq=False)
class _Waiting:
    """
    Who waits for room.

    :ivar number: Of all who have waited.
    :ivar since: How many bytes had been given out when it came.
    """

    needed: int
    number: int
    since: int
    room: Deferred[None]


@define(eq=False)
class Share:
    """
    What one directory holds for one use; its line is served in order.

    :ivar memory: All that the process has.
    """

    memory: Memory
    use: Use
    line: deque[_Waiting] = field(factory=deque, init=False)

    @property
    def used(self) -> int:
        """How many bytes the process holds."""
        return self.memory.used

    @property
    def limit(self) -> int:
        """How many it may hold."""
        return self.memory.limit

    @property
    def peak(self) -> int:
        """How many it held at most."""
        return self.memory.peak

    @property
    def holders(self) -> set[IHolder]:
        """Who holds bytes for this use that can be put away."""
        return self.use.holders

    @property
    def leaving(self) -> int:
        """How many of the bytes for this use are being sent."""
        return self.use.leaving

    @leaving.setter
    def leaving(self, length: int) -> None:
        self.use.leaving = length

    def fits(self, length: int) -> bool:
        """Tell whether so many bytes more would be all right at once."""
        memory, use = self.memory, self.use
        return (
            memory.used + length <= memory.limit
            and use.used + length <= memory.limit // use.divisor
            and not (memory.lines and memory.are_waiting(use))
        )

    def fits_soon(self, length: int) -> bool:
        """
        Tell whether so many bytes more will be all right when those that are leaving
        have left, and all who wait already have been served.

        Whoever waits for that may go on holding bytes meanwhile: nobody has to put any
        away for it.
        """
        return self.memory.fits_soon(self.use, length)

    def take(self, length: int) -> Deferred[None]:
        """
        Hold more bytes.

        :param length: How many; together with nothing else they are always allowed.
        :returns: A Deferred that fires with ``None`` when they may be held; they count
            from then on. Whoever cancels it holds none, and stands in nobody's way.
        """
        if self.fits(length):
            self.memory.count(self.use, length)
            return succeed(None)
        return self.memory.take(self, length)

    def give(self, length: int) -> None:
        """Hold fewer bytes."""
        self.memory.give(self.use, length)


@define(eq=False)
class Memory:
    """
    A bound on bytes.

    :ivar limit: The bound.
    :ivar used: How many there are.
    :ivar peak: How many there were at most.
    :ivar uploads: What there is of uploads.
    :ivar replies: What there is of replies.
    :ivar lines: The shares in which somebody waits.
    """

    limit: int
    used: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)
    uploads: Use = field(factory=lambda: Use(1), init=False)
    replies: Use = field(factory=lambda: Use(_REPLIES_SHARE), init=False)
    _drop_copies: list[Callable[[int], None]] = field(factory=list, init=False)
    # It is the turn of the first.
    lines: deque[Share] = field(factory=deque, init=False)
    _given_out: int = field(default=0, init=False)
    _number: int = field(default=0, init=False)

    def for_uploads(self) -> Share:
        """Make a directory's share for its uploads."""
        return Share(self, self.uploads)

    def for_replies(self) -> Share:
        """Make a directory's share for replies of its application."""
        return Share(self, self.replies)

    def bound(self, limit: int) -> None:
        """Have another bound."""
        self.limit = limit
        self._serve()

    # Room

    def _has_room(self, use: Use, length: int) -> bool:
        return self._has_room_at_all(length) and self._has_room_in(use, length)

    def _has_room_at_all(self, length: int) -> bool:
        return not self.used or self.used + length <= self.limit

    def _has_room_in(self, use: Use, length: int) -> bool:
        return not use.used or use.used + length <= self.limit // use.divisor

    def are_waiting(self, use: Use) -> bool:
        """Tell whether somebody waits for room that is wanted for a use."""
        return any(self._concerns(use, line, line.line[0]) for line in self.lines)

    def _concerns(self, use: Use, line: Share, one: _Waiting) -> bool:
        """
        Tell whether who waits in a line, and who wants room for a use, want the same.

        Who waits only because there is too much for another use does not.
        """
        return line.use is use or not self._has_room_at_all(one.needed)

    def fits_soon(self, use: Use, length: int) -> bool:
        """See :meth:`Share.fits_soon`."""
        leaving = self.uploads.leaving + self.replies.leaving
        waited_for = self.uploads.waited_for + self.replies.waited_for
        return (
            self.used - leaving + waited_for + length <= self.limit
            and use.used - use.leaving + use.waited_for + length
            <= self.limit // use.divisor
        )

    def take(self, share: Share, length: int) -> Deferred[None]:
        """See :meth:`Share.take`: what does not simply fit."""
        use = share.use
        number = self._number = self._number + 1
        if not self._may_have(use, length, number):
            for drop in self._drop_copies:
                drop(self.used + length - self.limit)
        if self._may_have(use, length, number):
            self.count(use, length)
            return succeed(None)

        def no_more(_: Deferred[None]) -> None:
            self._leave(share, one)
            # Others may need less.
            self._serve()

        one = _Waiting(length, number, self._given_out, Deferred(no_more))
        if not share.line:
            self.lines.append(share)
        share.line.append(one)
        use.waited_for += length
        self._relieve()
        return one.room

    def _may_have(self, use: Use, length: int, number: int) -> bool:
        """Tell whether there is room, and nobody who is to be waited for."""
        if not self._has_room(use, length):
            return False
        for line in self.lines:
            first = line.line[0]
            if (
                first.number < number
                and self._given_out - first.since >= self.limit
                and not self._has_room(line.use, first.needed)
                and self._concerns(use, line, first)
            ):
                return False
        return True

    def give(self, use: Use, length: int) -> None:
        """See :meth:`Share.give`."""
        self.used -= length
        use.used -= length
        if self.lines:
            self._serve()

    def _serve(self) -> None:
        """Serve those who wait, a line after the other, as far as there is room."""
        idle = 0
        while idle < len(self.lines):
            share = self.lines[0]
            self.lines.rotate(-1)
            idle = 0 if self._serve_one(share) else idle + 1
        self._relieve()

    def _serve_one(self, share: Share) -> bool:
        for one in islice(share.line, _MOST_LOOKED_AT):
            if self._may_have(share.use, one.needed, one.number):
                self._leave(share, one)
                self.count(share.use, one.needed)
                # Whoever gets it may take or give more in the same call.
                one.room.callback(None)
                return True
        return False

    def _leave(self, share: Share, one: _Waiting) -> None:
        share.line.remove(one)
        share.use.waited_for -= one.needed
        if not share.line:
            self.lines.remove(share)

    def count(self, use: Use, length: int) -> None:
        """Give so many bytes out."""
        self.used += length
        use.used += length
        self._given_out += length
        if self.used > self.peak:
            self.peak = self.used

    def _relieve(self) -> None:
        """Have bytes put away, if those that leave anyway are not enough."""
        leaving = self.uploads.leaving + self.replies.leaving
        for line in self.lines:
            use, needed = line.use, line.line[0].needed
            if self.used - leaving + needed > self.limit:
                _put_away_largest(self.uploads.holders | self.replies.holders)
                return
            if use.used - use.leaving + needed > self.limit // use.divisor:
                _put_away_largest(use.holders)
                return

    # Copies

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


def _put_away_largest(holders: set[IHolder]) -> None:
    largest = max(holders, key=lambda one: one.held, default=None)
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
        self.memory.bound(max(wanted, default=DEFAULT_MEMORY))


#: The one that backends have unless they are given another.
OF_PROCESS = Budget()
