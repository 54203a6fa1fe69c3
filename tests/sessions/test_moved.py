"""
A store in which others have moved a session on, or back: what this process knew of it
does not count then.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any
from uuid import UUID

from twisted.internet.defer import Deferred, fail, succeed
from zope.interface import alsoProvides, implementer, providedBy

from tests.sessions.support import (
    NAME,
    SOURCE,
    TOTAL,
    ManagerCase,
    NotifyingCase,
    RecordingBackend,
)
from txbits._deferreds import deferred
from txbits.backends.memory import MemorySession
from txbits.errors import (
    ApplicationUnreachable,
    BackendError,
    OutOfStep,
    ServerStopping,
)
from txbits.interfaces import IRefreshable, IShared, IUploadSession

OTHER = SOURCE[::-1]


@implementer(IShared)
class RefreshableBackend(RecordingBackend):
    """
    A store whose sessions can be refreshed.

    :ivar refreshing: What that does.
    :ivar giving_up: What begins their end, and tells whether it has.
    """

    refreshing: Callable[[], Deferred[None]] = staticmethod(lambda: succeed(None))
    giving_up: Callable[[], Deferred[bool]] = staticmethod(lambda: succeed(True))

    @deferred
    async def find(self, session_id: UUID) -> IUploadSession:
        found: Any = _Refreshable(self, await super().find(session_id))
        return found  # type: ignore[no-any-return]


@implementer(IRefreshable)
class _Refreshable:
    def __init__(self, backend: RefreshableBackend, session: IUploadSession) -> None:
        self._backend = backend
        self._session = session
        alsoProvides(self, *providedBy(session))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def refresh(self) -> Deferred[None]:
        return self._backend.refreshing()

    def give_up(self, *, closed: bool) -> Deferred[bool]:
        return self._backend.giving_up()


class MovedCase(ManagerCase):
    """What others do in the store."""

    def staged(self, session_id: UUID) -> MemorySession:
        found: Any = self.successResultOf(self.memory.find(session_id))
        assert isinstance(found, MemorySession)
        return found

    def cut(self, session_id: UUID, length: int) -> None:
        """The bytes from there on are lost."""
        staged = self.staged(session_id)
        staged._pieces[:] = [staged._joined()[:length]]
        staged.offset = length

    def append(self, session_id: UUID, data: bytes) -> None:
        """Bytes are stored by another process."""
        staged = self.staged(session_id)
        staged._pieces.append(data)
        staged.offset += len(data)


class OpeningTests(MovedCase):
    """A writer finds another offset than was known."""

    def opening(self, first: int) -> tuple[UUID, Any, Deferred[int]]:
        """A Fragment of all from *first* on arrives, where four bytes are held."""
        session_id = self.create()
        self.upload(session_id, 0, 4)
        gate = self.backend.hold("open_writer")
        return session_id, gate, self.send(session_id, first, SOURCE[first:])

    def test_bytes_that_are_there_already_are_skipped(self) -> None:
        session_id, gate, outcome = self.opening(4)
        self.append(session_id, SOURCE[4:7])
        gate.open()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.assertEqual(self.held(session_id), SOURCE)

    def test_those_that_are_lost_are_taken_again(self) -> None:
        session_id, gate, outcome = self.opening(2)
        self.cut(session_id, 3)
        gate.open()
        self.assertEqual(self.successResultOf(outcome), TOTAL)
        self.assertEqual(self.held(session_id), SOURCE)

    def test_a_fragment_beyond_them_is_out_of_step(self) -> None:
        session_id, gate, outcome = self.opening(4)
        self.cut(session_id, 3)
        gate.open()
        self.assertEqual(self.failureResultOf(outcome, OutOfStep).value.offset, 3)
        self.upload(session_id, 3)
        self.assertEqual(self.held(session_id), SOURCE)


class SharedTests(MovedCase, NotifyingCase):
    """Two processes over one store."""

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.manager.stop())
        self.backend: RefreshableBackend = RefreshableBackend(self.memory)
        self.here, self.there = self.started(), self.started()
        self.manager = self.here

    def ask_in_vain(self, session_id: UUID) -> None:
        """The last fragment arrives; the application cannot be reached."""
        underway = self.ask(session_id)
        self.asked.fail(ApplicationUnreachable("nobody is there"))
        self.failureResultOf(underway.outcome, ApplicationUnreachable)

    def test_a_digest_of_bytes_that_were_not_stored_is_not_told(self) -> None:
        session_id = self.create()
        gate = self.backend.hold("write")
        gate.fail(BackendError("not now"))
        self.failureResultOf(self.send(session_id, 0, OTHER), BackendError)
        gate.open()
        self.manager = self.there
        self.ask_in_vain(session_id)
        self.manager = self.here
        self.ask(session_id)
        self.assertEqual(self.asked.upload.sha256, sha256(SOURCE).digest())

    def test_nor_is_one_of_bytes_that_were_lost_and_came_again(self) -> None:
        session_id = self.create()
        underway = self.send(session_id, 0, OTHER)
        self.asked.fail(ApplicationUnreachable("nobody is there"))
        self.failureResultOf(underway, ApplicationUnreachable)

        def lose() -> Deferred[None]:
            self.cut(session_id, 5)
            return succeed(None)

        self.backend.refreshing = lose
        self.assertEqual(self.successResultOf(self.send(session_id, 0, OTHER)), 5)
        self.backend.refreshing = lambda: succeed(None)
        self.cut(session_id, 0)
        self.append(session_id, SOURCE)
        self.ask(session_id)
        self.assertEqual(self.asked.upload.sha256, sha256(SOURCE).digest())

    def test_a_server_that_stops_meanwhile_asks_nobody(self) -> None:
        session_id = self.create()
        refreshed: Deferred[None] = Deferred()
        self.backend.refreshing = lambda: refreshed
        underway = self.last(session_id)
        stopping = self.manager.stop()
        refreshed.callback(None)
        self.failureResultOf(underway.outcome, ServerStopping)
        self.successResultOf(stopping)
        self.assertEqual(self.application.asked, [])


class GivenUpTests(MovedCase):
    """Sessions that another process moves on while this one decides."""

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.manager.stop())
        self.backend: RefreshableBackend = RefreshableBackend(self.memory)
        self.manager = self.started()
        self.session_id = self.create()
        self.rounds: list[bool] = []

    def completed_meanwhile(self) -> Deferred[bool]:
        """Another process receives the rest, which is noticed."""
        self.rounds.append(False)
        self.append(self.session_id, SOURCE[4:])
        return succeed(False)

    def published(self) -> bytes | None:
        return self.memory.files.get(NAME)

    def test_what_another_completes_meanwhile_is_published(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.backend.giving_up = self.completed_meanwhile
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.rounds, [False])
        self.assertEqual(self.published(), SOURCE)

    def test_what_another_completes_while_this_one_refuses_is_published(self) -> None:
        gate = self.backend.hold("close")
        refusing = self.send(self.session_id, 9, SOURCE[9:])
        self.append(self.session_id, SOURCE)
        closing = self.close(self.session_id)
        gate.open()
        self.assertEqual(self.successResultOf(refusing), TOTAL)
        self.successResultOf(closing)
        self.assertEqual(self.published(), SOURCE)

    def test_a_close_that_finds_less_than_was_acknowledged_leaves_it(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.backend.giving_up = lambda: fail(BackendError("less than was held"))
        for _ in range(2):
            self.failureResultOf(self.close(self.session_id), BackendError)
        self.upload(self.session_id, 4)
        self.successResultOf(self.close(self.session_id))
        self.assertEqual(self.published(), SOURCE)

    def test_a_close_that_is_never_left_alone_fails(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.backend.giving_up = lambda: succeed(False)
        self.failureResultOf(self.close(self.session_id), BackendError)
        self.upload(self.session_id, 4)

    def test_a_session_that_goes_on_meanwhile_does_not_expire(self) -> None:
        self.upload(self.session_id, 0, 4)
        self.backend.giving_up = self.completed_meanwhile
        # The clean-up comes, and finds it.
        self.clock.advance(15 * 86_400.0)
        self.assertEqual(self.rounds, [False])
        self.assertEqual(self.held(self.session_id), SOURCE)

    def test_a_fragment_that_brings_nothing_is_answered_by_the_store(self) -> None:
        self.upload(self.session_id, 0, 4)

        def refreshing() -> Deferred[None]:
            self.append(self.session_id, SOURCE[4:7])
            return succeed(None)

        self.backend.refreshing = refreshing
        sent = self.send(self.session_id, 0, SOURCE[:4])
        self.assertEqual(self.successResultOf(sent), 7)
