"""
Cancel-Session, and Close-Session of what is not complete.
"""

from __future__ import annotations

from attrs import evolve

from txbits.check._bench import Bench, expect, expect_refusal, expect_success
from txbits.check._model import Group, Level, NotApplicable
from txbits.check.fragments import stall
from txbits.protocol.refusals import HResult

GROUP = Group("Endings")

_NOT_FOUND = HResult.BG_E_SESSION_NOT_FOUND


@GROUP.check(
    "cancel-is-acknowledged",
    "3.2.5.2.8",
    Level.MUST,
    "A Cancel-Session is answered with 200.",
)
async def acknowledged(bench: Bench) -> None:
    session = await bench.session()
    answer = await bench.ask(bench.cancel(session))
    expect(answer.status == 200, f"answered {answer}")


@GROUP.check(
    "cancel-ends-session",
    "2.2.10",
    Level.MUST,
    "After a Cancel-Session the session takes no Fragment.",
)
async def ends_session(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    await bench.need(bench.cancel(session))
    answer = await bench.ask(bench.fragment(session, 500))
    expect(not answer.is_success, f"it took one: answered {answer}")


@GROUP.check(
    "cancel-twice",
    "3.2.5.2.3",
    Level.SHOULD,
    "A second Cancel-Session is answered with 500 and BG_E_SESSION_NOT_FOUND.",
)
async def twice(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.cancel(session))
    answer = await bench.ask(bench.cancel(session))
    expect_refusal(answer, 500, hresult=_NOT_FOUND)


@GROUP.check(
    "cancel-of-a-complete-upload",
    "3.2.5.1.4",
    Level.SHOULD,
    "A Cancel-Session after the last Fragment is acknowledged.",
)
async def complete(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session))
    expect_success(await bench.ask(bench.cancel(session)))


@GROUP.check(
    "cancel-while-receiving",
    "2.2.10",
    Level.TXBITS,
    "A Cancel-Session is acknowledged while a Fragment of the session is stuck.",
)
async def while_receiving(bench: Bench) -> None:
    session = await bench.session()
    await stall(bench, session)
    expect_success(await bench.ask(bench.cancel(session)))


@GROUP.check(
    "cancels-at-once",
    "2.2.10",
    Level.TXBITS,
    "Two Cancel-Sessions at once are both answered: acknowledged, or not found.",
)
async def at_once(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    wires = [await bench.wire(), await bench.wire()]
    for wire in wires:
        wire.send(bench.cancel(session).to_bytes())
    answers = [bench.note(bench.cancel(session), await wire.answer()) for wire in wires]
    for answer in answers:
        is_right = answer.is_success or answer.hresult == _NOT_FOUND
        expect(is_right, f"one was answered {answer}")


@GROUP.check(
    "session-belongs-to-its-file",
    "3.2.5.2.3",
    Level.TXBITS,
    "The id of a session means nothing at another URL.",
)
async def other_file(bench: Bench) -> None:
    session = await bench.session()
    other = bench.target.target(bench.target.new_name())
    answer = await bench.ask(evolve(bench.fragment(session, 0, 500), target=other))
    expect_refusal(answer, 500, hresult=_NOT_FOUND)


@GROUP.check(
    "close-of-an-incomplete-upload",
    "2.2.8",
    Level.SHOULD,
    "A Close-Session before the last Fragment is acknowledged, and discards the "
    "session: half a file is of no use.",
)
async def close_incomplete(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    answer = await bench.ask(bench.close(session))
    expect_success(answer)
    answer = await bench.ask(bench.create(session.name))
    if answer.status in (403, 409):
        bench.published.append(f"file {bench.target.shown(session.target)}")
    expect_success(answer)


@GROUP.check(
    "close-of-an-incomplete-upload-ends-session",
    "2.2.8",
    Level.SHOULD,
    "After such a Close-Session the session takes no Fragment.",
)
async def close_incomplete_ends(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    answer = await bench.ask(bench.close(session))
    if not answer.is_success:
        raise NotApplicable(f"Close-Session was answered {answer}")
    answer = await bench.ask(bench.fragment(session, 500))
    expect(not answer.is_success, f"it took one: answered {answer}")
