"""
What seldom happens: parts that outlive their upload, answers in the wrong order.
"""

from __future__ import annotations

from uuid import uuid4

from tests.backends.s3.support import MIB, S3Case
from txbits.backends.s3._bucket import Part
from txbits.backends.s3._records import (
    LEAST_OPEN,
    Closed,
    Record,
    Unreadable,
    closed,
    decoded,
    encoded,
)
from txbits.errors import (
    BackendError,
    DestinationForbidden,
    NoSuchSession,
    OutOfSpace,
    StagedDataLost,
)
from txbits.testing.backend import contract

NAME = ("name.txt",)


class RecordTests(S3Case):
    """Records, as they are written and read."""

    def record(self, **values):
        return Record(
            session_id=uuid4(),
            destination=NAME,
            owner=None,
            content_name="\udc80",
            created=1.0,
            **values,
        )

    def test_they_come_back(self):
        for record in (
            self.record(),
            self.record(total=5, part_size=MIB, inline=b"a\nb"),
            self.record(total=MIB, part_size=MIB, upload="u", state="publishing"),
            self.record(total=MIB, part_size=MIB, node="one", acknowledged=9),
            self.record(state="publishing", publishing_since=1.5),
            closed(uuid4(), NAME, "me"),
        ):
            self.assertEqual(decoded(encoded(record), "key"), record)

    def test_their_size_tells_a_close_from_a_session(self):
        self.assertGreaterEqual(len(encoded(self.record())), LEAST_OPEN)
        long = closed(uuid4(), ("x" * 1000,) * 4, "y" * 1000)
        self.assertLess(len(encoded(long)), LEAST_OPEN)

    def test_one_that_an_older_version_wrote_names_no_node(self):
        older = encoded(self.record(total=5, part_size=MIB))
        self.assertNotIn(b"node", older)
        self.assertNotIn(b"acknowledged", older)
        self.assertNotIn(b"publishing_since", older)
        record = decoded(older, "key")
        self.assertEqual((record.node, record.acknowledged), (None, 0))
        self.assertIsNone(record.publishing_since)

    def test_others_are_refused(self):
        good = encoded(self.record(total=5, part_size=MIB, inline=b"abc"))
        for text in (
            b"",
            b"{}",
            b"\n",
            good.replace(b'"version": 1', b'"version": 2'),
            good.replace(b'"total": 5', b'"total": 2'),
            good.replace(b'"state": "open"', b'"state": "what"'),
            good.replace(b'"part_size": 1048576', b'"part_size": null'),
            good.replace(b'"owner": null', b'"owner": 7'),
            good.replace(b'"owner": null', b'"owner": null, "node": 7'),
            good.replace(b'"owner": null', b'"owner": null, "acknowledged": "7"'),
            good.replace(b'"owner": null', b'"owner": null, "publishing_since": ""'),
        ):
            with self.assertRaises(Unreadable):
                decoded(text, "key")

    @contract
    async def test_one_that_cannot_be_read_hides_no_other(self):
        backend = await self.started()
        session = await self.new(backend)
        self.bucket.put(backend.staging.record_key(uuid4()), b"x" * 2000)
        (summary,) = await backend.sessions()
        self.assertEqual(summary.session_id, session.session_id)

    @contract
    async def test_one_that_is_published_is_listed_as_such(self):
        backend = await self.started()
        session = await self.complete(backend)
        for is_published in (False, True):
            (summary,) = await backend.sessions()
            self.assertEqual(summary.published, is_published)
            await session.publish(overwrite=False, create_directories=False)

    @contract
    async def test_one_that_is_in_the_way_is_told(self):
        backend = await self.started()
        one = uuid4()
        await self.new(backend, session_id=one)
        await self.fails(BackendError, self.new(backend, session_id=one))
        self.assertIsInstance(closed(one, NAME, None), Closed)

    @contract
    async def test_a_key_that_is_too_long_is_forbidden(self):
        backend = await self.started()
        name = ("x" * 200,) * 6
        await self.fails(DestinationForbidden, self.new(backend, name))
        self.assertEqual(self.bucket.everything(), [])


class LengthTests(S3Case):
    """How long a file may be."""

    @contract
    async def test_what_does_not_fit_into_the_parts_is_refused_at_once(self):
        backend = await self._start(self.node(max_parts=2))
        session = await self.new(backend)
        await self.fails(OutOfSpace, session.open_writer((10 << 30) + 1))
        writer = await session.open_writer(10 << 30)
        await writer.close()
        self.assertEqual(session.grid.part_size, 5 << 30)


class EndingTests(S3Case):
    """The end of sessions, when others meddle."""

    @contract
    async def test_parts_that_arrive_after_an_abort_are_looked_for(self):
        backend = await self.started()
        session = await self.new(backend)
        await self.send(session, 12 * MIB, self.data(6 * MIB))
        bucket = backend.staging.bucket
        real = bucket.parts
        listings = [[Part(0, 5 * MIB, "e", 0.0, None)]] * 2

        class Late:
            """A bucket whose parts go on arriving for a while."""

            def __getattr__(self, name):
                return getattr(bucket, name)

            async def parts(self, key, upload):
                return listings.pop() if listings else await real(key, upload)

        await session.refresh()
        backend.staging.bucket = Late()
        await session.release()
        self.assertEqual(listings, [])
        self.assertEqual(self.client(backend).asked.count("AbortMultipartUpload"), 3)
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_close_that_a_cancel_overtook_takes_its_file_back(self):
        first = await self.started()
        second = await self.another(first)
        session = await self.complete(first)
        held, goes_on = self.client(first).hold("PutObject")
        publishing = session.publish(overwrite=False, create_directories=False)
        await held
        await (await second.find(session.session_id)).release()
        goes_on.callback(None)
        await publishing
        await self.fails(NoSuchSession, session.release(remember=True))
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_what_took_the_place_of_such_a_file_stays(self):
        first = await self.started()
        second = await self.another(first)
        session = await self.complete(first)
        client = self.client(first)
        held, goes_on = client.hold("PutObject")
        publishing = session.publish(overwrite=False, create_directories=False)
        await held
        await (await second.find(session.session_id)).release()
        goes_on.callback(None)
        await publishing
        held, goes_on = client.hold("DeleteObject")
        closing = session.release(remember=True)
        request = await held
        head = self.bucket.client.head_object(
            Bucket=self.bucket.name, Key="in/name.txt"
        )
        # Not every store heeds it; this one does.
        self.assertEqual(request.headers, {"if-match": head["ETag"]})
        await self.put(first, NAME, b"newer")
        goes_on.callback(None)
        await self.fails(NoSuchSession, closing)
        self.assertEqual(await self.file_at(first, NAME), b"newer")

    @contract
    async def test_the_offset_goes_back_with_an_upload_that_is_another_one(self):
        first = await self.started()
        second = await self.another(first)
        data = self.data(16 * MIB)
        one = await self.new(first)
        await self.send(one, len(data), data[: 11 * MIB])
        other = await second.find(one.session_id)
        for key, upload in self.bucket.uploads():
            self.bucket.client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=key, UploadId=upload
            )
        writer = await other.open_writer(len(data))
        await writer.write(data[11 * MIB : 15 * MIB])
        await self.fails(BackendError, writer.close())
        await self.send(other, len(data), data[: 6 * MIB])
        await one.reread()
        self.assertEqual((one.parts, one.offset), (set(), 0))

    @contract
    async def test_tails_that_somebody_removed_are_missed(self):
        backend = await self.started()
        data = self.data(2 * MIB)
        session = await self.new(backend)
        await self.send(session, len(data), data)
        session.drop_copy()
        for key in self.bucket.keys("in/.bits-sessions/"):
            if not key.endswith("/record"):
                self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        await self.fails(
            StagedDataLost, session.publish(overwrite=False, create_directories=False)
        )
        self.assertIsNone(await self.file_at(backend, NAME))

    @contract
    async def test_a_part_of_tails_that_another_node_made_is_not_made_again(self):
        first = await self.started()
        second = await self.another(first)
        data = self.data(12 * MIB)
        one = await self.new(first)
        await self.send(one, len(data), data[: 3 * MIB])
        other = await second.find(one.session_id)
        await self.send(other, len(data), data[3 * MIB : 8 * MIB])
        for key in self.bucket.keys("in/.bits-sessions/"):
            if not key.endswith("/record") and f"/{5 * MIB:016d}" not in key:
                self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        one.drop_copy()
        await self.send(one, len(data), data[3 * MIB :])
        await self.close(first, one)
        self.assertTrue(data == await self.file_at(first, NAME))
        await self.assert_nothing_left(first)
