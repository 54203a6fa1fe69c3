"""
What every Ack has, and what none has.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from txbits.check._bench import Bench, KitSession, NotApplicable, expect, is_same_id
from txbits.check._messages import Message
from txbits.check._model import MUST, TXBITS, Group
from txbits.check._rows import NOT_FOUND, OK, Row, add_rows, fragment, no_session, ping
from txbits.check._wire import KitAnswer, shown
from txbits.protocol.refusals import CONTEXT_SERVER

GROUP = Group("Acks")

# A client starts over after this answer to a Fragment, and ends its attempts after this
# answer to a Cancel-Session. So the HRESULT must be there.
_UNKNOWN = evolve(NOT_FOUND, needs_hresult=True)

# fmt: off
add_rows(GROUP, (
    Row("ping-is-acknowledged", "3.2.5.2.5", MUST,
        "A Ping", no_session, ping(), OK),
    Row("unknown-session-fragment", "3.2.5.2.3", MUST,
        "A Fragment of an unknown session", no_session, fragment(), _UNKNOWN),
    Row("unknown-session-close", "3.2.5.2.3", MUST,
        "A Close-Session of an unknown session", no_session, Bench.close, _UNKNOWN),
    Row("unknown-session-cancel", "3.2.5.2.3", MUST,
        "A Cancel-Session of an unknown session", no_session, Bench.cancel, _UNKNOWN),
))
# fmt: on


async def _samples(bench: Bench) -> Sequence[tuple[str, KitAnswer]]:
    """Answers to one packet of each kind, and to some that are refused."""
    found = []

    async def ask(words: str, message: Message) -> KitAnswer:
        answer = await bench.ask(message)
        found.append((words, answer))
        return answer

    await ask("Ping", bench.ping())
    message = bench.create()
    created = await ask("Create-Session", message)
    if created.session_id is not None:
        name = dict(message.headers)[b"Content-Name"]
        session = KitSession(created.session_id, name, message.target)
        await ask("Fragment", bench.fragment(session, 0, 10))
        await ask("a Fragment beyond the next byte", bench.fragment(session, 500, 10))
        await ask("Cancel-Session", bench.cancel(session))
    await ask("a packet of an unknown session", bench.close(await no_session(bench)))
    await ask("an unknown packet", bench.message(b"Frobnicate", message.target))
    return found


async def _refusal(bench: Bench) -> tuple[KitSession, KitAnswer]:
    """A session, and the refusal of a Fragment of it."""
    session = await bench.session()
    message = bench.fragment(session, headers={b"Content-Range": b"bytes 9-1/1000"})
    answer = await bench.ask(message)
    if answer.is_success:
        raise NotApplicable("a Fragment with an invalid range was not refused")
    return session, answer


@GROUP.check("2.2.1", MUST)
async def ack_http_version(bench: Bench) -> None:
    """Answers have the version HTTP/1.1."""
    for words, answer in await _samples(bench):
        version = answer.version
        expect(version == "1.1", f"the answer to {words} has HTTP/{version}")


@GROUP.check("2.2.1.2", MUST)
async def ack_packet_type(bench: Bench) -> None:
    """Every answer has BITS-Packet-Type: Ack."""
    for words, answer in await _samples(bench):
        # MC-BUP 2.2.1 spells it so, once.
        found = answer.first(b"bits-packet-type") or answer.first(b"bits-package-type")
        is_ack = (found or b"").lower() == b"ack"
        expect(is_ack, f"the answer to {words}: {answer.says('BITS-Packet-Type')}")


@GROUP.check("2.2.1.1", MUST)
async def ack_content_length(bench: Bench) -> None:
    """Every answer has a Content-Length."""
    for words, answer in await _samples(bench):
        expect(b"content-length" in answer.headers, f"the answer to {words} has none")


@GROUP.check("2.2.3.3", MUST)
async def ack_has_no_body(bench: Bench) -> None:
    """No answer has a body."""
    for words, answer in await _samples(bench):
        size = len(answer.body)
        expect(not size, f"the answer to {words} has a body of {size} bytes")


@GROUP.check("2.2.1.2", MUST)
async def success_names_session(bench: Bench) -> None:
    """The Acks of Fragment and Cancel-Session with status 200 name the session."""
    session = await bench.session()
    for message in (bench.fragment(session, 0, 10), bench.cancel(session)):
        answer = await bench.need(message)
        is_named = is_same_id(answer.first(b"bits-session-id"), session.id)
        expect(is_named, answer.says("BITS-Session-Id"))


@GROUP.check("2.2.1.2", MUST)
async def refusal_names_no_other_session(bench: Bench) -> None:
    """A refusal that names a session names that of the packet."""
    session, answer = await _refusal(bench)
    found = answer.first(b"bits-session-id")
    is_that = found is None or is_same_id(found, session.id)
    expect(is_that, f"{answer.says('BITS-Session-Id')}, not {shown(session.id)}")


@GROUP.check("2.2.1.2", TXBITS)
async def refusal_names_session(bench: Bench) -> None:
    """A refusal of a packet that names a session names one, too."""
    _, answer = await _refusal(bench)
    expect(b"bits-session-id" in answer.headers, answer.says("BITS-Session-Id"))


@GROUP.check("2.2.7.2", MUST)
async def refusal_has_error(bench: Bench) -> None:
    """
    A refusal has an HRESULT: in BITS-Error, as MC-BUP calls it, or in BITS-Error-Code,
    as Windows does.
    """
    _, answer = await _refusal(bench)
    expect(answer.hresult is not None, f"answered with {answer} without an HRESULT")


@GROUP.check("2.2.1.2", TXBITS)
async def refusal_has_both_errors(bench: Bench) -> None:
    """A refusal has its HRESULT in both headers."""
    _, answer = await _refusal(bench)
    code, error = (answer.first(b"bits-error-code"), answer.first(b"bits-error"))
    if code is None and error is None:
        raise NotApplicable("the refusal has no HRESULT")
    expect(
        code == error, f"{answer.says('BITS-Error-Code')}, {answer.says('BITS-Error')}"
    )


@GROUP.check("2.2.1.2", MUST)
async def refusal_has_context(bench: Bench) -> None:
    """A refusal by the server has BITS-Error-Context: 0x5."""
    _, answer = await _refusal(bench)
    found = answer.first(b"bits-error-context")
    try:
        context = int(found or b"", 16)
    except ValueError:
        context = None
    expect(context == CONTEXT_SERVER, answer.says("BITS-Error-Context"))


@GROUP.check("2.2.1.2", TXBITS)
async def error_has_eight_digits(bench: Bench) -> None:
    """An HRESULT is 0x and eight digits."""
    _, answer = await _refusal(bench)
    if answer.hresult is None:
        raise NotApplicable("the refusal has no HRESULT")
    for name in ("BITS-Error-Code", "BITS-Error"):
        found = answer.first(name.lower().encode("ascii"))
        is_long = found is None or len(found) == len(b"0x80070057")
        expect(is_long, answer.says(name))


@GROUP.check("2.2.1.2", MUST)
async def success_has_no_error(bench: Bench) -> None:
    """No success has an HRESULT or an error context."""
    for words, answer in await _samples(bench):
        if answer.is_success:
            names = (b"bits-error", b"bits-error-code", b"bits-error-context")
            found = [name.decode() for name in names if name in answer.headers]
            expect(not found, f"the Ack of {words} has {', '.join(found)}")
