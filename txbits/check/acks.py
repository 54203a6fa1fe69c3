"""
What every Ack has, and what none has.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import uuid4

from txbits.check._bench import (
    Bench,
    Session,
    expect,
    expect_refusal,
    is_same_id,
)
from txbits.check._messages import Message
from txbits.check._model import Group, Level, NotApplicable
from txbits.check._wire import Answer
from txbits.protocol.refusals import CONTEXT_SERVER, HResult

GROUP = Group("Acks")


def nobody(bench: Bench) -> Session:
    """A session that does not exist."""
    name = bench.target.new_name()
    id_ = b"{%b}" % str(uuid4()).upper().encode("ascii")
    return Session(id_, name, bench.target.target(name))


async def _samples(bench: Bench) -> Sequence[tuple[str, Answer]]:
    """Answers to one packet of each kind, and to some that are refused."""
    found = []

    async def ask(words: str, message: Message) -> Answer:
        answer = await bench.ask(message)
        found.append((words, answer))
        return answer

    await ask("Ping", bench.ping())
    message = bench.create()
    created = await ask("Create-Session", message)
    if created.session_id is not None:
        name = dict(message.headers)[b"Content-Name"]
        session = Session(created.session_id, name, message.target)
        await ask("Fragment", bench.fragment(session, 0, 10))
        await ask("a Fragment of a wrong range", bench.fragment(session, 500, 10))
        await ask("Cancel-Session", bench.cancel(session))
    await ask("a packet of an unknown session", bench.close(nobody(bench)))
    await ask("an unknown packet", bench.message(b"Frobnicate", message.target))
    return found


async def _refusal(bench: Bench) -> tuple[Session, Answer]:
    """A session, and the refusal of a Fragment of it."""
    session = await bench.session()
    message = bench.fragment(session, headers={b"Content-Range": b"bytes 9-1/1000"})
    answer = await bench.ask(message)
    if answer.is_success:
        raise NotApplicable("a Fragment whose range is none was not refused")
    return session, answer


@GROUP.check(
    "ping-is-acknowledged", "3.2.5.2.5", Level.MUST, "A Ping is answered with 200."
)
async def ping(bench: Bench) -> None:
    answer = await bench.ask(bench.ping())
    expect(answer.status == 200, f"answered {answer}")


@GROUP.check("ack-http-version", "2.2.1", Level.MUST, "Answers are of HTTP/1.1.")
async def http_version(bench: Bench) -> None:
    for words, answer in await _samples(bench):
        version = answer.version
        expect(version == "1.1", f"the answer to {words} is of HTTP/{version}")


@GROUP.check(
    "ack-packet-type",
    "2.2.1.2",
    Level.MUST,
    "Every answer has BITS-Packet-Type: Ack.",
)
async def packet_type(bench: Bench) -> None:
    for words, answer in await _samples(bench):
        # MC-BUP 2.2.1 spells it so, once.
        found = answer.first(b"bits-packet-type") or answer.first(b"bits-package-type")
        expect((found or b"").lower() == b"ack", f"the answer to {words} has {found!r}")


@GROUP.check(
    "ack-content-length",
    "2.2.1.1",
    Level.MUST,
    "Every answer has a Content-Length.",
)
async def content_length(bench: Bench) -> None:
    for words, answer in await _samples(bench):
        has_length = answer.first(b"content-length") is not None
        expect(has_length, f"the answer to {words} has none")


@GROUP.check("ack-has-no-body", "2.2.3.3", Level.MUST, "No answer has a body.")
async def no_body(bench: Bench) -> None:
    for words, answer in await _samples(bench):
        size = len(answer.body)
        expect(not size, f"the answer to {words} has a body of {size} bytes")


@GROUP.check(
    "success-names-session",
    "2.2.1.2",
    Level.MUST,
    "The Acks of Fragment and Cancel-Session with status 200 name the session.",
)
async def success_names_session(bench: Bench) -> None:
    session = await bench.session()
    for message in (bench.fragment(session, 0, 10), bench.cancel(session)):
        answer = await bench.need(message)
        found = answer.first(b"bits-session-id")
        expect(is_same_id(found, session.id), f"BITS-Session-Id is {found!r}")


@GROUP.check(
    "refusal-names-no-other-session",
    "2.2.1.2",
    Level.MUST,
    "If a refusal names a session, it is that of the packet.",
)
async def refusal_names_no_other(bench: Bench) -> None:
    session, answer = await _refusal(bench)
    found = answer.first(b"bits-session-id")
    is_that = found is None or is_same_id(found, session.id)
    expect(is_that, f"BITS-Session-Id is {found!r} in place of {session.id!r}")


@GROUP.check(
    "refusal-names-session",
    "2.2.1.2",
    Level.TXBITS,
    "A refusal of a packet that names a session names one, too.",
)
async def refusal_names_session(bench: Bench) -> None:
    _, answer = await _refusal(bench)
    expect(answer.first(b"bits-session-id") is not None, "there is no BITS-Session-Id")


@GROUP.check(
    "refusal-has-error",
    "2.2.7.2",
    Level.MUST,
    "A refusal has an HRESULT: in BITS-Error, as MC-BUP calls it, or in "
    "BITS-Error-Code, as Windows does.",
)
async def refusal_has_error(bench: Bench) -> None:
    _, answer = await _refusal(bench)
    expect(answer.hresult is not None, f"there is none with {answer.status}")


@GROUP.check(
    "refusal-has-both-errors",
    "2.2.1.2",
    Level.TXBITS,
    "A refusal has its HRESULT under both names.",
)
async def refusal_has_both(bench: Bench) -> None:
    _, answer = await _refusal(bench)
    code, error = (answer.first(b"bits-error-code"), answer.first(b"bits-error"))
    if code is None and error is None:
        raise NotApplicable("there is none at all")
    expect(code == error, f"BITS-Error-Code is {code!r}, BITS-Error is {error!r}")


@GROUP.check(
    "refusal-has-context",
    "2.2.1.2",
    Level.MUST,
    "A refusal by the server has BITS-Error-Context: 0x5.",
)
async def refusal_has_context(bench: Bench) -> None:
    _, answer = await _refusal(bench)
    found = answer.first(b"bits-error-context")
    try:
        context = int(found or b"", 16)
    except ValueError:
        context = None
    expect(context == CONTEXT_SERVER, f"BITS-Error-Context is {found!r}")


@GROUP.check(
    "error-has-eight-digits",
    "2.2.1.2",
    Level.TXBITS,
    "An HRESULT is written as 0x and eight digits.",
)
async def eight_digits(bench: Bench) -> None:
    _, answer = await _refusal(bench)
    if answer.hresult is None:
        raise NotApplicable("there is no HRESULT")
    for name in (b"bits-error-code", b"bits-error"):
        found = answer.first(name)
        is_long = found is None or len(found) == len(b"0x80070057")
        expect(is_long, f"it is {found!r}")


@GROUP.check(
    "success-has-no-error",
    "2.2.1.2",
    Level.MUST,
    "No success has an HRESULT or an error context.",
)
async def success_has_no_error(bench: Bench) -> None:
    for words, answer in await _samples(bench):
        if answer.is_success:
            names = (b"bits-error", b"bits-error-code", b"bits-error-context")
            found = [name.decode() for name in names if name in answer.headers]
            expect(not found, f"the Ack of {words} has {', '.join(found)}")


@GROUP.check(
    "unknown-session-fragment",
    "3.2.5.2.3",
    Level.MUST,
    "A Fragment of an unknown session is answered with 500 and "
    "BG_E_SESSION_NOT_FOUND, at which a client starts over.",
)
async def unknown_fragment(bench: Bench) -> None:
    _expect_unknown(await bench.ask(bench.fragment(nobody(bench))))


@GROUP.check(
    "unknown-session-close",
    "3.2.5.2.3",
    Level.MUST,
    "A Close-Session of an unknown session is answered with 500 and "
    "BG_E_SESSION_NOT_FOUND.",
)
async def unknown_close(bench: Bench) -> None:
    _expect_unknown(await bench.ask(bench.close(nobody(bench))))


@GROUP.check(
    "unknown-session-cancel",
    "3.2.5.2.3",
    Level.MUST,
    "A Cancel-Session of an unknown session is answered with 500 and "
    "BG_E_SESSION_NOT_FOUND, which ends a client's attempts.",
)
async def unknown_cancel(bench: Bench) -> None:
    _expect_unknown(await bench.ask(bench.cancel(nobody(bench))))


def _expect_unknown(answer: Answer) -> None:
    expect_refusal(answer, 500)
    is_found = answer.hresult == HResult.BG_E_SESSION_NOT_FOUND
    expect(is_found, f"answered {answer}; expected 0x8020001F with it")
