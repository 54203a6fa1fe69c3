"""
Checks that send one packet and inspect the status of its answer, as rows of tables.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Mapping
from uuid import uuid4

from attrs import frozen

from txbits.check._bench import LENGTH, Bench, Failed, KitSession, expect
from txbits.check._messages import Message
from txbits.check._model import Group, Level
from txbits.check._wire import KitAnswer
from txbits.protocol.refusals import HResult

#: Makes the session that a packet belongs to.
Given = Callable[[Bench], Awaitable[KitSession]]

#: Writes a packet.
Request = Callable[[Bench, KitSession], Message]

#: Headers to change, by name; ``None`` omits a header.
Headers = Mapping[bytes, bytes | None]

HALF = LENGTH // 2


@frozen
class Expected:
    """
    The answer that a row expects.

    :ivar words: The answer, in words that follow "is".
    :ivar statuses: The statuses, one of which it must have.
    :ivar hresult: The HRESULT, if it has one.
    :ivar needs_hresult: Whether it must have one.
    """

    words: str
    statuses: Container[int]
    hresult: HResult | None = None
    needs_hresult: bool = False

    @classmethod
    def with_status(
        cls, *statuses: int, hresult: HResult | None = None, needs_hresult: bool = False
    ) -> Expected:
        """Expect one of these statuses."""
        words = f"answered with {' or '.join(map(str, statuses))}"
        if hresult is not None:
            words += f" and {hresult.name}"
        return cls(words, statuses, hresult, needs_hresult)

    def check(self, answer: KitAnswer) -> None:
        """
        Compare an answer.

        :raises Failed: If it is another.
        """
        is_right = answer.status in self.statuses
        expect(is_right, f"answered with {answer}; should be {self.words}")
        found = answer.hresult
        if self.hresult is not None and (self.needs_hresult or found is not None):
            words = f"answered with {answer}; should have 0x{self.hresult:08X}"
            expect(found == self.hresult, words)


ACCEPTED = Expected("accepted", range(200, 300))
REFUSED = Expected("refused", range(300, 1000))
OK = Expected.with_status(200)
INVALID = Expected.with_status(400, hresult=HResult.E_INVALIDARG)
NOT_FOUND = Expected.with_status(500, hresult=HResult.BG_E_SESSION_NOT_FOUND)


@frozen
class Row:
    """
    A check.

    :ivar what: What is sent; its expectation reads "*what* is *expected*."
    :ivar given: Makes the session.
    :ivar request: Writes the packet. Several, by what distinguishes them, are sent one
        after the other, in a session each.
    :ivar expected: The answer to expect.
    """

    name: str
    section: str
    level: Level
    what: str
    given: Given
    request: Request | Mapping[str, Request]
    expected: Expected

    async def perform(self, bench: Bench) -> None:
        """Perform the check."""
        if not isinstance(self.request, Mapping):
            await self._send(bench, self.request)
            return
        for variant, request in self.request.items():
            try:
                await self._send(bench, request)
            except Failed as error:
                raise Failed(f"{variant}: {error}") from error

    async def _send(self, bench: Bench, request: Request) -> None:
        session = await self.given(bench)
        self.expected.check(await bench.ask(request(bench, session)))


def add_rows(group: Group, rows: Iterable[Row]) -> None:
    """Make rows checks of a group."""
    for row in rows:
        expectation = f"{row.what} is {row.expected.words}."
        group.add(row.name, row.section, row.level, expectation, row.perform)


# Sessions.


async def no_session(bench: Bench) -> KitSession:
    """A session that does not exist."""
    name = bench.target.new_name()
    id_ = b"{%b}" % str(uuid4()).upper().encode("ascii")
    return KitSession(id_, name, bench.target.target(name))


async def half(bench: Bench) -> KitSession:
    """A session with half of its bytes."""
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, HALF))
    return session


async def complete(bench: Bench) -> KitSession:
    """A session with all its bytes."""
    session = await half(bench)
    await bench.need(bench.fragment(session, HALF))
    return session


# Packets.


def ping(headers: Headers | None = None) -> Request:
    """A Ping."""
    return lambda bench, session: bench.ping().but(headers)


def create(headers: Headers | None = None) -> Request:
    """A Create-Session."""
    return lambda bench, session: bench.create().but(headers)


def fragment(
    headers: Headers | None = None, first: int = 0, length: int | None = None
) -> Request:
    """A Fragment, see :meth:`Bench.fragment`."""
    return lambda bench, session: bench.fragment(session, first, length, headers)
