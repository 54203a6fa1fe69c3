"""
Each check of the kit fails at a server that does it wrong, and only there.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.check.faults import FAULTS
from tests.check.joined import ProxiedLink, drive
from tests.check.scripted import Server
from txbits.check import CHECKS, GROUPS, Level, Outcome


def names(report, outcome):
    """The names of the checks that ended so."""
    return [each.check.name for each in report.results if each.outcome is outcome]


class FaultTests(SynchronousTestCase):
    """A server with one fault each."""

    def assert_each_fails_alone(self, group):
        for check in group:
            report = drive(Server(**FAULTS[check.name]), CHECKS)
            failed = {
                each.check.name: each.detail
                for each in report.results
                if each.outcome is Outcome.FAILED
            }
            self.assertEqual(list(failed), [check.name], failed)
            (detail,) = failed.values()
            self.assertTrue(detail)
            # Words for people, not what Python would write.
            self.assertNotRegex(detail, r"\bb['\"]|\bNone\b|bytearray|<class")

    def test_every_check_has_a_fault(self):
        self.assertEqual({check.name for check in CHECKS}, set(FAULTS))

    def test_every_group_has_a_test(self):
        for group in GROUPS:
            name = f"test_{group.title.lower().replace(' ', '_').replace('-', '_')}"
            self.assertTrue(hasattr(self, name), name)

    def test_acks(self):
        self.assert_each_fails_alone(GROUPS[0])

    def test_create_session(self):
        self.assert_each_fails_alone(GROUPS[1])

    def test_forms_of_packets(self):
        self.assert_each_fails_alone(GROUPS[2])

    def test_ranges(self):
        self.assert_each_fails_alone(GROUPS[3])

    def test_fragments(self):
        self.assert_each_fails_alone(GROUPS[4])

    def test_endings(self):
        self.assert_each_fails_alone(GROUPS[5])

    def test_publishing(self):
        self.assert_each_fails_alone(GROUPS[6])


class NoFaultTests(SynchronousTestCase):
    """A server without a fault."""

    def test_everything_that_applies_passes(self):
        report = drive(Server(), CHECKS)
        self.assertEqual(names(report, Outcome.FAILED), [])
        self.assertEqual(
            names(report, Outcome.NOT_APPLICABLE), ["create-host-id-has-timeout"]
        )

    def test_everything_passes_through_a_proxy_that_drops_what_it_has_at_the_end(self):
        clock = Clock()
        report = drive(Server(), CHECKS, link=partial(ProxiedLink, clock), clock=clock)
        self.assertEqual(names(report, Outcome.FAILED), [])

    def test_a_proxy_that_never_hands_it_on_fails(self):
        clock = Clock()
        report = drive(
            Server(keeps=False), CHECKS, link=partial(ProxiedLink, clock), clock=clock
        )
        self.assertEqual(names(report, Outcome.FAILED), ["cut-fragment-is-kept"])

    def test_one_that_leaves_out_what_iis_does_fails_four(self):
        # See the captures in tests/vectors/foreign.
        def leave_out(server, request, answer):
            answer.headers.pop("BITS-Error", None)
            if request.kind != "create-session":
                answer.headers.pop("BITS-Session-Id", None)

        report = drive(Server(after=leave_out), CHECKS)
        levels = {
            each.check.name: each.check.level
            for each in report.results
            if each.outcome is Outcome.FAILED
        }
        self.assertEqual(
            levels,
            {
                "success-names-session": Level.MUST,
                "close-names-session": Level.MUST,
                "refusal-names-session": Level.TXBITS,
                "refusal-has-both-errors": Level.TXBITS,
            },
        )
