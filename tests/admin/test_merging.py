"""
The metrics of several workers become those of one server.
"""

from __future__ import annotations

import pickle
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txbits._counts import Histogram
from txbits.admin.merging import Totals
from txbits.admin.metrics import METRICS, STATES, WORKERS, Snapshot

AT = {one.name: at for at, one in enumerate(METRICS)}


def told(directories=("/",), shared=(), **values):
    """What a worker tells: values by names of metrics, without prefix, and labels."""
    all_values = [[] for _ in METRICS]
    for name, series in values.items():
        all_values[AT[f"txbits_{name}"]] = list(series.items())
    return Snapshot(all_values, frozenset(directories), frozenset(shared))


class TotalsTests(SynchronousTestCase):
    def setUp(self):
        self.totals = Totals()

    def of(self, name, totals=None):
        """The merged values of a metric, by labels."""
        merged = (totals or self.totals).snapshot({})
        return dict(merged.values[AT[f"txbits_{name}"]])

    def note(self, worker, **values):
        self.totals.note(worker, told(**values))

    def test_counters_and_histograms_add_up(self):
        one, other = Histogram(), Histogram()
        one.observe(0.5)
        other.observe(0.5)
        other.observe(3)
        self.note(0, close_seconds={("/",): one}, received_bytes_total={("/",): 5})
        self.note(1, close_seconds={("/",): other}, received_bytes_total={("/",): 7})
        merged = self.of("close_seconds")["/",]
        self.assertEqual((merged.total, merged.seconds), (3, 4))
        self.assertEqual(one.total, 1)
        self.assertEqual(self.of("received_bytes_total"), {("/",): 12})

    def test_series_that_one_worker_has_are_there(self):
        self.note(0, packets_total={("/", "Ping", "200"): 5})
        self.note(1, packets_total={("/", "Ping", "401"): 7})
        self.assertEqual(
            self.of("packets_total"), {("/", "Ping", "200"): 5, ("/", "Ping", "401"): 7}
        )

    def test_what_a_worker_had_counted_remains_when_it_ends(self):
        histogram = Histogram()
        histogram.observe(1)
        values = {
            "received_bytes_total": {("/",): 5},
            "close_seconds": {("/",): histogram},
        }
        for times in range(1, 4):
            self.note(0, **values)
            self.assertEqual(self.of("received_bytes_total"), {("/",): 5 * times})
            self.totals.ended(0)
            self.assertEqual(self.of("received_bytes_total"), {("/",): 5 * times})
            self.assertEqual(self.of("close_seconds")["/",].total, times)
        self.totals.ended(0)
        self.assertEqual(self.of("received_bytes_total"), {("/",): 15})

    def test_one_that_ends_before_it_has_told_anything_had_nothing(self):
        self.totals.ended(0)
        self.note(1, received_bytes_total={("/",): 5})
        self.assertEqual(self.of("received_bytes_total"), {("/",): 5})

    def test_sessions_of_one_that_has_ended_count_until_its_successor_tells(self):
        self.note(0, sessions={("/",): 3}, connections={("new",): 8})
        self.note(1, sessions={("/",): 4}, connections={("new",): 2})
        self.totals.ended(0)
        self.assertEqual(self.of("sessions"), {("/",): 7})
        self.assertEqual(self.of("connections"), {("new",): 2})
        self.note(0, sessions={("/",): 1}, connections={("new",): 1})
        self.assertEqual(self.of("sessions"), {("/",): 5})
        self.assertEqual(self.of("connections"), {("new",): 3})

    def test_sessions_of_a_store_that_all_share_count_once(self):
        both = {"directories": ("/", "/s3"), "shared": ("/s3",)}
        self.note(0, **both, sessions={("/",): 3, ("/s3",): 20})
        self.note(1, **both, sessions={("/",): 4, ("/s3",): 21})
        self.assertEqual(self.of("sessions"), {("/",): 7, ("/s3",): 21})
        self.totals.ended(1)
        self.assertEqual(self.of("sessions"), {("/",): 7, ("/s3",): 21})

    def test_a_reload_of_all_workers_is_one(self):
        key = ("settings", "succeeded")
        self.note(0, reloads_total={key: 2})
        self.note(1, reloads_total={key: 2})
        self.assertEqual(self.of("reloads_total"), {key: 2})
        self.totals.ended(1)
        self.note(1, reloads_total={key: 1})
        self.note(0, reloads_total={key: 3})
        self.assertEqual(self.of("reloads_total"), {key: 3})
        self.totals.ended(0)
        self.note(0, reloads_total={key: 0})
        self.assertEqual(self.of("reloads_total"), {key: 3})

    def test_the_server_has_started_when_the_first_worker_has(self):
        for start in (20, 30, 25):
            self.note(0, start_time_seconds={(): start})
            self.totals.ended(0)
        self.note(0, start_time_seconds={(): 40})
        self.assertEqual(self.of("start_time_seconds"), {(): 20})

    def test_extremes(self):
        for worker, value in enumerate((3, 9, 5)):
            self.note(
                worker,
                oldest_session_idle_seconds={("/",): value},
                certificate_expiry_timestamp_seconds={("a",): value},
            )
        self.assertEqual(self.of("oldest_session_idle_seconds"), {("/",): 9})
        self.assertEqual(self.of("certificate_expiry_timestamp_seconds"), {("a",): 3})

    def test_a_directory_that_was_removed_leaves_nothing(self):
        both = {("/", "x"): 1, ("/old", "x"): 1, ("", "x"): 1}
        self.note(0, directories=("/", "/old"), refusals_total=both)
        self.totals.ended(0)
        self.assertEqual(self.of("refusals_total"), both)
        self.note(0, refusals_total={("/", "x"): 1})
        self.assertEqual(self.of("refusals_total"), {("/", "x"): 2, ("", "x"): 1})

    def test_the_states_of_workers_are_told(self):
        merged = self.totals.snapshot(dict.fromkeys(STATES, 2))
        self.assertEqual(
            merged.values[METRICS.index(WORKERS)], [((one,), 2) for one in STATES]
        )

    def test_a_snapshot_can_be_sent_to_another_process(self):
        histogram = Histogram()
        histogram.observe(1)
        sent = pickle.dumps(told(close_seconds={("/",): histogram}))
        self.totals.note(0, pickle.loads(sent))
        self.assertEqual(self.of("close_seconds")["/",].counts, histogram.counts)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 2), st.sampled_from(["count", "count", "tell", "end"])
            ),
            max_size=40,
        )
    )
    def test_a_counter_never_goes_back_and_loses_only_what_nobody_was_told(self, acts):
        totals, counted, known, lost = Totals(), Counter(), Counter(), 0
        before = 0
        for worker, act in acts:
            if act == "count":
                counted[worker] += 1
            elif act == "tell":
                known[worker] = counted[worker]
                value = {("/",): counted[worker] - known["before", worker]}
                totals.note(worker, told(received_bytes_total=value))
            else:
                lost += counted[worker] - known[worker]
                counted[worker] = known[worker]
                known["before", worker] = known[worker]
                totals.ended(worker)
            now = self.of("received_bytes_total", totals).get(("/",), 0)
            self.assertEqual(now, sum(known[one] for one in range(3)))
            self.assertGreaterEqual(now, before)
            before = now
