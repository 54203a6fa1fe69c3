"""
The supervisor asks its workers, every few seconds, what they have counted.
"""

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.admin.test_merging import AT, told
from txbits.admin.metrics import METRICS, WORKERS
from txbits.service._channel import PeerFailed
from txbits.service._workers._watch import (
    INTERVAL,
    MOST_SILENT,
    PATIENCE,
    Watch,
)


@define(eq=False)
class FakeMember:
    """A worker that answers when a test wants it to."""

    number: int
    received: int = 0
    state: str = "running"
    is_there: bool = True
    report: dict = field(factory=dict)
    says: dict = field(factory=dict)
    failure: Exception | None = None
    pending: Deferred | None = None
    asked: int = 0
    pid: int = 1

    def kill(self):
        self.is_there = False

    @property
    def is_running(self):
        return self.state == "running" and self.is_there

    def ask(self, what):
        if what == "report":
            self.asked += 1
            return succeed(self.says)
        if self.failure is not None:
            return fail(self.failure)
        snapshot = told(received_bytes_total={("/",): self.received})
        if self.pending is None:
            return succeed(snapshot)
        return self.pending.addCallback(lambda _: snapshot)


class WatchTests(SynchronousTestCase):
    def setUp(self):
        self.clock = Clock()
        self.members = {number: FakeMember(number, 10) for number in range(3)}
        self.changes = 0
        self.watch = Watch(self.clock, 3, lambda: self.members, True, self.changed)
        self.watch.start()
        self.addCleanup(self.watch.stop)

    def changed(self):
        self.changes += 1

    def read(self):
        """The merged count, after the time that a silent worker gets."""
        reading = self.watch.metrics()
        if not reading.called:
            self.clock.advance(PATIENCE)
        merged = self.successResultOf(reading)
        return dict(merged.values[AT["txbits_received_bytes_total"]])["/",]

    def count(self, **states):
        self.assertEqual(
            {state: n for state, n in self.watch.states().items() if n}, states
        )

    def test_all_are_asked_whenever_somebody_wants_to_know(self):
        self.assertEqual(self.read(), 30)
        self.members[0].received = 15
        self.assertEqual(self.read(), 35)
        self.count(running=3)

    def test_there_are_some_before_anyone_runs(self):
        for member in self.members.values():
            member.state = "starting"
        merged = self.successResultOf(self.watch.metrics())
        self.assertEqual(dict(merged.values[METRICS.index(WORKERS)])["starting",], 3)
        self.assertEqual(merged.values[AT["txbits_received_bytes_total"]], [])

    def test_what_one_had_counted_seconds_before_it_was_killed_remains(self):
        self.clock.advance(INTERVAL)
        self.members[1].received = 99
        self.members[1].is_there = False
        self.watch.ended(self.members[1])
        self.assertEqual(self.read(), 30)
        self.count(running=2, ended=1)
        self.members[1] = FakeMember(1, 1, "starting")
        self.count(running=2, starting=1)
        self.assertEqual(self.read(), 30)
        self.members[1].state = "running"
        self.assertEqual(self.read(), 31)

    def test_the_last_figures_of_a_silent_one_count(self):
        self.assertEqual(self.read(), 30)
        silent = self.members[2]
        silent.pending, silent.received = Deferred(), 50
        self.members[0].received = 11
        self.assertEqual(self.read(), 31)
        self.count(running=2, silent=1)
        # It is not asked again before it has answered.
        asked = silent.asked
        self.assertEqual(self.read(), 31)
        self.assertEqual(silent.asked, asked)
        silent.pending.callback(None)
        self.count(running=3)
        silent.pending = None
        self.assertEqual(self.read(), 71)

    def test_the_others_are_told_of_a_silent_one_until_it_answers(self):
        self.read()
        self.assertEqual(self.watch.obstacles(0), [])
        silent = self.members[2]
        silent.pending, before = Deferred(), self.changes
        self.read()
        self.assertEqual(self.watch.obstacles(0), ["worker 2 does not answer"])
        self.assertEqual(self.watch.obstacles(2), [])
        self.assertEqual(self.changes, before + 1)
        silent.pending.callback(None)
        silent.pending = None
        self.assertEqual(self.watch.obstacles(0), [])
        self.read()
        self.assertEqual(self.changes, before + 2)

    def test_an_answer_of_one_that_has_ended_meanwhile_counts_nothing(self):
        self.assertEqual(self.read(), 30)
        late = self.members[2]
        late.pending, late.received = Deferred(), 50
        self.clock.advance(INTERVAL)
        late.is_there = False
        self.watch.ended(late)
        self.members[2] = FakeMember(2, 1)
        self.assertEqual(self.read(), 31)
        late.pending.callback(None)
        self.assertEqual(self.read(), 31)

    def test_one_that_cannot_answer_is_silent(self):
        self.members[0].failure = PeerFailed("metrics: broken")
        self.assertEqual(self.read(), 20)
        self.count(running=2, silent=1)
        self.members[0].failure = ConnectionLost()
        self.assertEqual(self.read(), 20)

    def test_a_mistake_of_ours_is_logged(self):
        self.members[0].failure = ValueError("mistake")
        self.assertEqual(self.read(), 20)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_obstacles_of_others(self):
        self.members[0].says = {"obstacles": ["/: full"]}
        self.assertEqual(self.changes, 0)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.changes, 1)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.changes, 1)
        del self.members[2]
        self.assertEqual(self.watch.obstacles(0), ["worker 2 is not running"])
        self.assertEqual(
            self.watch.obstacles(1), ["worker 2 is not running", "worker 0: /: full"]
        )

    def test_without_metrics_only_the_health_is_asked_for(self):
        watch = Watch(self.clock, 3, lambda: self.members, False, self.changed)
        watch.start()
        self.addCleanup(watch.stop)
        self.members[0].failure = ValueError("not to be asked")
        self.watch.stop()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.members[0].asked, 1)

    def test_one_that_is_silent_for_long_is_killed(self):
        silent = self.members[1]
        silent.pending = Deferred()
        self.clock.advance(INTERVAL)
        self.assertTrue(self.watch.is_well)
        for _ in range(MOST_SILENT - 1):
            self.clock.advance(INTERVAL)
            self.assertFalse(self.watch.is_well)
        self.assertTrue(silent.is_there)
        self.clock.advance(INTERVAL)
        self.assertFalse(silent.is_there)
        self.assertEqual(silent.asked, 1)
        self.assertFalse(self.watch.is_well)
        self.members[1] = FakeMember(1)
        self.assertTrue(self.watch.is_well)

    def test_one_that_answers_with_a_fault_is_not_killed(self):
        self.members[1].failure = PeerFailed("metrics: broken")
        self.clock.pump([INTERVAL] * (MOST_SILENT + 2))
        self.assertTrue(self.members[1].is_there)
        self.assertTrue(self.watch.is_well)

    def test_nothing_is_well_without_it(self):
        self.assertTrue(self.watch.is_well)
        self.watch.stop()
        self.assertFalse(self.watch.is_well)

    def test_it_ends(self):
        self.watch.stop()
        self.watch.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
