"""
Multipart uploads whose ids were in answers that got lost: they go when their session
does, and those of others stay.
"""

from __future__ import annotations

from uuid import uuid4

from tests.backends.s3.support import MIB, S3Case
from txbits.backends.s3._bucket import UnknownUploads
from txbits.errors import BackendError
from txbits.testing.backend import contract

NAME = ("name.txt",)
TOTAL = 12 * MIB


class StrayCase(S3Case):
    """What these have in common."""

    async def with_stray(self, lost=1):
        """A complete session, one of whose uploads nobody has the id of."""
        self.backend = await self.started()
        self.client(self.backend).lose("CreateMultipartUpload", lost)
        session = await self.new(self.backend, NAME)
        await self.send(session, TOTAL, self.data(TOTAL))
        self.assertEqual(len(self.bucket.uploads()), 1 + lost)
        return session


class StrayTests(StrayCase):
    """The end of a session that has some."""

    @contract
    async def test_close_leaves_none(self):
        session = await self.with_stray(2)
        await self.close(self.backend, session)
        self.assertTrue(await self.file_at(self.backend, NAME) == self.data(TOTAL))
        self.assertEqual(self.bucket.uploads(), [])

    @contract
    async def test_cancel_leaves_none(self):
        session = await self.with_stray()
        await session.release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_nor_does_another_node(self):
        session = await self.with_stray()
        other = await self.another(self.backend)
        await (await other.find(session.session_id)).release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_nor_if_none_could_be_begun(self):
        backend = await self._start(self.node(timeout=1))
        client = self.client(backend)
        session = await self.new(backend, NAME)
        writer = await session.open_writer(TOTAL)
        client.lose("CreateMultipartUpload", 1000)
        await writer.write(self.data(6 * MIB))
        with self.assertRaises(UnknownUploads):
            await writer.close()
        client.lose("CreateMultipartUpload", 0)
        self.assertNotEqual(self.bucket.uploads(), [])
        await session.release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_nor_if_the_record_could_not_say_so(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        client = self.client(backend)
        writer = await session.open_writer(TOTAL)
        held, goes_on = client.hold_answer("CreateMultipartUpload")
        await writer.write(self.data(6 * MIB))
        await held
        refusal = b"<Error><Code>AccessDenied</Code></Error>"
        refused = client.answer({"PutObject": refusal}, 403)
        goes_on.callback(None)
        # The record is; the tail that close() puts would be another PutObject.
        await refused
        await self.fails(BackendError, writer.close())
        self.assertEqual(len(self.bucket.uploads()), 1)
        await self.send(session, TOTAL, self.data(TOTAL)[session.offset :])
        self.assertEqual(len(self.bucket.uploads()), 2)
        other = await self.another(backend)
        await (await other.find(session.session_id)).release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_those_of_another_session_to_the_same_name_stay(self):
        session = await self.with_stray()
        other = await self.new(self.backend, NAME)
        await self.send(other, TOTAL, self.data(6 * MIB))
        await session.release()
        self.assertEqual(self.bucket.uploads(), [("in/name.txt", other.record.upload)])
        await self.send(other, TOTAL, self.data(TOTAL)[6 * MIB :])
        await self.close(self.backend, other)
        self.assertTrue(await self.file_at(self.backend, NAME) == self.data(TOTAL))

    @contract
    async def test_one_that_may_be_another_session_s_stays(self):
        session = await self.with_stray()
        node = await self.another(self.backend)
        other = await self.new(node, NAME)
        client = self.client(node)
        writer = await other.open_writer(TOTAL)
        # It has begun one, and its record does not say so yet.
        held, goes_on = client.hold_answer("CreateMultipartUpload")
        await writer.write(self.data(6 * MIB))
        await held
        await session.release()
        goes_on.callback(None)
        await writer.close()
        self.assertIn(("in/name.txt", other.record.upload), self.bucket.uploads())
        await self.send(other, TOTAL, self.data(TOTAL)[6 * MIB :])
        await self.close(node, other)
        self.assertTrue(await self.file_at(node, NAME) == self.data(TOTAL))

    @contract
    async def test_those_to_other_names_stay(self):
        session = await self.with_stray()
        for key in ("in/name.txt2", "in/name.txt/x", "in/nam"):
            self.bucket.client.create_multipart_upload(Bucket=self.bucket.name, Key=key)
        await session.release()
        self.assertEqual(
            sorted(key for key, _ in self.bucket.uploads()),
            ["in/nam", "in/name.txt/x", "in/name.txt2"],
        )

    @contract
    async def test_nobody_looks_for_any_without_a_reason(self):
        session = await self.with_stray(0)
        await self.close(self.backend, session)
        self.assertNotIn("ListMultipartUploads", self.client(self.backend).asked)

    @contract
    async def test_what_keeps_them_from_being_found_does_not_keep_the_close(self):
        session = await self.with_stray()
        # Whose it is cannot be read.
        self.bucket.put(self.backend.staging.record_key(uuid4()), b"x" * 2000)
        await self.close(self.backend, session)
        self.assertTrue(await self.file_at(self.backend, NAME) == self.data(TOTAL))
        self.assertEqual(len(self.bucket.uploads()), 1)


class DoubtTests(StrayCase):
    """Bytes that were acknowledged, and went with their multipart upload."""

    @contract
    async def test_it_lasts_until_another_upload_is_begun(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        data = self.data(TOTAL)
        await self.send(session, TOTAL, data[: 6 * MIB])
        for key, upload in self.bucket.uploads():
            self.bucket.client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=key, UploadId=upload
            )
        with self.assertRaises(BackendError):
            await self.send(session, TOTAL, data[6 * MIB : 11 * MIB])
        self.assertIsNone(session.record.upload)
        other = await self.another(backend)
        for each in (session, await other.find(session.session_id)):
            await each.refresh()
            self.assertTrue(each.in_doubt)
        await self.send(session, TOTAL, data)
        await session.refresh()
        self.assertFalse(session.in_doubt)
        await self.close(backend, session)
        self.assertTrue(await self.file_at(backend, NAME) == data)
