"""
Looks at all that there is: they end when the store is away, and when nobody wants to
know any more.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError

from tests.backends.s3.support import S3Case
from tests.backends.s3.test_requests import RequestCase
from tests.clocks import Ahead
from tests.fault_proxy import Break, FaultProxy
from txbits._deferreds import begun
from txbits.backends.s3._responses import S3Unreachable
from txbits.errors import SessionLimitReached
from txbits.sessions import Caller
from txbits.testing.backend import contract


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
        round_ = manager._upkeep.clean_up()
        await held
        await self.turn()
        # Nobody lets it go on.
        await manager.stop()
        await round_
        self.assertFalse(manager._upkeep.is_running)

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
        manager._active.clock = Ahead(30.0, manager._active.clock)
        goes_on.callback(None)
        await counting
        self.assertApproximates(upkeep.holds, 600, 60)
