"""
Stores with a great many sessions: they are listed a few at a time, uploads have their
turns between, and a stop waits for none of the rest.

``PagedBackend`` lists two sessions a page, each page when a test lets it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import UUID

from twisted.internet.defer import Deferred, succeed
from zope.interface import implementer

from tests.sessions.support import ALICE, BOB, ManagerCase, RecordingBackend
from txbits._deferreds import deferred
from txbits.errors import ServerStopping, SessionLimitReached
from txbits.interfaces import IPaged, SessionSummary

TIMEOUT = 1000.0
HOUR = 3600.0


@implementer(IPaged)
class PagedBackend(RecordingBackend):
    """
    A backend that lists two sessions at a time.

    :ivar is_held: Whether pages wait for :meth:`turn`.
    :ivar reading: The Deferred of the page that is waited for.
    :ivar before: Called before each page.
    """

    is_held = False
    reading: Deferred[None] | None = None

    def before(self) -> None:
        """Nothing happens."""

    @deferred
    async def list_in_pages(
        self, look: Callable[[Sequence[SessionSummary]], Deferred[None]]
    ) -> None:
        self.calls.append("list_in_pages")
        summaries = await self.backend.sessions()
        for at in range(0, max(len(summaries), 1), 2):
            self.before()
            if self.is_held:
                self.reading = Deferred()
                await self.reading
            await look(summaries[at : at + 2])

    def turn(self) -> None:
        """Let the next page come."""
        reading, self.reading = self.reading, None
        assert reading is not None
        reading.callback(None)


class PageTests(ManagerCase):
    """A clean-up of seven sessions, in four pages."""

    backend: PagedBackend
    rules = {"session_timeout": TIMEOUT, "cleanup_interval": HOUR, "session_limit": 5}

    def setUp(self) -> None:
        super().setUp()
        self.successResultOf(self.manager.stop())
        self.backend = PagedBackend(self.memory)
        self.manager = self.started()
        self.ids = [
            self.create((str(number),), ALICE if number < 4 else BOB)
            for number in range(7)
        ]

    def restart_held(self) -> None:
        """Begin with a first round, whose pages come one by one."""
        self.successResultOf(self.manager.stop())
        self.backend.is_held = True
        self.manager = self.started()

    def test_expired_sessions_of_all_pages_are_released(self) -> None:
        self.clock.advance(HOUR)
        self.assertEqual(self.sessions(), set())
        self.assertNotIn("sessions", self.backend.calls)

    def test_those_that_are_not_stay(self) -> None:
        self.clock.advance(HOUR - 1)
        fresh = self.create(("fresh",))
        self.clock.advance(1)
        self.assertEqual(self.sessions(), {fresh})

    def test_a_session_that_is_to_be_counted_waits_for_the_last_page(self) -> None:
        self.restart_held()
        creating = self.manager.create(("new",), ALICE, None)
        for _ in range(4):
            self.assertNoResult(creating)
            self.backend.turn()
        self.successResultOf(creating)
        over = self.manager.create(("one more",), ALICE, None)
        self.failureResultOf(over, SessionLimitReached)

    def test_other_packets_do_not_wait(self) -> None:
        self.restart_held()
        self.upload_to(self.ids[6], BOB)

    def upload_to(self, session_id: UUID, caller: object) -> None:
        outcome = self.send(session_id, 0, b"x", 1, destination=("6",), caller=caller)
        self.assertEqual(self.successResultOf(outcome), 1)

    def test_a_stop_does_not_wait_for_the_rest(self) -> None:
        self.restart_held()
        self.backend.turn()
        reading = self.backend.reading
        assert reading is not None
        self.successResultOf(self.manager.stop())
        self.assertTrue(reading.called)
        self.assertNotIn("clean_up", self.backend.calls[-2:])
        self.assertEqual(self.sessions(), set(self.ids))

    def test_a_stop_does_not_cut_a_release_short(self) -> None:
        gate = self.backend.hold("release")
        self.clock.advance(HOUR)
        stopping = self.manager.stop()
        self.assertNoResult(stopping)
        gate.open()
        self.successResultOf(stopping)
        self.assertEqual(len(self.sessions()), 6)

    def test_a_clean_up_of_the_store_ends_with_a_stop(self) -> None:
        ended: list[Deferred[None]] = []
        cleaning: Deferred[None] = Deferred(ended.append)
        self.backend.clean_up = lambda before: cleaning  # type: ignore[method-assign]
        self.clock.advance(HOUR)
        self.assertEqual(ended, [])
        self.successResultOf(self.manager.stop())
        self.assertEqual(ended, [cleaning])

    def test_reading_that_takes_long_is_followed_by_a_rest(self) -> None:
        self.backend.before = lambda: self.pass_time(0.05)  # type: ignore[method-assign]
        self.clock.advance(HOUR)
        rests = 0
        while self.manager._upkeep.is_running:
            rests += 1
            self.clock.advance(0.05)
        self.assertEqual(rests, 4)
        self.assertEqual(self.sessions(), set())

    def pass_time(self, seconds: float) -> None:
        self.clock.rightNow += seconds

    def test_the_first_count_takes_no_rest(self) -> None:
        self.backend.before = lambda: self.pass_time(0.05)  # type: ignore[method-assign]
        self.successResultOf(self.manager.stop())
        self.manager = self.started()
        self.assertFalse(self.manager._upkeep.is_running)

    def test_a_stop_ends_a_rest(self) -> None:
        self.backend.before = lambda: self.pass_time(0.05)  # type: ignore[method-assign]
        self.clock.advance(HOUR)
        self.assertTrue(self.manager._upkeep.is_running)
        self.successResultOf(self.manager.stop())
        self.assertEqual(self.sessions(), set(self.ids))

    def test_disabling_releases_those_of_all_pages(self) -> None:
        self.successResultOf(self.manager.stop())
        self.manager = self.started()
        self.successResultOf(self.manager.disable())
        self.assertEqual(self.sessions(), set())

    def test_disabling_ends_with_a_stop(self) -> None:
        self.backend.is_held = True
        disabling = self.manager.disable()
        self.successResultOf(self.manager.stop())
        self.failureResultOf(disabling, ServerStopping)

    def test_a_session_that_somebody_removed_is_forgotten(self) -> None:
        del self.memory._sessions[self.ids[2]]
        self.clock.advance(HOUR)
        self.assertNotIn(self.ids[2], self.manager._active.table)
        self.assertEqual(self.manager._active.quota.known(), set())


class LargeMemoryTests(ManagerCase):
    """The memory backend by itself, with more than a page of sessions, and closes."""

    rules = {"session_limit": 0}

    def test_the_reactor_has_a_turn_between_pages(self) -> None:
        for number in range(600):
            self.create((str(number),))
        pages: list[int] = []

        def look(page: Sequence[SessionSummary]) -> Deferred[None]:
            pages.append(len(page))
            return succeed(None)

        listing = self.memory.list_in_pages(look)
        self.assertEqual(pages, [256])
        self.assertNoResult(listing)
        self.clock.advance(0)
        self.successResultOf(listing)
        self.assertEqual(pages, [256, 256, 88])

    def test_closes_are_forgotten_in_pieces(self) -> None:
        for number in range(15_000):
            self.memory._closed[UUID(int=number)] = {((), None): 1.0}
        cleaning = self.memory.clean_up(2.0)
        self.assertNoResult(cleaning)
        self.assertGreater(len(self.memory._closed), 4_000)
        self.clock.advance(0)
        self.successResultOf(cleaning)
        self.assertEqual(self.memory._closed, {})
