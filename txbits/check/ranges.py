"""
Content-Range: what is one, and what is none.
"""

from __future__ import annotations

from txbits.check._bench import DATA, LENGTH, Bench, expect_refusal, expect_success
from txbits.check._messages import content_range
from txbits.check._model import Failed, Group, Level
from txbits.protocol.refusals import HResult

GROUP = Group("Ranges")


async def _expect_none(bench: Bench, *values: bytes | None) -> None:
    """Expect that Fragments with these ranges are refused with 400."""
    session = await bench.session()
    for value in values:
        message = bench.fragment(session, 0, 100, {b"Content-Range": value})
        answer = await bench.ask(message)
        try:
            expect_refusal(answer, 400, hresult=HResult.E_INVALIDARG)
        except Failed as error:
            words = "no range" if value is None else value[:40].decode()
            raise Failed(f"{words}: {error}") from error


@GROUP.check(
    "range-is-there",
    "2.2.6.1",
    Level.MUST,
    "A Fragment without Content-Range is answered with 400.",
)
async def missing(bench: Bench) -> None:
    await _expect_none(bench, None)


@GROUP.check(
    "range-is-well-formed",
    "3.2.5.2.6",
    Level.MUST,
    "A Content-Range that is none is answered with 400 and E_INVALIDARG.",
)
async def malformed(bench: Bench) -> None:
    values = (b"bytes 0-99", b"bytes=0-99/1000", b"lines 0-99/1000", b"bytes a-b/c")
    await _expect_none(bench, *values)


@GROUP.check(
    "range-runs-forward",
    "3.2.5.2.6",
    Level.MUST,
    "A range whose end is before its start is answered with 400.",
)
async def backwards(bench: Bench) -> None:
    await _expect_none(bench, b"bytes 99-0/1000")


@GROUP.check(
    "range-is-within-total",
    "3.2.5.2.6",
    Level.MUST,
    "A range that ends beyond the total is answered with 400.",
)
async def beyond_total(bench: Bench) -> None:
    await _expect_none(bench, b"bytes 0-99/99")


@GROUP.check(
    "range-is-as-long-as-body",
    "3.2.5.2.6",
    Level.MUST,
    "A range that is shorter or longer than the body is answered with 400.",
)
async def other_length(bench: Bench) -> None:
    await _expect_none(bench, b"bytes 0-98/1000", b"bytes 0-100/1000")


@GROUP.check(
    "range-is-below-2-to-63",
    "3.1.1.1",
    Level.TXBITS,
    "A range with numbers that no file reaches is answered with 400.",
)
async def huge(bench: Bench) -> None:
    await _expect_none(bench, b"bytes 0-99/" + b"9" * 40)


@GROUP.check(
    "range-unit-in-any-case",
    "2.2.6.1",
    Level.TXBITS,
    "The unit of a range is read in any case.",
)
async def unit_case(bench: Bench) -> None:
    session = await bench.session()
    changed = {b"Content-Range": content_range(0, LENGTH, LENGTH).title()}
    expect_success(await bench.ask(bench.fragment(session, headers=changed)))


@GROUP.check(
    "range-total-is-constant",
    "2.2.1.2",
    Level.MUST,
    "A total that changes within a session is answered with 400 and E_INVALIDARG.",
)
async def total_changed(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    changed = {b"Content-Range": content_range(500, 500, LENGTH + 1)}
    answer = await bench.ask(bench.fragment(session, 500, headers=changed))
    expect_refusal(answer, 400, hresult=HResult.E_INVALIDARG)


@GROUP.check(
    "range-of-nothing",
    "2.2.6.1",
    Level.TXBITS,
    "A Fragment without a body is taken for that of an empty file, if its range is "
    "bytes 0-0/0, bytes */0 or bytes 0--1/0.",
)
async def empty(bench: Bench) -> None:
    for value in (b"bytes 0-0/0", b"bytes */0", b"bytes 0--1/0"):
        session = await bench.session()
        message = bench.fragment(session, headers={b"Content-Range": value})
        answer = await bench.ask(message.with_body(b""))
        if not answer.is_success:
            raise Failed(f"{value.decode()} was answered {answer}")


@GROUP.check(
    "range-of-one-byte",
    "2.2.6.1",
    Level.MUST,
    "A file of one byte, bytes 0-0/1, is taken.",
)
async def one_byte(bench: Bench) -> None:
    session = await bench.session()
    message = bench.fragment(session, headers={b"Content-Range": b"bytes 0-0/1"})
    answer = await bench.ask(message.with_body(DATA[:1]))
    expect_success(answer)
