"""
Create-Session.
"""

from __future__ import annotations

import re

from txbits.check._bench import Bench, NotApplicable, expect
from txbits.check._messages import PROTOCOL
from txbits.check._model import MUST, SHOULD, TXBITS, Group
from txbits.check._rows import ACCEPTED, INVALID, OK, Row, add_rows, create, no_session
from txbits.check._wire import shown

GROUP = Group("Create-Session")

#: Well formed, but unknown to all servers.
_OTHER = b"{00000000-1111-2222-3333-444444444444}"

_GUID = re.compile(rb"\{[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}")

_SUPPORTED = b"BITS-Supported-Protocols"

# fmt: off
add_rows(GROUP, (
    Row("create-is-acknowledged", "3.2.5.2.4", MUST,
        "A Create-Session", no_session, create(), OK),
    Row("create-takes-spaces", "2.2.2.2", MUST,
        "A list with spaces in BITS-Supported-Protocols, ours not the first,",
        no_session, create({_SUPPORTED: b"%b %b" % (_OTHER, PROTOCOL)}), ACCEPTED),
    Row("create-takes-commas", "2.2.2.2", MUST,
        "A list with commas in BITS-Supported-Protocols, ours not the first,",
        no_session, create({_SUPPORTED: b"%b,%b" % (_OTHER, PROTOCOL)}), ACCEPTED),
    Row("create-needs-common-protocol", "3.2.5.2.4", MUST,
        "A Create-Session that offers no common protocol",
        no_session, create({_SUPPORTED: _OTHER}), INVALID),
    Row("create-needs-protocols", "2.2.2.2", MUST,
        "A Create-Session without BITS-Supported-Protocols",
        no_session, create({_SUPPORTED: None}), INVALID),
    Row("create-has-no-body", "2.2.2.3", MUST, "A Create-Session with a body",
        no_session, lambda bench, _: bench.create().with_body(b"body"), INVALID),
    Row("create-needs-no-name", "2.2.2.1", SHOULD,
        "A Create-Session without Content-Name",
        no_session, create({b"Content-Name": None}), ACCEPTED),
    Row("create-on-folder", "2.2.1.2", MUST,
        "A Create-Session for a folder", no_session,
        lambda bench, _: bench.create(b"").but({b"Content-Name": b"folder"}), INVALID),
))
# fmt: on


@GROUP.check("2.2.3.2", MUST)
async def create_gives_session_id(bench: Bench) -> None:
    """The Ack of Create-Session has a BITS-Session-Id, a GUID in braces."""
    answer = await bench.need(bench.create())
    is_guid = _GUID.fullmatch(answer.first(b"bits-session-id") or b"") is not None
    expect(is_guid, answer.says("BITS-Session-Id"))


@GROUP.check("2.2.1.2", MUST)
async def create_ids_are_unique(bench: Bench) -> None:
    """Two sessions have two ids, even for the same file."""
    name = bench.target.new_name()
    first = await bench.session(name)
    second = await bench.session(name)
    expect(first.id != second.id, f"both are {shown(first.id)}")


@GROUP.check("2.2.3.2", MUST)
async def create_names_protocol(bench: Bench) -> None:
    """The Ack of Create-Session has the protocol in BITS-Protocol."""
    answer = await bench.need(bench.create())
    found = answer.first(b"bits-protocol")
    is_named = found is not None and found.strip(b"{}").lower() == PROTOCOL.strip(b"{}")
    expect(is_named, answer.says("BITS-Protocol"))


@GROUP.check("2.2.3.1", TXBITS)
async def create_accepts_identity(bench: Bench) -> None:
    """The Ack of Create-Session has Accept-Encoding: identity."""
    answer = await bench.need(bench.create())
    is_there = b"identity" in (answer.first(b"accept-encoding") or b"").lower()
    expect(is_there, answer.says("Accept-Encoding"))


@GROUP.check("2.2.3.2", MUST)
async def create_host_id_has_timeout(bench: Bench) -> None:
    """A BITS-Host-Id comes with a BITS-Host-Id-Fallback-Timeout."""
    answer = await bench.need(bench.create())
    if answer.first(b"bits-host-id") is None:
        raise NotApplicable("the server gives no host id")
    found = answer.first(b"bits-host-id-fallback-timeout")
    is_number = found is not None and found.isdigit()
    expect(is_number, answer.says("BITS-Host-Id-Fallback-Timeout"))


@GROUP.check("2.2.3.2", MUST)
async def create_refused_names_no_protocol(bench: Bench) -> None:
    """The refusal of a Create-Session has no BITS-Protocol."""
    answer = await bench.ask(bench.create().but({_SUPPORTED: _OTHER}))
    if answer.is_success:
        raise NotApplicable("the server did not refuse it")
    expect(b"bits-protocol" not in answer.headers, answer.says("BITS-Protocol"))


@GROUP.check("3.2.5.2.3", TXBITS)
async def create_stays_inside(bench: Bench) -> None:
    """A destination above the folder, with its slashes encoded, is refused."""
    name = b"..%2F..%2F" + bench.target.new_name()
    answer = await bench.ask(bench.create(name))
    expect(400 <= answer.status < 500, f"answered with {answer}")
