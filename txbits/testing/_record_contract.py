"""
The contract of backends: sessions are found again, listed, and forgotten.
"""

from __future__ import annotations

from uuid import UUID, uuid4

from zope.interface.verify import verifyObject

from txbits.errors import NoSuchSession
from txbits.interfaces import ANY_OWNER, IBackend, IUploadSession, SessionSummary
from txbits.testing._contract import ContractBase, contract


class RecordContract(ContractBase):
    """What ``find()``, ``sessions()`` and the close memory promise."""

    @contract
    async def test_an_unknown_session_is_not_found(self) -> None:
        backend = await self.started()
        await self.fails(NoSuchSession, backend.find(uuid4()))

    @contract
    async def test_a_session_is_found(self) -> None:
        backend = await self.started()
        session = await self.new(backend, owner="me")
        await self.append(session, 5, b"abc")
        found = await backend.find(session.session_id)
        self.assertEqual((found.total, found.offset, found.owner), (5, 3, "me"))

    @contract
    async def test_a_new_session_survives_a_kill(self) -> None:
        backend = await self.started()
        session = await self.new(
            backend,
            ("a", "näme ☃"),
            owner="DOM\\Ω",
            content_name="\udc80 of a client",
            create_directories=True,
        )
        again = await self.reopened(backend)
        if again is None:
            return
        found = await again.find(session.session_id)
        verifyObject(IUploadSession, found)
        self.assertEqual(found.session_id, session.session_id)
        self.assertEqual(found.destination, ("a", "näme ☃"))
        self.assertEqual(found.owner, "DOM\\Ω")
        self.assertEqual(found.content_name, "\udc80 of a client")
        self.assertEqual((found.total, found.offset), (None, 0))
        self.assertFalse(found.published or found.releasing)
        self.assertLess(abs(found.last_progress - self.now(again)), 60)

    @contract
    async def test_bytes_survive_a_kill_once_the_writer_is_closed(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        await self.append(session, 8, b"ab", b"cde")
        again = await self.reopened(backend)
        if again is None:
            return
        found = await again.find(session.session_id)
        self.assertEqual((found.total, found.offset), (8, 5))
        await self.append(found, 8, b"fgh")
        await found.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(again, ("name.txt",)), b"abcdefgh")
        await found.release()
        await self.assert_nothing_left(again)

    @contract
    async def test_bytes_of_an_open_writer_are_a_prefix_after_a_kill(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        await self.append(session, 8, b"ab")
        writer = await session.open_writer(8)
        await writer.write(b"cde")
        again = await self.reopened(backend)
        if again is None:
            return
        found = await again.find(session.session_id)
        self.assertIn(found.offset, range(2, 6))
        await self.append(found, 8, b"abcdefgh"[found.offset :])
        await found.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(again, ("name.txt",)), b"abcdefgh")

    @contract
    async def test_total_survives_a_kill_even_if_no_byte_came(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        writer = await session.open_writer(7)
        if not self.records_total_at_once:
            await writer.close()
        again = await self.reopened(backend)
        if again is None:
            return
        found = await again.find(session.session_id)
        self.assertEqual((found.total, found.offset), (7, 0))

    @contract
    async def test_an_empty_file_survives_a_kill(self) -> None:
        backend = await self.started()
        session = await self.complete(backend, data=b"")
        again = await self.reopened(backend)
        if again is None:
            return
        found = await again.find(session.session_id)
        self.assertEqual((found.total, found.offset), (0, 0))
        await found.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(again, ("name.txt",)), b"")

    @contract
    async def test_being_published_survives_a_kill(self) -> None:
        for overwrite in (False, True):
            backend = await self.started()
            session = await self.complete(backend, overwrite=overwrite)
            await session.publish(overwrite=overwrite, create_directories=False)
            again = await self.reopened(backend)
            if again is None:
                return
            found = await again.find(session.session_id)
            self.assertTrue(found.published)
            self.assertEqual((found.total, found.offset), (5, 5))
            await self.put(again, ("name.txt",), b"newer")
            await found.publish(overwrite=True, create_directories=False)
            self.assertEqual(await self.file_at(again, ("name.txt",)), b"newer")
            await found.release()
            await self.assert_nothing_left(again)

    @contract
    async def test_being_released_survives_a_kill(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.release()
        again = await self.reopened(backend)
        if again is not None:
            await self.fails(NoSuchSession, again.find(session.session_id))
            await self.assert_nothing_left(again)

    @contract
    async def test_sessions_are_listed(self) -> None:
        backend = await self.started()
        first = await self.new(backend, ("first",), owner="me")
        second = await self.complete(backend, ("second",))
        gone = await self.complete(backend, ("gone",))
        await gone.release()
        listed = {one.session_id: one for one in await backend.sessions()}
        self.assertEqual(set(listed), {first.session_id, second.session_id})
        for one in listed.values():
            self.assertIsInstance(one, SessionSummary)
            self.assertLess(abs(one.last_progress - self.now(backend)), 60)
        self.assertEqual(listed[first.session_id].owner, "me")
        self.assertIsNone(listed[second.session_id].owner)

    @contract
    async def test_one_that_is_published_is_listed_for_release(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.publish(overwrite=False, create_directories=False)
        (summary,) = await backend.sessions()
        self.assertTrue(summary.releasing)

    @contract
    async def test_a_listing_tells_the_size(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        (summary,) = await backend.sessions()
        self.assertEqual(summary.size, 0)
        await (await session.open_writer(1234)).close()
        (summary,) = await backend.sessions()
        self.assertEqual(summary.size, 1234)

    @contract
    async def test_a_close_is_recalled_by_just_its_arguments(self) -> None:
        backend = await self.started()
        where = ("a", "näme")
        session = await self.new(backend, where, owner="me", create_directories=True)
        one = session.session_id
        self.assertIs(await backend.recalls_close(one, where, "me"), False)
        await session.release(remember=True)
        self.assertIs(await backend.recalls_close(one, where, "me"), True)
        for other in (
            (uuid4(), where, "me"),
            (one, ("a", "name"), "me"),
            (one, ("a",), "me"),
            (one, ("a/näme",), "me"),
            (one, ("..", "\0", "\udc80", ""), "me"),
            (one, (), "me"),
            (one, where, "you"),
            (one, where, ""),
            (one, where, None),
        ):
            self.assertIs(await backend.recalls_close(*other), False)
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_close_is_recalled_for_any_owner(self) -> None:
        backend = await self.started()
        for owner in ("me", None):
            session = await self.new(backend, ("x",), owner=owner)
            one = session.session_id
            self.assertIs(await backend.recalls_close(one, ("x",), ANY_OWNER), False)
            await session.release(remember=True)
            self.assertIs(await backend.recalls_close(one, ("x",), ANY_OWNER), True)
        self.assertIs(await backend.recalls_close(uuid4(), ("x",), ANY_OWNER), False)
        again = await self.reopened(backend)
        if again is not None:
            self.assertIs(await again.recalls_close(one, ("x",), ANY_OWNER), True)

    @contract
    async def test_an_anonymous_close_is_recalled(self) -> None:
        backend = await self.started()
        one = await self.closed(backend)
        self.assertIs(await backend.recalls_close(one, ("x",), None), True)
        self.assertIs(await backend.recalls_close(one, ("x",), "None"), False)

    @contract
    async def test_a_close_of_a_published_file_leaves_the_file(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.publish(overwrite=False, create_directories=False)
        await session.release(remember=True)
        one, where = session.session_id, session.destination
        self.assertIs(await backend.recalls_close(one, where, None), True)
        self.assertEqual(await self.file_at(backend, where), b"whole")
        await self.assert_nothing_left(backend)
        await self.fails(NoSuchSession, backend.find(one))

    @contract
    async def test_a_close_of_an_incomplete_upload_leaves_nothing(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        await self.append(session, 5 << 20, bytes(3 << 20))
        await session.release(remember=True)
        one, where = session.session_id, session.destination
        self.assertIs(await backend.recalls_close(one, where, None), True)
        await self.assert_nothing_left(backend)
        await self.fails(NoSuchSession, backend.find(one))

    @contract
    async def test_a_release_alone_is_no_close(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        await session.release()
        one, where = session.session_id, session.destination
        self.assertIs(await backend.recalls_close(one, where, None), False)

    @contract
    async def test_a_close_may_be_remembered_again(self) -> None:
        backend = await self.started()
        session = await self.complete(backend, ("x",))
        first, second = (session.release(remember=True) for _ in range(2))
        await first
        await second
        await session.release(remember=True)
        one = session.session_id
        self.assertIs(await backend.recalls_close(one, ("x",), None), True)
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_remembered_close_survives_a_kill(self) -> None:
        backend = await self.started()
        one = await self.closed(backend, "me")
        again = await self.reopened(backend)
        if again is not None:
            self.assertIs(await again.recalls_close(one, ("x",), "me"), True)

    @contract
    async def test_clean_up_forgets_old_closes_and_no_fresh_ones(self) -> None:
        backend = await self.started()
        one = await self.closed(backend, "me")
        await backend.clean_up(self.now(backend) - 3600)
        self.assertIs(await backend.recalls_close(one, ("x",), "me"), True)
        await backend.clean_up(self.now(backend) + 3600)
        self.assertIs(await backend.recalls_close(one, ("x",), "me"), False)

    async def closed(self, backend: IBackend, owner: str | None = None) -> UUID:
        """The id of an upload to ``x`` that was closed."""
        session = await self.new(backend, ("x",), owner=owner)
        await session.release(remember=True)
        return session.session_id

    @contract
    async def test_clean_up_does_not_touch_sessions_or_files(self) -> None:
        backend = await self.started()
        await self.put(backend, ("theirs",), b"theirs")
        fresh = await self.new(backend, ("fresh",))
        begun = await self.new(backend, ("begun",))
        await self.append(begun, 5, b"abc")
        done = await self.complete(backend, ("done",))
        await done.publish(overwrite=False, create_directories=False)
        await backend.clean_up(self.now(backend) + 3600)
        self.assertEqual(len(await backend.sessions()), 3)
        await self.append(begun, 5, b"de")
        await begun.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("begun",)), b"abcde")
        self.assertEqual(await self.file_at(backend, ("done",)), b"whole")
        self.assertEqual(await self.file_at(backend, ("theirs",)), b"theirs")
        for session in (fresh, begun, done):
            await session.release()
        await self.assert_nothing_left(backend)

    @contract
    async def test_a_stopped_backend_keeps_its_sessions(self) -> None:
        backend = self.make_backend()
        await backend.start()
        session = await self.complete(backend)
        await backend.stop()
        again = await self.reopened(backend)
        if again is not None:
            self.assertEqual((await again.find(session.session_id)).offset, 5)
