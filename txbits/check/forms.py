"""
The forms that a packet may come in, and those that it may not.
"""

from __future__ import annotations

from attrs import evolve

from txbits.check._bench import (
    Bench,
    expect,
    expect_refusal,
    expect_success,
    need_guid,
)
from txbits.check._messages import Message
from txbits.check._model import Group, Level, NotApplicable
from txbits.check._wire import Answer
from txbits.protocol.refusals import HResult

GROUP = Group("Forms of packets")

_LONGER_THAN_4_KIB = b"x" * 4500


def _expect_invalid(answer: Answer, *statuses: int) -> None:
    expect_refusal(answer, *(statuses or (400,)), hresult=HResult.E_INVALIDARG)


@GROUP.check(
    "packet-type-in-any-case",
    "2.2.1.2",
    Level.SHOULD,
    "BITS-Packet-Type is read in any case: MC-BUP says PING, Windows says Ping.",
)
async def packet_type_case(bench: Bench) -> None:
    for kind in (b"PING", b"ping", b"pInG"):
        message = bench.ping().but({b"BITS-Packet-Type": kind})
        answer = await bench.ask(message)
        words = kind.decode()
        expect(answer.is_success, f"{words} was answered {answer}")


@GROUP.check(
    "header-names-in-any-case",
    "2.2.1",
    Level.MUST,
    "Names of headers are read in any case.",
)
async def header_case(bench: Bench) -> None:
    message = bench.create()
    for change in (bytes.lower, bytes.upper):
        headers = [(change(name), value) for name, value in message.headers]
        answer = await bench.ask(evolve(message, headers=headers))
        expect_success(answer)


@GROUP.check(
    "unknown-headers-are-ignored",
    "2.2",
    Level.MUST,
    "Headers that the server does not know are ignored.",
)
async def unknown_headers(bench: Bench) -> None:
    message = bench.create().but({b"BITS-Frobnicate": b"1", b"X-Frobnicate": b"1"})
    expect_success(await bench.ask(message))


@GROUP.check(
    "session-id-in-lower-case",
    "2.2.1.2",
    Level.SHOULD,
    "A session is found by its id in lower case.",
)
async def lower_case_id(bench: Bench) -> None:
    session = await bench.session()
    need_guid(session)
    changed = {b"BITS-Session-Id": session.id.lower()}
    expect_success(await bench.ask(bench.fragment(session, headers=changed)))


@GROUP.check(
    "session-id-without-braces",
    "2.2.1.2",
    Level.TXBITS,
    "A session is found by its id without braces.",
)
async def bare_id(bench: Bench) -> None:
    session = await bench.session()
    need_guid(session)
    changed = {b"BITS-Session-Id": session.id.strip(b"{}")}
    expect_success(await bench.ask(bench.fragment(session, headers=changed)))


def _post(message: Message) -> Message:
    return evolve(message, method=b"POST")


@GROUP.check(
    "post-with-override",
    "2.2.1",
    Level.TXBITS,
    "POST with X-HTTP-Method-Override: BITS_POST is as good as BITS_POST.",
)
async def post_override(bench: Bench) -> None:
    message = _post(bench.ping()).but({b"X-HTTP-Method-Override": b"BITS_POST"})
    expect_success(await bench.ask(message))


@GROUP.check(
    "post-with-packet-type",
    "2.2.1",
    Level.TXBITS,
    "POST with a BITS-Packet-Type is as good as BITS_POST.",
)
async def post_plain(bench: Bench) -> None:
    expect_success(await bench.ask(_post(bench.ping())))


@GROUP.check(
    "create-over-post-is-201",
    "3.2.5.2.4",
    Level.TXBITS,
    "A Create-Session over POST is answered with 201, on which its clients insist.",
)
async def post_create(bench: Bench) -> None:
    answer = await bench.ask(_post(bench.create()))
    if not answer.is_success:
        raise NotApplicable(f"POST was answered {answer}")
    expect(answer.status == 201, f"answered {answer}")


@GROUP.check(
    "absolute-target",
    "2.1",
    Level.MUST,
    "The request target may be an absolute URL, as HTTP/1.1 has it.",
)
async def absolute_target(bench: Bench) -> None:
    message = bench.create()
    absolute = evolve(message, target=bench.target.absolute(message.target))
    expect_success(await bench.ask(absolute))


@GROUP.check(
    "query-may-differ",
    "2.2.1.2",
    Level.TXBITS,
    "A session is found whatever the query of the URL, which may be an access token.",
)
async def query(bench: Bench) -> None:
    session = await bench.session()
    joint = b"&" if b"?" in session.target else b"?"
    message = bench.fragment(session)
    other = evolve(message, target=session.target + joint + b"txbits-check=1")
    expect_success(await bench.ask(other))


@GROUP.check(
    "host-may-differ",
    "2.2.3.2",
    Level.TXBITS,
    "A session is found whatever the Host, which changes with a host id.",
)
async def host(bench: Bench) -> None:
    session = await bench.session()
    changed = {b"Host": b"txbits-check.invalid"}
    expect_success(await bench.ask(bench.fragment(session, headers=changed)))


@GROUP.check(
    "connection-is-kept",
    "2.1",
    Level.SHOULD,
    "A connection takes one packet after the other.",
)
async def kept_connection(bench: Bench) -> None:
    wire = await bench.wire()
    await bench.need(bench.ping(), wire)
    expect(wire.is_usable, "it ends with the first answer")
    expect_success(await bench.ask(bench.ping(), wire))


@GROUP.check(
    "connection-may-change",
    "2.1",
    Level.MUST,
    "A session goes on over another connection.",
)
async def other_connection(bench: Bench) -> None:
    session = await bench.session()
    await bench.need(bench.fragment(session, 0, 500))
    (await bench.main()).drop()
    wire = await bench.wire()
    expect_success(await bench.ask(bench.fragment(session, 500), wire))


@GROUP.check(
    "expect-is-answered",
    "2.1",
    Level.MUST,
    "A Fragment with Expect: 100-continue is told to go on before its body is sent.",
)
async def expect_continue(bench: Bench) -> None:
    session = await bench.session()
    message = bench.fragment(session, headers={b"Expect": b"100-continue"})
    wire = await bench.main()
    wire.send(message.head())
    expect(await wire.continues(), "there was no 100 Continue")
    wire.send(message.body)
    expect_success(bench.note(message, await wire.answer()))


@GROUP.check(
    "fragment-may-be-chunked",
    "2.2.6.1",
    Level.TXBITS,
    "A Fragment may come chunked, if it brings the bytes of its range.",
)
async def chunked(bench: Bench) -> None:
    session = await bench.session()
    message = bench.fragment(session)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(message.body), message.body)
    headers = {b"Content-Length": None, b"Transfer-Encoding": b"chunked"}
    expect_success(await bench.ask(evolve(message.but(headers), body=body)))


@GROUP.check(
    "length-may-be-missing",
    "2.2.1.1",
    Level.TXBITS,
    "A packet without a body may come without Content-Length, though MC-BUP wants it.",
)
async def no_length(bench: Bench) -> None:
    message = bench.create().but({b"Content-Length": None})
    expect_success(await bench.ask(message))


@GROUP.check(
    "fragment-needs-length",
    "3.2.5.2.3",
    Level.SHOULD,
    "A Fragment whose length is not told is answered with 411, or 400.",
)
async def fragment_needs_length(bench: Bench) -> None:
    session = await bench.session()
    message = bench.fragment(session, headers={b"Content-Length": None})
    _expect_invalid(await bench.ask(evolve(message, body=b"")), 411, 400)


@GROUP.check(
    "packet-type-is-known",
    "2.2.1.2",
    Level.MUST,
    "An unknown BITS-Packet-Type is answered with 400 and E_INVALIDARG.",
)
async def unknown_packet_type(bench: Bench) -> None:
    message = bench.ping().but({b"BITS-Packet-Type": b"Frobnicate"})
    _expect_invalid(await bench.ask(message))


@GROUP.check(
    "packet-type-is-there",
    "2.2.1.2",
    Level.MUST,
    "A BITS_POST without BITS-Packet-Type is answered with 400.",
)
async def no_packet_type(bench: Bench) -> None:
    _expect_invalid(await bench.ask(bench.ping().but({b"BITS-Packet-Type": None})))


@GROUP.check(
    "session-id-is-there",
    "2.2.1.2",
    Level.MUST,
    "A Fragment without BITS-Session-Id is answered with 400.",
)
async def no_session_id(bench: Bench) -> None:
    session = await bench.session()
    message = bench.fragment(session, headers={b"BITS-Session-Id": None})
    _expect_invalid(await bench.ask(message))


@GROUP.check(
    "session-id-is-guid",
    "2.2.1.2",
    Level.SHOULD,
    "A BITS-Session-Id that is no GUID is answered with 400.",
)
async def malformed_session_id(bench: Bench) -> None:
    session = await bench.session()
    need_guid(session)
    message = bench.fragment(session, headers={b"BITS-Session-Id": b"{frobnicate}"})
    _expect_invalid(await bench.ask(message))


@GROUP.check(
    "session-id-is-there-once",
    "2.2.1",
    Level.TXBITS,
    "A Fragment that names two sessions is answered with 400.",
)
async def two_session_ids(bench: Bench) -> None:
    session = await bench.session()
    message = bench.fragment(session)
    headers = [*message.headers, (b"BITS-Session-Id", session.id)]
    _expect_invalid(await bench.ask(evolve(message, headers=headers)))


@GROUP.check(
    "header-is-short",
    "2.2.1.2",
    Level.SHOULD,
    "A header over 4 KiB is answered with 400 and E_INVALIDARG.",
)
async def long_header(bench: Bench) -> None:
    message = bench.create().but({b"Content-Name": _LONGER_THAN_4_KIB})
    _expect_invalid(await bench.ask(message))


@GROUP.check(
    "cancel-has-no-body",
    "2.2.10.3",
    Level.MUST,
    "A Cancel-Session with a body is answered with 400.",
)
async def cancel_body(bench: Bench) -> None:
    session = await bench.session()
    _expect_invalid(await bench.ask(bench.cancel(session).with_body(b"body")))


@GROUP.check(
    "encoding-is-known",
    "2.2.6.1",
    Level.TXBITS,
    "A Fragment with a Content-Encoding other than identity is answered with 400.",
)
async def unknown_encoding(bench: Bench) -> None:
    session = await bench.session()
    message = bench.fragment(session, headers={b"Content-Encoding": b"gzip"})
    _expect_invalid(await bench.ask(message))
