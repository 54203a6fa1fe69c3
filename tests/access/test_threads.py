"""
Work in threads: its order, how much of it waits, and what is refused.
"""

from __future__ import annotations

import os
import threading

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.access.support import HeldThreads
from txbits.access._threads import Queue, new_thread, one_core_less
from txbits.errors import CredentialsUncheckable


class QueueTests(SynchronousTestCase):
    """``Queue``, with two pieces at once and two that may wait."""

    def setUp(self):
        self.threads = HeldThreads()
        self.queue = Queue(self.threads, 2, 2)
        self.done = []

    def call(self, name, **more):
        return self.queue.call(self.done.append, name, **more)

    def test_a_few_pieces_are_done_at_once_and_the_others_in_order(self):
        calls = [self.call(name) for name in "abcd"]
        self.assertEqual(self.threads.count, 2)
        self.threads.end_all()
        self.assertEqual(self.done, list("abcd"))
        for one in calls:
            self.assertIsNone(self.successResultOf(one))

    def test_more_than_may_wait_are_refused(self):
        for name in "abcd":
            self.assertEqual(self.queue.is_full, False)
            self.call(name)
        self.assertTrue(self.queue.is_full)
        error = self.failureResultOf(self.call("e"), CredentialsUncheckable).value
        self.assertEqual(error.retry_after, 5)
        self.threads.end_one()
        self.assertNoResult(self.call("f"))

    def test_urgent_work_is_next_and_never_refused(self):
        for name in "abcd":
            self.call(name)
        self.call("urgent", is_urgent=True)
        self.threads.end_all()
        self.assertEqual(self.done, ["a", "b", "urgent", "c", "d"])

    def test_an_error_reaches_the_caller_and_the_next_one_begins(self):
        def fails():
            raise ZeroDivisionError

        calls = [self.queue.call(fails) for _ in range(3)]
        self.threads.end_all()
        for one in calls:
            self.failureResultOf(one, ZeroDivisionError)

    def test_what_is_cancelled_before_its_turn_is_not_done(self):
        calls = [self.call(name) for name in "abcd"]
        for one in (calls[0], calls[2]):
            one.addErrback(lambda _: None)
            one.cancel()
        self.threads.end_all()
        self.assertEqual(self.done, list("abd"))


class NewThreadTests(TestCase):
    """``new_thread``, with the reactor."""

    async def test_a_function_runs_in_another_thread_and_its_result_arrives(self):
        ident = await new_thread(reactor)(threading.get_ident)
        self.assertNotEqual(ident, threading.get_ident())

    async def test_what_a_function_raises_arrives(self):
        with self.assertRaises(ValueError):
            await new_thread(reactor)(int, "x")

    def test_one_core_is_left_where_there_are_several(self):
        self.assertGreaterEqual(one_core_less(), 1)

    def test_workers_share_the_others(self):
        self.patch(os, "sched_getaffinity", lambda _: set(range(9)))
        threads = [one_core_less(workers) for workers in (1, 2, 3, 8, 9)]
        self.assertEqual(threads, [8, 4, 2, 1, 1])
