"""
The failure table: its rows, and the packets that a head alone condemns.

A test is named in the words of the row that it is about.
"""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.protocol.vectors import SESSION, names, request
from txbits.protocol import refusals
from txbits.protocol._fields import format_hresult
from txbits.protocol.codec import RemoteProtocolError, parse_request
from txbits.protocol.packets import Fragment
from txbits.protocol.refusals import REFUSALS, HResult, Refusal

#: Every row as the wire has it.
ROWS: dict[str, tuple[int, bytes]] = {
    "method-not-allowed": (405, b"0x80070057"),
    "not-mounted": (404, b"0x80070003"),
    "uploads-disabled": (501, b"0x80070005"),
    "unknown-packet-type": (400, b"0x80070057"),
    "header-too-long": (400, b"0x80070057"),
    "malformed-header": (400, b"0x80070057"),
    "bad-session-id": (400, b"0x80070057"),
    "unexpected-body": (400, b"0x80070057"),
    "unsupported-encoding": (400, b"0x80070057"),
    "bad-range": (400, b"0x80070057"),
    "total-changed": (400, b"0x80070057"),
    "no-common-protocol": (400, b"0x80070057"),
    "destination-is-directory": (400, b"0x80070057"),
    "length-required": (411, b"0x80070057"),
    "credentials-rejected": (401, b"0x80070005"),
    "credentials-uncheckable": (503, b"0x800700AA"),
    "access-denied": (403, b"0x80070005"),
    "destination-forbidden": (403, b"0x80070005"),
    "destination-exists": (403, b"0x80070005"),
    "parent-missing": (404, b"0x80070003"),
    "session-not-found": (500, b"0x8020001F"),
    "out-of-step": (416, b"0x00000000"),
    "upload-too-large": (500, b"0x80200020"),
    "fragment-too-large": (413, b"0x80200020"),
    "session-limit-reached": (503, b"0x800700AA"),
    "quota-reached": (503, b"0x800700AA"),
    "out-of-space": (500, b"0x80070070"),
    "staged-data-lost": (404, b"0x80070002"),
    "storage-fault": (500, b"0x80004005"),
    "server-stopping": (503, b"0x800700AA"),
    "worker-unavailable": (503, b"0x800700AA"),
    "internal-error": (500, b"0x80004005"),
    "application-refused": (0, b"0x80190000"),
    "application-unreachable": (502, b"0x80072EFD"),
    "application-timed-out": (408, b"0x80070112"),
    "application-answer-unusable": (400, b"0x80070057"),
}


class TableTests(SynchronousTestCase):
    """The table itself."""

    def test_every_row_has_its_status_and_hresult(self) -> None:
        rows = {row.name: (row.status, format_hresult(row.hresult)) for row in REFUSALS}
        self.assertEqual(rows, ROWS)

    def test_names_are_unique(self) -> None:
        self.assertEqual(len({row.name for row in REFUSALS}), len(REFUSALS))

    def test_a_row_is_named_like_its_constant(self) -> None:
        for row in REFUSALS:
            constant = row.name.upper().replace("-", "_")
            self.assertIs(getattr(refusals, constant), row)

    def test_causes_are_unique(self) -> None:
        # They are what an operator finds the log line by.
        self.assertEqual(len({row.cause for row in REFUSALS}), len(REFUSALS))

    def test_cause_and_remedy_are_one_line_each(self) -> None:
        for row in REFUSALS:
            for text in (row.cause, row.remedy):
                self.assertTrue(text, row.name)
                self.assertEqual(text, text.strip(), row.name)
                self.assertEqual(text.splitlines(), [text], row.name)
                # They stand in the cells of a table.
                self.assertNotIn("|", text, row.name)

    def test_the_server_finds_every_error_but_the_application_s(self) -> None:
        for row in REFUSALS:
            is_its = row.name.startswith("application-")
            self.assertEqual(row.context, 0x7 if is_its else 0x5, row.name)

    def test_an_application_s_status_is_handed_on_in_both_places(self) -> None:
        for status in (302, 400, 403, 404, 429, 500, 503, 599):
            self.assertEqual(
                refusals.APPLICATION_REFUSED.answer(status),
                (status, 0x80190000 + status),
            )
        self.assertEqual(refusals.APPLICATION_REFUSED.answer(404)[1], 0x80190194)

    def test_statuses_that_mean_something_else_here_are_not_handed_on(self) -> None:
        for status in (413, 416):
            self.assertEqual(
                refusals.APPLICATION_REFUSED.answer(status), (500, 0x80190000 + status)
            )

    def test_a_status_that_is_no_error_is_500(self) -> None:
        for status in (-1, 0, 100, 200, 299, 600, 1000):
            self.assertEqual(
                refusals.APPLICATION_REFUSED.answer(status), (500, 0x801901F4)
            )

    def test_every_other_row_answers_what_it_says(self) -> None:
        for row in REFUSALS:
            if row is not refusals.APPLICATION_REFUSED:
                self.assertEqual(row.answer(404), (row.status, row.hresult), row.name)

    def test_only_one_row_makes_a_client_upload_everything_again(self) -> None:
        self.assertEqual(
            [row for row in REFUSALS if row.hresult is HResult.BG_E_SESSION_NOT_FOUND],
            [refusals.SESSION_NOT_FOUND],
        )

    def test_none_has_a_status_that_means_smaller_fragments_but_one(self) -> None:
        self.assertEqual(
            [row for row in REFUSALS if row.status == 413],
            [refusals.FRAGMENT_TOO_LARGE],
        )

    def test_what_may_pass_is_answered_with_what_a_client_tries_again(self) -> None:
        # Of the 5xx only 501 and 505 are final.
        for row in (
            refusals.OUT_OF_SPACE,
            refusals.STORAGE_FAULT,
            refusals.INTERNAL_ERROR,
            refusals.SERVER_STOPPING,
            refusals.SESSION_LIMIT_REACHED,
        ):
            self.assertIn(row.status, (500, 503), row.name)


_ID = {b"bits-session-id": [str(SESSION).encode()]}


class RowTests(SynchronousTestCase):
    """Each row that the head of a request alone decides."""

    def refused(
        self,
        row: Refusal,
        packet_type: bytes | None,
        *heads: dict[bytes, list[bytes]],
        method: bytes = b"BITS_POST",
    ) -> None:
        headers = {} if packet_type is None else {b"bits-packet-type": [packet_type]}
        for head in heads:
            headers.update(head)
        error = self.assertRaises(RemoteProtocolError, parse_request, method, headers)
        self.assertIs(error.refusal, row)
        self.assertEqual(str(error).splitlines(), [str(error)])

    def fragment(self, row: Refusal, *heads: dict[bytes, list[bytes]]) -> None:
        self.refused(row, b"Fragment", _ID, *heads)

    def test_method_not_allowed(self) -> None:
        for method in (b"PUT", b"GET", b"POST", b"bits_post"):
            self.refused(refusals.METHOD_NOT_ALLOWED, None, method=method)

    def test_packet_type_missing(self) -> None:
        self.refused(refusals.UNKNOWN_PACKET_TYPE, None)
        self.refused(refusals.UNKNOWN_PACKET_TYPE, b"")

    def test_packet_type_missing_from_a_post_with_the_override(self) -> None:
        override = {b"x-http-method-override": [b"BITS_POST"]}
        self.refused(refusals.UNKNOWN_PACKET_TYPE, None, override, method=b"POST")

    def test_packet_type_unknown(self) -> None:
        for value in (b"Ack", b"Create", b"Create Session", b"Pings", b"p" * 5000):
            self.refused(refusals.UNKNOWN_PACKET_TYPE, value)

    def test_packet_type_given_twice(self) -> None:
        twice = {b"bits-packet-type": [b"Ping", b"Ping"]}
        self.refused(refusals.UNKNOWN_PACKET_TYPE, None, twice)

    def test_header_malformed_content_length(self) -> None:
        for values in ([b"x"], [b""], [b"-1"], [b"1" * 20], [b"0", b"0"]):
            self.refused(
                refusals.MALFORMED_HEADER, b"Ping", {b"content-length": values}
            )

    def test_header_malformed_content_name(self) -> None:
        self.refused(
            refusals.MALFORMED_HEADER,
            b"Create-Session",
            {
                b"bits-supported-protocols": [
                    b"{7df0354d-249b-430f-820d-3d2a9bef4931}"
                ],
                b"content-name": [b"a", b"b"],
            },
        )

    def test_header_over_4_kib(self) -> None:
        for name in (b"content-name", b"bits-supported-protocols", b"bits-future"):
            self.refused(
                refusals.HEADER_TOO_LONG, b"Create-Session", {name: [b"", b"x" * 4097]}
            )

    def test_header_of_4_kib_is_not_over_it(self) -> None:
        headers = {b"bits-packet-type": [b"Ping"], b"content-name": [b"x" * 4096]}
        parse_request(b"BITS_POST", headers)

    def test_session_id_missing(self) -> None:
        for kind in (b"Fragment", b"Close-Session", b"Cancel-Session"):
            self.refused(refusals.BAD_SESSION_ID, kind)
            self.refused(refusals.BAD_SESSION_ID, kind, {b"bits-session-id": [b""]})

    def test_session_id_malformed(self) -> None:
        guid = str(SESSION).encode()
        for kind in (b"Fragment", b"Close-Session", b"Cancel-Session"):
            for values in ([b"{}"], [guid[:-1]], [b"{" + guid], [guid, guid], [b"42"]):
                self.refused(
                    refusals.BAD_SESSION_ID, kind, {b"bits-session-id": values}
                )

    def test_a_body_where_none_may_be(self) -> None:
        for kind in (b"Ping", b"Create-Session", b"Close-Session", b"Cancel-Session"):
            for head in (
                {b"content-length": [b"1"]},
                {b"transfer-encoding": [b"chunked"]},
            ):
                self.refused(refusals.UNEXPECTED_BODY, kind, _ID, head)

    def test_unsupported_content_encoding(self) -> None:
        for kind in (b"Ping", b"Create-Session", b"Fragment", b"Close-Session"):
            for values in ([b"gzip"], [b"identity", b"br"], [b"identity, gzip"]):
                self.refused(
                    refusals.UNSUPPORTED_ENCODING,
                    kind,
                    _ID,
                    {b"content-encoding": values, b"content-length": [b"0"]},
                )

    def test_range_missing(self) -> None:
        self.fragment(refusals.BAD_RANGE, {b"content-length": [b"5"]})

    def test_range_malformed(self) -> None:
        for values in (
            [b""],
            [b"0-4/5"],
            [b"bytes 4-0/5"],
            [b"bytes 0-5/5"],
            [b"bytes 0-4/*"],
            [b"bytes 0-4/5", b"bytes 0-4/5"],
        ):
            self.fragment(
                refusals.BAD_RANGE,
                {b"content-length": [b"5"], b"content-range": values},
            )

    def test_range_not_as_long_as_the_body(self) -> None:
        for length in (b"0", b"4", b"6"):
            self.fragment(
                refusals.BAD_RANGE,
                {b"content-length": [length], b"content-range": [b"bytes 0-4/5"]},
            )

    def test_range_of_an_empty_file_not_as_long_as_the_body(self) -> None:
        self.fragment(
            refusals.BAD_RANGE,
            {b"content-length": [b"1"], b"content-range": [b"bytes 0-0/0"]},
        )

    def test_no_protocol_in_common(self) -> None:
        heads: tuple[dict[bytes, list[bytes]], ...] = (
            {},
            {b"bits-supported-protocols": []},
            {b"bits-supported-protocols": [b""]},
            {b"bits-supported-protocols": [b"1.5"]},
            {b"bits-supported-protocols": [b"{%b}" % str(SESSION).encode()]},
        )
        for head in heads:
            self.refused(refusals.NO_COMMON_PROTOCOL, b"Create-Session", head)

    def test_a_fragment_without_content_length_and_not_chunked(self) -> None:
        for head in ({}, {b"transfer-encoding": [b"identity"]}):
            self.fragment(
                refusals.LENGTH_REQUIRED, head, {b"content-range": [b"bytes 0-4/5"]}
            )

    def test_a_chunked_fragment_is_not_without_a_length(self) -> None:
        head = {
            b"bits-packet-type": [b"Fragment"],
            b"transfer-encoding": [b"Chunked"],
            b"content-range": [b"bytes 0-4/5"],
            **_ID,
        }
        packet = parse_request(b"BITS_POST", head)
        assert isinstance(packet, Fragment)
        self.assertIs(packet.content_length, None)

    def test_a_refusal_knows_the_session_that_was_named(self) -> None:
        headers = {b"bits-packet-type": [b"Nonsense"], **_ID}
        error = self.assertRaises(
            RemoteProtocolError, parse_request, b"BITS_POST", headers
        )
        self.assertEqual(error.session_id, SESSION)


class VectorTests(SynchronousTestCase):
    """The vectors of refused packets, named after the row that answers them."""

    def test_each_is_refused_by_the_row_that_it_is_named_after(self) -> None:
        for name in names("refused"):
            vector = request(name)
            error = self.assertRaises(
                RemoteProtocolError, parse_request, vector.method, vector.headers
            )
            self.assertEqual(f"refused/{error.refusal.name}", name)

    def test_there_is_one_for_each_row_that_a_head_decides(self) -> None:
        in_codec = {
            "method-not-allowed",
            "unknown-packet-type",
            "header-too-long",
            "malformed-header",
            "bad-session-id",
            "unexpected-body",
            "unsupported-encoding",
            "bad-range",
            "no-common-protocol",
            "length-required",
        }
        self.assertEqual(
            {f"refused/{name}" for name in in_codec}, set(names("refused"))
        )


Fault = Callable[[dict[bytes, list[bytes]]], object]

#: What can be wrong with a Fragment, by the stage at which it is noticed.
FAULTS: list[tuple[int, tuple[Refusal, ...], Fault]] = [
    (1, (refusals.UNKNOWN_PACKET_TYPE,), lambda h: h.pop(b"bits-packet-type")),
    (
        2,
        (refusals.HEADER_TOO_LONG,),
        lambda h: h.update({b"content-name": [b"n" * 5000]}),
    ),
    (3, (refusals.BAD_SESSION_ID,), lambda h: h.update({b"bits-session-id": [b"?"]})),
    (
        3,
        (refusals.UNSUPPORTED_ENCODING,),
        lambda h: h.update({b"content-encoding": [b"br"]}),
    ),
    (3, (refusals.MALFORMED_HEADER,), lambda h: h.update({b"content-length": [b"?"]})),
    (3, (refusals.BAD_RANGE,), lambda h: h.update({b"content-range": [b"?"]})),
]


class OrderTests(SynchronousTestCase):
    """The first check that fails answers: method, packet type, then the headers."""

    @given(st.booleans(), st.sets(st.integers(0, len(FAULTS) - 1), min_size=1))
    def test_of_several_faults_the_earliest_is_answered(
        self, wrong_method: bool, chosen: set[int]
    ) -> None:
        headers = {
            b"bits-packet-type": [b"Fragment"],
            b"content-length": [b"5"],
            b"content-range": [b"bytes 0-4/5"],
            **_ID,
        }
        parse_request(b"BITS_POST", headers)
        faults = [FAULTS[index] for index in sorted(chosen)]
        for _, _, spoil in faults:
            spoil(headers)
        method = b"PUT" if wrong_method else b"BITS_POST"
        error = self.assertRaises(RemoteProtocolError, parse_request, method, headers)
        first = min(stage for stage, _, _ in faults)
        allowed = [row for stage, rows, _ in faults if stage == first for row in rows]
        self.assertIn(
            error.refusal, [refusals.METHOD_NOT_ALLOWED] if wrong_method else allowed
        )
