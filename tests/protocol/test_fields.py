"""
Header values, one at a time.
"""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.protocol.strategies import content_ranges, hresults, offsets
from txbits.protocol._fields import (
    BITS_UPLOAD_PROTOCOL,
    MAX_OFFSET,
    MAX_PROTOCOLS,
    ContentRange,
    LocalProtocolError,
    ProtocolError,
    check_host_id,
    format_guid,
    format_hresult,
    format_protocols,
    parse_content_range,
    parse_guid,
    parse_hresult,
    parse_offset,
    parse_protocols,
)

GUID = UUID("2c4f5a1e-93b7-4d08-a6c1-7e0f9d3b8a52")


class GUIDTests(SynchronousTestCase):
    """GUIDs: any case, with or without braces."""

    def test_written_as_windows_does(self) -> None:
        self.assertEqual(format_guid(GUID), b"{2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}")

    def test_read_in_any_case_with_and_without_braces(self) -> None:
        for value in (
            b"{2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}",
            b"{2c4f5a1e-93b7-4d08-a6c1-7e0f9d3b8a52}",
            b"{2c4F5a1E-93b7-4d08-A6C1-7e0F9d3B8a52}",
            b"2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52",
        ):
            self.assertEqual(parse_guid(value), GUID)

    def test_refused_when_malformed(self) -> None:
        for value in (
            b"",
            b"{}",
            b"{2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52",
            b"2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}",
            b"{2C4F5A1E93B74D08A6C17E0F9D3B8A52}",
            b"{2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A5G}",
            b"{2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}\n",
            b"urn:uuid:2C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52",
            "{２C4F5A1E-93B7-4D08-A6C1-7E0F9D3B8A52}".encode(),  # noqa: RUF001
        ):
            self.assertRaises(LocalProtocolError, parse_guid, value)

    @given(st.uuids(), st.booleans(), st.booleans())
    def test_what_is_written_is_read(self, guid: UUID, lower: bool, bare: bool) -> None:
        value = format_guid(guid)
        if lower:
            value = value.lower()
        if bare:
            value = value[1:-1]
        self.assertEqual(parse_guid(value), guid)


class ProtocolListTests(SynchronousTestCase):
    """BITS-Supported-Protocols."""

    def test_one_as_windows_sends_it(self) -> None:
        self.assertEqual(
            parse_protocols(b"{7df0354d-249b-430f-820d-3d2a9bef4931}"),
            (BITS_UPLOAD_PROTOCOL,),
        )

    def test_separated_by_spaces_or_commas_in_the_order_of_preference(self) -> None:
        for between in (b" ", b",", b", ", b" , ", b"\t", b",,"):
            value = between.join([format_guid(GUID), format_guid(BITS_UPLOAD_PROTOCOL)])
            self.assertEqual(parse_protocols(value), (GUID, BITS_UPLOAD_PROTOCOL))

    def test_what_is_no_guid_is_passed_over(self) -> None:
        self.assertEqual(
            parse_protocols(b"1.5 {7df0354d-249b-430f-820d-3d2a9bef4931} {} x"),
            (BITS_UPLOAD_PROTOCOL,),
        )

    def test_other_blanks_do_not_separate(self) -> None:
        for blank in (b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0"):
            value = blank.join([format_guid(GUID), format_guid(BITS_UPLOAD_PROTOCOL)])
            self.assertEqual(parse_protocols(value), ())

    def test_none_at_all(self) -> None:
        for value in (b"", b" ", b",", b"nonsense"):
            self.assertEqual(parse_protocols(value), ())

    def test_at_most_100_are_looked_at(self) -> None:
        self.assertEqual(MAX_PROTOCOLS, 100)
        ours = format_guid(BITS_UPLOAD_PROTOCOL)
        self.assertEqual(
            parse_protocols(b" ".join([b"x"] * 99 + [ours])), (BITS_UPLOAD_PROTOCOL,)
        )
        self.assertEqual(parse_protocols(b" ".join([b"x"] * 100 + [ours])), ())

    def test_delimiters_are_not_looked_at_as_protocols(self) -> None:
        value = b" , " + b",".join([b"x"] * 99 + [format_guid(GUID)]) + b" ,"
        self.assertEqual(parse_protocols(value), (GUID,))

    @given(st.lists(st.uuids(), max_size=MAX_PROTOCOLS))
    def test_what_is_written_is_read(self, guids: list[UUID]) -> None:
        self.assertEqual(parse_protocols(format_protocols(tuple(guids))), tuple(guids))


class OffsetTests(SynchronousTestCase):
    """Offsets and lengths."""

    def test_digits(self) -> None:
        self.assertEqual(parse_offset(b"0"), 0)
        self.assertEqual(parse_offset(b"4892"), 4892)
        self.assertEqual(parse_offset(b"0042"), 42)

    def test_up_to_the_largest_of_windows(self) -> None:
        self.assertEqual(parse_offset(b"9223372036854775807"), MAX_OFFSET)
        self.assertRaises(LocalProtocolError, parse_offset, b"9223372036854775808")

    def test_refused_when_malformed(self) -> None:
        for value in (
            b"",
            b"-1",
            b"+1",
            b" 1",
            b"1 ",
            b"0x1",
            b"1e3",
            b"1_0",
            b"1" * 20,
        ):
            self.assertRaises(LocalProtocolError, parse_offset, value)

    def test_digits_of_other_scripts_are_none(self) -> None:
        self.assertRaises(LocalProtocolError, parse_offset, "٣".encode())

    @given(offsets)
    def test_what_is_written_is_read(self, offset: int) -> None:
        self.assertEqual(parse_offset(b"%d" % offset), offset)


class ContentRangeTests(SynchronousTestCase):
    """Content-Range: bytes S-E/T."""

    def test_as_windows_sends_it(self) -> None:
        content_range = parse_content_range(b"bytes 0-4891/4892")
        self.assertEqual(content_range, ContentRange(0, 4891, 4892))
        self.assertEqual(content_range.length, 4892)

    def test_the_unit_in_any_case(self) -> None:
        for unit in (b"bytes", b"BYTES", b"Bytes", b"bYTEs"):
            self.assertEqual(
                parse_content_range(unit + b" 128-212/300"), ContentRange(128, 212, 300)
            )

    def test_up_to_the_largest_of_windows(self) -> None:
        last, total = MAX_OFFSET - 1, MAX_OFFSET
        self.assertEqual(
            parse_content_range(b"bytes %d-%d/%d" % (last, last, total)),
            ContentRange(last, last, total),
        )

    def test_one_byte(self) -> None:
        self.assertEqual(parse_content_range(b"bytes 0-0/1").length, 1)

    def test_the_three_ways_to_write_an_empty_file(self) -> None:
        for value in (b"bytes 0-0/0", b"bytes */0", b"bytes 0--1/0", b"BYTES */0"):
            content_range = parse_content_range(value)
            self.assertEqual(content_range, ContentRange.empty())
            self.assertEqual(content_range.length, 0)
            self.assertEqual(content_range.total, 0)

    def test_refused_when_malformed(self) -> None:
        for value in (
            b"",
            b"bytes",
            b"0-4/5",
            b"bytes=0-4/5",
            b"bytes0-4/5",
            b"items 0-4/5",
            b"bytes 0-4",
            b"bytes 0-4/*",
            b"bytes */5",
            b"bytes -4/5",
            b"bytes 0-/5",
            b"bytes +0-4/5",
            b"bytes 0x0-4/5",
            b"bytes 0-4/5, 5-9/10",
            b"bytes 0-4/5\n",
            b"bytes 0--1/5",
            b"bytes 0-4/" + b"9" * 20,
        ):
            self.assertRaises(LocalProtocolError, parse_content_range, value)

    def test_refused_when_it_makes_no_sense(self) -> None:
        for value in (
            b"bytes 5-4/9",
            b"bytes 0-5/5",
            b"bytes 5-5/5",
            b"bytes 0-1/0",
            b"bytes 1-1/0",
            b"bytes 0-0/00",
            b"bytes 0-4/9223372036854775808",
        ):
            self.assertRaises(LocalProtocolError, parse_content_range, value)

    def test_one_that_makes_no_sense_cannot_be_made(self) -> None:
        for first, last, total in (
            (-1, 3, 5),
            (4, 3, 5),
            (0, 5, 5),
            (0, -1, 5),
            (1, 0, 0),
            (0, 0, 0),
            (0, 0, MAX_OFFSET + 1),
        ):
            self.assertRaises(LocalProtocolError, ContentRange, first, last, total)

    @given(content_ranges())
    def test_what_is_written_is_read(self, content_range: ContentRange) -> None:
        self.assertEqual(parse_content_range(content_range.to_bytes()), content_range)

    @given(st.integers(), st.integers(), st.integers())
    def test_whatever_can_be_made_makes_sense(
        self, first: int, last: int, total: int
    ) -> None:
        try:
            content_range = ContentRange(first, last, total)
        except LocalProtocolError:
            return
        self.assertTrue(0 <= content_range.length <= content_range.total <= MAX_OFFSET)
        self.assertEqual(content_range.length == 0, content_range.total == 0)


class HResultTests(SynchronousTestCase):
    """HRESULTs."""

    def test_written_with_eight_digits(self) -> None:
        self.assertEqual(format_hresult(0x80070057), b"0x80070057")
        self.assertEqual(format_hresult(0x800700AA), b"0x800700AA")
        self.assertEqual(format_hresult(0), b"0x00000000")

    def test_read_as_servers_write_them(self) -> None:
        for value, hresult in (
            (b"0x8020001f", 0x8020001F),
            (b"0X8020001F", 0x8020001F),
            (b"0x5", 5),
            (b"0x00000007", 7),
        ):
            self.assertEqual(parse_hresult(value), hresult)

    def test_refused_when_malformed(self) -> None:
        for value in (b"", b"0x", b"80070057", b"x80070112", b"0x180070057", b"0xG"):
            self.assertRaises(LocalProtocolError, parse_hresult, value)

    @given(hresults)
    def test_what_is_written_is_read(self, hresult: int) -> None:
        value = format_hresult(hresult)
        self.assertEqual(len(value), 10)
        self.assertEqual(parse_hresult(value), hresult)


class NoiseTests(SynchronousTestCase):
    """Whatever the bytes are, a reader answers or says LocalProtocolError."""

    noise = st.binary(max_size=80) | st.text(
        "0123456789bytesBYTES -/*{}xA", max_size=50
    ).map(str.encode)

    @given(noise)
    def test_no_reader_fails_in_another_way(self, value: bytes) -> None:
        for read in (parse_guid, parse_offset, parse_content_range, parse_hresult):
            try:
                read(value)
            except ProtocolError as error:
                self.assertIs(type(error), LocalProtocolError)

    @given(noise)
    def test_a_list_of_protocols_is_never_refused(self, value: bytes) -> None:
        self.assertTrue(len(parse_protocols(value)) <= MAX_PROTOCOLS)


class HostIdTests(SynchronousTestCase):
    """BITS-Host-Id (MC-BUP 2.2.3.2): a name or an address, and perhaps a port."""

    def test_host_names_and_addresses_with_and_without_a_port(self) -> None:
        for host in (
            "uploads",
            "FRANKCAO8",
            "node-1.uploads.example.org",
            "3com.example",
            "xn--mnchen-3ya.example",
            "a" * 63 + ".example",
            "192.0.2.7",
            "[2001:db8::7]",
            "[::ffff:192.0.2.7]",
        ):
            self.assertEqual(check_host_id(host), host)
            self.assertEqual(check_host_id(f"{host}:8080"), f"{host}:8080")

    def test_ipv6_address_needs_brackets_only_before_a_port(self) -> None:
        self.assertEqual(check_host_id("2001:db8::7"), "2001:db8::7")
        self.assertEqual(check_host_id("::"), "::")

    def test_anything_else_is_refused(self) -> None:
        for text in (
            "",
            ":8080",
            "http://uploads",
            "uploads/",
            "user@uploads",
            "up loads",
            "up_loads",
            "-uploads",
            "uploads-",
            "uploads.",
            ".uploads",
            "up..loads",
            "a" * 64,
            ".".join(["a" * 50] * 5) + ".example",
            "1.2.3",
            "1.2.3.256",
            "1.2.3.04",
            "uploads:",
            "uploads:0",
            "uploads:65536",
            "uploads:http",
            "uploads:80:80",
            "2001:db8::7::",
            "2001:db8::g",
            "[2001:db8::7",
            "[uploads]",
            "[192.0.2.7]",
            "[fe80::1%eth0]",
            "fe80::1%eth0",
            "uploads\n",
            "uploads\r\nX: y",
        ):
            with self.assertRaises(LocalProtocolError, msg=text) as caught:
                check_host_id(text)
            self.assertIn("must be a host name", str(caught.exception))

    def test_international_name_is_refused_with_what_to_write(self) -> None:
        for text in ("münchen.example", "\uff15.example", "192.0.2.\u0667"):
            with self.assertRaises(LocalProtocolError) as caught:
                check_host_id(text)
            self.assertIn("xn--", str(caught.exception))
