"""What hypothesis draws for the tests of the protocol."""

from __future__ import annotations

from hypothesis import strategies as st

from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    MAX_CONTENT_NAME,
    MAX_OFFSET,
    ContentRange,
)
from txbits.protocol.packets import (
    Ack,
    CancelSession,
    CloseSession,
    CreateSession,
    Fragment,
    Packet,
    Ping,
)

offsets = st.integers(0, MAX_OFFSET)

hresults = st.integers(0, 2**32 - 1)


@st.composite
def content_ranges(draw: st.DrawFn, max_total: int = MAX_OFFSET) -> ContentRange:
    """Draw any range that makes sense."""
    total = draw(st.integers(0, max_total))
    if total == 0:
        return ContentRange.empty()
    first = draw(st.integers(0, total - 1))
    return ContentRange(first, draw(st.integers(first, total - 1)), total)


#: File names as they come through unharmed: what can be printed, with no blank at the
#: ends, where HTTP has no place for one.
content_names = (
    st.text(st.characters(codec="utf-8"), max_size=MAX_CONTENT_NAME)
    .map(lambda text: "".join(c for c in text if c.isprintable()).strip())
    .filter(bool)
)

#: Lists of protocols that have ours in it.
protocol_lists = st.tuples(
    st.lists(st.uuids(), max_size=49), st.lists(st.uuids(), max_size=50)
).map(lambda lists: (*lists[0], BITS_UPLOAD_PROTOCOL, *lists[1]))

fragments = st.builds(
    lambda session_id, content_range, chunked: Fragment(
        session_id, content_range, None if chunked else content_range.length
    ),
    st.uuids(),
    content_ranges(),
    st.booleans(),
)

packets: st.SearchStrategy[Packet] = st.one_of(
    st.builds(Ping),
    st.builds(CreateSession, protocol_lists, st.none() | content_names),
    fragments,
    st.builds(CloseSession, st.uuids()),
    st.builds(CancelSession, st.uuids()),
)

#: Printable ASCII with no blank at its ends.
ascii_values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E))

#: Every Ack that can be written down.
acks = st.builds(
    Ack,
    status=st.integers(100, 599),
    session_id=st.none() | st.uuids(),
    protocol=st.none() | st.just(BITS_UPLOAD_PROTOCOL) | st.uuids(),
    received=st.none() | offsets,
    hresult=st.none() | hresults,
    context=st.none() | hresults,
    retry_after=st.none() | offsets,
    host_id=st.none() | ascii_values,
    host_id_fallback_timeout=st.none() | offsets,
    reply_url=st.none() | ascii_values,
    resource_id=st.none() | ascii_values,
)

_GUID = b"{2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}"

#: Values that get a parser further than noise does.
_telling_values = st.sampled_from(
    [
        b"Ping",
        b"create-session",
        b"FRAGMENT",
        b"Close-Session",
        b"Cancel-Session",
        b"Ack",
        b"BITS_POST",
        _GUID,
        _GUID[1:-1],
        _GUID[:-1],
        b"{7df0354d-249b-430f-820d-3d2a9bef4931}",
        b"bytes 0-4/5",
        b"bytes */0",
        b"bytes 5-4/9",
        b"bytes 0-9223372036854775807/9223372036854775808",
        b"chunked",
        b"identity",
        b"gzip",
        b"0",
        b"5",
        b"-1",
        b"9" * 20,
        b"0x80070057",
        b"n" * 4097,
        b"",
        b" \t ",
    ]
)

_telling_names = st.sampled_from(
    [
        b"bits-packet-type",
        b"bits-package-type",
        b"bits-session-id",
        b"bits-supported-protocols",
        b"bits-protocol",
        b"bits-received-content-range",
        b"bits-error-code",
        b"bits-error",
        b"bits-error-context",
        b"bits-host-id",
        b"bits-host-id-fallback-timeout",
        b"bits-reply-url",
        b"content-encoding",
        b"content-length",
        b"content-name",
        b"content-range",
        b"retry-after",
        b"transfer-encoding",
        b"x-http-method-override",
    ]
)

#: Headers that mean something, nothing, or too much.
any_headers = st.dictionaries(
    _telling_names | st.binary(max_size=20),
    st.lists(_telling_values | st.binary(max_size=60), max_size=3),
    max_size=8,
)

methods = st.sampled_from([b"BITS_POST", b"POST"]) | st.binary(max_size=12)
