"""
Work handed to threads: how it comes back, on the real reactor.
"""

from __future__ import annotations

from threading import Event, current_thread, main_thread

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from txbits.backends._threads import MOST_THREADS, Threads


def broken():
    raise KeyError("x")


class ThreadsTests(TestCase):
    """Real threads."""

    def setUp(self):
        self.threads = Threads(reactor)
        self.addCleanup(self.threads.stop)

    async def test_work_is_done_elsewhere_and_told_here(self):
        self.assertIsNot(await self.threads(current_thread), main_thread())
        self.assertIs(current_thread(), main_thread())

    async def test_a_failure_is_passed_on(self):
        failing = self.threads(broken)
        with self.assertRaises(KeyError):
            await failing
        self.assertEqual(await self.threads(max, 1, 2), 2)

    async def test_every_outcome_comes_back_to_its_own(self):
        work = [self.threads(lambda x: x * 2, number) for number in range(3000)]
        self.assertEqual(await gatherResults(work), list(range(0, 6000, 2)))
        self.assertLessEqual(len(self.threads._threads), MOST_THREADS)

    async def test_one_at_a_time_needs_one_thread(self):
        for _ in range(20):
            await self.threads(max, 1, 2)
        self.assertEqual(len(self.threads._threads), 1)

    async def test_work_that_blocks_does_not_hold_the_rest(self):
        let_go = Event()
        self.addCleanup(let_go.set)
        blocked = self.threads(let_go.wait)
        self.assertEqual(await self.threads(max, 1, 2), 2)
        self.assertFalse(blocked.called)
        let_go.set()
        await blocked

    async def test_stopping_waits_for_work(self):
        let_go = Event()
        blocked = self.threads(let_go.wait)
        ended: list[None] = []
        threads = list(self.threads._threads)
        stopping = self.threads.stop().addCallback(lambda _: ended.append(None))
        self.assertEqual(ended, [])
        let_go.set()
        await stopping
        self.assertTrue(blocked.called)
        self.assertFalse(any(one.is_alive() for one in threads))

    def test_stopping_without_any_work_is_done_at_once(self):
        self.successResultOf(self.threads.stop())
