"""
What an upload to the disk backend costs, in what can be counted: system calls, work
handed to threads, and memory. And that work in threads is waited for.
"""

from __future__ import annotations

import sys
from uuid import uuid4

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from tests.backends.mortal import DiskCase, OnDisk


class CostTests(DiskCase):
    """What an upload may cost: calls and memory, since these can be counted."""

    def hops(self, fsync):
        """The life of a session of 1 KiB; how often work went to a thread."""
        hops = []

        def in_thread(function, *args):
            hops.append(function)
            return maybeDeferred(function, *args)

        self.fsync, self.in_thread = fsync, in_thread
        backend = self.start()
        hops.clear()
        backend._files.calls.clear()
        session = self.complete(backend, data=bytes(1024))
        self.successResultOf(self.publish(session))
        self.successResultOf(
            backend.remember_close(session.session_id, ("name.txt",), None)
        )
        self.successResultOf(session.release())
        self.calls = backend._files.calls
        return len(hops)

    def test_a_small_upload_goes_to_a_thread_twice(self):
        """To be published, and to have its directory removed."""
        self.assertEqual(self.hops("close"), 2)

    def test_a_small_upload_goes_to_no_thread_without_fsync(self):
        self.assertEqual(self.hops("never"), 0)

    def test_a_small_upload_makes_few_system_calls(self):
        self.hops("close")
        self.assertEqual(self.calls.count("fsync"), 2)
        self.assertLessEqual(len(self.calls), 22, self.calls)

    def test_an_idle_session_is_small(self):
        backend = self.start()
        session = self.complete(backend)
        own = [
            getattr(session, name)
            for name in type(session).__slots__
            if name not in ("staging", "destination", "owner", "content_name")
        ]
        parts = [session, session.session_id.int, *own]
        self.assertLess(sum(sys.getsizeof(one) for one in parts), 700)


class WaitingTests(OnDisk, TestCase):
    """Work that is under way in threads of its own, held at will."""

    def in_thread(self, function, *args):
        waiting: Deferred[None] = Deferred()
        self.held.append(waiting)
        return waiting.addCallback(lambda _: function(*args))

    held: list[Deferred[None]]

    async def test_releases_share_one_run_and_wait_for_it(self):
        self.held = []
        self.fsync = "fragment"
        backend = self.make_backend()
        starting = backend.start()
        self.held.pop().callback(None)
        await starting
        self.addCleanup(backend.stop)
        creating = backend.create(
            uuid4(),
            ("name.txt",),
            owner=None,
            content_name=None,
            overwrite=False,
            create_directories=False,
        )
        self.held.pop().callback(None)
        session = await creating
        writer = await session.open_writer(9)
        await writer.write(b"abc")
        closing = writer.close()
        first, second = session.release(), session.release()
        # The release waits for the fsync that uses the descriptor.
        self.assertEqual(len(self.held), 1)
        self.held.pop().callback(None)
        await closing
        self.assertEqual(len(self.held), 1)
        self.assertNotEqual(self.leftovers(backend), [])
        self.assertFalse(first.called or second.called)
        self.held.pop().callback(None)
        await second
        await first
        self.assertEqual(self.leftovers(backend), [])
