"""
``BITSResource`` in a streaming site: which requests are packets, whose session is
meant, and that nothing a backend does gets further than an answer.

Who may do what is in ``test_authentication``; what is no HTTP in ``test_malformed``.
"""

from __future__ import annotations

from typing import Any

from twisted.logger import capturedLogs
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.web.support import (
    DESTINATION,
    PATH,
    UNKNOWN_ID,
    WebCase,
    chunked,
    fragment,
    packet,
    request,
    responses,
)
from txbits._deferreds import begun
from txbits.backends.memory import MemoryBackend
from txbits.errors import BackendError
from txbits.interfaces import IBackend
from txbits.protocol.packets import Ping
from txbits.sessions import Caller, Settings
from txbits.web import BITSResource, NotMounted
from txbits.web._gate import Gate
from txbits.web._origin import Origins
from txbits.web._packets import PacketHandler


class RequestTests(WebCase):
    """What is a packet, however it is wrapped."""

    def test_it_is_a_resource(self) -> None:
        self.assertTrue(verifyObject(IResource, self.resource))
        self.assertTrue(verifyObject(IResource, self.resource.for_user("alice")))
        self.assertTrue(verifyObject(IResource, NotMounted()))

    def test_settings_and_reactor_have_defaults(self) -> None:
        from twisted.internet import reactor

        resource = BITSResource(self.backend)
        self.assertEqual(resource.manager.settings, Settings())
        call = resource.manager.clock.callLater(60, lambda: None)
        self.assertIn(call, reactor.getDelayedCalls())
        call.cancel()
        self.assertIs(resource.manager.backend, self.backend)

    def test_post_with_an_override_is_an_upload(self) -> None:
        for override in (b"BITS_POST", b"bits_post", b" Bits_Post "):
            ack = self.ask(
                packet(b"Ping", method=b"POST", x_http_method_override=override)
            )
            self.assert_success(ack, None)

    def test_post_with_an_override_needs_a_packet_type_all_the_same(self) -> None:
        ack = self.ask(request(b"POST", x_http_method_override=b"BITS_POST"))
        self.assert_refused(ack, "unknown-packet-type")

    def test_post_with_another_override_is_none(self) -> None:
        ack = self.ask(request(b"POST", x_http_method_override=b"PATCH"))
        self.assert_refused(ack, "method-not-allowed")

    def test_other_methods_are_not_overridden(self) -> None:
        ack = self.ask(packet(b"Ping", method=b"PUT"))
        self.assert_refused(ack, "method-not-allowed")

    def test_a_request_that_is_no_packet_is_answered_by_one_server_at_one_time(
        self,
    ) -> None:
        """``twisted.web`` has a Server and a Date of its own for those."""
        for data in (request(b"PUT"), request(b"POST", content_length=b"0")):
            ack = self.ask(data)
            self.assert_refused(ack, "method-not-allowed")
            self.assertEqual(ack.headers["server"], ["txbits"])
            self.assertEqual(ack.headers["date"], ["Mon, 12 Jan 1970 13:46:40 GMT"])

    def test_post_of_a_form_is_no_form_when_it_is_a_packet(self) -> None:
        session_id = self.create()
        for kind in (b"application/x-www-form-urlencoded", b"multipart/form-data"):
            ack = self.ask(
                fragment(session_id, 0, b"a=b&c", 5, method=b"POST", content_type=kind)
            )
            self.assert_success(ack, session_id)
        self.ask(packet(b"Close-Session", session_id))
        self.assertEqual(self.memory.files, {DESTINATION: b"a=b&c"})

    def test_whole_upload_over_post_as_onedrives_client_sends_it(self) -> None:
        peer = self.peer()
        ack = self.exchange(peer, packet(b"Create-Session", method=b"POST"))
        self.assertEqual(ack.status, 201)
        session_id = (ack["BITS-Session-Id"] or "").encode()
        ack = self.exchange(
            peer,
            packet(
                b"Fragment",
                session_id,
                method=b"POST",
                content_range=b"bytes 0-4/5",
                content_length=None,
                transfer_encoding=b"chunked",
                body=chunked(b"hello"),
            ),
        )
        self.assert_success(ack, session_id)
        data = packet(b"Close-Session", session_id, method=b"POST", content_length=None)
        for _ in range(2):
            ack = self.exchange(peer, data)
            self.assert_success(ack, session_id)
            self.assertEqual(ack["X-Resource-Id"], session_id.decode().strip("{}"))
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_packets_without_a_length_have_no_body(self) -> None:
        """As XenServer and curl send them."""
        peer = self.peer()
        ack = self.exchange(peer, packet(b"Create-Session", content_length=None))
        session_id = (ack["BITS-Session-Id"] or "").encode()
        for kind in (b"Ping", b"Close-Session"):
            ack = self.exchange(peer, packet(kind, session_id, content_length=None))
            self.assertEqual(ack.status, 200)
        self.assertEqual(self.memory.files, {DESTINATION: b""})

    def test_headers_of_a_packet_are_twisteds(self) -> None:
        """For whatever stands around our resource, as authentication does."""
        found: list[Any] = []

        class Looking(Resource):
            isLeaf = True

            def render(self, request: Any) -> bytes:
                headers = request.requestHeaders
                other = headers.copy()
                other.addRawHeader(b"x-added", b"1")
                found.append(
                    (
                        request.getHeader("X-Token"),
                        request.getHeader(b"x-token"),
                        headers.hasHeader("bits-packet-type"),
                        sorted(headers.getAllRawHeaders()),
                        headers == headers.copy(),
                        other == headers,
                        request.getAllHeaders()[b"host"],
                        request.getCookie(b"a"),
                        request.args,
                        request.uri,
                    )
                )
                return b""

        self.site = self.bits_site(Looking())
        data = packet(
            b"Ping",
            target=b"/a?b=c",
            x_token=[b"1", b"2"],
            cookie=b"a=b",
            content_length=None,
        )
        for size in (len(data), 1):
            peer = self.peer()
            for start in range(0, len(data), size):
                peer.send(data[start : start + size])
            self.assertEqual(self.answer(peer).status, 200)
        self.assertEqual(found[0], found[1])
        self.assertEqual(
            found[0],
            (
                "2",
                b"2",
                True,
                [
                    (b"Bits-Packet-Type", [b"Ping"]),
                    (b"Cookie", [b"a=b"]),
                    (b"Host", [b"upload.example"]),
                    (b"X-Token", [b"1", b"2"]),
                ],
                True,
                False,
                b"upload.example",
                b"b",
                {b"b": [b"c"]},
                b"/a?b=c",
            ),
        )

    def test_whole_upload_as_windows_sends_it(self) -> None:
        common = {
            "accept": b"*/*",
            "content_name": b"b.txt",
            "user_agent": b"Microsoft BITS/7.8",
            "connection": b"Keep-Alive",
        }
        peer = self.peer()
        ack = self.exchange(peer, packet(b"Create-Session", **common))
        session_id = (ack["BITS-Session-Id"] or "").encode()
        self.assert_success(ack, session_id)
        self.assertEqual(self.session().content_name, "b.txt")
        for data in (
            packet(b"Ping", **common),
            fragment(session_id, 0, b"hello", 10, **common),
            fragment(session_id, 5, b"world", 10, **common),
            packet(b"Close-Session", session_id, **common),
        ):
            self.assertEqual(self.exchange(peer, data).status, 200)
        self.assertEqual(self.memory.files, {DESTINATION: b"helloworld"})
        self.assertFalse(peer.closed)

    def session(self) -> Any:
        """The only session of the backend."""
        (session,) = self.memory._sessions.values()
        return session


class IdentityTests(WebCase):
    """A session is known by its id and the path of its destination."""

    def test_request_target_may_be_an_absolute_url(self) -> None:
        """RFC 9112 3.2.2: "a server MUST accept the absolute-form"."""
        session_id = self.create(b"http://upload.example:8080" + PATH)
        for target in (
            PATH,
            b"http://upload.example" + PATH,
            b"HTTPS://user@[::1]:443" + PATH + b"?x=http://y/z",
        ):
            ack = self.ask(fragment(session_id, 0, b"hello", 5, target=target))
            self.assert_success(ack, session_id)
        ack = self.ask(
            packet(b"Close-Session", session_id, target=b"http://other.example" + PATH)
        )
        self.assert_success(ack, session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_absolute_url_without_a_path_is_the_root(self) -> None:
        for target in (b"http://upload.example", b"http://upload.example/"):
            ack = self.ask(packet(b"Create-Session", target=target))
            self.assert_refused(ack, "destination-is-directory")

    def test_target_that_is_neither_path_nor_url_is_no_destination(self) -> None:
        """RFC 9112 3.2: other forms are for CONNECT and OPTIONS."""
        for target in (b"ab.txt", b"a/b.txt", b"upload.example:80"):
            peer = self.peer()
            peer.send(packet(b"Create-Session", target=target))
            (answer,) = responses(peer.received())
            self.assertTrue(400 <= answer.status < 500, answer)
            self.assertEqual(self.memory._sessions, {})

    def test_asterisk_is_no_destination(self) -> None:
        for body in (b"", b"hello"):
            peer = self.peer()
            peer.send(packet(b"Create-Session", target=b"*", body=body))
            (answer,) = responses(peer.received())
            self.assertTrue(400 <= answer.status < 500, answer)

    def test_query_string_does_not_count(self) -> None:
        session_id = self.create(PATH + b"?token=1")
        for query in (b"", b"?token=2", b"?a=b&a=c&%ff", b"?" + b"x&" * 2000, b"??/.."):
            ack = self.ask(fragment(session_id, 0, b"hello", 5, target=PATH + query))
            self.assert_success(ack, session_id)
        ack = self.ask(packet(b"Close-Session", session_id, target=PATH + b"?"))
        self.assert_success(ack, session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b"hello"})

    def test_host_does_not_count(self) -> None:
        session_id = self.create(host=b"one.example")
        for host in (b"two.example", b"10.0.0.1:8080", b"[2001:db8::1]:8080", b""):
            ack = self.ask(fragment(session_id, 0, b"hello", 5, host=host))
            self.assert_success(ack, session_id)

    def test_names_are_percent_encoded_utf_8(self) -> None:
        session_id = self.create(b"/a%20b/%C3%A4/%E2%9C%93")
        (session,) = self.memory._sessions.values()
        self.assertEqual(session.destination, ("a b", "ä", "✓"))
        # One name has many spellings.
        target = b"/%61%20%62/%c3%a4/%e2%9c%93"
        ack = self.ask(packet(b"Close-Session", session_id, target=target))
        self.assert_success(ack, session_id)
        self.assertEqual(self.memory.files, {("a b", "ä", "✓"): b""})

    def test_hostile_names_are_refused(self) -> None:
        for target in (
            b"/../etc/passwd",
            b"/a/../b",
            b"/a/..",
            b"/a/%2E%2E/b",
            b"/a/%2e./b",
            b"/./a",
            b"/a//b",
            b"/a%2Fb",
            b"/..%2Fb",
            b"/a%5Cb",
            b"/a\\b",
            b"/C:/b",
            b"/a%00b",
            b"/a%0Ab",
            b"/%FF",
            b"/%C3",
            b"/%ED%A0%80",
            b"/NUL",
            b"/com1.txt",
            b"/" + b"x" * 256,
            b"/.bits-sessions/x",
            b"/BITS-Sessions/x",
        ):
            ack = self.ask(packet(b"Create-Session", target=target))
            self.assert_refused(ack, "destination-forbidden")
        self.assertEqual(self.memory._sessions, {})

    def test_broken_percent_encoding_is_taken_literally_or_refused(self) -> None:
        for target in (b"/%", b"/%zz", b"/100%", b"/%u0041"):
            self.assertIn(
                self.ask(packet(b"Create-Session", target=target)).status, (200, 403)
            )

    def test_directory_below_a_prefix(self) -> None:
        root = NotMounted()
        upload = Resource()
        root.putChild(b"upload", upload)
        upload.putChild(b"logs", self.resource)
        self.site = self.bits_site(root)
        session_id = self.create(b"/upload/logs/a/b.txt")
        ack = self.ask(
            packet(b"Close-Session", session_id, target=b"http://x/upload/logs/a/b.txt")
        )
        self.assert_success(ack, session_id)
        self.assertEqual(self.memory.files, {DESTINATION: b""})


def _raise(*args: object, **kwargs: object) -> Any:
    raise ZeroDivisionError("secret")


@implementer(IBackend)
class _RaisingBackend(MemoryBackend):
    """A backend that does not keep its contract: it raises, in one method."""

    def __init__(self, clock: Any, method: str) -> None:
        super().__init__(clock)
        setattr(self, method, _raise)


class UnforeseenTests(WebCase):
    """Whatever a backend does, the answer is an Ack, and the log has the traceback."""

    def test_backend_that_raises(self) -> None:
        for method in ("create", "find", "recalls_close"):
            self.backend = _RaisingBackend(self.clock, method)  # type: ignore[assignment]
            self.serve()
            for data, session_id in (
                (packet(b"Create-Session"), None),
                (packet(b"Close-Session", UNKNOWN_ID), UNKNOWN_ID),
            ):
                peer = self.peer()
                peer.send(data)
                written = peer.received()
                self.assertNotIn(b"secret", written)
                self.assertNotIn(b"Traceback", written)
                (ack,) = responses(written)
                failures = self.flushLoggedErrors(ZeroDivisionError)
                if failures:
                    self.assert_refused(ack, "internal-error", session_id)
                self.assert_ack(ack)

    def test_backend_that_fails_unforeseen_in_every_operation(self) -> None:
        session_id = self.create_holding(b"hello", 10)
        for operation, data in (
            ("open_writer", fragment(session_id, 5, b"world", 10)),
            ("write", fragment(session_id, 5, b"world", 10)),
            ("release", packet(b"Cancel-Session", session_id)),
        ):
            gate = self.backend.hold(operation)
            gate.fail(ZeroDivisionError("secret"))
            ack = self.ask(data)
            self.assert_refused(ack, "internal-error", session_id)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            gate.open()
        ack = self.ask(packet(b"Cancel-Session", session_id))
        self.assert_success(ack, session_id)

    def test_handler_that_settles_nothing(self) -> None:
        manager = self.resource.manager
        handler = PacketHandler(
            manager, Gate(), Ping(), DESTINATION, Caller(), Origins()
        )

        class Handling(Resource):
            isLeaf = True

            def render(self, request: Request) -> int:
                begun(handler.answer(request))
                return NOT_DONE_YET

        self.site = self.bits_site(Handling())
        self.assert_refused(self.ask(packet(b"Ping")), "internal-error")
        self.assertEqual(len(self.flushLoggedErrors(NotImplementedError)), 1)

    def test_fault_after_the_connection_is_lost_is_logged_all_the_same(self) -> None:
        gate = self.backend.hold("create")
        peer = self.peer()
        peer.send(packet(b"Create-Session"))
        peer.lose()
        with capturedLogs() as events:
            gate.fail(BackendError("the store is away"))
        self.assertEqual(peer.received(), b"")
        details = [one["detail"] for one in events if "refusal" in one]
        self.assertEqual(details, ["the store is away"])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_resource_that_raises_beside_ours_shows_no_traceback(self) -> None:
        class Broken(Resource):
            isLeaf = True
            render = staticmethod(_raise)

        self.site = self.bits_site(Broken())
        for data in (request(b"GET"), fragment(UNKNOWN_ID, 0, b"hello", 5)):
            peer = self.peer()
            peer.send(data)
            written = peer.received()
            (answer,) = responses(written)
            self.assertEqual(answer.status, 500)
            self.assertNotIn(b"secret", written)
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
            self.assertEqual(self.exchange(peer, data).status, 500)
            self.flushLoggedErrors(ZeroDivisionError)
