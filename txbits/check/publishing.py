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
    KitSession,
    NotApplicable,
    expect,
    is_same_id,
)
from txbits.check._messages import Message
from txbits.check._model import MUST, SHOULD, TXBITS, Group
from txbits.check._rows import (
    ACCEPTED,
    HALF,
    NOT_FOUND,
    OK,
    REFUSED,
    Expected,
    Row,
    add_rows,
    complete,
    fragment,
    half,
)
from txbits.check._wire import KitAnswer
from txbits.protocol.refusals import HResult

GROUP = Group("Publishing", publishes=True)


def _announce(bench: Bench, session: KitSession) -> KitSession:
    """Report the file that a Close-Session leaves."""
    bench.published.append(f"file {bench.target.shown(session.target)}")
    return session


async def _ready(bench: Bench) -> KitSession:
    """A session whose next Close-Session leaves a file."""
    return _announce(bench, await complete(bench))


async def _empty(bench: Bench) -> KitSession:
    """A session whose next Close-Session leaves an empty file."""
    return _announce(bench, await bench.session())


async def _published(bench: Bench) -> KitSession:
    """A session whose file is at its destination."""
    session = await _ready(bench)
    await bench.need(bench.close(session))
    return session


async def _read(bench: Bench, session: KitSession) -> KitAnswer:
    headers = [(b"Host", bench.target.host), *bench.target.headers]
    # Over another connection, because another server may answer.
    wire = await bench.wire()
    wire.send(Message(session.target, headers, method=b"GET").to_bytes())
    return await wire.answer()


# fmt: off
add_rows(GROUP, (
    Row("close-is-acknowledged", "3.2.5.2.7", MUST,
        "A Close-Session of a complete upload", _ready, Bench.close, OK),
    Row("close-of-an-empty-file", "3.2.5.2.7", TXBITS,
        "A Close-Session without any Fragment, for an empty file,",
        _empty, Bench.close, ACCEPTED),
    Row("close-ends-session", "2.2.8", SHOULD,
        "A Fragment after a Close-Session",
        _published, fragment(None, 0, HALF), REFUSED),
    Row("close-twice", "3.2.5.2.7", TXBITS,
        "A second copy of Close-Session, sent because the Ack was lost,",
        _published, Bench.close, ACCEPTED),
    Row("cancel-after-close", "3.2.5.2.3", SHOULD,
        "A Cancel-Session after Close-Session", _published, Bench.cancel, NOT_FOUND),
))
# fmt: on


@GROUP.check("2.2.9.2", MUST)
async def close_names_session(bench: Bench) -> None:
    """The Ack of Close-Session names the session."""
    session = await _ready(bench)
    answer = await bench.need(bench.close(session))
    is_named = is_same_id(answer.first(b"bits-session-id"), session.id)
    expect(is_named, answer.says("BITS-Session-Id"))


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
    Expected.with_status(403, hresult=HResult.E_ACCESSDENIED).check(answer)


@GROUP.check("3.2.5.2.7", MUST)
async def file_is_as_sent(bench: Bench) -> None:
    """
    The file at the destination has the bytes that were sent, even where Fragments
    overlapped.
    """
    session = _announce(bench, await half(bench))
    # The server already has the first half, with other bytes.
    overlap = bench.fragment(session, 250, 500)
    answer = await bench.ask(evolve(overlap, body=b"x" * 250 + overlap.body[250:]))
    await bench.need(bench.fragment(session, 750 if answer.is_success else 500))
    await bench.need(bench.close(session))
    found = await _read(bench, session)
    if found.status != 200:
        raise NotApplicable(f"GET was answered with {found.status}")
    expect(found.body == DATA, "the file has other bytes")


@GROUP.check("3.2.5.2.4", SHOULD)
async def file_appears_at_close(bench: Bench) -> None:
    """The destination has no file before Close-Session."""
    session = await _ready(bench)
    before = await _read(bench, session)
    await bench.need(bench.close(session))
    after = await _read(bench, session)
    if after.status != 200:
        raise NotApplicable(f"GET was answered with {after.status} after Close-Session")
    expect(before.status != 200, "the file was there before")
