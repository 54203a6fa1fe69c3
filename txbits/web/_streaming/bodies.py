"""
The bodies of requests: as they arrive, or as another site has collected them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.web.server import Request
from zope.interface import implementer

from txbits.sessions import IRequestBody

#: How much is read from a socket in a turn of the reactor while a long body arrives, in
#: bytes. Measured: three times as fast as the 64 KiB that Twisted reads otherwise. On
#: eight connections 512 KiB reach 0.8 to 0.9 of what nginx stores in a second, this
#: 0.95. The others wait for a third of a millisecond.
READ_SIZE = 1024 * 1024

#: How much is stored at a time if nobody keeps it, in bytes, and how many such pieces
#: are read in a turn: memory that stays in the cache of a processor until it is in the
#: file. Measured on eight connections: four take 1.25 times the CPU time of nginx,
#: eight 1.19 times; more gain nothing. The others wait for a millisecond or two.
PIECE_SIZE, PIECES = READ_SIZE // 2, 8

#: Shorter bodies do not need such long reads, in bytes.
SHORT_BODY = 64 * 1024

#: How many bytes of a refused body are read and discarded, so that the answer reaches a
#: client that reads it only after it has sent everything. Fragments of Windows are up
#: to 13 MB long.
DRAIN_LIMIT = 16 * 1024 * 1024

#: How many bytes a consumer took from a socket, 0 at its end; and, if no more are to be
#: read until then, a Deferred that fires when they have got where they go.
Taken = tuple[int, Deferred[None] | None]


class _Channel(Protocol):
    """What a body needs of its connection."""

    def await_body(self) -> None: ...
    def pause_body(self) -> None: ...
    def resume_body(self) -> None: ...
    def send_continue(self) -> None: ...
    def abort(self) -> None: ...


@implementer(IRequestBody)
@define(eq=False)
class StreamingBody:
    """
    The body of a request, while it arrives.

    Until :meth:`receive` is called, and while the consumer is busy, nothing is read
    from the socket. So at most two reads of a body are in memory.

    :ivar position: Where in the file its first byte belongs.
    :ivar received: How many bytes have arrived.
    :ivar ended: Whether all of it has arrived.
    :ivar waiting: What has arrived, but is not consumed yet.
    :ivar take: Set by a consumer that can itself take bytes of a long body from the
        socket, given its descriptor and the most that it may take. It returns ``None``
        if they have to be delivered for once, and raises :class:`BlockingIOError` if
        there are none, and :class:`OSError` if the socket is lost.
    """

    _channel: _Channel
    _length: int | None
    _expects_continue: bool
    position: int = 0
    received: int = 0
    ended: bool = False
    waiting: bytearray = field(factory=bytearray, init=False)
    take: Callable[[int, int], Taken | None] | None = field(default=None, init=False)
    _lost: bool = False
    _asked: bool = False
    _consume: Callable[[bytes], Deferred[None]] | None = None
    _store: Callable[[memoryview], Deferred[None] | None] | None = None
    _outcome: Deferred[bool] | None = None
    _consuming: bool = False
    _refused: bool = False
    _when_drained: Callable[[], None] | None = None
    _drained: int = 0

    # For the consumer of the body

    def receive(
        self,
        consume: Callable[[bytes], Deferred[None]],
        store: Callable[[memoryview], Deferred[None] | None] | None = None,
    ) -> Deferred[bool]:
        self._outcome = outcome = Deferred[bool]()
        self._consume, self._store = consume, store
        self._asked = True
        is_coming = not self._lost and not self.ended
        if is_coming and self._expects_continue:
            self._expects_continue = False
            self._channel.send_continue()
        if is_coming and not self.waiting:
            self._channel.await_body()
        else:
            self._flow()
        return outcome

    def stop(self) -> None:
        if self._lost:
            return
        if not self.ended:
            self.lost()
            self._channel.abort()
        elif not self._asked:
            # It has arrived, but no one will read it or answer the request.
            self._channel.abort()

    # For the channel

    def deliver(self, data: bytes | memoryview) -> None:
        """
        Take the next bytes that arrived.

        :param data: A view of memory that is used again only if :attr:`is_stored`.
        """
        self.received += len(data)
        if self._refused:
            self._drained += len(data)
            if self._drained > DRAIN_LIMIT:
                self.stop_draining()
        elif self._consume is None or self._consuming:
            self.waiting += data
            self._channel.pause_body()
        elif self._length is None:
            # Chunks may be tiny. All that arrived in one read are written at once.
            self.waiting += data
        elif not self._lost:
            if isinstance(data, memoryview):
                self._store_now(data)
            else:
                self._feed(data)

    def taken(self, count: int, stored: Deferred[None] | None) -> None:
        """The consumer has taken bytes; see :data:`Taken`."""
        self.received += count
        if stored is not None:
            self._read_on_after(stored)

    @property
    def is_stored(self) -> bool:
        """Whether the consumer is done with bytes before :meth:`deliver` returns."""
        return (
            self._store is not None and self._length is not None and not self._consuming
        )

    def read_over(self) -> None:
        """One read is over, and something of it is waiting."""
        self._flow()

    def end(self) -> None:
        """The last byte has arrived."""
        self.ended = True
        if not self.stop_draining():
            self._flow()

    def lost(self) -> None:
        """No more will arrive. The consumer still gets what has arrived."""
        self._lost = True
        # It is the request's, which has this body.
        self._when_drained = None
        self._flow()

    @property
    def is_chunked(self) -> bool:
        """Whether it is sent in chunks, and its length is not known before its end."""
        return self._length is None

    @property
    def can_be_drained(self) -> bool:
        """
        Whether the rest is short enough to read and discard.

        A client that waits for a 100 Continue may or may not send its body.
        """
        rest = 0 if self._length is None else self._length - self.received
        return rest <= DRAIN_LIMIT and not self._expects_continue

    @property
    def is_held_back(self) -> bool:
        """Whether the client waits for a 100 Continue, which :meth:`receive` sends."""
        return self._expects_continue

    def invite(self) -> None:
        """Tell a client that waits for a 100 Continue to send the body."""
        rest = 0 if self._length is None else self._length - self.received
        if self._expects_continue and rest <= DRAIN_LIMIT and not self._lost:
            self._expects_continue = False
            self._channel.send_continue()

    def drain(self, done: Callable[[], None]) -> None:
        """
        Discard the rest.

        :param done: Called when the body has ended, or proves to be too long.
        """
        self.refuse()
        self._when_drained = done
        self._channel.await_body()

    def stop_draining(self) -> bool:
        """Stop discarding the rest. Return whether it was being discarded."""
        done, self._when_drained = self._when_drained, None
        if done is None:
            return False
        done()
        return True

    def refuse(self) -> None:
        """Discard what has arrived and has not been consumed."""
        self._refused = True
        self.take = None
        self.waiting.clear()

    def _flow(self) -> None:
        """Give the consumer what is waiting, then read on or finish."""
        if self._consume is not None and self.waiting and not self._consuming:
            data = bytes(self.waiting)
            self.waiting.clear()
            self._feed(data)
        if self._consume is None or self._consuming:
            return
        if self.ended or self._lost:
            self._finish(self.ended)
        else:
            self._channel.resume_body()

    def _feed(self, data: bytes) -> None:
        assert self._consume is not None  # noqa: S101
        consumed = self._consume(data)
        if not consumed.called or consumed.result is not None:
            self._read_on_after(consumed)

    def _store_now(self, data: memoryview) -> None:
        assert self._store is not None  # noqa: S101
        try:
            stored = self._store(data)
        except BaseException:  # noqa: BLE001 - the Deferred carries it
            self._failed(Failure())
        else:
            if stored is not None:
                self._read_on_after(stored)

    def _read_on_after(self, consumed: Deferred[None]) -> None:
        self._consuming = True
        if not self.ended:
            self._channel.pause_body()
        consumed.addCallbacks(self._consumed, self._failed)

    def _consumed(self, _: None) -> None:
        self._consuming = False
        self._flow()

    def _failed(self, failure: Failure) -> None:
        self._consuming = False
        self.waiting.clear()
        self._finish(failure)

    def _finish(self, outcome: bool | Failure) -> None:
        waiting, self._outcome = self._outcome, None
        self._consume = self._store = None
        if waiting is not None:
            waiting.callback(outcome)


@implementer(IRequestBody)
@define(eq=False)
class WholeBody:
    """
    A short body, which arrived in one read with its head.

    A :class:`StreamingBody` would be most of the cost of a small upload.
    """

    _channel: _Channel
    _data: bytes
    _asked: bool = False
    _lost: bool = False

    def receive(
        self,
        consume: Callable[[bytes], Deferred[None]],
        store: Callable[[memoryview], Deferred[None] | None] | None = None,
    ) -> Deferred[bool]:
        self._asked = True
        data, self._data = self._data, b""
        consumed = consume(data)
        if consumed.called and consumed.result is None:
            return succeed(True)
        return consumed.addCallback(lambda _: True)

    def stop(self) -> None:
        if not self._asked and not self._lost:
            # No one will read it or answer the request.
            self._channel.abort()

    def lost(self) -> None:
        """Its connection is lost. The body is complete all the same."""
        self._lost = True


@implementer(IRequestBody)
@define(eq=False)
class BufferedBody:
    """A body that a plain site has collected before the resource saw the request."""

    _content: Any

    def receive(
        self,
        consume: Callable[[bytes], Deferred[None]],
        store: Callable[[memoryview], Deferred[None] | None] | None = None,
    ) -> Deferred[bool]:
        async def feed() -> bool:
            # The site closes it when the connection is lost.
            while not self._content.closed:
                data = self._content.read(READ_SIZE)
                if not data:
                    return True
                await consume(data)
            return False

        return Deferred.fromCoroutine(feed())

    def stop(self) -> None:
        """All of it is here already, so there is nothing to stop."""


def body_of(request: Request, position: int) -> IRequestBody:
    """
    The body of *request*, whatever kind of site it came to.

    :param position: Where in the file its first byte belongs.
    """
    whole: WholeBody | None = getattr(request, "whole_body", None)
    if whole is not None:
        return whole
    body: StreamingBody | None = getattr(request, "streaming_body", None)
    if body is None:
        return BufferedBody(request.content)
    body.position = position
    return body
