"""
The audit trail: each decision is one event of the log, with the same fields, and tells
who, what, where, how many bytes, and how it ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import LogEvent, capturedLogs, formatEvent

from tests.web.support import (
    PATH,
    UNKNOWN_ID,
    Authenticator,
    DenyingPolicy,
    Policy,
    WebCase,
    fragment,
    packet,
    request,
)
from tests.web.test_gate import ALICE, ByName, told
from txbits.errors import (
    CredentialsIncomplete,
    CredentialsRejected,
    CredentialsUncheckable,
)
from txbits.interfaces import Credentials, Identity
from txbits.sessions import Settings

CLIENT = "192.0.2.1"

#: What every event of the trail has.
FIELDS = {
    "outcome",
    "directory",
    "destination",
    "session",
    "user",
    "scheme",
    "client",
    "bytes",
}


class AuditCase(WebCase):
    """Collects the events of the trail."""

    def trail(self, act: Callable[[], Any]) -> list[LogEvent]:
        """What is logged meanwhile."""
        with capturedLogs() as events:
            act()
        found = [event for event in events if "outcome" in event]
        for event in found:
            self.assertEqual(FIELDS - set(event), set(), formatEvent(event))
            if event["outcome"] in ("refused", "served"):
                self.assertIn("status", event)
                self.assertIn("hresult", event)
        return found

    def only(self, act: Callable[[], Any], **expected: Any) -> LogEvent:
        """The only event of an act, which has these fields."""
        (event,) = self.trail(act)
        self.assertEqual({name: event[name] for name in expected}, expected)
        return event

    def created(self, target: bytes = PATH) -> bytes:
        """A session of alice's."""
        ack = self.ask(told(packet(b"Create-Session", target=target), "alice"))
        self.assertEqual(ack.status, 200)
        return str(ack["BITS-Session-Id"]).encode()


class UploadTests(AuditCase):
    """An upload that goes well."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(Settings(create_directories=True), authenticators=[ByName()])
        self.who = {
            "user": "alice",
            "scheme": "told",
            "client": CLIENT,
            "destination": "a/b.txt",
            "directory": "",
        }

    def test_a_session_begins_and_ends_with_a_line_and_fragments_have_none(
        self,
    ) -> None:
        event = self.only(self.created, outcome="created", bytes=0, **self.who)
        session = event["session"].encode()
        for first in (0, 5):
            data = fragment(session, first, b"12345", 10)
            self.assertEqual(self.trail(lambda: self.ask(told(data, "alice"))), [])  # noqa: B023
        self.only(
            lambda: self.ask(told(packet(b"Close-Session", session), "alice")),
            outcome="published",
            session=session.decode().strip("{}"),
            bytes=10,
            **self.who,
        )

    def test_a_cancelled_session(self) -> None:
        session = self.created()
        self.only(
            lambda: self.ask(told(packet(b"Cancel-Session", session), "alice")),
            outcome="cancelled",
            session=session.decode().strip("{}"),
            **self.who,
        )

    def test_a_session_without_a_file(self) -> None:
        session = self.created()
        data = fragment(session, 0, b"12345", 10)
        self.ask(told(data, "alice"))
        self.only(
            lambda: self.ask(told(packet(b"Close-Session", session), "alice")),
            outcome="discarded",
            bytes=5,
            **self.who,
        )

    def test_a_session_whose_time_is_out(self) -> None:
        session = self.created()
        self.only(
            lambda: self.clock.advance(15 * 86400),
            outcome="released",
            session=session.decode().strip("{}"),
            user="alice",
            scheme=None,
            client=None,
        )


class PacketTests(AuditCase):
    """``log_packets``: a line for each packet, beside those of the trail."""

    def answered(self, act: Callable[[], Any]) -> list[LogEvent]:
        """The lines about packets that are logged meanwhile."""
        with capturedLogs() as events:
            act()
        return [e for e in events if formatEvent(e).startswith("answered")]

    def serve_logging(self) -> None:
        self.serve(Settings(create_directories=True), authenticators=[ByName()])
        self.resource.log_packets = True

    def test_each_packet_that_succeeds_has_a_line(self) -> None:
        self.serve_logging()
        who = {"user": "alice", "scheme": "told", "client": CLIENT, "directory": ""}

        def act() -> None:
            session = self.created()
            self.ask(told(packet(b"Ping"), "alice"))
            self.ask(told(fragment(session, 0, b"12345", 5), "alice"))
            self.ask(told(packet(b"Close-Session", session), "alice"))

        events = self.answered(act)
        self.assertEqual(
            [event["packet"] for event in events],
            ["Create-Session", "Ping", "Fragment", "Close-Session"],
        )
        for event in events:
            self.assertEqual({name: event[name] for name in who}, who)
            self.assertEqual(event["status"], 200)
            self.assertNotIn("outcome", event)
        self.assertIsNone(events[1]["session"])
        self.assertEqual(events[2]["range"], "0-4/5")
        self.assertEqual(events[2]["session"], events[0]["session"])
        self.assertEqual(
            formatEvent(events[2]),
            f"answered Fragment from alice (told) at {CLIENT} for /a/b.txt with 200 "
            "after 0.000 s: bytes 0-4/5",
        )

    def test_a_refused_packet_has_the_line_of_the_trail_only(self) -> None:
        self.serve_logging()
        unknown = told(packet(b"Close-Session", UNKNOWN_ID), "alice")
        self.assertEqual(self.answered(lambda: self.ask(unknown)), [])

    def test_it_does_not_tell_ids_that_are_secrets(self) -> None:
        self.serve(
            Settings(create_directories=True),
            authenticators=[ByName()],
            session_credentials="create",
        )
        self.resource.log_packets = True
        (event,) = self.answered(self.created)
        self.assertRegex(event["session"], r"^[0-9A-F]{8}\.\.\.$")

    def test_it_can_be_switched_off_and_on_again(self) -> None:
        self.serve_logging()
        for is_on in (False, True):
            self.resource.reconfigure(
                Settings(create_directories=True), log_packets=is_on
            )
            self.assertEqual(len(self.answered(self.created)), int(is_on))


class RefusalTests(AuditCase):
    """What is refused."""

    def test_a_known_user_without_permission(self) -> None:
        self.serve(authenticators=[ByName()], policy=DenyingPolicy())
        event = self.only(
            lambda: self.ask(told(packet(b"Create-Session"), "alice")),
            outcome="refused",
            packet="Create-Session",
            user="alice",
            scheme="told",
            client=CLIENT,
            destination="a/b.txt",
            session=None,
            bytes=0,
            status=403,
            hresult="0x80070005",
        )
        self.assertIn("from alice (told) at 192.0.2.1 for", formatEvent(event))

    def test_a_fragment_of_a_user_who_may_not_any_more(self) -> None:
        policy = Policy()
        self.serve(authenticators=[ByName()], policy=policy)
        session = self.created()
        policy.answer = DenyingPolicy().answer
        data = fragment(session, 0, b"12345", 10)
        self.only(
            lambda: self.ask(told(data, "alice")),
            outcome="refused",
            packet="Fragment",
            session=session.decode().strip("{}"),
            user="alice",
            bytes=0,
            status=403,
        )

    def test_wrong_credentials_name_their_scheme_and_no_user(self) -> None:
        for error, status in (
            (CredentialsRejected("the name 'eve' or its password is wrong"), 401),
            (CredentialsUncheckable("too many wait", 5), 503),
        ):
            self.serve(authenticators=[Authenticator(error)])
            self.only(
                lambda: self.ask(packet(b"Ping")),
                outcome="refused",
                user=None,
                scheme="told",
                status=status,
            )

    def test_no_credentials_have_no_scheme(self) -> None:
        self.serve(authenticators=[ByName()])
        self.only(
            lambda: self.ask(packet(b"Ping")),
            outcome="refused",
            user=None,
            scheme=None,
            status=401,
        )

    def test_the_next_step_of_a_login_is_for_debugging_only(self) -> None:
        step = CredentialsIncomplete("one of two", b"Told abc")
        self.serve(authenticators=[Authenticator(step)])
        (event,) = self.trail(lambda: self.ask(packet(b"Ping")))
        self.assertEqual(event["log_level"].name, "debug")

    def test_a_download_without_permission(self) -> None:
        self.serve(
            Settings(allow_downloads=True),
            authenticators=[ByName()],
            policy=DenyingPolicy(),
        )
        self.only(
            lambda: self.ask(told(request(b"GET"), "alice")),
            outcome="refused",
            method="GET",
            user="alice",
            scheme="told",
            destination="a/b.txt",
            session=None,
            status=403,
            hresult=None,
        )


class DownloadTests(AuditCase):
    """What is read."""

    def setUp(self) -> None:
        super().setUp()
        self.serve(
            Settings(allow_downloads=True, create_directories=True),
            authenticators=[ByName()],
        )
        session = self.created()
        data = fragment(session, 0, b"0123456789", 10)
        self.ask(told(data, "alice"))
        self.ask(told(packet(b"Close-Session", session), "alice"))

    def test_each_answer_has_a_line(self) -> None:
        for method, headers, status, sent in (
            (b"GET", {}, 200, 10),
            (b"HEAD", {}, 200, 0),
            (b"GET", {"range": b"bytes=2-4"}, 206, 3),
            (b"GET", {"range": b"bytes=20-"}, 416, 0),
            (b"GET", {"if_match": b'"other"'}, 412, 0),
        ):
            asked = told(request(method, **headers), "bob")
            event = self.only(
                lambda: self.peer().send(asked),  # noqa: B023
                outcome="served",
                method=method.decode(),
                user="bob",
                scheme="told",
                client=CLIENT,
                destination="a/b.txt",
                session=None,
                bytes=sent,
                status=status,
                hresult=None,
            )
            self.assertEqual(
                formatEvent(event),
                f"served {method.decode()} of a/b.txt in / to bob (told) at {CLIENT} "
                f"with {status}, {sent} bytes",
            )

    def test_a_reply_of_another_user_names_its_session(self) -> None:
        session = self.created(b"/c.txt").decode()
        path = f"/BITS-Sessions/Replies/{session}/responsefile.bin"
        target = path.replace("{", "%7B").replace("}", "%7D").encode()
        event = self.only(
            lambda: self.ask(told(request(b"GET", target), "bob")),
            outcome="refused",
            user="bob",
            status=404,
        )
        self.assertIn(event["session"], session)


class SchemeTests(AuditCase):
    """Which scheme is named if several are asked."""

    def test_that_of_the_one_who_has_rejected(self) -> None:
        class Second(ByName):
            scheme = "second"

            def authenticate(
                self, credentials: Credentials
            ) -> Deferred[Identity | None]:
                raise CredentialsRejected("wrong")

        first = Authenticator(None)
        self.serve(authenticators=[first, Second()])
        self.only(lambda: self.ask(packet(b"Ping")), scheme="second", status=401)
        self.assertEqual(len(first.asked), 1)
        self.serve(authenticators=[Authenticator(ALICE), Second()])
        self.assertEqual(self.trail(lambda: self.ask(packet(b"Ping"))), [])
