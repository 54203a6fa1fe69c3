"""
Fragments: where they start, how they arrive, and what the server has after them.
"""

from __future__ import annotations

from twisted.internet.task import deferLater

from txbits.check._bench import Bench, Failed, KitSession, NotApplicable, expect
from txbits.check._messages import content_range
from txbits.check._model import MUST, SHOULD, TXBITS, Group
from txbits.check._rows import (
    ACCEPTED,
    HALF,
    OK,
    Expected,
    Row,
    add_rows,
    complete,
    fragment,
    half,
)
from txbits.check._wire import KitAnswer, Silence, Unanswered, Wire
from txbits.protocol.refusals import HResult

GROUP = Group("Fragments")

#: A length that 32 bits cannot count.
_LONG = 5 * 1024**3

#: How many seconds a connection stays open after the first bytes of a Fragment. Some
#: proxies drop what they have received if the end of the connection arrives with it.
_PAUSES = (0.0, 2.0)


async def stall(bench: Bench, session: KitSession) -> Wire:
    """Send half a Fragment, and leave the connection open."""
    message = bench.fragment(session, headers={b"Expect": b"100-continue"})
    wire = await bench.wire()
    wire.send(message.head())
    # Otherwise the server may read the next packet, on another connection, first.
    await wire.continues()
    wire.send(message.body[:HALF])
    return wire


async def stalled(bench: Bench) -> KitSession:
    """A session with a Fragment that is stuck."""
    session = await bench.session()
    await stall(bench, session)
    return session


# fmt: off
add_rows(GROUP, (
    Row("fragment-is-acknowledged", "3.2.5.2.6", MUST,
        "A Fragment that continues the file",
        Bench.session, fragment(None, 0, HALF), OK),
    Row("gap-is-out-of-step", "3.2.5.2.6", MUST, "A Fragment beyond the next byte",
        half, fragment(None, HALF + 100, 100), Expected.with_status(416)),
    Row("last-fragment-may-be-repeated", "3.2.5.1.2", SHOULD,
        "A second copy of the last Fragment, sent because the Ack was lost,",
        complete, fragment(None, HALF), ACCEPTED),
    Row("stuck-connection-locks-nobody-out", "2.2.6", TXBITS,
        "A Fragment over another connection, while one is stuck,",
        stalled, fragment(), ACCEPTED),
))
# fmt: on


def _expect_next(answer: KitAnswer, offset: int) -> None:
    found = answer.says("BITS-Received-Content-Range")
    expect(answer.offset == offset, f"{found}; expected {offset}")


@GROUP.check("2.2.7.2", MUST)
async def fragment_says_what_is_next(bench: Bench) -> None:
    """The Ack of a Fragment has the next byte in BITS-Received-Content-Range."""
    session = await bench.session()
    _expect_next(await bench.need(bench.fragment(session, 0, HALF)), HALF)


@GROUP.check("2.2.6", MUST)
async def fragments_go_on(bench: Bench) -> None:
    """Fragments of different lengths make up the file."""
    session = await bench.session()
    first = 0
    for length in (1, 99, 400, 500):
        answer = await bench.ask(bench.fragment(session, first, length))
        words = f"the bytes from {first} on were answered with {answer}"
        expect(answer.is_success, words)
        first += length


@GROUP.check("3.1.1.1", MUST)
async def fragment_of_a_long_file(bench: Bench) -> None:
    """A file may be longer than 4 GiB."""
    session = await bench.session()
    changed = {b"Content-Range": content_range(0, 10, _LONG)}
    answer = await bench.ask(bench.fragment(session, 0, 10, changed))
    limits = (HResult.BG_E_TOO_LARGE, HResult.ERROR_DISK_FULL)
    if answer.hresult in limits:
        raise NotApplicable(f"the server's limit is lower: answered with {answer}")
    ACCEPTED.check(answer)


@GROUP.check("2.2.7.2", SHOULD)
async def fragment_has_no_reply_url(bench: Bench) -> None:
    """The Ack of a Fragment before the last has no BITS-Reply-URL."""
    session = await bench.session()
    answer = await bench.need(bench.fragment(session, 0, HALF))
    expect(b"bits-reply-url" not in answer.headers, answer.says("BITS-Reply-URL"))


async def _gap(bench: Bench) -> tuple[KitSession, KitAnswer]:
    """A session with half of its bytes, and the answer to a gap."""
    session = await half(bench)
    return session, await bench.ask(bench.fragment(session, HALF + 100, 100))


@GROUP.check("3.2.5.2.6", MUST)
async def gap_says_what_is_next(bench: Bench) -> None:
    """The 416 has the next byte in BITS-Received-Content-Range."""
    _, answer = await _gap(bench)
    if answer.status != 416:
        raise NotApplicable(f"answered with {answer}")
    _expect_next(answer, HALF)


@GROUP.check("2.2.1.2", SHOULD)
async def gap_is_no_error(bench: Bench) -> None:
    """The HRESULT of a 416 is 0."""
    _, answer = await _gap(bench)
    if answer.status != 416:
        raise NotApplicable(f"answered with {answer}")
    expect(not answer.hresult, f"answered with {answer}")


@GROUP.check("3.2.5.2.6", MUST)
async def gap_is_not_kept(bench: Bench) -> None:
    """A Fragment beyond the next byte does not change what the server has."""
    session, answer = await _gap(bench)
    if answer.is_success:
        raise NotApplicable(f"answered with {answer}")
    answer = await bench.ask(bench.fragment(session, HALF, 50))
    ACCEPTED.check(answer)
    if answer.offset is not None:
        _expect_next(answer, HALF + 50)


async def _overlap(bench: Bench) -> KitAnswer:
    """The answer to a Fragment, half of which the server already has."""
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 200))
    return await bench.ask(bench.fragment(session, 100, 200))


@GROUP.check("3.2.5.2.6", MUST)
async def overlap_is_answered(bench: Bench) -> None:
    """A Fragment that begins before the next byte is accepted or answered with 416."""
    answer = await _overlap(bench)
    is_either = answer.is_success or answer.status == 416
    expect(is_either, f"answered with {answer}")
    if answer.offset is not None:
        _expect_next(answer, 300 if answer.is_success else 200)


@GROUP.check("2.2.6", TXBITS)
async def overlap_is_skipped(bench: Bench) -> None:
    """
    Of a Fragment that begins before the next byte, the server skips the bytes that it
    has, and takes the others.
    """
    answer = await _overlap(bench)
    if not (answer.is_success or answer.status == 416):
        raise NotApplicable(f"answered with {answer}")
    ACCEPTED.check(answer)


@GROUP.check("2.2.6", MUST)
async def fragment_may_be_repeated(bench: Bench) -> None:
    """A second copy of a Fragment is no error: the answer has the next byte."""
    session = await half(bench)
    answer = await bench.ask(bench.fragment(session, 0, HALF))
    expect(answer.is_success or answer.status == 416, f"answered with {answer}")
    _expect_next(answer, HALF)


async def _cut(bench: Bench, session: KitSession, pause: float) -> None:
    """Send half a Fragment, and after a pause the end of the connection."""
    message = bench.fragment(session)
    wire = await bench.wire()
    wire.send(message.head() + message.body[:HALF])
    if pause:
        await deferLater(bench.clock, pause)
    wire.end()
    await wire.until_closed()
    wire.drop()


@GROUP.check("2.2.6", MUST)
async def cut_fragment_is_sent_again(bench: Bench) -> None:
    """
    After a Fragment whose body was cut short, the client can send the file again from
    the start.
    """
    session = await bench.session()
    await _cut(bench, session, 0.0)
    answer = await bench.ask(bench.fragment(session))
    if answer.status == 416 and answer.offset is not None:
        # It does not skip bytes, and tells the next one.
        answer = await bench.ask(bench.fragment(session, answer.offset))
    ACCEPTED.check(answer)


@GROUP.check("2.2.6", TXBITS)
async def cut_fragment_is_kept(bench: Bench) -> None:
    """
    The server keeps the bytes of a Fragment that arrived before its body was cut short.
    """
    held = 0
    for pause in _PAUSES:
        session = await bench.session()
        await _cut(bench, session, pause)
        held = await bench.held(session)
        if held == HALF:
            return
    raise Failed(f"the server has {held} of {HALF} bytes")


@GROUP.check("2.2.6", TXBITS)
async def stuck_connection_is_ended(bench: Bench) -> None:
    """The connection of the stuck Fragment then ends."""
    session = await bench.session()
    stuck = await stall(bench, session)
    try:
        await bench.ask(bench.fragment(session))
    except Silence as error:
        raise NotApplicable(f"the other Fragment: {error}") from error
    try:
        expect(await stuck.until_closed(), "it is still open")
    except Unanswered:
        return
