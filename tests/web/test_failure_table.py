"""
Every row of the failure table, on the wire.

The test of a row is named after it. ``test_every_row_has_its_test`` sees to it that a
new row gets one.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail
from twisted.logger import capturedLogs
from twisted.web.resource import Resource

from tests.web.support import (
    PATH,
    UNKNOWN_ID,
    Authenticator,
    DenyingPolicy,
    Policy,
    Response,
    WebCase,
    chunked,
    chunked_fragment,
    fragment,
    packet,
    request,
    responses,
)
from txbits.errors import (
    ApplicationRefused,
    ApplicationTimedOut,
    ApplicationUnreachable,
    BackendError,
    BadAnswer,
    CredentialsRejected,
    CredentialsUncheckable,
    DestinationExists,
    DestinationForbidden,
    DestinationIsDirectory,
    OutOfSpace,
    ParentMissing,
    StagedDataLost,
    WorkerUnavailable,
)
from txbits.protocol.refusals import REFUSALS
from txbits.sessions import Settings
from txbits.testing import HoldableNotifier
from txbits.web import NotMounted

# A name of every kind of header that is limited.
_LIMITED = ["bits_supported_protocols", "content_name", "bits_anything", "content_type"]


class FailureTableTests(WebCase):
    """One test a row, named after it."""

    def test_every_row_has_its_test(self) -> None:
        names = {"test_" + row.name.replace("-", "_") for row in REFUSALS}
        self.assertEqual(names - set(dir(self)), set())

    def test_method_not_allowed(self) -> None:
        for method in (
            b"GET",
            b"HEAD",
            b"PUT",
            b"DELETE",
            b"OPTIONS",
            b"POST",
            b"bits_post",
        ):
            ack = self.ask(request(method, bits_session_id=UNKNOWN_ID))
            self.assert_refused(ack, "method-not-allowed", UNKNOWN_ID)

    def test_method_not_allowed_says_which_is(self) -> None:
        """RFC 9110 15.5.6: "MUST generate an Allow header field"."""
        for method in (b"GET", b"PUT", b"POST"):
            self.assertEqual(self.ask(request(method))["Allow"], "BITS_POST")

    def test_not_mounted(self) -> None:
        root = NotMounted()
        root.putChild(b"upload", self.resource)
        self.site = self.bits_site(root)
        for target in (b"/", b"/a", b"/a/b/c", b"/Upload/a"):
            for body in (b"", b"123"):
                ack = self.ask(
                    packet(b"Ping", UNKNOWN_ID, target=target, body=body),
                )
                self.assert_refused(ack, "not-mounted", UNKNOWN_ID)
            self.assert_refused(self.ask(request(b"GET", target)), "not-mounted")
        self.assert_success(self.ask(packet(b"Ping", target=b"/upload/a")), None)
        # A folder of virtual directories is in none itself.
        root.putChild(b"folder", NotMounted())
        for target in (b"/folder", b"/folder/", b"/folder/a"):
            ack = self.ask(packet(b"Ping", target=target))
            self.assert_refused(ack, "not-mounted")

    def test_uploads_disabled(self) -> None:
        self.serve(Settings(enabled=False))
        for kind in (b"Ping", b"Create-Session", b"Close-Session", b"Nonsense"):
            ack = self.ask(packet(kind, UNKNOWN_ID))
            self.assert_refused(ack, "uploads-disabled", UNKNOWN_ID)
        ack = self.ask(fragment(UNKNOWN_ID, 0, b"hello", 5))
        self.assert_refused(ack, "uploads-disabled", UNKNOWN_ID)

    def test_unknown_packet_type(self) -> None:
        for kind in (b"Nonsense", b"", b"Ack", b"Create Session", b"\xff\xfe"):
            ack = self.ask(packet(kind, UNKNOWN_ID))
            self.assert_refused(ack, "unknown-packet-type", UNKNOWN_ID)
        for headers in (
            {},
            {"bits_packet_type": [b"Ping", b"Ping"]},
        ):
            ack = self.ask(request(**headers))
            self.assert_refused(ack, "unknown-packet-type")

    def test_header_too_long(self) -> None:
        for name in _LIMITED:
            for length, is_refused in ((4096, False), (4097, True)):
                value = b"x" * length
                ack = self.ask(packet(b"Ping", **{name: value}))
                if is_refused:
                    self.assert_refused(ack, "header-too-long")
                else:
                    self.assert_success(ack, None)

    def test_credentials_may_be_longer(self) -> None:
        for name in ("authorization", "cookie"):
            ack = self.ask(packet(b"Ping", **{name: b"x" * 48_000}))
            self.assert_success(ack, None)

    def test_malformed_header(self) -> None:
        ack = self.ask(packet(b"Create-Session", content_name=[b"a.txt", b"b.txt"]))
        self.assert_refused(ack, "malformed-header")
        ack = self.ask(packet(b"Ping", content_length=b"9" * 30))
        self.assert_refused(ack, "malformed-header")

    def test_bad_session_id(self) -> None:
        values = [
            None,
            b"",
            b"{}",
            b"nonsense",
            UNKNOWN_ID[:-1],
            UNKNOWN_ID[1:],
            UNKNOWN_ID.replace(b"-", b""),
            UNKNOWN_ID + b"x",
            [UNKNOWN_ID, UNKNOWN_ID],
        ]
        for value in values:
            for kind in (b"Close-Session", b"Cancel-Session"):
                self.assert_refused(self.ask(packet(kind, value)), "bad-session-id")
            ack = self.ask(fragment(value, 0, b"hello", 5))
            self.assert_refused(ack, "bad-session-id")

    def test_unexpected_body(self) -> None:
        session_id = self.create()
        for kind in (b"Close-Session", b"Cancel-Session", b"Ping", b"Create-Session"):
            ack = self.ask(packet(kind, session_id, body=b"12345"))
            self.assert_refused(ack, "unexpected-body", session_id)
            ack = self.ask(
                packet(
                    kind,
                    session_id,
                    body=chunked(),
                    content_length=None,
                    transfer_encoding=b"chunked",
                )
            )
            self.assert_refused(ack, "unexpected-body", session_id)
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)

    def test_unsupported_encoding(self) -> None:
        session_id = self.create()
        for encoding in (b"gzip", b"br", [b"identity", b"gzip"]):
            for kind in (b"Ping", b"Create-Session", b"Close-Session"):
                ack = self.ask(packet(kind, session_id, content_encoding=encoding))
                self.assert_refused(ack, "unsupported-encoding", session_id)
            ack = self.ask(
                fragment(session_id, 0, b"hello", 5, content_encoding=encoding)
            )
            self.assert_refused(ack, "unsupported-encoding", session_id)
        ack = self.ask(fragment(session_id, 0, b"hi", 2, content_encoding=b"Identity"))
        self.assert_success(ack, session_id)

    def test_bad_range(self) -> None:
        session_id = self.create()
        for value in (
            None,
            b"",
            b"bytes",
            b"bytes 0-4",
            b"bytes 0-4/*",
            b"bytes 0-5/10",
            b"bytes 0-3/10",
            b"bytes 4-0/10",
            b"bytes 0-4/4",
            b"bytes */5",
            b"bytes -5/10",
            b"lines 0-4/10",
            b"bytes 0-4/99999999999999999999",
            [b"bytes 0-4/10", b"bytes 0-4/10"],
        ):
            ack = self.ask(fragment(session_id, 0, b"hello", 10, content_range=value))
            self.assert_refused(ack, "bad-range", session_id)
        self.assertEqual(self.offset(session_id, 10), 0)

    def test_bad_range_of_a_chunked_body(self) -> None:
        for body in (chunked(), chunked(b"hell"), chunked(b"he", b"llo!")):
            session_id = self.create()
            ack = self.ask(chunked_fragment(session_id, b"bytes 0-4/10", body))
            self.assert_refused(ack, "bad-range", session_id)

    def test_total_changed(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        for first, body, total in ((5, b"world", 11), (0, b"hello", 5), (0, b"", 0)):
            ack = self.ask(fragment(session_id, first, body, total))
            self.assert_refused(ack, "total-changed", session_id)
        self.assertEqual(self.offset(session_id, 10), 5)

    def test_no_common_protocol(self) -> None:
        for value in (None, b"", UNKNOWN_ID, b"7df0354d", b", ,"):
            ack = self.ask(packet(b"Create-Session", bits_supported_protocols=value))
            self.assert_refused(ack, "no-common-protocol")

    def test_destination_is_directory(self) -> None:
        self.memory.files["a", "c"] = b""
        for target in (b"/", b"/a/", b"/a", b"//"):
            ack = self.ask(packet(b"Create-Session", target=target))
            if target == b"//":
                self.assert_refused(ack, "destination-forbidden")
            else:
                self.assert_refused(ack, "destination-is-directory")
        self.fail_with("create", DestinationIsDirectory("it is"))
        ack = self.ask(packet(b"Create-Session"))
        self.assert_refused(ack, "destination-is-directory")

    def test_length_required(self) -> None:
        session_id = self.create()
        ack = self.ask(
            packet(
                b"Fragment",
                session_id,
                content_range=b"bytes 0-4/5",
                content_length=None,
            )
        )
        self.assert_refused(ack, "length-required", session_id)

    def test_credentials_rejected(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        for answer in (None, CredentialsRejected("the password is wrong")):
            self.serve(authenticators=[Authenticator(answer)])
            for kind in (b"Ping", b"Create-Session"):
                ack = self.ask(packet(kind))
                self.assert_refused(ack, "credentials-rejected")
                self.assertEqual(ack["WWW-Authenticate"], "Told")
            ack = self.ask(fragment(session_id, 5, b"world", 10))
            self.assert_refused(ack, "credentials-rejected", session_id)
        self.serve()
        self.assertEqual(self.offset(session_id, 10), 5)

    def test_credentials_uncheckable(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        away = CredentialsUncheckable("the checker is away", 30)
        self.serve(authenticators=[Authenticator(away)])
        for data, named in (
            (packet(b"Ping"), None),
            (fragment(session_id, 5, b"world", 10), session_id),
        ):
            ack = self.ask(data)
            self.assert_refused(ack, "credentials-uncheckable", named)
            self.assertEqual(ack["Retry-After"], "30")
            self.assertIsNone(ack["WWW-Authenticate"])
        self.serve()
        self.assertEqual(self.offset(session_id, 10), 5)

    def test_access_denied(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        self.serve(policy=DenyingPolicy())
        for kind in (b"Ping", b"Create-Session"):
            self.assert_refused(self.ask(packet(kind)), "access-denied")
        for kind in (b"Close-Session", b"Cancel-Session"):
            ack = self.ask(packet(kind, session_id))
            self.assert_refused(ack, "access-denied", session_id)
        ack = self.ask(fragment(session_id, 5, b"world", 10))
        self.assert_refused(ack, "access-denied", session_id)
        self.serve()
        self.assertEqual(self.offset(session_id, 10), 5)

    def test_destination_forbidden(self) -> None:
        for target in (
            b"/a%2Fb",
            b"/a/%00",
            b"/../b",
            b"/%FF%FE",
            b"/.bits-sessions/b",
        ):
            ack = self.ask(packet(b"Create-Session", target=target))
            self.assert_refused(ack, "destination-forbidden")
        session_id = self.create_holding(b"hello", 5)
        self.fail_with("publish", DestinationForbidden("a link leads outside now"))
        ack = self.ask(packet(b"Close-Session", session_id))
        self.assert_refused(ack, "destination-forbidden", session_id)

    def test_destination_exists(self) -> None:
        self.memory.files["a", "b.txt"] = b"old"
        ack = self.ask(packet(b"Create-Session"))
        self.assert_refused(ack, "destination-exists")
        self.serve(Settings(allow_overwrites=True))
        self.create()

    def test_destination_exists_when_it_comes_to_publishing(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        self.memory.files["a", "b.txt"] = b"old"
        for _ in range(2):
            ack = self.ask(packet(b"Close-Session", session_id))
            self.assert_refused(ack, "destination-exists", session_id)
        # "The session stands until Cancel or timeout."
        del self.memory.files["a", "b.txt"]
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)
        self.assertEqual(self.memory.files["a", "b.txt"], b"hello")
        session_id = self.create_holding(b"hello", 5, b"/other")
        self.fail_with("publish", DestinationExists("someone was faster"))
        ack = self.ask(packet(b"Close-Session", session_id, target=b"/other"))
        self.assert_refused(ack, "destination-exists", session_id)
        ack = self.ask(packet(b"Cancel-Session", session_id, target=b"/other"))
        self.assert_success(ack, session_id)

    def test_parent_missing(self) -> None:
        self.memory.files["a",] = b"a file"
        self.assert_refused(self.ask(packet(b"Create-Session")), "parent-missing")
        del self.memory.files["a",]
        session_id = self.create_holding(b"hello", 5)
        self.fail_with("publish", ParentMissing("gone"))
        ack = self.ask(packet(b"Close-Session", session_id))
        self.assert_refused(ack, "parent-missing", session_id)

    def test_session_not_found(self) -> None:
        self.assert_unknown(UNKNOWN_ID)

    def test_session_not_found_after_cancel(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        self.assert_success(self.ask(packet(b"Cancel-Session", session_id)), session_id)
        self.assert_unknown(session_id)

    def test_session_not_found_after_close(self) -> None:
        session_id = self.create_holding(b"hello", 5)
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)
        for data in (
            packet(b"Cancel-Session", session_id),
            fragment(session_id, 0, b"hello", 5),
        ):
            self.assert_refused(self.ask(data), "session-not-found", session_id)

    def test_session_not_found_after_its_time(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        self.clock.advance(self.settings.session_timeout + 1)
        self.assert_unknown(session_id)

    def test_session_not_found_for_another_destination(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        for target in (b"/a/B.txt", b"/a/b.txt/", b"/b.txt", b"/a/b.txt%00"):
            self.assert_unknown(session_id, target)
        self.assertEqual(self.offset(session_id, 10), 5)

    def test_session_not_found_for_another_caller(self) -> None:
        root = Resource()
        root.putChild(b"anonymous", self.resource)
        root.putChild(b"alice", self.resource.for_user("alice"))
        root.putChild(b"bob", self.resource.for_user("bob"))
        self.site = self.bits_site(root)
        session_id = self.create(b"/alice/f")
        for target in (b"/bob/f", b"/anonymous/f"):
            self.assert_unknown(session_id, target)
        ack = self.ask(fragment(session_id, 0, b"hello", 5, target=b"/alice/f"))
        self.assert_success(ack, session_id)

    def test_out_of_step(self) -> None:
        session_id = self.create_holding(b"hello", 20)
        for first in (6, 10, 19):
            ack = self.ask(fragment(session_id, first, b"x", 20))
            self.assert_refused(ack, "out-of-step", session_id)
            self.assertEqual(ack["BITS-Received-Content-Range"], "5")
            self.assertEqual(ack["BITS-Error-Code"], "0x00000000")

    def test_upload_too_large(self) -> None:
        self.serve(Settings(max_upload_size=10))
        session_id = self.create()
        ack = self.ask(fragment(session_id, 0, b"hello", 11))
        self.assert_refused(ack, "upload-too-large", session_id)
        ack = self.ask(fragment(session_id, 0, b"hello", 10))
        self.assert_success(ack, session_id)

    def test_fragment_too_large(self) -> None:
        self.serve(Settings(max_fragment_size=5))
        session_id = self.create()
        ack = self.ask(fragment(session_id, 0, b"123456", 10))
        self.assert_refused(ack, "fragment-too-large", session_id)
        self.assertEqual(self.offset(session_id, 10), 0)
        ack = self.ask(fragment(session_id, 0, b"12345", 10))
        self.assert_success(ack, session_id)

    def test_quota_reached(self) -> None:
        self.serve(Settings(directory_quota=10))
        self.create_holding(b"hello", 10)
        ack = self.ask(packet(b"Create-Session", target=b"/other"))
        self.assert_refused(ack, "quota-reached")
        self.assertEqual(ack["Retry-After"], "600")

    def test_session_limit_reached(self) -> None:
        self.serve(Settings(session_limit=2))
        anonymous = self.site
        self.site = self.bits_site(self.resource.for_user("alice"))
        kept = [self.create(b"/1"), self.create(b"/2")]
        ack = self.ask(packet(b"Create-Session", target=b"/3"))
        self.assert_refused(ack, "session-limit-reached")
        self.assertGreater(int(ack["Retry-After"] or ""), 0)
        # "The oldest sessions stand", and others are not concerned.
        ack = self.ask(fragment(kept[0], 0, b"hello", 5, target=b"/1"))
        self.assert_success(ack, kept[0])
        alices, self.site = self.site, anonymous
        for target in (b"/4", b"/5"):
            self.create(target)
        ack = self.ask(packet(b"Create-Session", target=b"/6"))
        self.assert_refused(ack, "session-limit-reached")
        self.site = alices
        ack = self.ask(packet(b"Cancel-Session", kept[1], target=b"/2"))
        self.assert_success(ack, kept[1])
        self.create(b"/3")

    def test_out_of_space(self) -> None:
        self.fail_with("create", OutOfSpace("full"))
        self.assert_refused(self.ask(packet(b"Create-Session")), "out-of-space")
        self.backend.hold("create").open()
        for operation in ("open_writer", "write", "close"):
            session_id = self.create()
            gate = self.fail_with(operation, OutOfSpace("full"))
            ack = self.ask(fragment(session_id, 0, b"hello", 5))
            self.assert_refused(ack, "out-of-space", session_id)
            gate.open()
        session_id = self.create_holding(b"hello", 5)
        gate = self.fail_with("publish", OutOfSpace("full"))
        ack = self.ask(packet(b"Close-Session", session_id))
        self.assert_refused(ack, "out-of-space", session_id)
        gate.open()
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)

    def test_staged_data_lost(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        gate = self.fail_with("open_writer", StagedDataLost("gone"))
        ack = self.ask(fragment(session_id, 5, b"world", 10))
        self.assert_refused(ack, "staged-data-lost", session_id)
        gate.open()
        ack = self.ask(fragment(session_id, 5, b"world", 10))
        self.assert_success(ack, session_id)
        self.fail_with("publish", StagedDataLost("gone"))
        ack = self.ask(packet(b"Close-Session", session_id))
        self.assert_refused(ack, "staged-data-lost", session_id)

    def test_storage_fault(self) -> None:
        error = BackendError("the secret path /dev/sdb has bad sectors")
        gate = self.fail_with("create", error)
        self.assert_faulty(packet(b"Create-Session"), "storage-fault")
        gate.open()
        session_id = self.create_holding(b"hello", 10)
        for operation in ("open_writer", "write"):
            gate = self.fail_with(operation, error)
            self.assert_faulty(
                fragment(session_id, 5, b"world", 10), "storage-fault", session_id
            )
            gate.open()
        ack = self.ask(fragment(session_id, 5, b"world", 10))
        self.assert_success(ack, session_id)
        for operation in ("publish", "release"):
            gate = self.fail_with(operation, error)
            self.assert_faulty(
                packet(b"Close-Session", session_id), "storage-fault", session_id
            )
            gate.open()
        self.assert_success(self.ask(packet(b"Close-Session", session_id)), session_id)
        self.serve()
        for operation in ("find", "recalls_close"):
            gate = self.fail_with(operation, error)
            self.assert_faulty(
                packet(b"Close-Session", session_id), "storage-fault", session_id
            )
            gate.open()
        self.assertEqual(self.memory.files["a", "b.txt"], b"helloworld")

    def test_storage_fault_when_the_writer_is_closed(self) -> None:
        session_id = self.create()
        self.fail_with("close", BackendError("the secret path /dev/sdb"))
        self.assert_faulty(
            fragment(session_id, 0, b"hello", 10), "storage-fault", session_id
        )

    def test_server_stopping(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        self.successResultOf(self.resource.manager.stop())
        for data, echoed in (
            (packet(b"Create-Session"), None),
            (packet(b"Close-Session", session_id), session_id),
            (packet(b"Cancel-Session", session_id), session_id),
            (fragment(session_id, 5, b"world", 10), session_id),
        ):
            ack = self.ask(data)
            self.assert_refused(ack, "server-stopping", echoed)
            self.assertGreater(int(ack["Retry-After"] or ""), 0)

    def test_worker_unavailable(self) -> None:
        session_id = self.create_holding(b"hello", 10)

        class Unreachable:
            """A relay whose other workers cannot be reached."""

            def owner_of(self, *_: object) -> int:
                return 1

            def pass_on(self, *_: object) -> Deferred[None]:
                return fail(WorkerUnavailable("it is gone", 10))

        self.serve(relay=Unreachable())
        for data in (
            packet(b"Close-Session", session_id),
            packet(b"Cancel-Session", session_id),
            fragment(session_id, 5, b"world", 10),
        ):
            ack = self.ask(data)
            self.assert_refused(ack, "worker-unavailable", session_id)
            self.assertEqual(ack["Retry-After"], "10")

    def test_internal_error(self) -> None:
        self.fail_with("create", ZeroDivisionError("the secret is 42"))
        self.assert_faulty(
            packet(b"Create-Session"), "internal-error", kind=ZeroDivisionError
        )

    def test_application_refused(self) -> None:
        # All but 403: test_notification has what is remembered.
        for status, answered in ((404, 404), (500, 500), (413, 500), (416, 500)):
            error = ApplicationRefused("the secret is 42", status)
            ack = self.answered_by(error)
            self.assert_refused(ack, "application-refused", self.asked_id, status)
            self.assertEqual(ack.status, answered)
            self.assertEqual(ack["BITS-Error-Code"], f"0x8019{status:04X}")
            self.assertEqual(ack["BITS-Error-Context"], "0x7")

    def test_application_unreachable(self) -> None:
        ack = self.answered_by(ApplicationUnreachable("connection refused"))
        self.assert_refused(ack, "application-unreachable", self.asked_id)

    def test_application_timed_out(self) -> None:
        ack = self.answered_by(ApplicationTimedOut("no answer in 300 seconds"))
        self.assert_refused(ack, "application-timed-out", self.asked_id)

    def test_application_answer_unusable(self) -> None:
        ack = self.answered_by(BadAnswer("a URL of 3,000 characters"))
        self.assert_refused(ack, "application-answer-unusable", self.asked_id)

    # What the tests above are written with

    def answered_by(self, error: Exception) -> Response:
        """The Ack of a last fragment when the application fails."""
        notifier = self.notifier = HoldableNotifier()
        self.serve()
        self.asked_id = self.create()
        peer = self.peer()
        peer.send(fragment(self.asked_id, 0, b"hello", 5))
        self.assert_silent(peer)
        notifier.asked[0].fail(error)
        return self.answer(peer)

    def fail_with(self, operation: str, error: Exception):
        """Let one operation of the backend fail from now on."""
        gate = self.backend.hold(operation)
        gate.fail(error)
        return gate

    def offset(self, session_id: bytes, total: int) -> int:
        """Ask where the server stands, with a fragment that is out of step."""
        ack = self.ask(fragment(session_id, total - 1, b"?", total))
        self.assert_refused(ack, "out-of-step", session_id)
        return int(ack["BITS-Received-Content-Range"] or "")

    def assert_unknown(self, session_id: bytes, target: bytes = PATH) -> None:
        """The session is known to no packet."""
        for data in (
            packet(b"Close-Session", session_id, target=target),
            packet(b"Cancel-Session", session_id, target=target),
            fragment(session_id, 0, b"hello", 10, target=target),
        ):
            self.assert_refused(self.ask(data), "session-not-found", session_id)

    def assert_faulty(
        self,
        data: bytes,
        name: str,
        session_id: bytes | None = None,
        kind: type[Exception] = BackendError,
    ) -> None:
        """
        The fault is answered without its text, which goes to the log; so does the
        traceback, unless it is the store that failed.
        """
        peer = self.peer()
        with capturedLogs() as events:
            peer.send(data)
        written = peer.received()
        for word in (b"secret", b"Traceback", b"sdb", kind.__name__.encode()):
            self.assertNotIn(word, written)
        (ack,) = responses(written)
        self.assert_refused(ack, name, session_id)
        refusals = [one for one in events if one.get("refusal") == name]
        self.assertEqual(len(refusals), 1, events)
        self.assertEqual(
            len(self.flushLoggedErrors()), 0 if kind is BackendError else 1
        )


class OrderOfChecksTests(WebCase):
    """
    "Method and mount; uploads enabled; packet type; header syntax and lengths;
    authentication and permission; session; range against session; limits."
    """

    def test_each_check_comes_before_those_behind_it(self) -> None:
        """A request that is wrong in every way, which is mended bit by bit."""
        strict = Settings(max_upload_size=50, max_fragment_size=2)
        policy = DenyingPolicy()
        wrong = {
            "method": b"PUT",
            "bits_packet_type": b"Nonsense",
            "bits_session_id": UNKNOWN_ID,
            "content_name": b"x" * 5000,
            "content_length": b"3",
        }
        settings = Settings(enabled=False)
        ranges = {"content_range": b"bytes 7-9/80"}

        def answer() -> Response:
            self.serve(settings, policy)
            headers = {**wrong, **ranges}
            return self.ask(request(headers.pop("method"), body=b"xyz", **headers))

        self.assert_refused(answer(), "method-not-allowed", UNKNOWN_ID)
        wrong["method"] = b"BITS_POST"
        self.assert_refused(answer(), "uploads-disabled", UNKNOWN_ID)
        self.serve()
        session_id = self.create_holding(b"hello", 100)
        settings = strict
        self.assert_refused(answer(), "unknown-packet-type", UNKNOWN_ID)
        wrong["bits_packet_type"] = b"Fragment"
        self.assert_refused(answer(), "header-too-long", UNKNOWN_ID)
        wrong["content_name"] = b"b.txt"
        self.assertEqual(policy.asked, [])
        self.assert_refused(answer(), "access-denied", UNKNOWN_ID)
        policy.answer = None
        self.assert_refused(answer(), "session-not-found", UNKNOWN_ID)
        wrong["bits_session_id"] = session_id
        self.assert_refused(answer(), "total-changed", session_id)
        ranges["content_range"] = b"bytes 7-9/100"
        self.assert_refused(answer(), "out-of-step", session_id)
        ranges["content_range"] = b"bytes 5-7/100"
        self.assert_refused(answer(), "upload-too-large", session_id)
        settings = Settings(max_fragment_size=2)
        self.assert_refused(answer(), "fragment-too-large", session_id)
        settings = Settings()
        ack = answer()
        self.assert_success(ack, session_id)
        self.assertEqual(ack["BITS-Received-Content-Range"], "8")

    def test_nothing_is_stored_before_the_checks_have_passed(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        policy = Policy()
        policy.answer = Deferred()
        self.serve(policy=policy)
        peer = self.peer()
        peer.send(fragment(session_id, 5, b"world", 10))
        self.assertEqual(self.held(), 5)
        policy.answer.callback(None)
        self.assertEqual(self.held(), 10)
        self.assert_success(self.answer(peer), session_id)

    def held(self) -> int:
        """How many bytes the backend holds."""
        (session,) = self.memory._sessions.values()
        return session.offset
