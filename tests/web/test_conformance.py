"""
What MC-BUP demands and no other test shows; the whole list, with the tests of each
demand, is in ``docs/reference/conformance.md``.
"""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.web.support import (
    DESTINATION,
    PROTOCOL,
    UNKNOWN_ID,
    WebCase,
    fragment,
    packet,
    request,
)
from txbits.protocol.codec import encode_ack
from txbits.protocol.packets import Ack
from txbits.protocol.refusals import REFUSALS
from txbits.sessions import Settings


class AckTests(SynchronousTestCase):
    """All Acks (MC-BUP 2.2.1)."""

    def test_every_refusal_is_an_ack_without_a_body(self) -> None:
        for row in REFUSALS:
            status, hresult = row.answer(404)
            headers = encode_ack(Ack(status, hresult=hresult, context=row.context))
            self.assertIn((b"BITS-Packet-Type", b"Ack"), headers, row.name)
            self.assertIn((b"Content-Length", b"0"), headers, row.name)


class CreateSessionTests(WebCase):
    """The Ack of Create-Session (MC-BUP 2.2.3.2)."""

    def test_only_a_success_names_the_protocol(self) -> None:
        self.memory.files["taken",] = b""
        for data in (
            packet(b"Create-Session", target=b"/taken"),
            packet(b"Create-Session", target=b"/"),
            packet(b"Create-Session", bits_supported_protocols=UNKNOWN_ID),
            packet(b"Create-Session", body=b"x"),
            packet(b"Ping"),
        ):
            ack = self.ask(data)
            self.assertIsNone(ack["BITS-Protocol"], data)
            self.assertIsNone(ack["Accept-Encoding"], data)
        ack = self.ask(packet(b"Create-Session"))
        self.assertEqual(ack["BITS-Protocol"], PROTOCOL.decode())


class FragmentTests(WebCase):
    """A Fragment's headers (MC-BUP 2.2.6.1)."""

    def test_the_name_in_a_fragment_is_of_no_consequence(self) -> None:
        session_id = self.create(content_name=b"one.txt")
        for first, name in enumerate((None, b"one.txt", b"another.txt", b"../x", b"")):
            data = fragment(session_id, first, b"x", 5, content_name=name)
            self.assert_success(self.ask(data), session_id)
        self.ask(packet(b"Close-Session", session_id))
        self.assertEqual(self.memory.files, {DESTINATION: b"xxxxx"})


class DownloadTests(WebCase):
    """Downloads (MC-BUP 2.3, 3.5)."""

    settings = Settings(allow_downloads=True, allow_overwrites=True)

    def upload(self, content: bytes) -> None:
        """An hour later somebody uploads a file."""
        self.clock.advance(3600)
        session_id = self.create_holding(content, len(content))
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)

    def test_unknown_headers_are_ignored(self) -> None:
        self.upload(b"hello")
        unknown: dict[str, Any] = {"bits_unheard_of": b"x", "x_y_z": [b"1", b"2"]}
        for known in ({}, {"range": b"bytes=1-2"}):
            plain = self.ask(request(b"GET", **known))
            self.assertEqual(self.ask(request(b"GET", **known, **unknown)), plain)

    def test_an_upload_that_replaces_a_file_changes_what_is_served(self) -> None:
        found = []
        for content in (b"hello", b"other", b"a third one"):
            self.upload(content)
            answer = self.ask(request(b"GET"))
            self.assertEqual(answer.body, content)
            self.assertEqual(answer["Content-Length"], str(len(content)))
            # To the second, as dates of HTTP are.
            self.assertEqual(answer["Last-Modified"], answer["Date"])
            found.append((answer["Last-Modified"], answer["ETag"]))
        for column in zip(*found, strict=True):
            self.assertEqual(len(set(column)), 3)

    def test_every_success_tells_its_length_and_the_time_of_the_change(self) -> None:
        self.upload(b"hello world")
        changed = self.ask(packet(b"Ping"))["Date"]
        self.clock.advance(3600)
        for ranges, status in (
            (None, 200),
            (b"bytes=2-4", 206),
            (b"bytes=-1", 206),
            (b"bytes=5-6,0-1", 206),
        ):
            answer = self.ask(request(b"GET", range=ranges))
            self.assertEqual(answer.status, status)
            self.assertEqual(answer["Content-Length"], str(len(answer.body)))
            self.assertEqual(answer["Last-Modified"], changed)
