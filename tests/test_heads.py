"""
Heads of responses that have no end, in memory and over sockets on loopback.

``Hostile`` is a server that answers a request with the same bytes again and again.
"""

from __future__ import annotations

import os
from io import BytesIO
from typing import Any

from attrs import define
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted
from twisted.internet.interfaces import IPullProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.client import Agent, RequestTransmissionFailed, ResponseFailed
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from tests.client.fakes import Connector
from tests.notification.support import Held, Place
from tests.seaweedfs import ENVIRONMENT
from txbits._agents import in_words
from txbits._heads import (
    MOST_BYTES,
    MOST_INTERIM,
    MOST_LINE_BYTES,
    MOST_LINES,
    BoundedPool,
)
from txbits.backends.s3 import S3Backend
from txbits.backends.s3._settings import S3Settings
from txbits.client import (
    ConnectionSettings,
    DownloadFailed,
    UploadFailed,
    download,
    upload,
)
from txbits.errors import ApplicationUnreachable, BackendError
from txbits.interfaces import CompleteUpload
from txbits.notification import HTTPNotifier

reactor: Any = _reactor

STATUS = b"HTTP/1.1 200 OK\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What a server may never stop to send, and what is said of it.
ENDLESS = (
    (STATUS, b"A: b\r\n", "lines"),
    (STATUS, b"A: b\n", "lines"),
    (STATUS, b"A:\r\n b\r\n", "lines"),
    (STATUS, b"WWW-Authenticate: " + b"a" * 4000 + b"\r\n", "bytes of headers"),
    (STATUS + b"A: ", b"b" * 1000, "a header of more than"),
    (b"HTTP/1.1 200 ", b"OK" * 1000, "a header of more than"),
    (b"", b"x" * 1000, "a header of more than"),
    (b"", INTERIM, "interim responses"),
    (b"", b"HTTP/1.1 +100 C\n\n", "interim responses"),
    (b"", b"HTTP/1.1 103 Hints\r\n" + b"Link: x\r\n" * 20 + b"\r\n", "lines"),
)


@implementer(IBodyProducer)
class Unfinished:
    """A body that does not end."""

    length = 10

    def startProducing(self, consumer: Any) -> Deferred[None]:
        return Deferred(lambda _: None)

    def pauseProducing(self) -> None:
        """Nothing is produced."""

    def resumeProducing(self) -> None:
        """Nothing is produced."""

    def stopProducing(self) -> None:
        """Nothing is produced."""


class HeadTests(SynchronousTestCase):
    """One request to a server that is the test."""

    def setUp(self) -> None:
        self.connector = Connector()
        clock = Clock()
        pool = BoundedPool(clock)
        self.agent = Agent.usingEndpointFactory(clock, self.connector, pool)

    def ask(self, body: Any = None) -> Deferred[Any]:
        asking: Deferred[Any] = self.agent.request(
            b"GET", b"http://h/x", bodyProducer=body
        )
        return asking

    @property
    def protocol(self) -> Any:
        return self.connector.connections[-1][0]

    @property
    def transport(self) -> Any:
        return self.connector.connections[-1][1]

    def feed(self, data: bytes, step: int) -> None:
        for start in range(0, len(data), step):
            self.protocol.dataReceived(data[start : start + step])

    def test_what_has_no_end_is_ended(self) -> None:
        for first, again, words in ENDLESS:
            for step in (1, 100, MOST_BYTES):
                for body in (None, Unfinished()):
                    asking = self.ask(body)
                    data = first + again * (2 * MOST_BYTES // len(again) + 2)
                    self.feed(data[: 2 * MOST_BYTES], step)
                    case = (first, again[:40], step)
                    self.assertTrue(self.transport.aborted, case)
                    self.protocol.connectionLost(Failure(ConnectionAborted()))
                    kind = ResponseFailed if body is None else RequestTransmissionFailed
                    error = self.failureResultOf(asking, kind).value
                    self.assertIn(words, in_words(error), case)
                    self.assertTrue(in_words(error).startswith("the response has "))

    def test_what_ends_in_time_is_taken(self) -> None:
        line = b"A: " + b"b" * (MOST_LINE_BYTES - 5) + b"\r\n"
        for head in (
            STATUS,
            INTERIM * MOST_INTERIM + STATUS,
            STATUS + b"A: b\r\n" * (MOST_LINES - 2),
            STATUS + line * 3,
        ):
            for step in (1, 100, MOST_BYTES):
                asking = self.ask()
                self.feed(head + b"\r\n", step)
                self.assertEqual(self.successResultOf(asking).code, 200, head[:60])
                self.protocol.connectionLost(Failure(ConnectionAborted()))

    def test_a_body_may_be_as_long_as_it_likes(self) -> None:
        for step in (100, 1 << 20):
            asking = self.ask()
            body = b"line\n" * MOST_BYTES
            head = STATUS + b"Content-Length: %d\r\n\r\n" % len(body)
            self.feed(head + body[:10], step)
            response = self.successResultOf(asking)
            taken = Taking()
            response.deliverBody(taken)
            self.feed(body[10:], step)
            self.assertEqual(taken.data, body)

    def test_what_stands_between_the_bytes_of_a_body_has_an_end(self) -> None:
        head = STATUS + b"Transfer-Encoding: chunked\r\n\r\n"
        for first, again in (
            (b"1;", b"extension"),
            (b"0\r\n", b"Trailer: x\r\n"),
            (b"0\r\nTrailer: ", b"x"),
            (b"0", b"0"),
        ):
            asking = self.ask()
            self.protocol.dataReceived(head)
            taking = Taking()
            self.successResultOf(asking).deliverBody(taking)
            self.feed(first + again * (2 * MOST_BYTES // len(again)), 1000)
            self.assertTrue(taking.reason.check(ResponseFailed), first)
            self.assertTrue(self.transport.disconnecting, first)

    def test_each_response_of_a_connection_counts_for_itself(self) -> None:
        head = STATUS + b"A: b\r\n" * (MOST_LINES - 4) + b"Content-Length: 0\r\n\r\n"
        for _ in range(10):
            asking = self.ask()
            self.protocol.dataReceived(head)
            self.assertEqual(self.successResultOf(asking).code, 200)
        self.assertEqual(len(self.connector.connections), 1)

    def test_what_follows_a_response_is_not_the_answer_to_the_next_request(
        self,
    ) -> None:
        answers: list[Any] = []
        asking = self.ask()
        asking.addCallback(lambda _: answers.append(self.ask()))
        head = b"Content-Length: 0\r\n\r\n"
        self.protocol.dataReceived(STATUS + head + b"HTTP/1.1 201 Forged\r\n" + head)
        (following,) = answers
        self.assertNoResult(following)
        self.protocol.dataReceived(b"HTTP/1.1 202 True\r\n" + head)
        self.assertEqual(self.successResultOf(following).code, 202)


class Taking(Protocol):
    """Takes a body."""

    def __init__(self) -> None:
        self.data = b""
        self.reason: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.reason = reason


@implementer(IPullProducer)
class Hostile(Protocol):
    """Answers with bytes that never end, for as long as somebody takes them."""

    factory: Any
    transport: Any

    def connectionMade(self) -> None:
        self.begun = False

    def dataReceived(self, data: bytes) -> None:
        if not self.begun:
            self.begun = True
            self.transport.write(self.factory.first)
            self.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.factory.sent += 1
        self.transport.write(self.factory.again * 100)

    def stopProducing(self) -> None:
        """The connection is gone."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.ended.callback(None)
        self.factory.ended = Deferred()


@define(eq=False)
class HostileFactory(Factory):
    """Makes them."""

    first: bytes
    again: bytes
    protocol = Hostile

    def __attrs_post_init__(self) -> None:
        self.sent = 0
        self.ended: Deferred[None] = Deferred()


class HostileCase(TestCase):
    """Servers that do not end."""

    timeout = 60

    def hostile(self, first: bytes, again: bytes) -> tuple[str, HostileFactory]:
        factory = HostileFactory(first, again)
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return f"http://127.0.0.1:{port.getHost().port}", factory


class ClientTests(HostileCase):
    """``txbits`` and such servers."""

    async def test_uploads_give_up_with_a_line(self) -> None:
        for first, again, words in ENDLESS:
            url, factory = self.hostile(first, again)
            ended = factory.ended
            source = BytesIO(b"x" * 100)
            try:
                await upload(source, f"{url}/x", reactor=reactor, retry_for=0)
            except UploadFailed as error:
                self.assertTrue(error.transient)
                self.assertIn(words, str(error))
            else:
                self.fail("it did not fail")
            await ended
            self.assertLess(factory.sent * len(again) * 100, 1 << 24)

    async def test_so_do_downloads(self) -> None:
        for first, again, words in ENDLESS[:2]:
            url, _ = self.hostile(first, again)
            try:
                await download(url, self.mktemp(), reactor=reactor, retry_for=0)
            except DownloadFailed as error:
                self.assertTrue(error.transient)
                self.assertIn(words, str(error))
            else:
                self.fail("it did not fail")

    async def test_so_they_do_behind_a_proxy_that_is_like_that(self) -> None:
        for first, again in (
            (STATUS, b"A: b\r\n"),
            (b"HTTP/1.1 200 ", b"OK"),
            (b"HTTP/1.1 ", b"2"),
        ):
            proxy, factory = self.hostile(first, again)
            ended = factory.ended
            try:
                await upload(
                    BytesIO(b"x"),
                    "https://127.0.0.1:1/x",
                    reactor=reactor,
                    retry_for=0,
                    settings=ConnectionSettings(proxy=proxy),
                )
            except UploadFailed as error:
                self.assertTrue(error.transient)
                self.assertIn("the proxy", str(error))
            else:
                self.fail("it did not fail")
            await ended


class NotificationTests(HostileCase):
    """Server applications that are like that."""

    async def test_they_cannot_be_asked(self) -> None:
        session: Any = Held(data=b"x" * 100)
        told = CompleteUpload(
            session=session, request_url="http://h/a", attempt=1, sha256=bytes(32)
        )
        for first, again, _ in ENDLESS[::3]:
            for by in ("reference", "value"):
                url, factory = self.hostile(first, again)
                ended = factory.ended
                notifier = HTTPNotifier(reactor, url, by=by)
                try:
                    await notifier.notify(told, Place())
                except ApplicationUnreachable as error:
                    self.assertEqual(len(str(error).splitlines()), 1)
                else:
                    self.fail("it did not fail")
                await ended


class StoreTests(HostileCase):
    """A store, or what stands in its place, that is like that."""

    def setUp(self) -> None:
        for name, value in ENVIRONMENT.items():
            before = os.environ.get(name)
            os.environ[name] = value
            if before is None:
                self.addCleanup(os.environ.pop, name)
            else:
                self.addCleanup(os.environ.__setitem__, name, before)

    async def test_it_cannot_be_reached(self) -> None:
        for first, again, words in ENDLESS[::4]:
            url, factory = self.hostile(first, again)
            backend = S3Backend(
                S3Settings(
                    bucket="b",
                    endpoint=url,
                    region="r",
                    timeout=1,
                ),
                reactor,
            )
            try:
                await backend.start()
            except BackendError as error:
                self.assertIn(words, str(error))
            else:
                self.fail("it did not fail")
            self.assertLess(factory.sent * len(again) * 100, 1 << 26)
