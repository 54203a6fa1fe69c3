"""
What a store says is believed only where it is whole: listings that are cut short,
bodies that somebody has changed on the way, lengths and ETags that are missing, and
requests that a store does not know.

The store is the real one; a proxy before it changes its answers.
"""

from __future__ import annotations

import gzip
import re

from tests.backends.s3.support import MIB, S3Case
from tests.fault_proxy import Answer, Change, FaultProxy
from txbits.backends.s3._responses import S3Error, S3Unfit
from txbits.errors import BackendError, DestinationExists
from txbits.interfaces import ICodedFile
from txbits.testing._abilities_contract import _Sink
from txbits.testing.backend import contract

NAME = ("name.txt",)

ALWAYS = 1_000_000


def in_body(pattern, to, times=0):
    """Let a pattern be something else in the bodies of answers."""

    def make(head, body):
        body = re.sub(pattern, to, body, count=times, flags=re.DOTALL)
        return with_header(head, b"Content-Length", b"%d" % len(body)), body

    return Change(make)


def with_header(head, name, value):
    """Set a header; ``None`` takes it away."""
    lines = [
        line
        for line in head.split(b"\r\n")
        if not line.lower().startswith(name.lower() + b":")
    ]
    return b"\r\n".join([*lines, *([] if value is None else [name + b": " + value])])


def in_head(**headers):
    """Let answers have other headers."""

    def make(head, body):
        for name, value in headers.items():
            head = with_header(head, name.replace("_", "-").encode(), value)
        return head, body

    return Change(make)


def compressed(head, body):
    """What a proxy makes of an answer that compresses, and minds the rules of HTTP."""
    etag = re.search(rb'(?i)etag: (".*?")', head)
    if etag is not None:
        head = with_header(head, b"ETag", b"W/" + etag[1])
    head = with_header(head, b"Content-Encoding", b"gzip")
    body = gzip.compress(body)
    head = with_header(head, b"Content-Length", None)
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return with_header(head, b"Transfer-Encoding", b"chunked"), chunk


#: A listing says that it goes on, and not where.
NOWHERE = in_body(
    rb"<IsTruncated>false</IsTruncated>", rb"<IsTruncated>true</IsTruncated>"
)


class WholenessCase(S3Case):
    """Nodes behind a proxy."""

    starts_in_full = True

    def setUp(self):
        super().setUp()
        self.proxy = FaultProxy.start(self, self.bucket.server.port)
        self.settings = {**self.settings, "endpoint": self.proxy.endpoint}

    def always(self, which, fault):
        """Let all exchanges of a kind fail from now on."""
        self.proxy.break_next(which, fault, ALWAYS)
        self.proxy.forget()


class ListingTests(WholenessCase):
    """Listings that are cut short."""

    async def uploaded(self):
        """A session with parts, all of whose bytes are acknowledged, on a dead node."""
        first = await self.started()
        self.data_sent = self.data(12 * MIB)
        session = await self.new(first, NAME)
        await self.send(session, len(self.data_sent), self.data_sent)
        self.client(first).die()
        return session.session_id

    @contract
    async def test_parts_that_are_not_listed_are_not_taken_for_missing(self):
        session_id = await self.uploaded()
        second = await self.started()
        first_part = in_body(
            rb"(<Part>.*?</Part>).*(<StorageClass>)",
            rb"\1\2",
        )

        def make(head, body):
            head, body = first_part.make(head, body)
            body = re.sub(
                rb"<NextPartNumberMarker>.*?</NextPartNumberMarker>", b"", body
            )
            return NOWHERE.make(head, body)

        self.always("ListParts", Change(make))
        await self.fails(BackendError, second.find(session_id))
        self.assertEqual(self.proxy.counts()["ListParts"], 1)
        # Nothing was given up, and the store may get well.
        self.proxy.heal()
        session = await second.find(session_id)
        self.assertEqual(session.offset, len(self.data_sent))
        await self.close(second, session)
        self.assertTrue(self.data_sent == await self.file_at(second, NAME))

    @contract
    async def test_nor_those_behind_a_marker_that_does_not_move(self):
        session_id = await self.uploaded()
        second = await self.started()
        self.always(
            "ListParts",
            in_body(
                rb"<IsTruncated>false</IsTruncated>",
                rb"<IsTruncated>true</IsTruncated>"
                rb"<NextPartNumberMarker>3</NextPartNumberMarker>",
            ),
        )
        await self.fails(BackendError, second.find(session_id))
        self.assertEqual(self.proxy.counts()["ListParts"], 2)

    @contract
    async def test_a_close_that_cannot_see_all_parts_ends_nothing(self):
        backend = await self.started()
        data = self.data(12 * MIB)
        session = await self.new(backend, NAME)
        await self.send(session, len(data), data)
        self.always("ListParts", NOWHERE)
        await self.fails(BackendError, self.close(backend, session))
        self.proxy.heal()
        await self.close(backend, session)
        self.assertTrue(data == await self.file_at(backend, NAME))

    @contract
    async def test_objects_are_not_listed_for_ever(self):
        backend = await self.started()
        bucket = backend.staging.bucket
        self.bucket.put("in/a", b"")
        for more in (
            b"",
            b"<NextContinuationToken></NextContinuationToken>",
            b"<NextContinuationToken>a</NextContinuationToken>",
        ):
            self.proxy.heal()
            self.always(
                "ListObjectsV2",
                in_body(
                    rb"<IsTruncated>false</IsTruncated>",
                    b"<IsTruncated>true</IsTruncated>" + more,
                ),
            )
            with self.assertRaises(S3Unfit):
                await bucket.every("in/")
            self.assertLessEqual(self.proxy.counts()["ListObjectsV2"], 2)
            await self.fails(BackendError, backend.sessions())
            await self.fails(BackendError, backend.clean_up(0))

    @contract
    async def test_uploads_are_not_listed_for_ever(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        await self.send(session, 12 * MIB, self.data(6 * MIB))
        for more in (
            b"",
            b"<NextKeyMarker>in/name.txt</NextKeyMarker>",
            b"<NextUploadIdMarker>a</NextUploadIdMarker>",
        ):
            self.proxy.heal()
            self.always(
                "ListMultipartUploads",
                in_body(
                    rb"<IsTruncated>false</IsTruncated>",
                    b"<IsTruncated>true</IsTruncated>" + more,
                ),
            )
            with self.assertRaises(S3Unfit):
                await backend.staging.bucket.uploads("in/")
            self.assertLessEqual(self.proxy.counts()["ListMultipartUploads"], 2)
            await self.fails(BackendError, backend.clean_up(0))

    @contract
    async def test_truth_has_many_spellings(self):
        backend = await self.started()
        self.bucket.put("in/a", b"")
        for said in (b"True", b"TRUE", b" true ", b"perhaps"):
            self.always(
                "ListObjectsV2",
                in_body(
                    rb"<IsTruncated>false</IsTruncated>",
                    b"<IsTruncated>" + said + b"</IsTruncated>",
                ),
            )
            with self.assertRaises(S3Unfit):
                await backend.staging.bucket.every("in/")
            self.proxy.heal()

    @contract
    async def test_a_full_page_must_say_whether_it_is_the_last(self):
        backend = await self.started()
        bucket = backend.staging.bucket
        for name in ("a", "b"):
            self.bucket.put(f"in/{name}", b"")
        self.always("ListObjectsV2", in_body(rb"<IsTruncated>.*?</IsTruncated>", b""))
        self.assertEqual(len((await bucket.page("in/", most=3)).found), 2)
        with self.assertRaises(S3Unfit):
            await bucket.page("in/", most=2)

    @contract
    async def test_entries_are_whole(self):
        backend = await self.started()
        bucket = backend.staging.bucket
        self.bucket.put("in/a", b"")
        for name in (b"Key", b"Size", b"LastModified"):
            self.always("ListObjectsV2", in_body(b"<%s>.*?</%s>" % (name, name), b""))
            with self.assertRaises(S3Unfit):
                await bucket.page("in/")
            self.proxy.heal()

    @contract
    async def test_a_listing_needs_no_etags(self):
        backend = await self.started()
        self.always("ListObjectsV2", in_body(rb"<ETag>.*?</ETag>", b""))
        self.bucket.put("in/name.txt", b"old")
        session = await self.complete(backend, NAME, b"new", overwrite=True)
        await self.close(backend, session, overwrite=True)
        self.assertEqual(await self.file_at(backend, NAME), b"new")

    @contract
    async def test_etags_need_no_quotes(self):
        backend = await self.started()
        self.bucket.put("in/name.txt", b"old")
        bare = in_body(rb"<ETag>&#34;(.*?)&#34;</ETag>", rb"<ETag>\1</ETag>")
        self.always("ListObjectsV2", bare)

        def make(head, body):
            return re.sub(rb'(?i)etag: "(.*?)"', rb"ETag: \1", head), body

        self.proxy.break_next(lambda _: True, Change(make), ALWAYS)
        data = self.data(6 * MIB)
        session = await self.complete(backend, NAME, data, overwrite=True)
        await self.close(backend, session, overwrite=True)
        file = await backend.open_file(NAME)
        sink = _Sink()
        await file.read_into(sink, 0, file.length)
        self.assertTrue(sink.received == data)

    @contract
    async def test_keys_begin_with_what_was_asked_for(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        await self.send(session, MIB, self.data(1000))
        # It encodes, and does not say so; braces are in all keys of sessions.
        self.always("ListObjectsV2", in_body(rb"<EncodingType>url</EncodingType>", b""))
        await self.fails(BackendError, session.refresh())
        self.proxy.heal()
        self.always("ListObjectsV2", in_body(rb"<Key>", b"<Key>other/"))
        await self.fails(BackendError, session.refresh())

    @contract
    async def test_a_store_that_lists_in_its_own_way_is_refused_at_the_start(self):
        for change in (
            in_body(rb"<EncodingType>url</EncodingType>", b""),
            in_body(rb"%7B", b"{%"),
            in_body(rb"<Contents>.*</Contents>", b""),
            in_body(rb"<IsTruncated>false", b"<IsTruncated>true"),
        ):
            self.always("ListObjectsV2", change)
            with self.assertRaises(S3Unfit) as caught:
                await self.node().start()
            self.assertNotIn("\n", str(caught.exception))
            self.proxy.heal()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_nor_are_uploads_of_others_taken_for_ours(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        await self.send(session, 12 * MIB, self.data(6 * MIB))
        self.always("ListMultipartUploads", in_body(rb"<Key>", b"<Key>other/"))
        await self.fails(BackendError, self.clean_up_late(backend))
        self.assertEqual(len(self.bucket.uploads()), 1)

    @contract
    async def test_a_condition_may_have_to_be_without_quotes(self):
        self.always(
            lambda it: (
                it.operation == "PutObject" and '"' in it.headers.get("if-match", "")
            ),
            Answer(412, "PreconditionFailed"),
        )
        backend = await self.started()
        self.assertTrue(backend.staging.bucket.has_bare_conditions)
        for data in (b"bytes", self.data(6 * MIB)):
            session = await self.complete(backend, NAME, data, overwrite=True)
            await self.close(backend, session, overwrite=True)
            self.assertTrue(data == await self.file_at(backend, NAME))


class CodingTests(WholenessCase):
    """Bodies that have a coding."""

    TEXT = b"".join(
        b"line %d, of many that are much alike\n" % n for n in range(20_000)
    )

    def put_packed(self, coding="gzip"):
        packed = gzip.compress(self.TEXT)
        self.bucket.client.put_object(
            Bucket=self.bucket.name,
            Key="in/name.txt",
            Body=packed,
            ContentEncoding=coding,
            ContentType="text/plain",
        )
        return packed

    async def read(self, file, start, end):
        sink = _Sink()
        await file.read_into(sink, start, end)
        return sink.received

    @contract
    async def test_nothing_is_asked_for_in_a_coded_form(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        await self.send(session, 12 * MIB, self.data(12 * MIB))
        await self.close(backend, session)
        file = await backend.open_file(NAME)
        await self.read(file, 0, file.length)
        asked = {one.headers.get("accept-encoding") for one in self.proxy.requests}
        self.assertEqual(asked, {"identity"})

    @contract
    async def test_a_coding_that_a_file_is_stored_with_is_passed_on(self):
        backend = await self.started()
        packed = self.put_packed()
        file = await backend.open_file(NAME)
        assert ICodedFile.providedBy(file)
        self.assertEqual(file.content_encoding, "gzip")
        self.assertEqual(file.length, len(packed))
        self.assertTrue(packed == await self.read(file, 0, file.length))
        self.assertTrue(packed[100:200] == await self.read(file, 100, 200))

    @contract
    async def test_how_it_was_uploaded_is_no_coding(self):
        backend = await self.started()
        for coding, told in (
            ("aws-chunked", None),
            ("gzip,aws-chunked", "gzip"),
            ("identity", None),
        ):
            packed = self.put_packed(coding)
            file = await backend.open_file(NAME)
            assert ICodedFile.providedBy(file)
            self.assertEqual(file.content_encoding, told)
            self.assertTrue(packed == await self.read(file, 0, file.length))

    @contract
    async def test_a_file_that_is_compressed_on_the_way_is_broken_off(self):
        backend = await self.started()
        self.bucket.put("in/name.txt", self.TEXT)
        file = await backend.open_file(NAME)
        for change in (
            Change(compressed),
            in_head(Content_Encoding=b"gzip"),
            in_head(Content_Encoding=b"br"),
        ):
            self.always("GetObject", change)
            sink = _Sink()
            await self.fails(BackendError, file.read_into(sink, 0, file.length))
            self.assertEqual(sink.received, b"")
            self.proxy.heal()

    @contract
    async def test_a_file_that_is_sent_as_another_is_broken_off(self):
        backend = await self.started()
        self.bucket.put("in/name.txt", self.TEXT)
        file = await backend.open_file(NAME)
        self.always("GetObject", in_head(ETag=b'"another"'))
        sink = _Sink()
        with self.assertRaises(BackendError):
            await file.read_into(sink, 0, file.length)
        self.assertEqual(sink.received, b"")

    @contract
    async def test_what_is_ours_has_none(self):
        first = await self.started()
        session = await self.new(first, NAME)
        await self.send(session, 5, b"bytes")
        second = await self.started()
        self.always("GetObject", Change(compressed))
        with self.assertRaisesRegex(S3Unfit, "gzip.*must not compress"):
            await second.find(session.session_id)
        # It is no use to ask again.
        self.assertEqual(self.proxy.counts(), {"GetObject": 1})
        self.proxy.heal()
        await self.close(second, await second.find(session.session_id))
        self.assertEqual(await self.file_at(second, NAME), b"bytes")

    @contract
    async def test_nor_have_listings(self):
        backend = await self.started()
        self.always("ListObjectsV2", Change(compressed))
        with self.assertRaisesRegex(
            S3Unfit, "ListObjectsV2 with status 200 and an unexpected Content-Enc"
        ):
            await backend.staging.bucket.every("in/")

    @contract
    async def test_an_error_that_passes_is_waited_for_in_any_coding(self):
        first = await self.started()
        session = await self.new(first, NAME)
        await self.send(session, 5, b"bytes")
        second = await self.started()

        def busy(head, body):
            head, body = compressed(head, b"<html>Bad Gateway</html>")
            return b"HTTP/1.1 502 Bad Gateway" + head[head.index(b"\r\n") :], body

        self.proxy.break_next("GetObject", Change(busy))
        await self.close(second, await second.find(session.session_id))
        self.assertEqual(await self.file_at(second, NAME), b"bytes")

    @contract
    async def test_an_upload_whose_id_is_coded_is_not_left(self):
        backend = await self.started()
        session = await self.new(backend, NAME)
        self.proxy.break_next("CreateMultipartUpload", Change(compressed))
        with self.assertRaises(BackendError):
            await self.send(session, 6 * MIB, self.data(6 * MIB))
        self.assertEqual(len(self.bucket.uploads()), 1)
        await session.release()
        self.assertEqual(self.bucket.everything(), [])


class HeadTests(WholenessCase):
    """What is said of an object."""

    @contract
    async def test_an_object_without_a_length_is_not_empty(self):
        backend = await self.started()
        self.bucket.put("in/name.txt", b"bytes")
        for length in (None, b"", b"five"):
            self.always("HeadObject", in_head(Content_Length=length))
            with self.assertRaises(BackendError):
                await backend.open_file(NAME)
            self.proxy.heal()

    @contract
    async def test_nor_is_one_of_chunks(self):
        backend = await self.started()
        self.bucket.put("in/name.txt", b"bytes")
        self.always(
            "HeadObject", in_head(Content_Length=None, Transfer_Encoding=b"chunked")
        )
        with self.assertRaisesRegex(S3Unfit, "without a length"):
            await backend.open_file(NAME)
        self.assertEqual(self.proxy.counts(), {"HeadObject": 1})

    @contract
    async def test_a_weak_etag_is_told_and_is_no_condition(self):
        first = await self.started()
        session = await self.new(first, NAME)
        await self.send(session, 5, b"by")
        second = await self.started()

        def make(head, body):
            return re.sub(rb'(?i)etag: "', rb'ETag: W/"', head), body

        self.always("GetObject", Change(make))
        with self.assertRaisesRegex(S3Unfit, "weak ETag"):
            await second.find(session.session_id)
        self.assertEqual(self.proxy.counts(), {"GetObject": 1})

    @contract
    async def test_when_something_was_changed_must_be_told(self):
        first = await self.started()
        session = await self.new(first, NAME)
        second = await self.started()
        self.always("GetObject", in_head(Last_Modified=None))
        # Otherwise its time would be out at once.
        with self.assertRaisesRegex(S3Unfit, "last changed"):
            await second.find(session.session_id)

    @contract
    async def test_a_store_that_changes_what_it_tells_is_refused_at_the_start(self):
        for change in (
            in_head(Content_Length=None, Transfer_Encoding=b"chunked"),
            in_head(Content_Length=b"7"),
            in_head(ETag=b'W/"weak"'),
            in_head(ETag=b'"another"'),
            in_head(Content_Encoding=b"gzip"),
        ):
            self.always("HeadObject", change)
            node = self.node()
            with self.assertRaises(BackendError) as caught:
                await node.start()
            self.assertNotIn("\n", str(caught.exception))
            self.proxy.heal()
        self.assertEqual(self.bucket.everything(), [])


class RemovalTests(WholenessCase):
    """Stores that do not know DeleteObjects."""

    ANSWERS = (
        Answer(501, "NotImplemented"),
        Answer(405, "MethodNotAllowed"),
        Answer(404, "NoSuchKey"),
        # Google's.
        Answer(400, "InvalidArgument"),
        in_body(rb".*", b"<Welcome/>", 1),
    )

    @contract
    async def test_it_is_found_out_at_the_start(self):
        for answer in self.ANSWERS:
            self.proxy.heal()
            self.always("DeleteObjects", answer)
            backend = await self.started()
            self.assertTrue(backend.staging.bucket.removes_singly)
            self.proxy.forget()
            data = self.data(3 * MIB)
            session = await self.new(backend, NAME, overwrite=True)
            for start in range(0, len(data), MIB):
                await self.send(session, len(data), data[start : start + MIB])
            await self.close(backend, session, overwrite=True)
            self.assertNotIn("DeleteObjects", self.proxy.counts())
            await self.assert_nothing_left(backend)

    @contract
    async def test_or_when_it_is_needed(self):
        backend = await self.started()
        self.assertFalse(backend.staging.bucket.removes_singly)
        keys = [f"in/{number}" for number in range(20)]
        for key in keys:
            self.bucket.put(key, b"")
        self.always("DeleteObjects", Answer(501, "NotImplemented"))
        await backend.staging.bucket.delete_all(keys)
        self.assertEqual(
            self.proxy.counts(), {"DeleteObjects": 1, "DeleteObject": len(keys)}
        )
        self.assertEqual(self.bucket.keys("in/"), [])
        self.proxy.forget()
        await backend.staging.bucket.delete_all(keys)
        self.assertEqual(self.proxy.counts(), {"DeleteObject": len(keys)})

    @contract
    async def test_whoever_may_remove_nothing_is_told_so(self):
        backend = await self.started()
        for answer in (Answer(403, "AccessDenied"), Answer(404, "NoSuchBucket")):
            self.always("DeleteObjects", answer)
            with self.assertRaises(S3Error):
                await backend.staging.bucket.delete_all(["in/a", "in/b"])
            self.proxy.heal()
        self.always("DeleteObjects", Answer(400, "InvalidArgument"))
        self.always("DeleteObject", Answer(403, "AccessDenied"))
        with self.assertRaises(S3Error):
            await backend.staging.bucket.delete_all(["in/a", "in/b"])
        self.assertFalse(backend.staging.bucket.removes_singly)

    @contract
    async def test_what_was_left_is_removed_alone(self):
        backend = await self.started()
        for key in ("in/a", "in/b"):
            self.bucket.put(key, b"")
        self.proxy.break_next(
            "DeleteObjects",
            in_body(
                rb"</DeleteResult>",
                b"<Error><Key>in/a</Key><Code>InternalError</Code></Error>"
                b"</DeleteResult>",
            ),
        )
        self.proxy.forget()
        await backend.staging.bucket.delete_all(["in/a", "in/b"])
        self.assertEqual(self.proxy.counts(), {"DeleteObjects": 1, "DeleteObject": 1})
        self.assertFalse(backend.staging.bucket.removes_singly)

    @contract
    async def test_to_remove_what_is_gone_is_a_success(self):
        backend = await self.started()
        for code in ("NoSuchKey", "NoSuchVersion"):
            self.always("DeleteObject", Answer(404, code))
            await backend.staging.bucket.delete("in/a")
            self.proxy.heal()
        self.always("DeleteObject", Answer(404, "NoSuchBucket"))
        with self.assertRaises(S3Error):
            await backend.staging.bucket.delete("in/a")

    @contract
    async def test_so_is_to_abort_what_is_gone(self):
        backend = await self.started()
        for code in ("NoSuchUpload", "NoSuchKey"):
            self.always("AbortMultipartUpload", Answer(404, code))
            await backend.staging.bucket.abort("in/a", "upload")
            self.proxy.heal()


class TakenTests(S3Case):
    """A destination that was taken, and is free again."""

    starts_in_full = True

    @contract
    async def test_a_close_is_a_success_at_once(self):
        for length in (5, 3 * MIB, 6 * MIB):
            backend = await self.started()
            data = self.data(length)
            session = await self.new(backend, NAME)
            await self.send(session, length, data)
            self.bucket.put("in/name.txt", b"theirs")
            for _ in range(2):
                await self.fails(
                    DestinationExists,
                    session.publish(overwrite=False, create_directories=False),
                )
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")
            await self.close(backend, session)
            self.assertTrue(data == await self.file_at(backend, NAME))
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")

    @contract
    async def test_also_of_a_session_that_was_made_while_it_was_taken(self):
        backend = await self.started()
        self.bucket.put("in/name.txt", b"theirs")
        session = await self.new(backend, NAME, overwrite=True)
        await self.send(session, 5, b"bytes")
        await self.fails(
            DestinationExists,
            session.publish(overwrite=False, create_directories=False),
        )
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key="in/name.txt")
        await self.close(backend, session)
        self.assertEqual(await self.file_at(backend, NAME), b"bytes")
