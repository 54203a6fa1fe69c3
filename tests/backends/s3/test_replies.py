"""
What a server application answers, and its replies, in a bucket.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from twisted.internet.defer import DeferredList
from twisted.internet.threads import deferToThread

from tests.backends.s3.support import MIB
from tests.backends.s3.test_answering import NAME, AnsweringCase
from txbits._deferreds import begun
from txbits.errors import BackendError, NoSuchFile, NoSuchSession, StagedDataLost
from txbits.interfaces import Answer
from txbits.testing._abilities_contract import _Sink
from txbits.testing.backend import contract

REPLIES = (100, MIB, 12 * MIB)


class ReplyCase(AnsweringCase):
    """Uploads that are answered."""

    async def asked(self, backend, name=NAME):
        session = await self.uploaded(backend, b"whole", name)
        await session.begin_attempt()
        return session

    async def write(self, session, data):
        writer = await session.open_reply()
        for start in range(0, len(data), 200_000):
            await writer.write(data[start : start + 200_000])
        await writer.close()

    async def read(self, session):
        file = await session.reply()
        sink = _Sink()
        await file.read_into(sink, 0, file.length)
        await file.release()
        return sink.received


class WriterTests(ReplyCase):
    """Replies that come over a network."""

    @contract
    async def test_replies_of_any_length_are_found_on_any_node(self):
        first = await self.started()
        second = await self.another(first)
        for length in REPLIES:
            reply = self.data(length)
            session = await self.asked(first, (str(length),))
            await self.write(session, reply)
            await session.keep_answer(Answer(publishes=True))
            found = await second.find(session.session_id)
            for one in (session, found):
                self.assertEqual(one.answer, Answer(publishes=True, has_reply=True))
                self.assertTrue(reply == await self.read(one))
            await self.assert_published(second, found, b"whole")
        self.assertEqual(first.staging.memory.used, 0)

    @contract
    async def test_what_is_held_of_replies_is_bounded(self):
        self.settings = {"memory": 20 * MIB}
        backend = await self.started()
        sessions = [await self.asked(backend, (str(number),)) for number in range(8)]
        reply = self.data(6 * MIB)
        await DeferredList(
            [self.writing(session, reply) for session in sessions],
            fireOnOneErrback=True,
            consumeErrors=True,
        )
        memory = backend.staging.memory
        self.assertLessEqual(memory.peak, 20 * MIB)
        self.assertEqual(memory.used, 0)
        for session in sessions:
            await session.keep_answer(Answer())
            self.assertTrue(reply == await self.read(session))

    def writing(self, session, reply):
        return begun(self.write(session, reply))

    @contract
    async def test_a_release_ends_a_reply_that_is_being_written(self):
        backend = await self.started()
        other = await self.another(backend)
        for node in (backend, other):
            session = await self.asked(backend)
            writer = await session.open_reply()
            await writer.write(self.data(6 * MIB))
            self.assertEqual(len(self.bucket.uploads()), 1)
            await (await node.find(session.session_id)).release()
            await self.assert_nothing_left(backend)
            with self.assertRaises(BackendError):
                await writer.write(self.data(6 * MIB))
                await writer.close()
            await self.assert_nothing_left(backend)
            self.assertEqual(backend.staging.memory.used, 0)

    @contract
    async def test_a_node_that_is_behind_leaves_no_reply(self):
        for length in (100, 6 * MIB):
            backend = await self.started()
            other = await self.another(backend)
            session = await self.asked(backend)
            writer = await session.open_reply()
            await writer.write(self.data(length))
            await (await other.find(session.session_id)).release()
            with self.assertRaises(BackendError):
                await writer.close()
            await self.fails(BackendError, session.keep_answer(Answer()))
            await self.assert_nothing_left(backend)

    @contract
    async def test_lost_answers_are_found_out(self):
        backend = await self.started()
        for length, operations in (
            (100, ["PutObject"]),
            (
                6 * MIB,
                [
                    "CreateMultipartUpload",
                    "UploadPart",
                    "ListParts",
                    "CompleteMultipartUpload",
                ],
            ),
        ):
            for operation in operations:
                session = await self.asked(backend, (operation + str(length),))
                self.client(backend).lose(operation)
                await self.write(session, self.data(length))
                self.client(backend).lose("PutObject")
                await session.keep_answer(Answer())
                self.assertTrue(self.data(length) == await self.read(session))
                await session.release()
                await self.assert_nothing_left(backend)

    @contract
    async def test_one_that_was_completed_unheard_is_whole(self):
        backend = await self.started()
        reply = self.data(6 * MIB)
        client = self.client(backend)
        refusal = b"<Error><Code>NoSuchUpload</Code></Error>"
        for is_there in (True, False):
            session = await self.asked(backend, (str(is_there),))
            writer = await session.open_reply()
            await writer.write(reply)
            held, goes_on = client.hold("CompleteMultipartUpload")
            closing = writer.close()
            await held
            if is_there:
                await deferToThread(self.bucket.complete, *self.bucket.uploads()[0])
            client.answer({"CompleteMultipartUpload": refusal}, 404)
            goes_on.callback(None)
            if is_there:
                await closing
                await session.keep_answer(Answer())
                self.assertTrue(reply == await self.read(session))
            else:
                await self.fails(BackendError, closing)
                await self.fails(BackendError, session.keep_answer(Answer()))
            await session.release()
            await self.assert_nothing_left(backend)

    @contract
    async def test_a_reply_that_could_not_be_stored_is_none(self):
        backend = await self.started()
        session = await self.asked(backend)
        writer = await session.open_reply()
        await writer.write(b"reply")
        refusal = b"<Error><Code>AccessDenied</Code></Error>"
        self.client(backend).answer({"PutObject": refusal}, 403)
        await self.fails(BackendError, writer.close())
        await self.fails(BackendError, session.keep_answer(Answer()))
        self.assertEqual(await session.begin_attempt(), 2)
        await self.write(session, b"reply")
        await session.keep_answer(Answer())
        self.assertEqual(await self.read(session), b"reply")

    @contract
    async def test_whoever_waits_may_go_in_the_middle(self):
        backend = await self.started()
        session = await self.asked(backend)
        writer = await session.open_reply()
        held, goes_on = self.client(backend).hold("UploadPart")
        writing = writer.write(self.data(6 * MIB))
        await held
        writing.addErrback(lambda _: None).cancel()
        await writing
        goes_on.callback(None)
        await session.release()
        await self.assert_nothing_left(backend)
        self.assertEqual(backend.staging.memory.used, 0)


class AddressTests(ReplyCase):
    """Replies that the application puts into the bucket itself."""

    def put_at(self, url, data):
        key = urlsplit(url).path.removeprefix("/")
        self.bucket.put(key, data)
        return key

    @contract
    async def test_an_object_at_the_address_is_the_reply(self):
        backend = await self.started()
        session = await self.asked(backend)
        self.assertFalse(await session.has_reply())
        self.put_at(session.reply_address(), b"mine")
        self.assertTrue(await session.has_reply())
        await session.keep_answer(Answer())
        self.assertEqual(await self.read(session), b"mine")
        await session.release()
        await self.assert_nothing_left(backend)

    @contract
    async def test_each_attempt_has_an_address_of_its_own(self):
        backend = await self.started()
        session = await self.asked(backend)
        first = session.reply_address()
        self.put_at(first, b"late")
        await session.begin_attempt()
        self.assertNotEqual(session.reply_address(), first)
        self.assertFalse(await session.has_reply())
        await session.keep_answer(Answer())
        self.assertFalse(session.answer.has_reply)
        await self.fails(NoSuchFile, session.reply())
        await session.release()
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_reply_that_is_changed_later_is_not_served(self):
        backend = await self.started()
        session = await self.asked(backend)
        self.put_at(session.reply_address(), b"mine")
        await session.keep_answer(Answer())
        file = await session.reply()
        key = self.put_at(session.reply_address(), b"others")
        await self.fails(StagedDataLost, file.read_into(_Sink(), 0, 4))
        await self.fails(StagedDataLost, session.reply())
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        await self.fails(NoSuchFile, session.reply())

    @contract
    async def test_a_clean_up_leaves_what_it_has_begun(self):
        backend = await self.started()
        session = await self.asked(backend)
        key = urlsplit(session.reply_address()).path.removeprefix("/")
        self.bucket.client.create_multipart_upload(Bucket=self.bucket.name, Key=key)
        await self.clean_up_late(backend)
        self.assertEqual(len(self.bucket.uploads()), 1)
        await session.release()
        await self.assert_nothing_left(backend)
        # What comes after the end is nobody's.
        self.bucket.client.create_multipart_upload(Bucket=self.bucket.name, Key=key)
        await self.clean_up_late(backend)
        await self.assert_nothing_left(backend)


class NodesTests(ReplyCase):
    """An application that two nodes have asked."""

    @contract
    async def test_the_first_answer_holds_with_its_own_reply(self):
        first = await self.started()
        second = await self.another(first)
        one = await self.asked(first)
        other = await second.find(one.session_id)
        self.assertEqual(await other.begin_attempt(), 2)
        await self.write(other, b"to the second attempt")
        await self.write(one, b"to the first attempt")
        await other.keep_answer(Answer(status=201))
        await one.keep_answer(Answer(status=202))
        for session in (one, other):
            self.assertEqual(session.answer, Answer(status=201, has_reply=True))
            self.assertEqual(await self.read(session), b"to the second attempt")
        await self.fails(BackendError, one.begin_attempt())
        await one.release()
        await self.assert_nothing_left(first)

    @contract
    async def test_a_node_that_is_behind_learns_of_an_answer_before_it_asks(self):
        first = await self.started()
        second = await self.another(first)
        one = await self.asked(first)
        other = await second.find(one.session_id)
        await one.keep_answer(Answer(status=201))
        await self.fails(BackendError, other.begin_attempt())
        self.assertEqual(other.answer, Answer(status=201))
        self.assertEqual(other.attempts, 1)

    @contract
    async def test_nothing_is_kept_of_a_session_that_was_cancelled_elsewhere(self):
        first = await self.started()
        second = await self.another(first)
        one = await self.asked(first)
        other = await second.find(one.session_id)
        await one.release()
        await self.fails(NoSuchSession, other.begin_attempt())
        await self.assert_nothing_left(first)
