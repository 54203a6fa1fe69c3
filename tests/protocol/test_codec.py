"""
Heads become packets and back, Acks become headers and back: with the vectors, and with
whatever hypothesis comes up with.
"""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

from attrs import evolve
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.protocol.strategies import (
    acks,
    any_headers,
    content_names,
    methods,
    packets,
)
from tests.protocol.vectors import (
    DESTINATION,
    SESSION,
    answer,
    by_name,
    names,
    request,
)
from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    MAX_CONTENT_NAME,
    ContentRange,
    LocalProtocolError,
    format_guid,
)
from txbits.protocol.codec import (
    MAX_VALUE_LENGTH,
    METHOD,
    NotAnAck,
    RemoteProtocolError,
    encode_ack,
    encode_request,
    is_upload_request,
    parse_ack,
    parse_packet,
    parse_request,
    session_id_of,
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
from txbits.protocol.refusals import REFUSALS

WHOLE = ContentRange(0, 4891, 4892)
HELLO = ContentRange(0, 4, 5)

#: What the vectors of requests say.
REQUESTS: dict[str, Packet] = {
    "windows-ping": Ping(),
    "windows-create-session": CreateSession(content_name="name.txt"),
    "windows-fragment": Fragment(SESSION, WHOLE, 4892),
    "windows-fragment-first": Fragment(SESSION, ContentRange(0, 3071, 4892), 3072),
    "windows-fragment-rest": Fragment(SESSION, ContentRange(3072, 4891, 4892), 1820),
    "windows-close-session": CloseSession(SESSION),
    "windows-cancel-session": CancelSession(SESSION),
    "odd-case-fragment": Fragment(SESSION, HELLO, 5),
    "bare-guid-close-session": CloseSession(SESSION),
    "absolute-create-session": CreateSession(),
    "several-protocols-create-session": CreateSession(
        (UUID(int=10), BITS_UPLOAD_PROTOCOL)
    ),
    "empty-file-fragment-0-0": Fragment(SESSION, ContentRange.empty(), 0),
    "empty-file-fragment-star": Fragment(SESSION, ContentRange.empty(), 0),
    "empty-file-fragment-minus-one": Fragment(SESSION, ContentRange.empty(), 0),
    "onedrive-create-session": CreateSession(),
    "onedrive-fragment": Fragment(SESSION, ContentRange(0, 2999, 4892), None),
    "onedrive-close-session": CloseSession(SESSION),
    "zenfolio-create-session": CreateSession(),
    "xenserver-create-session": CreateSession(),
    "xenserver-fragment": Fragment(SESSION, HELLO, 5),
    "xenserver-close-session": CloseSession(SESSION),
}

#: What Python counts as white space, and HTTP does not.
NO_WHITE_SPACE = (b"\x0b", b"\x0c", b"\x1c", b"\x1f", b"\x85", b"\xa0")

#: What the vectors of our own Acks say.
ACKS: dict[str, Ack] = {
    "ping": Ack(200),
    "create-session": Ack(200, SESSION, BITS_UPLOAD_PROTOCOL),
    "create-session-over-post": Ack(201, SESSION, BITS_UPLOAD_PROTOCOL),
    "create-session-with-host-id": Ack(
        200,
        SESSION,
        BITS_UPLOAD_PROTOCOL,
        host_id="node7.example.org",
        host_id_fallback_timeout=86400,
    ),
    "fragment": Ack(200, SESSION, received=4892),
    "fragment-with-reply": Ack(
        200,
        SESSION,
        received=4892,
        reply_url="https://uploads.example.org/BITS-Sessions/Replies/"
        "%7B2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52%7D/responsefile.bin",
    ),
    "close-session": Ack(200, SESSION),
    "close-session-over-post": Ack(200, SESSION, resource_id=str(SESSION).upper()),
    "cancel-session": Ack(200, SESSION),
    "out-of-step": Ack(416, SESSION, received=3072, hresult=0, context=5),
    "session-not-found": Ack(500, SESSION, hresult=0x8020001F, context=5),
    "unknown-packet-type": Ack(400, hresult=0x80070057, context=5),
    "session-limit-reached": Ack(503, hresult=0x800700AA, context=5, retry_after=600),
    "application-error": Ack(404, SESSION, hresult=0x80190194, context=7),
}

#: What the vectors of others' answers say, as far as they are Acks.
FOREIGN: dict[str, Ack] = {
    "iis-create-session": Ack(200, SESSION, BITS_UPLOAD_PROTOCOL),
    "iis-fragment": Ack(200, received=4892),
    "iis-close-session": Ack(200),
    "iis-session-not-found": Ack(500, hresult=0x8020001F, context=5),
    "iis-error-code-only": Ack(403, hresult=0x80070005),
    "specification-spelling": Ack(400, hresult=0x80070057, context=5),
    "onedrive-close-session": Ack(201, resource_id="8EA7!112"),
    "proxy-bad-gateway": Ack(502),
}


def as_read(ack: Ack) -> Ack[str]:
    """An Ack of ours as a client reads it."""
    if ack.session_id is None:
        return evolve(ack)
    return evolve(ack, session_id=format_guid(ack.session_id).decode("ascii"))


class RequestVectorTests(SynchronousTestCase):
    """The requests of real clients."""

    def test_each_is_read(self) -> None:
        for name, packet in REQUESTS.items():
            vector = request(f"requests/{name}")
            self.assertTrue(is_upload_request(vector.method, vector.headers), name)
            self.assertEqual(parse_request(vector.method, vector.headers), packet, name)

    def test_all_of_them_are_looked_at(self) -> None:
        self.assertEqual(
            sorted(f"requests/{name}" for name in REQUESTS), names("requests")
        )

    def test_bodies_are_as_long_as_their_ranges(self) -> None:
        for name, packet in REQUESTS.items():
            length = packet.content_range.length if isinstance(packet, Fragment) else 0
            self.assertEqual(len(request(f"requests/{name}").body), length, name)

    def test_all_are_for_the_same_destination(self) -> None:
        for name in REQUESTS:
            self.assertIn(DESTINATION, request(f"requests/{name}").target, name)

    def test_we_write_them_as_windows_does(self) -> None:
        for name, packet in REQUESTS.items():
            if not name.startswith("windows-"):
                continue
            vector = request(f"requests/{name}")
            self.assertEqual(vector.method, METHOD)
            ours = encode_request(packet, "name.txt" if "fragment" in name else None)
            theirs = [
                field
                for field in vector.fields
                if field[0].startswith((b"BITS-", b"Content-"))
                and field[0] != b"Content-Length"
            ]
            self.assertEqual(ours, theirs, name)


class AckVectorTests(SynchronousTestCase):
    """Our Acks, and the answers of other servers."""

    def test_ours_are_written(self) -> None:
        for name, ack in ACKS.items():
            vector = answer(f"acks/{name}")
            self.assertEqual(ack.status, vector.status, name)
            self.assertEqual(encode_ack(ack), vector.fields, name)

    def test_ours_are_read(self) -> None:
        for name, ack in ACKS.items():
            vector = answer(f"acks/{name}")
            self.assertEqual(
                parse_ack(vector.status, vector.headers), as_read(ack), name
            )

    def test_those_of_others_are_read(self) -> None:
        for name, ack in FOREIGN.items():
            vector = answer(f"foreign/{name}")
            self.assertEqual(
                parse_ack(vector.status, vector.headers), as_read(ack), name
            )

    def test_a_success_that_is_no_ack_is_no_answer_of_a_bits_server(self) -> None:
        vector = answer("foreign/web-server-that-knows-no-bits")
        self.assertRaises(RemoteProtocolError, parse_ack, vector.status, vector.headers)

    def test_all_of_them_are_looked_at(self) -> None:
        self.assertEqual(sorted(f"acks/{name}" for name in ACKS), names("acks"))
        self.assertEqual(
            sorted(
                f"foreign/{name}"
                for name in [*FOREIGN, "web-server-that-knows-no-bits"]
            ),
            names("foreign"),
        )

    def test_every_ack_of_ours_says_that_it_has_no_body(self) -> None:
        for ack in ACKS.values():
            self.assertEqual(
                encode_ack(ack)[:2],
                [(b"BITS-Packet-Type", b"Ack"), (b"Content-Length", b"0")],
            )


class UploadRequestTests(SynchronousTestCase):
    """Which requests are meant for an upload server."""

    def test_bits_post_always_is(self) -> None:
        self.assertTrue(is_upload_request(b"BITS_POST", {}))

    def test_post_is_with_the_override_in_any_case(self) -> None:
        for value in (b"BITS_POST", b"bits_post", b" Bits_Post "):
            self.assertTrue(
                is_upload_request(b"POST", {b"x-http-method-override": [value]})
            )

    def test_post_is_with_a_packet_type(self) -> None:
        self.assertTrue(is_upload_request(b"POST", {b"bits-packet-type": [b"Ping"]}))

    def test_other_blanks_than_space_and_tab_are_part_of_a_value(self) -> None:
        for blank in NO_WHITE_SPACE:
            headers = {b"x-http-method-override": [b"BITS_POST" + blank]}
            self.assertFalse(is_upload_request(b"POST", headers), blank)

    def test_any_other_post_is_not(self) -> None:
        heads: tuple[dict[bytes, list[bytes]], ...] = (
            {},
            {b"x-http-method-override": [b"PUT"]},
            {b"x-http-method-override": []},
        )
        for headers in heads:
            self.assertFalse(is_upload_request(b"POST", headers))

    def test_other_methods_are_not(self) -> None:
        headers = {
            b"bits-packet-type": [b"Ping"],
            b"x-http-method-override": [b"BITS_POST"],
        }
        for method in (b"GET", b"HEAD", b"PUT", b"OPTIONS", b"bits_post", b""):
            self.assertFalse(is_upload_request(method, headers))


class SessionIdTests(SynchronousTestCase):
    """The id that the Ack of a refusal echoes."""

    def test_well_formed(self) -> None:
        for value in (str(SESSION), f"{{{SESSION}}}", f" {{{SESSION}}}\t"):
            self.assertEqual(
                session_id_of({b"bits-session-id": [value.encode()]}), SESSION
            )

    def test_with_other_blanks_than_space_and_tab(self) -> None:
        guid = str(SESSION).encode()
        for blank in NO_WHITE_SPACE:
            for value in (guid + blank, blank + guid):
                self.assertIs(session_id_of({b"bits-session-id": [value]}), None)

    def test_missing_malformed_or_given_twice(self) -> None:
        guid = str(SESSION).encode()
        self.assertIs(session_id_of({}), None)
        for values in ([], [b""], [guid[1:]], [guid, guid]):
            self.assertIs(session_id_of({b"bits-session-id": values}), None)


class ContentNameTests(SynchronousTestCase):
    """The client's name for the file, for people to read."""

    def read(self, value: bytes) -> str | None:
        packet = parse_request(
            METHOD,
            {
                b"bits-packet-type": [b"Create-Session"],
                b"bits-supported-protocols": [str(BITS_UPLOAD_PROTOCOL).encode()],
                b"content-name": [value],
            },
        )
        assert isinstance(packet, CreateSession)
        return packet.content_name

    def test_read_as_utf_8(self) -> None:
        self.assertEqual(self.read("Übersicht 東京.txt".encode()), "Übersicht 東京.txt")

    def test_what_cannot_be_printed_is_replaced(self) -> None:
        self.assertEqual(
            self.read(b"a\x1b[31m\x00\xff.txt"), "a\ufffd[31m\ufffd\ufffd.txt"
        )

    def test_cut_at_260_characters(self) -> None:
        self.assertEqual(self.read("ü".encode() * 300), "ü" * 260)

    def test_what_is_written_breaks_no_header(self) -> None:
        for name in ("a\r\nBITS-Session-Id: x", "a\nb", "caf\udce9", "\x00"):
            headers = dict(encode_request(Fragment(SESSION, HELLO, 5), name))
            value = headers[b"Content-Name"]
            self.assertNotRegex(value, rb"[\x00-\x1f\x7f]")

    @given(st.text(st.characters(), max_size=400))
    def test_any_name_is_written_as_it_would_be_read(self, name: str) -> None:
        headers = by_name(encode_request(CreateSession(content_name=name)))
        packet = parse_request(METHOD, headers)
        assert isinstance(packet, CreateSession)
        read = packet.content_name
        assert read is not None
        self.assertTrue(len(read) <= MAX_CONTENT_NAME)
        self.assertTrue(read.isprintable())

    @given(content_names)
    def test_a_name_of_printable_characters_comes_through(self, name: str) -> None:
        headers = by_name(encode_request(CreateSession(content_name=name)))
        self.assertEqual(
            parse_request(METHOD, headers), CreateSession(content_name=name)
        )


class AckTests(SynchronousTestCase):
    """Writing and reading Acks."""

    def test_both_spellings_of_the_error_are_written_with_the_same_value(self) -> None:
        headers = dict(encode_ack(Ack(500, hresult=0x80004005, context=5)))
        self.assertEqual(headers[b"BITS-Error-Code"], b"0x80004005")
        self.assertEqual(headers[b"BITS-Error"], b"0x80004005")
        self.assertEqual(headers[b"BITS-Error-Context"], b"0x5")

    def test_the_type_is_compared_without_regard_to_case(self) -> None:
        for value in (b"Ack", b"ACK", b"ack", b" aCk "):
            self.assertEqual(parse_ack(200, {b"bits-packet-type": [value]}), Ack(200))

    def test_what_cannot_be_read_is_not_there(self) -> None:
        headers = {
            b"bits-packet-type": [b"Ack"],
            b"bits-protocol": [b"1.5"],
            b"bits-error-code": [b"E_FAIL"],
            b"bits-error-context": [b""],
            b"retry-after": [b"Thu, 05 Mar 2020 08:15:00 GMT"],
            b"bits-host-id-fallback-timeout": [b"-1"],
        }
        self.assertEqual(parse_ack(200, headers), Ack(200))

    def test_an_offset_that_cannot_be_read_is_an_error(self) -> None:
        for status in (200, 416):
            for value in (b"", b"0-4891", b"-1", b"1" * 20, b"12\x0b", b"1\xb2"):
                headers = {
                    b"bits-packet-type": [b"Ack"],
                    b"bits-received-content-range": [value],
                }
                self.assertRaises(RemoteProtocolError, parse_ack, status, headers)

    def test_an_offset_that_cannot_be_read_is_quoted_and_not_too_much_of_it(
        self,
    ) -> None:
        for value, shown in (
            (b"bytes 0-4\x1b[2J", r"'bytes 0-4\x1b[2J'"),
            (b"", "empty"),
            (b"x" * 1000, f"'{'x' * 200}'..."),
        ):
            headers = {
                b"bits-packet-type": [b"Ack"],
                b"bits-received-content-range": [value],
            }
            error = self.assertRaises(RemoteProtocolError, parse_ack, 200, headers)
            self.assertEqual(
                str(error),
                f"the server's BITS-Received-Content-Range is not a number: {shown}",
            )

    def test_a_session_is_named_as_the_server_does(self) -> None:
        for value in (
            b"abc-123",
            b"{7df0354d-249b-430f-820d-3d2a9bef4931}",
            b"7df0354d-249b-430f-820d-3d2a9bef4931",
            b"a b/c==;\t\xe9\xff",
            b"x" * 100,
        ):
            headers = {
                b"bits-packet-type": [b"Ack"],
                b"bits-session-id": [b" %b\t" % value],
            }
            session_id = parse_ack(200, headers).session_id
            assert session_id is not None
            written = dict(encode_request(CloseSession(session_id)))
            self.assertEqual(written[b"BITS-Session-Id"], value)

    def test_only_space_and_tab_are_white_space(self) -> None:
        headers = {
            b"bits-packet-type": [b" Ack\t"],
            b"bits-session-id": [b"\x85a\x0b"],
            b"retry-after": [b"7\x0c"],
        }
        self.assertEqual(parse_ack(200, headers), Ack(200, "\x85a\x0b"))
        headers[b"bits-packet-type"] = [b"Ack\x0b"]
        self.assertRaises(NotAnAck, parse_ack, 200, headers)

    def test_a_redirection_tells_where_to(self) -> None:
        headers = {b"location": [b" http://login.example/\x1b[2J"]}
        error = self.assertRaises(NotAnAck, parse_ack, 302, headers)
        self.assertEqual(error.status, 302)
        self.assertEqual(error.location, r"'http://login.example/\x1b[2J'")
        self.assertIn(error.location, str(error))
        error = self.assertRaises(NotAnAck, parse_ack, 304, {})
        self.assertIsNone(error.location)

    def test_what_a_server_application_answers_may_be_a_redirection(self) -> None:
        headers = {b"bits-packet-type": [b"Ack"], b"location": [b"/"]}
        self.assertEqual(parse_ack(302, headers), Ack(302))

    def test_a_failure_need_not_be_an_ack(self) -> None:
        self.assertEqual(parse_ack(407, {}), Ack(407))

    def test_values_that_would_break_a_header_are_not_written(self) -> None:
        for value in ("a\r\nSet-Cookie: b", "a\nb", "a b", "münchen.example", "\x7f"):
            self.assertRaises(LocalProtocolError, encode_ack, Ack(200, host_id=value))
            self.assertRaises(LocalProtocolError, encode_ack, Ack(200, reply_url=value))

    @given(acks)
    def test_what_is_written_is_read(self, ack: Ack) -> None:
        found = parse_ack(ack.status, by_name(encode_ack(ack)))
        self.assertEqual(found, as_read(ack))

    @given(st.integers(100, 599), any_headers)
    def test_whatever_the_headers_nothing_else_is_raised(
        self, status: int, headers: dict[bytes, list[bytes]]
    ) -> None:
        try:
            ack = parse_ack(status, headers)
        except RemoteProtocolError as error:
            self.assertIn(error.refusal, REFUSALS)
        else:
            self.assertEqual(ack.status, status)


class RequestTests(SynchronousTestCase):
    """Writing and reading requests."""

    @given(packets)
    def test_what_is_written_is_read(self, packet: Packet) -> None:
        headers = by_name(encode_request(packet))
        if not isinstance(packet, Fragment):
            headers[b"content-length"] = [b"0"]
        elif packet.content_length is None:
            headers[b"transfer-encoding"] = [b"chunked"]
        else:
            headers[b"content-length"] = [b"%d" % packet.content_length]
        self.assertEqual(parse_request(METHOD, headers), packet)

    @given(packets, st.sampled_from([str.upper, str.lower, str.swapcase]))
    def test_the_type_is_compared_without_regard_to_case(
        self, packet: Packet, change: object
    ) -> None:
        assert callable(change)
        headers = by_name(encode_request(packet))
        headers[b"bits-packet-type"] = [change(packet.packet_type).encode()]
        headers[b"transfer-encoding"] = [b"chunked"]
        if not isinstance(packet, Fragment):
            del headers[b"transfer-encoding"]
        self.assertIs(type(parse_request(METHOD, headers)), type(packet))

    def test_only_space_and_tab_are_white_space(self) -> None:
        """Python's ``strip()`` takes more away."""
        good: dict[bytes, list[bytes]] = {
            b"bits-packet-type": [b"Fragment"],
            b"bits-session-id": [str(SESSION).encode()],
            b"content-range": [b"bytes 0-4/5"],
            b"content-length": [b"5"],
            b"content-encoding": [b"identity"],
        }
        for name, (value,) in good.items():
            around = {**good, name: [b" \t" + value + b"\t "]}
            self.assertEqual(parse_request(METHOD, around), Fragment(SESSION, HELLO, 5))
            for blank in NO_WHITE_SPACE:
                for other in (value + blank, blank + value):
                    self.assertRaises(
                        RemoteProtocolError,
                        parse_request,
                        METHOD,
                        {**good, name: [other]},
                    )

    def test_headers_that_are_not_known_are_ignored(self) -> None:
        headers = {
            b"bits-packet-type": [b"Ping"],
            b"x-forwarded-for": [b"192.0.2.1"],
            b"bits-future": [b"yes"],
        }
        self.assertEqual(parse_request(METHOD, headers), Ping())

    def test_credentials_and_cookies_may_be_long(self) -> None:
        headers = {
            b"bits-packet-type": [b"Ping"],
            b"authorization": [b"Negotiate " + b"Y" * 12000],
            b"cookie": [b"c" * 8000],
        }
        self.assertEqual(parse_request(METHOD, headers), Ping())

    def test_without_a_length_the_body_is_empty(self) -> None:
        for kind, packet in (
            (b"Ping", Ping()),
            (b"Close-Session", CloseSession(SESSION)),
            (b"Cancel-Session", CancelSession(SESSION)),
        ):
            headers = {
                b"bits-packet-type": [kind],
                b"bits-session-id": [str(SESSION).encode()],
            }
            self.assertEqual(parse_request(METHOD, headers), packet)

    def test_identity_is_no_encoding_and_no_transfer_coding(self) -> None:
        headers = {
            b"bits-packet-type": [b"Close-Session"],
            b"bits-session-id": [str(SESSION).encode()],
            b"content-encoding": [b"Identity"],
            b"transfer-encoding": [b"identity"],
        }
        self.assertEqual(parse_request(METHOD, headers), CloseSession(SESSION))

    @given(methods, any_headers)
    def test_whatever_the_head_nothing_else_is_raised(
        self, method: bytes, headers: dict[bytes, list[bytes]]
    ) -> None:
        try:
            packet = parse_request(method, headers)
        except RemoteProtocolError as error:
            self.assertIn(error.refusal, REFUSALS)
            self.assertEqual(error.session_id, session_id_of(headers))
        else:
            self.assertIsInstance(packet, Packet)
            self.assertTrue(is_upload_request(method, headers))

    @given(methods, any_headers)
    def test_an_upload_request_is_read_by_its_headers_alone(
        self, method: bytes, headers: dict[bytes, list[bytes]]
    ) -> None:
        def read(function: Callable[..., Packet], *arguments: object) -> object:
            try:
                return function(*arguments)
            except RemoteProtocolError as error:
                return str(error), error.refusal, error.session_id

        assume(is_upload_request(method, headers))
        self.assertEqual(
            read(parse_request, method, headers), read(parse_packet, headers)
        )

    @given(any_headers)
    def test_a_head_that_is_known_to_be_short_is_read_the_same(
        self, headers: dict[bytes, list[bytes]]
    ) -> None:
        def read(is_short: bool) -> object:
            try:
                return parse_packet(headers, is_short=is_short)
            except RemoteProtocolError as error:
                return str(error), error.refusal, error.session_id

        lengths = [len(value) for values in headers.values() for value in values]
        assume(max(lengths, default=0) <= MAX_VALUE_LENGTH)
        self.assertEqual(read(True), read(False))
