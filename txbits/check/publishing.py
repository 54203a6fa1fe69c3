"""
Close-Session of a complete upload, which leaves a file at its destination.

BITS cannot remove one. So these checks run only where that is permitted, and each
file they leave is reported.
"""

from __future__ import annotations

from attrs import evolve

from txbits.check._bench import (
    DATA,
    Bench,
    Session,
    expect,
    expect_refusal,
    expect_success,
    is_same_id,
)
from txbits.check._messages import Message
from txbits.check._model import Group, Level, NotApplicable
from txbits.check._wire import Answer
from txbits.protocol.refusals import HResult

GROUP = Group("Publishing", publishes=True)


async def _complete(bench: Bench) -> Session:
    """A session that has all its bytes."""
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    await bench.need(bench.fragment(session, 500))
    return session


async def _close(bench: Bench, session: Session) -> Answer:
    bench.published.append(f"file {bench.target.shown(session.target)}")
    return await bench.ask(bench.close(session))


async def _published(bench: Bench) -> Session:
    """A session whose file has been published."""
    session = await _complete(bench)
    answer = await _close(bench, session)
    if not answer.is_success:
        raise NotApplicable(f"Close-Session was answered {answer}")
    return session


async def _read(bench: Bench, session: Session) -> Answer:
    headers = [(b"Host", bench.target.host), *bench.target.headers]
    # A connection of its own: what answers may be another server.
    wire = await bench.wire()
    wire.send(Message(session.target, headers, method=b"GET").to_bytes())
    return await wire.answer()


@GROUP.check(
    "close-is-acknowledged",
    "3.2.5.2.7",
    Level.MUST,
    "A Close-Session of a complete upload is answered with 200.",
)
async def acknowledged(bench: Bench) -> None:
    session = await _complete(bench)
    answer = await _close(bench, session)
    expect(answer.status == 200, f"answered {answer}")


@GROUP.check(
    "close-names-session",
    "2.2.9.2",
    Level.MUST,
    "The Ack of Close-Session names the session.",
)
async def names_session(bench: Bench) -> None:
    session = await _complete(bench)
    answer = await _close(bench, session)
    if not answer.is_success:
        raise NotApplicable(f"answered {answer}")
    found = answer.first(b"bits-session-id")
    expect(is_same_id(found, session.id), f"it is {found!r}")


@GROUP.check(
    "close-ends-session",
    "2.2.8",
    Level.SHOULD,
    "After a Close-Session the session takes no Fragment.",
)
async def ends_session(bench: Bench) -> None:
    session = await _published(bench)
    answer = await bench.ask(bench.fragment(session, 0, 500))
    expect(not answer.is_success, f"it took one: answered {answer}")


@GROUP.check(
    "close-twice",
    "3.2.5.2.7",
    Level.TXBITS,
    "A Close-Session that is sent again, its Ack having been lost, is acknowledged.",
)
async def twice(bench: Bench) -> None:
    session = await _published(bench)
    expect_success(await bench.ask(bench.close(session)))


@GROUP.check(
    "cancel-after-close",
    "3.2.5.2.3",
    Level.SHOULD,
    "A Cancel-Session after Close-Session is answered with 500 and "
    "BG_E_SESSION_NOT_FOUND.",
)
async def cancel_after_close(bench: Bench) -> None:
    session = await _published(bench)
    answer = await bench.ask(bench.cancel(session))
    expect_refusal(answer, 500, hresult=HResult.BG_E_SESSION_NOT_FOUND)


@GROUP.check(
    "close-of-an-empty-file",
    "3.2.5.2.7",
    Level.TXBITS,
    "A Close-Session without any Fragment publishes an empty file.",
)
async def empty_file(bench: Bench) -> None:
    session = await bench.session()
    expect_success(await _close(bench, session))


@GROUP.check(
    "file-stays",
    "2.2.1.2",
    Level.MUST,
    "A Create-Session on a file that exists is refused with 403 and E_ACCESSDENIED, "
    "if the server does not permit to overwrite.",
)
async def file_exists(bench: Bench) -> None:
    session = await _published(bench)
    answer = await bench.ask(bench.create(session.name))
    if answer.is_success:
        raise NotApplicable("the server permits to overwrite")
    expect_refusal(answer, 403, hresult=HResult.E_ACCESSDENIED)


@GROUP.check(
    "file-is-as-sent",
    "3.2.5.2.7",
    Level.MUST,
    "The file at the destination has the bytes that were sent, also where fragments "
    "overlapped.",
)
async def as_sent(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    # Half of it is held, and the half that is says something else.
    overlap = bench.fragment(session, 250, 500)
    answer = await bench.ask(evolve(overlap, body=b"x" * 250 + overlap.body[250:]))
    await bench.need(bench.fragment(session, 750 if answer.is_success else 500))
    closed = await _close(bench, session)
    if not closed.is_success:
        raise NotApplicable(f"Close-Session was answered {closed}")
    found = await _read(bench, session)
    if found.status != 200:
        raise NotApplicable(f"GET was answered {found.status}")
    expect(found.body == DATA, "it has others")


@GROUP.check(
    "file-appears-at-close",
    "3.2.5.2.4",
    Level.SHOULD,
    "There is no file at the destination before Close-Session.",
)
async def at_close(bench: Bench) -> None:
    session = await _complete(bench)
    before = await _read(bench, session)
    closed = await _close(bench, session)
    after = await _read(bench, session)
    if not closed.is_success or after.status != 200:
        raise NotApplicable(f"GET was answered {after.status} after Close-Session")
    expect(before.status != 200, "there is")
