"""
Time-outs and clean-up: at the start, and at an interval.

There is no timer for each session. A packet that names a session after its time finds
it expired; the clean-up finds the others, by listing the store, along with what a
process that was killed left behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Set
from typing import Any, TypeVar
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from txbits._deferreds import Shared, Waiters, deferred
from txbits.errors import BackendError, NoSuchSession, ServerStopping
from txbits.interfaces import IPaged, SessionSummary
from txbits.sessions._active import ActiveSessions
from txbits.sessions._endings import expire
from txbits.sessions._session import Caller
from txbits.sessions.settings import Settings

_log = Logger()

T = TypeVar("T")

#: Where other processes make sessions, too, a count of them is valid for so many
#: seconds, or for so many times the duration of the listing, whichever is longer.
_COUNT_HOLDS = 60.0
_LISTING_SHARE = 20.0

#: For users who are far from the limit, it is valid so many times longer.
_FAR_HOLDS = 10.0

#: When a worker has counted what it found at its start, others may take so many
#: seconds more. Whether they have is asked after so many.
_OTHERS_TAKE = 10.0
_ASKING = 0.05

#: Seconds that sessions are looked at, and released, before the reactor gets a turn.
_LONGEST_TURN = 0.02


#: When reading a page takes less than so many seconds, no rest is taken after it; and
#: none is longer than that many.
_SHORT = 0.005
_LONGEST_REST = 0.1

#: So many sessions of a listing are looked at before the reactor gets a turn.
_MANY = 1000


@define(eq=False)
class _Scan:
    """
    A look through the store that is under way.

    :ivar work: Cancelling it ends the scan.
    :ivar is_looking: Whether a page of it is being looked at: that ends by itself.
    """

    work: Deferred[Any] | None = None
    is_looking: bool = False

    def give_up(self) -> None:
        """End it."""
        if self.work is not None and not self.is_looking:
            self.work.cancel()


@define(eq=False)
class _Listing:
    """
    What a look through the store has found.

    :ivar listed: All sessions.
    :ivar staged: The owner and the size of each session, where other processes make
        some, too.
    :ivar over: The sessions that are to be released.
    :ivar oldest: Of the others, the one with the oldest progress, and the time of that,
        in seconds since the epoch.
    """

    listed: set[UUID] = field(factory=set)
    staged: dict[UUID, tuple[str | None, int]] = field(factory=dict)
    over: list[UUID] = field(factory=list)
    oldest: tuple[UUID, float] | None = None


@define(eq=False)
class Upkeep:
    """The clean-up of one manager's sessions."""

    _active: ActiveSessions
    _loop: LoopingCall | None = field(default=None, init=False)
    _round: Shared[None] = field(factory=Shared, init=False)
    _pausing: set[Deferred[None]] = field(factory=set, init=False)
    counted_at: float = field(default=float("-inf"), init=False)
    holds: float = field(default=_COUNT_HOLDS, init=False)
    _scans: set[_Scan] = field(factory=set, init=False)
    _counting: Shared[_Listing] = field(factory=Shared, init=False)
    _for_count: Waiters[None] = field(factory=Waiters, init=False)
    _may_count: bool = field(default=False, init=False)
    _waits_until: float = field(default=float("inf"), init=False)

    @property
    def _clock(self) -> IReactorTime:
        return self._active.clock

    def start(self, interval: float) -> None:
        """
        Begin with a first round.

        :param interval: Seconds from the beginning of one round to the next.
        """
        self._loop = LoopingCall(self.clean_up)
        self._loop.clock = self._clock
        self._loop.start(interval, now=True)

    def change(self, interval: float) -> None:
        """
        Change the interval. A new one begins now.

        :param interval: As at the start.
        """
        if self._loop is not None:
            self._loop.interval = interval
            self._loop.reset()

    @deferred
    async def stop(self) -> None:
        """
        Begin no further round.

        :returns: A Deferred that fires with ``None`` when the present one is over.
        """
        if self._loop is not None:
            self._loop.stop()
            self._loop = None
        for pausing in list(self._pausing):
            pausing.cancel()
        for scan in list(self._scans):
            scan.give_up()
        await self._round.over()

    async def listed(self, work: Deferred[T]) -> T:
        """
        Wait for a part of a list of the store.

        :raises ServerStopping: If it was given up.
        """
        return await self._scanned(_Scan(), work)

    async def _scanned(self, scan: _Scan, work: Deferred[T]) -> T:
        """
        Wait for a look through the store.

        A shared store may be far away, and take minutes to say that it does not answer;
        a large one takes long to list. A stop does not wait for that.

        :raises ServerStopping: If it was given up.
        """
        active = self._active
        if not (active.is_shared or IPaged.providedBy(active.backend)):
            return await work
        scan.work = work
        self._scans.add(scan)
        try:
            return await work
        except CancelledError as error:
            raise ServerStopping("the server is stopping", 0) from error
        finally:
            self._scans.discard(scan)

    async def look_at_all(
        self, look: Callable[[Sequence[SessionSummary]], Awaitable[None]]
    ) -> None:
        """
        Look at all sessions of the store, a page at a time.

        :param look: Called with one page after the other.
        :raises ServerStopping: If it was given up.
        """
        backend, scan = self._active.backend, _Scan()
        if not IPaged.providedBy(backend):
            await look(await self._scanned(scan, backend.sessions()))
            return

        began = self._clock.seconds()

        @deferred
        async def page_came(page: Sequence[SessionSummary]) -> None:
            nonlocal began
            took = self._clock.seconds() - began
            scan.is_looking = True
            try:
                await look(page)
                if self._active.quota.has_counted and took > _SHORT:
                    # Nobody waits for this: uploads get at least half of the time.
                    await self._pause(min(took, _LONGEST_REST))
            finally:
                scan.is_looking = False
            self._active.require_running()
            began = self._clock.seconds()

        await self._scanned(scan, IPaged(backend).list_in_pages(page_came))

    async def counted_for(self, caller: Caller, settings: Settings) -> None:
        """Bring the count of sessions up to date, before a caller makes one."""
        quota = self._active.quota
        if (
            not (quota.has_counted and quota.have_others_counted)
            and (caller.user is not None or settings.has_quota)
            and settings.has_limits
        ):
            # Sessions from before a restart count as well. That those of anonymous
            # clients do is not worth waiting for: their addresses are unknown.
            if not quota.has_counted and self._may_count:
                await self._for_count.wait()
            await self._others_have_counted()
        if self._active.is_shared and self._is_count_old(caller, settings):
            # Sessions that other processes have made, or ended, lately.
            await self.count_anew()

    async def _others_have_counted(self) -> None:
        """Wait for other workers as well, but not forever."""
        quota = self._active.quota
        while (
            not quota.have_others_counted
            and self._loop is not None
            and self._clock.seconds() < self._waits_until
        ):
            await self._pause(_ASKING)

    def _is_count_old(self, caller: Caller, settings: Settings) -> bool:
        """
        Tell whether to count the sessions again before the next is made.

        That lists the whole store, closes included, so it is rare far from the limits,
        and for anonymous clients, whose sessions on other nodes are not known anyway.
        """
        fill = self._active.quota.fill(caller, settings)
        age = min(self._clock.seconds() - self.counted_at, self._active.quota.age)
        if fill >= 1:
            return caller.user is not None or age > self.holds
        if fill >= 0.5:
            return age > self.holds
        return fill > 0 and caller.user is not None and age > self.holds * _FAR_HOLDS

    @deferred
    async def tell_sizes(self) -> None:
        """
        Let other workers count what was counted here only, since bytes were not limited
        until now.

        :returns: A Deferred that fires with ``None`` when they know.
        """
        try:
            for _ in self._active.quota.tell_sizes():
                await self._pause()
        except ServerStopping:
            # Whoever has these sessions next finds them in the store.
            return

    @property
    def is_running(self) -> bool:
        """Whether a round is under way."""
        return self._round.is_running

    def clean_up(self) -> Deferred[None]:
        """Run a round, or wait for the end of the present one."""
        return self._round.run(self._clean_up)

    async def _clean_up(self) -> None:
        active, counts = self._active, self._active.counts
        self._may_count = True
        began, result = self._clock.seconds(), "failed"
        try:
            listing = await self.count_anew()
            await self._counted()
            turn_ends = self._clock.seconds() + _LONGEST_TURN
            are_released = True
            for session_id in listing.over:
                are_released &= await expire(active, session_id)
                if self._clock.seconds() > turn_ends:
                    await self._pause()
                    turn_ends = self._clock.seconds() + _LONGEST_TURN
            if are_released:
                active.succeeded("release")
            is_certain = active.is_shared or await self._reconcile(listing.listed)
            before = active.ages.closed_before()
            await self._scanned(_Scan(), active.backend.clean_up(before))
        except ServerStopping:
            result = "interrupted"
            _log.info("clean-up ended: the server is stopping")
        except BackendError as error:
            active.failed("clean up", error)
        except Exception:  # noqa: BLE001 - the next round comes in any case
            _log.failure("clean-up failed; it is tried again at the next interval")
        else:
            if is_certain:
                result = "succeeded"
                active.succeeded("clean up")
        finally:
            counts.cleanups[result] += 1
            counts.cleaning.observe(self._clock.seconds() - began)
            # First: those who are told may begin another session at once.
            self._may_count = False
            self._note_counted()
            self._for_count.fire(None)

    async def _reconcile(self, listed: Set[UUID]) -> bool:
        """
        Forget sessions that somebody has removed from the store.

        :param listed: The sessions that are in the store.
        :returns: Whether the store told of all of them whether they are there.
        """
        active, is_certain = self._active, True
        for known in (set(active.table), active.quota.known()):
            if len(known) > _MANY:
                await self._pause()
            for session_id in known - listed:
                is_certain &= await self._forget_if_lost(session_id)
        return is_certain

    async def _forget_if_lost(self, session_id: UUID) -> bool:
        active = self._active
        if active.is_busy_with(session_id):
            return True
        try:
            await active.backend.find(session_id)
        except NoSuchSession:
            if active.is_busy_with(session_id) or not active.knows(session_id):
                # It has ended since it was listed, as a session does.
                return True
            _log.warn(
                "session {session} was removed from the storage of {directory}",
                session=active.named(session_id),
                directory=active.name or "/",
            )
            active.forget_lost(session_id)
        except BackendError as error:
            active.failed("clean up", error)
            return False
        return True

    async def _pause(self, seconds: float = 0) -> None:
        """
        Give the reactor a turn.

        :param seconds: For how long, at least.
        :raises ServerStopping: If the server is stopping.
        """
        if self._loop is not None:
            pausing: Deferred[None] = deferLater(self._clock, seconds)
            self._pausing.add(pausing)
            try:
                await pausing
            except CancelledError:
                _log.debug("a clean-up is cut short")
            finally:
                self._pausing.discard(pausing)
        if self._loop is None:
            raise ServerStopping("the server is stopping", 0)

    async def session_ids(self) -> set[UUID]:
        """
        List the sessions as they are now.

        :raises ServerStopping: If it was given up.
        """
        found: set[UUID] = set()

        async def look(page: Sequence[SessionSummary]) -> None:
            found.update(one.session_id for one in page)

        await self.look_at_all(look)
        return found

    def count_anew(self) -> Deferred[_Listing]:
        """List the store, and count its sessions. Callers at the same time share it."""
        return self._counting.run(self._list_and_recount)

    async def _list_and_recount(self) -> _Listing:
        quota, is_shared = self._active.quota, self._active.is_shared
        counted_at = self._clock.seconds()
        listing = _Listing()
        if is_shared:
            quota.begin_recount()
        try:
            await self.look_at_all(lambda page: self._look(page, listing))
        except BaseException:
            quota.give_up_recount()
            raise
        self._active.oldest_listed = None
        if listing.oldest is not None:
            session_id, progressed = listing.oldest
            progressed = self._active.ages.steadily(progressed)
            self._active.oldest_listed = session_id, progressed
        if is_shared:
            quota.recount(listing.staged)
            for _ in quota.drop_others(listing.listed):
                await self._pause()
            self.counted_at = counted_at
            took = self._clock.seconds() - counted_at
            quota.note_recount(took)
            self.holds = max(_COUNT_HOLDS, _LISTING_SHARE * took)
        return listing

    async def _look(self, page: Sequence[SessionSummary], listing: _Listing) -> None:
        """Count the sessions on a page, and note those that are to be released."""
        active, quota = self._active, self._active.quota
        for number, summary in enumerate(page, 1):
            session_id = summary.session_id
            listing.listed.add(session_id)
            if active.is_shared:
                listing.staged[session_id] = summary.owner, summary.size
                quota.listed(summary)
            elif not quota.has_counted:
                quota.inventory(summary)
            if active.is_listed_as_over(summary):
                listing.over.append(session_id)
            elif listing.oldest is None or summary.last_progress < listing.oldest[1]:
                listing.oldest = session_id, summary.last_progress
            if not number % _MANY:
                await self._pause()

    async def _counted(self) -> None:
        quota = self._active.quota
        if not quota.has_counted:
            quota.counted()
            self._note_counted()
            self._for_count.fire(None)
            if not self._active.is_shared:
                for _ in quota.drop_others():
                    await self._pause()

    def _note_counted(self) -> None:
        """Other workers need not wait for this one, which does for them a while."""
        self._active.quota.note_counted()
        if self._waits_until == float("inf"):
            self._waits_until = self._clock.seconds() + _OTHERS_TAKE
