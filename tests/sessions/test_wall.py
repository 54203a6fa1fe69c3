"""
The wall clock is set while sessions are under way: time-outs of this process do not
follow it. See ``txbits.clocks`` for the two clocks.
"""

from __future__ import annotations

import time

from twisted.internet.task import Clock

from tests.sessions.support import ALICE, NAME, SOURCE, TOTAL, ManagerCase
from txbits.backends.memory import MemoryBackend
from txbits.errors import NoSuchSession
from txbits.sessions import SessionManager, Settings
from txbits.sessions.settings import CLOSE_MEMORY

TIMEOUT = 1000.0
HOUR = 3600.0
DAYS = 20 * 24 * HOUR


class SessionTests(ManagerCase):
    """Sessions, and a clock that is set by 20 days."""

    rules = {"session_timeout": TIMEOUT, "cleanup_interval": TIMEOUT / 2}

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.create()

    def test_what_is_under_way_goes_on_when_it_is_set(self) -> None:
        self.upload(self.session_id, 0, 4)
        for seconds in (DAYS, -2 * DAYS):
            self.wall.set(seconds)
            self.clock.advance(TIMEOUT / 2)
            self.assertEqual(self.sessions(), {self.session_id})
            self.upload(self.session_id, 4, 5)
            self.clock.advance(TIMEOUT / 2)
            self.upload(self.session_id, 4, TOTAL)
            self.successResultOf(self.close(self.session_id))
            self.assertEqual(self.memory.files.pop(NAME), SOURCE)
            self.session_id = self.create()
            self.upload(self.session_id, 0, 4)

    def test_a_session_expires_all_the_same_when_it_is_set_back(self) -> None:
        self.wall.set(-DAYS)
        self.clock.advance(TIMEOUT)
        self.assertEqual(self.sessions(), {self.session_id})
        self.clock.advance(TIMEOUT / 2)
        self.assertEqual(self.sessions(), set())

    def test_a_session_from_before_a_restart_is_not_older_for_it(self) -> None:
        self.clock.advance(TIMEOUT - 20)
        self.restart()
        self.wall.set(DAYS)
        self.clock.advance(10)
        self.upload(self.session_id)
        self.successResultOf(self.close(self.session_id))

    def test_its_time_goes_on_from_where_it_was(self) -> None:
        self.clock.advance(TIMEOUT - 20)
        self.restart()
        self.wall.set(-DAYS)
        self.clock.advance(21)
        self.failureResultOf(self.send(self.session_id, 0, SOURCE), NoSuchSession)

    def test_a_session_from_the_future_has_all_its_time(self) -> None:
        """The clock was ahead before the restart, or that of the disk is."""
        self.wall.set(-DAYS)
        self.restart()
        self.clock.advance(TIMEOUT / 2)
        self.clock.advance(TIMEOUT / 2)
        self.assertEqual(self.sessions(), {self.session_id})
        self.clock.advance(TIMEOUT / 2)
        self.assertEqual(self.sessions(), set())


class CloseTests(ManagerCase):
    """Closes that are remembered, and a clock that is set."""

    rules = {"cleanup_interval": HOUR}

    def setUp(self) -> None:
        super().setUp()
        self.session_id = self.complete()
        self.successResultOf(self.close(self.session_id))

    def is_remembered(self) -> bool:
        return self.successResultOf(
            self.memory.recalls_close(self.session_id, NAME, ALICE.user)
        )

    def pass_time(self, seconds: float) -> None:
        self.clock.pump([HOUR] * int(seconds // HOUR))

    def test_none_is_forgotten_early_when_it_is_set_forward(self) -> None:
        self.pass_time(HOUR)
        self.wall.set(DAYS)
        self.pass_time(CLOSE_MEMORY - 2 * HOUR)
        self.assertTrue(self.is_remembered())
        self.pass_time(4 * HOUR)
        self.assertFalse(self.is_remembered())

    def test_none_is_kept_for_ever_when_it_is_set_back(self) -> None:
        self.pass_time(HOUR)
        self.wall.set(-DAYS)
        self.pass_time(CLOSE_MEMORY - 2 * HOUR)
        self.assertTrue(self.is_remembered())
        self.pass_time(CLOSE_MEMORY + 2 * HOUR)
        self.assertFalse(self.is_remembered())

    def test_one_that_is_set_again_and_again_loses_none(self) -> None:
        for _ in range(22):
            self.wall.set(DAYS)
            self.pass_time(HOUR)
        self.assertTrue(self.is_remembered())
        self.pass_time(2 * CLOSE_MEMORY)
        self.assertFalse(self.is_remembered())


class AssemblyTests(ManagerCase):
    """Which clock is which."""

    def test_one_in_place_of_the_other_is_refused(self) -> None:
        for clock, wall in (
            (time.time, time.time),
            (self.clock, self.clock),
            (self.wall, self.clock.seconds),
        ):
            with self.assertRaises(TypeError):
                SessionManager(
                    self.memory,
                    Settings(),
                    clock,  # type: ignore[arg-type]
                    wall=wall,  # type: ignore[arg-type]
                )

    def test_a_clock_of_a_test_tells_the_time_of_day_too(self) -> None:
        clock = Clock()
        manager = SessionManager(MemoryBackend(clock), Settings(), clock)
        clock.advance(5)
        self.assertEqual(manager.wall(), 5)
