"""
A node killed at each of its requests to S3, one after the other.

Each round does the same below an empty prefix, dies one request later than the round
before, before that request is sent, and another node goes on. The rounds end when one
survives. To die when a request has been carried out, and its answer not been read, is
no other death: the bucket is what it is when the next request is not sent, and of what
the node knew nobody hears.
"""

from __future__ import annotations

import contextlib
from itertools import count
from typing import Any
from uuid import uuid4

from tests.backends.s3.support import MIB, Killed, S3Case
from txbits._deferreds import a_few_at_a_time
from txbits.errors import NoSuchSession
from txbits.testing.backend import contract

NAME = ("name.txt",)


class CrashCase(S3Case):
    """Deaths, in order."""

    async def rounds(self, act, go_on, least=3, useless=64):
        """
        Act, and die.

        To start a node takes longer than a round does. So two get new lives: what a
        process loses that is killed, they lose. There are two such pairs, since one
        waits for the store most of the time.

        :param act: Called with a backend and a dict for what it wants to be
            remembered.
        :param go_on: Called with that dict and a node that goes on.
        :param least: How many requests it takes, at least.
        :param useless: How many tails of no use are removed before the end.
        :returns: The dict of the first round that was survived.
        """
        rounds = count()
        survived: dict[int, dict[str, Any]] = {}

        async def some(prefix):
            first = await self._start(self.node(prefix=prefix))
            second = await self.another(first)
            for node in (first, second):
                node.staging.most_useless = useless
            while not survived:
                calls = next(rounds)
                self.assertLess(calls, 100, "it never ends")
                self.bucket.clear(prefix)
                for node in (first, second):
                    node.staging.known.forget_all()
                    self.client(node).rise()
                known: dict[str, Any] = {"acknowledged": 0}
                self.client(first).die_after(calls)
                with contextlib.suppress(Killed):
                    await act(first, known)
                if not self.client(first).is_dead:
                    survived[calls] = known
                self.client(first).die()
                await go_on(known, second)

        await a_few_at_a_time(2, some, ("in-1/", "in-2/"))
        self.assertGreaterEqual(min(survived), least)
        return survived[min(survived)]

    async def uploaded(self, backend, known, data, step, overwrite=False):
        """A session, and fragments; what is acknowledged is remembered."""
        known["id"] = uuid4()
        session = await self.new(
            backend, NAME, session_id=known["id"], overwrite=overwrite
        )
        known["made"] = True
        for start in range(0, len(data), step):
            await self.send(session, len(data), data[start : start + step])
            known["acknowledged"] = session.offset
        return session

    async def finished(self, node, known, data, overwrite=False):
        """What the client does: it comes again, and goes on where it is told."""
        one = known.get("id")
        try:
            found = await node.find(one)
        except NoSuchSession:
            self.assertFalse(known.get("made"))
            found = await self.new(node, NAME, overwrite=overwrite)
        self.assertGreaterEqual(found.offset, known["acknowledged"])
        self.assertFalse(found.releasing)
        if not found.published:
            # A round may have published, and not have said so.
            self.assertIn(
                await self.file_at(node, NAME), (None, b"old") if overwrite else (None,)
            )
            if found.offset < len(data) or found.total is None:
                await self.send(found, len(data), data[found.offset :])
        await self.close(node, found, overwrite)
        self.assertTrue(data == await self.file_at(node, NAME))
        await self.assert_nothing_left(node)


class UploadCrashTests(CrashCase):
    """Death while bytes arrive, and while they are published."""

    async def _test(self, length, step, overwrite=False, useless=64):
        data = self.data(length)

        async def act(backend, known):
            if overwrite:
                await self.put(backend, NAME, b"old")
            self.client(backend).asked.clear()
            session = await self.uploaded(backend, known, data, step, overwrite)
            known["asked"] = self.client(backend).asked.copy()
            await self.close(backend, session, overwrite)
            known["closed"] = True

        async def go_on(known, node):
            if await node.recalls_close(known["id"], NAME, None):
                self.assertTrue(data == await self.file_at(node, NAME))
            else:
                self.assertFalse(known.get("closed"))
                await self.clean_up_late(node)
                await self.finished(node, known, data, overwrite)
            await self.clean_up_late(node)
            await self.assert_nothing_left(node)

        return await self.rounds(act, go_on, useless=useless)

    @contract
    async def test_a_small_file_goes_on_after_a_kill_at_any_request(self):
        await self._test(1000, 400)

    @contract
    async def test_a_small_file_replaces_another_after_a_kill_at_any_request(self):
        await self._test(1000, 400, overwrite=True)

    @contract
    async def test_a_file_of_less_than_a_part_goes_on_after_a_kill_at_any_request(self):
        await self._test(300_000, 200_000)

    @contract
    async def test_a_long_file_goes_on_after_a_kill_at_any_request(self):
        await self._test(11 * MIB, 6 * MIB)

    @contract
    async def test_tails_of_no_use_are_removed_after_a_kill_at_any_request(self):
        known = await self._test(7 * MIB, 2 * MIB, useless=2)
        # That is what the one that survived did before its Close.
        self.assertEqual(known["asked"].count("DeleteObjects"), 1)

    @contract
    async def test_a_long_file_replaces_another_after_a_kill_at_any_request(self):
        await self._test(6 * MIB, 6 * MIB, overwrite=True)


class ReleaseCrashTests(CrashCase):
    """Death while a session is released."""

    async def _test(self, data, total):
        async def act(backend, known):
            # Only the end is what it dies in.
            client = self.client(backend)
            left, client._calls_left = client._calls_left, None
            session = await self.new(backend, NAME)
            known["id"] = session.session_id
            if data:
                await self.send(session, total, data)
            client._calls_left = left
            await known["end"](backend, session)
            known["done"] = True

        return act

    @contract
    async def test_cancel_goes_on_after_a_kill_at_any_request(self):
        for length, total in ((0, 5), (100, 1000), (MIB, 2 * MIB), (6 * MIB, 16 * MIB)):
            inner = await self._test(self.data(length), total)

            async def act(backend, known, inner=inner):
                known["end"] = lambda _, session: session.release()
                await inner(backend, known)

            async def go_on(known, node):
                try:
                    found = await node.find(known["id"])
                except NoSuchSession:
                    await self.assert_nothing_left(node)
                    return
                self.assertNotIn("done", known)
                await found.release()
                await self.assert_nothing_left(node)
                self.assertIsNone(await self.file_at(node, NAME))

            await self.rounds(act, go_on, least=1)

    @contract
    async def test_a_discarding_close_goes_on_after_a_kill_at_any_request(self):
        await self._test_discarding(is_named=True)

    @contract
    async def test_so_does_one_that_another_node_had_served(self):
        await self._test_discarding(is_named=False)

    async def _test_discarding(self, *, is_named):
        for length, total in ((100, 1000), (MIB, 2 * MIB), (6 * MIB, 16 * MIB)):
            inner = await self._test(self.data(length), total)

            async def act(backend, known, inner=inner):
                async def end(backend, session):
                    if not is_named:
                        backend.staging.node = "another"
                    await session.refresh()
                    await session.give_up(closed=True)
                    await session.release(remember=True)

                known["end"] = end
                await inner(backend, known)

            async def go_on(known, node, length=length):
                if not await node.recalls_close(known["id"], NAME, None):
                    self.assertNotIn("done", known)
                    found = await node.find(known["id"])
                    self.assertFalse(found.releasing)
                    self.assertEqual(found.offset, length)
                    await found.release(remember=True)
                await self.assert_nothing_left(node)
                self.assertTrue(await node.recalls_close(known["id"], NAME, None))

            await self.rounds(act, go_on, least=1)
