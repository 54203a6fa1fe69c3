"""
Fragments: where they start, how they arrive, and what is held after them.
"""

from __future__ import annotations

from txbits.check._bench import (
    LENGTH,
    Bench,
    Session,
    expect,
    expect_refusal,
    expect_success,
)
from txbits.check._messages import content_range
from txbits.check._model import Group, Level, NotApplicable
from txbits.check._wire import Answer, NoAnswer, Silence, Wire
from txbits.protocol.refusals import HResult

GROUP = Group("Fragments")

_HALF = LENGTH // 2

#: More than 32 bits can count.
_LONG = 5 * 1024**3


def _expect_next(answer: Answer, offset: int) -> None:
    found = answer.first(b"bits-received-content-range")
    words = f"BITS-Received-Content-Range is {found!r}; expected {offset}"
    expect(answer.offset == offset, words)


@GROUP.check(
    "fragment-is-acknowledged",
    "3.2.5.2.6",
    Level.MUST,
    "A Fragment that continues the file is answered with 200.",
)
async def acknowledged(bench: Bench) -> None:
    session = await bench.session()
    answer = await bench.ask(bench.fragment(session, 0, _HALF))
    expect(answer.status == 200, f"answered {answer}")


@GROUP.check(
    "fragment-says-what-is-next",
    "2.2.7.2",
    Level.MUST,
    "The Ack of a Fragment says in BITS-Received-Content-Range which byte is next.",
)
async def says_what_is_next(bench: Bench) -> None:
    session = await bench.session()
    _expect_next(await bench.need(bench.fragment(session, 0, _HALF)), _HALF)


@GROUP.check(
    "fragments-go-on",
    "2.2.6",
    Level.MUST,
    "Fragments of different lengths make up the file.",
)
async def go_on(bench: Bench) -> None:
    session = await bench.session()
    first = 0
    for length in (1, 99, 400, 500):
        answer = await bench.ask(bench.fragment(session, first, length))
        words = f"the bytes from {first} on were answered {answer}"
        expect(answer.is_success, words)
        first += length


@GROUP.check(
    "fragment-of-a-long-file",
    "3.1.1.1",
    Level.MUST,
    "A file may be longer than 4 GiB.",
)
async def long_file(bench: Bench) -> None:
    session = await bench.session()
    changed = {b"Content-Range": content_range(0, 10, _LONG)}
    answer = await bench.ask(bench.fragment(session, 0, 10, changed))
    limits = (HResult.BG_E_TOO_LARGE, HResult.ERROR_DISK_FULL)
    if answer.hresult in limits:
        raise NotApplicable(f"the server takes none as long: answered {answer}")
    expect_success(answer)


@GROUP.check(
    "fragment-has-no-reply-url",
    "2.2.7.2",
    Level.SHOULD,
    "There is no BITS-Reply-URL with a Fragment that is not the last.",
)
async def no_reply_url(bench: Bench) -> None:
    session = await bench.session()
    answer = await bench.need(bench.fragment(session, 0, _HALF))
    found = answer.first(b"bits-reply-url")
    expect(found is None, f"it is {found!r}")


async def _gap(bench: Bench) -> tuple[Session, Answer]:
    """A session that holds half a file, and the answer to a gap."""
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, _HALF))
    return session, await bench.ask(bench.fragment(session, _HALF + 100, 100))


@GROUP.check(
    "gap-is-out-of-step",
    "3.2.5.2.6",
    Level.MUST,
    "A Fragment that begins beyond what is held is answered with 416.",
)
async def gap(bench: Bench) -> None:
    _, answer = await _gap(bench)
    expect_refusal(answer, 416)


@GROUP.check(
    "gap-says-what-is-next",
    "3.2.5.2.6",
    Level.MUST,
    "The 416 says in BITS-Received-Content-Range which byte is wanted.",
)
async def gap_offset(bench: Bench) -> None:
    _, answer = await _gap(bench)
    if answer.status != 416:
        raise NotApplicable(f"answered {answer}")
    _expect_next(answer, _HALF)


@GROUP.check(
    "gap-is-no-error",
    "2.2.1.2",
    Level.SHOULD,
    "The HRESULT of a 416 is 0.",
)
async def gap_hresult(bench: Bench) -> None:
    _, answer = await _gap(bench)
    if answer.status != 416:
        raise NotApplicable(f"answered {answer}")
    expect(not answer.hresult, f"answered {answer}")


@GROUP.check(
    "gap-is-not-kept",
    "3.2.5.2.6",
    Level.MUST,
    "After a gap the server stands where it stood.",
)
async def gap_not_kept(bench: Bench) -> None:
    session, answer = await _gap(bench)
    if answer.is_success:
        raise NotApplicable(f"answered {answer}")
    answer = await bench.ask(bench.fragment(session, _HALF, 50))
    expect_success(answer)
    if answer.offset is not None:
        _expect_next(answer, _HALF + 50)


async def _overlap(bench: Bench) -> Answer:
    """The answer to a fragment, half of which the server holds already."""
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 200))
    return await bench.ask(bench.fragment(session, 100, 200))


@GROUP.check(
    "overlap-is-answered",
    "3.2.5.2.6",
    Level.MUST,
    "A Fragment that begins before what is next is taken, or answered with 416.",
)
async def overlap(bench: Bench) -> None:
    answer = await _overlap(bench)
    is_either = answer.is_success or answer.status == 416
    expect(is_either, f"answered {answer}")
    if answer.offset is not None:
        _expect_next(answer, 300 if answer.is_success else 200)


@GROUP.check(
    "overlap-is-skipped",
    "2.2.6",
    Level.TXBITS,
    "Of a Fragment that begins before what is next, what is held is skipped, and the "
    "rest is taken.",
)
async def overlap_skipped(bench: Bench) -> None:
    answer = await _overlap(bench)
    if not (answer.is_success or answer.status == 416):
        raise NotApplicable(f"answered {answer}")
    expect_success(answer)


@GROUP.check(
    "fragment-may-be-repeated",
    "2.2.6",
    Level.MUST,
    "A Fragment that is sent again is no error: the answer says what is next.",
)
async def repeated(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, _HALF))
    answer = await bench.ask(bench.fragment(session, 0, _HALF))
    expect(answer.is_success or answer.status == 416, f"answered {answer}")
    _expect_next(answer, _HALF)


@GROUP.check(
    "last-fragment-may-be-repeated",
    "3.2.5.1.2",
    Level.SHOULD,
    "The last Fragment that is sent again, its Ack having been lost, is acknowledged.",
)
async def last_repeated(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, _HALF))
    await bench.need(bench.fragment(session, _HALF))
    expect_success(await bench.ask(bench.fragment(session, _HALF)))


async def _cut(bench: Bench, session: Session) -> None:
    """Send half a fragment, and the end of the connection."""
    message = bench.fragment(session)
    wire = await bench.wire()
    wire.send(message.head() + message.body[:_HALF])
    wire.end()
    await wire.until_closed()
    wire.drop()


@GROUP.check(
    "cut-fragment-is-sent-again",
    "2.2.6",
    Level.MUST,
    "After a Fragment whose body was cut short the file can be sent again from the "
    "start.",
)
async def cut_again(bench: Bench) -> None:
    session = await bench.session()
    await _cut(bench, session)
    answer = await bench.ask(bench.fragment(session))
    if answer.status == 416 and answer.offset is not None:
        # It does not skip, and says from where on.
        answer = await bench.ask(bench.fragment(session, answer.offset))
    expect_success(answer)


@GROUP.check(
    "cut-fragment-is-kept",
    "2.2.6",
    Level.TXBITS,
    "What has arrived of a Fragment whose body was cut short is kept.",
)
async def cut_kept(bench: Bench) -> None:
    session = await bench.session()
    await _cut(bench, session)
    held = await bench.held(session)
    expect(held == _HALF, f"{held} of {_HALF} bytes are held")


async def stall(bench: Bench, session: Session) -> Wire:
    """Send half a fragment, and leave it at that."""
    message = bench.fragment(session, headers={b"Expect": b"100-continue"})
    wire = await bench.wire()
    wire.send(message.head())
    # Or what comes next, over another connection, may be read before it.
    await wire.continues()
    wire.send(message.body[:_HALF])
    return wire


@GROUP.check(
    "stuck-connection-locks-nobody-out",
    "2.2.6",
    Level.TXBITS,
    "While a Fragment is stuck, the session goes on over another connection.",
)
async def newest_wins(bench: Bench) -> None:
    session = await bench.session()
    await stall(bench, session)
    expect_success(await bench.ask(bench.fragment(session)))


@GROUP.check(
    "stuck-connection-is-ended",
    "2.2.6",
    Level.TXBITS,
    "The connection of the Fragment that is stuck is ended then.",
)
async def oldest_ends(bench: Bench) -> None:
    session = await bench.session()
    stuck = await stall(bench, session)
    try:
        await bench.ask(bench.fragment(session))
    except Silence as error:
        raise NotApplicable(f"the other Fragment got {error}") from error
    try:
        expect(await stuck.until_closed(), "it is still open")
    except NoAnswer:
        return
