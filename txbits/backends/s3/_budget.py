"""
The memory that uploads and replies use in a process, and what happens when it is short.

Clients are slow by design: hundreds of them may each have sent half a part. So no
memory is reserved in advance. Bytes are counted as they arrive. When there are too many
of them, copies of bytes that the bucket has are dropped first. Then incomplete parts
are put into the bucket as they are. Parts that are being sent are waited for before
that, because reading an incomplete part back costs more.

A writer that needs more memory waits, and meanwhile holds nothing that others may be
waiting for. Writers are served by these rules:

- All replies of applications together get at most half of the memory. However many of
  them there are, and however slowly they arrive, uploads have the other half.
- Each directory has a queue for its uploads and one for its replies. The queues take
  turns, so that a busy directory does not block the others.
- Small requests may overtake large ones for which there is no room, but only until as
  many bytes as the limit have been given out since the large one came. So neither waits
  forever: a kilobyte does not wait for five megabytes that do not fit, and these do not
  wait for one kilobyte after the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed

#: The limit if the settings do not have one, in bytes.
DEFAULT_MEMORY = 128 << 20

#: All replies together may use the limit divided by this.
_REPLIES_SHARE = 2

#: How many requests of a queue are considered when the first does not fit.
_MOST_LOOKED_AT = 64

#: Small files, between their packets, may use the limit divided by this.
_SMALL_SHARE = 4


class IHolder(Protocol):
    """Holds bytes that it can put away."""

    @property
    def held(self) -> int:
        """How many bytes could be put away."""

    def put_away(self) -> None:
        """Begin to put them away. The holder handles failures."""


@define(eq=False)
class Use:
    """
    A use of memory in the whole process: uploads, or replies.

    :ivar divisor: It may use the limit divided by this.
    :ivar used: How many bytes it uses.
    :ivar leaving: How many of them are being sent, and will be freed soon.
    :ivar waited_for: How many bytes are waited for.
    :ivar holders: The writers that can put bytes away.
    """

    divisor: int
    used: int = field(default=0, init=False)
    leaving: int = field(default=0, init=False)
    waited_for: int = field(default=0, init=False)
    holders: set[IHolder] = field(factory=set, init=False)


@frozen(eq=False)
class _Waiting:
    """
    A request that waits for memory.

    :ivar needed: How many bytes it needs.
    :ivar number: Its number among all that have waited.
    :ivar since: How many bytes had been given out when it came.
    :ivar room: Fires with ``None`` when it is granted.
    """

    needed: int
    number: int
    since: int
    room: Deferred[None]


@define(eq=False)
class Share:
    """
    The memory of one directory for one use, with a queue.

    :ivar memory: The memory of the process.
    :ivar line: The queue.
    """

    memory: Memory
    use: Use
    line: deque[_Waiting] = field(factory=deque, init=False)

    @property
    def used(self) -> int:
        """How many bytes the process uses."""
        return self.memory.used

    @property
    def limit(self) -> int:
        """How many it may use."""
        return self.memory.limit

    @property
    def peak(self) -> int:
        """How many it has used at most."""
        return self.memory.peak

    @property
    def holders(self) -> set[IHolder]:
        """The writers that can put bytes of this use away."""
        return self.use.holders

    @property
    def leaving(self) -> int:
        """How many bytes of this use are being sent."""
        return self.use.leaving

    @leaving.setter
    def leaving(self, length: int) -> None:
        self.use.leaving = length

    def fits(self, length: int) -> bool:
        """Return whether so many more bytes are available at once."""
        memory, use = self.memory, self.use
        return (
            memory.used + length <= memory.limit
            and use.used + length <= memory.limit // use.divisor
            and not (memory.lines and memory.are_waiting(use))
        )

    def fits_soon(self, length: int) -> bool:
        """
        Return whether so many more bytes will be available when those that are being
        sent are freed and all waiting requests have been granted.

        A writer that waits for that may keep what it holds: nobody has to put bytes
        away for it.
        """
        return self.memory.fits_soon(self.use, length)

    def take(self, length: int) -> Deferred[None]:
        """
        Request memory.

        :param length: How many bytes. If nothing else is used, any number is granted.
        :returns: A Deferred that fires with ``None`` when they are granted. It may be
            cancelled.
        """
        if self.fits(length):
            self.memory.count(self.use, length)
            return succeed(None)
        return self.memory.take(self, length)

    def give(self, length: int) -> None:
        """Free memory."""
        self.memory.give(self.use, length)


@define(eq=False)
class Memory:
    """
    The memory of the process, with a limit.

    :ivar limit: The limit, in bytes.
    :ivar used: How many bytes are used.
    :ivar peak: How many were used at most.
    :ivar uploads: The use by uploads.
    :ivar replies: The use by replies.
    :ivar lines: The shares in which requests wait. The first one's turn is next.
    """

    limit: int
    used: int = field(default=0, init=False)
    peak: int = field(default=0, init=False)
    uploads: Use = field(factory=lambda: Use(1), init=False)
    replies: Use = field(factory=lambda: Use(_REPLIES_SHARE), init=False)
    _drop_copies: list[Callable[[int], None]] = field(factory=list, init=False)
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
        """Set the limit."""
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
        """Return whether requests wait that compete with a use."""
        return any(self._concerns(use, line, line.line[0]) for line in self.lines)

    def _concerns(self, use: Use, line: Share, one: _Waiting) -> bool:
        """
        Return whether a request that waits in a queue competes with a use.

        One that waits only because another use is at its limit does not.
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
        """See :meth:`Share.take`; called if it does not fit at once."""
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
            # Others may need less memory.
            self._serve()

        one = _Waiting(length, number, self._given_out, Deferred(no_more))
        if not share.line:
            self.lines.append(share)
        share.line.append(one)
        use.waited_for += length
        self._relieve()
        return one.room

    def _may_have(self, use: Use, length: int, number: int) -> bool:
        """Return whether there is room, and no older request comes first."""
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
        """Grant waiting requests, one queue after the other, while there is room."""
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
                # Its writer may request or free more in the same call.
                one.room.callback(None)
                return True
        return False

    def _leave(self, share: Share, one: _Waiting) -> None:
        share.line.remove(one)
        share.use.waited_for -= one.needed
        if not share.line:
            self.lines.remove(share)

    def count(self, use: Use, length: int) -> None:
        """Grant so many bytes."""
        self.used += length
        use.used += length
        self._given_out += length
        if self.used > self.peak:
            self.peak = self.used

    def _relieve(self) -> None:
        """Have bytes put away, if those that are being sent are not enough."""
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
        Register a function that drops copies of what the bucket has.

        :param drop: Called with how many bytes are too many; it frees what it can.
        """
        self._drop_copies.append(drop)

    def drop_no_copies_by(self, drop: Callable[[int], None]) -> None:
        """Unregister it; it may be unregistered already."""
        if drop in self._drop_copies:
            self._drop_copies.remove(drop)


def _put_away_largest(holders: set[IHolder]) -> None:
    largest = max(holders, key=lambda one: one.held, default=None)
    if largest is not None and largest.held:
        largest.put_away()


@define(eq=False)
class Budget:
    """
    The memory that all backends of a process share.

    Its limit is the largest that any started backend asks for: the setting is about all
    of them, and a smaller limit would not be enough for the parts of that backend. With
    several workers, this process gets its share of it, but what each backend needs.

    :ivar memory: The memory.
    """

    _wanted: dict[Hashable, int | None] = field(factory=dict, init=False)
    _needed: dict[Hashable, int] = field(factory=dict, init=False)
    _workers: int = field(default=1, init=False)
    memory: Memory = field(factory=lambda: Memory(DEFAULT_MEMORY), init=False)

    def join(
        self, who: Hashable, wanted: int | None, workers: int = 1, needed: int = 0
    ) -> Memory:
        """
        Use the memory.

        :param who: A backend.
        :param wanted: The limit that it asks for, in bytes; ``None`` for any.
        :param workers: How many processes share that.
        :param needed: How many bytes it needs in each of them.
        """
        self._wanted[who], self._needed[who] = wanted, needed
        self._workers = workers
        self._bound()
        return self.memory

    def leave(self, who: Hashable) -> None:
        """Stop using the memory; it may have been stopped already."""
        self._wanted.pop(who, None)
        self._needed.pop(who, None)
        self._bound()

    def for_small(self) -> int:
        """Return how many bytes of small files a backend may keep between packets."""
        return self.memory.limit // _SMALL_SHARE // max(1, len(self._wanted))

    def _bound(self) -> None:
        wanted = [one for one in self._wanted.values() if one is not None]
        limit = max(wanted, default=DEFAULT_MEMORY) // self._workers
        self.memory.bound(max(limit, *self._needed.values(), 0))


#: The default of backends.
OF_PROCESS = Budget()
