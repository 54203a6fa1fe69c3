"""
Multipart uploads that somebody else aborts while the file is being published: a rule of
the bucket, or a person.
"""

from __future__ import annotations

from tests.backends.s3.support import MIB, S3Case
from tests.backends.s3.test_requests import CALLER, RequestCase
from tests.clocks import Ahead
from txbits.errors import BackendError, NoSuchSession, OutOfStep, StagedDataLost
from txbits.testing.backend import contract

NAME = ("name.txt",)
DATA = 6 * MIB


class AbortedCase(S3Case):
    """Files that are about to be published."""

    async def about_to_be(self, backend):
        """
        A session whose upload to the destination is complete, and about to be
        completed.

        :returns: It, the Deferred of its publication, and what lets that go on.
        """
        session = await self.new(backend, NAME, overwrite=True)
        await self.send(session, DATA, self.data(DATA))
        if self.notifies:
            await session.begin_attempt()
        held, goes_on = self.client(backend).hold("CompleteMultipartUpload")
        publishing = session.publish(overwrite=True, create_directories=False)
        await held
        return session, publishing, goes_on

    def abort(self):
        (upload,) = self.bucket.uploads("in/name.txt")
        self.bucket.client.abort_multipart_upload(
            Bucket=self.bucket.name, Key=upload[0], UploadId=upload[1]
        )

    async def left_behind(self):
        """What another node finds of such a session when the first is dead."""
        first = await self.started()
        second = await self.another(first)
        session, publishing, goes_on = await self.about_to_be(first)
        publishing.addErrback(lambda _: None)
        self.client(first).die()
        goes_on.callback(None)
        self.abort()
        return second, session.session_id

    def is_later(self, backend):
        """More than an hour passes."""
        backend.staging.clock = Ahead(4000.0, backend.staging.clock)


class PartsTests(AbortedCase):
    """Parts that are gone are to be sent again."""

    @contract
    async def test_what_is_aborted_in_that_moment_is_not_published(self):
        backend = await self.started()
        session, publishing, goes_on = await self.about_to_be(backend)
        self.abort()
        goes_on.callback(None)
        await self.fails(StagedDataLost, publishing)
        self.assertIsNone(await self.file_at(backend, NAME))
        other = await self.another(backend)
        for each in (session, await other.find(session.session_id)):
            await each.refresh()
            self.assertFalse(each.published)
            self.assertTrue(each.in_doubt)
        await self.send(session, DATA, self.data(DATA)[session.offset :])
        await self.close(backend, session)
        self.assertTrue(self.data(DATA) == await self.file_at(backend, NAME))
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_file_that_is_missed_soon_was_taken_away(self):
        node, session_id = await self.left_behind()
        self.assertTrue((await node.find(session_id)).published)

    @contract
    async def test_one_that_is_missed_late_was_not_published(self):
        node, session_id = await self.left_behind()
        self.is_later(node)
        session = await node.find(session_id)
        self.assertFalse(session.published)
        self.assertTrue(session.in_doubt)
        writer = await session.open_writer(DATA)
        rest = self.data(DATA)[session.offset :]
        await self.fails(BackendError, writer.write(rest))
        # That is when it learns that there is no upload any more.
        await self.fails(BackendError, writer.close())
        await self.send(session, DATA, self.data(DATA)[session.offset :])
        await self.close(node, session)
        self.assertTrue(self.data(DATA) == await self.file_at(node, NAME))
        await self.assert_nothing_left(node)

    @contract
    async def test_one_that_is_missed_late_may_have_been_replaced(self):
        node, session_id = await self.left_behind()
        await self.turn()
        await self.put(node, NAME, b"newer")
        self.is_later(node)
        session = await node.find(session_id)
        self.assertTrue(session.published)
        await self.close(node, session, overwrite=True)
        self.assertEqual(await self.file_at(node, NAME), b"newer")


class LateTests(AbortedCase, RequestCase):
    """
    What a node does that finds, more than an hour later, that the upload is gone: its
    own writing of the record makes nothing of that recent.
    """

    async def found_late(self):
        """Managers of two nodes that come later, and the session's id."""
        node, session_id = await self.left_behind()
        found = await node.staging.read(session_id)
        nodes = [await self.manager() for _ in range(2)]
        for one in nodes:
            self.client(one.backend).date_back(found.etag, 4000.0)
        return nodes, session_id

    @contract
    async def test_a_close_does_not_take_it_for_published(self):
        nodes, session_id = await self.found_late()
        with self.assertRaises(NoSuchSession):
            await nodes[0].close(session_id, NAME, CALLER)
        self.flushLoggedErrors()
        self.assertIsNone(await self.file_at(nodes[0].backend, NAME))
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_nor_does_one_after_a_fragment(self):
        nodes, session_id = await self.found_late()
        data = self.data(DATA)
        with self.assertRaises(OutOfStep) as caught:
            await self.fragment(nodes[0], session_id, DATA - 1, data[-1:], DATA)
        held = caught.exception.offset
        self.assertLess(held, 5 * MIB)
        for node in nodes:
            piece = data[held : held + 1000]
            held = await self.fragment(node, session_id, held, piece, DATA)
        with self.assertRaises(NoSuchSession):
            await nodes[0].close(session_id, NAME, CALLER)
        self.flushLoggedErrors()
        self.assertIsNone(await self.file_at(nodes[0].backend, NAME))
        self.assertEqual(self.bucket.everything(), [])


class CopyTests(AbortedCase):
    """What is copied is still there, and is copied again."""

    notifies = True

    @contract
    async def test_what_is_aborted_in_that_moment_is_not_published(self):
        backend = await self.started()
        session, publishing, goes_on = await self.about_to_be(backend)
        self.abort()
        goes_on.callback(None)
        await self.fails(BackendError, publishing)
        self.assertIsNone(await self.file_at(backend, NAME))
        await session.refresh()
        self.assertFalse(session.published)
        await self.close(backend, session)
        self.assertTrue(self.data(DATA) == await self.file_at(backend, NAME))
        await self.assert_nothing_left(backend)

    @contract
    async def test_one_that_is_missed_late_is_copied_again(self):
        node, session_id = await self.left_behind()
        self.is_later(node)
        session = await node.find(session_id)
        self.assertFalse(session.published)
        await self.close(node, session)
        self.assertTrue(self.data(DATA) == await self.file_at(node, NAME))
        await self.assert_nothing_left(node)

    @contract
    async def test_a_file_that_is_missed_soon_was_taken_away(self):
        node, session_id = await self.left_behind()
        self.assertTrue((await node.find(session_id)).published)
