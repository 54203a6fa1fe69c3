"""
Sessions of two nodes on one bucket, with a server application: once it has answered,
nobody asks again, and what one node ends the other finds ended.
"""

from __future__ import annotations

import hashlib
import os

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.backends.s3.support import MIB, S3Case
from tests.backends.s3.test_requests import Body
from txbits.errors import BackendError, NoSuchSession, Superseded
from txbits.interfaces import Answer, IReadable
from txbits.protocol.codec import ContentRange
from txbits.sessions import Caller, Received, SessionManager, Settings
from txbits.testing import HoldableNotifier
from txbits.testing._abilities_contract import _Sink
from txbits.testing._contract import contract

NAME = ("name.txt",)
CALLER = Caller(None, "192.0.2.1")
PUBLISHES = Answer(publishes=True)


class AskedCase(S3Case):
    """Two managers on one bucket, that ask one application."""

    notifies = True
    timeout = 60

    async def managers(self, **settings):
        self.application = HoldableNotifier(needs=frozenset({IReadable}))
        made = []
        for _ in range(2):
            manager = SessionManager(
                self.node(), Settings(**settings), reactor, notifier=self.application
            )
            await manager.start()
            self.addCleanup(manager.stop)
            made.append(manager)
        return made

    def data(self, length):
        return os.urandom(length)

    def last(self, manager, session_id, data):
        return manager.fragment(
            session_id,
            NAME,
            CALLER,
            ContentRange(0, len(data) - 1, len(data)),
            Body(data),
            "https://uploads.example.org/name.txt",
        )

    async def asked(self, number):
        """The application is asked for the so many-th time."""
        while len(self.application.asked) < number:
            await deferLater(reactor, 0.005)
        return self.application.asked[-1]

    async def file(self, manager):
        found: Deferred = self.published(manager.backend, NAME)
        return await found


class AskedTests(AskedCase):
    """What an answer means to the other node."""

    @contract
    async def test_an_answer_to_one_node_is_known_on_the_other(self):
        for length, early in ((1000, False), (11 * MIB, True)):
            here, there = await self.managers(
                publish_on="last-fragment" if early else "close",
                allow_overwrites=True,
            )
            data = self.data(length)
            one = await here.create(NAME, CALLER, "name.txt")
            sent = ContentRange(0, 99, length)
            await there.fragment(one, NAME, CALLER, sent, Body(data[:100]))
            received = self.last(here, one, data)
            asked = await self.asked(1)
            self.assertEqual(asked.upload.sha256, hashlib.sha256(data).digest())
            writer = await asked.reply.open()
            await writer.write(b"well done")
            await writer.close()
            asked.answer(PUBLISHES)
            self.assertEqual(await received, Received(length, True))
            if early:
                self.assertEqual(await self.file(here), data)
            # Which knows of a session that is not complete.
            file = await there.open_reply(one, CALLER)
            sink = _Sink()
            await file.read_into(sink, 0, file.length)
            await file.release()
            self.assertEqual(sink.received, b"well done")
            again = await self.last(there, one, data)
            self.assertEqual(again, Received(length, True))
            await there.close(one, NAME, CALLER)
            self.assertEqual(await self.file(here), data)
            self.assertEqual(len(self.application.asked), 1)
            # As far as this node knows, the session stands.
            with self.assertRaises(BackendError):
                await here.open_reply(one, CALLER)
            await self.assert_nothing_left(here.backend)

    @contract
    async def test_a_digest_is_read_back_where_another_node_took_part(self):
        here, there = await self.managers()
        data = self.data(7 * MIB)
        one = await here.create(NAME, CALLER, "name.txt")
        half = len(data) // 2
        sent = ContentRange(0, half - 1, len(data))
        await here.fragment(one, NAME, CALLER, sent, Body(data[:half]))
        received = self.last(there, one, data)
        asked = await self.asked(1)
        self.assertEqual(asked.upload.sha256, hashlib.sha256(data).digest())
        asked.answer(Answer())
        await received
        await here.close(one, NAME, CALLER)
        self.assertIsNone(await self.file(here))
        await self.assert_nothing_left(here.backend)

    @contract
    async def test_what_one_node_cancels_the_other_cannot_answer(self):
        here, there = await self.managers()
        one = await here.create(NAME, CALLER, "name.txt")
        received = self.last(here, one, self.data(1000))
        asked = await self.asked(1)
        await there.cancel(one, NAME, CALLER)
        asked.answer(PUBLISHES)
        with self.assertRaises(NoSuchSession):
            await received
        await self.assert_nothing_left(there.backend)
        self.assertIsNone(await self.file(here))

    @contract
    async def test_a_reply_to_what_another_node_cancels_leaves_nothing(self):
        here, there = await self.managers()
        one = await here.create(NAME, CALLER, "name.txt")
        received = self.last(here, one, self.data(1000))
        asked = await self.asked(1)
        writer = await asked.reply.open()
        await writer.write(b"well done")
        await there.cancel(one, NAME, CALLER)
        with self.assertRaises(NoSuchSession):
            await writer.close()
        asked.fail(NoSuchSession("the reply could not be stored"))
        with self.assertRaises(BackendError):
            await received
        await self.assert_nothing_left(there.backend)

    @contract
    async def test_two_nodes_may_ask_at_once_and_then_nobody_does(self):
        here, there = await self.managers()
        data = self.data(1000)
        one = await here.create(NAME, CALLER, "name.txt")
        first = self.last(here, one, data)
        await self.asked(1)
        second = self.last(there, one, data)
        await self.asked(2)
        attempts = [asked.upload.attempt for asked in self.application.asked]
        self.assertEqual(attempts, [1, 2])
        for asked in self.application.asked:
            asked.answer(PUBLISHES)
        for received in (first, second):
            await received
        await self.last(here, one, data)
        await there.close(one, NAME, CALLER)
        self.assertEqual(len(self.application.asked), 2)
        self.assertEqual(await self.file(here), data)

    @contract
    async def test_a_cancel_on_the_same_node_ends_the_asking(self):
        here, _ = await self.managers()
        one = await here.create(NAME, CALLER, "name.txt")
        received = self.last(here, one, self.data(1000))
        asked = await self.asked(1)
        cancelling = here.cancel(one, NAME, CALLER)
        with self.assertRaises(Superseded):
            await received
        await cancelling
        self.assertTrue(asked.is_aborted)
        await self.assert_nothing_left(here.backend)
