"""
What the tests of sessions have in common: bodies that arrive as a test says, a backend
whose work can be held, and a manager between them.

``ManagerCase`` uploads ``SOURCE``, ten bytes long. ``begin()`` has a Fragment arrive
without its body, ``send()`` with all of it; ``restart()`` goes on with a new manager
over the same store.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

from twisted.internet.defer import Deferred, execute
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.clocks import SettableClock
from txbits._ledger import SessionLedger
from txbits.backends.memory import MemoryBackend
from txbits.errors import BodyIncomplete, NoSuchSession
from txbits.interfaces import Answer, IBackend, INotifier
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller, IRequestBody, Received, SessionManager, Settings
from txbits.testing.faults import HoldableBackend
from txbits.testing.notifiers import Asked, HoldableNotifier

SOURCE = b"0123456789"
TOTAL = len(SOURCE)
NAME = ("logs", "today.log")
ALICE = Caller("alice", "192.0.2.1")
BOB = Caller("bob", "192.0.2.2")
ANYONE = Caller(None, "192.0.2.9")
UNKNOWN = UUID(int=1)
URL = "https://uploads.example.org/logs/today.log?week=48"


@implementer(IRequestBody)
class ScriptedBody:
    """
    A body that arrives when a test says so.

    Like the real one it hands over a piece at a time, and what had arrived before the
    connection was lost is still handed over.

    :ivar is_received: Whether anybody has asked for it.
    :ivar is_stopped: Whether its connection was dropped by the server.
    :ivar taken: The pieces that were handed over.
    """

    def __init__(self) -> None:
        self.is_received = False
        self.is_stopped = False
        self.taken: list[bytes] = []
        self._pieces: list[bytes] = []
        self._is_whole = False
        self._is_lost = False
        self._is_busy = False
        self._consume: Callable[[bytes], Deferred[None]] | None = None
        self._outcome: Deferred[bool] | None = None

    def receive(
        self,
        consume: Callable[[bytes], Deferred[None]],
        store: Callable[[memoryview], None] | None = None,
    ) -> Deferred[bool]:
        assert not self.is_received, "it is called at most once"
        self.is_received = True
        self._consume = consume if store is None else self._storing(store)
        outcome = self._outcome = Deferred()
        self._flow()
        return outcome

    def stop(self) -> None:
        self.is_stopped = True
        self.lose()

    def send(self, *pieces: bytes) -> None:
        """The next pieces arrive, unless the connection is gone."""
        if not self._is_lost:
            self._pieces += pieces
            self._flow()

    def end(self) -> None:
        """The body is complete."""
        self._is_whole = not self._is_lost
        self._flow()

    def lose(self) -> None:
        """The connection is lost."""
        self._is_lost = True
        self._flow()

    def _flow(self) -> None:
        if self._consume is None or self._outcome is None or self._is_busy:
            return
        if self._pieces:
            self._is_busy = True
            self.taken.append(self._pieces.pop(0))
            self._consume(self.taken[-1]).addCallbacks(self._consumed, self._finish)
        elif self._is_whole or self._is_lost:
            self._finish(self._is_whole)

    def _storing(
        self, store: Callable[[memoryview], None]
    ) -> Callable[[bytes], Deferred[None]]:
        def stored(data: bytes) -> None:
            memory = bytearray(data)
            with memoryview(memory) as view:
                store(view)
            memory[:] = b"?" * len(memory)

        return lambda data: execute(stored, data)

    def _consumed(self, _: None) -> None:
        self._is_busy = False
        self._flow()

    def _finish(self, outcome: bool | Failure) -> None:
        waiting, self._outcome = self._outcome, None
        assert waiting is not None, "it has one end"
        waiting.callback(outcome)


class RecordingBackend(HoldableBackend):
    """
    Remembers what was called.

    :ivar calls: The names of the methods that were called, in order.
    """

    def __init__(self, backend: IBackend) -> None:
        super().__init__(backend)
        self.calls: list[str] = []

    def through(self, operation: str, call: Callable[[], Deferred[Any]]) -> Any:
        self.calls.append(operation)
        return super().through(operation, call)

    def stop(self) -> Deferred[None]:
        self.calls.append("stop")
        return super().stop()


def offset_of(received: Received) -> int:
    """Where the Ack says to go on."""
    return received.offset


class Underway(NamedTuple):
    """A Fragment that has begun to arrive, and what will come of it."""

    body: ScriptedBody
    outcome: Deferred[int]


class ManagerCase(SynchronousTestCase):
    """
    A manager over a memory backend whose every call can be held, and made to fail.

    :ivar clock: The steady clock.
    :ivar wall: The wall clock, which is far ahead of it.
    :ivar memory: The memory backend.
    :ivar backend: The same behind gates.
    :ivar notifier: Of every manager that is started from then on.
    :ivar rules: Settings of every manager, unless it is told otherwise.
    :ivar ledger: Of every manager that is started from then on.
    """

    clock_class = Clock
    notifier: INotifier | None = None
    rules: dict[str, Any] = {}
    ledger: SessionLedger | None = None

    def setUp(self) -> None:
        self.clock = self.clock_class()
        self.wall = SettableClock(self.clock)
        self.memory = MemoryBackend(self.clock, wall=self.wall)
        self.backend = RecordingBackend(self.memory)
        self.manager = self.started()

    def has_remembered(self, session_id: UUID) -> None:
        """A release has failed after the storage recorded the close."""
        session = self.memory._sessions[session_id]
        close = session.destination, session.owner
        self.memory._closed[session_id] = {close: self.wall()}
        self.backend._releasing.add(session_id)

    def started(self, **settings: Any) -> SessionManager:
        """A new manager over the same store, as after a restart."""
        manager = SessionManager(
            self.backend,
            Settings(**{**self.rules, **settings}),
            self.clock,
            notifier=self.notifier,
            wall=self.wall,
            ledger=self.ledger,
        )
        self.successResultOf(manager.start())
        return manager

    def restart(self, **settings: Any) -> None:
        """Stop, and go on with a new manager over the same store."""
        self.successResultOf(self.manager.stop())
        self.manager = self.started(**settings)

    # Packets

    def create(
        self, destination: tuple[str, ...] = NAME, caller: Caller = ALICE
    ) -> UUID:
        return self.successResultOf(self.manager.create(destination, caller, "a.txt"))

    def begin(
        self,
        session_id: UUID,
        first: int,
        length: int,
        total: int = TOTAL,
        *,
        destination: tuple[str, ...] = NAME,
        caller: Caller = ALICE,
    ) -> Underway:
        """A Fragment arrives, but nothing of its body yet."""
        content_range = ContentRange(first, first + length - 1, total)
        body = ScriptedBody()
        received = self.manager.fragment(
            session_id, destination, caller, content_range, body, URL
        )
        return Underway(body, received.addCallback(offset_of))

    def stall(self, session_id: UUID, first: int = 0, length: int = 3) -> Underway:
        """The Fragment of all the rest arrives, and stalls after *length* bytes."""
        underway = self.begin(session_id, first, TOTAL - first)
        underway.body.send(SOURCE[first : first + length])
        self.assertNoResult(underway.outcome)
        return underway

    def send(
        self,
        session_id: UUID,
        first: int,
        data: bytes,
        total: int = TOTAL,
        **who: Any,
    ) -> Deferred[int]:
        """A Fragment arrives with its whole body."""
        body, outcome = self.begin(session_id, first, len(data), total, **who)
        body.send(*([data] if data else []))
        body.end()
        return outcome

    def upload(self, session_id: UUID, first: int = 0, last: int = TOTAL) -> None:
        """Bytes of ``SOURCE`` up to, not including, *last* arrive, and are stored."""
        outcome = self.send(session_id, first, SOURCE[first:last])
        self.assertEqual(self.successResultOf(outcome), last)

    def complete(self, **who: Any) -> UUID:
        """A session that only waits for its Close."""
        session_id = self.create(**who)
        self.successResultOf(self.send(session_id, 0, SOURCE, **who))
        return session_id

    def close(
        self,
        session_id: UUID,
        destination: tuple[str, ...] = NAME,
        caller: Caller = ALICE,
    ) -> Deferred[None]:
        return self.manager.close(session_id, destination, caller)

    def cancel(
        self,
        session_id: UUID,
        destination: tuple[str, ...] = NAME,
        caller: Caller = ALICE,
    ) -> Deferred[None]:
        return self.manager.cancel(session_id, destination, caller)

    # What can be seen

    def troubles(self, act: Callable[[], object]) -> list[str]:
        """What the log says of a store that fails while something is done."""
        with capturedLogs() as events:
            act()
        for event in events:
            self.assertNotIn("log_failure", event)
        return [
            formatEvent(event)
            for event in events
            if event["log_namespace"] == "txbits.sessions._active"
        ]

    def held(self, session_id: UUID) -> bytes:
        """The bytes that the store has of a session."""
        found: Any = self.successResultOf(self.memory.find(session_id))
        consumer: Any = StringTransport()
        self.successResultOf(found.read_into(consumer, 0, found.offset))
        return bytes(consumer.value())

    def sessions(self) -> set[UUID]:
        """The sessions that the store has."""
        summaries = self.successResultOf(self.memory.sessions())
        return {summary.session_id for summary in summaries}

    def assert_unknown(self, session_id: UUID, **who: Any) -> None:
        """No packet finds the session."""
        body, outcome = self.begin(session_id, 0, TOTAL, **who)
        self.failureResultOf(outcome, NoSuchSession)
        self.assertFalse(body.is_received)
        self.failureResultOf(self.close(session_id, **who), NoSuchSession)
        self.failureResultOf(self.cancel(session_id, **who), NoSuchSession)


class NotifyingCase(ManagerCase):
    """
    A manager with a server application that answers when a test says so.

    :ivar application: Remembers what it was asked.
    """

    def setUp(self) -> None:
        self.application = self.notifier = HoldableNotifier()
        super().setUp()

    @property
    def asked(self) -> Asked:
        """The last time that the application was asked."""
        return self.application.asked[-1]

    @property
    def attempts(self) -> list[int]:
        """The numbers of all times that it was asked."""
        return [one.upload.attempt for one in self.application.asked]

    def ask(self, session_id: UUID, **who: Any) -> Underway:
        """The last fragment arrives, and the application is asked."""
        before = len(self.application.asked)
        underway = self.last(session_id, **who)
        self.assertEqual(len(self.application.asked), before + 1)
        return underway

    def last(self, session_id: UUID, **who: Any) -> Underway:
        """The last fragment arrives, once more or for the first time."""
        underway = self.begin(session_id, 0, TOTAL, **who)
        underway.body.send(SOURCE)
        underway.body.end()
        return underway

    def leave(self, underway: Underway) -> None:
        """
        The client of a last fragment comes again, and goes away: nobody waits for the
        application any more.
        """
        session_id = self.asked.upload.session.session_id
        again = self.begin(session_id, 0, TOTAL)
        again.body.lose()
        for one in (underway, again):
            self.failureResultOf(one.outcome, BodyIncomplete)

    def answered(self, answer: Answer, **who: Any) -> UUID:
        """A session that the application has answered about."""
        session_id = self.create(**who)
        underway = self.ask(session_id, **who)
        self.asked.answer(answer)
        self.assertEqual(underway.outcome.called, True)
        return session_id

    def write_reply(self, data: bytes) -> None:
        """The application writes a reply; it does not answer yet."""
        writer = self.successResultOf(self.asked.reply.open())
        self.successResultOf(writer.write(data))
        self.successResultOf(writer.close())
