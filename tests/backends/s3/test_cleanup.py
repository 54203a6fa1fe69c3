"""
Looks at all that there is: they end when the store is away, and when nobody wants to
know any more.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.backends.s3.support import S3Case
from tests.backends.s3.test_requests import RequestCase
from tests.clocks import Ahead
from tests.fault_proxy import Break, FaultProxy
from txbits._deferreds import begun
from txbits.backends.s3._responses import S3Unreachable
from txbits.backends.s3._together import a_few_at_a_time
from txbits.errors import SessionLimitReached
from txbits.sessions import Caller
from txbits.testing.backend import contract


class AFewAtATimeTests(SynchronousTestCase):
    """Many things, done a few at a time."""

    def setUp(self):
        self.under_way: dict[int, Deferred[str]] = {}

    async def act(self, thing):
        mine = self.under_way[thing] = Deferred()
        try:
            return await mine
        finally:
            del self.under_way[thing]

    def test_the_outcomes_come_in_order(self):
        done = begun(a_few_at_a_time(2, self.act, range(4)))
        for one in (1, 0, 3, 2):
            self.assertEqual(len(self.under_way), 2 if one != 2 else 1)
            self.under_way[one].callback(str(one))
        self.assertEqual(self.successResultOf(done), ["0", "1", "2", "3"])

    def test_what_never_waits_is_done_whatever_their_number(self):
        async def at_once(thing):
            return thing

        done = begun(a_few_at_a_time(3, at_once, range(5000)))
        self.assertEqual(self.successResultOf(done), [*range(5000)])

    def test_a_failure_ends_the_others_and_begins_no_more(self):
        done = begun(a_few_at_a_time(3, self.act, range(9)))
        self.under_way[1].errback(ValueError("away"))
        self.assertEqual(self.under_way, {})
        self.assertEqual(str(self.failureResultOf(done, ValueError).value), "away")

    def test_a_failure_at_once_begins_no_more(self):
        begun_with = []

        async def fail(thing):
            begun_with.append(thing)
            raise ValueError(thing)

        done = begun(a_few_at_a_time(3, fail, range(9)))
        self.failureResultOf(done, ValueError)
        self.assertEqual(begun_with, [0])

    def test_it_can_be_cancelled(self):
        done = begun(a_few_at_a_time(3, self.act, range(9)))
        done.cancel()
        self.assertEqual(self.under_way, {})
        self.failureResultOf(done, CancelledError)


class AwayTests(S3Case):
    """The store does not answer."""

    @contract
    async def test_a_survey_ends_with_the_first_record_that_cannot_be_read(self):
        backend = await self._start(self.node(timeout=1))
        for number in range(40):
            await self.new(backend, (str(number),))
        client = self.client(backend)
        client.asked.clear()
        client.lose("GetObject", times=1000)
        with self.assertRaises(S3Unreachable):
            await backend.sessions()
        self.assertLessEqual(client.asked.count("GetObject"), 16)
        # None of them goes on behind anyone's back.
        before = client.counts["GetObject"]
        client.lose("GetObject", times=0)
        self.assertEqual(len(await backend.sessions()), 40)
        self.assertEqual(client.counts["GetObject"], before + 40)

    @contract
    async def test_a_request_that_is_cancelled_is_not_tried_again(self):
        proxy = FaultProxy.start(self, self.bucket.server.port)
        backend = await self._start(self.node(endpoint=proxy.endpoint))
        client = self.client(backend)
        before = client.counts.copy()
        for where in ("request", "answer"):
            proxy.break_next("GetObject", Break("stall", where))
            asking = begun(backend.staging.bucket.get("in/nothing", 10))
            while "GetObject" not in proxy.counts():
                await backend.staging.bucket.head("in/another")
            asking.cancel()
            with self.assertRaises(CancelledError):
                await asking
            proxy.forget()
        self.assertEqual((client.counts - before)["GetObject"], 2)


class StopTests(RequestCase):
    """A server that is to end."""

    async def _stops(self, operation):
        manager = await self.manager(self.node(timeout=1))
        await manager.create(("name.txt",), Caller("alice", "192.0.2.1"), None)
        manager.backend._survey._kept.clear()
        held, _ = self.client(manager.backend).hold(operation)
        round_ = manager._upkeep._clean_up()
        await held
        await self.turn()
        # Nobody lets it go on.
        await manager.stop()
        await round_
        self.assertFalse(manager._upkeep._running)

    @contract
    async def test_it_waits_for_no_listing(self):
        await self._stops("ListObjectsV2")

    @contract
    async def test_it_waits_for_no_record(self):
        await self._stops("GetObject")

    @contract
    async def test_it_waits_for_no_clean_up(self):
        await self._stops("ListMultipartUploads")


class CountTests(RequestCase):
    """How often sessions are counted."""

    @contract
    async def test_who_has_few_sessions_is_counted_seldom(self):
        manager = await self.manager(session_limit=4)
        alice = Caller("alice", "192.0.2.1")
        asked = []

        async def create(age):
            manager._upkeep.counted_at = manager.clock.seconds() - age
            await manager.create((f"{len(asked)}",), alice, None)
            asked.append(self.asked(manager)["ListObjectsV2"])

        await create(599)  # the first
        await create(601)
        await create(59)
        await create(61)  # half of the limit is used up
        self.assertEqual(asked, [1, 2, 1, 2])
        with self.assertRaises(SessionLimitReached):
            await create(0)
        self.assertEqual(self.asked(manager)["ListObjectsV2"], 1)

    @contract
    async def test_a_count_that_takes_long_holds_long(self):
        manager = await self.manager(session_limit=4)
        upkeep = manager._upkeep
        self.assertEqual(upkeep.holds, 60)
        held, goes_on = self.client(manager.backend).hold("ListObjectsV2")
        counting = upkeep.count_anew()
        await held
        upkeep._clock = Ahead(30.0)
        goes_on.callback(None)
        await counting
        self.assertApproximates(upkeep.holds, 600, 60)
