"""
The contract of what only some sessions can do.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IConsumer
from zope.interface import implementer
from zope.interface.verify import verifyObject

from txbits.errors import StagedDataLost
from txbits.interfaces import IAddressable, IReadable
from txbits.testing._contract import ContractBase, contract


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
    """What the optional interfaces promise, of sessions that provide them."""

    @contract
    async def test_optional_abilities_are_whole(self) -> None:
        session = await self.complete(await self.started())
        for ability in (IReadable, IAddressable):
            if ability.providedBy(session):
                verifyObject(ability, session)

    @contract
    async def test_readable_sessions_are_read_in_part_and_whole(self) -> None:
        data = bytes(range(256)) * 4096
        session = await self.complete(await self.started(), data=data)
        if not IReadable.providedBy(session):
            return
        for start, end in ((0, len(data)), (1, 300_001), (7, 7), (len(data) - 1,) * 2):
            sink = _Sink()
            await session.read_into(sink, start, end)
            self.assertEqual(sink.received, data[start:end])
            self.assertIsNone(sink.producer)

    @contract
    async def test_reading_fails_when_the_bytes_are_gone(self) -> None:
        session = await self.complete(await self.started())
        await session.release()
        if IReadable.providedBy(session):
            await self.fails(
                StagedDataLost,
                session.read_into(_Sink(), 0, 5),
            )

    @contract
    async def test_addressable_sessions_have_a_path_or_url(self) -> None:
        session = await self.complete(await self.started())
        if IAddressable.providedBy(session):
            self.assertRegex(
                session.address(),
                r"^(/|[a-z][a-z0-9+.-]*://)",
            )
