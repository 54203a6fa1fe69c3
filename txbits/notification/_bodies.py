"""
The bodies of a request and its response: the upload from storage, and the reply to it.

Back-pressure keeps no more of them in memory than the pieces under way.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IProducer, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from txbits._agents import in_words
from txbits._deferreds import Event, begun
from txbits.errors import ApplicationUnreachable, BadAnswer, StagedDataLost
from txbits.interfaces import IReadable, IReply, IWriter


@implementer(IBodyProducer, IConsumer)
@define(eq=False)
class UploadBody:
    """
    An upload as the body of a request.

    It is a producer for the connection, and a consumer for the session.

    :ivar session: The upload.
    :ivar length: Its length in bytes.
    :ivar moved: Called each time the connection has accepted bytes, and when it has
        accepted all of them.
    :ivar is_out: Whether it has accepted all of them.
    :ivar error: Why reading failed, unless it was stopped.
    :ivar ended: Happens when nothing is read any more, or will be.
    """

    session: IReadable
    length: int
    moved: Callable[[], None]
    is_out: bool = field(init=False)
    error: BaseException | None = field(default=None, init=False)
    ended: Event = field(factory=Event, init=False)
    _has_begun: bool = field(default=False, init=False)
    _is_paused: bool = field(default=False, init=False)
    _is_stopped: bool = field(default=False, init=False)
    _sent: int = field(default=0, init=False)
    _consumer: IConsumer | None = field(default=None, init=False)
    _producer: IPushProducer | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.is_out = self.length == 0

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Begin; see :class:`twisted.web.iweb.IBodyProducer`."""
        finished: Deferred[None] = Deferred(lambda _: self.stopProducing())
        if self._is_stopped or not self.length:
            if not self._is_stopped:
                finished.callback(None)
            return finished

        def fail(failure: Failure) -> None:
            self._consumer = None
            if not self._is_stopped:
                self.error = failure.value
                finished.errback(failure)

        def end(_: None) -> None:
            if self._sent < self.length:
                raise StagedDataLost(
                    f"only {self._sent} of {self.length} bytes could be read"
                )
            self._consumer = None
            if not self._is_stopped:
                self.is_out = True
                finished.callback(None)
                self.moved()

        self._consumer = consumer
        self._has_begun = True
        reading = self.session.read_into(self, 0, self.length)
        reading.addCallback(end).addErrback(fail)
        reading.addBoth(lambda _: self.ended.set())
        return finished

    def registerProducer(self, producer: IProducer, streaming: bool) -> None:
        """Called by the session, with what can be paused."""
        self._producer = pausable = IPushProducer(producer)
        if self._is_stopped:
            pausable.stopProducing()
        elif self._is_paused:
            pausable.pauseProducing()

    def unregisterProducer(self) -> None:
        """Called by the session when it is done."""
        self._producer = None

    def write(self, data: bytes) -> None:
        """Called by the session with the next bytes."""
        if self._consumer is None or self._is_stopped:
            return
        self._sent += len(data)
        self._consumer.write(data)
        self.moved()

    def pauseProducing(self) -> None:
        """Called by the connection: it accepts no more for now."""
        self._is_paused = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """Called by the connection: it accepts more."""
        self._is_paused = False
        if self._producer is not None:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """Called by the connection, or to give up: stop for good."""
        if self._is_stopped:
            return
        self._is_stopped = True
        if self._producer is not None:
            self._producer.stopProducing()
        if not self._has_begun:
            self.ended.set()


@define(eq=False)
class ReplyBody(Protocol):
    """
    The body of a response, which is stored as the reply.

    An empty body is not a reply, and opens nothing.

    :ivar reply: Stores the reply.
    :ivar waits: Called with ``True`` when it waits for the application, and with
        ``False`` when it no longer does.
    :ivar error: The failure, if there is one.
    :ivar ended: Happens when the response is over, and the writer closed.
    """

    reply: IReply
    waits: Callable[[bool], None]
    error: BaseException | None = field(default=None, init=False)
    ended: Event = field(factory=Event, init=False)
    _pieces: deque[bytes] = field(factory=deque, init=False)
    _reason: Failure | None = field(default=None, init=False)
    _more: Deferred[None] | None = field(default=None, init=False)

    def connectionMade(self) -> None:
        """Called when there may be bytes."""

        def end(outcome: Failure | None) -> None:
            if outcome is not None:
                self.error = outcome.value
            self.ended.set()

        # Nothing cancels this: a writer is to be waited for, and closed.
        begun(self._written()).addBoth(end)

    def dataReceived(self, data: bytes) -> None:
        """Called with the next bytes."""
        if self.ended.is_set:
            return
        self._pieces.append(data)
        self._wake()
        transport: Any = self.transport
        if self._more is None and transport is not None:
            transport.pauseProducing()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called when the response is over, whatever kind of end it is."""
        self._reason = reason
        self._wake()

    def _wake(self) -> None:
        more, self._more = self._more, None
        if more is not None:
            more.callback(None)

    async def _written(self) -> None:
        writer: IWriter | None = None
        try:
            while (piece := await self._next()) is not None:
                if writer is None:
                    writer = await self.reply.open()
                await writer.write(piece)
        finally:
            if writer is not None:
                await writer.close()
        _check_end(self._reason)

    async def _next(self) -> bytes | None:
        """Wait for bytes; ``None`` at the end."""
        if not self._pieces and self._reason is None:
            self._more = Deferred()
            self.waits(True)
            transport: Any = self.transport
            transport.resumeProducing()
            if self._more is not None:
                await self._more
            self.waits(False)
        return self._pieces.popleft() if self._pieces else None


def _check_end(reason: Failure | None) -> None:
    """Check that a response was complete."""
    if reason is None or reason.check(ResponseDone):
        return
    if reason.check(PotentialDataLoss):
        raise BadAnswer(
            "the application's response has no Content-Length, so it cannot be known "
            "whether its reply is complete"
        )
    raise ApplicationUnreachable(
        f"the application's reply is incomplete: {in_words(reason.value or reason)}"
    )


class Drain(Protocol):
    """
    Reads a body that is not used, so that its sender can finish.

    :ivar ended: Happens when it is over, or longer than it may be.
    """

    def __init__(self, most: int) -> None:
        self._left = most
        self.ended = Event()

    def dataReceived(self, data: bytes) -> None:
        """Called with the next bytes."""
        self._left -= len(data)
        if self._left < 0:
            self.ended.set()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Called when the response is over, whatever kind of end it is."""
        self.ended.set()
