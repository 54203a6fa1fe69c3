"""
What the tests of notification have in common: complete uploads, places for replies, and
an application that the test plays itself, in raw bytes.

``NotifierCase.ask`` begins to ask; ``self.app.request()`` is what was sent then, and
``self.app.answer(...)`` answers. Nothing moves by itself but what the clock moves.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from uuid import UUID

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tests.client.fakes import Connector, HTTPTransport
from txbits.errors import BackendError
from txbits.interfaces import (
    Answer,
    CompleteUpload,
    IAddressable,
    IReadable,
    IReply,
    IWriter,
)
from txbits.notification import HTTPNotifier

SESSION_ID = UUID("c85b4e0a-9eb9-4114-bfa4-8a43b4710091")
REQUEST_URL = "http://upload.example/logs/today.log"
DATA = b"The quick brown fox"


@implementer(IReadable, IAddressable)
@define(eq=False)
class Held:
    """
    A session that holds a complete upload: as much of one as a notifier looks at.

    :ivar data: The upload.
    :ivar place: What its address is.
    :ivar piece: How many bytes are read at a time.
    :ivar error: What reading fails with after the first piece, if it is to.
    :ivar lingers: Whether reading that was stopped goes on until ``over`` is called.
    :ivar is_read: Whether it is being read.
    """

    data: bytes = DATA
    place: str = "/srv/.bits-sessions/{C85B4E0A-9EB9-4114-BFA4-8A43B4710091}/data"
    piece: int = 1 << 16
    error: Exception | None = None
    lingers: bool = False
    session_id: UUID = SESSION_ID
    reading: Reading | None = None

    @property
    def total(self) -> int:
        return len(self.data)

    @property
    def is_read(self) -> bool:
        return self.reading is not None and not self.reading.finished.called

    def address(self) -> str:
        return self.place

    def read_into(self, consumer: IConsumer, start: int, end: int) -> Deferred[None]:
        self.reading = Reading(self, consumer, start, end)
        consumer.registerProducer(self.reading, True)
        self.reading.resumeProducing()
        return self.reading.finished


@implementer(IPushProducer)
@define(eq=False)
class Reading:
    """Feeds an upload to whoever wants it."""

    session: Held
    consumer: IConsumer
    at: int
    end: int
    finished: Deferred[None] = field(factory=Deferred)
    paused: bool = True
    feeding: bool = False

    def resumeProducing(self) -> None:
        self.paused = False
        if self.feeding:
            return
        self.feeding = True
        while not self.paused and not self.finished.called:
            if self.at and self.session.error is not None:
                self.over(self.session.error)
                break
            end = min(self.at + self.session.piece, self.end)
            piece = self.session.data[self.at : end]
            if not piece:
                self.over(None)
                break
            self.at += len(piece)
            self.consumer.write(piece)
        self.feeding = False

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.paused = True
        if not self.session.lingers and not self.finished.called:
            self.over(BackendError("who was reading has gone away"))

    def over(self, error: Exception | None) -> None:
        self.consumer.unregisterProducer()
        if error is None:
            self.finished.callback(None)
        else:
            self.finished.errback(error)


def pause() -> Deferred[None]:
    """Something to wait for, until it is called back."""
    return Deferred()


@implementer(IReply, IWriter)
@define(eq=False)
class Place:
    """
    A place for a reply, and its writer.

    :ivar where: Its address.
    :ivar error: What writing fails with, if it is to.
    :ivar close_error: What closing fails with, if it is to.
    :ivar held: What writing waits for, if it is to.
    :ivar opened: How often it was opened.
    :ivar closed: How often it was closed.
    """

    where: str | None = "/srv/.bits-sessions/{C85B4E0A}/reply"
    error: Exception | None = None
    close_error: Exception | None = None
    held: Deferred[None] | None = None
    pieces: list[bytes] = field(factory=list)
    opened: int = 0
    closed: int = 0

    @property
    def content(self) -> bytes:
        """What was written."""
        return b"".join(self.pieces)

    def address(self) -> str | None:
        return self.where

    def open(self) -> Deferred[IWriter]:
        self.opened += 1
        return succeed(self)

    def write(self, data: bytes) -> Deferred[None]:
        if self.error is not None:
            return fail(self.error)
        self.pieces.append(data)
        held, self.held = self.held, None
        return succeed(None) if held is None else held

    def close(self) -> Deferred[None]:
        self.closed += 1
        return succeed(None) if self.close_error is None else fail(self.close_error)


class _Transport(HTTPTransport):
    """One whose loss is noticed, unless the application holds it."""

    def __init__(self, app: Application) -> None:
        super().__init__()
        self.app = app
        self.protocol: Any = None

    def loseConnection(self) -> None:
        super().loseConnection()
        self.app.clock.callLater(0, self.lost, ConnectionDone())

    def abortConnection(self) -> None:
        self.aborted = True
        if not self.app.lingers:
            self.app.clock.callLater(0, self.lost, ConnectionAborted())

    def lost(self, why: Exception) -> None:
        protocol, self.protocol = self.protocol, None
        if protocol is not None:
            if self.producer is not None:
                self.producer.stopProducing()
            protocol.connectionLost(Failure(why))


@define(eq=False)
class Application(Connector):
    """
    An application that the test plays.

    :ivar clock: Moves what does not happen at once.
    :ivar lingers: Whether connections outlast that they were aborted.
    """

    clock: Clock = field(kw_only=True)
    lingers: bool = False

    def connect(self, factory: Any) -> Deferred[Any]:
        if self.refusal is not None:
            return fail(self.refusal)
        if self.stuck:
            return Deferred()
        protocol = factory.buildProtocol(None)
        transport = _Transport(self)
        transport.slow = self.slow
        transport.protocol = protocol
        self.connections.append((protocol, transport))
        protocol.makeConnection(transport)
        return succeed(protocol)

    @property
    def transport(self) -> Any:
        """The latest connection's."""
        return self.connections[-1][1]

    @property
    def is_connected(self) -> bool:
        """Whether there is any connection."""
        return any(one.protocol is not None for _, one in self._lines)

    @property
    def _lines(self) -> list[tuple[Any, Any]]:
        return list(self.connections)

    def head(self) -> tuple[bytes, dict[bytes, bytes]]:
        """Take a request: its first line, and its headers by lower-case name."""
        return parsed(self.request())[:2]

    def send(self, data: bytes) -> None:
        """Send raw bytes on the latest connection, while it stands."""
        if self.transport.protocol is not None:
            self.transport.protocol.dataReceived(data)

    def close(self) -> None:
        """Close the latest connection."""
        self.transport.lost(ConnectionDone())


def parsed(request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Take a request apart: its first line, its headers, its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    pairs = [one.split(b": ", 1) for one in fields]
    headers = {name.lower(): value for name, value in pairs}
    assert len(headers) == len(pairs), f"a header comes twice: {fields}"
    return line, headers, body


class NotifierCase(SynchronousTestCase):
    """An application, a clock, and a notifier between them."""

    url = "http://app.example/notify"

    def setUp(self) -> None:
        self.clock = Clock()
        self.app = Application(clock=self.clock)
        self.clock.advance(1_800_000_000)
        self.session = Held()
        self.place = Place()

    def successResultOf(self, deferred: Any) -> Any:
        """Its result, once what happens in the reactor's next turn has."""
        self.clock.advance(0)
        return super().successResultOf(deferred)

    def failureResultOf(self, deferred: Any, *kinds: type[Any]) -> Any:
        """Its failure, once what happens in the reactor's next turn has."""
        self.clock.advance(0)
        return super().failureResultOf(deferred, *kinds)

    def assertNoResult(self, deferred: Any) -> None:
        """There is none, not even in the reactor's next turn."""
        self.clock.advance(0)
        super().assertNoResult(deferred)

    def notifier(self, by: Any = "reference", **settings: Any) -> HTTPNotifier:
        """Make one."""
        url = settings.pop("url", self.url)
        return HTTPNotifier(self.clock, url, by=by, endpoints=self.app, **settings)

    def ask(
        self,
        by: Any = "reference",
        *,
        request_url: str = REQUEST_URL,
        attempt: int = 1,
        **settings: Any,
    ) -> Deferred[Answer]:
        """Begin to ask about the session's upload."""
        upload = CompleteUpload(
            session=self.session,  # type: ignore[arg-type]
            request_url=request_url,
            attempt=attempt,
            sha256=sha256(self.session.data).digest(),
        )
        return self.notifier(by, **settings).notify(upload, self.place)

    def answered(self, *lines: bytes, body: bytes = b"", by: Any = "value") -> Answer:
        """Ask, and answer with what is given; the answer."""
        asking = self.ask(by)
        self.app.answer(*lines, body=body)
        answer: Answer = self.successResultOf(asking)
        return answer

    def refused(self, kind: type[Any], *lines: bytes, body: bytes = b"") -> Any:
        """Ask by value, and answer; the error, of the kind given."""
        asking = self.ask("value")
        self.app.answer(*lines, body=body)
        return self.failureResultOf(asking, kind).value
