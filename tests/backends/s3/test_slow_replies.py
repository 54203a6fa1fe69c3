"""
Replies that come slowly: what is held of them, for how long, and that uploads go on.
"""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import Clock

from tests.backends.s3.support import MIB
from tests.backends.s3.test_budget import wait_with_most
from tests.backends.s3.test_replies import ReplyCase
from txbits._deferreds import begun
from txbits.backends.s3._budget import Budget
from txbits.backends.s3._reply_writer import LEAST_PIECE, MOST_PIECES, PATIENCE
from txbits.errors import BackendError
from txbits.interfaces import Answer
from txbits.testing.backend import contract

NAME = ("name.txt",)


class Turned(Clock):
    """A clock that is turned, and begins at the time that it is."""

    def __init__(self):
        super().__init__()
        self.rightNow = reactor.seconds()  # type: ignore[attr-defined]


class SlowCase(ReplyCase):
    """Replies of which a part is there."""

    settings = {"memory": 20 * MIB}

    def tearDown(self):
        # When they are whole, or given up, nothing else is left of them.
        self.assertEqual(self.pieces(), [])

    async def slow(self, backend, length=MIB, name=NAME):
        """A reply that has begun, and its session."""
        session = await self.asked(backend, name)
        writer = await session.open_reply()
        await writer.write(self.data(length))
        return session, writer

    def pieces(self):
        """What lies in the bucket of replies that are not whole, by their lengths."""
        listed = self.bucket.client.list_objects_v2(Bucket=self.bucket.name)
        found = listed.get("Contents", ())
        return [one["Size"] for one in found if "/reply-1." in one["Key"]]

    async def keep(self, session, reply):
        """Insist that a reply is whole."""
        await session.keep_answer(Answer())
        self.assertTrue(reply == await self.read(session))


class PressureTests(SlowCase):
    """Memory that others need."""

    @contract
    async def test_uploads_go_on_beside_any_number_of_them(self):
        backend = await self.started()
        memory = backend.staging.memory
        slow = [await self.slow(backend, MIB, (str(n),)) for n in range(15)]
        data = self.data(11 * MIB)
        session = await self.new(backend, ("upload",))
        await self.send(session, len(data), data)
        small = await self.new(backend, ("small",))
        await self.send(small, 1000, data[:1000])
        self.assertLessEqual(memory.peak, 20 * MIB)
        self.assertLessEqual(memory.memory.replies.used, 10 * MIB)
        for session, writer in slow:
            await writer.write(b"the end")
            await writer.close()
            await self.keep(session, self.data(MIB) + b"the end")
        self.assertEqual(memory.used, 0)

    @contract
    async def test_directories_without_an_application_go_on_as_well(self):
        budget = Budget()
        backend = await self._start(self.node(budget))
        for number in range(15):
            await self.slow(backend, MIB, (str(number),))
        self.notifies = False
        plain = await self._start(self.node(budget, prefix="plain/"))
        for length in (1000, MIB, 11 * MIB):
            data = self.data(length)
            session = await self.complete(plain, (str(length),), data)
            await self.close(plain, session)
            self.assertTrue(data == await self.file_at(plain, (str(length),)))
        self.assertLessEqual(budget.memory.peak, 20 * MIB)
        for session in await backend.sessions():
            await (await backend.find(session.session_id)).release()
        self.assertEqual(budget.memory.used, 0)

    @contract
    async def test_what_was_put_away_is_part_of_the_reply(self):
        backend = await self.started()
        for length in (1000, 3 * MIB, 5 * MIB, 12 * MIB):
            reply = self.data(length)
            session = await self.asked(backend, (str(length),))
            writer = await session.open_reply()
            step = max(length // 7, 1)
            for start in range(0, length, step):
                await writer.write(reply[start : start + step])
                writer.put_away()
            await writer.close()
            await self.keep(session, reply)
            await session.release()
        await self.assert_nothing_left(backend)
        self.assertEqual(backend.staging.memory.used, 0)

    @contract
    async def test_many_pieces_become_one(self):
        backend = await self.started()
        session = await self.asked(backend)
        writer = await session.open_reply()
        reply = self.data(MOST_PIECES * 10 + 5)
        for start in range(0, len(reply), 10):
            await writer.write(reply[start : start + 10])
            if len(writer._pieces) < MOST_PIECES:
                await writer._put_away()
            self.assertLess(len(writer._pieces), MOST_PIECES)
        self.assertEqual(self.pieces(), [MOST_PIECES * 10, 5])
        await writer.close()
        await self.keep(session, reply)

    @contract
    async def test_a_piece_that_is_gone_is_no_reply(self):
        backend = await self.started()
        session, writer = await self.slow(backend)
        await writer._put_away()
        listed = self.bucket.client.list_objects_v2(Bucket=self.bucket.name)["Contents"]
        (key,) = (one["Key"] for one in listed if "/reply-1." in one["Key"])
        self.bucket.put(key, b"short")
        await self.fails(BackendError, begun(self.closed(writer)))
        await self.fails(BackendError, session.keep_answer(Answer()))
        self.assertEqual(self.pieces(), [])
        self.assertEqual(backend.staging.memory.used, 0)

    async def closed(self, writer):
        try:
            await writer.close()
        except BackendError as error:
            raise BackendError("it is torn") from error

    @contract
    async def test_a_piece_that_cannot_be_put_ends_the_reply(self):
        backend = await self.started()
        session, writer = await self.slow(backend)
        refusal = b"<Error><Code>AccessDenied</Code></Error>"
        given = self.client(backend).answer({"PutObject": refusal}, 403)
        writer.put_away()
        await given
        with self.assertRaises(BackendError):
            await writer.write(b"more")
        self.assertEqual(backend.staging.memory.used, 0)
        with self.assertRaises(BackendError):
            await writer.close()
        await self.fails(BackendError, session.keep_answer(Answer()))

    @contract
    async def test_a_release_does_not_wait_for_memory(self):
        backend = await self.started()
        share = backend.staging.reply_memory
        session, writer = await self.slow(backend)
        await share.take(9 * MIB)
        writing = writer.write(self.data(2 * MIB))
        writing.addErrback(lambda failure: failure.trap(BackendError))
        # What it holds is put away first, and then it waits.
        while not share.line:
            await self.turn()
        await session.release()
        self.assertIs(await writing, BackendError)
        self.assertEqual(share.used, 9 * MIB)
        self.assertEqual(len(share.line), 0)
        share.give(9 * MIB)
        await self.assert_nothing_left(backend)

    @contract
    async def test_who_waits_for_room_is_not_asked_for_it(self):
        backend = await self.started()
        bound = backend.staging.reply_memory.memory
        bound.bound(2000 << 10)
        session, writer = await self.slow(backend, 0)
        share = bound.for_replies()
        others = await wait_with_most(self, share, writer, 1, self.turn)
        self.assertEqual([one.asked for one in others], [1, 0])
        await writer.close()
        self.assertEqual(bound.used, others[1].held)
        await self.keep(session, bytes(700 << 10))

    @contract
    async def test_pieces_go_with_the_session(self):
        backend = await self.started()
        other = await self.another(backend)
        for node in (backend, other):
            session, writer = await self.slow(backend)
            await writer._put_away()
            self.assertEqual(self.pieces(), [MIB])
            await (await node.find(session.session_id)).release()
            with self.assertRaises(BackendError):
                await writer.write(b"more")
                await writer.close()
            await self.assert_nothing_left(backend)

    @contract
    async def test_and_with_the_next_attempt(self):
        backend = await self.started()
        session, writer = await self.slow(backend)
        await writer._put_away()
        await session.begin_attempt()
        self.assertEqual(self.pieces(), [])


class PatienceTests(SlowCase):
    """A part that does not get full."""

    async def with_clock(self):
        backend = await self.started()
        backend.staging.clock = clock = Turned()
        return backend, clock

    async def until_put_away(self, backend):
        while backend.staging.memory.used:
            await self.turn()

    @contract
    async def test_it_is_held_for_a_while(self):
        backend, clock = await self.with_clock()
        session, writer = await self.slow(backend)
        clock.advance(PATIENCE - 1)
        self.assertEqual(backend.staging.memory.used, MIB)
        await writer.write(b"more")
        clock.advance(1)
        await self.until_put_away(backend)
        self.assertEqual(self.pieces(), [MIB + 4])
        await writer.write(b"the end")
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        await writer.close()
        self.assertEqual(clock.getDelayedCalls(), [])
        await self.keep(session, self.data(MIB) + b"morethe end")

    @contract
    async def test_a_little_is_held_for_longer(self):
        backend, clock = await self.with_clock()
        session, writer = await self.slow(backend, LEAST_PIECE - 2)
        for _ in range(3):
            clock.advance(PATIENCE)
            await self.turn()
        self.assertEqual(self.pieces(), [])
        await writer.write(b"12")
        clock.advance(PATIENCE)
        await self.until_put_away(backend)
        self.assertEqual(self.pieces(), [LEAST_PIECE])
        await writer.close()
        await self.keep(session, self.data(LEAST_PIECE - 2) + b"12")

    @contract
    async def test_the_next_part_has_its_own_time(self):
        backend, clock = await self.with_clock()
        _, writer = await self.slow(backend)
        clock.advance(PATIENCE - 1)
        await writer.write(self.data(4 * MIB))
        self.assertEqual(clock.getDelayedCalls(), [])
        await writer.write(self.data(MIB))
        clock.advance(PATIENCE - 1)
        self.assertEqual(backend.staging.memory.used, MIB)
        await writer.abandon()
        self.assertEqual(clock.getDelayedCalls(), [])
