"""
Bodies of requests for ``twisted.web.client``.

Their lengths are known in advance. At most one chunk of a body is in memory.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IConsumer, IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from zope.interface import implementer

from txbits.client.source import ISource
from txbits.clocks import steady

#: How many bytes are read and written at a time.
CHUNK = 256 * 1024

#: How many seconds a chunk may wait, at most, because of other uploads: a server ends a
#: connection that sends nothing.
_LONGEST_WAIT = 10


@define
class Throttle:
    """
    Limits the rate of one upload, or of several together.

    :ivar clock: The clock.
    :ivar rate: Bytes per second; ``None`` for no limit.
    :ivar uploads: How many uploads there are.
    """

    clock: IReactorTime = field(converter=steady)
    rate: int | None = None
    uploads: int = 1
    _free_at: float = field(init=False, default=0.0)

    @property
    def chunk(self) -> int:
        """How many bytes to send at a time, so that the pauses are short."""
        if self.rate is None:
            return CHUNK
        # Each chunk waits for those of all other uploads.
        return max(
            1, min(CHUNK, self.rate // 4, self.rate * _LONGEST_WAIT // self.uploads)
        )

    def pause(self, count: int) -> float:
        """
        Reserve time for bytes to be sent.

        :returns: How many seconds to wait before sending them.
        """
        if self.rate is None:
            return 0.0
        now = self.clock.seconds()
        start = max(now, self._free_at)
        self._free_at = start + count / self.rate
        return start - now


@implementer(IBodyProducer)
class NoBody:
    """
    An empty body. Without a body treq sends no Content-Length, which each packet needs.
    """

    length = 0
    finished = True

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Produce nothing."""
        return succeed(None)

    def pauseProducing(self) -> None:
        """Nothing is being produced."""

    def resumeProducing(self) -> None:
        """Nothing is being produced."""

    def stopProducing(self) -> None:
        """Nothing is being produced."""


@implementer(IBodyProducer)
@define(eq=False)
class RangeBody:
    """
    A range of a source.

    :ivar source: Whose bytes they are.
    :ivar first: Offset of the first byte.
    :ivar length: How many bytes.
    :ivar throttle: Makes it wait.
    :ivar moved: Called with the number of bytes that the transport has taken so far,
        each time that it took some.
    :ivar finished: Whether the transport has taken all of them.
    """

    source: ISource
    first: int
    length: int
    throttle: Throttle
    moved: Callable[[int], None]
    finished: bool = field(init=False, default=False)
    _stopped: bool = field(init=False, default=False)
    _paused: Deferred[None] | None = field(init=False, default=None)
    _call: IDelayedCall | None = field(init=False, default=None)
    _throttled: Deferred[None] | None = field(init=False, default=None)

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        Write the bytes to *consumer*.

        :returns: A Deferred that fires with ``None`` when all are written. It fails
            as the source does, and fires not at all after :meth:`stopProducing`.
        """
        result: Deferred[None] = Deferred(lambda _: self.stopProducing())

        def fail(failure: Failure) -> None:
            if not self._stopped:
                result.errback(failure)

        def end(_: None) -> None:
            if not self._stopped:
                result.callback(None)

        Deferred.fromCoroutine(self._produce(consumer)).addCallbacks(end, fail)
        return result

    async def _produce(self, consumer: IConsumer) -> None:
        done = 0
        while done < self.length:
            offset = self.first + done
            size = min(self.throttle.chunk, self.length - done)
            data = await self.source.read(offset, size)
            seconds = self.throttle.pause(len(data))
            if seconds > 0 and not self._stopped:
                self._throttled = Deferred()
                self._call = self.throttle.clock.callLater(seconds, self._unthrottle)
                await self._throttled
            if self._paused is not None:
                await self._paused
            if self._stopped:
                return
            consumer.write(data)
            done += len(data)
            self.finished = done == self.length
            self.moved(done)

    def pauseProducing(self) -> None:
        """Write nothing until :meth:`resumeProducing`."""
        if self._paused is None:
            self._paused = Deferred()

    def resumeProducing(self) -> None:
        """Go on writing."""
        paused, self._paused = self._paused, None
        if paused is not None:
            paused.callback(None)

    def stopProducing(self) -> None:
        """Write nothing more, ever. Safe to call at any time, and twice."""
        # Nothing is cancelled: this may be called by what moved() calls, while the
        # loop above is running.
        self._stopped = True
        if self._call is not None and self._call.active():
            self._call.cancel()
            self._unthrottle()
        self.resumeProducing()

    def _unthrottle(self) -> None:
        throttled, self._throttled = self._throttled, None
        if throttled is not None:
            throttled.callback(None)
