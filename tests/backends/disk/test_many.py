"""
A root with a great many sessions: what looks at all of them does so in pieces, and ends
when the backend stops.
"""

from __future__ import annotations

import os
from uuid import UUID, uuid4

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed

from tests.backends.disk.mortal import DiskCase, MortalFiles
from txbits.backends.disk import DiskBackend


class HeldThreads:
    """
    Threads that do what they are asked when a test says so.

    :ivar jobs: What was asked for and is not done: a Deferred, and a function.
    :ivar count: How much was asked for.
    """

    def __init__(self):
        self.jobs = []
        self.count = 0

    def __call__(self, function, *args):
        self.count += 1
        done = Deferred()
        self.jobs.append((done, lambda: function(*args)))
        return done

    def work(self):
        """Do the next thing."""
        done, job = self.jobs.pop(0)
        maybeDeferred(job).chainDeferred(done)

    def work_off(self):
        """Do all."""
        while self.jobs:
            self.work()


class ManyTests(DiskCase):
    """Six hundred sessions."""

    def setUp(self):
        backend = self.start()
        self.ids = {uuid4() for _ in range(600)}
        for one in self.ids:
            self.create(backend, session_id=one)
        backend._files.die()
        self.root = backend.root
        self.threads = HeldThreads()
        self.backend = self.another()

    def another(self):
        return DiskBackend(
            self.root,
            reactor,
            in_thread=self.threads,
            files=MortalFiles(),  # type: ignore[arg-type]
        )

    def begin(self):
        starting = self.backend.start()
        self.threads.work_off()
        self.successResultOf(starting)
        self.addCleanup(self.end)
        self.threads.count = 0

    def end(self):
        stopping = self.backend.stop()
        self.threads.work_off()
        self.successResultOf(stopping)

    def test_the_start_finds_them(self):
        self.begin()
        self.assertEqual(set(self.backend._staging.table.ids()), self.ids)

    def test_they_are_read_a_page_at_a_time(self):
        self.begin()
        listing = self.backend.sessions()
        for _ in range(3):
            self.assertNoResult(listing)
            self.threads.work()
        listed = self.successResultOf(listing)
        self.assertEqual({one.session_id for one in listed}, self.ids)

    def test_no_page_is_read_while_one_is_looked_at(self):
        self.begin()
        looking: list[Deferred[None]] = []

        def look(page):
            looking.append(Deferred())
            return looking[-1]

        listing = self.backend.list_in_pages(look)
        self.threads.work()
        self.assertEqual((len(looking), self.threads.jobs), (1, []))
        looking[0].callback(None)
        self.assertEqual(self.threads.count, 2)
        listing.cancel()
        self.failureResultOf(listing, CancelledError)
        self.threads.work_off()
        self.assertEqual(self.threads.count, 2)

    def test_those_that_end_meanwhile_are_left_out(self):
        self.begin()
        pages = []

        def look(page):
            pages.append(page)
            for one in list(self.backend._staging.table.ids()):
                self.backend._staging.table.drop(one)
            return succeed(None)

        listing = self.backend.list_in_pages(look)
        self.threads.work_off()
        self.successResultOf(listing)
        self.assertEqual([len(page) for page in pages], [256, 0, 0])

    def test_a_clean_up_ends_when_it_is_cancelled(self):
        staging = os.path.join(self.root, ".bits-sessions")
        for number in range(2500):
            name = f"{str(UUID(int=number)).upper()}.part"
            os.close(os.open(os.path.join(staging, name), os.O_CREAT | os.O_WRONLY))
        self.begin()
        cleaning = self.backend.clean_up(0.0)
        for _ in range(2):
            self.threads.work()
        self.assertNoResult(cleaning)
        cleaning.cancel()
        self.failureResultOf(cleaning, CancelledError)
        self.threads.work_off()
        left = [name for name in os.listdir(staging) if name.endswith(".part")]
        self.assertTrue(0 < len(left) < 2500)
        again = self.backend.clean_up(0.0)
        self.threads.work_off()
        self.successResultOf(again)
        self.assertEqual(
            [name for name in os.listdir(staging) if name.endswith(".part")], []
        )

    def test_a_start_ends_when_it_is_cancelled(self):
        starting = self.backend.start()
        starting.cancel()
        self.failureResultOf(starting, CancelledError)
        # The thread has only just begun.
        self.threads.work_off()
        # It holds nothing: another may have the root.
        self.backend = self.another()
        self.begin()
        self.assertEqual(set(self.backend._staging.table.ids()), self.ids)

    def test_what_the_thread_had_done_by_then_is_given_back(self):
        starting = self.backend.start()
        _, job = self.threads.jobs.pop(0)
        job()
        starting.cancel()
        self.failureResultOf(starting, CancelledError)
        self.backend = self.another()
        self.begin()
