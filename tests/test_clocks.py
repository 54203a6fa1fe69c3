"""
The two clocks, and a reactor that goes by the steady one.
"""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.base import ReactorBase
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txbits.clocks import keep_steady, steady, wall_of


class IdleReactor(ReactorBase):
    """
    A reactor of Twisted's own making that waits for nothing.

    :ivar calls: What its timers have called.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def installWaker(self) -> None:
        """It never sleeps."""

    def removeAll(self) -> list[Any]:
        return []

    def after(self, seconds: float, name: str) -> None:
        """Note a name after so many seconds."""
        self.callLater(seconds, self.calls.append, name)


class KeepSteadyTests(SynchronousTestCase):
    """A reactor, and a monotonic clock that a test moves."""

    def setUp(self) -> None:
        self.monotonic = Clock()
        self.monotonic.advance(77)
        self.reactor: Any = IdleReactor()

    def keep_steady(self) -> None:
        keep_steady(self.reactor, self.monotonic.seconds)

    def pass_time(self, seconds: float) -> None:
        self.monotonic.advance(seconds)
        self.reactor.runUntilCurrent()

    def test_its_timers_follow_the_steady_clock(self) -> None:
        self.keep_steady()
        self.reactor.after(10, "called")
        self.pass_time(9)
        self.assertEqual(self.reactor.calls, [])
        self.assertAlmostEqual(self.reactor.timeout(), 1)
        self.pass_time(1.5)
        self.assertEqual(self.reactor.calls, ["called"])

    def test_timers_from_before_are_kept(self) -> None:
        self.reactor.after(1000, "called")
        self.reactor.runUntilCurrent()
        self.reactor.after(2000, "called later")
        self.keep_steady()
        self.pass_time(990)
        self.assertEqual(self.reactor.calls, [])
        self.pass_time(20)
        self.assertEqual(self.reactor.calls, ["called"])
        self.pass_time(1000)
        self.assertEqual(self.reactor.calls, ["called", "called later"])

    def test_seconds_go_on_from_the_present_time(self) -> None:
        before = time.time()
        self.keep_steady()
        now = self.reactor.seconds()
        self.assertTrue(before - 1 <= now <= time.time() + 1)
        self.monotonic.advance(10)
        self.assertAlmostEqual(self.reactor.seconds(), now + 10)

    def test_once_is_enough(self) -> None:
        self.keep_steady()
        seconds = self.reactor.seconds
        self.keep_steady()
        self.assertIs(self.reactor.seconds, seconds)

    def test_a_clock_of_its_own_is_left_alone(self) -> None:
        clock = Clock()
        keep_steady(clock, self.monotonic.seconds)
        self.assertEqual(clock.seconds(), 0)


class ClockTests(SynchronousTestCase):
    """Which clock belongs to which."""

    def test_a_reactor_that_goes_by_the_wall_clock_is_seen_steadily(self) -> None:
        reactor: Any = IdleReactor()
        clock = steady(reactor)
        verifyObject(IReactorTime, clock)
        before = time.monotonic()
        self.assertTrue(before <= clock.seconds() <= time.monotonic())
        clock.callLater(5, reactor.calls.append, "called")
        self.assertEqual(list(clock.getDelayedCalls()), list(reactor.getDelayedCalls()))
        self.assertEqual(len(reactor.getDelayedCalls()), 1)

    def test_one_that_is_steady_is_left_as_it_is(self) -> None:
        reactor: Any = IdleReactor()
        keep_steady(reactor)
        for clock in (reactor, Clock(), steady(IdleReactor())):  # type: ignore[arg-type]
            self.assertIs(steady(clock), clock)

    def test_a_reactor_has_the_wall_clock_of_the_machine(self) -> None:
        reactor: Any = IdleReactor()
        self.assertIs(wall_of(steady(reactor)), time.time)
        keep_steady(reactor)
        self.assertIs(wall_of(reactor), time.time)

    def test_the_clock_of_a_test_has_its_own(self) -> None:
        clock = Clock()
        clock.advance(7)
        self.assertEqual(wall_of(clock)(), 7)
