"""
Failures by key: how many are free, and how they are forgotten.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txbits._addresses import client_network
from txbits.access._throttle import RecentFailures, Throttle


class ThrottleTests(SynchronousTestCase):
    """``Throttle``, with three free failures, and one more every ten seconds."""

    def setUp(self):
        self.clock = Clock()
        self.failures = RecentFailures(4)
        self.throttle = Throttle(self.clock.seconds, 3, 10.0, self.failures)

    def test_a_burst_is_free_and_then_one_in_each_interval(self):
        for _ in range(3):
            self.assertEqual(self.throttle.wait("a"), 0)
            self.throttle.charge("a")
        self.assertEqual(self.throttle.wait("a"), 10)
        self.clock.advance(4)
        self.assertEqual(self.throttle.wait("a"), 6)
        self.clock.advance(6)
        self.assertEqual(self.throttle.wait("a"), 0)
        self.throttle.charge("a")
        self.assertEqual(self.throttle.wait("a"), 10)

    def test_keys_are_apart(self):
        for _ in range(5):
            self.throttle.charge("a")
        self.assertEqual(self.throttle.wait("b"), 0)

    def test_what_did_not_fail_leaves_nothing(self):
        for _ in range(100):
            self.throttle.charge("a")
            self.throttle.refund("a")
        self.assertEqual(self.throttle.wait("a"), 0)
        self.assertIsNone(self.failures.get("a"))
        self.throttle.refund("a")

    def test_memory_is_bounded_and_the_oldest_are_forgotten(self):
        for number in range(100):
            self.throttle.charge(str(number))
        known = [n for n in range(100) if self.failures.get(str(n)) is not None]
        self.assertEqual(known, [96, 97, 98, 99])

    @given(st.lists(st.sampled_from("cr1"), max_size=50))
    def test_a_wait_is_never_longer_than_the_failures_are(self, steps):
        clock = Clock()
        throttle = Throttle(clock.seconds, 3, 10.0)
        failures = 0
        for step in steps:
            if step == "c":
                throttle.charge("a")
                failures += 1
            elif step == "r":
                throttle.refund("a")
                failures = max(0, failures - 1)
            else:
                clock.advance(1)
            self.assertLessEqual(throttle.wait("a"), max(0, failures - 2) * 10)


class ClientNetworkTests(SynchronousTestCase):
    """``client_network``."""

    def test_all_addresses_that_one_client_has_are_one(self):
        for address, network in {
            "192.0.2.1": "192.0.2.1",
            "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
            "2001:db8:1:2::9": "2001:db8:1:2::/64",
            "2001:db8:1:3::9": "2001:db8:1:3::/64",
            "fe80::1%eth0": "fe80::/64",
            "::ffff:192.0.2.1": "192.0.2.1",
            "-": "-",
            "unknown": "unknown",
        }.items():
            self.assertEqual(client_network(address), network)
