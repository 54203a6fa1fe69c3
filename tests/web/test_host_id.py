"""
Host ids on the wire (MC-BUP 2.2.3.2, 3.2.5.2.4): which Acks have them, and that a
session goes on wherever its client sends the rest.
"""

from __future__ import annotations

from tests.web.support import DESTINATION, WebCase, fragment, packet
from txbits.sessions import Settings

NAMES = ("BITS-Host-Id", "BITS-Host-Id-Fallback-Timeout")


class HostIdTests(WebCase):
    """A directory that sends its clients elsewhere."""

    settings = Settings(host_id="node-1.example:8080", host_id_fallback_timeout=110)

    def test_ack_of_create_session_has_it(self) -> None:
        for method, status in ((b"BITS_POST", 200), (b"POST", 201)):
            ack = self.ask(packet(b"Create-Session", method=method))
            self.assertEqual(ack.status, status)
            self.assertEqual(ack.headers["bits-host-id"], ["node-1.example:8080"])
            self.assertEqual(ack.headers["bits-host-id-fallback-timeout"], ["110"])

    def test_no_other_ack_has_it(self) -> None:
        session_id = self.create()
        for data in (
            packet(b"Ping"),
            fragment(session_id, 0, b"hel", 5),
            fragment(session_id, 4, b"o", 5),
            packet(b"Cancel-Session", session_id),
            packet(b"Close-Session", session_id),
            packet(b"Create-Session", target=b"/"),
        ):
            ack = self.ask(data)
            for name in NAMES:
                self.assertIsNone(ack[name], data)

    def test_the_fallback_timeout_goes_with_every_host_id(self) -> None:
        self.serve(Settings(host_id="2001:db8::7"))
        ack = self.ask(packet(b"Create-Session"))
        self.assertEqual(ack["BITS-Host-Id"], "2001:db8::7")
        self.assertEqual(ack["BITS-Host-Id-Fallback-Timeout"], "86400")

    def test_without_a_host_id_there_is_no_fallback_timeout(self) -> None:
        self.serve(Settings(host_id_fallback_timeout=110))
        ack = self.ask(packet(b"Create-Session"))
        for name in NAMES:
            self.assertIsNone(ack[name])

    def test_a_session_goes_on_under_the_name_of_another_host(self) -> None:
        session_id = self.create()
        for host, data in (
            (b"node-1.example:8080", {"first": 0, "body": b"hel"}),
            (b"upload.example", {"first": 3, "body": b"lo"}),
        ):
            ack = self.ask(packet(b"Ping", host=host))
            self.assert_success(ack, None)
            ack = self.ask(fragment(session_id, total=5, host=host, **data))
            self.assert_success(ack, session_id)
        self.ask(packet(b"Close-Session", session_id, host=b"node-1.example:8080"))
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})
