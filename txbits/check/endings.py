"""
Cancel-Session, and Close-Session of incomplete uploads.
"""

from __future__ import annotations

from attrs import evolve

from txbits.check._bench import Bench, KitSession, expect
from txbits.check._messages import Message
from txbits.check._model import MUST, SHOULD, TXBITS, Group
from txbits.check._rows import (
    ACCEPTED,
    HALF,
    NOT_FOUND,
    OK,
    REFUSED,
    Row,
    add_rows,
    complete,
    fragment,
    half,
)
from txbits.check.fragments import stalled

GROUP = Group("Endings")


async def _cancelled(bench: Bench) -> KitSession:
    """A session that has been cancelled."""
    session = await bench.session()
    await bench.need(bench.cancel(session))
    return session


async def _closed(bench: Bench) -> KitSession:
    """A session that was closed with half of its bytes."""
    session = await half(bench)
    await bench.need(bench.close(session))
    return session


def _at_other_url(bench: Bench, session: KitSession) -> Message:
    other = bench.target.target(bench.target.new_name())
    return evolve(bench.fragment(session, 0, HALF), target=other)


# fmt: off
add_rows(GROUP, (
    Row("cancel-is-acknowledged", "3.2.5.2.8", MUST,
        "A Cancel-Session", Bench.session, Bench.cancel, OK),
    Row("cancel-ends-session", "2.2.10", MUST,
        "A Fragment after a Cancel-Session",
        _cancelled, fragment(None, 0, HALF), REFUSED),
    Row("cancel-twice", "3.2.5.2.3", SHOULD,
        "A second Cancel-Session", _cancelled, Bench.cancel, NOT_FOUND),
    Row("cancel-of-a-complete-upload", "3.2.5.1.4", SHOULD,
        "A Cancel-Session after the last Fragment", complete, Bench.cancel, ACCEPTED),
    Row("cancel-while-receiving", "2.2.10", TXBITS,
        "A Cancel-Session while a Fragment is stuck", stalled, Bench.cancel, ACCEPTED),
    Row("session-belongs-to-its-file", "3.2.5.2.3", TXBITS,
        "A Fragment of the session at another URL",
        Bench.session, _at_other_url, NOT_FOUND),
    Row("close-of-an-incomplete-upload-ends-session", "2.2.8", SHOULD,
        "A Fragment after a Close-Session of an incomplete upload",
        _closed, fragment(None, HALF), REFUSED),
))
# fmt: on


@GROUP.check("2.2.10", TXBITS)
async def cancels_at_once(bench: Bench) -> None:
    """Two Cancel-Sessions at once are both answered: accepted, or not found."""
    session = await half(bench)
    wires = [await bench.wire(), await bench.wire()]
    for wire in wires:
        wire.send(bench.cancel(session).to_bytes())
    answers = [bench.note(bench.cancel(session), await wire.answer()) for wire in wires]
    for answer in answers:
        is_right = answer.is_success or answer.hresult == NOT_FOUND.hresult
        expect(is_right, f"one was answered with {answer}")


@GROUP.check("2.2.8", SHOULD)
async def close_of_an_incomplete_upload(bench: Bench) -> None:
    """
    A Close-Session before the last Fragment is accepted, and discards the session
    without publishing half a file.
    """
    session = await half(bench)
    answer = await bench.ask(bench.close(session))
    ACCEPTED.check(answer)
    answer = await bench.ask(bench.create(session.name))
    if answer.status in (403, 409):
        bench.published.append(f"file {bench.target.shown(session.target)}")
    ACCEPTED.check(answer)
