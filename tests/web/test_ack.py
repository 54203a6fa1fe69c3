"""
What each Ack says on the wire, what a refusal says in the log, and the rule that no
byte of a Cancel's or Close's Ack leaves before the release has finished.
"""

from __future__ import annotations

from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from twisted.logger import LogLevel, globalLogPublisher, textFileLogObserver
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.web.support import (
    DESTINATION,
    PATH,
    PROTOCOL,
    UNKNOWN_ID,
    WebCase,
    fragment,
    packet,
    request,
)
from txbits import errors
from txbits.errors import BackendError
from txbits.protocol import refusals
from txbits.sessions import Settings
from txbits.testing.memory import Peer
from txbits.web import NotMounted
from txbits.web._ack import refusal_of


class SuccessTests(WebCase):
    """The Acks of success."""

    def test_ack_of_ping_has_nothing_of_a_session(self) -> None:
        ack = self.ask(packet(b"Ping"))
        self.assert_success(ack, None)
        ack = self.ask(packet(b"Ping", UNKNOWN_ID))
        self.assert_success(ack, None)

    def test_ack_of_create_session_has_a_new_id_and_the_protocol(self) -> None:
        first, second = (
            self.ask(packet(b"Create-Session", target=target))
            for target in (b"/1", b"/2")
        )
        self.assert_success(first, (first["BITS-Session-Id"] or "").encode())
        self.assertRegex(
            first["BITS-Session-Id"] or "",
            r"\A\{[0-9A-F]{8}(-[0-9A-F]{4}){3}-[0-9A-F]{12}\}\Z",
        )
        self.assertNotEqual(first["BITS-Session-Id"], second["BITS-Session-Id"])
        self.assertEqual(first["BITS-Protocol"], PROTOCOL.decode())
        self.assertEqual(first["Accept-Encoding"], "identity")
        self.assertIsNone(first["BITS-Host-Id"])
        self.assertIsNone(first["BITS-Host-Id-Fallback-Timeout"])

    def test_ack_of_create_session_over_post_is_201(self) -> None:
        for headers in ({}, {"x_http_method_override": b"bits_post"}):
            ack = self.ask(packet(b"Create-Session", method=b"POST", **headers))
            self.assert_ack(ack)
            self.assertEqual(ack.status, 201)
            self.assertIsNone(ack["BITS-Error-Code"])
            self.assertIsNotNone(ack["BITS-Session-Id"])

    def test_acks_of_other_packets_over_post_are_200(self) -> None:
        session_id = self.create()
        for data in (
            packet(b"Ping", method=b"POST"),
            fragment(session_id, 0, b"hello", 5, method=b"POST"),
            packet(b"Close-Session", session_id, method=b"POST"),
        ):
            self.assertEqual(self.ask(data).status, 200)

    def test_ack_of_fragment_says_where_to_go_on(self) -> None:
        session_id = self.create()
        for first, body, wanted in (
            (0, b"hello", "5"),
            (3, b"lo wor", "9"),
            (0, b"hel", "9"),
            (9, b"ld", "11"),
            (0, b"hello world", "11"),
        ):
            ack = self.ask(fragment(session_id, first, body, 11))
            self.assert_success(ack, session_id)
            self.assertEqual(ack["BITS-Received-Content-Range"], wanted)
            self.assertIsNone(ack["BITS-Reply-URL"])

    def test_an_empty_fragment_is_acknowledged(self) -> None:
        for value in (b"bytes */0", b"bytes 0-0/0", b"bytes 0--1/0"):
            session_id = self.create()
            for _ in range(2):
                ack = self.ask(fragment(session_id, 0, b"", 0, content_range=value))
                self.assert_success(ack, session_id)
                self.assertEqual(ack["BITS-Received-Content-Range"], "0")
            self.ask(packet(b"Close-Session", session_id))
            self.assertEqual(self.memory.files.pop(DESTINATION), b"")

    def test_ack_of_close_session(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        for _ in range(3):
            ack = self.ask(packet(b"Close-Session", session_id))
            self.assert_success(ack, session_id)
            self.assertIsNone(ack["BITS-Received-Content-Range"])
            self.assertIsNone(ack["X-Resource-Id"])
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_ack_of_cancel_session(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        ack = self.ask(packet(b"Cancel-Session", session_id))
        self.assert_success(ack, session_id)
        self.assertEqual(self.memory._sessions, {})
        self.assertEqual(self.memory.files, {})

    def test_session_ids_are_read_in_any_case_with_or_without_braces(self) -> None:
        session_id = self.create()
        for value in (
            session_id.lower(),
            session_id[1:-1],
            session_id[1:-1].lower(),
        ):
            ack = self.ask(fragment(value, 0, b"hello", 5))
            self.assert_success(ack, session_id)

    def test_names_and_types_are_compared_without_regard_to_case(self) -> None:
        for kind in (b"pInG", b"PING", b" Ping "):
            self.assert_success(self.ask(packet(kind)), None)
        data = packet(b"Ping").replace(b"Bits-Packet-Type", b"bITS-pACKET-tYPE")
        self.assertIn(b"bITS-pACKET-tYPE", data)
        self.assert_success(self.ask(data), None)

    def test_unknown_headers_are_ignored(self) -> None:
        ack = self.ask(packet(b"Ping", bits_unheard_of=b"x", x_y_z=[b"1", b"2"]))
        self.assert_success(ack, None)

    def test_header_names_are_written_as_the_specification_spells_them(self) -> None:
        session_id = self.create()
        peer = self.peer()
        peer.send(fragment(session_id, 5, b"world", 10))
        written = peer.received()
        for name in (
            b"BITS-Packet-Type",
            b"BITS-Session-Id",
            b"BITS-Received-Content-Range",
            b"BITS-Error-Code",
            b"BITS-Error",
            b"BITS-Error-Context",
            b"Content-Length",
        ):
            self.assertIn(b"\r\n" + name + b": ", written)

    def test_acks_are_dated(self) -> None:
        """RFC 9110 6.6.1: "an origin server with a clock MUST generate"."""
        for seconds in (0, 0.4, 0.6, 1, 3600):
            self.clock.advance(seconds)
            ack = self.ask(packet(b"Ping"))
            when = datetime.strptime(
                ack["Date"] or "", "%a, %d %b %Y %H:%M:%S GMT"
            ).replace(tzinfo=UTC)
            self.assertEqual(when.timestamp(), int(self.clock.seconds()))

    def test_ack_over_a_plain_site_is_the_same(self) -> None:
        self.site = Site(self.resource, reactor=self.clock)
        session_id = self.create()
        ack = self.ask(fragment(session_id, 0, b"hello", 5))
        self.assert_success(ack, session_id)
        self.assertEqual(ack["BITS-Received-Content-Range"], "5")
        ack = self.ask(fragment(session_id, 0, b"hello", 6))
        self.assert_refused(ack, "total-changed", session_id)
        for method in (b"GET", b"HEAD", b"PUT"):
            ack = self.ask(request(method))
            self.assert_refused(ack, "method-not-allowed")
            self.assertEqual(ack["Allow"], "BITS_POST")


class RefusalTests(WebCase):
    """Which refusal answers which error, and what the log says."""

    def test_every_error_has_its_row(self) -> None:
        """Each class in ``txbits.errors`` that may reach the web."""
        for error, expected in (
            (errors.NoSuchSession(), refusals.SESSION_NOT_FOUND),
            (errors.DestinationForbidden(), refusals.DESTINATION_FORBIDDEN),
            (errors.DestinationExists(), refusals.DESTINATION_EXISTS),
            (errors.DestinationIsDirectory(), refusals.DESTINATION_IS_DIRECTORY),
            (errors.ParentMissing(), refusals.PARENT_MISSING),
            (errors.OutOfSpace(), refusals.OUT_OF_SPACE),
            (errors.StagedDataLost(), refusals.STAGED_DATA_LOST),
            (errors.BackendError(), refusals.STORAGE_FAULT),
            (errors.AccessDenied(), refusals.ACCESS_DENIED),
            (errors.UploadsDisabled(), refusals.UPLOADS_DISABLED),
            (errors.UploadTooLarge(), refusals.UPLOAD_TOO_LARGE),
            (errors.FragmentTooLarge(), refusals.FRAGMENT_TOO_LARGE),
            (errors.SessionLimitReached("", 1), refusals.SESSION_LIMIT_REACHED),
            (errors.ServerStopping("", 1), refusals.SERVER_STOPPING),
            (errors.WorkerUnavailable("", 1), refusals.WORKER_UNAVAILABLE),
            (errors.OutOfStep("", 1), refusals.OUT_OF_STEP),
            (errors.TotalLengthChanged(), refusals.TOTAL_CHANGED),
            (errors.BodyMismatch(), refusals.BAD_RANGE),
            (ZeroDivisionError(), refusals.INTERNAL_ERROR),
        ):
            self.assertIs(refusal_of(error), expected)

    def test_a_session_id_is_echoed_by_every_refusal(self) -> None:
        """Also by that of a packet that has no use for one."""
        self.memory.files[DESTINATION] = b""
        ack = self.ask(packet(b"Create-Session", UNKNOWN_ID))
        self.assert_refused(ack, "destination-exists", UNKNOWN_ID)

    def test_an_id_that_is_none_is_not_echoed(self) -> None:
        for value in (b"nonsense", [UNKNOWN_ID, UNKNOWN_ID]):
            ack = self.ask(packet(b"Nonsense", value))
            self.assert_refused(ack, "unknown-packet-type")

    def test_the_log_says_why_in_the_words_of_the_table(self) -> None:
        events = self.log()
        self.ask(packet(b"Close-Session", UNKNOWN_ID))
        (event,) = [one for one in events if "refusal" in one]
        self.assertEqual(event["refusal"], "session-not-found")
        self.assertEqual(event["cause"], refusals.SESSION_NOT_FOUND.cause)
        self.assertEqual(event["session"], UNKNOWN_ID[1:-1].decode())
        self.assertEqual(event["client"], "192.0.2.1")
        self.assertEqual(event["log_level"], LogLevel.info)
        text = self.text_of(event)
        self.assertIn(
            b"refused Close-Session from 192.0.2.1 for /a/b.txt with 500 0x8020001F: ",
            text,
        )
        self.assertIn(refusals.SESSION_NOT_FOUND.cause.encode(), text)

    def test_the_log_names_the_directory_and_the_user(self) -> None:
        """As the client sees them: what it was answered with is there, too."""
        root = Resource()
        resource: Any = self.resource
        root.putChild(b"logs", resource.for_user("alice"))
        self.site = self.bits_site(root)
        self.memory.files["a", "b.txt"] = b""
        events = self.log()
        peer = self.peer()
        peer.send(packet(b"Create-Session", target=b"/logs/a/b.txt"))
        ack = self.answer(peer)
        (event,) = [one for one in events if "refusal" in one]
        self.assertEqual(
            (event["directory"], event["destination"], event["user"]),
            ("/logs", "a/b.txt", "alice"),
        )
        self.assertEqual(event["hresult"].lower(), ack["BITS-Error-Code"].lower())
        self.assertEqual(event["hresult"], "0x80070005")
        self.assertIn(
            b"refused Create-Session from alice at 192.0.2.1 for /logs/a/b.txt with "
            b"403 0x80070005: ",
            self.text_of(event),
        )

    def test_the_log_has_methods_and_urls_as_they_were_sent(self) -> None:
        """Not as Python writes bytes."""
        root = NotMounted()
        root.putChild(b"logs", self.resource)
        self.site = self.bits_site(root)
        events = self.log()
        for method, target in ((b"GET", b"/logs/a"), (b"BITS_POST", b"/nodir/a%20b")):
            peer = self.peer()
            peer.send(request(method, target))
            self.answer(peer)
        found = [one for one in events if "refusal" in one]
        self.assertEqual(
            [one["detail"] for one in found],
            ["the method is GET", "the URL is /nodir/a%20b"],
        )
        for event in found:
            self.assertNotIn(b"b'", self.text_of(event))

    def test_unforeseen_errors_are_logged_with_their_traceback(self) -> None:
        self.backend.hold("create").fail(ZeroDivisionError("the secret is 42"))
        events = self.log()
        self.ask(packet(b"Create-Session"))
        (event,) = [one for one in events if "refusal" in one]
        self.assertEqual(event["refusal"], "internal-error")
        self.assertIn("the secret is 42", event["log_failure"].getTraceback())
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_whatever_the_name_the_log_can_be_written(self) -> None:
        """Names come from clients, and log files are UTF-8."""
        events = self.log()
        for target in (b"/%FF%FE", b"/%ED%A0%80", b"/%00", b"/%F0%9F%92%A9"):
            self.ask(packet(b"Create-Session", target=target))
            self.ask(packet(b"Nonsense", target=target))
            self.ask(fragment(UNKNOWN_ID, 0, b"x", 1, target=target))
        self.assertEqual(len([one for one in events if "refusal" in one]), 11)
        for event in events:
            self.assertTrue(self.text_of(event))

    def test_no_name_can_forge_a_line_of_the_log(self) -> None:
        events = self.log()
        self.ask(packet(b"Create-Session", target=b"/a%0D%0A2026-01-01%1B[2J"))
        (event,) = [one for one in events if "refusal" in one]
        text = self.text_of(event)
        self.assertEqual(text.count(b"\n"), 1)
        self.assertNotIn(b"\r", text)
        self.assertNotIn(b"\x1b", text)

    def log(self) -> list[dict]:
        """Collect what is logged from now on."""
        events: list[dict] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        return events

    def text_of(self, event: dict) -> bytes:
        """What a log file would hold."""
        raw = BytesIO()

        class File:
            encoding = "utf-8"

            def write(self, text: str) -> None:
                raw.write(text.encode("utf-8"))

            def flush(self) -> None:
                """All is written."""

        textFileLogObserver(File())(event)  # type: ignore[arg-type]
        return raw.getvalue()


class ReleaseBeforeAckTests(WebCase):
    """
    MC-BUP 2.2.11: "The server sends the acknowledgment after releasing all resources
    associated with the upload session".
    """

    def assert_nothing_left(self) -> None:
        """The backend knows of no session."""
        self.assertEqual(self.memory._sessions, {})

    def test_ack_of_cancel_waits_for_release(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        peer = self.peer()
        peer.send(packet(b"Cancel-Session", session_id))
        self.assertEqual(gate.waiting, 1)
        self.clock.advance(3600)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()

    def test_ack_of_close_waits_for_release(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        gate = self.backend.hold("release")
        peer = self.peer()
        peer.send(packet(b"Close-Session", session_id))
        self.assertEqual(gate.waiting, 1)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()

    def test_ack_of_a_close_that_discards_waits_for_release(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        peer = self.peer()
        peer.send(packet(b"Close-Session", session_id))
        self.assertEqual(gate.waiting, 1)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()
        self.assertEqual(self.memory.files, {})

    def test_ack_of_close_waits_for_publishing(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        gates = [self.backend.hold(one) for one in ("publish", "release")]
        peer = self.peer()
        peer.send(packet(b"Close-Session", session_id))
        for gate in gates:
            self.assertEqual(gate.waiting, 1)
            self.assert_silent(peer)
            gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_two_racing_cancels_share_one_release(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        first, second = self.peer(), self.peer()
        first.send(packet(b"Cancel-Session", session_id))
        second.send(packet(b"Cancel-Session", session_id))
        self.assertEqual(gate.waiting, 1)
        self.assert_silent(first)
        self.assert_silent(second)
        gate.open()
        self.assert_success(self.answer(first), session_id)
        self.assert_success(self.answer(second), session_id)
        self.assert_nothing_left()

    def test_two_racing_cancels_share_a_failure(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        peers = [self.peer(), self.peer()]
        for peer in peers:
            peer.send(packet(b"Cancel-Session", session_id))
        gate.fail(BackendError("the store is away"))
        for peer in peers:
            self.assert_refused(self.answer(peer), "storage-fault", session_id)
        self.assertEqual(self.flushLoggedErrors(), [])
        gate.open()
        ack = self.ask(packet(b"Cancel-Session", session_id))
        self.assert_success(ack, session_id)

    def test_a_release_that_fails_is_finished_by_the_next_cancel(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        gate.fail(BackendError("the store is away"))
        for _ in range(2):
            ack = self.ask(packet(b"Cancel-Session", session_id))
            self.assert_refused(ack, "storage-fault", session_id)
            self.assertEqual(self.flushLoggedErrors(), [])
        # It is as good as gone for everyone else.
        for data in (
            fragment(session_id, 5, b"world", 10),
            packet(b"Close-Session", session_id),
        ):
            self.assert_refused(self.ask(data), "session-not-found", session_id)
        gate.open()
        ack = self.ask(packet(b"Cancel-Session", session_id))
        self.assert_success(ack, session_id)
        self.assert_nothing_left()
        ack = self.ask(packet(b"Cancel-Session", session_id))
        self.assert_refused(ack, "session-not-found", session_id)

    def test_a_release_that_fails_is_finished_by_the_next_close(self) -> None:
        for total in (5, 10):
            session_id = self.create_holding(b"hello", total)
            gate = self.backend.hold("release")
            gate.fail(BackendError("the store is away"))
            ack = self.ask(packet(b"Close-Session", session_id))
            self.assert_refused(ack, "storage-fault", session_id)
            self.assertEqual(self.flushLoggedErrors(), [])
            gate.open()
            ack = self.ask(packet(b"Close-Session", session_id))
            self.assert_success(ack, session_id)
            self.assert_nothing_left()
            self.memory.files.clear()

    def test_cancel_ends_a_stalled_fragment_first(self) -> None:
        session_id = self.create()
        stalled = self.stall(session_id)
        gate = self.backend.hold("release")
        peer = self.peer()
        peer.send(packet(b"Cancel-Session", session_id))
        self.assertTrue(stalled.aborted)
        self.assertEqual(stalled.received(), b"")
        self.assertEqual(gate.waiting, 1)
        self.assert_silent(peer)
        gate.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()

    def test_cancel_waits_for_the_writer_of_a_stalled_fragment(self) -> None:
        session_id = self.create()
        held_write, held_close = self.backend.hold("write"), self.backend.hold("close")
        release = self.backend.hold("release")
        stalled = self.stall(session_id)
        peer = self.peer()
        peer.send(packet(b"Cancel-Session", session_id))
        self.assertTrue(stalled.aborted)
        for held in (held_write, held_close, release):
            self.assertEqual(held.waiting, 1)
            self.assert_silent(peer)
            held.open()
        self.assert_success(self.answer(peer), session_id)
        self.assert_nothing_left()

    def test_cancel_waits_for_a_close_under_way(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        gate = self.backend.hold("publish")
        closing, cancelling = self.peer(), self.peer()
        closing.send(packet(b"Close-Session", session_id))
        cancelling.send(packet(b"Cancel-Session", session_id))
        self.assert_silent(closing)
        self.assert_silent(cancelling)
        gate.open()
        self.assert_success(self.answer(closing), session_id)
        ack = self.answer(cancelling)
        self.assert_refused(ack, "session-not-found", session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})
        self.assert_nothing_left()

    def test_cancel_is_carried_out_though_its_connection_is_lost(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        peer = self.peer()
        peer.send(packet(b"Cancel-Session", session_id))
        peer.lose()
        gate.open()
        self.assertEqual(peer.received(), b"")
        self.assert_nothing_left()

    def test_a_fragment_after_a_cancel_under_way_is_for_an_unknown_session(
        self,
    ) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        cancelling, sending = self.peer(), self.peer()
        cancelling.send(packet(b"Cancel-Session", session_id))
        sending.send(fragment(session_id, 5, b"world", 10))
        ack = self.answer(sending)
        self.assert_refused(ack, "session-not-found", session_id)
        gate.open()
        self.assert_success(self.answer(cancelling), session_id)

    def test_a_release_that_failed_is_finished_by_the_clean_up(self) -> None:
        settings = Settings(cleanup_interval=100)
        self.serve(settings)
        session_id = self.create_holding(b"hello", 10)
        gate = self.backend.hold("release")
        gate.fail(BackendError("the store is away"))
        self.ask(packet(b"Cancel-Session", session_id))
        self.assertEqual(self.flushLoggedErrors(), [])
        gate.open()
        self.clock.advance(settings.session_timeout + 200)
        self.assert_nothing_left()

    def stall(self, session_id: bytes) -> Peer:
        """Send half a fragment."""
        peer = self.peer()
        peer.send(fragment(session_id, 0, b"hello", 5, target=PATH)[:-2])
        self.assert_silent(peer)
        return peer
