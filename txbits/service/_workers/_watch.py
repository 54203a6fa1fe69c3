"""
Asks the workers, every few seconds, how they are doing and what they have counted, and
kills those that no longer answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from attrs import define, field
from twisted.internet.defer import CancelledError, TimeoutError
from twisted.internet.error import ConnectionLost
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txbits._deferreds import Shared, deferred, settled
from txbits.service._channel import PeerFailed
from txbits.service._whole import NO_ANSWER, NOT_RUNNING, name_of
from txbits.service._workers._member import Member

if TYPE_CHECKING:
    from txbits.admin.merging import Totals
    from txbits.admin.metrics import Snapshot

_log = Logger()

#: Seconds from one question to the next. What a worker has counted since the last one
#: is lost when it is killed.
INTERVAL = 5.0

#: Seconds that a worker may take to answer.
PATIENCE = 5.0

#: After how many intervals in a row without an answer a worker is killed. They are
#: counted, and not seconds: the machine may have been asleep.
MOST_SILENT = 12


@define(eq=False)
class Watch:
    """
    Watches the workers.

    :param reactor: The reactor.
    :param count: How many workers there are to be.
    :param members: Returns the latest process of each, by number.
    :param has_metrics: Whether somebody may want to read the metrics.
    :param changed: Called when the reports of the workers have changed.
    """

    _reactor: Any
    _count: int
    _members: Callable[[], Mapping[int, Member]]
    _has_metrics: bool
    _changed: Callable[[], object]
    _totals: Totals | None = field(default=None, init=False)
    _asking: dict[Member, Shared[None]] = field(factory=dict, init=False)
    _silent: set[Member] = field(factory=set, init=False)
    _unanswered: dict[Member, int] = field(factory=dict, init=False)
    _told: dict[int, list[str]] = field(factory=dict, init=False)
    _loop: LoopingCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._loop = LoopingCall(self._look)
        self._loop.clock = self._reactor
        if self._has_metrics:
            # Not always: a service without admin-listen does not need its library.
            from txbits.admin.merging import Totals

            self._totals = Totals()

    def start(self) -> None:
        """Begin to ask."""
        self._loop.start(INTERVAL, now=False).addErrback(_broken)

    def stop(self) -> None:
        """Ask no more."""
        if self._loop.running:
            self._loop.stop()

    @property
    def is_well(self) -> bool:
        """Whether all workers run, and have answered at the last interval."""
        running = self._running
        return (
            self._loop.running
            and len(running) == self._count
            and not any(self._unanswered.get(one) for one in running)
        )

    @property
    def _running(self) -> list[Member]:
        return [one for one in self._members().values() if one.is_running]

    def _look(self) -> None:
        """
        Ask all that run, and kill those that have not answered for long.

        They keep clients waiting that others could serve, and everything that needs the
        answers of all workers, such as a reload.
        """
        for member in self._running:
            asking = self._asking.get(member)
            is_late = asking is not None and asking.is_running
            count = self._unanswered.get(member, 0) + 1 if is_late else 0
            self._unanswered[member] = count
            if count >= MOST_SILENT:
                _log.error(
                    "worker {worker}, pid {pid}, has not answered for {seconds:.0f} s, "
                    "killing it; stored data is safe",
                    worker=member.number,
                    pid=member.pid,
                    seconds=MOST_SILENT * INTERVAL,
                )
                member.kill()
        self.ask().addErrback(_broken)

    @deferred
    async def ask(self) -> None:
        """
        Ask all that run.

        :returns: A Deferred that fires with ``None`` when all have answered, or have
            not in time.
        """
        for outcome in await settled([self._ask(one) for one in self._running]):
            if isinstance(outcome, Failure):
                _log.failure("cannot ask a worker: {log_failure}", outcome)
        # One that was silent may have answered since the last time.
        if (now := self._obstacles()) != self._told:
            self._told = now
            self._changed()

    @deferred
    async def metrics(self) -> Snapshot:
        """
        Ask all for their metrics.

        :returns: A Deferred that fires with those of the whole service. If a worker
            does not answer in time, its last ones are used.
        """
        await self.ask()
        assert self._totals is not None  # noqa: S101 - only those who have it ask
        return self._totals.snapshot(self.states())

    def ended(self, member: Member) -> None:
        """The process of a worker has ended."""
        self._asking.pop(member, None)
        self._silent.discard(member)
        self._unanswered.pop(member, None)
        if self._totals is not None:
            self._totals.ended(member.number)

    def states(self) -> dict[str, int]:
        """How many workers are in which state, for the metrics."""
        found = dict.fromkeys(("running", "silent", "starting", "ended"), 0)
        members = self._members()
        for number in range(self._count):
            found[self._state(members.get(number))] += 1
        return found

    def _state(self, member: Member | None) -> str:
        if member is None or not member.is_there:
            return "ended"
        if not member.is_running:
            return "starting"
        return "silent" if member in self._silent else "running"

    @deferred
    async def _ask(self, member: Member) -> None:
        """Ask one, unless it still has to answer the last time; but not for long."""
        asking = self._asking.setdefault(member, Shared())
        answer = asking.run(lambda: self._note(member))
        try:
            await answer.addTimeout(PATIENCE, self._reactor)
        except (TimeoutError, PeerFailed):
            self._silent.add(member)
        except (ConnectionLost, CancelledError):
            # It has ended, or is about to.
            return

    async def _note(self, member: Member) -> None:
        """Wait for the answers of one, however long it takes, and note them."""
        member.report = await member.ask("report")
        if self._totals is not None:
            snapshot = await member.ask("metrics")
            if self._members().get(member.number) is member and member.is_there:
                self._totals.note(member.number, snapshot)
        self._silent.discard(member)

    def _obstacles(self) -> dict[int, list[str]]:
        """Why workers would refuse uploads, as far as that is known."""
        return {
            number: [f" {NO_ANSWER}"]
            if member in self._silent
            else [f": {line}" for line in member.report.get("obstacles", ())]
            for number, member in self._members().items()
            if member.is_running
        }

    def obstacles(self, number: int) -> list[str]:
        """
        Return why workers would refuse uploads, except for one worker.

        :param number: The number of that worker, which knows its own reasons.
        """
        found = self._obstacles()
        return [
            f"{name_of(other)} {NOT_RUNNING}"
            for other in range(self._count)
            if other not in found
        ] + [
            f"{name_of(other)}{line}"
            for other, lines in found.items()
            if other != number
            for line in lines
        ]


def _broken(failure: Failure) -> None:
    _log.failure("cannot watch the workers: {log_failure}", failure)
