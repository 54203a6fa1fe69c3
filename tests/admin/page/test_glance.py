"""
What the page shows: samples of the last hour, refusals, and what several processes say.
"""

from __future__ import annotations

import json

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import alsoProvides

from tests.admin.page.support import NOW, glance, record, refused
from tests.web.support import (
    PATH,
    UNKNOWN_ID,
    Authenticator,
    WebCase,
    fragment,
    packet,
    request,
)
from txbits._counts import Counts, Histogram, Refusals
from txbits._workers import Worker
from txbits.admin.figures import Figures
from txbits.admin.health import Health
from txbits.admin.page import Gatherer, Glance, Sampler, merged
from txbits.admin.page.glance import (
    MOST_BUSIEST,
    MOST_REFUSALS,
    REFUSALS_LAST,
    DirectoryState,
    ProcessState,
)
from txbits.admin.page.samples import INTERVAL, MOST_SAMPLES, Rates
from txbits.errors import BackendError, CredentialsIncomplete
from txbits.interfaces import IShared


class RefusalsTests(SynchronousTestCase):
    """The last refusals of a directory."""

    def test_one_client_and_reason_are_one_entry_with_the_last_packet(self):
        refusals = Refusals()
        refusals.add(refused(at=1, destination="a"))
        refusals.add(refused("quota-reached", at=2))
        refusals.add(refused(at=3, destination="b"))
        first, second = refusals.since(0)
        self.assertEqual((first.count, first.destination, first.at), (2, "b", 3))
        self.assertEqual((second.refusal, second.count), ("quota-reached", 1))

    def test_other_clients_and_users_are_entries_of_their_own(self):
        refusals = Refusals()
        for known in ({}, {"client": "192.0.2.9"}, {"user": "eve"}, {"user": None}):
            refusals.add(refused(**known))
        self.assertEqual([one.count for one in refusals.since(0)], [1, 1, 1, 1])

    def test_the_oldest_entry_is_dropped(self):
        refusals = Refusals(2)
        for number in (1, 2, 1, 3):
            refusals.add(refused(client=f"192.0.2.{number}"))
        self.assertEqual(
            [one.client for one in refusals.since(0)], ["192.0.2.3", "192.0.2.1"]
        )

    def test_old_ones_are_left_out(self):
        refusals = Refusals()
        refusals.add(refused(at=10))
        self.assertEqual(refusals.since(11), [])


class GatheringCase(WebCase):
    """A server whose figures are gathered."""

    def setUp(self):
        super().setUp()
        self.directories = [("/logs", self.resource.manager)]
        self.unmounted = Counts(self.clock.seconds)
        self.delays = Histogram()
        self.figures = Figures(
            lambda: self.directories,
            self.unmounted,
            self.site,
            lambda: [("[::]:443", NOW)],
            {},
            self.delays,
            NOW,
        )
        self.health = Health(lambda: self.directories)
        self.health.state = "running"
        self.sampler = Sampler(self.figures, self.clock)
        self.stopped = self.sampler.start()
        self.gather = Gatherer(
            self.figures,
            self.health,
            self.sampler,
            lambda: {"/logs": "memory:"},
            self.clock.seconds,
            "here",
        )


class SamplerTests(GatheringCase):
    """What happened within the last hour."""

    def test_a_sample_has_what_happened_since_the_one_before(self):
        session_id = self.create()
        self.ask(fragment(session_id, 0, b"x" * 50, 100))
        self.ask(fragment(UNKNOWN_ID, 0, b"x" * 50, 100))
        self.clock.advance(INTERVAL)
        self.clock.advance(INTERVAL)
        self.assertEqual(
            self.sampler.rates(),
            Rates(
                INTERVAL,
                received=(5.0, 0.0),
                packets=(0.3, 0.0),
                refusals=(0.1, 0.0),
                sessions=(1, 1),
            ),
        )

    def test_sessions_that_all_workers_see_are_counted_by_the_first(self):
        self.create()
        for shares, second in ((False, 1), (True, 0)):
            if shares:
                alsoProvides(self.backend, IShared)
            for number, sessions in ((0, 1), (1, second)):
                worker = Worker(number, 2)
                sampler = Sampler(self.figures, self.clock, worker)
                stopped = sampler.start()
                self.clock.advance(INTERVAL)
                self.assertEqual(sampler.rates().sessions, (sessions,))
                gather = evolve(self.gather, worker=worker)
                self.assertEqual(gather().directories[0].sessions, sessions)
                sampler.stop()
                self.successResultOf(stopped)

    def test_samples_are_those_of_an_hour(self):
        self.clock.pump([INTERVAL] * (MOST_SAMPLES + 5))
        self.assertEqual(len(self.sampler.rates().received), 3600 / INTERVAL)

    def test_what_happened_before_the_first_sample_is_not_its_rate(self):
        self.create()
        sampler = Sampler(self.figures, self.clock)
        stopped = sampler.start()
        self.clock.advance(INTERVAL)
        self.assertEqual(sampler.rates().packets, (0.0,))
        sampler.stop()
        self.successResultOf(stopped)

    def test_a_directory_that_is_gone_makes_no_negative_rates(self):
        self.create()
        self.clock.advance(INTERVAL)
        self.directories.clear()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.sampler.rates().packets, (0.1, 0.0))

    def test_a_late_sample_is_of_a_longer_time(self):
        self.create()
        self.clock.advance(2 * INTERVAL)
        self.assertEqual(self.sampler.rates().packets, (0.05,))

    def test_the_delay_is_the_average_since_the_sample_before(self):
        for seconds in (1.0, 2.0):
            self.delays.observe(seconds)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.sampler.delay, 1.5)
        self.delays.observe(4.0)
        self.clock.advance(INTERVAL)
        self.assertEqual(self.sampler.delay, 4.0)

    def test_stopping_twice_is_fine(self):
        self.sampler.stop()
        self.successResultOf(self.stopped)
        self.sampler.stop()
        self.clock.advance(INTERVAL)
        self.assertEqual(self.sampler.rates(), Rates())


class GathererTests(GatheringCase):
    """What this process knows."""

    def test_directories_and_processes(self):
        self.create()
        found = self.gather()
        self.assertEqual(found.at, self.clock.seconds())
        self.assertEqual(
            found.directories,
            (DirectoryState("/logs", "memory:", True, (), 1, 0, 0, 0),),
        )
        (process,) = found.processes
        self.assertEqual((process.name, process.started), ("here", NOW))
        self.assertEqual(found.certificates, (("[::]:443", NOW),))
        self.assertEqual(found.obstacles, ())

    def test_a_store_that_fails_is_an_obstacle_and_a_trouble(self):
        gate = self.backend.hold("create")
        peer = self.peer()
        peer.send(packet(b"Create-Session"))
        gate.fail(BackendError("on fire"))
        gate.open()
        self.assert_refused(self.answer(peer), "storage-fault")
        found = self.gather()
        (directory,) = found.directories
        self.assertEqual(directory.troubles, ("no session can be created",))
        self.assertEqual(directory.errors, 1)
        self.assertEqual(found.obstacles, ("/logs: no session can be created",))

    def test_refusals_tell_who_and_what_and_why(self):
        response = self.ask(fragment(UNKNOWN_ID, 0, b"x", 2))
        self.assert_refused(response, "session-not-found", UNKNOWN_ID)
        (one,) = self.gather().refusals
        self.assertEqual(
            (one.refusal, one.client, one.user, one.packet, one.destination),
            ("session-not-found", "192.0.2.1", None, "Fragment", "a/b.txt"),
        )
        self.assertEqual((one.status, f"{one.hresult:X}"), (500, "8020001F"))
        self.assertEqual(one.at, self.clock.seconds())

    def test_what_a_peer_says_is_made_safe(self):
        self.ask(request(b"PUT", b"/a%0a%1b[31m/" + b"x" * 1000))
        (one,) = self.gather().refusals
        self.assertTrue(one.destination.isprintable())
        self.assertLess(len(one.destination), 310)
        self.assertEqual(one.packet, "other")

    def test_a_step_of_a_login_is_no_refusal_to_show(self):
        asked = Authenticator(CredentialsIncomplete("step", b"Told 1"))
        self.serve(authenticators=[asked])
        self.directories[:] = [("/", self.resource.manager)]
        self.assertEqual(self.ask(packet(b"Create-Session")).status, 401)
        self.assertEqual(self.gather().refusals, ())

    def test_the_sessions_with_most_bytes_a_second_are_the_busiest(self):
        for number in range(MOST_BUSIEST + 2):
            session_id = self.create(f"/{number}".encode())
            peer = self.peer()
            count = 100 * (number + 1)
            sent = fragment(
                session_id, 0, b"x" * 9999, 20_000, target=f"/{number}".encode()
            )
            peer.send(sent[: count - 9999])
        self.clock.advance(1)
        found = self.gather().busiest
        self.assertEqual(
            [one.destination for one in found],
            [str(number) for number in range(MOST_BUSIEST + 1, 1, -1)],
        )
        self.assertEqual((found[0].bytes, found[0].rate), (1000, 1000.0))

    def test_an_upload_that_rests_is_not_busy(self):
        session_id = self.create()
        self.ask(fragment(session_id, 0, b"x" * 50, 100))
        self.clock.advance(60)
        self.assertEqual(self.gather().busiest, ())

    def test_refusals_are_shown_for_some_minutes(self):
        self.ask(request(b"PUT", PATH))
        self.clock.advance(REFUSALS_LAST)
        self.assertEqual(len(self.gather().refusals), 1)
        self.clock.advance(1)
        self.assertEqual(self.gather().refusals, ())

    def test_the_latest_refusals_of_all_directories_are_shown(self):
        for number in range(30):
            self.clock.advance(1)
            counts = [self.unmounted, self.resource.manager.counts][number % 2]
            counts.refused.add(
                refused(client=f"192.0.2.{number}", at=self.clock.seconds())
            )
        found = self.gather().refusals
        self.assertEqual(
            [one.client for one in found],
            [f"192.0.2.{number}" for number in range(29, 29 - MOST_REFUSALS, -1)],
        )


SERIES = st.lists(st.floats(0, 1e12), max_size=5).map(tuple)
RATES = st.builds(Rates, st.just(INTERVAL), SERIES, SERIES, SERIES, SERIES)
GLANCES = st.builds(
    Glance,
    st.floats(0, 1e10),
    st.lists(st.text(), max_size=2).map(tuple),
    RATES,
    st.lists(
        st.builds(
            DirectoryState,
            st.sampled_from(["/a", "/b"]),
            st.text(),
            st.booleans(),
            st.lists(st.text(), max_size=2).map(tuple),
            *[st.integers(0, 2**60)] * 4,
        ),
        max_size=2,
        unique_by=lambda one: one.mount,
    ).map(tuple),
    st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0, 1e10)), max_size=2).map(
        tuple
    ),
    st.lists(st.floats(0, 1e10).map(lambda at: refused(at=at)), max_size=3).map(tuple),
    st.lists(st.floats(0, 1e10).map(lambda rate: record(rate=rate)), max_size=3).map(
        tuple
    ),
    st.lists(
        st.builds(
            ProcessState,
            st.text(),
            st.integers(1, 2**22),
            st.floats(0, 1e10),
            st.integers(0, 2**30),
            st.integers(0, 2**30),
            st.floats(0, 100),
        ),
        max_size=2,
    ).map(tuple),
)


class SeveralProcessTests(SynchronousTestCase):
    """Glances of several processes, which come as JSON."""

    @given(GLANCES)
    def test_a_glance_survives_json(self, one):
        self.assertEqual(Glance.of_json(json.loads(json.dumps(one.as_json()))), one)

    @given(GLANCES)
    def test_one_alone_is_as_it_was(self, one):
        unique = evolve(
            one,
            obstacles=tuple(dict.fromkeys(one.obstacles)),
            refusals=tuple(sorted(one.refusals, key=lambda it: it.at, reverse=True)),
            busiest=tuple(sorted(one.busiest, key=lambda it: it.rate, reverse=True)),
            certificates=(),
            directories=(),
        )
        self.assertEqual(merged([unique]), unique)

    @given(st.lists(GLANCES, min_size=1, max_size=3))
    def test_sessions_and_rates_are_added(self, glances):
        found = merged(glances)
        self.assertEqual(
            sum(one.sessions for one in found.directories),
            sum(one.sessions for each in glances for one in each.directories),
        )
        mounts = [one.mount for one in found.directories]
        self.assertEqual(len(mounts), len(set(mounts)))
        latest = [each.rates.packets[-1:] for each in glances]
        self.assertAlmostEqual(
            sum(found.rates.packets[-1:]), sum(map(sum, latest)), delta=1e-3
        )

    def test_the_earlier_end_of_a_certificate_counts(self):
        glances = [
            glance(certificates=(("x", 3.0),)),
            glance(certificates=(("x", 2.0),)),
        ]
        self.assertEqual(merged(glances).certificates, (("x", 2.0),))

    def test_the_busiest_of_all_are_shown(self):
        glances = [
            glance(busiest=tuple(record(one, rate=float(one)) for one in numbers))
            for numbers in (range(20, 10, -2), range(19, 9, -2))
        ]
        self.assertEqual(
            [one.rate for one in merged(glances).busiest],
            [float(rate) for rate in range(20, 20 - MOST_BUSIEST, -1)],
        )

    def test_series_that_began_later_have_the_same_end(self):
        one = glance(rates=Rates(packets=(1.0, 2.0, 3.0)))
        other = glance(rates=Rates(packets=(10.0,)))
        self.assertEqual(merged([one, other]).rates.packets, (1.0, 2.0, 13.0))


class WallClockTests(SynchronousTestCase):
    """Counts know the time of day."""

    def test_a_directory_goes_by_its_own_clock(self):
        clock = Clock()
        clock.advance(5)
        self.assertEqual(Counts(clock.seconds).wall(), 5)
