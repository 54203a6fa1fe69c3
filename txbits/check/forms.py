"""
Valid and invalid forms of packets.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import evolve

from txbits.check._bench import Bench, KitSession, NotApplicable, expect, is_guid
from txbits.check._messages import Message
from txbits.check._model import MUST, SHOULD, TXBITS, Group
from txbits.check._rows import (
    ACCEPTED,
    HALF,
    INVALID,
    Expected,
    Request,
    Row,
    add_rows,
    create,
    fragment,
    half,
    no_session,
    ping,
)
from txbits.check._wire import shown
from txbits.protocol.refusals import HResult

GROUP = Group("Forms of packets")

_TYPE = b"BITS-Packet-Type"
_SESSION = b"BITS-Session-Id"

_INVALID_LENGTH = Expected.with_status(411, 400, hresult=HResult.E_INVALIDARG)


async def _guid_session(bench: Bench) -> KitSession:
    """A session whose id is a GUID, which has several spellings."""
    session = await bench.session()
    if not is_guid(session.id):
        raise NotApplicable(f"the session id is not a GUID: {shown(session.id)}")
    return session


def _bare_id(bench: Bench, session: KitSession) -> Message:
    return bench.fragment(session, headers={_SESSION: session.id.strip(b"{}")})


def _lower_case_id(bench: Bench, session: KitSession) -> Message:
    return bench.fragment(session, headers={_SESSION: session.id.lower()})


def _names_in(case: Callable[[bytes], bytes]) -> Request:
    def request(bench: Bench, session: KitSession) -> Message:
        message = bench.create()
        headers = [(case(name), value) for name, value in message.headers]
        return evolve(message, headers=headers)

    return request


def _posted(request: Request) -> Request:
    return lambda bench, session: evolve(request(bench, session), method=b"POST")


def _absolute(bench: Bench, session: KitSession) -> Message:
    message = bench.create()
    return evolve(message, target=bench.target.absolute(message.target))


def _other_query(bench: Bench, session: KitSession) -> Message:
    joint = b"&" if b"?" in session.target else b"?"
    target = session.target + joint + b"txbits-check=1"
    return evolve(bench.fragment(session), target=target)


def _chunked(bench: Bench, session: KitSession) -> Message:
    message = bench.fragment(session)
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(message.body), message.body)
    headers = {b"Content-Length": None, b"Transfer-Encoding": b"chunked"}
    return evolve(message.but(headers), body=body)


def _without_length(bench: Bench, session: KitSession) -> Message:
    return evolve(bench.fragment(session, headers={b"Content-Length": None}), body=b"")


def _two_ids(bench: Bench, session: KitSession) -> Message:
    message = bench.fragment(session)
    return evolve(message, headers=[*message.headers, (_SESSION, session.id)])


# fmt: off
add_rows(GROUP, (
    Row("packet-type-in-any-case", "2.2.1.2", SHOULD,
        "A BITS-Packet-Type in any case, PING as in MC-BUP or Ping as in Windows,",
        no_session,
        {kind: ping({_TYPE: kind.encode()}) for kind in ("PING", "ping", "pInG")},
        ACCEPTED),
    Row("header-names-in-any-case", "2.2.1", MUST,
        "A header name in any case", no_session,
        {"lower case": _names_in(bytes.lower), "upper case": _names_in(bytes.upper)},
        ACCEPTED),
    Row("unknown-headers-are-ignored", "2.2", MUST,
        "A packet with unknown headers", no_session,
        create({b"BITS-Frobnicate": b"1", b"X-Frobnicate": b"1"}), ACCEPTED),
    Row("session-id-in-lower-case", "2.2.1.2", SHOULD, "A session id in lower case",
        _guid_session, _lower_case_id, ACCEPTED),
    Row("session-id-without-braces", "2.2.1.2", TXBITS, "A session id without braces",
        _guid_session, _bare_id, ACCEPTED),
    Row("post-with-override", "2.2.1", TXBITS,
        "A POST with X-HTTP-Method-Override: BITS_POST", no_session,
        _posted(ping({b"X-HTTP-Method-Override": b"BITS_POST"})), ACCEPTED),
    Row("post-with-packet-type", "2.2.1", TXBITS, "A POST with a BITS-Packet-Type",
        no_session, _posted(ping()), ACCEPTED),
    Row("absolute-target", "2.1", MUST, "An absolute URL as the request target",
        no_session, _absolute, ACCEPTED),
    Row("query-may-differ", "2.2.1.2", TXBITS,
        "A Fragment whose URL has another query, such as a new access token,",
        Bench.session, _other_query, ACCEPTED),
    Row("host-may-differ", "2.2.3.2", TXBITS,
        "A Fragment with another Host, as after a BITS-Host-Id,",
        Bench.session, fragment({b"Host": b"txbits-check.invalid"}), ACCEPTED),
    Row("fragment-may-be-chunked", "2.2.6.1", TXBITS,
        "A Fragment in chunks, with all the bytes of its range,",
        Bench.session, _chunked, ACCEPTED),
    Row("length-may-be-missing", "2.2.1.1", TXBITS,
        "A packet with neither a body nor the Content-Length that MC-BUP requires",
        no_session, create({b"Content-Length": None}), ACCEPTED),
    Row("fragment-needs-length", "3.2.5.2.3", SHOULD, "A Fragment of unknown length",
        Bench.session, _without_length, _INVALID_LENGTH),
    Row("packet-type-is-known", "2.2.1.2", MUST, "An unknown BITS-Packet-Type",
        no_session, ping({_TYPE: b"Frobnicate"}), INVALID),
    Row("packet-type-is-there", "2.2.1.2", MUST, "A BITS_POST without BITS-Packet-Type",
        no_session, ping({_TYPE: None}), INVALID),
    Row("session-id-is-there", "2.2.1.2", MUST, "A Fragment without BITS-Session-Id",
        Bench.session, fragment({_SESSION: None}), INVALID),
    Row("session-id-is-guid", "2.2.1.2", SHOULD,
        "A BITS-Session-Id that is not a GUID",
        _guid_session, fragment({_SESSION: b"{frobnicate}"}), INVALID),
    Row("session-id-is-there-once", "2.2.1", TXBITS,
        "A Fragment that names two sessions",
        Bench.session, _two_ids, INVALID),
    Row("header-is-short", "2.2.1.2", SHOULD, "A header over 4 KiB",
        no_session, create({b"Content-Name": b"x" * 4500}), INVALID),
    Row("cancel-has-no-body", "2.2.10.3", MUST, "A Cancel-Session with a body",
        Bench.session,
        lambda bench, session: bench.cancel(session).with_body(b"body"), INVALID),
    Row("encoding-is-known", "2.2.6.1", TXBITS,
        "A Fragment with a Content-Encoding other than identity",
        Bench.session, fragment({b"Content-Encoding": b"gzip"}), INVALID),
))
# fmt: on


@GROUP.check("3.2.5.2.4", TXBITS)
async def create_over_post_is_201(bench: Bench) -> None:
    """A Create-Session over POST is answered with 201, which its clients require."""
    answer = await bench.ask(evolve(bench.create(), method=b"POST"))
    if not answer.is_success:
        raise NotApplicable(f"POST was answered with {answer}")
    expect(answer.status == 201, f"answered with {answer}")


@GROUP.check("2.1", SHOULD)
async def connection_is_kept(bench: Bench) -> None:
    """A connection carries several packets."""
    wire = await bench.wire()
    await bench.need(bench.ping(), wire)
    expect(wire.is_usable, "the connection ends with the first answer")
    ACCEPTED.check(await bench.ask(bench.ping(), wire))


@GROUP.check("2.1", MUST)
async def connection_may_change(bench: Bench) -> None:
    """A session continues over another connection."""
    session = await half(bench)
    (await bench.main()).drop()
    wire = await bench.wire()
    ACCEPTED.check(await bench.ask(bench.fragment(session, HALF), wire))


@GROUP.check("2.1", MUST)
async def expect_is_answered(bench: Bench) -> None:
    """A Fragment with Expect: 100-continue gets a 100 before its body is sent."""
    session = await bench.session()
    message = bench.fragment(session, headers={b"Expect": b"100-continue"})
    wire = await bench.main()
    wire.send(message.head())
    expect(await wire.continues(), "there was no 100 Continue")
    wire.send(message.body)
    ACCEPTED.check(bench.note(message, await wire.answer()))
