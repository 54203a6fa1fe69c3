"""
A node whose wall clock is set while sessions are under way: neither they nor closes
grow older for that. What is old is so by the store's clock.
"""

from __future__ import annotations

from tests.backends.s3.test_requests import CALLER, Body, RequestCase
from tests.clocks import Ahead
from txbits.protocol.codec import ContentRange
from txbits.sessions import SessionManager, Settings
from txbits.testing.backend import contract

NAME = ("name.txt",)
DAYS = 20 * 86_400.0


class ClockTests(RequestCase):
    """One node, and a clock that is set by 20 days."""

    starts_in_full = True

    async def started_node(self):
        """A manager, and the clock of its machine."""
        clock = Ahead()
        backend = self.node()
        backend._reactor = clock
        manager = SessionManager(backend, Settings(), clock)
        await manager.start()
        self.addCleanup(manager.stop)
        return manager, clock

    async def send(self, manager, session_id, first, data, total):
        content_range = ContentRange(first, first + len(data) - 1, total)
        received = await manager.fragment(
            session_id, NAME, CALLER, content_range, Body(data)
        )
        self.assertEqual(received.offset, first + len(data))

    @contract
    async def test_a_session_goes_on(self):
        manager, clock = await self.started_node()
        for seconds in (DAYS, -2 * DAYS):
            session_id = await manager.create(NAME, CALLER, None)
            await self.send(manager, session_id, 0, b"01234", 10)
            clock.wall.set(seconds)
            await self.send(manager, session_id, 5, b"567", 10)
            (summary,) = await manager.backend.sessions()
            self.assertApproximates(summary.last_progress, manager.wall(), 60)
            await manager._upkeep.clean_up()
            manager.backend.staging.known.forget_all()
            await self.send(manager, session_id, 8, b"89", 10)
            await manager.close(session_id, NAME, CALLER)
            self.assertEqual(await self.file_at(manager.backend, NAME), b"0123456789")
            manager.settings = Settings(allow_overwrites=True)
            manager.reconfigure(manager.settings)

    @contract
    async def test_a_close_is_remembered(self):
        manager, clock = await self.started_node()
        session_id = await manager.create(NAME, CALLER, None)
        await self.send(manager, session_id, 0, b"whole", 5)
        await manager.close(session_id, NAME, CALLER)
        clock.wall.set(DAYS)
        await manager._upkeep.clean_up()
        await manager.close(session_id, NAME, CALLER)

    @contract
    async def test_a_store_whose_clock_is_quite_different_is_believed(self):
        clock = Ahead(DAYS)
        backend = self.node()
        backend._reactor = clock
        manager = SessionManager(backend, Settings(), clock)
        await manager.start()
        self.addCleanup(manager.stop)
        session_id = await manager.create(NAME, CALLER, None)
        await self.send(manager, session_id, 0, b"01234", 10)
        manager.backend.staging.known.forget_all()
        (summary,) = await backend.sessions()
        self.assertApproximates(summary.last_progress, manager.wall(), 120)
        await self.send(manager, session_id, 5, b"56789", 10)
