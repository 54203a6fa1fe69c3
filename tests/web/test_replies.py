"""
Replies of server applications: where they are, who may have them, and for how long.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher
from twisted.web.resource import Resource
from zope.interface import implementer

from tests.web.support import (
    PATH,
    UNKNOWN_ID,
    Authenticator,
    Policy,
    WebCase,
    fragment,
    packet,
    request,
)
from tests.web.test_downloads import get, without_body
from txbits.errors import AccessDenied
from txbits.interfaces import Answer, CompleteUpload, Identity, INotifier, IReply
from txbits.protocol.codec import parse_guid
from txbits.sessions import Settings
from txbits.testing.memory import Peer
from txbits.web import BITSResource
from txbits.web.replies import reply_of, reply_url

REPLY = bytes(range(256)) * 4000


@implementer(INotifier)
class Application:
    """
    Answers with a reply.

    :ivar urls: The URLs of the uploads that it was asked about.
    """

    needs: frozenset[Any] = frozenset()

    def __init__(self, data: bytes | None, reply_url: str | None = None) -> None:
        self.data = data
        self.reply_url = reply_url
        self.urls: list[str] = []

    def notify(self, upload: CompleteUpload, reply: IReply) -> Any:
        self.urls.append(upload.request_url)
        return Deferred.fromCoroutine(self._answer(reply))

    async def _answer(self, reply: IReply) -> Answer:
        if self.data is not None:
            writer = await reply.open()
            await writer.write(self.data)
            await writer.close()
        return Answer(reply_url=self.reply_url)


class NameTests(WebCase):
    """The URL of a reply, and back."""

    def test_there_and_back(self) -> None:
        one = parse_guid(UNKNOWN_ID)
        url = reply_url("http://h/dir", one)
        self.assertEqual(
            url,
            "http://h/dir/BITS-Sessions/Replies/"
            "%7B11111111-2222-3333-4444-5555AAAABBBB%7D/responsefile.bin",
        )
        self.assertEqual(
            reply_of(
                (
                    "bits-sessions",
                    "REPLIES",
                    UNKNOWN_ID.decode().lower(),
                    "ResponseFile.bin",
                )
            ),
            one,
        )

    def test_nothing_else_is_one(self) -> None:
        guid = UNKNOWN_ID.decode()
        for path in (
            (),
            ("BITS-Sessions", "Replies", guid),
            ("BITS-Sessions", "Replies", guid, "other.bin"),
            ("BITS-Sessions", "Replies", guid, "responsefile.bin", ""),
            ("BITS-Sessions", "Replies", guid + "x", "responsefile.bin"),
            ("BITS-Sessions", "Replies", "\udc80", "responsefile.bin"),
            ("BITS-Sessions", "Requests", guid, "responsefile.bin"),
            ("a", "BITS-Sessions", "Replies", guid, "responsefile.bin"),
        ):
            self.assertIsNone(reply_of(path), path)


class ReplyCase(WebCase):
    """A directory with a server application."""

    application = Application(REPLY)

    def directory(
        self, backend: Any, settings: Any = None, policy: Any = None, **access: Any
    ) -> Any:
        self.application = Application(
            self.application.data, self.application.reply_url
        )
        resource = BITSResource(
            self.memory,
            self.settings if settings is None else settings,
            policy=policy,
            notifier=self.application,
            reactor=self.clock,
            **access,
        )
        self.successResultOf(resource.manager.start())
        return resource

    def upload(self, target: bytes = PATH, **headers: Any) -> tuple[bytes, str | None]:
        """Upload a file; its session, and the URL of the reply to it."""
        session_id = self.create(target)
        ack = self.ask(fragment(session_id, 0, b"request", 7, target=target, **headers))
        self.assertEqual(ack.status, 200, ack)
        return session_id, ack["BITS-Reply-URL"]

    def path(self, url: str | None) -> bytes:
        """The path of a reply's URL."""
        assert url is not None
        prefix = "http://upload.example"
        self.assertTrue(url.startswith(prefix), url)
        return url.removeprefix(prefix).encode("ascii")


class ServingTests(ReplyCase):
    """A reply from its first byte to its last."""

    def test_it_is_at_the_url_that_the_ack_names(self) -> None:
        session_id, url = self.upload()
        path = self.path(url)
        self.assertEqual(
            path,
            b"/BITS-Sessions/Replies/%7B"
            + session_id.strip(b"{}")
            + b"%7D/responsefile.bin",
        )
        answer = self.ask(get(path))
        self.assertEqual((answer.status, answer.body), (200, REPLY))
        self.assertEqual(answer["Content-Type"], "application/octet-stream")

    def test_no_cache_keeps_it(self) -> None:
        session_id, url = self.upload()
        path = self.path(url)
        for data in (get(path), get(path, range=b"bytes=0-1"), get(path + b"?x")):
            answer = self.ask(data)
            self.assertEqual(answer["Cache-Control"], "private, no-store")
        other = path.replace(session_id.strip(b"{}"), UNKNOWN_ID.strip(b"{}"))
        answer = self.ask(get(other))
        self.assertEqual(answer.status, 404)
        self.assertEqual(answer["Cache-Control"], "private, no-store")

    def test_it_is_read_in_ranges(self) -> None:
        path = self.path(self.upload()[1])
        peer = self.peer()
        peer.send(get(path, method=b"HEAD"))
        head = without_body(peer.received())
        self.assertEqual(head["Content-Length"], str(len(REPLY)))
        answer = self.ask(
            get(path, range=b"bytes=5-9", if_match=(head["ETag"] or "").encode())
        )
        self.assertEqual((answer.status, answer.body), (206, REPLY[5:10]))

    def test_the_url_is_that_of_the_directory(self) -> None:
        root = Resource()
        root.putChild(b"\xc3\xbc b", self.resource)
        self.site = self.bits_site(root)
        _, url = self.upload(b"/%c3%bc%20b/c.txt?sig=1", host=b"other.example:81")
        assert url is not None
        self.assertTrue(
            url.startswith(
                "http://other.example:81/%C3%BC%20b/BITS-Sessions/Replies/%7B"
            ),
            url,
        )
        self.assertEqual(
            self.ask(get(url.removeprefix("http://other.example:81").encode())).body,
            REPLY,
        )
        self.assertEqual(
            self.application.urls, ["http://other.example:81/%c3%bc%20b/c.txt?sig=1"]
        )

    def test_other_fragments_are_told_nothing(self) -> None:
        session_id = self.create()
        ack = self.ask(fragment(session_id, 0, b"req", 7))
        self.assertIsNone(ack["BITS-Reply-URL"])
        ack = self.ask(fragment(session_id, 3, b"uest", 7))
        self.assertIsNotNone(ack["BITS-Reply-URL"])

    def test_a_fragment_that_comes_again_is_told_the_same(self) -> None:
        session_id, url = self.upload()
        ack = self.ask(fragment(session_id, 0, b"request", 7))
        self.assertEqual(ack["BITS-Reply-URL"], url)
        self.assertEqual(len(self.application.urls), 1)

    def test_other_methods_are_not_for_it(self) -> None:
        path = self.path(self.upload()[1])
        ack = self.ask(request(b"PUT", path))
        self.assert_refused(ack, "method-not-allowed")
        self.assertEqual(ack["Allow"], "BITS_POST, GET, HEAD")

    def test_nothing_is_uploaded_there(self) -> None:
        path = self.path(self.upload()[1])
        ack = self.ask(packet(b"Create-Session", target=path))
        self.assert_refused(ack, "destination-forbidden")

    def test_downloads_are_another_matter(self) -> None:
        path = self.path(self.upload()[1])
        self.assertEqual(self.ask(get(b"/BITS-Sessions/Replies/")).status, 405)
        self.serve(Settings(allow_downloads=True))
        self.assertEqual(self.ask(get(b"/BITS-Sessions/Replies/")).status, 404)
        self.assertEqual(self.ask(get(path)).status, 200)

    def test_a_directory_that_is_disabled(self) -> None:
        path = self.path(self.upload()[1])
        self.serve(Settings(enabled=False))
        self.assertEqual(self.ask(get(path)).status, 501)


class StaticTests(ReplyCase):
    """An application that has put its reply elsewhere, or has none."""

    application = Application(None, "https://elsewhere.example/reply")

    def test_the_applications_url_is_passed_on(self) -> None:
        session_id, url = self.upload()
        self.assertEqual(url, "https://elsewhere.example/reply")
        self.assertEqual(self.ask(get(reply_path(session_id))).status, 404)

    def test_without_a_reply_there_is_no_url(self) -> None:
        self.application.reply_url = None
        session_id, url = self.upload()
        self.assertIsNone(url)
        self.assertEqual(self.ask(get(reply_path(session_id))).status, 404)


def reply_path(session_id: bytes) -> bytes:
    """Where a session's reply is, if it has one."""
    return reply_url("", parse_guid(session_id)).encode("ascii")


class EndTests(ReplyCase):
    """A reply goes with its session."""

    def test_an_unknown_session_has_none(self) -> None:
        answer = self.ask(get(reply_path(UNKNOWN_ID)))
        self.assertEqual((answer.status, answer["Content-Length"]), (404, "0"))
        self.assertIsNone(answer["BITS-Packet-Type"])

    def test_it_is_its_owners(self) -> None:
        alice, bob = (self.resource.for_user(name) for name in ("alice", "bob"))
        self.site = self.bits_site(alice)
        path = self.path(self.upload()[1])
        self.assertEqual(self.ask(get(path)).status, 200)
        for other in (bob, self.resource):
            self.site = self.bits_site(other)
            self.assertEqual(self.ask(get(path)).status, 404)

    def test_who_may_no_longer_upload_may_no_longer_read_it(self) -> None:
        authenticator = Authenticator(Identity("alice"))
        policy = Policy()
        self.serve(authenticators=[authenticator], policy=policy)
        path = self.path(self.upload()[1])
        policy.asked.clear()
        self.assertEqual(self.ask(get(path)).status, 200)
        self.assertEqual(policy.asked, [("alice", ("a", "b.txt"), "Reply")])
        policy.answer = AccessDenied("no more")
        self.assertEqual(self.ask(get(path)).status, 403)

    def test_others_do_not_learn_of_it_and_anonymous_clients_are_challenged(
        self,
    ) -> None:
        authenticator = Authenticator(Identity("alice"))
        self.serve(authenticators=[authenticator])
        path = self.path(self.upload()[1])
        for other, status in ((Identity("bob"), 404), (None, 401)):
            authenticator.answer = other
            for one in (path, reply_path(UNKNOWN_ID)):
                answer = self.ask(get(one))
                self.assertEqual(answer.status, status)
                challenge = "Told" if status == 401 else None
                self.assertEqual(answer["WWW-Authenticate"], challenge)

    def test_it_is_gone_after_close_and_cancel(self) -> None:
        for kind in (b"Close-Session", b"Cancel-Session"):
            session_id, url = self.upload()
            self.assert_success(self.ask(packet(kind, session_id)), session_id)
            self.assertEqual(self.ask(get(self.path(url))).status, 404)

    def test_it_is_gone_after_the_time_out(self) -> None:
        path = self.path(self.upload()[1])
        self.clock.advance(self.settings.session_timeout + 1)
        self.assertEqual(self.ask(get(path)).status, 404)

    def stalled(self, path: bytes) -> Peer:
        """A client in the middle of a reply."""
        peer = self.peer()
        channel: Any = peer._channel
        peer.send(packet(b"Ping"))
        peer.received()
        write = channel.transport.write

        def enough(data: bytes) -> None:
            write(data)
            channel.pauseProducing()

        channel.transport.write = enough
        peer.send(get(path))
        return peer

    def test_its_end_ends_who_reads_it_before_the_ack(self) -> None:
        events: list[Any] = []
        globalLogPublisher.addObserver(events.append)
        self.addCleanup(globalLogPublisher.removeObserver, events.append)
        for kind in (b"Close-Session", b"Cancel-Session"):
            session_id, url = self.upload()
            reader = self.stalled(self.path(url))
            self.assertFalse(reader.closed)
            self.assert_success(self.ask(packet(kind, session_id)), session_id)
            self.assertTrue(reader.aborted)
            self.assertIn(b"Content-Length: 1024000", reader.received()[:400])
        broken = [one for one in events if "broke off" in one.get("log_format", "")]
        self.assertEqual(len(broken), 2)
        self.assertEqual(broken[0]["detail"], "the file was closed")
