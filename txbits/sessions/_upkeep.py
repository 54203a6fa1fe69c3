"""
Time-outs and clean-up: at the start, and at an interval.

There is no timer for each session. A session that is asked for after its time is
treated as expired then and there; those that nobody asks for are found here, in the
store, along with what a process that was killed left behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence, Set
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from txbits._deferreds import Shared, deferred
from txbits.errors import BackendError, NoSuchSession, ServerStopping
from txbits.interfaces import IPaged, SessionSummary
from txbits.sessions.naming import session_name

if TYPE_CHECKING:
    from txbits.sessions.manager import SessionManager

_log = Logger()

T = TypeVar("T")

#: For how many seconds a count of sessions holds that other processes make, too; and
#: for how many times those that the listing took.
_COUNT_HOLDS = 60.0
_LISTING_SHARE = 20.0

#: For how many times that for users who are far from the limit.
_FAR_HOLDS = 10.0

#: Seconds that sessions are looked at, and released, before the reactor gets a turn.
_LONGEST_TURN = 0.02


#: When reading a page takes less than so many seconds, no rest is taken after it; and
#: none is longer than that many.
_SHORT = 0.005
_LONGEST_REST = 0.1

#: So many sessions of a listing are looked at before the reactor gets a turn.
_MANY = 1000


@define(eq=False)
class _Asking:
    """
    A store is being looked through.

    :ivar work: What ends that when it is cancelled.
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
    What there is in a store.

    :ivar listed: All sessions.
    :ivar owned: Those of each owner, where other processes make sessions, too.
    :ivar over: Those that are to be released.
    """

    listed: set[UUID] = field(factory=set)
    owned: dict[str, set[UUID]] = field(factory=dict)
    over: list[UUID] = field(factory=list)


@define(eq=False)
class Upkeep:
    """
    The clean-up of one manager's sessions.

    :param manager: Whose.
    :param clock: Runs it.
    """

    _manager: SessionManager
    _clock: IReactorTime
    _loop: LoopingCall | None = field(default=None, init=False)
    _running: bool = field(default=False, init=False)
    _pausing: set[Deferred[None]] = field(factory=set, init=False)
    has_counted: bool = field(default=False, init=False)
    counted_at: float = field(default=float("-inf"), init=False)
    holds: float = field(default=_COUNT_HOLDS, init=False)
    _asking: set[_Asking] = field(factory=set, init=False)
    _counting: Shared[_Listing] = field(factory=Shared, init=False)
    _for_count: list[Deferred[None]] = field(factory=list, init=False)
    _for_end: list[Deferred[None]] = field(factory=list, init=False)

    def start(self, interval: float) -> None:
        """
        Begin with a first round.

        :param interval: Seconds from the beginning of one round to the next.
        """
        self._loop = LoopingCall(self._clean_up)
        self._loop.clock = self._clock
        self._loop.start(interval, now=True)

    def change(self, interval: float) -> None:
        """
        Go on at another interval, which begins now.

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
        for asking in list(self._asking):
            asking.give_up()
        if self._running:
            over: Deferred[None] = Deferred()
            self._for_end.append(over)
            await over

    async def _asked(self, asking: _Asking, work: Deferred[T]) -> T:
        """
        Wait for the store to be looked through.

        A store that other processes use, too, may be far away, and take minutes to say
        that it does not answer; and one that may be large takes long. Nobody waits for
        that who wants to stop.

        :raises ServerStopping: If it was given up.
        """
        if not (self._manager.is_shared or IPaged.providedBy(self._manager.backend)):
            return await work
        asking.work = work
        self._asking.add(asking)
        try:
            return await work
        except CancelledError as error:
            raise ServerStopping("the server is stopping", 0) from error
        finally:
            self._asking.discard(asking)

    async def look_at_all(
        self, look: Callable[[Sequence[SessionSummary]], Awaitable[None]]
    ) -> None:
        """
        Look at all sessions of the store, as many at a time as it has them listed.

        :param look: Called with one page after the other.
        :raises ServerStopping: If it was given up.
        """
        backend, asking = self._manager.backend, _Asking()
        if not IPaged.providedBy(backend):
            await look(await self._asked(asking, backend.sessions()))
            return

        began = self._clock.seconds()

        @deferred
        async def page_came(page: Sequence[SessionSummary]) -> None:
            nonlocal began
            took = self._clock.seconds() - began
            asking.is_looking = True
            try:
                await look(page)
                if self.has_counted and took > _SHORT:
                    # Nobody waits for this: uploads have half of the time, at least.
                    await self._pause(min(took, _LONGEST_REST))
            finally:
                asking.is_looking = False
            self._manager.require_running()
            began = self._clock.seconds()

        await self._asked(asking, IPaged(backend).list_in_pages(page_came))

    async def when_counted(self) -> None:
        """Wait until the sessions that the store held at the start are counted."""
        if self._running and not self.has_counted:
            counted: Deferred[None] = Deferred()
            self._for_count.append(counted)
            await counted

    @deferred
    async def _clean_up(self) -> None:
        manager = self._manager
        self._running = True
        try:
            listing = await self._list()
            self._counted()
            turn_ends = self._clock.seconds() + _LONGEST_TURN
            for session_id in listing.over:
                await manager.expire(session_id)
                if self._clock.seconds() > turn_ends:
                    await self._pause()
                    turn_ends = self._clock.seconds() + _LONGEST_TURN
            if not manager.is_shared:
                await self._reconcile(listing.listed)
            await self._asked(
                _Asking(), manager.backend.clean_up(manager.ages.closed_before())
            )
        except ServerStopping:
            _log.info("clean-up ended: the server is stopping")
        except Exception:  # noqa: BLE001 - whatever it was, the next round comes
            _log.failure("clean-up failed; it is tried again at the next interval")
        finally:
            self._running = False
            _fire(self._for_count)
            _fire(self._for_end)

    def _is_over(self, summary: SessionSummary) -> bool:
        """Whether a session is to be released, as it is listed."""
        manager = self._manager
        if manager.is_disabled:
            return True
        # One that stays until Close-Session, or until its time is out.
        rules = manager.rules_of(summary.session_id)
        stands = summary.published and rules.publishes_at_once
        return (summary.releasing and not stands) or manager.is_listed_as_old(summary)

    async def _reconcile(self, listed: Set[UUID]) -> None:
        """
        Forget sessions that are not in the store any more: somebody has removed them.

        :param listed: Those that the store has listed lately.
        """
        manager = self._manager
        for known in [manager.active(), *manager.quota.owned()]:
            if len(known) > _MANY:
                await self._pause()
            for session_id in known - listed:
                await self._forget_if_lost(session_id)

    async def _forget_if_lost(self, session_id: UUID) -> None:
        manager = self._manager
        if manager.is_busy_with(session_id):
            return
        try:
            await manager.backend.find(session_id)
        except NoSuchSession:
            _log.warn(
                "session {session} is gone from the storage",
                session=session_name(session_id),
            )
            manager.forget_lost(session_id)
        except BackendError:
            return  # the backend has logged it; the rest is still to be done

    async def _pause(self, seconds: float = 0) -> None:
        """
        Give the reactor a turn.

        :param seconds: For how long, at least.
        :raises ServerStopping: If there is to be no other round.
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

    def is_count_old(self, owned: int, limit: int) -> bool:
        """
        Tell whether a user's sessions are to be counted anew before the next is made.

        A count is a listing of all that there is, closes included, so it is not asked
        for often for who has hardly begun to use the limit up.

        :param owned: How many there are, as far as is known.
        """
        if owned >= limit:
            return True
        age = self._clock.seconds() - self.counted_at
        return age > self.holds * (1.0 if 2 * owned >= limit else _FAR_HOLDS)

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

    @deferred
    async def count_anew(self) -> None:
        """
        Count the sessions that other processes have made, or ended, lately.

        It takes a listing of them all, which everyone who asks meanwhile shares.
        """
        await self._list()

    async def _list(self) -> _Listing:
        return await self._counting.run(self._list_and_recount)

    async def _list_and_recount(self) -> _Listing:
        quota, is_shared = self._manager.quota, self._manager.is_shared
        counted_at = self._clock.seconds()
        listing = _Listing()
        if is_shared:
            quota.begin_recount()
        try:
            await self.look_at_all(lambda page: self._look(page, listing))
        except BaseException:
            quota.give_up_recount()
            raise
        if is_shared:
            quota.recount(listing.owned)
            self.counted_at = counted_at
            took = self._clock.seconds() - counted_at
            self.holds = max(_COUNT_HOLDS, _LISTING_SHARE * took)
        return listing

    async def _look(self, page: Sequence[SessionSummary], listing: _Listing) -> None:
        """Count the sessions on a page, and note those that are to be released."""
        quota, is_shared = self._manager.quota, self._manager.is_shared
        for number, summary in enumerate(page, 1):
            session_id, owner = summary.session_id, summary.owner
            listing.listed.add(session_id)
            if is_shared and owner is not None:
                listing.owned.setdefault(owner, set()).add(session_id)
            elif not self.has_counted:
                quota.inventory(session_id, owner)
            if self._is_over(summary):
                listing.over.append(session_id)
            if not number % _MANY:
                await self._pause()

    def _counted(self) -> None:
        if not self.has_counted:
            self.has_counted = True
            self._manager.quota.counted()
            _fire(self._for_count)


def _fire(waiting: list[Deferred[None]]) -> None:
    ready = waiting.copy()
    waiting.clear()
    for one in ready:
        one.callback(None)
