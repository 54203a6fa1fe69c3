"""
The contract of sessions and of their writers: bytes come, are published, are released.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from txbits.errors import (
    BackendError,
    DestinationExists,
    DestinationIsDirectory,
    NoSuchSession,
    ParentMissing,
)
from txbits.interfaces import IReleasable, IUploadSession, IWriter
from txbits.testing._contract import ContractBase, contract


class WritingContract(ContractBase):
    """What :class:`~txbits.interfaces.IWriter` promises."""

    @contract
    async def test_sessions_and_writers_provide_their_interfaces(self) -> None:
        session = await self.new(await self.started())
        verifyObject(IUploadSession, session)
        verifyObject(IReleasable, session)
        verifyObject(IWriter, await session.open_writer(1))

    @contract
    async def test_methods_of_a_session_return_deferreds(self) -> None:
        session = await self.new(await self.started())
        opening = session.open_writer(2)
        self.assertIsInstance(opening, Deferred)
        writer = await opening
        for call in (
            lambda: writer.write(b"ab"),
            writer.close,
            lambda: session.publish(overwrite=False, create_directories=False),
            session.release,
        ):
            result = call()
            self.assertIsInstance(result, Deferred)
            await result

    @contract
    async def test_methods_fail_and_do_not_raise(self) -> None:
        session = await self.new(await self.started())
        await self.fails(
            BackendError, session.publish(overwrite=False, create_directories=False)
        )
        writer = await session.open_writer(2)
        await writer.close()
        await self.fails(BackendError, writer.write(b"ab"))

    @contract
    async def test_a_new_session_tells_what_it_was_given(self) -> None:
        backend = await self.started()
        before = self.now(backend)
        session = await self.new(
            backend, ("näme ☃.txt",), owner="DOM\\näme", content_name="C:\\Ω.txt"
        )
        self.assertEqual(session.destination, ("näme ☃.txt",))
        self.assertEqual(session.owner, "DOM\\näme")
        self.assertEqual(session.content_name, "C:\\Ω.txt")
        self.assertIsNone(session.total)
        self.assertEqual(session.offset, 0)
        self.assertFalse(session.published)
        self.assertFalse(session.releasing)
        # Sixty seconds, since this is about the unit and not about clocks.
        self.assertLess(abs(session.last_progress - before), 60)

    @contract
    async def test_offset_grows_as_bytes_are_written(self) -> None:
        session = await self.new(await self.started())
        writer = await session.open_writer(5)
        self.assertEqual(session.total, 5)
        self.assertEqual(session.offset, 0)
        await writer.write(b"ab")
        await writer.write(b"c")
        await writer.close()
        self.assertEqual(session.offset, 3)

    @contract
    async def test_a_second_writer_goes_on_at_the_offset(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        await self.append(session, 5, b"ab")
        await self.append(session, 5, b"c", b"de")
        self.assertEqual(session.offset, 5)
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"abcde")

    @contract
    async def test_long_bytes_come_back_as_they_were(self) -> None:
        backend = await self.started()
        data = bytes(range(256)) * 8192 + b"end"
        session = await self.new(backend)
        step = 300_000
        await self.append(
            session,
            len(data),
            *(data[start : start + step] for start in range(0, len(data), step)),
        )
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), data)

    @contract
    async def test_a_writer_may_be_closed_twice(self) -> None:
        session = await self.new(await self.started())
        writer = await self.append(session, 5, b"ab")
        await writer.close()
        self.assertEqual(session.offset, 2)

    @contract
    async def test_a_writer_may_be_closed_twice_at_once(self) -> None:
        session = await self.new(await self.started())
        writer = await session.open_writer(5)
        await writer.write(b"ab")
        first, second = writer.close(), writer.close()
        await second
        await first
        await self.append(session, 5, b"cde")
        self.assertEqual(session.offset, 5)

    @contract
    async def test_a_writer_without_bytes_changes_no_offset(self) -> None:
        session = await self.new(await self.started())
        await self.append(session, 5)
        self.assertEqual((session.total, session.offset), (5, 0))


class PublishingContract(ContractBase):
    """What ``publish()`` promises."""

    @contract
    async def test_nothing_is_visible_before_publishing(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        self.assertIsNone(await self.file_at(backend, ("name.txt",)))
        self.assertFalse(session.published)

    @contract
    async def test_publishing_makes_the_whole_file_appear(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"whole")
        self.assertTrue(session.published)

    @contract
    async def test_publishing_again_is_success_and_changes_nothing(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.publish(overwrite=False, create_directories=False)
        await self.put(backend, ("name.txt",), b"newer")
        await session.publish(overwrite=True, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"newer")

    @contract
    async def test_an_incomplete_upload_is_not_published(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        await self.append(session, 5, b"abc")
        await self.fails(
            BackendError, session.publish(overwrite=False, create_directories=False)
        )
        self.assertIsNone(await self.file_at(backend, ("name.txt",)))
        await self.append(session, 5, b"de")
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"abcde")

    @contract
    async def test_an_empty_file_is_published(self) -> None:
        backend = await self.started()
        session = await self.complete(backend, data=b"")
        self.assertEqual((session.total, session.offset), (0, 0))
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"")

    @contract
    async def test_a_file_that_appears_after_creation_is_kept(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await self.put(backend, ("name.txt",), b"theirs")
        await self.fails(
            DestinationExists,
            session.publish(overwrite=False, create_directories=False),
        )
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"theirs")
        self.assertFalse(session.published)
        await session.publish(overwrite=True, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"whole")

    @contract
    async def test_overwriting_replaces_the_file(self) -> None:
        backend = await self.started()
        await self.put(backend, ("name.txt",), b"a longer one that was there before")
        session = await self.complete(backend, overwrite=True)
        await session.publish(overwrite=True, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"whole")

    @contract
    async def test_two_sessions_for_one_destination_do_not_mix(self) -> None:
        backend = await self.started()
        first = await self.new(backend)
        second = await self.new(backend)
        await self.append(first, 5, b"fi")
        await self.append(second, 6, b"second")
        await self.append(first, 5, b"rst")
        await first.publish(overwrite=False, create_directories=False)
        await self.fails(
            DestinationExists, second.publish(overwrite=False, create_directories=False)
        )
        await second.release()
        await first.release()
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"first")
        await self.assert_nothing_left(backend)

    @contract
    async def test_missing_directories_are_made_if_they_may_be(self) -> None:
        backend = await self.started()
        destination = ("a", "b ö", "c.txt")
        session = await self.complete(backend, destination, create_directories=True)
        await session.publish(overwrite=False, create_directories=True)
        self.assertEqual(await self.file_at(backend, destination), b"whole")

    @contract
    async def test_missing_directories_are_refused_if_not(self) -> None:
        if not self.has_directories:
            return
        backend = await self.started()
        session = await self.complete(backend, ("a", "b"), create_directories=True)
        await self.fails(
            ParentMissing, session.publish(overwrite=False, create_directories=False)
        )
        await self.put(backend, ("a", "other"), b"")
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("a", "b")), b"whole")

    @contract
    async def test_a_directory_that_appears_after_creation_is_kept(self) -> None:
        backend = await self.started()
        for overwrite in (False, True):
            name = f"directory-{overwrite}"
            session = await self.complete(backend, (name,), overwrite=overwrite)
            await self.put(backend, (name, "inside"), b"theirs")
            await self.fails(
                DestinationIsDirectory,
                session.publish(overwrite=overwrite, create_directories=False),
            )
            self.assertEqual(await self.file_at(backend, (name, "inside")), b"theirs")


class ReleasingContract(ContractBase):
    """What ``release()`` promises."""

    @contract
    async def test_release_leaves_nothing_of_a_new_session(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        await session.release()
        self.assertTrue(session.releasing)
        await self.assert_nothing_left(backend)
        await self.fails(NoSuchSession, backend.find(session.session_id))

    @contract
    async def test_release_leaves_nothing_of_a_session_with_bytes(self) -> None:
        backend = await self.started()
        session = await self.new(backend, ("a", "b"), create_directories=True)
        await self.append(session, 5, b"abc")
        await session.release()
        await self.assert_nothing_left(backend)
        self.assertIsNone(await self.file_at(backend, ("a", "b")))
        await self.fails(NoSuchSession, backend.find(session.session_id))

    @contract
    async def test_release_leaves_nothing_of_a_long_session(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        await self.append(session, 5 << 20, bytes(3 << 20))
        first, second = session.release(), session.release()
        self.assertTrue(session.releasing)
        await second
        await self.assert_nothing_left(backend)
        await first

    @contract
    async def test_release_after_publishing_keeps_the_file(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.publish(overwrite=False, create_directories=False)
        await session.release()
        await self.assert_nothing_left(backend)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"whole")

    @contract
    async def test_release_of_a_complete_session_publishes_nothing(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.release()
        await self.assert_nothing_left(backend)
        self.assertIsNone(await self.file_at(backend, ("name.txt",)))

    @contract
    async def test_release_may_be_called_again(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.release()
        await session.release()
        await self.assert_nothing_left(backend)

    @contract
    async def test_releases_at_once_all_end_with_nothing_left(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        calls = [session.release() for _ in range(3)]
        for call in reversed(calls):
            await call
            await self.assert_nothing_left(backend)

    @contract
    async def test_release_closes_an_open_writer(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        writer = await session.open_writer(5)
        await writer.write(b"abc")
        await session.release()
        await self.assert_nothing_left(backend)
        await self.fails(BackendError, writer.write(b"de"))
        await writer.close()
        await self.assert_nothing_left(backend)

    @contract
    async def test_release_waits_for_a_writer_that_is_closing(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        writer = await session.open_writer(5)
        await writer.write(b"abc")
        closing, releasing = writer.close(), session.release()
        await releasing
        await self.assert_nothing_left(backend)
        await closing

    @contract
    async def test_release_of_one_leaves_the_others(self) -> None:
        backend = await self.started()
        goes = await self.complete(backend, ("goes",))
        stays = await self.complete(backend, ("stays",))
        await goes.release()
        found = await backend.find(stays.session_id)
        self.assertEqual(found.offset, 5)
