"""
Nodes that are behind the others, uploads that somebody else ends, and answers that are
lost: nothing wrong is published, nothing acknowledged is lost, and no Close succeeds
without a file.
"""

from __future__ import annotations

from tests.backends.s3.support import MIB, S3Case
from txbits.backends.s3._measuring import read_tails
from txbits.backends.s3._responses import S3Unreachable
from txbits.errors import BackendError, NoSuchSession, StagedDataLost
from txbits.testing.backend import contract

NAME = ("name.txt",)


class BehindCase(S3Case):
    """What these have in common."""

    async def in_turns(self, first, second, total, data, count, size):
        """A session that two nodes have served in turns, in many small fragments."""
        one = await self.new(first, NAME)
        other = await second.find(one.session_id)
        for number in range(count):
            session = (one, other)[number % 2]
            await session.refresh()
            await self.append(session, total, data[number * size : (number + 1) * size])
        await one.refresh()
        await other.refresh()
        return one, other

    def abort_uploads(self):
        """What a lifecycle rule of the bucket may do."""
        for key, upload in self.bucket.uploads():
            self.bucket.client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=key, UploadId=upload
            )


class OldFragmentTests(BehindCase):
    """A node serves an old fragment while another has gone on."""

    @contract
    async def test_what_it_holds_is_not_taken_for_later_bytes(self):
        total = 20 * MIB
        data = self.data(total)
        first = await self.started()
        second = await self.another(first)
        behind, ahead = await self.in_turns(first, second, total, data, 70, 1000)
        writer = await behind.open_writer(total)
        await writer.write(data[70_000:71_000])
        await self.send(ahead, total, data[70_000 : 6 * MIB])
        await self.send(ahead, total, data[6 * MIB : 12 * MIB])
        for at in range(71_000, 6 * MIB, 250_000):
            await writer.write(data[at : min(at + 250_000, 6 * MIB)])
        await writer.close()
        again = await first.find(behind.session_id)
        await self.send(again, total, data[again.offset :])
        await self.close(first, again)
        self.assertEqual(await self.file_at(first, NAME), data)

    @contract
    async def test_tails_stay_until_their_cell_is_a_part(self):
        total = 16 * MIB
        data = self.data(total)
        first = await self.started()
        second = await self.another(first)
        session, _ = await self.in_turns(first, second, total, data, 70, 1000)
        # One fragment fills two cells; the first has to be read back from its tails.
        await self.send(session, total, data[70_000 : 11 * MIB])
        self.assertEqual(session.offset, 11 * MIB)
        await self.send(session, total, data[11 * MIB :])
        await self.close(first, session)
        self.assertEqual(await self.file_at(first, NAME), data)


class EndedUploadTests(BehindCase):
    """Somebody has aborted the multipart upload of a complete file."""

    async def complete_one(self):
        self.first = await self.started()
        total = 12 * MIB
        session = await self.new(self.first, NAME)
        await self.send(session, total, self.data(total))
        return session

    async def assert_lost(self, session):
        """Neither the first Close nor the next one is a success."""
        await self.fails(StagedDataLost, self.close(self.first, session))
        again = await self.first.find(session.session_id)
        await again.refresh()
        self.assertFalse(again.published)
        self.assertTrue(again.in_doubt)

    @contract
    async def test_no_close_is_a_success(self):
        session = await self.complete_one()
        self.abort_uploads()
        await self.assert_lost(session)

    @contract
    async def test_nor_if_the_listing_had_to_be_repeated(self):
        session = await self.complete_one()
        self.abort_uploads()
        self.client(self.first).lose("ListParts")
        await self.assert_lost(session)

    @contract
    async def test_nor_if_a_cancel_came_between_two_attempts(self):
        session = await self.complete_one()
        other = await (await self.another(self.first)).find(session.session_id)
        held, go_on = self.client(self.first).hold("CompleteMultipartUpload")
        closing = session.publish(overwrite=False, create_directories=False)
        await held
        await other.release()
        go_on.callback(None)
        await self.fails(NoSuchSession, closing)
        self.assertIsNone(await self.file_at(self.first, NAME))


class LateCloseTests(BehindCase):
    """A Close that comes again, to a node that has not heard of the first."""

    async def closed_elsewhere(self, overwrite):
        self.first = await self.started()
        other = await self.another(self.first)
        session = await self.new(other, NAME, overwrite=overwrite)
        behind = await self.first.find(session.session_id)
        await self.send(behind, 5, b"older")
        await session.refresh()
        await self.close(other, session, overwrite=overwrite)
        return other, await self.first.find(session.session_id)

    @contract
    async def test_an_old_small_file_does_not_replace_a_newer_one(self):
        other, behind = await self.closed_elsewhere(True)
        newer = await self.new(other, NAME, overwrite=True)
        await self.send(newer, 5, b"newer")
        await self.close(other, newer, overwrite=True)
        # It is a success: the session was closed.
        await self.close(self.first, behind, overwrite=True)
        self.assertEqual(await self.file_at(self.first, NAME), b"newer")

    @contract
    async def test_a_small_file_that_was_taken_away_does_not_come_again(self):
        _, behind = await self.closed_elsewhere(False)
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")
        await self.close(self.first, behind)
        self.assertIsNone(await self.file_at(self.first, NAME))


class LostAnswerTests(BehindCase):
    """Answers that are lost, and answers that are not S3's."""

    @contract
    async def test_an_upload_that_the_record_may_name_is_not_aborted(self):
        total = 12 * MIB
        data = self.data(total)
        self.settings = {"timeout": 1}
        first = await self.started()
        self.settings = {}
        second = await self.another(first)
        behind = await self.new(first, NAME)
        await self.send(behind, total, data[:1000])
        ahead = await second.find(behind.session_id)
        client = self.client(first)
        client.lose("PutObject", 1000)
        client.lose("GetObject", 1000)
        writer = await behind.open_writer(total)
        with self.assertRaises(BackendError):
            # How long a body is decides for how long it is tried again.
            await writer.write(data[1000 : 5 * MIB + 1000])
            await writer.close()
        await ahead.refresh()
        self.assertIsNotNone(ahead.record.upload)
        await self.send(ahead, total, data[ahead.offset :])
        self.assertNotIn("AbortMultipartUpload", client.asked)
        await self.close(second, ahead)
        self.assertEqual(await self.file_at(second, NAME), data)

    @contract
    async def test_what_is_in_front_of_the_store_does_not_end_a_session(self):
        total = 20 * MIB
        data = self.data(total)
        node = await self.started()
        session = await self.new(node, NAME)
        await self.send(session, total, data[: 11 * MIB])
        self.client(node).answer(
            {"HeadObject": b"", "GetObject": b"<html>404 Not Found</html>"}, 404
        )
        await self.fails(BackendError, self.send(session, total, data[11 * MIB :]))
        found = await (await self.another(node)).find(session.session_id)
        await found.refresh()
        self.assertGreaterEqual(found.offset, 11 * MIB)
        await self.send(found, total, data[found.offset :])
        await self.close(node, found)
        self.assertEqual(await self.file_at(node, NAME), data)

    @contract
    async def test_why_a_short_object_is_refused_can_be_read(self):
        node = await self.started()
        session = await self.new(node, NAME)
        await self.send(session, 12 * MIB, b"0123456789")
        (key,) = (one for one in self.left(node.settings) if "0-10" in one)
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        with self.assertRaises(StagedDataLost):
            await read_tails(session, 0, 10)


class RoomTests(BehindCase):
    """Memory that nobody uses any more."""

    @contract
    async def test_what_cannot_be_put_away_is_given_back(self):
        node = await self.started()
        session = await self.new(node, NAME)
        writer = await session.open_writer(12 * MIB)
        await writer.write(bytes(MIB))
        self.assertEqual(node.staging.memory.used, MIB)
        writer._fail(S3Unreachable("away"))
        self.assertEqual(node.staging.memory.used, 0)
        await self.fails(BackendError, writer.write(b"x"))
        await self.fails(BackendError, writer.close())

    @contract
    async def test_tiny_pieces_become_few_objects(self):
        node = await self.started()
        session = await self.new(node, NAME)
        writer = await session.open_writer(12 * MIB)
        for _ in range(5000):
            await writer.write(b"tiny")
        self.assertEqual(len(writer._chunks), 2)
        await writer.close()
        self.assertEqual(b"".join(await read_tails(session, 0, 20_000)), b"tiny" * 5000)
