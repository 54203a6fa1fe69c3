"""
The wall clock is set while connections are open: dates follow it, deadlines do not.
"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.web.http import datetimeToString

from tests.clocks import SettableClock
from tests.web.support import WebCase, packet


class TwoClocks(Clock):
    """
    The steady clock of a test that has a wall clock beside it.

    :ivar wall: That one.
    """

    def __init__(self) -> None:
        super().__init__()
        self.wall = SettableClock(self)


class SiteClockTests(WebCase):
    """A site, and a clock that is set by a day."""

    clock: TwoClocks

    def setUp(self) -> None:
        super().setUp()
        self.clock = TwoClocks()
        self.serve()

    def test_connections_at_rest_stay(self) -> None:
        peer = self.peer()
        for seconds in (86_400, -2 * 86_400):
            self.clock.wall.set(seconds)
            self.clock.pump([5] * 5)
            self.assertFalse(peer.closed)
        self.clock.pump([5] * 40)
        self.assertTrue(peer.closed)

    def test_dates_are_those_of_the_wall_clock(self) -> None:
        peer = self.peer()
        for _ in range(2):
            self.clock.wall.set(86_400)
            response = self.exchange(peer, packet(b"Ping"))
            date = datetimeToString(self.clock.wall()).decode("ascii")
            self.assertEqual(response["date"], date)
