"""
Figures that objects keep of what they do, for whoever reads them.

They are plain numbers, so that an event costs some tens of nanoseconds, whether anybody
reads them or not. Their keys come from the settings and from tables in the code, never
from clients, so that they take little memory. The last refusals, which tell of clients,
are few.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Callable

from attrs import define, evolve, field, frozen

#: The upper bounds of the classes of a histogram, in seconds, but for the last, which
#: has none.
BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)


@define(eq=False)
class Histogram:
    """
    How long something has taken.

    :ivar counts: How often it took at most as long as each of :data:`BOUNDS`, but
        longer than the one before; at the end, how often it took longer than all.
    :ivar seconds: How long it took in all.
    """

    counts: list[int] = field(factory=lambda: [0] * (len(BOUNDS) + 1), init=False)
    seconds: float = field(default=0.0, init=False)

    def observe(self, seconds: float) -> None:
        """Add one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    def copy(self) -> Histogram:
        """One with the durations of now."""
        other = Histogram()
        other.counts, other.seconds = list(self.counts), self.seconds
        return other

    def plus(self, other: Histogram) -> Histogram:
        """One with the durations of both."""
        both = self.copy()
        both.counts = [a + b for a, b in zip(both.counts, other.counts, strict=True)]
        both.seconds += other.seconds
        return both

    @property
    def total(self) -> int:
        """How many durations were added."""
        return sum(self.counts)


@frozen
class Refused:
    """
    Packets of one client that were refused for the same reason.

    All texts are safe to be shown: printable, on one line, and without secrets.

    :ivar refusal: The name of the reason in the failure table.
    :ivar directory: The virtual directory.
    :ivar client: The address of the client.
    :ivar user: The name of the user; ``None`` if anonymous.
    :ivar destination: The destination of the last one.
    :ivar packet: The type of the last one.
    :ivar status: The status that the last one was answered with.
    :ivar hresult: Its HRESULT.
    :ivar detail: What was wrong with the last one.
    :ivar at: When that was, in seconds since the epoch.
    :ivar count: How many there were.
    """

    refusal: str
    directory: str
    client: str
    user: str | None
    destination: str
    packet: str
    status: int
    hresult: int
    detail: str
    at: float
    count: int = 1


@define(eq=False)
class Refusals:
    """
    The last refusals. Those of one client for the same reason are one entry, so that a
    client that tries again and again does not displace the others.

    :param most: How many entries are kept. When there are more, the one that is over
        for longest is dropped.
    """

    _most: int = 50
    _known: OrderedDict[tuple[str, str, str | None], Refused] = field(
        factory=OrderedDict, init=False
    )

    def add(self, refused: Refused) -> None:
        """Add one refusal."""
        key = refused.refusal, refused.client, refused.user
        before = self._known.pop(key, None)
        if before is not None:
            refused = evolve(refused, count=before.count + 1)
        self._known[key] = refused
        if len(self._known) > self._most:
            self._known.popitem(last=False)

    def since(self, at: float) -> list[Refused]:
        """
        Those whose last packet is not older than *at*, the latest first.

        :param at: Seconds since the epoch.
        """
        return [one for one in reversed(self._known.values()) if one.at >= at]


@define(eq=False)
class Counts:
    """
    What has happened in one virtual directory since the start of the process.

    :param wall: Returns the seconds since the epoch.
    :ivar packets: Packets that have been settled, by type and status; the status is 0
        if nobody was left to answer. What is no packet has the type ``"other"``.
    :ivar refusals: Those that were refused, by name in the failure table.
    :ivar refused: The last of these.
    :ivar downloads: Requests to read files and replies, by method and status.
    :ivar authentications: Credentials, by scheme and result: ``"accepted"``,
        ``"rejected"``, ``"uncheckable"``, or ``"incomplete"`` for a step of a login.
        The scheme is ``"none"`` for credentials that no scheme takes, and for none.
    :ivar received: Bytes of Fragments that passed all checks.
    :ivar published: Bytes of published files.
    :ivar discarded: Bytes that were discarded with their sessions.
    :ivar served: Bytes of files and replies that were handed to clients.
    :ivar created: Sessions that were created.
    :ivar ended: Sessions that have ended, by outcome, see the audit trail, and reason.
    :ivar acks: From the last byte of a Fragment until it is settled.
    :ivar closes: Close-Sessions that succeeded.
    :ivar notifications: Questions to the server application, by result.
    :ivar asking: Questions to the server application, with or without success.
    :ivar errors: Failures of the store, by what it failed to do.
    :ivar cleanups: Rounds of the clean-up, by result.
    :ivar cleaning: Rounds of the clean-up.
    """

    wall: Callable[[], float] = time.time
    packets: Counter[tuple[str, int]] = field(factory=Counter, init=False)
    refusals: Counter[str] = field(factory=Counter, init=False)
    refused: Refusals = field(factory=Refusals, init=False)
    downloads: Counter[tuple[str, int]] = field(factory=Counter, init=False)
    authentications: Counter[tuple[str, str]] = field(factory=Counter, init=False)
    received: int = field(default=0, init=False)
    published: int = field(default=0, init=False)
    discarded: int = field(default=0, init=False)
    served: int = field(default=0, init=False)
    created: int = field(default=0, init=False)
    ended: Counter[tuple[str, str]] = field(factory=Counter, init=False)
    acks: Histogram = field(factory=Histogram, init=False)
    closes: Histogram = field(factory=Histogram, init=False)
    notifications: Counter[str] = field(factory=Counter, init=False)
    asking: Histogram = field(factory=Histogram, init=False)
    errors: Counter[str] = field(factory=Counter, init=False)
    cleanups: Counter[str] = field(factory=Counter, init=False)
    cleaning: Histogram = field(factory=Histogram, init=False)
