"""
Create-Session.
"""

from __future__ import annotations

import re

from txbits.check._bench import Bench, expect, expect_refusal, expect_success
from txbits.check._messages import PROTOCOL
from txbits.check._model import Group, Level, NotApplicable
from txbits.protocol.refusals import HResult

GROUP = Group("Create-Session")

#: Well formed, and spoken by nobody.
_OTHER = b"{00000000-1111-2222-3333-444444444444}"

_GUID = re.compile(rb"\{[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}")


@GROUP.check(
    "create-is-acknowledged",
    "3.2.5.2.4",
    Level.MUST,
    "A Create-Session is answered with 200.",
)
async def acknowledged(bench: Bench) -> None:
    answer = await bench.ask(bench.create())
    expect(answer.status == 200, f"answered {answer}")


@GROUP.check(
    "create-gives-session-id",
    "2.2.3.2",
    Level.MUST,
    "The Ack of Create-Session has a BITS-Session-Id, a GUID in braces.",
)
async def session_id(bench: Bench) -> None:
    answer = await bench.need(bench.create())
    found = answer.first(b"bits-session-id")
    expect(found is not None, "the Ack has none")
    expect(_GUID.fullmatch(found or b"") is not None, f"it is not a GUID: {found!r}")


@GROUP.check(
    "create-ids-are-unique",
    "2.2.1.2",
    Level.MUST,
    "Two sessions have two ids, also if they are for the same file.",
)
async def unique_ids(bench: Bench) -> None:
    name = bench.target.new_name()
    first = await bench.session(name)
    second = await bench.session(name)
    expect(first.id != second.id, f"both are {first.id!r}")


@GROUP.check(
    "create-names-protocol",
    "2.2.3.2",
    Level.MUST,
    "The Ack of Create-Session says in BITS-Protocol which protocol is spoken.",
)
async def names_protocol(bench: Bench) -> None:
    answer = await bench.need(bench.create())
    found = answer.first(b"bits-protocol")
    is_named = found is not None and found.strip(b"{}").lower() == PROTOCOL.strip(b"{}")
    expect(is_named, f"BITS-Protocol is {found!r}")


@GROUP.check(
    "create-accepts-identity",
    "2.2.3.1",
    Level.TXBITS,
    "The Ack of Create-Session has Accept-Encoding: identity.",
)
async def accepts_identity(bench: Bench) -> None:
    answer = await bench.need(bench.create())
    found = answer.first(b"accept-encoding") or b""
    expect(b"identity" in found.lower(), f"Accept-Encoding is {found!r}")


@GROUP.check(
    "create-host-id-has-timeout",
    "2.2.3.2",
    Level.MUST,
    "A BITS-Host-Id comes with a BITS-Host-Id-Fallback-Timeout.",
)
async def host_id(bench: Bench) -> None:
    answer = await bench.need(bench.create())
    if answer.first(b"bits-host-id") is None:
        raise NotApplicable("the server gives no host id")
    found = answer.first(b"bits-host-id-fallback-timeout")
    expect(found is not None and found.isdigit(), f"it is {found!r}")


@GROUP.check(
    "create-takes-spaces",
    "2.2.2.2",
    Level.MUST,
    "BITS-Supported-Protocols may be a list with spaces, ours not the first.",
)
async def spaces(bench: Bench) -> None:
    value = b"%b %b" % (_OTHER, PROTOCOL)
    message = bench.create().but({b"BITS-Supported-Protocols": value})
    expect_success(await bench.ask(message))


@GROUP.check(
    "create-takes-commas",
    "2.2.2.2",
    Level.MUST,
    "BITS-Supported-Protocols may be a list with commas, ours not the first.",
)
async def commas(bench: Bench) -> None:
    value = b"%b,%b" % (_OTHER, PROTOCOL)
    message = bench.create().but({b"BITS-Supported-Protocols": value})
    expect_success(await bench.ask(message))


@GROUP.check(
    "create-needs-common-protocol",
    "3.2.5.2.4",
    Level.MUST,
    "A Create-Session that offers no protocol in common is answered with 400 and "
    "E_INVALIDARG.",
)
async def no_common_protocol(bench: Bench) -> None:
    message = bench.create().but({b"BITS-Supported-Protocols": _OTHER})
    answer = await bench.ask(message)
    expect_refusal(answer, 400, hresult=HResult.E_INVALIDARG)


@GROUP.check(
    "create-needs-protocols",
    "2.2.2.2",
    Level.MUST,
    "A Create-Session without BITS-Supported-Protocols is answered with 400.",
)
async def no_protocols(bench: Bench) -> None:
    message = bench.create().but({b"BITS-Supported-Protocols": None})
    expect_refusal(await bench.ask(message), 400, hresult=HResult.E_INVALIDARG)


@GROUP.check(
    "create-refused-names-no-protocol",
    "2.2.3.2",
    Level.MUST,
    "There is no BITS-Protocol in the refusal of a Create-Session.",
)
async def refused_names_no_protocol(bench: Bench) -> None:
    message = bench.create().but({b"BITS-Supported-Protocols": _OTHER})
    answer = await bench.ask(message)
    if answer.is_success:
        raise NotApplicable("it was not refused")
    found = answer.first(b"bits-protocol")
    expect(found is None, f"it is {found!r}")


@GROUP.check(
    "create-has-no-body",
    "2.2.2.3",
    Level.MUST,
    "A Create-Session with a body is answered with 400.",
)
async def no_body(bench: Bench) -> None:
    answer = await bench.ask(bench.create().with_body(b"body"))
    expect_refusal(answer, 400, hresult=HResult.E_INVALIDARG)


@GROUP.check(
    "create-needs-no-name",
    "2.2.2.1",
    Level.SHOULD,
    "A Create-Session without Content-Name is taken.",
)
async def no_name(bench: Bench) -> None:
    expect_success(await bench.ask(bench.create().but({b"Content-Name": None})))


@GROUP.check(
    "create-on-folder",
    "2.2.1.2",
    Level.MUST,
    "A destination that is a folder is answered with 400.",
)
async def on_folder(bench: Bench) -> None:
    answer = await bench.ask(bench.create(b"").but({b"Content-Name": b"folder"}))
    expect_refusal(answer, 400, hresult=HResult.E_INVALIDARG)


@GROUP.check(
    "create-stays-inside",
    "3.2.5.2.3",
    Level.TXBITS,
    "A destination above the folder, with its slashes encoded, is refused.",
)
async def stays_inside(bench: Bench) -> None:
    name = b"..%2F..%2F" + bench.target.new_name()
    answer = await bench.ask(bench.create(name))
    expect(400 <= answer.status < 500, f"answered {answer}")
