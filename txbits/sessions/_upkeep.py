"""
Time-outs and clean-up: at the start, and at an interval.

There is no timer for each session. A session that is asked for after its time is
treated as expired then and there; those that nobody asks for are found here, in the
store, along with what a process that was killed left behind.
"""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from txbits._deferreds import deferred
from txbits.errors import BackendError, NoSuchSession, ServerStopping
from txbits.interfaces import SessionSummary
from txbits.sessions._release import Shared
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
    _pausing: Deferred[None] | None = field(default=None, init=False)
    has_counted: bool = field(default=False, init=False)
    counted_at: float = field(default=float("-inf"), init=False)
    holds: float = field(default=_COUNT_HOLDS, init=False)
    _asking: set[Deferred[Any]] = field(factory=set, init=False)
    _counting: Shared[Sequence[SessionSummary]] = field(factory=Shared, init=False)
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
        if self._pausing is not None:
            self._pausing.cancel()
        for asking in list(self._asking):
            asking.cancel()
        if self._running:
            over: Deferred[None] = Deferred()
            self._for_end.append(over)
            await over

    async def _asked(self, asking: Deferred[T]) -> T:
        """
        Wait for the store to be looked through.

        A store that other processes use, too, may be far away, and take minutes to say
        that it does not answer. Nobody waits for that who wants to stop.

        :raises ServerStopping: If it was given up.
        """
        if not self._manager.is_shared:
            return await asking
        self._asking.add(asking)
        try:
            return await asking
        except CancelledError as error:
            raise ServerStopping("the server is stopping", 0) from error
        finally:
            self._asking.discard(asking)

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
            summaries = await self._list()
            self._count(summaries)
            turn_ends = self._clock.seconds() + _LONGEST_TURN
            for summary in summaries:
                rules = manager.rules_of(summary.session_id)
                # One that stays until Close-Session, or until its time is out.
                stands = summary.published and rules.publishes_at_once
                if (
                    (summary.releasing and not stands)
                    or manager.is_disabled
                    or manager.is_listed_as_old(summary)
                ):
                    await manager.expire(summary.session_id)
                if self._clock.seconds() > turn_ends:
                    await self._pause()
                    turn_ends = self._clock.seconds() + _LONGEST_TURN
            if not manager.is_shared:
                await self._reconcile({one.session_id for one in summaries})
            await self._asked(manager.backend.clean_up(manager.ages.closed_before()))
        except ServerStopping:
            _log.info("clean-up ended: the server is stopping")
        except Exception:  # noqa: BLE001 - whatever it was, the next round comes
            _log.failure("clean-up failed; it is tried again at the next interval")
        finally:
            self._running = False
            _fire(self._for_count)
            _fire(self._for_end)

    async def _reconcile(self, listed: Set[UUID]) -> None:
        """
        Forget sessions that are not in the store any more: somebody has removed them.

        :param listed: Those that the store has listed lately.
        """
        manager = self._manager
        known = manager.active() | manager.quota.owned().keys()
        for session_id in known - listed:
            if manager.is_busy_with(session_id):
                continue
            try:
                await manager.backend.find(session_id)
            except NoSuchSession:
                _log.warn(
                    "session {session} is gone from the storage",
                    session=session_name(session_id),
                )
                manager.forget_lost(session_id)
            except BackendError:
                continue  # the backend has logged it; the rest is still to be done

    async def _pause(self) -> None:
        """
        Give the reactor a turn.

        :raises ServerStopping: If there is to be no other round.
        """
        if self._loop is not None:
            self._pausing = deferLater(self._clock, 0)
            try:
                await self._pausing
            except CancelledError:
                _log.debug("a clean-up is cut short")
            finally:
                self._pausing = None
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

    async def sessions(self) -> Sequence[SessionSummary]:
        """
        List the sessions as they are now.

        :raises ServerStopping: If it was given up.
        """
        return await self._asked(self._manager.backend.sessions())

    @deferred
    async def count_anew(self) -> None:
        """
        Count the sessions that other processes have made, or ended, lately.

        It takes a listing of them all, which everyone who asks meanwhile shares.
        """
        await self._list()

    async def _list(self) -> Sequence[SessionSummary]:
        return await self._counting.run(self._list_and_recount)

    async def _list_and_recount(self) -> Sequence[SessionSummary]:
        manager = self._manager
        before = manager.quota.owned()
        counted_at = self._clock.seconds()
        summaries = await self.sessions()
        if manager.is_shared:
            listed = {
                one.session_id: one.owner for one in summaries if one.owner is not None
            }
            manager.quota.recount(before, listed)
            self.counted_at = counted_at
            took = self._clock.seconds() - counted_at
            self.holds = max(_COUNT_HOLDS, _LISTING_SHARE * took)
        return summaries

    def _count(self, summaries: Sequence[SessionSummary]) -> None:
        if not self.has_counted:
            for summary in summaries:
                self._manager.quota.inventory(summary.session_id, summary.owner)
            self.has_counted = True
            self._manager.quota.counted()
            _fire(self._for_count)


def _fire(waiting: list[Deferred[None]]) -> None:
    ready = waiting.copy()
    waiting.clear()
    for one in ready:
        one.callback(None)
