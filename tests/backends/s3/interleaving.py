"""
Several nodes and their clients, with every request to the store in the order that a
seed says.

Each request waits at the line of the calls until the :class:`Schedule` lets it go, one
at a time, and its answer waits there again. So a request may be delayed for as long as
it takes others to do whatever they want, and a run can be had again: the seed chooses
which of those that wait is next, what the clients send, to which node, when they lose
patience, and when a node is killed. What is late is let go in the end.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any
from uuid import UUID

from attrs import define, field, frozen
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from tests.backends.s3.support import MIB, Killed, MortalClient
from txbits._deferreds import begun
from txbits.errors import BackendError, BodyIncomplete, NoSuchSession, OutOfStep
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller, IRequestBody, SessionManager, Settings

CALLER = Caller(None, "192.0.2.1")

#: How many requests a session may take before it is taken for stuck.
_MOST_STEPS = 3000


class ScheduledClient(MortalClient):
    """
    Asks S3 when it is told to.

    :ivar schedule: Who tells; ``None`` while nobody does.
    """

    schedule: Schedule | None = None

    async def ask(self, request):
        schedule = self.schedule
        if schedule is None:
            return await super().ask(request)
        await schedule.turn(self, f"asks {request.operation}")
        schedule.is_busy = True
        try:
            answer = await super().ask(request)
        finally:
            schedule.is_busy = False
            schedule.notice()
        await schedule.turn(self, f"hears of {request.operation}")
        return answer


@frozen(eq=False)
class _Waiting:
    """A request that waits, or its answer, and how many steps it takes at least."""

    client: ScheduledClient
    what: str
    not_before: int
    turn: Deferred[None] = field(factory=Deferred)


@define(eq=False)
class Schedule:
    """
    Who is next.

    :ivar story: What happened, for whoever reads a failure.
    :ivar is_busy: Whether the store is being asked.
    """

    chance: Random
    is_busy: bool = field(default=False, init=False)
    story: list[str] = field(factory=list, init=False)
    _waiting: list[_Waiting] = field(factory=list, init=False)
    _steps: int = field(default=0, init=False)
    _changed: Deferred[None] | None = field(default=None, init=False)

    def turn(self, client: ScheduledClient, what: str) -> Deferred[None]:
        """Wait for one's turn."""
        # Some are late.
        pause = self.chance.randrange(150) if self.chance.random() < 0.15 else 0
        one = _Waiting(client, what, self._steps + pause)
        self._waiting.append(one)
        self.notice()
        return one.turn

    def notice(self) -> None:
        """Something has happened: whoever waits for that may look again."""
        changed, self._changed = self._changed, None
        if changed is not None:
            changed.callback(None)

    def kill(self, client: ScheduledClient) -> None:
        """A node dies, and asks for nothing any more."""
        client.die()
        dead = [one for one in self._waiting if one.client is client]
        self._waiting = [one for one in self._waiting if one.client is not client]
        for one in dead:
            one.turn.errback(Killed())

    async def step(self) -> None:
        """Let somebody go on, or wait until something has happened."""
        if not self._waiting:
            self._changed = Deferred()
            await self._changed
            return
        self._steps += 1
        ready = [one for one in self._waiting if one.not_before <= self._steps]
        one = self.chance.choice(ready or self._waiting)
        self._waiting.remove(one)
        self.story.append(f"    {one.client.name} {one.what}")
        one.turn.callback(None)
        while self.is_busy:
            self._changed = Deferred()
            await self._changed
        await _a_turn_of_the_reactor()

    async def end(self, ending: Deferred[Any]) -> None:
        """Let everybody go on until something has come to its end."""
        ending.addBoth(self._ended)
        while not ending.called:
            await self.step()
        await ending

    def _ended(self, outcome: Any) -> Any:
        self.notice()
        return outcome


def _a_turn_of_the_reactor() -> Deferred[None]:
    pause: Deferred[None] = Deferred()
    reactor.callLater(0, pause.callback, None)  # type: ignore[attr-defined]
    return pause


@implementer(IRequestBody)
@define(eq=False)
class CutBody:
    """
    A body of which some may never come.

    :param is_whole: Whether all of it does.
    """

    _data: bytes
    is_whole: bool

    def receive(
        self, consume: Callable[[bytes], Deferred[None]], store: object = None
    ) -> Deferred[bool]:
        return begun(self._receive(consume))

    async def _receive(self, consume: Callable[[bytes], Deferred[None]]) -> bool:
        for at in range(0, len(self._data), 1 << 20):
            await consume(self._data[at : at + (1 << 20)])
        return self.is_whole

    def stop(self) -> None:
        """It is all on its way."""


@define(eq=False)
class Packet:
    """A packet on its way; its outcome is there, or it is not."""

    _notice: Callable[[], None]
    outcome: Any = None

    def came(self, outcome: Any) -> None:
        self.outcome = outcome
        self._notice()


@define(eq=False)
class Upload:
    """
    A client that uploads a file, and what it knows for sure.

    :param cluster: Where to.
    :ivar acknowledged: How many bytes a node has said are held.
    """

    cluster: Cluster
    name: tuple[str, ...]
    data: bytes
    acknowledged: int = field(default=0, init=False)
    _at: int = field(default=0, init=False)

    async def run(self) -> None:
        """Upload it, and look whether it has arrived."""
        created = None
        while not isinstance(created, UUID):
            manager = self.cluster.node()
            created = await self._answer(
                manager.create(self.name, CALLER, None), "Create-Session", True
            )
        while self._at < len(self.data):
            self._learn(await self._fragment(created))
        closed: Any = Failure(BackendError("not yet"))
        while closed is not True:
            closing = self.cluster.node().close(created, self.name, CALLER)
            closed = await self._answer(
                closing.addCallback(lambda _: True), "Close-Session"
            )
            if isinstance(closed, Failure):
                self._passing(closed)
        found = self.cluster.read(self.name)
        if found != self.data:
            is_there = "nothing" if found is None else f"{len(found)} bytes"
            self._fault(f"closed with success, and there is {is_there}")

    async def _fragment(self, session_id: UUID) -> Any:
        chance = self.cluster.chance
        total = len(self.data)
        longest = max(1, total // 4)
        first = self._at
        what = chance.random()
        if what < 0.15:
            first = total - 1
        elif what < 0.35 and first:
            first = chance.randrange(first)
        end = min(total, first + chance.randrange(1, longest + 1))
        body = self.data[first:end]
        is_whole = chance.random() < 0.85
        if not is_whole:
            body = body[: chance.randrange(len(body) + 1)]
        sending = self.cluster.node().fragment(
            session_id,
            self.name,
            CALLER,
            ContentRange(first, end - 1, total),
            CutBody(body, is_whole),
        )
        about = f"Fragment {first}-{end - 1}/{total}" + ("" if is_whole else ", cut")
        return await self._answer(
            sending.addCallback(lambda received: received.offset), about
        )

    async def _answer(
        self, sent: Deferred[Any], about: str, is_patient: bool = False
    ) -> Any:
        """
        Wait for an answer, as long as patience lasts.

        :returns: It, a Failure, or ``None`` if nobody knows.
        """
        cluster = self.cluster
        packet = Packet(cluster.schedule.notice)
        sent.addBoth(packet.came)
        cluster.story(f"{self.name[0]}: {about} to {cluster.last.name}")
        patience = _MOST_STEPS
        if not is_patient and cluster.chance.random() < 0.4:
            patience = cluster.chance.randrange(12)
        manager = cluster.last
        steps = 0
        while packet.outcome is None:
            if steps == _MOST_STEPS:
                self._fault("nothing goes on")
            if steps == patience or manager not in cluster.nodes:
                cluster.story(f"{self.name[0]}: is impatient")
                return None
            await cluster.step()
            steps += 1
        outcome = packet.outcome
        is_failure = isinstance(outcome, Failure)
        cluster.story(f"{self.name[0]}: {outcome.value if is_failure else outcome}")
        if is_failure and outcome.check(Killed):
            return None
        return outcome

    def _learn(self, outcome: Any) -> None:
        if isinstance(outcome, Failure):
            if outcome.check(OutOfStep) is None:
                self._passing(outcome)
                return
            outcome = outcome.value.offset
        if outcome is not None:
            if outcome < self.acknowledged:
                self._fault(f"{outcome} after {self.acknowledged}")
            self.acknowledged = self._at = outcome

    def _passing(self, failure: Failure) -> None:
        if failure.check(NoSuchSession) is not None:
            self._fault("the session is unknown")
        failure.trap(BackendError, BodyIncomplete)

    def _fault(self, what: str) -> None:
        told = "\n".join(self.cluster.schedule.story[-300:])
        raise AssertionError(
            f"{self.name[0]}, seed {self.cluster.seed}: {what}\n{told}"
        )


@define(eq=False)
class Cluster:
    """
    Nodes on one bucket.

    :param case: The test, which is an ``S3Case``.
    :param seed: Of all that happens.
    """

    case: Any
    seed: int
    kills: int = 0
    chance: Random = field(init=False)
    schedule: Schedule = field(init=False)
    nodes: list[SessionManager] = field(factory=list, init=False)
    _last: SessionManager | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.chance = Random(self.seed)
        self.schedule = Schedule(self.chance)

    async def start(self, number: int) -> None:
        """Start so many."""
        for index in range(number):
            self.nodes.append(await self._started(f"node {index}"))

    async def _started(self, name: str) -> SessionManager:
        backend = self.case.node(make_client=ScheduledClient, prefix=self.prefix)
        settings = Settings(allow_overwrites=self.seed % 2 == 0)
        node = SessionManager(backend, settings, reactor, name=name)
        await node.start()
        while node._upkeep.is_running:
            await _a_turn_of_the_reactor()
        client = self.case.client(backend)
        client.name = name
        client.schedule = self.schedule
        return node

    def node(self) -> SessionManager:
        """Choose one for the next packet."""
        self._last = self.chance.choice(self.nodes)
        return self._last

    @property
    def prefix(self) -> str:
        """What the keys of its objects begin with."""
        return f"in-{self.seed}/"

    @property
    def last(self) -> SessionManager:
        """The one that was chosen."""
        assert self._last is not None
        return self._last

    async def step(self) -> None:
        """Something goes on, or somebody is killed."""
        if self.kills and self.chance.random() < 0.01:
            self.kills -= 1
            index = self.chance.randrange(len(self.nodes))
            dead = self.nodes[index]
            self.story(f"{dead.name} is killed")
            await self._end(dead)
            self.nodes[index] = await self._started(dead.name)
            return
        await self.schedule.step()

    async def _end(self, node: SessionManager) -> None:
        self.schedule.kill(self.case.client(node.backend))
        node._fragments.stop()
        await node._upkeep.stop()
        await node.backend.stop()

    async def stop(self) -> None:
        """Let all that is late come to its end, and stop the nodes."""
        for node in self.nodes:
            await self.schedule.end(node.stop())

    def story(self, line: str) -> None:
        """Tell what happens."""
        self.schedule.story.append(line)

    def read(self, name: tuple[str, ...]) -> bytes | None:
        """The file at a destination."""
        found: bytes | None = self.case.bucket.read(self.prefix + "/".join(name))
        return found


#: Lengths of files that lie in their record, in tails, and in parts.
LENGTHS = (40, 50_000, 300_000, 6 * MIB)
