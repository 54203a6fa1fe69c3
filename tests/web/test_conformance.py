"""
What MC-BUP demands and no other test shows; the whole list, with the tests of each
demand, is in ``docs/reference/conformance.md``.
"""

from __future__ import annotations

from tests.web.support import (
    DESTINATION,
    PROTOCOL,
    UNKNOWN_ID,
    WebCase,
    fragment,
    packet,
)


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
