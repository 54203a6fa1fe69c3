"""
The contract of sessions that keep what a server application answered.
"""

from __future__ import annotations

from typing import Any

from zope.interface.verify import verifyObject

from txbits.errors import BackendError, NoSuchFile
from txbits.interfaces import (
    Answer,
    IAnswerable,
    IBackend,
    IRefreshable,
    IReplyAddressable,
    IStoredFile,
)
from txbits.testing._abilities_contract import _Sink
from txbits.testing._contract import ContractBase, contract, requires

_REPLY = bytes(range(256)) * 2048


class AnswerSteps(ContractBase):
    """What the tests of answers have in common."""

    async def asked(self, backend: IBackend, **rules: Any) -> Any:
        """A complete session whose application is asked."""
        session: Any = await self.complete(backend, **rules)
        self.assertEqual(await session.begin_attempt(), 1)
        return session

    async def write_reply(self, session: Any, data: bytes = _REPLY) -> None:
        """Write a reply as one that comes over a network."""
        writer = await session.open_reply()
        for start in range(0, len(data), 100_000):
            await writer.write(data[start : start + 100_000])
        await writer.close()

    async def answered(
        self, backend: IBackend, reply: bytes | None = _REPLY, **answer: Any
    ) -> Any:
        """A session with an answer."""
        session = await self.asked(backend)
        if reply is not None:
            await self.write_reply(session, reply)
        await session.keep_answer(Answer(**answer))
        return session

    async def reply_of(self, session: Any) -> bytes:
        """The reply, as it is served."""
        file = await session.reply()
        sink = _Sink()
        await file.read_into(sink, 0, file.length)
        await file.release()
        return sink.received


class AnswerContract(AnswerSteps):
    """What ``IAnswerable`` and ``IReplyAddressable`` promise."""

    @requires(IAnswerable)
    @contract
    async def test_answerable_sessions_are_whole(self) -> None:
        session = await self.asked(await self.started())
        verifyObject(IAnswerable, session)
        if IReplyAddressable.providedBy(session):
            verifyObject(IReplyAddressable, session)

    @requires(IAnswerable)
    @contract
    async def test_nobody_has_answered_at_first(self) -> None:
        session: Any = await self.complete(await self.started())
        self.assertEqual((session.attempts, session.answer), (0, None))
        await self.fails(NoSuchFile, session.reply())

    @requires(IAnswerable)
    @contract
    async def test_attempts_are_counted_also_after_a_kill(self) -> None:
        backend = await self.started()
        session = await self.asked(backend)
        self.assertEqual((await session.begin_attempt(), session.attempts), (2, 2))
        self.assertIsNone(session.answer)
        again = await self.reopened(backend)
        if again is not None:
            found: Any = await again.find(session.session_id)
            self.assertEqual((found.attempts, found.answer), (2, None))
            self.assertEqual(await found.begin_attempt(), 3)

    @requires(IAnswerable)
    @contract
    async def test_answers_are_kept_also_after_a_kill(self) -> None:
        for answer in (
            Answer(),
            Answer(status=204, publishes=True),
            Answer(status=403),
            Answer(reply_url="https://example.org/reply?a=%C3%A4"),
        ):
            backend = await self.started()
            session = await self.asked(backend)
            await session.keep_answer(answer)
            self.assertEqual(session.answer, answer)
            again = await self.reopened(backend)
            if again is not None:
                found: Any = await again.find(session.session_id)
                self.assertEqual((found.attempts, found.answer), (1, answer))

    @requires(IAnswerable)
    @contract
    async def test_a_reply_is_kept_also_after_a_kill(self) -> None:
        for reply in (_REPLY, b""):
            backend = await self.started()
            session = await self.answered(backend, reply)
            self.assertEqual(session.answer, Answer(has_reply=True))
            self.assertEqual(await self.reply_of(session), reply)
            again = await self.reopened(backend)
            if again is not None:
                found: Any = await again.find(session.session_id)
                self.assertEqual(found.answer, Answer(has_reply=True))
                self.assertEqual(await self.reply_of(found), reply)

    @requires(IAnswerable)
    @contract
    async def test_whether_there_is_a_reply_is_found_out(self) -> None:
        session = await self.asked(await self.started())
        await session.keep_answer(Answer(has_reply=True))
        self.assertFalse(session.answer.has_reply)
        await self.fails(NoSuchFile, session.reply())

    @requires(IAnswerable)
    @contract
    async def test_a_reply_of_an_earlier_attempt_is_discarded(self) -> None:
        session = await self.asked(await self.started())
        await self.write_reply(session)
        await session.begin_attempt()
        if IReplyAddressable.providedBy(session):
            self.assertFalse(await session.has_reply())
        await self.write_reply(session, b"another one")
        await session.keep_answer(Answer())
        self.assertEqual(await self.reply_of(session), b"another one")

    @requires(IAnswerable)
    @contract
    async def test_a_reply_is_a_stored_file(self) -> None:
        backend = await self.started()
        session = await self.answered(backend)
        file = await session.reply()
        verifyObject(IStoredFile, file)
        self.assertEqual(file.length, len(_REPLY))
        self.assertRegex(file.etag, r'^[^"\x00-\x20\x7f-\U0010ffff]+$')
        # Clocks of stores differ, and some count seconds.
        self.assertLess(abs(file.modified - self.now(backend)), 600)
        for start, end in ((0, len(_REPLY)), (1, 300_001), (7, 7)):
            sink = _Sink()
            await file.read_into(sink, start, end)
            self.assertEqual(sink.received, _REPLY[start:end])
            self.assertIsNone(sink.producer)
        for _ in range(2):
            await file.release()
        with self.assertRaises(BackendError):
            await file.read_into(_Sink(), 0, 5)

    @requires(IAnswerable)
    @contract
    async def test_two_may_read_a_reply(self) -> None:
        session = await self.answered(await self.started())
        first, second = await session.reply(), await session.reply()
        self.assertEqual(first.etag, second.etag)
        self.assertEqual(first.modified, second.modified)
        # A reply never changes.
        self.assertEqual((first.is_weak, second.is_weak), (False, False))
        await first.release()
        sink = _Sink()
        await second.read_into(sink, 0, second.length)
        self.assertEqual(sink.received, _REPLY)
        await second.release()

    @requires(IAnswerable)
    @contract
    async def test_an_answered_upload_is_published_as_any(self) -> None:
        backend = await self.started()
        session = await self.answered(backend, publishes=True)
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"whole")

    @requires(IAnswerable)
    @contract
    async def test_answer_and_reply_outlive_the_publication(self) -> None:
        backend = await self.started()
        session = await self.answered(backend, publishes=True)
        await session.publish(overwrite=False, create_directories=False)
        expected = Answer(publishes=True, has_reply=True)
        self.assertEqual(session.answer, expected)
        self.assertEqual(await self.reply_of(session), _REPLY)
        refreshable: object = session
        if IRefreshable.providedBy(refreshable):
            await IRefreshable(refreshable).refresh()
            self.assertEqual((session.published, session.answer), (True, expected))
        again = await self.reopened(backend)
        if again is not None:
            found: Any = await again.find(session.session_id)
            self.assertEqual((found.published, found.answer), (True, expected))
            self.assertEqual((found.offset, found.total), (5, 5))
            self.assertEqual(await self.reply_of(found), _REPLY)
            await again.clean_up(0)
            self.assertEqual(await self.reply_of(found), _REPLY)
            await found.release()
            await self.assert_nothing_left(again)
        else:
            await session.release()
            await self.assert_nothing_left(backend)

    @requires(IAnswerable)
    @contract
    async def test_releasing_leaves_nothing_of_an_answer(self) -> None:
        for reply in (None, _REPLY):
            backend = await self.started()
            session = await self.answered(backend, reply)
            await session.release()
            await self.assert_nothing_left(backend)
            await session.release()

    @requires(IAnswerable)
    @contract
    async def test_releasing_in_an_attempt_leaves_nothing(self) -> None:
        backend = await self.started()
        session = await self.asked(backend)
        writer = await session.open_reply()
        await writer.write(_REPLY)
        await writer.close()
        await session.release()
        await self.assert_nothing_left(backend)

    @requires(IAnswerable)
    @contract
    async def test_nothing_is_asked_or_kept_of_a_session_that_was_released(
        self,
    ) -> None:
        backend = await self.started()
        session = await self.asked(backend)
        await session.release()
        for late in (
            session.begin_attempt,
            session.open_reply,
            lambda: session.keep_answer(Answer()),
            session.reply,
        ):
            with self.assertRaises(BackendError):
                await late()
        await self.assert_nothing_left(backend)

    @requires(IAnswerable, IReplyAddressable)
    @contract
    async def test_addressable_replies_have_a_path_or_url(self) -> None:
        session = await self.asked(await self.started())
        self.assertRegex(session.reply_address(), r"^(/|[a-z][a-z0-9+.-]*://)")
        self.assertFalse(await session.has_reply())
        await self.write_reply(session, b"x")
        self.assertTrue(await session.has_reply())
