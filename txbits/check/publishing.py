"""
Close-Session of a complete upload, which leaves a file at its destination.

BITS cannot remove files. So these checks run only with permission, and the report
lists each file that they leave.
"""

from __future__ import annotations

from attrs import evolve

from txbits.check._bench import (
    DATA,
    Bench,
    NotApplicable,
    Session,
    expect,
    expect_refusal,
    expect_success,
    is_same_id,
    shown,
)
from txbits.check._messages import Message
from txbits.check._model import MUST, SHOULD, TXBITS, Group
from txbits.check._rows import ACCEPTED, NOT_FOUND, Row, add_rows, complete
from txbits.check._wire import Answer
from txbits.protocol.refusals import HResult

GROUP = Group("Publishing", publishes=True)


async def _close(bench: Bench, session: Session) -> Answer:
    bench.published.append(f"file {bench.target.shown(session.target)}")
    return await bench.ask(bench.close(session))


async def _published(bench: Bench) -> Session:
    """A session whose file is at its destination."""
    session = await complete(bench)
    answer = await _close(bench, session)
    if not answer.is_success:
        raise NotApplicable(f"Close-Session was answered {answer}")
    return session


async def _read(bench: Bench, session: Session) -> Answer:
    headers = [(b"Host", bench.target.host), *bench.target.headers]
    # Over another connection, because another server may answer.
    wire = await bench.wire()
    wire.send(Message(session.target, headers, method=b"GET").to_bytes())
    return await wire.answer()


# fmt: off
add_rows(GROUP, (
    Row("close-twice", "3.2.5.2.7", TXBITS,
        "A second copy of Close-Session, sent because the Ack was lost,",
        _published, Bench.close, ACCEPTED),
    Row("cancel-after-close", "3.2.5.2.3", SHOULD,
        "A Cancel-Session after Close-Session", _published, Bench.cancel, NOT_FOUND),
))
# fmt: on


@GROUP.check("3.2.5.2.7", MUST)
async def close_is_acknowledged(bench: Bench) -> None:
    """A Close-Session of a complete upload is answered with 200."""
    session = await complete(bench)
    answer = await _close(bench, session)
    expect(answer.status == 200, f"answered {answer}")


@GROUP.check("2.2.9.2", MUST)
async def close_names_session(bench: Bench) -> None:
    """The Ack of Close-Session names the session."""
    session = await complete(bench)
    answer = await _close(bench, session)
    if not answer.is_success:
        raise NotApplicable(f"answered {answer}")
    found = answer.first(b"bits-session-id")
    expect(is_same_id(found, session.id), f"BITS-Session-Id is {shown(found)}")


@GROUP.check("2.2.8", SHOULD)
async def close_ends_session(bench: Bench) -> None:
    """After a Close-Session the session accepts no Fragment."""
    session = await _published(bench)
    answer = await bench.ask(bench.fragment(session, 0, 500))
    expect(not answer.is_success, f"it accepted one: answered {answer}")


@GROUP.check("3.2.5.2.7", TXBITS)
async def close_of_an_empty_file(bench: Bench) -> None:
    """A Close-Session without any Fragment publishes an empty file."""
    session = await bench.session()
    expect_success(await _close(bench, session))


@GROUP.check("2.2.1.2", MUST)
async def file_stays(bench: Bench) -> None:
    """
    A Create-Session for an existing file is answered with 403 and E_ACCESSDENIED,
    unless the server allows overwriting.
    """
    session = await _published(bench)
    answer = await bench.ask(bench.create(session.name))
    if answer.is_success:
        raise NotApplicable("the server allows overwriting")
    expect_refusal(answer, 403, hresult=HResult.E_ACCESSDENIED)


@GROUP.check("3.2.5.2.7", MUST)
async def file_is_as_sent(bench: Bench) -> None:
    """
    The file at the destination has the bytes that were sent, even where Fragments
    overlapped.
    """
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    # The server already has the first half, with other bytes.
    overlap = bench.fragment(session, 250, 500)
    answer = await bench.ask(evolve(overlap, body=b"x" * 250 + overlap.body[250:]))
    await bench.need(bench.fragment(session, 750 if answer.is_success else 500))
    closed = await _close(bench, session)
    if not closed.is_success:
        raise NotApplicable(f"Close-Session was answered {closed}")
    found = await _read(bench, session)
    if found.status != 200:
        raise NotApplicable(f"GET was answered {found.status}")
    expect(found.body == DATA, "the file has other bytes")


@GROUP.check("3.2.5.2.4", SHOULD)
async def file_appears_at_close(bench: Bench) -> None:
    """The destination has no file before Close-Session."""
    session = await complete(bench)
    before = await _read(bench, session)
    closed = await _close(bench, session)
    after = await _read(bench, session)
    if not closed.is_success or after.status != 200:
        raise NotApplicable(f"GET was answered {after.status} after Close-Session")
    expect(before.status != 200, "the file was there before")
