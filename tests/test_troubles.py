"""
Tests of :mod:`txbits._troubles`.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import ILogObserver, Logger, LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txbits._troubles import INTERVAL, Troubles


@implementer(ILogObserver)
class _Events(list[dict[str, Any]]):
    """Keeps what is logged."""

    def __call__(self, event: dict[str, Any]) -> None:
        self.append(event)


class TroublesTests(SynchronousTestCase):
    """A trouble is told once a minute at most."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.events = _Events()
        self.troubles = Troubles(
            Logger("test", observer=self.events), self.clock.seconds, most=3
        )

    def lines(self) -> list[str]:
        return [formatEvent(event) for event in self.events]

    def fail_once(self, key: str = "disk") -> None:
        self.troubles.report(key, "{where} is full", where=key)

    def succeed_once(self, key: str = "disk") -> None:
        self.troubles.over(key, "{where} has room again", where=key)

    def test_first_failure_is_logged_at_once(self) -> None:
        self.fail_once()
        self.assertEqual(self.lines(), ["disk is full"])
        self.assertEqual(self.events[0]["log_level"], LogLevel.error)

    def test_level_can_be_chosen(self) -> None:
        self.troubles.report("disk", "slow", level=LogLevel.warn)
        self.assertEqual(self.events[0]["log_level"], LogLevel.warn)

    def test_failures_within_a_minute_are_only_counted(self) -> None:
        for _ in range(5):
            self.fail_once()
            self.clock.advance(INTERVAL / 5 - 0.001)
        self.assertEqual(self.lines(), ["disk is full"])

    def test_next_line_tells_how_many_were_left_out(self) -> None:
        for _ in range(5):
            self.fail_once()
        self.clock.advance(INTERVAL)
        self.fail_once()
        self.assertEqual(
            self.lines()[1:],
            ["disk is full (4 more failures since the last such line)"],
        )
        self.clock.advance(INTERVAL)
        self.fail_once()
        self.assertEqual(self.lines()[2:], ["disk is full"])

    def test_end_is_logged_once(self) -> None:
        self.fail_once()
        self.fail_once()
        self.clock.advance(90)
        self.succeed_once()
        self.succeed_once()
        self.assertEqual(
            self.lines()[1:], ["disk has room again (failures: 2, in 90 s)"]
        )

    def test_success_without_trouble_is_not_logged(self) -> None:
        self.succeed_once()
        self.assertEqual(self.lines(), [])

    def test_trouble_that_comes_and_goes_is_logged_once_a_minute(self) -> None:
        for _ in range(10):
            self.fail_once()
            self.succeed_once()
            self.clock.advance(INTERVAL / 10)
        self.assertEqual(
            self.lines(),
            ["disk is full", "disk has room again (failures: 1, in 0 s)"],
        )
        self.events.clear()
        self.fail_once()
        self.fail_once()
        self.clock.advance(5)
        self.succeed_once()
        self.assertEqual(
            self.lines(),
            [
                "disk is full (9 more failures since the last such line)",
                "disk has room again (failures: 2, in 5 s)",
            ],
        )

    def test_troubles_are_told_apart(self) -> None:
        self.fail_once("one")
        self.fail_once("two")
        self.succeed_once("one")
        self.fail_once("two")
        self.assertEqual(
            self.lines(),
            [
                "one is full",
                "two is full",
                "one has room again (failures: 1, in 0 s)",
            ],
        )

    def test_no_more_than_so_many_are_remembered(self) -> None:
        for key in ("one", "two", "three", "one", "four"):
            self.fail_once(key)
        self.events.clear()
        self.succeed_once("two")
        self.assertEqual(self.lines(), [])
        self.succeed_once("one")
        self.assertEqual(self.lines(), ["one has room again (failures: 2, in 0 s)"])
