"""
A node killed at each of its requests to S3 while a server application is asked, and
answers, and the upload is published; another node goes on.
"""

from __future__ import annotations

from tests.backends.s3.support import MIB
from tests.backends.s3.test_crashes import NAME, CrashCase
from txbits.errors import NoSuchSession
from txbits.interfaces import Answer
from txbits.testing._abilities_contract import _Sink
from txbits.testing.backend import contract

ANSWER = Answer(status=201, publishes=True)


class AnswerCrashTests(CrashCase):
    """Death between the last byte and the end."""

    notifies = True

    async def answered(self, session, reply):
        """What the manager does when all bytes are held."""
        attempt = await session.begin_attempt()
        writer = await session.open_reply()
        for start in range(0, len(reply), MIB):
            await writer.write(reply[start : start + MIB])
        await writer.close()
        await session.keep_answer(ANSWER)
        return attempt

    async def assert_answered(self, session, reply):
        """The answer, and the whole of its reply."""
        self.assertEqual(session.answer.status, 201)
        self.assertTrue(session.answer.has_reply)
        file = await session.reply()
        sink = _Sink()
        await file.read_into(sink, 0, file.length)
        self.assertTrue(reply == sink.received)

    async def _test(self, length, reply, overwrite=False):
        data = self.data(length)

        async def act(backend, known):
            if overwrite:
                await self.put(backend, NAME, b"old")
            client = self.client(backend)
            left, client._calls_left = client._calls_left, None
            session = await self.uploaded(backend, known, data, length, overwrite)
            # What comes before is tested elsewhere.
            client._calls_left = left
            await self.answered(session, reply)
            known["answered"] = True
            await self.close(backend, session, overwrite)
            known["closed"] = True

        async def go_on(known, node):
            if await node.recalls_close(known["id"], NAME, None):
                self.assertTrue(data == await self.file_at(node, NAME))
            else:
                self.assertFalse(known.get("closed"))
                # Nothing that is still needed is taken for nobody's.
                await self.clean_up_late(node)
                found = await node.find(known["id"])
                self.assertEqual((found.offset, found.total), (length, length))
                self.assertIn(found.attempts, (0, 1))
                if found.answer is None:
                    # As it is cleared, the record with the answer goes last.
                    self.assertNotIn("answered", known)
                    sink = _Sink()
                    await found.read_into(sink, 0, length)
                    self.assertTrue(data == sink.received)
                    attempts = found.attempts
                    self.assertEqual(await self.answered(found, reply), attempts + 1)
                if not found.published:
                    await self.assert_answered(found, reply)
                await self.close(node, found, overwrite)
            self.assertTrue(data == await self.file_at(node, NAME))
            await self.clean_up_late(node)
            await self.assert_nothing_left(node)

        await self.rounds(act, go_on, least=10)

    @contract
    async def test_a_small_upload_goes_on_after_a_kill_at_any_request(self):
        await self._test(1000, b"short")

    @contract
    async def test_one_of_less_than_a_part_goes_on_after_a_kill_at_any_request(self):
        await self._test(300_000, b"short", overwrite=True)

    @contract
    async def test_a_long_one_goes_on_after_a_kill_at_any_request(self):
        await self._test(6 * MIB, self.data(6 * MIB))

    @contract
    async def test_a_release_before_it_is_asked_leaves_nothing(self):
        data = self.data(1000)

        async def act(backend, known):
            client = self.client(backend)
            left, client._calls_left = client._calls_left, None
            session = await self.uploaded(backend, known, data, len(data))
            client._calls_left = left
            await session.begin_attempt()

        async def go_on(known, node):
            await (await node.find(known["id"])).release()
            self.assertEqual(self.bucket.everything(node.settings.prefix), [])

        await self.rounds(act, go_on, least=2)

    @contract
    async def test_a_release_goes_on_after_a_kill_at_any_request(self):
        for length in (1000, 6 * MIB):
            data = self.data(length)

            async def act(backend, known, data=data):
                client = self.client(backend)
                left, client._calls_left = client._calls_left, None
                session = await self.uploaded(backend, known, data, len(data))
                await session.begin_attempt()
                writer = await session.open_reply()
                await writer.write(self.data(6 * MIB))
                client._calls_left = left
                await session.release()
                known["done"] = True

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

            await self.rounds(act, go_on, least=5)
