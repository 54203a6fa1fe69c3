"""
Answers: those that only look like a success, those that say nothing, and long ones.
"""

from __future__ import annotations

from email.utils import formatdate
from threading import current_thread, main_thread

from twisted.internet import reactor

from tests.backends.s3.support import MIB, S3Case
from tests.fault_proxy import FaultProxy
from txbits._deferreds import begun
from txbits.backends.s3._bodies import Body
from txbits.backends.s3._responses import S3Error
from txbits.errors import DestinationForbidden, DestinationIsDirectory, OutOfSpace
from txbits.testing.backend import contract

NAME = ("name.txt",)

ERROR = b'<?xml version="1.0"?>\n<Error><Code>%s</Code><Message>m</Message></Error>'


class FalseSuccessTests(S3Case):
    """Status 200, and yet no success: the request is sent again."""

    async def with_answers(self, operation, *answers):
        """An upload and a Close, in which an operation is answered like that first."""
        backend = await self.started()
        client = self.client(backend)
        data = self.data(11 * MIB)
        session = await self.new(backend, NAME)
        client.answer({operation: answers[0]}, 200)
        if operation in ("CompleteMultipartUpload", "ListParts"):
            await self.send(session, len(data), data)
            client.answer({operation: answers[0]}, 200)
        else:
            await self.send(session, len(data), data)
        await self.close(backend, session)
        self.assertEqual(client._answers, {}, "it was asked for")
        self.assertTrue(data == await self.file_at(backend, NAME))
        await self.assert_nothing_left(backend)
        await self.remove(NAME)

    async def remove(self, name):
        key = "/".join(("in", *name))
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)

    @contract
    async def test_errors_that_come_with_it_are_tried_again(self):
        for operation in ("UploadPart", "CompleteMultipartUpload", "PutObject"):
            for code in (b"InternalError", b"SlowDown", b"ServiceUnavailable"):
                await self.with_answers(operation, ERROR % code)

    @contract
    async def test_other_errors_that_come_with_it_are_errors(self):
        backend = await self.started()
        self.client(backend).answer({"PutObject": ERROR % b"AccessDenied"}, 200)
        with self.assertRaises(S3Error) as caught:
            await backend.staging.bucket.put("in/x", Body([b"x"]))
        self.assertEqual(caught.exception.code, "AccessDenied")

    @contract
    async def test_a_store_without_room_is_full_and_that_says_what_to_do(self):
        backend = await self.started()
        bucket = backend.staging.bucket
        for status, code in ((507, b"Full"), (403, b"QuotaExceeded")):
            self.client(backend).answer({"PutObject": ERROR % code}, status)
            error = await self.fails(
                OutOfSpace, begun(bucket.put("in/x", Body([b"x"])))
            )
            self.assertIn("; free some space, or raise the quota", str(error))

    @contract
    async def test_what_is_not_of_s3_is_no_success(self):
        for operation in (
            "UploadPart",
            "CreateMultipartUpload",
            "CompleteMultipartUpload",
            "PutObject",
            "ListParts",
            "ListObjectsV2",
            "HeadObject",
        ):
            await self.with_answers(operation, b"")

    @contract
    async def test_nor_are_pages_for_people(self):
        for operation in ("CompleteMultipartUpload", "ListParts", "ListObjectsV2"):
            await self.with_answers(operation, b"<html><body>Welcome</body></html>")

    @contract
    async def test_nor_is_a_length_that_is_no_number(self):
        listing = (
            b"<ListBucketResult><Contents><Key>k</Key><Size>long</Size></Contents>"
            b"</ListBucketResult>"
        )
        await self.with_answers("ListObjectsV2", listing)

    @contract
    async def test_bytes_that_look_like_an_error_are_bytes(self):
        backend = await self.started()
        self.bucket.put("in/x", ERROR % b"InternalError")
        found = await backend.staging.bucket.get("in/x", 1000)
        self.assertEqual(found and found.body, ERROR % b"InternalError")


class SilentTests(S3Case):
    """Answers to HEAD have no body."""

    @contract
    async def test_a_clock_that_is_very_wrong_may_be_why(self):
        backend = await self.started()
        bucket = backend.staging.bucket
        now = reactor.seconds()  # type: ignore[attr-defined]
        date = formatdate(now + 3600, usegmt=True)
        bucket.client.answer({"HeadObject": b""}, 403, {"date": date})
        # The next attempt is signed for an hour later, and really refused for that;
        # that is put right once only.
        with self.assertRaises(S3Error):
            await bucket.head("in/nothing")
        self.assertApproximates(bucket.client.access.skew, 3600, 60)

    @contract
    async def test_if_the_clock_is_right_it_is_not(self):
        backend = await self.started()
        bucket = backend.staging.bucket
        before = bucket.client.counts["HeadObject"]
        now = reactor.seconds()  # type: ignore[attr-defined]
        date = formatdate(now + 60, usegmt=True)
        bucket.client.answer({"HeadObject": b""}, 403, {"date": date})
        with self.assertRaises(S3Error):
            await bucket.head("in/nothing")
        self.assertEqual(bucket.client.counts["HeadObject"], before + 1)
        self.assertEqual(bucket.client.access.skew, 0)


class LongAnswerTests(S3Case):
    """Listings."""

    @contract
    async def test_long_ones_are_read_in_a_thread(self):
        backend = await self.started()
        client = self.client(backend)
        parser = client._reader._parser
        threads = []

        class Noting:
            """Reads answers, and notes where."""

            def parse(self, *args):
                threads.append(current_thread() is main_thread())
                return parser.parse(*args)

        client._reader._parser = Noting()
        for number in range(200):
            self.bucket.put(f"in/{number:03}", b"")
        page = await backend.staging.bucket.page("in/", most=200)
        self.assertEqual(
            [one.key for one in page.found], [f"in/{n:03}" for n in range(200)]
        )
        await backend.staging.bucket.page("in/", most=2)
        self.assertEqual(threads, [False, True])

    @contract
    async def test_a_look_at_a_destination_is_short(self):
        proxy = FaultProxy.start(self, self.bucket.server.port)
        backend = await self._start(self.node(endpoint=proxy.endpoint))
        proxy.forget()
        await self.new(backend, NAME)
        (listing,) = (one for one in proxy.requests if one.operation == "ListObjectsV2")
        self.assertLessEqual(int(listing.query["max-keys"]), 20)

    @contract
    async def test_a_folder_behind_many_siblings_is_seen(self):
        backend = await self.started()
        for number in range(25):
            self.bucket.put(f"in/siblings-{number:02}", b"")
        await self.new(backend, ("siblings",))
        self.bucket.put("in/siblings/x", b"")
        await self.fails(DestinationIsDirectory, self.new(backend, ("siblings",)))


class NameTests(S3Case):
    """Names that XML cannot carry."""

    @contract
    async def test_they_are_forbidden(self):
        backend = await self.started()
        for name in ("a\ufffe", "\uffff"):
            await self.fails(DestinationForbidden, self.new(backend, ("d", name)))

    @contract
    async def test_others_go_through_all_that_there_is(self):
        backend = await self.started()
        for name in ("a b+c%41&<>'\"", "\u00e9\U0001f600\U0001fffe", "~!*()[]{}^`|=;,"):
            data = self.data(11 * MIB)
            session = await self.new(backend, ("d", name))
            await self.send(session, len(data), data[: 6 * MIB])
            await session.refresh()
            self.assertEqual(session.offset, 6 * MIB)
            await self.send(session, len(data), data[6 * MIB :])
            await self.close(backend, session)
            self.assertTrue(data == await self.file_at(backend, ("d", name)))
            other = await self.new(backend, ("d", name), overwrite=True)
            await self.send(other, len(data), data[: 6 * MIB])
            await self.clean_up_late(backend)
            await other.refresh()
            self.assertEqual(other.offset, 6 * MIB)
            await other.release()
