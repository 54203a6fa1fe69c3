"""
Uploads to S3 that a server application is asked about: their bytes in one object before
they are published, and the copy that publishes them.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from twisted.internet.defer import DeferredList
from twisted.internet.threads import deferToThread

from tests.backends.s3.support import MIB, NO_PARTS, Killed, S3Case
from tests.backends.s3.test_downloads import Slow
from txbits.errors import (
    BackendError,
    DestinationExists,
    NoSuchSession,
    StagedDataLost,
)
from txbits.interfaces import (
    Answer,
    IAddressable,
    IAnswerable,
    IReadable,
    IReplyAddressable,
)
from txbits.testing._abilities_contract import _Sink
from txbits.testing.backend import contract

NAME = ("name.txt",)

#: In the record; in tails; in parts.
LENGTHS = (1000, 2 * MIB, 12 * MIB)


class AnsweringCase(S3Case):
    """Nodes that ask an application."""

    notifies = True

    async def uploaded(self, backend, data, name=NAME, **rules):
        """A complete session."""
        session = await self.new(backend, name, **rules)
        await self.send(session, len(data), data)
        return session

    def at_url(self, url):
        """What an application reads at a URL that it was told."""
        parts = urlsplit(url)
        self.assertEqual((parts.scheme, parts.netloc), ("s3", self.bucket.name))
        return deferToThread(self.bucket.read, parts.path.removeprefix("/"))

    async def back(self, session, start=0, end=None):
        """Staged bytes as they are read by value."""
        sink = _Sink()
        end = session.offset if end is None else end
        await session.read_into(sink, start, end)
        return sink.received

    async def assert_published(self, backend, session, data, overwrite=False):
        await self.close(backend, session, overwrite)
        self.assertTrue(data == await self.file_at(backend, session.destination))
        await self.assert_nothing_left(backend)

    def abort(self, prefix):
        """What somebody does who should not."""
        for key, upload in self.bucket.uploads(prefix):
            self.bucket.client.abort_multipart_upload(
                Bucket=self.bucket.name, Key=key, UploadId=upload
            )


class StagingTests(AnsweringCase):
    """One object, before anything is published."""

    @contract
    async def test_one_that_the_application_has_taken_may_be_copied_anywhere(self):
        backend = await self.started()
        for length in LENGTHS:
            session = await self.uploaded(backend, b"x" * length)
            await session.begin_attempt()
            parts = urlsplit(session.address())
            source = {"Bucket": parts.netloc, "Key": parts.path.removeprefix("/")}
            await session.keep_answer(Answer())
            # With its metadata, which say whose upload it was.
            await deferToThread(
                self.bucket.client.copy_object,
                CopySource=source,
                Bucket=self.bucket.name,
                Key=backend.staging.settings.key(NAME),
            )
            await deferToThread(self.bucket.client.delete_object, **source)
            (summary,) = await backend.sessions()
            self.assertFalse(summary.releasing)
            backend = await self.reopened(backend)
            found = await backend.find(session.session_id)
            await found.refresh()
            self.assertEqual((found.offset, found.published), (length, False))
            await found.release(remember=True)
            self.assertEqual(await self.file_at(backend, NAME), b"x" * length)
            self.bucket.clear()

    @contract
    async def test_sessions_can_more_only_if_the_backend_says_so(self):
        backend = await self.started()
        able = {IReadable, IAddressable, IAnswerable, IReplyAddressable}
        self.assertEqual(backend.session_abilities, able)
        self.notifies = False
        plain = await self.another(backend)
        self.assertEqual(plain.session_abilities, set())
        session = await self.new(plain)
        for ability in able:
            self.assertFalse(ability.providedBy(session))

    @contract
    async def test_an_application_reads_all_bytes_at_the_address(self):
        backend = await self.started()
        for length in LENGTHS:
            data = self.data(length)
            session = await self.uploaded(backend, data, (str(length),))
            self.assertEqual(await session.begin_attempt(), 1)
            self.assertTrue(data == await self.at_url(session.address()))
            self.assertTrue(data == await self.back(session))
            self.assertEqual(data[7:99], await self.back(session, 7, 99))
            self.assertIsNone(await self.file_at(backend, (str(length),)))
            await self.assert_published(backend, session, data)
            self.assertIsNone(await self.at_url(session.address()))
        self.assertEqual(backend.staging.memory.used, 0)

    @contract
    async def test_an_empty_file_is_there_too(self):
        backend = await self.started()
        session = await self.new(backend)
        await self.append(session, 0)
        await session.begin_attempt()
        self.assertEqual(await self.at_url(session.address()), b"")
        await self.assert_published(backend, session, b"")

    @contract
    async def test_bytes_are_read_without_an_attempt_as_well(self):
        backend = await self.started()
        for length in LENGTHS:
            data = self.data(length)
            session = await self.uploaded(backend, data, (str(length),))
            self.assertTrue(data == await self.back(session))
            self.assertEqual(session.attempts, 0)
            again = await self.another(backend)
            found = await again.find(session.session_id)
            self.assertEqual(found.offset, length)
            self.assertTrue(data == await self.back(found))
            await found.release()
            await self.assert_nothing_left(backend)

    @contract
    async def test_an_incomplete_upload_is_not_asked_about(self):
        backend = await self.started()
        for length in LENGTHS:
            session = await self.new(backend, (str(length),))
            await self.send(session, length, self.data(length)[:-1])
            await self.fails(BackendError, session.begin_attempt())
            await session.release()
            await self.assert_nothing_left(backend)

    @contract
    async def test_two_nodes_make_one_object(self):
        first = await self.started()
        second = await self.another(first)
        for length in LENGTHS:
            data = self.data(length)
            one = await self.uploaded(first, data, (str(length),))
            other = await second.find(one.session_id)
            attempts = await DeferredList(
                [one.begin_attempt(), other.begin_attempt()], consumeErrors=True
            )
            self.assertEqual(sorted(attempts), [(True, 1), (True, 2)])
            for each in (one, other):
                self.assertTrue(data == await self.back(each))
            await self.assert_published(second, other, data)

    @contract
    async def test_what_is_left_of_parts_while_it_is_made_is_no_loss(self):
        first = await self.started()
        second = await self.another(first)
        data = self.data(12 * MIB)
        one = await self.uploaded(first, data)
        other = await second.find(one.session_id)
        await other.begin_attempt()
        self.client(first).answer({"ListParts": NO_PARTS}, 200)
        self.assertEqual(await one.begin_attempt(), 2)
        self.assertEqual(one.offset, len(data))
        await other.publish(overwrite=True, create_directories=False)
        await one.refresh()
        one.published = False
        self.client(first).answer({"ListParts": NO_PARTS}, 200)
        await self.assert_published(first, one, data, overwrite=True)

    @contract
    async def test_lost_answers_are_found_out(self):
        backend = await self.started()
        for length in LENGTHS:
            for operation in (
                "PutObject",
                "CreateMultipartUpload",
                "CompleteMultipartUpload",
            ):
                data = self.data(length)
                name = (f"{length}-{operation}",)
                if operation == "CreateMultipartUpload":
                    self.client(backend).lose(operation)
                session = await self.uploaded(backend, data, name)
                self.client(backend).lose(operation)
                self.assertEqual(await session.begin_attempt(), 1)
                self.assertTrue(data == await self.back(session))
                await self.assert_published(backend, session, data)

    @contract
    async def test_an_upload_of_a_node_that_died_goes_with_the_session(self):
        first = await self.started()
        second = await self.another(first)
        session = await self.new(first)
        held, goes_on = self.client(first).hold_answer("CreateMultipartUpload")
        writer = await session.open_writer(12 * MIB)
        await writer.write(self.data(6 * MIB))
        await held
        self.client(first).die()
        goes_on.callback(None)
        with self.assertRaises(Killed):
            await writer.close()
        self.assertEqual(len(self.bucket.uploads()), 1)
        await (await second.find(session.session_id)).release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_an_old_fragment_does_no_harm_afterwards(self):
        first = await self.started()
        second = await self.another(first)
        data = self.data(12 * MIB)
        session = await self.new(first)
        await self.send(session, len(data), data[: 6 * MIB])
        behind = await second.find(session.session_id)
        old = await behind.open_writer(len(data))
        await self.send(session, len(data), data[6 * MIB :])
        await session.begin_attempt()
        with self.assertRaises(BackendError):
            await old.write(data[6 * MIB :])
            await old.close()
        self.assertEqual((await second.find(session.session_id)).offset, len(data))
        await session.refresh()
        self.assertTrue(data == await self.back(session))
        await self.assert_published(first, session, data)

    @contract
    async def test_bytes_that_somebody_took_away_are_noticed(self):
        backend = await self.started()
        data = self.data(12 * MIB)
        session = await self.uploaded(backend, data)
        self.abort("in/.bits-sessions/")
        await self.fails(StagedDataLost, session.begin_attempt())
        self.assertNotEqual(session.offset, session.total)
        found = await (await self.another(backend)).find(session.session_id)
        self.assertTrue(found.in_doubt)
        await session.release()
        session = await self.uploaded(backend, data)
        await session.begin_attempt()
        key = urlsplit(session.address()).path[1:]
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=key)
        await self.fails(StagedDataLost, self.begun_reading(session))
        await self.fails(
            StagedDataLost, session.publish(overwrite=False, create_directories=False)
        )
        self.assertIsNone(await self.file_at(backend, NAME))
        await session.release()
        await self.assert_nothing_left(backend)

    def begun_reading(self, session):
        return session.read_into(_Sink(), 0, 5)

    @contract
    async def test_a_reading_that_nobody_waits_for_ends(self):
        backend = await self.started()
        data = self.data(12 * MIB)
        session = await self.uploaded(backend, data)
        slow = Slow(MIB)
        reading = session.read_into(slow, 0, len(data))
        await slow.full
        reading.addErrback(lambda _: None).cancel()
        await reading
        while slow.producer is not None:
            await deferToThread(len, data)
        self.assertLess(len(slow.received), len(data))
        await self.assert_published(backend, session, data)


class CopyTests(AnsweringCase):
    """Publishing what was put together."""

    @contract
    async def test_a_long_file_is_copied_in_parts(self):
        backend = await self.started()
        backend.staging.copy_part = 5 * MIB
        for overwrite in (False, True):
            data = self.data(21 * MIB)[overwrite:]
            session = await self.uploaded(backend, data, overwrite=overwrite)
            self.client(backend).asked.clear()
            await self.assert_published(backend, session, data, overwrite)
            self.assertEqual(self.client(backend).asked.count("UploadPartCopy"), 5)
            head = self.bucket.client.head_object(
                Bucket=self.bucket.name, Key="in/name.txt"
            )
            self.assertEqual(
                head["Metadata"]["txbits-session"],
                f"{{{str(session.session_id).upper()}}}",
            )

    @contract
    async def test_it_is_published_once_by_nodes_at_once(self):
        first = await self.started()
        second = await self.another(first)
        for overwrite in (False, True):
            data = self.data(12 * MIB)[overwrite:]
            name = (str(overwrite),)
            one = await self.uploaded(first, data, name, overwrite=overwrite)
            other = await second.find(one.session_id)
            for outcome in await DeferredList(
                [
                    each.publish(overwrite=overwrite, create_directories=False)
                    for each in (one, other)
                ],
                consumeErrors=True,
            ):
                self.assertTrue(outcome[0], outcome[1])
            await self.close(first, one, overwrite)
            self.assertTrue(data == await self.file_at(first, name))
            with self.assertRaises(NoSuchSession):
                await other.refresh()
            await self.assert_nothing_left(first)

    @contract
    async def test_a_close_that_comes_again_does_not_bring_an_old_file_back(self):
        first = await self.started()
        second = await self.another(first)
        data = self.data(12 * MIB)
        one = await self.uploaded(first, data, overwrite=True)
        await one.begin_attempt()
        other = await second.find(one.session_id)
        held, goes_on = self.client(first).hold("CompleteMultipartUpload")
        closing = one.publish(overwrite=True, create_directories=False)
        await held
        await self.close(second, other, overwrite=True)
        newer = await self.uploaded(second, b"newer", overwrite=True)
        await self.close(second, newer, overwrite=True)
        goes_on.callback(None)
        closing.addErrback(lambda failure: failure.trap(NoSuchSession))
        await closing
        self.assertEqual(await self.file_at(first, NAME), b"newer")
        self.assertEqual(self.left(first.settings), [])

    @contract
    async def test_a_foreign_file_is_kept_whenever_it_appears(self):
        backend = await self.started()
        data = self.data(6 * MIB)
        for operation in ("ListObjectsV2", "UploadPartCopy", "CompleteMultipartUpload"):
            name = (operation,)
            session = await self.uploaded(backend, data, name)
            await session.begin_attempt()
            held, goes_on = self.client(backend).hold(operation)
            publishing = session.publish(overwrite=False, create_directories=False)
            await held
            await self.put(backend, name, b"theirs")
            goes_on.callback(None)
            await self.fails(DestinationExists, publishing)
            self.assertEqual(await self.file_at(backend, name), b"theirs")
            self.bucket.client.delete_object(
                Bucket=self.bucket.name, Key=backend.settings.key(name)
            )
            await self.assert_published(backend, session, data)

    @contract
    async def test_a_copy_that_somebody_aborts_is_begun_anew(self):
        backend = await self.started()
        data = self.data(6 * MIB)
        session = await self.uploaded(backend, data)
        await session.begin_attempt()
        held, goes_on = self.client(backend).hold("UploadPartCopy")
        publishing = session.publish(overwrite=False, create_directories=False)
        await held
        self.abort("in/name.txt")
        goes_on.callback(None)
        await publishing
        await self.assert_published(backend, session, data)

    @contract
    async def test_a_cancel_while_it_is_copied_leaves_nothing(self):
        first = await self.started()
        second = await self.another(first)
        data = self.data(6 * MIB)
        for operation in ("CreateMultipartUpload", "UploadPartCopy", "ListParts"):
            name = (operation,)
            session = await self.uploaded(first, data, name)
            await session.begin_attempt()
            other = await second.find(session.session_id)
            held, goes_on = self.client(first).hold(operation)
            publishing = session.publish(overwrite=False, create_directories=False)
            await held
            await other.release()
            self.assertEqual(self.left(first.settings), [])
            goes_on.callback(None)
            await self.fails(NoSuchSession, publishing)
            self.assertIsNone(await self.file_at(first, name))
            self.assertEqual(self.left(first.settings), [])

    @contract
    async def test_lost_answers_to_a_copy_are_found_out(self):
        backend = await self.started()
        data = self.data(6 * MIB)
        for operation in (
            "CreateMultipartUpload",
            "UploadPartCopy",
            "ListParts",
            "PutObject",
            "CompleteMultipartUpload",
        ):
            session = await self.uploaded(backend, data, (operation,))
            await session.begin_attempt()
            self.client(backend).lose(operation)
            await session.publish(overwrite=False, create_directories=False)
            await self.close(backend, session)
            self.assertTrue(data == await self.file_at(backend, (operation,)))
            await self.assert_nothing_left(backend)


class ChangeTests(AnsweringCase):
    """Sessions that were created when nodes were set otherwise."""

    async def plain(self):
        """A node that asks nobody."""
        self.notifies = False
        plain = await self.started()
        self.notifies = True
        return plain

    @contract
    async def test_a_session_of_before_is_sent_again(self):
        for length in LENGTHS:
            for held in (0, 500, length):
                data = self.data(length)
                plain = await self.plain()
                session = await self.new(plain)
                if held:
                    await self.send(session, length, data[:held])
                backend = await self.another(plain)
                await self.fails(NoSuchSession, backend.find(session.session_id))
                await self.assert_nothing_left(backend)
                self.assertIsNone(await self.file_at(backend, NAME))
                again = await self.uploaded(backend, data)
                await again.begin_attempt()
                self.assertTrue(data == await self.at_url(again.address()))
                await self.assert_published(backend, again, data)
                self.bucket.clear()

    @contract
    async def test_a_node_that_still_asks_nobody_notices_and_leaves_nothing(self):
        plain = await self.plain()
        data = self.data(12 * MIB)
        session = await self.new(plain)
        await self.send(session, len(data), data[:1000])
        writer = await session.open_writer(len(data))
        await writer.write(data[1000 : 5 * MIB + 1000])
        backend = await self.another(plain)
        await self.fails(NoSuchSession, backend.find(session.session_id))
        await self.fails(NoSuchSession, writer.close())
        await self.fails(NoSuchSession, plain.find(session.session_id))
        await self.assert_nothing_left(plain)
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_one_that_was_published_before_is_closed(self):
        for length in LENGTHS:
            data = self.data(length)
            plain = await self.plain()
            session = await self.uploaded(plain, data)
            await session.publish(overwrite=False, create_directories=False)
            backend = await self.another(plain)
            found = await backend.find(session.session_id)
            self.assertTrue(found.published)
            await self.assert_published(backend, found, data)
            self.bucket.clear()

    @contract
    async def test_one_that_is_being_released_is_released(self):
        plain = await self.plain()
        session = await self.new(plain)
        await self.send(session, 12 * MIB, b"x" * 6 * MIB)
        self.assertTrue(await session.give_up(closed=False))
        backend = await self.another(plain)
        found = await backend.find(session.session_id)
        self.assertTrue(found.releasing)
        await found.release()
        self.assertEqual(self.bucket.everything(), [])

    @contract
    async def test_a_node_that_asks_nobody_publishes_it_as_well(self):
        for length in LENGTHS:
            data = self.data(length)
            self.notifies = True
            backend = await self.started()
            session = await self.uploaded(backend, data, overwrite=True)
            await session.begin_attempt()
            self.notifies = False
            plain = await self.another(backend)
            found = await plain.find(session.session_id)
            self.assertEqual(found.attempts, 1)
            await self.assert_published(plain, found, data, overwrite=True)


class OlderVersionTests(AnsweringCase):
    """
    Sessions of versions that moved a session when they began to ask an application
    about it. They wrote that into the record, and gave up parts that were at the
    destination.
    """

    async def moved(self, session):
        """Do what an older version did, on another node."""
        other = await self.another(self.plain)
        stored = await other.staging.read(session.session_id)
        await other.staging.write(
            stored.record.changed(
                is_staged=True,
                upload=None,
                has_strays=stored.record.upload is not None,
            ),
            stored.etag,
        )

    async def begun_before(self):
        self.notifies = False
        self.plain = await self.started()
        self.notifies = True
        return await self.new(self.plain)

    @contract
    async def test_one_that_was_moved_is_asked_about(self):
        for length in LENGTHS:
            session = await self.begun_before()
            data = self.data(length)
            await self.send(session, length, data[: length // 2])
            await self.moved(session)
            backend = await self.another(self.plain)
            found = await backend.find(session.session_id)
            await self.send(found, length, data[found.offset :])
            await found.begin_attempt()
            self.assertTrue(data == await self.at_url(found.address()))
            await self.assert_published(backend, found, data)
            self.bucket.clear()

    @contract
    async def test_a_node_that_asks_nobody_goes_on_with_one_that_is_moved(self):
        for length in LENGTHS:
            session = await self.begun_before()
            data = self.data(length)
            await self.send(session, length, data[: length // 2])
            await self.moved(session)
            await session.refresh()
            await self.send(session, length, data[session.offset :])
            await self.assert_published(self.plain, session, data)
            self.bucket.clear()

    @contract
    async def test_one_that_is_moved_while_its_upload_is_begun_leaves_nothing(self):
        session = await self.begun_before()
        data = self.data(12 * MIB)
        await self.send(session, len(data), data[:1000])
        writer = await session.open_writer(len(data))
        held, goes_on = self.client(self.plain).hold("CreateMultipartUpload")
        await writer.write(data[1000 : 5 * MIB + 1000])
        await held
        await self.moved(session)
        goes_on.callback(None)
        await self.fails(BackendError, writer.close())
        found = await self.plain.find(session.session_id)
        self.assertEqual(found.offset, 1000)
        await self.send(found, len(data), data[1000:])
        await self.assert_published(self.plain, found, data)
        self.assertEqual(self.bucket.uploads(), [])
