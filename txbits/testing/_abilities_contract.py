"""
The contract of what only some sessions can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IConsumer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txbits._deferreds import together
from txbits.errors import BackendError, NoSuchSession, StagedDataLost
from txbits.interfaces import (
    IAddressable,
    IClaim,
    IClaimable,
    IEagerWriter,
    IPaged,
    IPartitioned,
    IReadable,
    IRefreshable,
    ISorted,
    SessionSummary,
)
from txbits.testing._contract import ContractBase, contract, requires


@implementer(IConsumer)
class _Sink:
    """Keeps what it is given, and pauses its producer after every piece of it."""

    def __init__(self) -> None:
        self.received = b""
        self.producer: Any = None

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None

    def write(self, data: bytes) -> None:
        self.received += data
        self.producer.pauseProducing()
        self.producer.resumeProducing()


class AbilitiesContract(ContractBase):
    """What the smaller ones of the optional interfaces promise."""

    @requires(IReadable)
    @contract
    async def test_readable_sessions_are_read_in_part_and_whole(self) -> None:
        data = bytes(range(256)) * 4096
        session: Any = await self.complete(await self.started(), data=data)
        verifyObject(IReadable, session)
        for start, end in ((0, len(data)), (1, 300_001), (7, 7), (len(data) - 1,) * 2):
            sink = _Sink()
            await session.read_into(sink, start, end)
            self.assertEqual(sink.received, data[start:end])
            self.assertIsNone(sink.producer)

    @requires(IReadable)
    @contract
    async def test_reading_fails_when_the_bytes_are_gone(self) -> None:
        session: Any = await self.complete(await self.started())
        await session.release()
        await self.fails(StagedDataLost, session.read_into(_Sink(), 0, 5))

    @requires(IEagerWriter)
    @contract
    async def test_eager_writers_keep_nothing_of_what_they_are_given(self) -> None:
        backend = await self.started()
        session = await self.new(backend)
        writer: Any = await session.open_writer(9)
        verifyObject(IEagerWriter, writer)
        memory = bytearray(b"abc")
        writer.store(memoryview(memory))
        memory[:] = b"xyz"
        await writer.write(b"def")
        writer.store(memoryview(b"ghi"))
        with self.assertRaises(BackendError):
            writer.store(memoryview(b"j"))
        await writer.close()
        with self.assertRaises(BackendError):
            writer.store(memoryview(b"j"))
        await session.publish(overwrite=False, create_directories=False)
        self.assertEqual(await self.file_at(backend, ("name.txt",)), b"abcdefghi")

    @requires(IAddressable)
    @contract
    async def test_addressable_sessions_have_a_path_or_url(self) -> None:
        session: Any = await self.complete(await self.started())
        verifyObject(IAddressable, session)
        self.assertRegex(session.address(), r"^(/|[a-z][a-z0-9+.-]*://)")

    @requires(IPaged)
    @contract
    async def test_sessions_are_listed_in_pages(self) -> None:
        backend = await self.started()
        paged = IPaged(backend)
        pages: list[Sequence[SessionSummary]] = []

        def look(page: Sequence[SessionSummary]) -> Deferred[None]:
            pages.append(page)
            return succeed(None)

        await paged.list_in_pages(look)
        self.assertEqual([one for page in pages for one in page], [])
        for number in range(3):
            await self.new(backend, (f"{number}",), owner="me")
        await paged.list_in_pages(look)
        self.assertEqual(
            sorted((one.session_id, one.owner) for page in pages for one in page),
            sorted((one.session_id, one.owner) for one in await backend.sessions()),
        )

        def refuse(page: Sequence[SessionSummary]) -> Deferred[None]:
            return fail(BackendError("no more"))

        await self.fails(BackendError, paged.list_in_pages(refuse))

    @requires(ISorted)
    @contract
    async def test_sessions_are_listed_in_the_order_of_their_ids(self) -> None:
        backend = await self.started()
        paged = ISorted(backend)
        verifyObject(ISorted, backend)
        self.assertEqual(await paged.list_after(None, 5), ([], None))
        made = [await self.new(backend, (f"{number}",)) for number in range(5)]
        in_order = sorted(one.session_id for one in made)
        listed: list[UUID] = []
        after = None
        while True:
            page, after = await paged.list_after(after, 2)
            self.assertLessEqual(len(page), 2)
            listed += [one.session_id for one in page]
            if after is None:
                break
            self.assertGreaterEqual(after, listed[-1])
        self.assertEqual(listed, in_order)
        # It may begin anywhere, also at the id of a session that has ended.
        third = await backend.find(in_order[2])
        await third.release()
        page, _ = await paged.list_after(in_order[2], 9)
        self.assertEqual([one.session_id for one in page], in_order[3:])
        page, after = await paged.list_after(in_order[-1], 9)
        self.assertEqual((list(page), after), ([], None))

    @requires(ISorted)
    @contract
    async def test_details_tell_what_a_session_tells(self) -> None:
        backend = await self.started()
        paged = ISorted(backend)
        began = self.now(backend)
        empty = await self.new(backend, ("new",), owner="me", content_name="N")
        writer = await (await self.new(backend, ("part",))).open_writer(10)
        await writer.write(b"1234")
        await writer.close()
        whole = await self.complete(backend)
        page, _ = await paged.list_after(None, 9)
        self.assertEqual(len(page), 3)
        for details in page:
            session: Any = await backend.find(details.session_id)
            for name in (
                *("session_id", "destination", "owner", "content_name", "total"),
                *("offset", "published", "releasing", "in_doubt"),
            ):
                self.assertEqual(getattr(details, name), getattr(session, name), name)
            self.assertEqual(details.attempts, 0)
            self.assertIsNone(details.answer)
            self.assertLess(abs(details.last_progress - session.last_progress), 2.0)
            if details.created is not None:
                self.assertLess(abs(details.created - began), 60.0)
            self.assertEqual(
                (await paged.details_of(details.session_id)).destination,
                details.destination,
            )
        await whole.publish(overwrite=False, create_directories=True)
        self.assertTrue((await paged.details_of(whole.session_id)).published)
        await empty.release()
        await self.fails(NoSuchSession, paged.details_of(empty.session_id))

    @requires(IPartitioned)
    @contract
    async def test_an_id_tells_whose_the_session_is(self) -> None:
        backend = await self.started()
        partitioned = IPartitioned(backend)
        verifyObject(IPartitioned, backend)
        ids = {partitioned.new_id() for _ in range(10)}
        self.assertEqual(len(ids), 10)
        for one in ids:
            self.assertEqual(partitioned.worker_of(one), partitioned.worker.number)
        self.assertIn(partitioned.worker_of(uuid4()), range(partitioned.worker.count))
        session = await self.new(backend, session_id=min(ids))
        again = await self.reopened(backend)
        if again is not None:
            found = await again.find(session.session_id)
            self.assertEqual(found.session_id, session.session_id)

    @requires(IClaimable)
    @contract
    async def test_one_session_gets_a_claim(self) -> None:
        backend = await self.started()
        claims = IClaimable(backend)
        verifyObject(IClaimable, backend)
        one, other = uuid4(), uuid4()
        later = self.now(backend) + 1000.0
        self.assertFalse(await claims.is_claimed("link/1"))
        self.assertIsNotNone(await claims.claim("link/1", one, later))
        self.assertIsNone(await claims.claim("link/1", other, later))
        self.assertIsNotNone(await claims.claim("link/1", one, later))
        self.assertTrue(await claims.is_claimed("link/1"))
        self.assertFalse(await claims.is_claimed("link/2"))
        self.assertIsNotNone(await claims.claim("link/2", other, later))
        await self.assert_nothing_left(backend)

    @requires(IClaimable)
    @contract
    async def test_sessions_that_claim_at_once_do_not_share(self) -> None:
        claims = IClaimable(await self.started())
        got = await together(*(claims.claim("x", uuid4(), 1e10) for _ in range(8)))
        self.assertEqual(len([one for one in got if one is not None]), 1)

    @requires(IClaimable)
    @contract
    async def test_a_claim_that_is_withdrawn_is_free(self) -> None:
        claims = IClaimable(await self.started())
        claim = await claims.claim("x", uuid4(), 1e10)
        assert claim is not None  # noqa: S101
        verifyObject(IClaim, claim)
        await claim.withdraw()
        self.assertFalse(await claims.is_claimed("x"))
        other = uuid4()
        self.assertIsNotNone(await claims.claim("x", other, 1e10))
        self.assertIsNone(await claims.claim("x", uuid4(), 1e10))

    @requires(IClaimable)
    @contract
    async def test_a_claim_outlives_its_session_and_the_process(self) -> None:
        backend = await self.started()
        session = await self.complete(backend)
        holder = session.session_id
        await IClaimable(backend).claim("x", holder, 1e10)
        await session.release()
        backend = await self.reopened(backend) or backend
        await backend.clean_up(0.0)
        claims = IClaimable(backend)
        self.assertTrue(await claims.is_claimed("x"))
        self.assertIsNone(await claims.claim("x", uuid4(), 1e10))
        self.assertIsNotNone(await claims.claim("x", holder, 1e10))

    @requires(IClaimable)
    @contract
    async def test_a_claim_is_removed_when_its_time_is_over(self) -> None:
        backend = await self.started()
        claims, now = IClaimable(backend), self.now(backend)
        await claims.claim("old", uuid4(), now - 10.0)
        await claims.claim("new", uuid4(), now + 1000.0)
        self.assertTrue(await claims.is_claimed("old"))
        await backend.clean_up(0.0)
        self.assertFalse(await claims.is_claimed("old"))
        self.assertTrue(await claims.is_claimed("new"))

    @requires(IRefreshable)
    @contract
    async def test_what_was_given_up_is_released_as_ever(self) -> None:
        backend = await self.started()
        for number, (sent, closed) in enumerate(((3, True), (3, False), (0, False))):
            name = (str(number),)
            session = await self.new(backend, name)
            await self.append(session, 5 << 20, b"abc"[:sent])
            shared = IRefreshable(session)
            await shared.refresh()
            self.assertTrue(await shared.give_up(closed=closed))
            await self.fails(NoSuchSession, shared.give_up(closed=closed))
            await session.release(remember=closed)
            await self.assert_nothing_left(backend)
            remembered = await backend.recalls_close(
                session.session_id, name, session.owner
            )
            self.assertEqual(remembered, closed)
